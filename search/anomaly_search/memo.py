"""What was computed once is not computed again, as long as it was made of the very same objects.

The functions of the search are pure: they see all trials in each call, and in a sweep of thousands all but a few are
as they were. A memo changes nothing but the time that they take.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from operator import is_
from typing import Any, TypeVar

S = TypeVar("S")
T = TypeVar("T")


class Memo:
    """Results by key, each with the objects that it was made of. One a sweep, kept by whoever calls the search."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, tuple[tuple[object, ...], Any]] = {}
        # By the identity of each item, which is its own as long as it is kept.
        self._kept_each: dict[Hashable, tuple[tuple[object, ...], dict[int, tuple[object, Any]]]] = {}

    def get(self, key: Hashable, sources: tuple[object, ...], make: Callable[..., T]) -> T:
        """Return ``make(*sources)``, or what it returned for the key and these very objects the last time.

        Args:
            key: what is made; a result takes the place of an earlier one of its key.
            sources: all that the result depends on, none of which ever changes; compared by identity.
            make: makes the result.
        """
        known = self._kept.get(key)
        if known is not None and _are_same(known[0], sources):
            result: T = known[1]
            return result
        result = make(*sources)
        self._kept[key] = (sources, result)
        return result

    def each(self, key: Hashable, sources: tuple[object, ...], items: Iterable[S], make: Callable[..., T]) -> list[T]:
        """Return ``make(*sources, item)`` of each item, or what it returned for this very item the last time.

        Args:
            key: what is made; the results take the place of all earlier ones of their key.
            sources: as of ``get``; when they change, everything is made anew.
            items: like sources, of each result.
            make: makes one result.
        """
        items = list(items)
        before, known = self._kept_each.get(key, (sources, {}))
        if not _are_same(before, sources):
            known = {}
        made = {id(item): known.get(id(item)) or (item, make(*sources, item)) for item in items}
        self._kept_each[key] = (sources, made)
        return [made[id(item)][1] for item in items]


def _are_same(known: tuple[object, ...], sources: tuple[object, ...]) -> bool:
    return len(known) == len(sources) and all(map(is_, known, sources))
