"""What an export finds from a place on: versions of resources, or what was deleted.

https://hl7.org/fhir/uv/bulkdata/STU2/export.html#query-parameters

A type is read in the order of ids, from behind the last one. Several searches of one type are made
one after the other, without what an earlier one has found; patients that are listed are taken a
hundred at a time. No resource is read, but those whose own elements say whether they are meant.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fhir_server.context import Context
from fhir_server.operations.export_parameters import ASSOCIATED, PATIENT, search_of
from fhir_server.operations.export_provenance import PROVENANCE, patients_in, patients_of
from fhir_server.r4.json import encode
from fhir_server.search.keys import Filter
from fhir_server.search.page import Edge
from fhir_server.search.parameters import COMPARTMENTS
from fhir_server.search.parse import parse
from fhir_server.search.plan import Plan, plan
from fhir_server.store.documents import Document, milliseconds
from fhir_server.store.exported import compartments, tombstones
from fhir_server.store.exports import Job, Piece, Version

OUTPUT, DELETED, ERROR = "output", "deleted", "error"
TIMEOUTS_MAX = 10
"""A search that takes too long for half a page, and so on, is hopeless."""

_SEARCHED_ENTRIES = 1000  # of a search with conditions, which may have to look at many more
_PIECE_BYTES = 2_097_152  # what is held of a file that is read, but for a larger resource
_VERSION = ("version", "last_updated")
_ANY_PATIENT: Filter = {"compartments": {"$elemMatch": {"$gte": "Patient/", "$lt": "Patient0"}}}

Rows = list[Document]


@dataclass(frozen=True, slots=True)
class Page:
    """What was found from a place on. ``after`` is the last id that was looked at, where there may
    be more; ``""`` where there is not."""

    pieces: tuple[Piece, ...] = ()
    after: str = ""


async def output(job: Job, type: str, context: Context) -> Page:
    """Return the next resources of ``type``."""
    place = job.place
    within = await _within(job, type, context)
    if within is None:
        return Page()
    since: Filter = {"last_updated": {"$gt": job.asked.since}} if job.asked.since else {}
    wanted = await searched(job, type, place.query, [within, since], context)
    after = Edge((place.after,)) if place.after else None
    listed = await context.store.listed(replace(wanted, after=after), _fields(job, type))
    rows = await _not_before(listed.rows, job, type, context)
    rows = await _kept(rows, job, type, context)
    return Page(tuple(_pieces(rows)), listed.rows[-1]["_id"] if listed.more else "")


def _fields(job: Job, type: str) -> tuple[str, ...]:
    """Return what is read of resources of ``type``: no more than tells whether they are meant."""
    if _is_by_target(job, type):
        return *_VERSION, "json"
    return (*_VERSION, "compartments") if _is_shared(job, type) else _VERSION


def _pieces(rows: Rows) -> Iterator[Piece]:
    """Yield ``rows`` as parts that somebody can hold who reads them."""
    begin = size = 0
    for end, row in enumerate(rows):
        if size + row["size"] > _PIECE_BYTES and end > begin:
            yield _piece(rows[begin:end], size)
            begin, size = end, 0
        size += row["size"] + 1
    if rows:
        yield _piece(rows[begin:], size)


def _piece(rows: Rows, size: int) -> Piece:
    versions = [Version(row["version"], milliseconds(row["last_updated"])) for row in rows]
    return Piece(tuple(row["_id"] for row in rows), tuple(versions), size=size)


async def searched(
    job: Job, type: str, query: int, conditions: Iterable[Filter], context: Context
) -> Plan:
    """Return the search number ``query`` of ``type`` in the order of ids, under ``conditions``."""
    texts = [text for of, text in job.asked.filters if of == type]
    table, most = context.parameters, context.settings.export_page_entries
    if texts or _is_by_target(job, type):
        most = min(most, _SEARCHED_ENTRIES)
    asked = (
        await search_of(type, texts[query], context)
        if texts
        else parse(type, (), table, count_default=most)
    )
    made = plan(asked, table)
    all = [one for one in (made.filter, *conditions) if one]
    filter: Filter = {"$and": all} if len(all) > 1 else (all[0] if all else {})
    # What took too long is tried again with less.
    count = max(1, most >> min(job.failures, TIMEOUTS_MAX))
    return replace(made, filter=filter, sort=(), count=count, total="none", ranged="")


async def _not_before(rows: Rows, job: Job, type: str, context: Context) -> Rows:
    """Return those of ``rows`` that none of the searches before has found."""
    for query in range(job.place.query):
        if not rows:
            break
        same: Filter = {"_id": {"$in": [row["_id"] for row in rows]}}
        wanted = await searched(job, type, query, [same], context)
        again = await context.store.listed(replace(wanted, count=len(rows)), ())
        found = {row["_id"] for row in again.rows}
        rows = [row for row in rows if row["_id"] not in found]
    return rows


async def deleted(job: Job, type: str, context: Context) -> Page:
    """Return the next deletions of ``type``, a transaction Bundle each."""
    place, within = job.place, await _within(job, type, context)
    if within is None:
        return Page()
    wanted: Filter = {"last_updated": {"$gt": job.asked.since}, "_id": {"$gt": place.after}}
    filter: Filter = {"$and": [wanted, within]}
    most = min(context.settings.export_page_entries, _SEARCHED_ENTRIES)
    database, seconds = context.store.database, context.settings.request_timeout_s
    ids = await tombstones(database, type, filter, most, seconds)
    places = await compartments(database, type, ids, seconds) if _is_shared(job, type) else {}
    rows: Rows = [{"_id": id, "compartments": places.get(id, ())} for id in ids]
    kept = tuple(row["_id"] for row in await _of_listed(rows, job, type, context))
    lines = tuple(encode(_deletion(type, id)) + b"\n" for id in kept)
    pieces = (Piece(kept, lines=lines, size=sum(map(len, lines))),) if lines else ()
    return Page(pieces, ids[-1] if len(ids) == most else "")


def _deletion(type: str, id: str) -> dict[str, Any]:
    request = {"method": "DELETE", "url": f"{type}/{id}"}
    return {"resourceType": "Bundle", "type": "transaction", "entry": [{"request": request}]}


def is_of_patients(job: Job, type: str, context: Context) -> bool:
    """Whether ``job`` exports of ``type`` only what belongs to patients, by its compartments."""
    if not job.asked.level or _is_by_target(job, type):
        return False
    return type not in ASSOCIATED or type in context.parameters.compartment_types(PATIENT)


def _is_by_target(job: Job, type: str) -> bool:
    """Whether the targets of ``type`` say to whom it belongs; what is deleted has none any more."""
    return bool(job.asked.level) and type == PROVENANCE and job.place.step < len(job.asked.types)


def _is_shared(job: Job, type: str) -> bool:
    """Whether what belongs to a listed patient may belong to others as well."""
    return job.asked.patients is not None and type != PATIENT


async def _within(job: Job, type: str, context: Context) -> Filter | None:
    """Return the condition of belonging to the patients of the job's place; ``None`` for none."""
    if not is_of_patients(job, type, context):
        return {}
    context.parameters.check_complete(COMPARTMENTS, (type,))
    if job.asked.patients is None:
        return {} if type == PATIENT else _ANY_PATIENT
    ids = await context.exports.patients(job, job.place.row)
    if not ids:
        return None
    if type == PATIENT:
        return {"_id": {"$in": ids}}
    return {"compartments": {"$in": [f"{PATIENT}/{id}" for id in ids]}}


async def _kept(rows: Rows, job: Job, type: str, context: Context) -> Rows:
    """Return those of ``rows`` that are to be exported at the job's place."""
    if not _is_by_target(job, type):
        return await _of_listed(rows, job, type, context)
    patients = await patients_of({row["_id"]: row["json"] for row in rows}, context)
    if job.asked.patients is None:
        return [row for row in rows if patients[row["_id"]]]
    known = await context.exports.rows_of(job, sorted(set().union(*patients.values())))
    kept = {id for id, some in patients.items() if some and some <= known.keys()}
    return [row for row in rows if row["_id"] in kept]


async def _of_listed(rows: Rows, job: Job, type: str, context: Context) -> Rows:
    """Return those of ``rows``, which have ``compartments``, that are to be exported at the job's
    place.

    Where patients are listed, what belongs to several is exported once, with the first of them; and
    not at all if one of them is not listed.
    """
    if not _is_shared(job, type) or not is_of_patients(job, type, context):
        return rows
    patients = [patients_in(row.get("compartments", ())) for row in rows]
    several = {patient for some in patients if len(some) > 1 for patient in some}
    known = await context.exports.rows_of(job, sorted(several)) if several else {}
    return [
        row
        for row, some in zip(rows, patients, strict=True)
        if _first_row(some, job, known) == job.place.row
    ]


def _first_row(patients: Sequence[str], job: Job, known: dict[str, int]) -> int:
    """Return with which row of patients it comes that belongs to ``patients``; -1 for none."""
    if len(patients) == 1:
        return job.place.row
    return min((known.get(patient, -1) for patient in patients), default=-1)


PAGES = {OUTPUT: output, DELETED: deleted}
"""What reads a step of a job, by its kind."""
