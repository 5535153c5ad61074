"""The hashes of what this node owns, each once, in four to five bytes: what summaries at other nodes are made from.

A page holds the hashes of one range, packed behind one another as they came: a hash is found by the interpreter's
search in a few hundred bytes. Pages are split in turn, one at a time, as hashes are added, and joined in turn as they
are removed (linear hashing), so that no call takes long however large the ledger is. They stay in the order of their
ranges: the whole can be read range by range while it changes.
"""

from typing import Final

from ring.summary import HASH_BITS, HASH_BYTES, pack, unpack

_MOST: Final = 128  # hashes in a page, on average; then one is split
_LEAST: Final = 32  # then two are joined
_PAGE_OVERHEAD: Final = 33 + 8  # of CPython's bytes, and of its place in the list of pages

END: Final = 1 << HASH_BITS  # where nothing is left to be read


class Ledger:
    """A set of hashes. `len` says how many."""

    __slots__ = ("_count", "_pages", "_shift", "_split")

    def __init__(self) -> None:
        self._pages = [b""]
        self._shift = HASH_BITS  # of a hash: what is left counts ranges
        self._split = 0  # so many ranges, from the first, have two pages, one for each half
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def bytes_used(self) -> int:
        """Memory, close to what the interpreter takes for it."""
        return self._count * HASH_BYTES + len(self._pages) * _PAGE_OVERHEAD

    def __contains__(self, hashed: int) -> bool:
        return _find(self._pages[self._index(hashed)], hashed.to_bytes(HASH_BYTES, "little")) >= 0

    def add(self, hashed: int) -> bool:
        """False if it was there already."""
        index = self._index(hashed)
        packed = hashed.to_bytes(HASH_BYTES, "little")
        page = self._pages[index]
        if _find(page, packed) >= 0:
            return False
        self._pages[index] = page + packed
        self._count += 1
        if self._count > _MOST * len(self._pages):
            self._split_next()
        return True

    def remove(self, hashed: int) -> bool:
        """False if it was not there."""
        index = self._index(hashed)
        page = self._pages[index]
        at = _find(page, hashed.to_bytes(HASH_BYTES, "little"))
        if at < 0:
            return False
        self._pages[index] = page[:at] + page[at + HASH_BYTES :]
        self._count -= 1
        if len(self._pages) > 1 and self._count < _LEAST * len(self._pages):
            self._join_last()
        return True

    def read(self, start: int, count: int) -> tuple[list[int], int]:
        """The hashes from `start` on: at least `count`, if there are so many; and where to go on, END after the last.

        Every hash that is in the ledger from the first call to the last is read once; `start` is 0, or what the call
        before returned.
        """
        hashes: list[int] = []
        while start < END and len(hashes) < count:
            page = unpack(self._pages[self._index(start)])
            end = self._end(start)
            hashes.extend(hashed for hashed in page if hashed >= start)
            start = end
        return hashes, start

    def _index(self, hashed: int) -> int:
        """Of the page in whose range it is."""
        index = hashed >> self._shift
        return hashed >> (self._shift - 1) if index < self._split else index + self._split

    def _end(self, hashed: int) -> int:
        """The end of that range."""
        shift = self._shift - 1 if hashed >> self._shift < self._split else self._shift
        return ((hashed >> shift) + 1) << shift

    def _split_next(self) -> None:
        index = 2 * self._split
        bit = 1 << (self._shift - 1)
        hashes = unpack(self._pages[index])
        lower = pack([hashed for hashed in hashes if not hashed & bit])
        upper = pack([hashed for hashed in hashes if hashed & bit])
        self._pages[index : index + 1] = (lower, upper)
        self._split += 1
        if self._split == 1 << (HASH_BITS - self._shift):
            self._shift -= 1
            self._split = 0

    def _join_last(self) -> None:
        if not self._split:
            self._shift += 1
            self._split = 1 << (HASH_BITS - self._shift)
        self._split -= 1
        index = 2 * self._split
        self._pages[index : index + 2] = [self._pages[index] + self._pages[index + 1]]


def _find(page: bytes, packed: bytes) -> int:
    """Where the hash stands in the page; -1 if it does not."""
    at = page.find(packed)
    while at >= 0 and at % HASH_BYTES:  # found across two others
        at = page.find(packed, at + 1)
    return at
