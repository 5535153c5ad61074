"""Runs the asynchronous parts of a node, one step at a time and in virtual time.

A node's lookups are coroutines. Under trio they wait for a disk; here the fake disk says with `pause` how long that
takes, and everything else that they wait for (trio's checkpoints) is over at once. The simulation itself runs inside
one trio task, which never gives way, so that trio's own objects find the surroundings that they need.
"""

import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

import outcome
from attrs import frozen

T = TypeVar("T")


@frozen
class _Pause:
    seconds: float


@types.coroutine
def pause(seconds: float) -> Generator[_Pause, None, None]:
    """Let virtual time pass."""
    yield _Pause(seconds)


class Task(Generic[T]):
    """One coroutine on its way; `done` gets what it returns."""

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, T],
        later: Callable[[float, Callable[[], None]], None],
        done: Callable[[T], None],
    ) -> None:
        self._coroutine = coroutine
        self._later = later
        self._done = done
        self._value: outcome.Value[None] | None = None
        self.over = False

    def step(self) -> None:
        """Go on until it pauses or returns. Raises what it raises."""
        while True:
            try:
                trap = self._coroutine.send(self._value)
            except StopIteration as end:
                self.over = True
                self._done(end.value)
                return
            if isinstance(trap, _Pause):
                self._value = None
                self._later(trap.seconds, self.step)
                return
            self._value = outcome.Value(None)  # a checkpoint: nobody else wants to run

    def abandon(self) -> None:
        """Its process is gone."""
        self._coroutine.close()
