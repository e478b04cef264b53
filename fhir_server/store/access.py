"""The choke point: a database of which a request sees what its plan says, and no more.

design/security.md, section 3. :class:`Visible` stands where the database stands, so whatever a verb
of the store asks, the predicate of the type comes first: what is searched for, counted, looked up
for a chain, included. What is no resource (claims, answers, keys) is not narrowed here, but what is
looked up from there is.

Of versions that were replaced, and of deletions, ``versions.py`` says which are shown.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from fhir_server.messages import Resource
from fhir_server.search.index import Indexed
from fhir_server.security.plan import AccessPlan, Filter, both
from fhir_server.store.client import Database
from fhir_server.store.documents import HISTORY_SUFFIX, Document
from fhir_server.store.versions import Sight, Versions, last_seen, of_current

# A stage that is not here could read around the plan, or write.
_STAGES = frozenset(
    (
        *("$match", "$project", "$set", "$unset", "$replaceRoot", "$unwind", "$group"),
        *("$sort", "$limit", "$sample", "$count", "$lookup"),
    )
)
_BATCH_ROWS = 1000  # of what is read together; 16 MB at most
# What the parts of the store use of a database besides its collections.
_OPEN = frozenset(("client", "name", "codec_options", "list_collection_names"))


class UnseenStage(Exception):
    """A pipeline has a stage that would read around the plan; a fault of ours."""


@dataclass(frozen=True, slots=True)
class Visible:
    """What ``plan`` shows of ``whole``. ``index`` returns the keys of a resource."""

    whole: Database
    plan: AccessPlan
    index: Callable[[Resource], Indexed]

    def __getitem__(self, name: str) -> Any:
        """Return the collection ``name``; that of a resource type, as far as it may be seen."""
        if not _has_resources(name):
            return _Beside(self, name)
        type = name.removesuffix(HISTORY_SUFFIX)
        predicate = self.plan.seen(type)
        if name == type:
            return VisibleCollection(self, name, of_current(predicate))
        return Versions(self.whole[name], type, Sight(predicate, self.index))

    def __getattr__(self, name: str) -> Any:
        if name not in _OPEN:
            raise AttributeError(f"{name} of a database that is not wholly visible")
        return getattr(self.whole, name)

    @property
    def as_database(self) -> Database:
        """This, as what it stands for."""
        return cast(Database, self)

    def narrowed(self, type: str, pipeline: Sequence[Document]) -> list[Document]:
        """Return ``pipeline``, over the current resources of ``type``, as it reads only what may be
        seen."""
        seen = of_current(self.plan.seen(type))
        stages = [self.stage(one) for one in pipeline]
        return [{"$match": seen}, *stages] if seen else stages

    def stage(self, stage: Document) -> Document:
        """Return ``stage`` as it reads only what may be seen."""
        [(name, value)] = stage.items()
        if name not in _STAGES:
            raise UnseenStage(name)
        if name != "$lookup":
            return stage
        inner = [self.stage(one) for one in value.get("pipeline", ())]
        if not _has_resources(value["from"]):
            return {"$lookup": {**value, "pipeline": inner}} if inner else stage
        if value["from"].endswith(HISTORY_SUFFIX):
            raise UnseenStage(f"$lookup from {value['from']}")
        seen = of_current(self.plan.seen(value["from"]))
        first = [{"$match": seen}] if seen else []
        return {"$lookup": {**value, "pipeline": [*first, *inner]}}


@dataclass(frozen=True, slots=True)
class VisibleCollection:
    """A collection of which only what meets ``predicate`` is there. It has what reading uses."""

    visible: Visible
    name: str
    predicate: Filter

    @property
    def _whole(self) -> Any:
        return self.visible.whole[self.name]

    def find(self, filter: Document | None = None, *args: Any, **options: Any) -> Any:
        """Find among what is visible."""
        return self._whole.find(among(self.predicate, filter or {}), *args, **options)

    async def find_one(self, filter: Document, *args: Any, **options: Any) -> Document | None:
        """Find one among what is visible."""
        found: Document | None = await self._whole.find_one(
            among(self.predicate, filter), *args, **options
        )
        return found

    async def last_seen(self, id: str, projection: Document, session: Any) -> Document | None:
        """Return the deletion of what was visible until then, where that is told by keys."""
        sight = Sight(self.visible.plan.seen(self.name), self.visible.index)
        return await last_seen(self._whole, id, sight, projection, session)

    async def count_documents(self, filter: Document, **options: Any) -> int:
        """Count what is visible."""
        return int(await self._whole.count_documents(among(self.predicate, filter), **options))

    async def estimated_document_count(self) -> int:
        """Count what is visible; about how many others there are, nobody learns."""
        if not self.predicate:
            return int(await self._whole.estimated_document_count())
        return await self.count_documents({})

    async def aggregate(self, pipeline: Sequence[Document], **options: Any) -> Any:
        """Run ``pipeline`` over what is visible; what it looks up is narrowed as well."""
        stages = [self.visible.stage(one) for one in pipeline]
        first = [{"$match": self.predicate}] if self.predicate else []
        return await self._whole.aggregate([*first, *stages], **options)


@dataclass(frozen=True, slots=True)
class _Beside:
    """A collection without resources. It is as it is; what is looked up from it is not."""

    visible: Visible
    name: str

    def __getattr__(self, name: str) -> Any:
        return getattr(self.visible.whole[self.name], name)

    async def aggregate(self, pipeline: Sequence[Document], **options: Any) -> Any:
        stages = [self.visible.stage(one) for one in pipeline]
        return await self.visible.whole[self.name].aggregate(stages, **options)


def among(predicate: Filter, filter: Document) -> Document:
    """Return the filter for what meets ``filter`` and may be seen.

    Alternatives stay outermost: MongoDB then merges what its indexes give, in order.
    """
    if predicate and filter.keys() == {"$or"}:
        return {"$or": [both(predicate, one) for one in filter["$or"]]}
    return both(predicate, filter)


async def united(
    database: Database, pipelines: Sequence[tuple[str, list[Document]]], most: int, session: Any
) -> Any:
    """Run a pipeline over each of several types, one behind the other, and return the cursor of the
    first ``most`` of their rows. Each reads what may be seen of its type, and nothing else."""
    whole, parts = database, list(pipelines)
    if isinstance(database, Visible):
        whole = database.whole
        parts = [(type, database.narrowed(type, stages)) for type, stages in pipelines]
    if session is not None:
        return _InTurn(whole, parts, most, session)  # MongoDB unites nothing in a transaction
    (first, stages), *others = parts
    more = [{"$unionWith": {"coll": type, "pipeline": some}} for type, some in others]
    return await whole[first].aggregate(
        [*stages, *more, {"$limit": most}], batchSize=min(most, _BATCH_ROWS)
    )


@dataclass(slots=True)
class _InTurn:
    """The rows of several pipelines as one cursor has them, by a command for each."""

    whole: Database
    parts: list[tuple[str, list[Document]]]
    left: int
    session: Any
    cursor: Any = None

    async def to_list(self, length: int) -> list[Document]:
        wanted = min(length, self.left)
        rows: list[Document] = []
        while len(rows) < wanted and (self.cursor is not None or self.parts):
            if self.cursor is None:
                type, stages = self.parts.pop(0)
                limited = [*stages, {"$limit": self.left}]
                self.cursor = await self.whole[type].aggregate(limited, session=self.session)
            rows += await self.cursor.to_list(wanted - len(rows))
            if len(rows) < wanted:
                self.cursor = None
        self.left -= len(rows)
        return rows

    async def close(self) -> None:
        if self.cursor is not None:
            await self.cursor.close()


def narrows(database: Database, type: str) -> bool:
    """Whether of ``type`` something may be hidden in ``database``."""
    return isinstance(database, Visible) and bool(database.plan.seen(type))


def _has_resources(name: str) -> bool:
    """Whether the collection ``name`` is one of resources or of their versions; no other has a name
    that begins with a capital letter."""
    return name[:1].isupper()
