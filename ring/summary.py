"""What one node owns, as another one remembers it: a multiset of fingerprints in under two bytes each.

A message is known by a hash of 32 bits (`hash_of`), the same on every node. A summary spreads hashes evenly over its
buckets, by their upper bits, and keeps of each the next 12 bits. 64 buckets make a page, and a page is one integer:

    bits 0-63     the lowest bit of each bucket's count, bucket 0 first
    bits 64-255   the second, third and fourth bits of the counts, likewise
    above         12 bits for each hash, in the order of the buckets

Where a bucket begins is counted with `int.bit_count`, and what comes in between is made room for with shifts: a page is
a few hundred bytes, and this is as fast as the interpreter's other ways of touching a few bytes. A hash that is not in
the summary is found in it by chance once in 4096 / (hashes in a bucket): once in 820 to 1365 with three to five.

    hashes in a bucket    3      4      5
    bytes a hash          1.96   1.87   1.81    as `bytes_used` counts, the page's own overhead included

Nothing is wrong with a summary that is wrong: it says where to ask first.
"""

import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Final

HASH_BITS: Final = 32
HASH_BYTES: Final = HASH_BITS // 8

PAGE_BUCKETS: Final = 64
LEAST_LOAD: Final = 3.0  # hashes in a bucket, on average: with fewer the counts and overheads weigh too much
BEST_LOAD: Final = 3.9  # in the middle of both, as growth counts
MOST_LOAD: Final = 5.0  # with more, chance finds too much, and buckets overflow

_KEPT_BITS: Final = 12
_KEPT: Final = (1 << _KEPT_BITS) - 1
_SHIFT: Final = HASH_BITS - _KEPT_BITS
_HEAD_BITS: Final = 4 * PAGE_BUCKETS
_HEAD: Final = (1 << _HEAD_BITS) - 1
_FULL: Final = 15  # hashes in a bucket
# For each bucket: the bits of the counts of the buckets before it, one mask for each of the four bits.
_ONES: Final = tuple((1 << bucket) - 1 for bucket in range(PAGE_BUCKETS))
_TWOS: Final = tuple(mask << PAGE_BUCKETS for mask in _ONES)
_FOURS: Final = tuple(mask << 2 * PAGE_BUCKETS for mask in _ONES)
_EIGHTS: Final = tuple(mask << 3 * PAGE_BUCKETS for mask in _ONES)
# The four bits of bucket 0's count, by that count; and the count by them.
_BITS: Final = tuple(sum((count >> bit & 1) << bit * PAGE_BUCKETS for bit in range(4)) for count in range(_FULL + 1))
_COUNT: Final = {bits: count for count, bits in enumerate(_BITS)}
_COUNT_BITS: Final = _BITS[_FULL]

_INT_OVERHEAD: Final = 24 + 8  # of CPython's integer, and of its place in the list of pages
_DIGIT_BITS: Final = 30  # it keeps 30 bits in each 4 bytes
_DIGIT_BYTES: Final = 4


def hash_of(operator: str, normal_id: bytes) -> int:
    """The hash of a message: its operator, and its id in normal form (`protocols.smpp.message_ids.normal`)."""
    state = _begun(operator).copy()  # half the cost of beginning anew
    state.update(normal_id)
    return int.from_bytes(state.digest(), "little")


@lru_cache(maxsize=256)
def _begun(operator: str) -> blake2b:
    return blake2b(operator.encode() + b"\0", digest_size=HASH_BYTES)


def pack(hashes: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(hashes)}I", *hashes)


def unpack(packed: bytes) -> tuple[int, ...]:
    """Raises ValueError for a size that no list of hashes has."""
    count, rest = divmod(len(packed), HASH_BYTES)
    if rest:
        raise ValueError(f"{len(packed)} bytes are no list of {HASH_BYTES}-byte hashes")
    return struct.unpack(f"<{count}I", packed)


def pages_for(hashes: int) -> int:
    """How many pages a summary of so many hashes should have."""
    return max(1, round(hashes / (PAGE_BUCKETS * BEST_LOAD)))


def fits(hashes: int, pages: int) -> bool:
    """Whether a summary with so many pages is neither too full nor too empty for so many hashes."""
    load = hashes / (pages * PAGE_BUCKETS)
    return load <= MOST_LOAD and (pages == 1 or load >= LEAST_LOAD)


class Summary:
    """Any hashes, several times the same one too. `count` says how many."""

    __slots__ = ("_buckets", "_pages", "count")

    def __init__(self, pages: int) -> None:
        self._buckets = pages * PAGE_BUCKETS
        self._pages = [0] * pages
        self.count = 0

    @property
    def bytes_used(self) -> int:
        """Memory, close to what the interpreter takes for it."""
        return sum(_INT_OVERHEAD - page.bit_length() // -_DIGIT_BITS * _DIGIT_BYTES for page in self._pages)

    def __contains__(self, hashed: int) -> bool:
        """True for every hash that is in it, and by chance for one in about a thousand of the others."""
        place = hashed * self._buckets
        page_index, bucket = divmod(place >> HASH_BITS, PAGE_BUCKETS)
        page = self._pages[page_index]
        head = page & _HEAD
        count = _COUNT[head >> bucket & _COUNT_BITS]
        if not count:
            return False
        kept = place >> _SHIFT & _KEPT
        run = page >> _start(head, bucket)
        while count:
            if run & _KEPT == kept:
                return True
            run >>= _KEPT_BITS
            count -= 1
        return False

    def add(self, hashes: Iterable[int]) -> int:
        """Returns how many were left out, since their bucket is full."""
        left_out = 0
        for hashed in hashes:
            place = hashed * self._buckets
            page_index, bucket = divmod(place >> HASH_BITS, PAGE_BUCKETS)
            page = self._pages[page_index]
            head = page & _HEAD
            count = _COUNT[head >> bucket & _COUNT_BITS]
            if count == _FULL:
                left_out += 1
                continue
            start = _start(head, bucket)
            above = page >> start
            counted = (_BITS[count] ^ _BITS[count + 1]) << bucket
            kept = place >> _SHIFT & _KEPT
            self._pages[page_index] = (above << _KEPT_BITS | kept) << start | page ^ above << start ^ counted
            self.count += 1
        return left_out

    def remove(self, hashes: Iterable[int]) -> None:
        """Take each out once. One that is not in it was left out, and is passed over."""
        for hashed in hashes:
            place = hashed * self._buckets
            page_index, bucket = divmod(place >> HASH_BITS, PAGE_BUCKETS)
            page = self._pages[page_index]
            head = page & _HEAD
            count = _COUNT[head >> bucket & _COUNT_BITS]
            kept = place >> _SHIFT & _KEPT
            at = _start(head, bucket)
            above = page >> at
            for _ in range(count):
                if above & _KEPT == kept:
                    counted = (_BITS[count] ^ _BITS[count - 1]) << bucket
                    self._pages[page_index] = above >> _KEPT_BITS << at | page ^ above << at ^ counted
                    self.count -= 1
                    break
                above >>= _KEPT_BITS
                at += _KEPT_BITS


def _start(head: int, bucket: int) -> int:
    """The bit of the page at which the bucket's hashes begin."""
    before = (
        (head & _ONES[bucket]).bit_count()
        + 2 * (head & _TWOS[bucket]).bit_count()
        + 4 * (head & _FOURS[bucket]).bit_count()
        + 8 * (head & _EIGHTS[bucket]).bit_count()
    )
    return _HEAD_BITS + _KEPT_BITS * before
