"""A persistent map from frame numbers to values: a new version costs what changed and shares the rest.

The keys are spread over a fixed number of buckets by their low bits. A version is a tuple of buckets; an update
copies the tuple and the touched buckets. So a version answers in one step, whatever its history, and two versions
are compared by looking only into the buckets that are not the very same object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

V = TypeVar("V")
BUCKETS = 512
_LOW = BUCKETS - 1


class Bucket(dict[int, V]):
    """The entries of one bucket; never changed once in a map. ``digest`` is computed when first asked for."""

    __slots__ = ("digest",)
    digest: int


_EMPTY: tuple[Bucket[object], ...] = (Bucket(),) * BUCKETS


class FrameMap(Generic[V]):
    """An immutable map; ``update`` gives the next version."""

    __slots__ = ("_buckets", "_size")

    def __init__(self) -> None:
        self._buckets: tuple[Bucket[V], ...] = _EMPTY  # type: ignore[assignment] # empty: holds no value of any type
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __eq__(self, other: object) -> bool:
        """Equal keys and values, whatever the history: only buckets that are not shared are looked into."""
        if not isinstance(other, FrameMap):
            return NotImplemented
        return self._size == other._size and all(
            mine is theirs or mine == theirs for mine, theirs in zip(self._buckets, other._buckets, strict=True)
        )

    def __hash__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[int]:
        for bucket in self._buckets:
            yield from bucket

    def values(self) -> Iterator[V]:
        """The values, in the order of the keys."""
        for bucket in self._buckets:
            yield from bucket.values()

    def get(self, key: int) -> V | None:
        return self._buckets[key & _LOW].get(key)

    def update(self, changes: Mapping[int, V | None]) -> FrameMap[V]:
        """A version in which the keys of ``changes`` have these values; None makes a key absent."""
        buckets = list(self._buckets)
        copied: set[int] = set()
        size = self._size
        for key, value in changes.items():
            slot = key & _LOW
            if slot not in copied:
                copied.add(slot)
                buckets[slot] = Bucket(buckets[slot])
            bucket = buckets[slot]
            size -= key in bucket
            if value is None:
                bucket.pop(key, None)
            else:
                bucket[key] = value
                size += 1
        version = FrameMap[V]()
        version._buckets = tuple(buckets)
        version._size = size
        return version

    def differing(self, other: FrameMap[V]) -> set[int]:
        """The keys that do not have the very same value (or absence) in both versions."""
        keys: set[int] = set()
        for mine, theirs in zip(self._buckets, other._buckets, strict=True):
            if mine is not theirs:
                keys.update(key for key, value in mine.items() if theirs.get(key) is not value)
                keys.update(key for key in theirs if key not in mine)
        return keys

    def digest(self, of: Callable[[int, V], int]) -> int:
        """The sum of ``of(key, value)`` over all entries, whatever their order and history.

        Every call must pass a function that computes the same: sums are kept with the shared buckets.
        """
        total = 0
        for bucket in self._buckets:
            if bucket:
                if not hasattr(bucket, "digest"):
                    bucket.digest = sum(of(key, value) for key, value in bucket.items())
                total += bucket.digest
        return total
