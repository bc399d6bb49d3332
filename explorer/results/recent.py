"""What was computed last, up to a number of entries."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["Recent"]

T = TypeVar("T")


class Recent(Generic[T]):
    """A mapping that forgets what was used longest ago; not safe for threads by itself.

    >>> known = Recent(2)
    >>> for key in "abac":
    ...     known[key] = key.upper()
    >>> known.get("a"), known.get("b")
    ('A', None)

    Args:
        most: entries that it keeps.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, key: Hashable) -> T | None:
        """Return what is known under a key, or None."""
        if key not in self._held:
            return None
        self._held.move_to_end(key)
        return self._held[key]

    def __setitem__(self, key: Hashable, value: T) -> None:
        self._held[key] = value
        self._held.move_to_end(key)
        while len(self._held) > self._most:
            self._held.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        self._held.clear()

    def __len__(self) -> int:
        return len(self._held)
