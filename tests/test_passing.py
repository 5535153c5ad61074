"""A node that is asked about another one's report (ring/passing.py)."""

from protocols.peer.frames import Envelope, EnvelopeKey, Forward, LapDone
from ring.commands import Ask, Send
from ring.custody import Custody
from ring.topology import Topology

KEY = EnvelopeKey(b"originid", 1 << 32 | 1)
REPORT = Envelope(KEY, "n0", "acme", "dlr", b"59113978", b"", b"pdu", "t1", True)


def lap(number, *, inexact):
    return Forward(REPORT, lap=number, hop=1, visited=("n0",), inexact=inexact, age_s=0.0)


def test_a_look_up_for_the_exact_id_is_no_answer_to_a_lap_for_any():
    """A late copy of an earlier lap is looked up when the next one comes, whose answer may let a policy decide."""
    machine = Custody(topology=Topology(["n0", "n1"], "n1"), store_id=b"askedsid", run=1)
    machine.reachable({"n0": 2}, 0.0)
    assert machine.frame("n0", lap(1, inexact=False), 0.0) == [Ask(REPORT, inexact=False)]
    assert machine.frame("n0", lap(2, inexact=True), 0.0) == []
    assert machine.asked(KEY, None, 0.0) == [Ask(REPORT, inexact=True)]
    [answer] = [command for command in machine.asked(KEY, None, 0.0) if isinstance(command, Send)]
    assert isinstance(answer.frame, LapDone)
    assert (answer.to, answer.frame.lap) == ("n0", 2)
