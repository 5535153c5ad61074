"""The network between the nodes: connections that keep order or do not, are cut, or fall silent.

By default a connection is what TCP makes of it: frames arrive in order; what is sent while the way is blocked comes
when it is free again; when a connection is cut, what is on its way is lost, and each end hears of it by itself, or,
if the way is blocked, not at all; when one end closes it or its process is killed, what that one has sent may arrive,
for its machine sends on, or be lost. A hostile network also loses, doubles and overtakes single frames on a connection
that stays up, which no TCP does.
"""

import random
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from attrs import define, field, frozen

from protocols.peer.frames import Frame, Relayed, decode, decode_frame, encode
from simulation.history import History
from simulation.timeline import Timeline

_REFUSED_S: Final = 0.01  # nobody listens
_TIMEOUT_S: Final = 5.0  # nobody answers: ring.link_settings.connect_timeout_s


class End(Protocol):
    """A node, as the network sees it."""

    name: str  # in the whole world
    node: str  # in what is said on its links
    cluster: str  # its ring

    def reached(self, connection: "Connection") -> None:
        """The connection stands, and both ends know who the other is; or it stood, and is closed already."""

    def heard(self, connection: "Connection", frame: Frame) -> None: ...

    def hung_up(self, connection: "Connection") -> None:
        """The other end has closed it, or its process is gone."""


@define(eq=False)
class Connection:
    """Between two runs of nodes. Either end closes it for itself."""

    ends: tuple[End, End]
    number: int
    open: set[str] = field(factory=set)  # names of the ends that have not closed it
    lost: set[str] = field(factory=set)  # by sender: what is on its way arrives no more
    arrives_at: dict[str, float] = field(factory=dict)  # by sender: the last frame; the next one comes later
    stalled: dict[str, deque[Frame]] = field(factory=dict)  # by sender: waits for the way to be free

    def other(self, name: str) -> End:
        first, second = self.ends
        return second if first.name == name else first


@frozen
class Weather:
    """What the network does to single frames, at this time."""

    delay_s: tuple[float, float] = (0.001, 0.03)
    loss: float = 0.0
    double: float = 0.0
    overtake: float = 0.0


class Network:
    def __init__(
        self, timeline: Timeline, choose: random.Random, history: History, check: Callable[[End, End, Frame], None]
    ) -> None:
        """`check` raises for a frame that may not be sent by that end to that one."""
        self.weather = Weather()
        self._timeline = timeline
        self._choose = choose
        self._history = history
        self._check = check
        self._blocked: set[tuple[str, str]] = set()  # directions
        self._connections: dict[int, Connection] = {}
        self._running: dict[str, End] = {}
        self._count = 0

    # Processes

    def appeared(self, end: End) -> None:
        self._running[end.name] = end

    def vanished(self, end: End, *, silently: bool) -> None:
        """Its process is gone. `silently`: its machine, too, so that nobody closes its connections."""
        if self._running.get(end.name) is end:
            del self._running[end.name]
        for connection in self._of(end.name):
            self._leave(connection, end.name)
            if not silently:
                self._tell_end(connection, connection.other(end.name))
            self._forget_if_done(connection)

    def _of(self, name: str) -> list[Connection]:
        return [each for each in self._connections.values() if name in (each.ends[0].name, each.ends[1].name)]

    # Ways

    def block(self, sender: str, receiver: str) -> None:
        """Nothing passes in that direction until `free`."""
        self._blocked.add((sender, receiver))

    def free(self, sender: str, receiver: str) -> None:
        """What TCP sends again arrives now, if both ends still have the connection."""
        self._blocked.discard((sender, receiver))
        for connection in self._of(sender):
            if connection.other(sender).name != receiver:
                continue
            stalled = connection.stalled.pop(sender, ())
            for frame in stalled:
                self._carry(connection, sender, frame)
            if len(connection.open) == 1 and receiver in connection.open:
                self._tell_end(connection, connection.other(sender))

    def free_all(self) -> None:
        for sender, receiver in sorted(self._blocked):
            self.free(sender, receiver)

    def cut(self, one: str, other: str) -> None:
        """Reset the connection between the two; they may connect again at once."""
        for connection in self._of(one):
            if connection.other(one).name == other:
                connection.lost.update(end.name for end in connection.ends)
                for end in connection.ends:
                    self._tell_end(connection, end)
                connection.open.clear()
                self._forget_if_done(connection)

    # Connections

    def dial(self, dialler: End, to: str, failed: Callable[[], None]) -> None:
        """Ends in `reached` at both ends, or in `failed`."""
        listener = self._running.get(to)
        if {(dialler.name, to), (to, dialler.name)} & self._blocked:
            self._timeline.after(_TIMEOUT_S, failed)
        elif listener is None:
            self._timeline.after(_REFUSED_S, failed)
        else:
            shaken_at = self._timeline.now + 4 * self._delay()
            self._timeline.at(shaken_at, lambda: self._connect(dialler, listener, failed))

    def _connect(self, dialler: End, listener: End, failed: Callable[[], None]) -> None:
        here = self._running.get(dialler.name) is dialler and self._running.get(listener.name) is listener
        if not here or {(dialler.name, listener.name), (listener.name, dialler.name)} & self._blocked:
            failed()
            return
        self._count += 1
        connection = Connection((dialler, listener), self._count, {dialler.name, listener.name})
        self._connections[connection.number] = connection
        for end in self._shuffled(connection.ends):
            self._timeline.after(self._delay(), partial(end.reached, connection))

    def _shuffled(self, ends: tuple[End, End]) -> list[End]:
        return self._choose.sample(ends, 2)

    def close(self, connection: Connection, end: End) -> None:
        """By that end. The other one hears of it if the way is free."""
        if end.name not in connection.open:
            return
        self._leave(connection, end.name)
        self._tell_end(connection, connection.other(end.name))
        self._forget_if_done(connection)

    def _leave(self, connection: Connection, name: str) -> None:
        connection.open.discard(name)
        if self._choose.random() < 0.5:
            connection.lost.add(name)

    def _tell_end(self, connection: Connection, end: End) -> None:
        """After what has been sent before, if that arrives."""
        sender = connection.other(end.name).name

        def told() -> None:
            if (sender, end.name) not in self._blocked:
                connection.open.discard(end.name)
                self._forget_if_done(connection)
                end.hung_up(connection)

        sent_before = 0.0 if sender in connection.lost else connection.arrives_at.get(sender, 0.0)
        self._timeline.at(max(self._timeline.now + self._delay(), sent_before), told)

    def _forget_if_done(self, connection: Connection) -> None:
        if not connection.open:
            self._connections.pop(connection.number, None)

    # Frames

    def send(self, connection: Connection, sender: str, frame: Frame) -> None:
        receiver = connection.other(sender)
        self._check(connection.other(receiver.name), receiver, frame)
        if self._history.frames:
            self._history.note("frame", _trace_of(frame), sender, f"to {receiver.name}: {frame}")
        weather, choose = self.weather, self._choose
        if weather.loss and choose.random() < weather.loss:
            return
        [copied] = decode(encode([frame]))
        self._carry(connection, sender, copied)
        if weather.double and choose.random() < weather.double:
            self._carry(connection, sender, copied, late=True)

    def _carry(self, connection: Connection, sender: str, frame: Frame, *, late: bool = False) -> None:
        receiver = connection.other(sender).name
        if (sender, receiver) in self._blocked:
            connection.stalled.setdefault(sender, deque()).append(frame)
            return
        now = self._timeline.now
        weather = self.weather
        if late or (weather.overtake and self._choose.random() < weather.overtake):
            arrives_at = now + self._choose.uniform(0.0, 20 * weather.delay_s[1])
        else:
            arrives_at = max(now + self._delay(), connection.arrives_at.get(sender, 0.0))
            connection.arrives_at[sender] = arrives_at
        self._timeline.at(arrives_at, lambda: self._arrive(connection, sender, frame))

    def _arrive(self, connection: Connection, sender: str, frame: Frame) -> None:
        end = connection.other(sender)
        if end.name not in connection.open or sender in connection.lost:
            return  # lost with the connection
        if (sender, end.name) in self._blocked:
            connection.stalled.setdefault(sender, deque()).append(frame)
        else:
            end.heard(connection, frame)

    def _delay(self) -> float:
        return self._choose.uniform(*self.weather.delay_s)


def _trace_of(frame: Frame) -> str:
    if isinstance(frame, Relayed):
        frame = decode_frame(frame.frame)
    envelope = getattr(frame, "envelope", None)
    return "" if envelope is None else str(envelope.trace)
