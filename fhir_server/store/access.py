"""The choke point: a database of which a request sees what its plan says, and no more.

design/security.md, section 3. :class:`Visible` stands where the database stands, so whatever a verb
of the store asks, the predicate of the type comes first: what is searched for, counted, looked up
for a chain, included. What is no resource (claims, answers, keys) is not narrowed here.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, cast

from fhir_server.security.plan import AccessPlan, Filter, both
from fhir_server.store.client import Database
from fhir_server.store.documents import HISTORY_SUFFIX, Document

_FORBIDDEN_STAGES = frozenset(("$graphLookup", "$unionWith", "$out", "$merge", "$facet"))


class UnseenStage(Exception):
    """A pipeline has a stage that would read around the plan; a fault of ours."""


@dataclass(frozen=True, slots=True)
class Visible:
    """What ``plan`` shows of ``whole``. ``types`` are the names of resource types."""

    whole: Database
    plan: AccessPlan
    types: Collection[str]

    def __getitem__(self, name: str) -> Any:
        """Return the collection ``name``; that of a resource type, as far as it may be seen."""
        type = name.removesuffix(HISTORY_SUFFIX)
        if type not in self.types:
            return self.whole[name]
        return VisibleCollection(self, name, self.plan.seen(type))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.whole, name)

    @property
    def as_database(self) -> Database:
        """This, as what it stands for."""
        return cast(Database, self)


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
        return self._whole.find(both(self.predicate, filter or {}), *args, **options)

    async def find_one(self, filter: Document, *args: Any, **options: Any) -> Document | None:
        """Find one among what is visible."""
        found: Document | None = await self._whole.find_one(
            both(self.predicate, filter), *args, **options
        )
        return found

    async def count_documents(self, filter: Document, **options: Any) -> int:
        """Count what is visible."""
        return int(await self._whole.count_documents(both(self.predicate, filter), **options))

    async def estimated_document_count(self) -> int:
        """Count what is visible; about how many others there are, nobody learns."""
        if not self.predicate:
            return int(await self._whole.estimated_document_count())
        return await self.count_documents({})

    async def aggregate(self, pipeline: Sequence[Document], **options: Any) -> Any:
        """Run ``pipeline`` over what is visible; what it looks up is narrowed as well."""
        stages = [self.visible_stage(one) for one in pipeline]
        first = [{"$match": self.predicate}] if self.predicate else []
        return await self._whole.aggregate([*first, *stages], **options)

    def visible_stage(self, stage: Document) -> Document:
        """Return ``stage`` as it reads only what may be seen."""
        [(name, value)] = stage.items()
        if name in _FORBIDDEN_STAGES:
            raise UnseenStage(name)
        if name != "$lookup":
            return stage
        seen = self.visible.plan.seen(value["from"].removesuffix(HISTORY_SUFFIX))
        inner = [self.visible_stage(one) for one in value.get("pipeline", ())]
        return {"$lookup": {**value, "pipeline": [{"$match": seen}, *inner] if seen else inner}}
