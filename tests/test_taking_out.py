"""A node is taken out of a quorum that runs, to the end of its rows, and another one added: as docs/quorum.md says."""

import re

import pytest
import trio
from click.testing import CliRunner
from galera_cluster import shared_cluster

from chaos.quorum.configuration import NODES, file
from chaos.quorum.stage import set_up
from dlrproxy.cli import main

pytestmark = pytest.mark.processes

*STAYING, LEAVING = NODES


async def test_a_node_is_taken_out_and_forgotten_and_one_added_while_the_others_serve(tmp_path):
    cluster = await trio.to_thread.run_sync(shared_cluster)
    async with set_up(tmp_path, rate=30.0, seed=1, cluster=cluster) as stage:

        async def forget():
            arguments = ["db", "forget", str(file(stage.directory, STAYING[0])), LEAVING]
            return await trio.to_thread.run_sync(CliRunner().invoke, main, arguments)

        async def differing():
            found = [await stage.status(name) for name in STAYING]
            return [{each.node for each in status.quorum.differences} for status in found if status is not None]

        assert await stage.nodes[LEAVING].stop(100)
        assert f"{LEAVING} is among the [[peers]]" in (await forget()).output
        before = {name: file(stage.directory, name).read_text() for name in STAYING}
        for name in STAYING:
            written = file(stage.directory, name)
            text, count = re.subn(rf'\[\[peers\]\]\nname = "{LEAVING}"\nurl = .*\n', "", before[name])
            assert count == 1
            written.write_text(text)
            stage.nodes[name].hang_up()

        async def named():
            return await differing() == [{LEAVING}, {LEAVING}]

        async def forgotten():
            return (await forget()).exit_code == 0

        async def unknown():
            return await differing() == [set(), set()]

        await stage.until(named, f"{LEAVING} is in the database, and no peer")
        await stage.until(forgotten, f"{LEAVING} is forgotten")  # once it was taken over from
        await stage.until(unknown, f"{LEAVING} is unknown")
        await stage.serving(*STAYING)

        for name in STAYING:
            file(stage.directory, name).write_text(before[name])
            stage.nodes[name].hang_up()
        await stage.until(named, f"{LEAVING} is a peer, and has never served")
        stage.nodes[LEAVING].start()
        await stage.serving(*NODES)
        await stage.until(unknown, "all are set alike")
