"""What a node of a quorum is set to, as it tells the others: a row of its part of the database. Pure.

Releases may differ: what a row does not say is UNSET, what this one does not know in it is passed over.
"""

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

ROW: Final = "settings"  # the row's kind; older releases never look at it


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Keys of [quorum], and the names of the [[peers]]."""

    fence_after_s: float | UnsetType = UNSET
    takeover_after_s: float | UnsetType = UNSET
    lease_s: float | UnsetType = UNSET
    unmatched_for_s: float | UnsetType = UNSET
    maybe_delivered: str | UnsetType = UNSET
    stand_in: Mapping[str, str] | UnsetType = UNSET
    weights: Mapping[str, int] | UnsetType = UNSET  # of every node, also where it is 1
    arbitrators: Mapping[str, int] | UnsetType = UNSET
    sites: Mapping[str, str] | UnsetType = UNSET
    peers: tuple[str, ...] | UnsetType = UNSET  # sorted


def encode(settings: NodeSettings) -> bytes:
    return msgspec.json.encode(settings, order="deterministic")


def decode(content: bytes | None) -> NodeSettings | None:
    """None: the node has told nothing, or something that only another release can read."""
    if content is None:
        return None
    try:
        return msgspec.json.decode(content, type=NodeSettings)
    except msgspec.MsgspecError:
        return None
