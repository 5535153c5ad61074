"""When the binds at an operator ended last, kept over restarts: for operators that want `rebind_wait_s` in between.

The end of a bind is noted when it ends. For an end that nobody lives to note (kill -9), it is noted every few seconds
that the bind is up; it may then have lived until the next note.
"""

from collections.abc import Callable, Iterable
from typing import Final

from dlrproxy.config.operator import Operator
from dlrproxy.store.port import Store, StoreError, Table

UP_EVERY_S: Final = 5.0  # one small group commit; a wait after a kill is longer by this at most

_KEY: Final = b"bind/"  # the operator's name, "/", the bind's name
_UP: Final = b"up"
_ENDED: Final = b"ended"


class LastBinds:
    """Of one operator. Without `rebind_wait_s` nothing is written."""

    def __init__(self, store: Store, operator: Operator, now: Callable[[], float]) -> None:
        """`now` is the node's clock, which goes on over restarts."""
        self._store = store
        self._operator = operator.name.encode()
        self._now = now
        self.wait_s = operator.rebind_wait_s

    def up(self, names: Iterable[str]) -> None:
        """These binds are up now."""
        self._note(_UP, names)

    def ended(self, name: str) -> None:
        self._note(_ENDED, (name,))

    def _note(self, what: bytes, names: Iterable[str]) -> None:
        if self.wait_s:
            for name in names:
                self._store.put(Table.META, self._key(name), b"%b %.3f" % (what, self._now()))

    async def rest_s(self, name: str) -> float:
        """Seconds that the next bind has to wait still. Raises StoreError."""
        if not self.wait_s:
            return 0.0
        value = await self._store.get(Table.META, self._key(name))
        if value is None:
            return 0.0
        what, _, moment = value.partition(b" ")
        try:
            last = float(moment)
        except ValueError as error:
            raise StoreError(f"the store's {self._key(name)!r} is {value!r}: damaged") from error
        if what == _UP:
            last += UP_EVERY_S
        return max(0.0, min(self.wait_s + UP_EVERY_S, last + self.wait_s - self._now()))

    def _key(self, name: str) -> bytes:
        return b"%b%b/%b" % (_KEY, self._operator, name.encode())
