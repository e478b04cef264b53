"""Watches how the database goes about a search: ``_explain=true``.

A search runs on a :class:`Watched` database as on any other; what it is asked, and how long that
took, is written down. Afterwards the database is asked to explain each of those commands: it runs
them once more, and counts what it looks at.
https://www.mongodb.com/docs/manual/reference/command/explain/
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from bson import json_util
from pymongo.errors import PyMongoError

from fhir_server.search.chain import Either, Join, Part, Selection, Without
from fhir_server.search.plan import Plan
from fhir_server.store.client import Database
from fhir_server.store.documents import Document

# What one answer explains; a search over all types has a command for each of them.
_STEPS_MAX = 100
_LIST_SHOWN = 20  # of the values in a list of ids, which may be thousands


@dataclass(frozen=True, slots=True)
class Step:
    """One command. ``what`` it was for; ``command`` as extended JSON; ``milliseconds`` until its
    last row was here. ``figures`` are what the explanation came to."""

    what: str
    command: Document
    rows: int = 0
    milliseconds: float = 0.0
    figures: Document = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The step as extended JSON."""
        told = {"step": self.what, "rows": self.rows, "milliseconds": round(self.milliseconds, 2)}
        return _text({**told, **self.figures, "command": self.command})


class Watched:
    """A database that writes down what a search asks of it; it has what a search uses."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.what = ""
        self.steps: list[Step] = []

    def __getitem__(self, name: str) -> "_Collection":
        return _Collection(self, self._database[name])

    @property
    def as_database(self) -> Database:
        """This, as what it stands for."""
        return cast(Database, self)

    def begun(self, command: Document) -> int:
        """Note that ``command`` is sent; return the number of the step."""
        self.steps.append(Step(self.what, command))
        return len(self.steps) - 1

    def received(self, number: int, rows: int, began: float) -> None:
        """Note that ``rows`` arrived in a wait that ``began`` then."""
        step = self.steps[number]
        spent = step.milliseconds + (time.perf_counter() - began) * 1000
        self.steps[number] = replace(step, rows=step.rows + rows, milliseconds=spent)

    async def explained(self) -> tuple[str, ...]:
        """Return what each step did, as extended JSON; without figures where time has run out."""
        texts = []
        for step in self.steps[:_STEPS_MAX]:
            figures: Document = {}
            if "count" not in step.command:  # answered from what the collection knows of itself
                figures = await self._figures(step.command)
            texts.append(replace(step, figures=figures).text)
        if left := len(self.steps) - len(texts):
            texts.append(_text({"step": "not explained", "steps": left}))
        return tuple(texts)

    async def _figures(self, command: Document) -> Document:
        try:
            explanation = await self._database.command(
                "explain",
                command,
                verbosity="executionStats",
                codec_options=self._database.codec_options,
            )
        except PyMongoError as error:  # the answer itself is there already
            late = "not in the time that is left"
            return {"explained": late if error.timeout else "not by this database"}
        return _figures(explanation)


class _Collection:
    """A collection of a watched database."""

    def __init__(self, watched: Watched, collection: Any) -> None:
        self._watched = watched
        self._collection = collection

    def find(self, filter: Document, **options: Any) -> "_Cursor":
        cursor = self._collection.find(filter, **options)
        command: Document = {"find": self._collection.name, "filter": filter}
        command |= {name: options[name] for name in ("projection", "limit") if options.get(name)}
        return _Cursor(self._watched, cursor, command)

    async def aggregate(self, pipeline: list[Document], **options: Any) -> "_Cursor":
        command = {"aggregate": self._collection.name, "pipeline": pipeline, "cursor": {}}
        number, began = self._watched.begun(command), time.perf_counter()
        cursor = await self._collection.aggregate(pipeline, **options)
        self._watched.received(number, 0, began)
        return _Cursor(self._watched, cursor, command, number)

    async def count_documents(self, filter: Document, **options: Any) -> int:
        limit = [{"$limit": options["limit"]}] if options.get("limit") else []
        group = {"$group": {"_id": 1, "n": {"$sum": 1}}}
        command = {"aggregate": self._collection.name, "cursor": {}}
        number = self._watched.begun(command | {"pipeline": [{"$match": filter}, *limit, group]})
        began = time.perf_counter()
        found = int(await self._collection.count_documents(filter, **options))
        self._watched.received(number, 1, began)
        return found

    async def estimated_document_count(self) -> int:
        number = self._watched.begun({"count": self._collection.name})
        began = time.perf_counter()
        found = int(await self._collection.estimated_document_count())
        self._watched.received(number, 1, began)
        return found


class _Cursor:
    """A cursor of a watched collection."""

    def __init__(
        self, watched: Watched, cursor: Any, command: Document, number: int | None = None
    ) -> None:
        self._watched = watched
        self._cursor = cursor
        self._command = command
        self._number = number

    def sort(self, order: Any, direction: int = 1) -> "_Cursor":
        self._cursor = self._cursor.sort(order, *([direction] if isinstance(order, str) else []))
        self._command["sort"] = {order: direction} if isinstance(order, str) else dict(order)
        return self

    def limit(self, limit: int) -> "_Cursor":
        self._cursor = self._cursor.limit(limit)
        self._command["limit"] = limit
        return self

    async def to_list(self, length: int | None = None) -> list[Document]:
        if self._number is None:
            self._number = self._watched.begun(self._command)
        began = time.perf_counter()
        rows: list[Document] = await self._cursor.to_list(length)
        self._watched.received(self._number, len(rows), began)
        return rows

    async def close(self) -> None:
        await self._cursor.close()


def begin(database: Database, what: str) -> None:
    """Say what the next commands are for, to whoever is watching."""
    if isinstance(database, Watched):
        database.what = what


def plan_text(plan: Plan) -> str:
    """Return what a search was compiled to, as extended JSON."""
    selection = _selection(plan.selection)
    sort = [("-" if key.descending else "") + key.field for key in plan.sort]
    return _text({"step": "plan", **selection, "sort": sort, "count": plan.count})


def _selection(selection: Selection) -> Document:
    joins = {"joins": [_part(one) for one in selection.joins]} if selection.joins else {}
    return {"type": selection.type, "filter": selection.filter, **joins}


def _part(part: Part) -> Document:
    match part:
        case Either(selections):
            return {"either": [_selection(one) for one in selections]}
        case Without(selection):
            return {"without": _selection(selection)}
        case Join(link, reverse, selections):
            direction = "referredToBy" if reverse else "refersTo"
            return {"field": link.field, direction: [_selection(one) for one in selections]}


def _text(document: Document) -> str:
    return json_util.dumps(
        _plain(document), json_options=json_util.RELAXED_JSON_OPTIONS, ensure_ascii=False
    )


def _plain(value: Any) -> Any:
    """Return ``value`` with what extended JSON has no form for as text, and long lists cut."""
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        more = len(value) - _LIST_SHOWN
        shown = [_plain(one) for one in value[:_LIST_SHOWN]]
        return [*shown, f"… and {more:,} more"] if more > 0 else shown
    if type(value).__name__ in ("Decimal", "WrittenDecimal"):
        return {"$numberDecimal": str(value)}
    return value


def _figures(explanation: Document) -> Document:
    """Return the indexes used, and how many keys and documents were looked at."""
    parts = list(_parts(explanation))
    names = [part["indexName"] for part in parts if "indexName" in part]
    names += (name for part in parts for name in part.get("indexesUsed", ()))
    # What is found by its id alone is not said to use an index, though it does.
    names += ("_id_" for part in parts if part.get("stage") in ("IDHACK", "EXPRESS"))
    scans = any(part.get("stage") == "COLLSCAN" or part.get("collectionScans") for part in parts)
    return {
        "indexes": sorted(set(names)) + (["none: the whole collection is read"] if scans else []),
        "keysExamined": _sum(parts, "totalKeysExamined"),
        "documentsExamined": _sum(parts, "totalDocsExamined"),
    }


def _sum(parts: list[Document], name: str) -> int:
    return sum(int(part[name]) for part in parts if name in part)


def _parts(value: Any) -> Iterator[Document]:
    """Yield the parts of an explanation, without the plans that were not taken."""
    if isinstance(value, Mapping):
        yield dict(value)
        # Below it are the same figures again, of each stage of the plan.
        below = {} if "totalKeysExamined" in value else value
        for name, one in below.items():
            if name not in ("rejectedPlans", "command", "parsedQuery"):
                yield from _parts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _parts(one)
