"""What a node does now and then for its own store: the run counter, the clock's high-water mark, expiry."""

from collections import Counter
from collections.abc import Callable, Container
from typing import Final

import trio

from dlrproxy.clock import NodeClock
from dlrproxy.logs import RouteLog, logger
from dlrproxy.store.port import OpenMessage, Store, StoreError, Table
from dlrproxy.store.shared import ClockedStore
from protocols.smpp.message_ids import Rule

_RUN: Final = b"run"
_CLOCK: Final = b"clock"
_RULE: Final = b"rule/"  # and the operator's name
_RULES: Final = frozenset(rule.value for rule in Rule)
_CLOCK_EVERY_S: Final = 10.0  # after a crash with the wall clock set back, ages may repeat this much
_EXPIRE_EVERY_S: Final = 60.0  # expiry is counted in minutes
_EXPIRE_BATCH: Final = 2_000  # at a time, so that the loop and the disk are not held for long


async def read_clock(store: Store) -> float:
    """The last reading that an earlier run wrote down, 0.0 for a new store. Raises StoreError."""
    value = await store.get(Table.META, _CLOCK)
    return 0.0 if value is None else _number(value, "clock")


async def read_clocks(store: ClockedStore) -> dict[str, float | None]:
    """The last reading that each other node of a cluster which is there has written down; None: it is damaged.

    Raises StoreError when they cannot be read.
    """
    readings: dict[str, float | None] = {}
    for node, value in (await store.of_others(_CLOCK)).items():
        try:
            readings[node] = _number(value, "clock")
        except StoreError:
            readings[node] = None
    return readings


def write_clock(store: Store, clock: NodeClock) -> None:
    """Write the present reading down, for the next run."""
    store.put(Table.META, _CLOCK, b"%.3f" % clock.now())


async def next_run(store: Store) -> int:
    """Count this start, durably: what is numbered with it is never numbered so again. `Store.run` must be running.

    Raises StoreError.
    """
    value = await store.get(Table.META, _RUN)
    run = 1 if value is None else int(_number(value, "run")) + 1
    store.put(Table.META, _RUN, b"%d" % run)
    durable = trio.Event()
    store.after_durable(durable.set)
    await durable.wait()
    return run


async def learned_rules(store: Store) -> list[tuple[str, Rule, int]]:
    """What an earlier run learned of message ids: operator, rule, evidence. Raises StoreError.

    A rule that only a later release knows is left out, to be learned anew.
    """
    found = []
    after = _RULE
    while rows := await store.scan(Table.META, after):
        for key, value in rows:
            if key.startswith(_RULE):
                operator = key.removeprefix(_RULE).decode()
                rule, _, evidence = value.decode().partition(" ")
                if rule in _RULES:
                    found.append((operator, Rule(rule), int(evidence)))
                else:
                    logger("store").warning("store.unknown_rule", operator=operator, rule=rule)
        after = rows[-1][0]
    return found


def write_rule(store: Store, operator: str, learned: tuple[Rule, int] | None) -> None:
    """Keep what was learned for the next start; None: nothing is learned any more."""
    key = _RULE + operator.encode()
    if learned is None:
        store.delete(Table.META, key)
    else:
        rule, evidence = learned
        store.put(Table.META, key, f"{rule.value} {evidence}".encode())


def _number(value: bytes, name: str) -> float:
    try:
        return float(value)
    except ValueError as error:
        raise StoreError(f"the store's {name!r} is {value!r}: written by something else, or damaged") from error


def always() -> bool:
    """For a node whose open messages nobody else expires."""
    return True


class Housekeeping:
    def __init__(
        self,
        store: Store,
        clock: NodeClock,
        routes: RouteLog,
        named: Callable[[], Container[str]] = tuple,
        expires: Callable[[], bool] = always,
    ) -> None:
        """`named`: the operators of which every message that expires has an event (`expired_events`).

        `expires`: whether expiry is this node's to do, at the time.
        """
        self.expired: Counter[str] = Counter()  # by operator: open messages whose time was up without a final report
        self._store = store
        self._clock = clock
        self._routes = routes
        self._named = named
        self._expires = expires
        self._log = logger("store")

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write_clock)
            nursery.start_soon(self._expire)

    async def _write_clock(self) -> None:
        while True:
            write_clock(self._store, self._clock)
            await trio.sleep(_CLOCK_EVERY_S)

    async def _expire(self) -> None:
        while True:
            await trio.sleep(_EXPIRE_EVERY_S)
            if not self._expires():
                continue
            try:
                await self.expire()
            except StoreError as error:  # the store decides itself when it is lost (`Store.run`)
                self._log.warning("store.expiry_put_off", detail=str(error))

    async def expire(self) -> None:
        """Delete every open message whose time is up. Raises StoreError."""
        count, more = 0, True
        while more and self._expires():
            expired = await self._store.expire(self._clock.now(), _EXPIRE_BATCH)
            unreported, more = expired.unreported, expired.more
            named = self._named()
            for message in unreported:
                self.expired[message.operator] += 1
                if message.operator in named:
                    self._say_expired(message)
            count += len(unreported)
        if count:
            self._log.info("store.expired", unreported=count)

    def _say_expired(self, message: OpenMessage) -> None:
        self._routes.event(
            "dlr",
            "expired",
            trace="",
            operator=message.operator,
            message_id=message.message_id,
            gateway=message.owner,
            destination=message.destination,
        )
