"""The conditions of a plan as MongoDB is asked them, those on linked resources among them.

The smallest side first: a handful on the inner side is listed, few on the outer side are looked up.
Where there are more on both, some on the inner side are listed; of more than some, the first
candidates are looked up, which fills the page unless matches are rare; only then is as much listed
as ever is. Decision 4.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

from fhir_server.search.plan import Plan
from fhir_server.store import joins
from fhir_server.store.client import Database
from fhir_server.store.documents import Document
from fhir_server.store.explain import begin
from fhir_server.store.ordered import Found, Source, found, found_among

_KEYS_MAX = 8  # a code is in one system, or in a few


@dataclass(frozen=True, slots=True)
class Linked:
    """Where a plan is run, and what documents there have to meet. ``found`` are the rows of its
    page, if they were found on the way."""

    source: Source
    filter: Document
    found: Found | None = None

    async def page(self, plan: Plan) -> Found:
        """Return the rows of ``plan``, which is the one that this was made of."""
        return self.found or await found(self.source, plan, self.filter)


async def linked(database: Database, source: Source, plan: Plan, types: Collection[str]) -> Linked:
    """Return how ``plan`` is run on ``source``. ``types`` are those in use."""
    begin(database, "join")
    if plan.ranged:
        plan = replace(plan, filter=await _key_by_key(source, plan.filter, plan.ranged))
    selection, session = plan.selection, source.session
    # Where nothing else is asked there is no other side to look up few of.
    is_alone = not selection.filter and len(selection.joins) < 2
    bounds = joins.FEW if is_alone else joins.ONE_PAGE
    first = joins.Joins(database, session, types, bounds)
    condition = await first.condition(selection)
    if condition.stages and not is_alone:
        if few := await first.few(selection.type, condition.filter):
            return Linked(replace(source, stages=condition.stages), few)
        second = joins.Joins(database, session, types, joins.FEW)
        condition = await second.condition(selection)
    here = replace(source, stages=condition.stages)
    if not condition.stages:
        return Linked(here, condition.filter)
    page: Found | None = None
    if plan.count:
        begin(database, "candidates")
        page = await found_among(here, plan, condition.filter, joins.CANDIDATES_MAX)
        if page and plan.total == "none":
            return Linked(here, condition.filter, page)
        begin(database, "join")
    condition = await joins.Joins(database, session, types, joins.MANY).condition(selection)
    return Linked(replace(source, stages=condition.stages), condition.filter, page)


async def _key_by_key(source: Source, filter: Document, field: str) -> Document:
    """Return ``filter`` with the keys that are there in the place of the range at ``field``."""
    range = filter[field]["$elemMatch"]
    low, high = range["$gte"], range["$lt"]
    known: list[str] = []
    while len(known) < _KEYS_MAX:
        another = {field: {"$elemMatch": {**range, "$nin": known}}}
        fields = {field: 1, "_id": 0}
        cursor = source.collection.find(another, projection=fields, session=source.session)
        rows = await cursor.limit(1).to_list()
        if not rows:
            return {**filter, field: {"$in": known}}
        known += (
            key for key in joins.values_at(rows[0], field) if low <= key < high and key not in known
        )
    return filter
