"""Fetches what comes along with the matches of a page: one command for each round.

https://hl7.org/fhir/R4/search.html#revinclude

The first round is what the matches include, each further one what that includes (``:iterate``).
Inside a round the order is by type and id. A page has so many of them at most; where there are
more, it ends at a place, from which the next page goes on. Resources of earlier places are then
looked at again, for what they refer to, but not sent again.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.search.include import Include, Place
from fhir_server.store.client import Database
from fhir_server.store.documents import (
    HISTORY_SUFFIX,
    PRESENT,
    SHOWN,
    Document,
    Shown,
    of_present,
    shown,
    value_at,
)
from fhir_server.store.explain import begin
from fhir_server.store.joins import URL, canonicals, referring
from fhir_server.store.rows import TYPE, Section, rows_of

# What is known of by its id while ``:iterate`` goes on; some MB.
_KNOWN_MAX = 20_000
_VERSION = ":version"
_INCLUDED = SHOWN | {"version": 1}
Rows = Mapping[str, Sequence[Document]]
"""Type -> documents."""


@dataclass(frozen=True, slots=True)
class Included:
    """What comes along. ``after`` is where the rest begins, if there is one; ``complete`` is false
    where the rest is given up."""

    entries: tuple[Shown, ...] = ()
    after: Place | None = None
    complete: bool = True


NOTHING_INCLUDED = Included()


def fields_for(type: str, includes: Sequence[Include]) -> Document:
    """Return the projection of what ``includes`` read in documents of ``type``."""
    fields: Document = {}
    for one in includes:
        if one.reverse and one.link.canonical:
            fields |= {"resource.url": 1, "resource.version": 1}
        elif not one.reverse and one.type == type:
            fields |= {one.link.field: 1, one.link.field + _VERSION: 1}
    return fields


@dataclass(slots=True)
class Gathering:
    """The includes of one page.

    ``types`` are those in use; ``start`` is where the page before ended.
    """

    database: Database
    session: AsyncClientSession | None
    types: Collection[str]
    includes: Sequence[Include]
    entries_max: int
    bytes_max: int
    start: Place | None = None
    _seen: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    _shown: list[tuple[Place, Document]] = field(default_factory=list)
    _versions: dict[tuple[str, str], set[int]] = field(default_factory=lambda: defaultdict(set))
    _more: bool = False
    _complete: bool = True

    async def of(self, matches: Rows) -> Included:
        """Return what comes along with ``matches``."""
        for type, rows in matches.items():
            self._seen[type] |= {row["_id"] for row in rows}
        sources: Rows = matches
        for round in count():
            active = [one for one in self.includes if one.iterate or not round]
            wanted = self._wanted(sources, active) if any(sources.values()) else {}
            if not wanted or self._more or not self._complete:
                break
            sources = await self._round(round, wanted)
        await self._as_of_versions()
        entries = tuple(shown(place[1], row) for place, row in self._shown)
        after = self._shown[-1][0] if self._more and self._shown else None
        return Included(entries, after, self._complete)

    async def _round(self, round: int, wanted: Mapping[str, list[Document]]) -> Rows:
        begin(self.database, f"include {round + 1}")
        found: dict[str, list[Document]] = {}
        whole: dict[str, Document] = {}
        for type in sorted(wanted):
            for condition, full in self._parts(round, type):
                filter = of_present({"$and": [{"$or": wanted[type]}, *condition]})
                if full:
                    whole[type] = filter
                elif self._complete:  # those come before all that is shown
                    found[type] = await self._known(type, filter)
        if whole and self._complete:
            rows, cut = await self._read(whole)
            for type in whole:
                if not self._more:
                    mine = [row for row in rows if row[TYPE] == type]
                    over = cut is not None and cut[TYPE] == type
                    new = self._shown_of((round, type), mine, over)
                    found.setdefault(type, []).extend(new)
        return found

    def _parts(self, round: int, type: str) -> Iterator[tuple[list[Document], bool]]:
        """Yield conditions, and whether what meets them is shown or was shown before."""
        iterates = any(one.iterate for one in self.includes)
        if self.start is None or (round, type) > self.start[:2]:
            yield [], True
        elif (round, type) < self.start[:2]:
            if iterates:
                yield [], False
        else:
            if iterates:
                yield [{"_id": {"$lte": self.start[2]}}], False
            yield [{"_id": {"$gt": self.start[2]}}], True

    async def _known(self, type: str, filter: Document) -> list[Document]:
        """Return what is new of that which was shown on a page before."""
        seen = self._seen[type]
        room = max(0, _KNOWN_MAX - sum(map(len, self._seen.values())))
        cursor = self.database[type].find(
            filter, projection={"_id": 1} | fields_for(type, self.includes), session=self.session
        )
        rows = await cursor.sort("_id", 1).limit(room + 1 + len(seen)).to_list()
        new = [row for row in rows if row["_id"] not in seen]
        self._complete = self._complete and len(new) <= room
        seen |= {row["_id"] for row in new[:room]}
        return new[:room]

    async def _read(self, wanted: Mapping[str, Document]) -> tuple[list[Document], Document | None]:
        """Return the documents of all types that meet what is ``wanted`` of them, in their order,
        as far as there is room; and the first that was left out for its size."""
        room = max(0, self.entries_max - len(self._shown))
        left = max(1, self.bytes_max - sum(len(row["json"]) for _, row in self._shown))
        sections = [
            Section(
                *(type, filter, _INCLUDED | fields_for(type, self.includes)),
                room + 1 + len(self._seen[type]),
            )
            for type, filter in wanted.items()
        ]
        most = room + 1 + sum(len(self._seen[type]) for type in wanted)
        return await rows_of(self.database, self.session, sections, most, left)

    def _shown_of(
        self, place: tuple[int, str], rows: Sequence[Document], over: bool
    ) -> list[Document]:
        """Return those of ``rows`` that are new, which are shown from now on, and note whether
        there would be more."""
        seen = self._seen[place[1]]
        room = max(0, self.entries_max - len(self._shown))
        new = [row for row in rows if row["_id"] not in seen]
        self._more = self._more or over or len(new) > room
        seen |= {row["_id"] for row in new[:room]}
        self._shown += (((*place, row["_id"]), row) for row in new[:room])
        return new[:room]

    def _wanted(self, sources: Rows, active: Sequence[Include]) -> dict[str, list[Document]]:
        """Return what ``active`` demand for ``sources``: type -> alternatives."""
        wanted: dict[str, list[Document]] = defaultdict(list)
        ids: dict[str, dict[str, None]] = defaultdict(dict)
        for include in active:
            if include.reverse:
                self._want_referring(include, sources, wanted)
            else:
                self._want_targets(include, sources.get(include.type, ()), ids, wanted)
        for type, some in ids.items():
            wanted[type].append({"_id": {"$in": list(some)}})
        return wanted

    def _want_referring(
        self, include: Include, sources: Rows, wanted: dict[str, list[Document]]
    ) -> None:
        if include.type in self.types:
            for type, rows in sources.items():
                if type in include.targets:
                    wanted[include.type] += referring(include.link, type, rows)
            if not wanted[include.type]:
                del wanted[include.type]

    def _want_targets(
        self,
        include: Include,
        rows: Sequence[Document],
        ids: dict[str, dict[str, None]],
        wanted: dict[str, list[Document]],
    ) -> None:
        for keys, versioned in _named(rows, include.link.field):
            versions = dict(one.split("/_history/", 1) for one in versioned)
            for key in keys if include.link.literal else ():
                type, _, id = key.partition("/")
                if type in include.targets and type in self.types:
                    ids[type][id] = None
                    version = versions.get(key, "")
                    self._versions[type, id].add(int(version) if version.isdecimal() else 0)
            for url, version in canonicals(keys) if include.link.canonical else ():
                filter = {URL: url} | ({"resource.version": version} if version else {})
                for type in include.targets:
                    if type in self.types:
                        wanted[type].append(filter)

    async def _as_of_versions(self) -> None:
        """Put the version that a reference names in the place of the current one."""
        begin(self.database, "included versions")
        places: dict[str, dict[tuple[str, int], int]] = defaultdict(dict)
        for at, ((_, type, id), row) in enumerate(self._shown):
            named = self._versions.get((type, id), set())
            if len(named) == 1 and not named & {0, row["version"]}:
                places[type][id, next(iter(named))] = at
        for type, some in places.items():
            keys = [{"id": id, "version": version} for id, version in some]
            cursor = self.database[type + HISTORY_SUFFIX].find(
                {"_id": {"$in": keys}, **PRESENT}, projection=SHOWN, session=self.session
            )
            for row in await cursor.to_list():
                id, version = row["_id"]["id"], row["_id"]["version"]
                at = some[id, version]
                self._shown[at] = self._shown[at][0], {**row, "_id": id}


def _named(rows: Sequence[Document], field: str) -> Iterable[tuple[Sequence[str], Sequence[str]]]:
    """Return what ``rows`` refer to at ``field``, and what of that with a version, each once: the
    rows of a page mostly refer to the same."""
    place, _, name = field.rpartition(".")
    found: dict[tuple[Sequence[str], Sequence[str]], None] = {}
    for row in rows:
        beside = value_at(row, place) or {}
        keys, versions = beside.get(name), beside.get(name + _VERSION)
        found[_several(keys), _several(versions)] = None
    return found


def _several(keys: Any) -> tuple[str, ...]:
    return tuple(keys) if type(keys) is list else (keys,) if keys else ()
