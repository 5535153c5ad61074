"""What goes wrong, by profile: a seed draws one, and then how often and when."""

from collections.abc import Mapping
from typing import Final

from attrs import field, frozen

from ring.settings import Unclaimed
from simulation.gateway import Manners
from simulation.network import Weather
from simulation.traffic import Mix

Counts = tuple[int, int]  # the least and the most in one seed
NONE: Final = (0, 0)


@frozen
class Profile:
    nodes: Counts = (2, 4)
    joined: bool = False  # two such rings, with a join between them; for these there are no reloads
    lasts_s: tuple[float, float] = (10.0, 40.0)  # while things go wrong
    mix: Mix = field(factory=Mix)
    weather: Weather = field(factory=Weather)
    manners: Manners = field(factory=Manners)
    crashes: Counts = NONE  # kill -9, and started again
    crashes_at_writes: Counts = NONE  # while the disk is at the next group
    power_cuts: Counts = NONE
    down_s: tuple[float, ...] = (0.1, 1.0, 5.0, 20.0)  # about so long a node is away that has crashed
    link_cuts: Counts = NONE
    partitions: Counts = NONE  # both directions, for a while
    one_way: Counts = NONE  # one direction only
    slow_disks: Counts = NONE
    full_disks: Counts = NONE
    failing_disks: Counts = NONE
    pauses: Counts = NONE  # SIGSTOP, or the machine is suspended
    wall_jumps: Counts = NONE
    lost_sessions: Counts = NONE
    gateways_down: Counts = NONE
    lost_binds: Counts = NONE  # of the operator
    people: Counts = NONE  # replays and drops of parked rows
    leaves: Counts = NONE  # a node hands its custody on, and stops or stays
    reloads: Counts = NONE  # a node more, or one less
    wipes: Counts = NONE  # a data directory is lost
    cluster: bool = False  # one database for all, instead of a ring
    takeovers: Counts = NONE  # in a cluster, of a node that is dead, stands still, or is very much alive
    claim_for_s: tuple[float, ...] = (60.0,)
    unclaimed: tuple[Unclaimed, ...] = ("park",)
    lap_timeout_s: tuple[float, ...] = (15.0,)  # short: a lap begins while the one before is still on its way
    walk_retry_min_s: tuple[float, ...] = (5.0,)  # short: likewise
    max_messages: tuple[int, ...] = (100_000,)
    max_parked: tuple[int, ...] = (1_000_000,)
    max_walking: tuple[int, ...] = (2_000,)  # few: what has waited takes turns in the little room that is its own


_ROUGH: Final = Manners(temporary=0.1, permanent=0.02, slow=0.03, silent=0.02, room=5)
_LAPS: Final = (2.0, 15.0)
_SHORT: Final = (1.0, 10.0, 30.0)
_POLICIES: Final[tuple[Unclaimed, ...]] = ("park", "local", "drop")

PROFILES: Final[Mapping[str, Profile]] = {
    "calm": Profile(nodes=(1, 5), mix=Mix(messages=(5, 30))),
    "crashes": Profile(crashes=(0, 4), crashes_at_writes=(1, 8), power_cuts=(0, 3), slow_disks=(0, 2)),
    "network": Profile(
        link_cuts=(0, 8), partitions=(0, 4), one_way=(0, 4), weather=Weather((0.001, 0.3)),
        lap_timeout_s=_LAPS,
    ),
    "hostile": Profile(
        weather=Weather((0.001, 0.05), loss=0.05, double=0.3, overtake=0.3), link_cuts=(0, 3), slow_disks=(0, 2),
        lap_timeout_s=_LAPS,
    ),
    "disks": Profile(
        slow_disks=(0, 5), full_disks=(0, 2), failing_disks=(0, 3), crashes_at_writes=(0, 4), power_cuts=(0, 2),
        lap_timeout_s=_LAPS,
    ),
    "gateways": Profile(manners=_ROUGH, lost_sessions=(0, 8), gateways_down=(0, 4), lost_binds=(0, 4)),
    "clocks": Profile(
        pauses=(1, 5), wall_jumps=(0, 3), crashes=(0, 3), claim_for_s=(20.0, 60.0), lap_timeout_s=_LAPS,
    ),
    # Owners that are away when a policy decides.
    "unclaimed": Profile(
        mix=Mix(messages=(10, 30), mo=0.15, nobodys=0.3, after_s=(3.0, 30.0)), claim_for_s=(1.0, 5.0, 10.0, 30.0),
        unclaimed=_POLICIES, crashes=(1, 3), down_s=(1.0, 20.0, 30.0), partitions=(0, 3), people=(0, 5),
        gateways_down=(0, 1), lap_timeout_s=(2.0, 2.0, 15.0),
    ),
    "quotas": Profile(
        mix=Mix(messages=(10, 30), nobodys=0.4), max_messages=(2, 4, 8), max_parked=(0, 1, 3), claim_for_s=_SHORT,
        gateways_down=(0, 4), people=(0, 4), crashes=(0, 2),
    ),
    "reloads": Profile(nodes=(2, 5), reloads=(1, 3), crashes=(0, 2), link_cuts=(0, 3), claim_for_s=(20.0, 60.0)),
    "backlog": Profile(
        nodes=(2, 4), mix=Mix(messages=(10, 40), nobodys=0.2), max_walking=(1, 2, 25), crashes=(0, 4), link_cuts=(0, 4),
        partitions=(0, 2), gateways_down=(1, 4), leaves=(0, 2), people=(0, 4), claim_for_s=(20.0, 60.0),
        lap_timeout_s=_LAPS, manners=_ROUGH,
    ),
    "leaving": Profile(
        nodes=(2, 4),
        leaves=(1, 6),
        crashes_at_writes=(0, 3),
        link_cuts=(0, 3),
        gateways_down=(0, 4),
        lap_timeout_s=_LAPS,
    ),
    # What two nodes may claim: MO for anybody, while laps end before slow claims of them.
    "contested": Profile(
        nodes=(3, 4), mix=Mix(messages=(10, 30), mo=0.9, parts=0.1), gateways_down=(4, 10), slow_disks=(4, 8),
        link_cuts=(0, 15), crashes=(0, 2), lap_timeout_s=(1.0,), walk_retry_min_s=(0.2,),
    ),
    "wiped": Profile(wipes=(1, 2), crashes=(0, 3), link_cuts=(0, 3), claim_for_s=(30.0,)),
    "joined": Profile(
        nodes=(1, 3), joined=True, mix=Mix(mo=0.1), crashes=(0, 4), crashes_at_writes=(0, 3), power_cuts=(0, 2),
        link_cuts=(0, 4), partitions=(0, 3), one_way=(0, 3), slow_disks=(0, 2), full_disks=(0, 1), pauses=(0, 1),
        weather=Weather((0.001, 0.1), loss=0.01, double=0.05, overtake=0.05), lost_sessions=(0, 2),
        gateways_down=(0, 2), lost_binds=(0, 2), people=(0, 3), leaves=(0, 1), wipes=(0, 1), lap_timeout_s=_LAPS,
        claim_for_s=(10.0, 30.0, 60.0), unclaimed=_POLICIES,
    ),
    "cluster": Profile(
        nodes=(2, 4), cluster=True, takeovers=(1, 8), crashes=(0, 4), crashes_at_writes=(0, 6), pauses=(0, 4),
        slow_disks=(0, 2), link_cuts=(0, 3), partitions=(0, 2), gateways_down=(0, 3), lost_sessions=(0, 4),
        manners=_ROUGH,
    ),
    "everything": Profile(
        manners=_ROUGH, weather=Weather((0.001, 0.1), loss=0.01, double=0.02, overtake=0.05), crashes=(0, 4),
        power_cuts=(0, 2), link_cuts=(0, 4), partitions=(0, 2), one_way=(0, 2), slow_disks=(0, 2), full_disks=(0, 1),
        failing_disks=(0, 2), crashes_at_writes=(0, 3), lap_timeout_s=_LAPS, pauses=(0, 2), wall_jumps=(0, 1),
        lost_sessions=(0, 3), gateways_down=(0, 2), lost_binds=(0, 2), people=(0, 3), claim_for_s=(10.0, 30.0, 60.0),
        unclaimed=_POLICIES,
    ),
}  # fmt: skip
