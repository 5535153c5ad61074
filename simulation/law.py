"""What no frame may do, whatever fails: go round longer than its ring is, come to a node twice in a lap, or find a way
back across the join. Judged by each frame as it is sent, and by nothing else.
"""

from collections.abc import Mapping

from protocols.peer.frames import Forward, Frame, Heartbeat, Joined, Relayed, decode_frame
from ring.far import cluster_of, is_far, node_of
from simulation.network import End
from simulation.wrong import FoundError, Wrong


class Law:
    def __init__(self, sizes: Mapping[str, int]) -> None:
        """`sizes`: how many nodes each ring has at most, by its cluster."""
        self._sizes = sizes

    def check(self, sender: End, receiver: End, frame: Frame) -> None:
        """Raises FoundError."""
        if is_far(sender.node):
            self._check_across(sender, receiver, frame)
        elif isinstance(frame, Relayed):
            self._check_to_or_from_gate(sender, receiver, frame)
        elif isinstance(frame, Forward):
            self._check_lap(receiver.cluster, receiver.node, frame, abroad=is_far(frame.envelope.origin))

    def _check_across(self, sender: End, receiver: End, frame: Frame) -> None:
        if isinstance(frame, Heartbeat) or (isinstance(frame, Joined) and not frame.gates):
            return
        if not isinstance(frame, Relayed):
            raise _unlawful("", f"a bare {type(frame).__name__} crosses from {sender.node} to {receiver.node}")
        if (cluster_of(frame.sender), cluster_of(frame.to)) != (cluster_of(sender.node), cluster_of(receiver.node)):
            raise _unlawful("", f"from {frame.sender} to {frame.to} by way of {sender.node} and {receiver.node}")
        self._check_relayed(frame)

    def _check_to_or_from_gate(self, sender: End, receiver: End, frame: Relayed) -> None:
        """A link of one ring: the first of the three, or the last."""
        first = (cluster_of(frame.sender), node_of(frame.sender)) == (sender.cluster, sender.node)
        last = (cluster_of(frame.to), node_of(frame.to)) == (receiver.cluster, receiver.node)
        if first == last:
            raise _unlawful("", f"from {frame.sender} to {frame.to} by way of {sender.name} and {receiver.name}")
        self._check_relayed(frame)

    def _check_relayed(self, relayed: Relayed) -> None:
        frame = decode_frame(relayed.frame)
        if not isinstance(frame, Forward):
            return
        if frame.envelope.origin != node_of(relayed.sender):
            raise _unlawful(frame.envelope.trace, f"of {frame.envelope.origin}, is sent across by {relayed.sender}")
        self._check_lap(cluster_of(relayed.to), node_of(relayed.to), frame, abroad=True)

    def _check_lap(self, cluster: str, receiver: str, frame: Forward, *, abroad: bool) -> None:
        """In a ring that is not its origin's it is one link further."""
        trace = frame.envelope.trace
        most = self._sizes[cluster] - 1 + abroad
        if frame.hop > most:
            raise _unlawful(trace, f"hop {frame.hop}; the most is {most}")
        if receiver in frame.visited:
            raise _unlawful(trace, f"to {receiver} again in one lap")


def _unlawful(trace: str, what: str) -> FoundError:
    return FoundError(Wrong.UNLAWFUL, trace, what)
