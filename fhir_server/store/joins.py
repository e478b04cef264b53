"""Conditions on linked resources, as MongoDB is asked them. Decision 4.

https://hl7.org/fhir/R4/search.html#chaining, https://hl7.org/fhir/R4/search.html#has

The innermost selection is looked at first. Where it is small, what it has is put into the filter
of the next one, which is then a search like any other. Where it is not, the candidates of the next
one are taken one by one, in the order of the page, and each is looked up (``$lookup``): the page
ends when it is full. What "small" is, :class:`Bounds` say: a search begins with few, and allows
more where looking up did not fill the page. No list of ids grows with the database.

A reference to a definition (canonical) with a version means that version, one without means any.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.search.chain import Either, Join, Link, Part, Selection, Without
from fhir_server.search.keys import regex_text
from fhir_server.store.client import Database
from fhir_server.store.documents import PRESENT, Document, of_present, value_at


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is taken over into a filter: ids, and rows of those that refer (several refer to the
    same). Decision 4 has the measurements."""

    ids_max: int
    rows_max: int


# A row that is listed costs some 10 µs, a candidate that is looked up some 150.
ONE_PAGE = Bounds(20, 20)
FEW = Bounds(2000, 500)
MANY = Bounds(10_000, 5000)
CANDIDATES_FEW = 100  # are looked up rather than that more than a few are listed
CANDIDATES_MAX = 500  # are looked up first, in the hope that they fill the page
_ROOM = 20_000  # for all lists of a search; they are sent in one command of 16 MB at most
_CANONICALS_MAX = 100  # each is a condition of its own

URL = "keys.url"  # by which a definition is found
_NOTHING: Document = {"_id": {"$in": []}}


@dataclass(frozen=True, slots=True)
class Condition:
    """A filter and, for what it cannot judge, what is looked up beside a document (in fields called
    ``names``) and what the document then has to meet."""

    filter: Document
    lookups: tuple[Document, ...] = ()
    met: Document = field(default_factory=dict)
    names: tuple[str, ...] = ()

    @property
    def stages(self) -> tuple[Document, ...]:
        """The stages of a pipeline that drop what the filter could not judge."""
        if not self.lookups:
            return ()
        return (*self.lookups, {"$match": self.met}, {"$unset": list(self.names)})

    @property
    def whole(self) -> Document:
        """All that a document has to meet, once what is looked up is there."""
        return {"$and": [self.filter, self.met]} if self.met else self.filter


class Joins:
    """Turns the selections of one search into conditions. ``types`` are those in use."""

    def __init__(
        self,
        database: Database,
        session: AsyncClientSession | None,
        types: Collection[str],
        bounds: Bounds,
    ) -> None:
        self._database = database
        self._session = session
        self._types = frozenset(types)
        self._bounds = bounds
        self._room = _ROOM
        self._names = (f"_j{number}" for number in count())

    async def condition(self, selection: Selection) -> Condition:
        """Return what a document of the selection's type has to meet."""
        found = await self._all(selection)
        return replace(found, filter=of_present(found.filter))

    async def few(self, type: str, filter: Document) -> Document | None:
        """Return the filter for what of ``type`` meets ``filter``, by its ids; ``None`` if that is
        more than a few, or everything."""
        if filter == PRESENT:
            return None
        cursor = self._database[type].find(
            filter, projection={"_id": 1}, limit=CANDIDATES_FEW + 1, session=self._session
        )
        ids = [row["_id"] for row in await cursor.to_list()]
        return of_present({"_id": {"$in": ids}}) if len(ids) <= CANDIDATES_FEW else None

    async def _all(self, selection: Selection) -> Condition:
        """Return what ``selection`` demands, deleted or not."""
        parts = [await self._part(part, selection.type) for part in selection.joins]
        filters = [one for one in (selection.filter, *(part.filter for part in parts)) if one]
        met = [part.met for part in parts if part.met]
        return replace(
            _looked_up(parts),
            filter={"$and": filters} if len(filters) > 1 else (filters or [{}])[0],
            met={"$and": met} if met else {},
        )

    async def _part(self, part: Part, type: str) -> Condition:
        match part:
            case Join():
                return await self._joined(part, type)
            case Without(selection):
                inner = await self._all(selection)
                negated: Document = {"$nor": [inner.whole]}
                if not inner.lookups:
                    return Condition(negated)
                return replace(inner, filter={}, met=negated)
            case Either(selections):
                return _either([await self._all(one) for one in selections])

    async def _joined(self, join: Join, type: str) -> Condition:
        """Return what ``join`` demands of a document of ``type``."""
        alternatives: list[Document] = []
        lookups: list[Document] = []
        names: list[str] = []
        for inner in join.selections:
            if inner.type not in self._types:
                continue
            condition = await self.condition(inner)
            found = await self._found(join, inner.type, condition, type)
            if found is not None:
                alternatives += found
                continue
            for name, stages in _lookups(join, inner.type, condition, type, self._names):
                lookups += stages
                names.append(name)
                alternatives.append({f"{name}.0": {"$exists": True}})
        one = alternatives[0] if len(alternatives) == 1 else {"$or": alternatives}
        if not alternatives:
            return Condition(_NOTHING)
        if not lookups:
            return Condition(one)
        return Condition({}, tuple(lookups), one, tuple(names))

    async def _found(
        self, join: Join, inner: str, condition: Condition, type: str
    ) -> list[Document] | None:
        """Return the alternatives that what ``inner`` has comes to; ``None`` if that is too much.

        What can only be found by looking up is not looked at beforehand.
        """
        if condition.lookups:
            return None
        limit = self._bounds.rows_max if join.reverse else self._bounds.ids_max
        if join.link.canonical:
            limit = min(limit, _CANONICALS_MAX)
        limit = min(limit, self._room)
        versioned = _VERSIONED if join.link.canonical else ()
        fields = (join.link.field,) if join.reverse else ("_id", *versioned)
        cursor = self._database[inner].find(
            condition.filter,
            projection=dict.fromkeys(fields, 1),
            limit=limit + 1,
            session=self._session,
        )
        rows = await cursor.to_list()
        if len(rows) > limit:
            return None
        self._room -= len(rows)
        if join.reverse:
            return _referred(join.link, type, rows)
        return referring(join.link, inner, rows)


def _looked_up(parts: Sequence[Condition]) -> Condition:
    """Return what all ``parts`` look up, and no demand yet."""
    lookups = tuple(stage for part in parts for stage in part.lookups)
    return Condition({}, lookups, {}, tuple(name for part in parts for name in part.names))


def _either(parts: Sequence[Condition]) -> Condition:
    """Return the condition of meeting one of ``parts``.

    Where one looks something up, the filters alone still say what cannot be found.
    """
    filter: Document = {"$or": [part.filter for part in parts]}
    if not any(part.lookups for part in parts):
        return Condition(filter)
    narrows = all(part.filter for part in parts)
    return replace(
        _looked_up(parts),
        filter=filter if narrows else {},
        met={"$or": [part.whole for part in parts]},
    )


# Where a definition has its url and its version.
_VERSIONED = ("resource.url", "resource.version")


def referring(link: Link, inner: str, rows: Sequence[Document]) -> list[Document]:
    """Return the filters of what refers to one of ``rows``, which are of type ``inner``."""
    found: list[Document] = []
    if link.literal and rows:
        found.append({link.field: {"$in": [f"{inner}/{row['_id']}" for row in rows]}})
    if link.canonical:
        definitions = [one for row in rows if (one := row.get("resource", {})).get("url")]
        for one in definitions:
            url = one["url"]
            any_version: Document = {"$not": {"$regex": f"^{regex_text(url)}\\|"}}
            found.append({"$and": [{link.field: url}, {link.field: any_version}]})
            if "version" in one:
                found.append({link.field: f"{url}|{one['version']}"})
    return found


def _referred(link: Link, type: str, rows: Sequence[Document]) -> list[Document] | None:
    """Return the filters of what one of ``rows`` refers to; ``None`` if that is too much."""
    found: list[Document] = []
    keys = [values_at(row, link.field) for row in rows]
    if link.literal:
        prefix = f"{type}/"
        ids = {key[len(prefix) :] for one in keys for key in one if key.startswith(prefix)}
        if len(ids) > MANY.ids_max:
            return None
        if ids:
            found.append({"_id": {"$in": sorted(ids)}})
    if link.canonical:
        wanted = {one for some in keys for one in canonicals(some)}
        found += (
            {URL: url} | ({"resource.version": version} if version else {})
            for url, version in sorted(wanted)
        )
    return found


def canonicals(keys: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield url and version of what ``keys`` refer to; beside ``url|1`` stands ``url``."""
    versioned = {key.partition("|")[0] for key in keys if "|" in key}
    for key in keys:
        url, bar, version = key.partition("|")
        if ":" in key:  # what has no scheme is no canonical
            if bar:
                yield url, version
            elif key not in versioned:
                yield url, ""


def values_at(row: Document, field: str) -> list[str]:
    """Return the keys of ``row`` at ``field``, which are bare or in an array."""
    value = value_at(row, field)
    return value if isinstance(value, list) else [value] if value is not None else []


def _lookups(
    join: Join, inner: str, condition: Condition, type: str, names: Iterator[str]
) -> Iterator[tuple[str, list[Document]]]:
    """Yield, for each form of the link, a field and the stages that put there what is found."""
    tail = [
        {"$match": condition.filter},
        *condition.stages,
        {"$limit": 1},
        {"$project": {"_id": 1}},
    ]
    link = join.link
    if link.literal:
        name = next(names)
        near = {"$concat": [f"{type}/", "$_id"]} if join.reverse else _ids(link.field, inner)
        far = link.field if join.reverse else "_id"
        yield name, [{"$set": {name: near}}, _lookup(inner, name, far, tail)]
    if link.canonical:
        name = next(names)
        near_field, far = (URL, link.field) if join.reverse else (link.field, URL)
        # What has no such field is looked up by a text that none has; null would find the others.
        near = {"$ifNull": [f"${near_field}", ""]}
        version, let = _version_met(link.field, join.reverse)
        lookup = _lookup(inner, name, far, [{"$match": {"$expr": version}}, *tail], let)
        yield name, [{"$set": {name: near}}, lookup]


def _lookup(
    inner: str, name: str, far: str, pipeline: list[Document], let: Document | None = None
) -> Document:
    joined = {"from": inner, "localField": name, "foreignField": far, "as": name}
    return {"$lookup": joined | {"pipeline": pipeline} | ({"let": let} if let else {})}


def _array(value: str) -> Document:
    """Return the expression for the keys at ``value``, which are bare or in an array."""
    some = {"$ifNull": [value, []]}
    return {"$cond": [{"$isArray": [some]}, some, [some]]}


def _ids(field: str, type: str) -> Document:
    """Return the expression for the ids of the references to ``type`` at ``field``."""
    prefix = f"{type}/"
    mine = {"$eq": [{"$indexOfBytes": ["$$this", prefix]}, 0]}
    return {
        "$map": {
            "input": {"$filter": {"input": _array(f"${field}"), "as": "this", "cond": mine}},
            "in": {"$substrBytes": ["$$this", len(prefix), -1]},
        }
    }


def _version_met(field: str, reverse: bool) -> tuple[Document, Document]:
    """Return the expression that one of the keys at ``field`` means this version of a definition,
    or any; and the variables that it has from the outer document."""
    url, version, keys = "$resource.url", "$resource.version", f"${field}"
    let = {"url": url, "version": version} if reverse else {"keys": keys}
    if reverse:
        url, version = "$$url", "$$version"
    else:
        keys = "$$keys"
    exact = {"$in": [{"$concat": [url, "|", {"$ifNull": [version, ""]}]}, _array(keys)]}
    start = {"$indexOfBytes": ["$$this", {"$concat": [url, "|"]}]}
    other = {"$filter": {"input": _array(keys), "as": "this", "cond": {"$eq": [start, 0]}}}
    return {"$or": [exact, {"$eq": [other, []]}]}, let
