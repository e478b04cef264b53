"""Which collections and indexes must exist, and their making. Section 16.2 of ARCHITECTURE.md.

A type's collections are made when it is first written to: 146 types at the first start would be
some 900 files for a clinic that uses twenty of them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass, field
from itertools import chain

from pymongo import ASCENDING, DESCENDING, GEOSPHERE, IndexModel
from pymongo.errors import OperationFailure

from fhir_server.search.date import LONG
from fhir_server.search.parameter import Parameter
from fhir_server.search.parameters import ParameterTable
from fhir_server.search.sort import hot_shapes, is_ordered
from fhir_server.store.client import Database, make_collection
from fhir_server.store.contents import REFERRED_BY
from fhir_server.store.denials import CONSENT, ROW_INDEXES, ROWS
from fhir_server.store.documents import HISTORY_SUFFIX
from fhir_server.store.keys import SERVER

_INDEX_CONFLICTS = (85, 86)  # same name, other options or fields
WILDCARD = "keys"
DEFERRED = "indexes"
"""The note that indexes are missing, a document in the collection ``server`` (``deferral.py``)."""
_BUILDS_AT_ONCE = 3  # of MongoDB: what is more waits there

# What of a key helps no search to begin: units, the second half of a composite, the end of a
# range of dates. They were a third of the entries of an Observation.
_UNINDEXED = {"quantity": ("s", "c", "u"), "composite": ("b",), "date": ("h",)}


@dataclass(slots=True)
class Indexes:
    """Makes a type's collections and indexes before the type is first written to.

    ``parameters`` are those of the specification: what a site adds is found by the wildcard, and
    needs no index made or remade. ``began`` is told of a type before its collection is made. With
    ``deferred``, collections are made without their indexes while :data:`DEFERRED` notes that.
    """

    database: Database
    parameters: ParameterTable
    began: Callable[[str], Awaitable[None]]
    deferred: bool = False
    _ready: set[str] = field(default_factory=set)
    _seen: frozenset[str] = frozenset()
    _making: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def existing(self) -> tuple[str, ...]:
        """Return the types that have a collection, in alphabetical order."""
        names = await self.database.list_collection_names()
        types = {name.removesuffix(HISTORY_SUFFIX) for name in names}
        self._seen = frozenset(type for type in types if type[:1].isupper())
        return tuple(sorted(self._seen))

    async def in_use(self, types: Iterable[str]) -> Collection[str]:
        """Return the types in use, of which those of ``types`` are known for sure. A collection is
        there for good: only a type that had none when it was looked at last costs another look."""
        if not self._seen.issuperset(types):
            await self.existing()
        return self._seen

    async def ensure(self, types: Iterable[str]) -> None:
        """Make what is missing for ``types``. Costs nothing for a type that was ensured before."""
        missing = sorted(set(types) - self._ready)
        if not missing:
            return
        async with self._making:  # one maker a process is enough; others wait for it
            there = await self.existing()
            for type in missing:
                if type not in self._ready:
                    if type not in there:
                        await self.began(type)
                    await self._make(type)
                    self._ready.add(type)

    async def ensure_existing(self) -> tuple[str, ...]:
        """Make what is missing for the types in use, for several at a time; return those types."""
        types = await self.existing()
        turn = asyncio.Semaphore(_BUILDS_AT_ONCE)

        async def made(type: str) -> None:
            async with turn:
                await self._make(type)

        async with self._making:
            await asyncio.gather(*(made(type) for type in types if type not in self._ready))
            self._ready.update(types)
        return types

    async def complete(self) -> None:
        """Make what was ``deferred``."""
        self.deferred = False
        self._ready.clear()
        await self.ensure_existing()

    async def missing(self) -> tuple[str, ...]:
        """Return ``collection.index`` of everything that should be there and is not."""
        absent = []
        for type in await self.existing():
            for name, wanted in self._collections(type):
                there = await self.database[name].index_information()
                absent += [
                    f"{name}.{index.document['name']}"
                    for index in wanted
                    if index.document["name"] not in there
                ]
        return tuple(absent)

    async def _make(self, type: str) -> None:
        collections = self._collections(type)
        for name, _ in collections:
            await make_collection(self.database, name)
        # Looked for now that they are there: who takes the note away looks for them afterwards.
        if self.deferred and await self.database[SERVER].find_one({"_id": DEFERRED}) is None:
            self.deferred = False
        for name, wanted in collections:
            if not self.deferred or name == ROWS:
                await self._index(name, wanted)

    async def _index(self, name: str, wanted: list[IndexModel]) -> None:
        """Make the indexes; one that is there under the same name for other fields is made anew."""
        collection = self.database[name]
        try:
            await collection.create_indexes(wanted)  # all in one scan of what is there
        except OperationFailure as error:
            if error.code not in _INDEX_CONFLICTS:
                raise
            for index in wanted:
                await self._index_anew(name, index)

    async def _index_anew(self, name: str, index: IndexModel) -> None:
        collection = self.database[name]
        try:
            await collection.create_indexes([index])
        except OperationFailure as error:
            if error.code not in _INDEX_CONFLICTS:
                raise
            await collection.drop_index(index.document["name"])
            await collection.create_indexes([index])

    def _collections(self, type: str) -> tuple[tuple[str, list[IndexModel]], ...]:
        own = (type, self.wanted(type)), (type + HISTORY_SUFFIX, _history(type))
        return (*own, (ROWS, ROW_INDEXES)) if type == CONSENT else own

    def _indexed(self, type: str) -> dict[str, int]:
        """Return the projection of the wildcard index: ``keys``, without what helps no search."""
        outside = ("version", "last_updated", "interaction", "resource", "json", "compartments")
        table = self.parameters.of(type)
        inside = chain(
            chain.from_iterable(map(_unindexed, table.values())),
            # What a compound index begins with is found there.
            (_begin(table[codes[0]]) for codes in hot_shapes(table)),
        )
        left_out = (*outside, "labels", "deleted", "revived", "touched", *inside)
        return dict.fromkeys(left_out, 0)

    def wanted(self, type: str) -> list[IndexModel]:
        """Return the indexes of the current documents of ``type``."""
        table = self.parameters.of(type)
        shapes = hot_shapes(table)
        hot = [
            IndexModel([*((table[code].field, ASCENDING) for code in codes), *_newest(table[date])])
            for *codes, date in shapes
        ]
        return [
            IndexModel([("last_updated", DESCENDING), ("_id", ASCENDING)]),
            IndexModel([("$**", ASCENDING)], wildcardProjection=self._indexed(type), name=WILDCARD),
            IndexModel([("compartments", ASCENDING), ("_id", ASCENDING)]),
            *hot,
            *chain.from_iterable(
                _long(table[date])
                for *codes, date in shapes
                if not codes and is_ordered(table[date], table)
            ),
            # Costs nothing but what is deleted: those are counted, and taken off a total.
            IndexModel([("deleted", ASCENDING)], partialFilterExpression={"deleted": True}),
            *(IndexModel([(one.field, GEOSPHERE)]) for one in table.values() if one.is_place),
        ]


def _unindexed(parameter: Parameter) -> tuple[str, ...]:
    if not parameter.key:
        return ()
    return tuple(f"{parameter.field}.{member}" for member in _UNINDEXED.get(parameter.type, ()))


def _begin(parameter: Parameter) -> str:
    return f"{parameter.field}.l" if parameter.type == "date" else parameter.field


def _newest(date: Parameter) -> list[tuple[str, int]]:
    return [(f"{date.field}.l", DESCENDING), ("_id", ASCENDING)]


def _long(date: Parameter) -> list[IndexModel]:
    """Return an index for each length of ranges that is longer than most, in the order of the one
    for all: what begins in a time and what goes on into it are merged as they are read."""
    return [
        IndexModel(
            _newest(date),
            name=f"{date.field}.{member}",
            partialFilterExpression={f"{date.field}.{member}": {"$exists": True}},
        )
        for member in LONG
    ]


def _history(type: str) -> list[IndexModel]:
    newest = [("last_updated", DESCENDING), ("_id.id", ASCENDING), ("_id.version", DESCENDING)]
    # Of current documents the wildcard has it.
    referring = IndexModel([("content.id", ASCENDING)], sparse=True)
    # Who sees one patient's versions reads no others on the way to them.
    visible = IndexModel([("compartments", ASCENDING), *newest])
    return [IndexModel(newest), visible, *([referring] if type == REFERRED_BY else ())]
