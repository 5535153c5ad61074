"""The open messages that memory knows: most reports come minutes after their message, and need no disk.

Two dicts that take turns: what is written goes into the young one; when that is half of the capacity it becomes the
old one, and what was old is dropped. So a record stays for at least half the capacity of later writes, at the cost of
one dict operation, and nothing is moved when it is read.

The store lets them take turns only when a group is handed to the disk, so what is not yet durable is always here. The
capacity may be exceeded by what waits for one commit, which has its own bound.
"""

from typing import Final

from dlrproxy.store.group import Key
from dlrproxy.store.port import OpenMessage

MIN_CAPACITY: Final = 2


class Recent:
    """The latest `capacity` records written, and more.

    `generation` counts the turns. What was written while a reader was away at the disk is still here unless two turns
    passed: a reader trusts what it brings back only if fewer did.
    """

    __slots__ = ("_half", "_old", "_young", "generation")

    def __init__(self, capacity: int) -> None:
        self._half = max(capacity, MIN_CAPACITY) // 2
        self._young: dict[Key, OpenMessage] = {}
        self._old: dict[Key, OpenMessage] = {}
        self.generation = 0

    def __len__(self) -> int:
        return len(self._young.keys() | self._old.keys())

    def put(self, key: Key, message: OpenMessage) -> None:
        self._young[key] = message

    def remember(self, key: Key, message: OpenMessage) -> None:
        """Keep what was read from the disk, if there is room until the next turn."""
        if len(self._young) < self._half:
            self._young[key] = message

    def get(self, key: Key) -> OpenMessage | None:
        message = self._young.get(key)
        return message if message is not None else self._old.get(key)

    def discard(self, key: Key) -> None:
        self._young.pop(key, None)
        self._old.pop(key, None)

    def take_turns(self) -> None:
        """Drop the older half if the younger is full."""
        if len(self._young) >= self._half:
            self._old = self._young
            self._young = {}
            self.generation += 1

    def distrust_readers(self) -> None:
        """Something changed that is not kept here: whoever is away at the disk must read again."""
        self.generation += 2
