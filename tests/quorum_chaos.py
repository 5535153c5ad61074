"""`make chaos-quorum`: a quorum under load, while everything breaks in an order that the seed repeats, for MINUTES."""

import statistics
import sys
import tempfile
import time
from pathlib import Path
from random import Random, SystemRandom

import click
import trio
from quorum_scene import NODES, Scene, quorum_scene


def _faults(scene: Scene, random: Random):
    """One of each kind, at any node, in any order."""
    one = random.sample(NODES, len(NODES))
    every = [
        lambda: scene.kill_database(one[0], away_s=random.uniform(0.5, 8)),
        lambda: scene.kill_node(one[1], away_s=random.uniform(0.1, 6)),
        lambda: scene.kill_both(one[2], away_s=random.uniform(1, 15)),
        lambda: scene.isolate(one[0]),
        lambda: scene.kill_two(one[1], one[2]),
        lambda: scene.pause_database(one[1], for_s=random.uniform(0.5, 8)),
        lambda: scene.pause_node(one[2], for_s=random.uniform(1, 15)),
        scene.kill_all_databases,
        scene.restart_rolling,
    ]
    return random.sample(every, len(every))


async def _play(minutes: float, seed: int, rate: float) -> list[str]:
    random = Random(seed)
    directory = Path(tempfile.mkdtemp(prefix="dlrproxy-chaos-quorum-"))
    async with quorum_scene(directory, rate=rate, seed=seed) as scene:
        ends = time.monotonic() + 60 * minutes
        while time.monotonic() < ends:
            for fault in _faults(scene, random):
                if time.monotonic() >= ends:
                    break
                await fault()
                episode = scene.episodes[-1]
                click.echo(f"{episode.ended - episode.began:6.1f} s  {episode.what}")
        await scene.rest()
        problems = await scene.problems()
        await _show(scene)
    return problems


async def _show(scene: Scene) -> None:
    found: dict[str, list[float]] = {}
    for what, seconds in scene.outages():
        found.setdefault(what, []).append(seconds)
    click.echo("seconds between two accepted messages of one gateway: median and worst")
    for what, each in sorted(found.items()):
        click.echo(f"{statistics.median(each):7.1f} {max(each):6.1f}  {what}, {len(each)} times")
    click.echo(await scene.counted())


@click.command()
@click.option("--minutes", default=10.0, show_default=True, type=click.FloatRange(0, min_open=True))
@click.option("--seed", type=int, help="Of the schedule and of what the simulators draw.  [default: any]")
@click.option("--rate", default=60.0, show_default=True, help="Messages a second over all gateways.")
def main(minutes: float, seed: int | None, rate: float) -> None:
    """Nothing may be lost, or be at the wrong gateway."""
    seed = SystemRandom().randrange(1_000_000) if seed is None else seed
    click.echo(f"{minutes:g} minutes of faults, {rate:g} messages a second, seed {seed}")
    problems = trio.run(_play, minutes, seed, rate)
    if problems:
        click.echo("\n".join(("FOUND:", *problems[:50], f"seed {seed}")))
        sys.exit(1)
    click.echo("nothing lost, nothing elsewhere, nothing repeated without a reason")


if __name__ == "__main__":
    main()
