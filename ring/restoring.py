"""From a row of custody that was found on disk at the start to the item that it was written of."""

from ring.items import Item, State
from ring.rows import CustodyRow, Kind

_RESTORED = {
    Kind.ORIGIN: State.LINED_UP,
    Kind.GRANTED: State.GRANTED,
    Kind.CLAIM: State.HELD,
    Kind.HEIR: State.HELD,
    Kind.DELIVERED: State.DELIVERED,
}


def restored(row: CustodyRow, now: float) -> Item:
    """Of any kind but DECISION, which is no item's. It is of the backlog."""
    return Item(
        envelope=row.envelope,
        accepted_at=min(row.accepted_at, now),
        state=_RESTORED[row.kind],
        claimed=row.kind in (Kind.CLAIM, Kind.HEIR, Kind.DELIVERED),
        heir=row.kind is Kind.HEIR,
        gateway=row.gateway,
        stored=True,
        granted_to=row.granted_to,
        superseded=row.superseded,
        marked=row.delivering,
        old=True,
    )
