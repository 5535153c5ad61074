"""Who talks to whom: the gateway that last sent to a subscriber from a number, so that the answer finds it.

In memory, and so forgotten by a restart. Bounded: two generations, of which the older is dropped when the younger is
full, so that who was silent for longest is forgotten.
"""

from typing import Final

MAX_CONVERSATIONS: Final = 100_000  # some 15 MB

_Entry = tuple[str, float]  # the gateway, and when it wrote


class Conversations:
    """One node's, over all operators: an answer may come in from another operator than the message went out to."""

    __slots__ = ("_before", "_full_at", "_keep_s", "_recent", "_stamp", "enabled")

    def __init__(self, keep_s: float, most: int = MAX_CONVERSATIONS) -> None:
        """`keep_s` is `mo.conversation_s`; 0: nothing is remembered."""
        self._keep_s = keep_s
        self.enabled = keep_s > 0
        self._full_at = max(1, most // 2)
        # By number and subscriber, joined: a third of the time and half of the memory that a tuple of both takes.
        self._recent: dict[bytes, _Entry] = {}
        self._before: dict[bytes, _Entry] = {}
        self._stamp: _Entry = ("", 0.0)  # the last entry, for the rest of its batch

    def __len__(self) -> int:
        """At least as many as are remembered."""
        return len(self._recent) + len(self._before)

    def note(self, number: bytes, subscriber: bytes, gateway: str, now: float) -> int:
        """The gateway has sent an MT. Both addresses are digits. Returns how many others this made us forget too soon.

        Called for every MT: 0.2 us, and twice that where every subscriber is a new one.
        """
        stamp = self._stamp
        if stamp[1] != now or stamp[0] != gateway:
            stamp = self._stamp = (gateway, now)
        recent = self._recent
        recent[number + b" " + subscriber] = stamp
        return 0 if len(recent) < self._full_at else self._turn_over(now)

    def _turn_over(self, now: float) -> int:
        dropped, self._before, self._recent = self._before, self._recent, {}
        silent_since = now - self._keep_s
        return sum(since > silent_since and key not in self._before for key, (_, since) in dropped.items())

    def gateway(self, number: bytes, subscriber: bytes, now: float) -> str | None:
        """The gateway that the subscriber, who has written to `number`, answers."""
        key = number + b" " + subscriber
        entry = self._recent.get(key) or self._before.get(key)
        if entry is None or entry[1] + self._keep_s <= now:
            return None
        return entry[0]
