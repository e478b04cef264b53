"""How many resources a search finds: exactly, or about.

https://hl7.org/fhir/R4/search.html#total
"""

from typing import Any

from fhir_server.search.plan import Plan
from fhir_server.store.documents import PRESENT, Document
from fhir_server.store.ordered import Source

# An estimate is exact up to here. Counting so many index keys takes some 10 ms, of fetched
# documents some 50 ms; more digits than that nobody reads in an estimate.
COUNTED_MAX = 10_000
# What is looked at to judge how many of a collection match: right to 2 % where half of it does, to
# 20 % where one in a hundred does.
_SAMPLE = 2_000
_SAMPLED_SHARE_MAX = 20  # MongoDB reads at random up to a twentieth of a collection, else all of it


async def total_of(source: Source, plan: Plan, filter: Document) -> int | None:
    """Return how many resources ``plan`` finds, wherever its page begins.

    ``filter`` and the stages of ``source`` are its conditions. ``None`` if nobody asked.
    """
    if plan.total == "none":
        return None
    if plan.total == "accurate":
        return await _counted(source, filter)
    if not plan.filter and not plan.joins and source.session is None:
        return await _all(source)
    counted = await _counted(source, filter, COUNTED_MAX)
    if counted < COUNTED_MAX or source.session is not None or source.stages:
        return counted
    return max(counted, await _sampled(source, filter))


async def _all(source: Source) -> int:
    """Return about how many documents there are; deletions are counted."""
    return int(await source.collection.estimated_document_count())


async def _counted(source: Source, filter: Document, most: int = 0) -> int:
    """Return how many documents there are, or ``most`` where there are more."""
    if not source.stages:
        if filter == PRESENT and not most:
            return await _present(source)
        limit = {"limit": most} if most else {}
        return int(await source.collection.count_documents(filter, session=source.session, **limit))
    limited: list[Document] = [{"$limit": most}] if most else []
    return await _number(
        source, [{"$match": filter}, *source.stages, *limited, {"$count": "number"}]
    )


async def _present(source: Source) -> int:
    """Count what is not deleted by two indexes: what is there, less what is a deletion."""
    ids = await source.collection.count_documents({"_id": {"$gte": ""}}, session=source.session)
    deleted = await source.collection.count_documents({"deleted": True}, session=source.session)
    return int(ids - deleted)


async def _sampled(source: Source, filter: Document) -> int:
    """Return how many documents match if as many do as in a sample; 0 for small collections."""
    size = await _all(source)
    if size < _SAMPLE * _SAMPLED_SHARE_MAX:
        return await _counted(source, filter)
    sample: list[Document] = [{"$sample": {"size": _SAMPLE}}]
    found = await _number(source, [*sample, {"$match": filter}, {"$count": "number"}])
    return round(found / _SAMPLE * size)


async def _number(source: Source, pipeline: list[Document]) -> int:
    cursor: Any = await source.collection.aggregate(pipeline, session=source.session)
    rows = await cursor.to_list()
    return int(rows[0]["number"]) if rows else 0
