"""Order within one process: who shares a key with somebody earlier waits until that one is done.

A chain, not a lock: at each of its keys whoever is there waits for those that arrived before, so
that nothing can wait in a circle, and a merge waits for both sides and holds up both. What counts
is the order of arrival, not that in which places were taken: a row that is found in the database
stands before one that came after it.
"""

import asyncio
from bisect import insort
from collections import defaultdict
from collections.abc import Iterable


class Place:
    """A place in the chains of its keys, of what arrived as ``sequence``. It is to be left."""

    def __init__(self, chains: "Chains", keys: frozenset[str], sequence: int) -> None:
        """Stand behind those with one of ``keys`` that arrived before, or whose turn it is."""
        self._chains = chains
        self._keys = keys
        # Whose turn has come stays first, whoever comes; then the order of arrival.
        self.order = (1, sequence, next(chains.numbers))
        self._is_there = True
        self._moved = asyncio.Event()
        for key in keys:
            insort(chains.places[key], self, key=_order)

    async def turn(self) -> None:
        """Wait until all who stand before have left."""
        while not self._is_first():
            self._moved.clear()
            await self._moved.wait()
        self.order = (0, *self.order[1:])

    def leave(self) -> None:
        """Let the next ones go on. To leave once more does nothing."""
        if not self._is_there:
            return
        self._is_there = False
        for key in self._keys:
            places = self._chains.places[key]
            places.remove(self)
            if places:
                places[0]._moved.set()
            else:
                del self._chains.places[key]

    def _is_first(self) -> bool:
        return all(self._chains.places[key][0] is self for key in self._keys)


def _order(place: Place) -> tuple[int, ...]:
    return place.order


class Chains:
    """The chains of one process: a key -> who stands there, the first one first."""

    def __init__(self) -> None:
        """Begin without anybody."""
        self.places: defaultdict[str, list[Place]] = defaultdict(list)
        self.numbers = iter(range(2**63))

    def enter(self, keys: Iterable[str], sequence: int) -> Place:
        """Return a place for what arrived as ``sequence``, among all who have one of ``keys``."""
        return Place(self, frozenset(keys), sequence)
