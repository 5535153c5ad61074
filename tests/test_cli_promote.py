"""`dlrproxy promote` and `demote`: exit code 0 when the role is reached, and else why not."""

import msgspec
import pytest
from admin_world import FakeNode, commanding, pair_status, replica, server, standby_status

ACTIVE = pair_status()
STANDBY = standby_status().pair


class PairedNode(FakeNode):
    """Its pair goes through `story`, one step for every time that its status is asked; the last one stays."""

    def __init__(self, *story):
        super().__init__()
        self.answer = standby_status()
        self.story = list(story)

    def status(self):
        pair = self.story.pop(0) if len(self.story) > 1 else self.story[0]
        self.answer = standby_status(pair=pair)
        return self.answer


def changed(pair, **changes):
    return msgspec.structs.replace(pair, **changes)


PROMOTED = changed(ACTIVE, serving=False, epoch=8)
SERVING = changed(ACTIVE, epoch=8)


async def said(node, tmp_path, *arguments):
    async with commanding(node, tmp_path) as run:
        return await run(*arguments)


async def test_a_promotion_is_done_when_the_node_serves(tmp_path):
    node = PairedNode(STANDBY, changed(STANDBY, role="catching-up", refused=""), PROMOTED, SERVING)
    result = await said(node, tmp_path, "promote")
    assert (result.exit_code, result.output) == (0, "active, epoch 8\n")
    assert node.promotions == ["promote"]


async def test_it_is_harmless_at_an_active(tmp_path):
    result = await said(PairedNode(ACTIVE), tmp_path, "promote", "--wait", "0")
    assert (result.exit_code, result.output) == (0, "active, epoch 7\n")


async def test_one_that_is_refused_says_why(tmp_path):
    why = "the peer's database server takes writes: it is active, or may be at once"
    result = await said(PairedNode(changed(STANDBY, refused=why)), tmp_path, "promote", "--wait", "0")
    assert result.exit_code == 1
    assert why in result.output


async def test_force_is_passed_on(tmp_path):
    node = PairedNode(ACTIVE)
    await said(node, tmp_path, "promote", "--force")
    assert node.promotions == ["force"]


@pytest.mark.parametrize(
    "pair",
    [
        STANDBY,
        changed(STANDBY, role="failed", own=None),
        changed(STANDBY, role="fenced", own=server(), manages_database=False),
    ],
)
async def test_a_node_that_does_not_serve_has_handed_over(tmp_path, pair):
    result = await said(PairedNode(pair), tmp_path, "demote", "--wait", "0")
    assert result.exit_code == 0
    assert result.output == f"{pair.role}: {pair.why}\n"


async def test_an_active_hands_over_and_only_a_server_that_takes_no_writes_is_handed_over(tmp_path):
    fenced = changed(ACTIVE, role="fenced", serving=False)
    done = changed(STANDBY, own=replica(replicates=False))
    node = PairedNode(ACTIVE, changed(ACTIVE, serving=False), fenced, done)
    result = await said(node, tmp_path, "demote")
    assert result.exit_code == 0
    assert node.promotions == ["demote"]
    assert node.answer.pair == done


async def test_one_that_takes_longer_is_said_to(tmp_path):
    result = await said(PairedNode(ACTIVE), tmp_path, "demote", "--wait", "0")
    assert result.exit_code == 1
    assert "goes on to hand over" in result.output
