"""A record in pages: what is in a compartment, by type and id, and then what that refers to.

It is read of one moment (``store/moment.py``). A page is cut by a number of resources and by bytes.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import re2 as re

from fhir_server.search.keys import Filter
from fhir_server.store.documents import Shown
from fhir_server.store.one_behind_other import Part
from fhir_server.store.resources import ResourceStore

_PAUSE_EVERY = 100  # resources looked through before other requests get their turn
_LOOKED_THROUGH = 1000  # resources that are read together for what they refer to


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page begins: behind ``id`` of the type ``type``, among what is of the compartment, or
    ``beside`` it. The first page begins at the first type."""

    beside: bool = False
    type: str = ""
    id: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """What is wanted of whose record: ``sources``, its types in their order, each under its
    condition, of which ``types`` are shown.

    ``beside`` are the types that may come along. ``store`` shows the moment of the first page, as
    far as who asks may search.
    """

    store: ResourceStore
    sources: Mapping[str, Filter]
    types: Sequence[str]
    beside: Sequence[str]
    base_urls: tuple[str, ...]

    async def page(
        self, types: Sequence[str], place: Place, count: int, bytes_max: int
    ) -> tuple[list[Shown], Place]:
        """Return what is of the record from ``place`` on, of ``types``, and where it goes on:
        beside it, when all is there."""
        parts = [(type, self.sources[type]) for type in types]
        found, more = await self._from(place, parts, count, bytes_max)
        return found, _behind(found, place) if more else Place(beside=True)

    async def page_beside(
        self, ids: Mapping[str, set[str]], place: Place, count: int, bytes_max: int
    ) -> tuple[list[Shown], Place | None]:
        """Return those of ``ids``, type -> ids, that are there, and where they go on, if so."""
        parts: list[Part] = [
            (type, {"_id": {"$in": sorted(ids[type])}})
            for type in self.beside
            if ids[type] and type >= place.type
        ]
        found, more = await self._from(place, parts, count, bytes_max)
        return found, _behind(found, place) if more else None

    async def whole(self) -> AsyncIterator[list[Shown]]:
        """Yield all of the record, some at a time."""
        place = Place()
        while not place.beside:
            some, place = await self.page(
                tuple(self.sources), place, _LOOKED_THROUGH, self.store.page_bytes_max
            )
            yield some

    async def referred_by_all(self) -> dict[str, set[str]]:
        """Return what the whole record refers to, as :meth:`referred` does."""
        ids: dict[str, set[str]] = {type: set() for type in self.beside}
        async for some in self.whole():
            for type, more in (await self.referred(some)).items():
                ids[type] |= more
        return ids

    async def referred(self, some: Iterable[Shown]) -> dict[str, set[str]]:
        """Return what ``some`` refer to of the types beside them: type -> ids."""
        found: dict[str, set[str]] = {type: set() for type in self.beside}
        pattern = _references(self.base_urls, tuple(self.beside))
        for turn, one in enumerate(some if self.beside else ()):
            if turn % _PAUSE_EVERY == 0:
                await asyncio.sleep(0)
            for type, id in pattern.findall(one.json):
                found[type.decode()].add(id.decode())
        return found

    async def _from(
        self, place: Place, parts: Sequence[Part], count: int, bytes_max: int
    ) -> tuple[list[Shown], bool]:
        """Return what ``parts`` want behind ``place``, and whether there is more."""
        types = [type for type, _ in parts]
        if place.type in types:
            (type, filter), *further = parts[types.index(place.type) :]
            parts = [(type, {"$and": [filter, {"_id": {"$gt": place.id}}]}), *further]
        return await self.store.one_behind_other(parts, count, bytes_max)


def _behind(found: Sequence[Shown], place: Place) -> Place:
    """Return the place behind ``found``, a page that began at ``place``."""
    return Place(place.beside, found[-1].type, found[-1].id) if found else place


@lru_cache(maxsize=8)
def _references(base_urls: tuple[str, ...], types: tuple[str, ...]) -> Any:
    """Return the pattern of references to ``types`` on this server, in stored JSON: a quotation
    mark inside a text is escaped there, so what is found is a reference."""
    bases = "|".join(re.escape(f"{one}/") for one in base_urls)
    names = "|".join(types)
    text = rf'"reference":"(?:{bases})?({names})/([A-Za-z0-9\-.]{{1,64}})(?:/_history/[^"]+)?"'
    return re.compile(text.encode())
