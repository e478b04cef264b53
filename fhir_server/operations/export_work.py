"""Makes the files of exports, page by page, beside the requests.

https://hl7.org/fhir/uv/bulkdata/STU2/export.html

The steps of a job are its types, and those once more for what was deleted of them. A step is read
in the order of ids, from behind the last one: what is changed meanwhile comes in its newer version,
and nothing comes twice. Several searches of one type are made one after the other, without what an
earlier one has found; patients that are listed are taken a hundred at a time.

Before each page the rights of who asked are looked up anew. Nothing is exported by rights that have
ended: the export then fails, or goes on without a type that was not named.
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from fhir_server.context import Context
from fhir_server.interactions.admitting import forbidden, may_search, searchable
from fhir_server.interactions.parameters import Subset
from fhir_server.operations.export import check_exporting, restored
from fhir_server.operations.export_parameters import ASSOCIATED, PATIENT, elements_of, search_of
from fhir_server.operations.export_provenance import PROVENANCE, patients_in, patients_of
from fhir_server.operations.export_requester import as_of_now
from fhir_server.outcome import FhirError, operation_outcome
from fhir_server.r4.json import encode
from fhir_server.registry import Task
from fhir_server.search.keys import Filter
from fhir_server.search.page import Edge
from fhir_server.search.parameters import COMPARTMENTS
from fhir_server.search.parse import parse
from fhir_server.search.plan import Plan, plan
from fhir_server.store.documents import Stored
from fhir_server.store.exports import (
    COMPLETE,
    FAILED,
    Exports,
    File,
    Job,
    Piece,
    Place,
    compartments,
    tombstones,
)

OUTPUT, DELETED, ERROR = "output", "deleted", "error"
SLICE_S = 2.0
"""How long one job is worked on before another gets its turn."""

_PAGE_ENTRIES = 500
_PAGE_BYTES = 2_097_152  # what is held of one page, but for a resource that is larger by itself
_EMPTY_MAX = 200  # parts without anything, after which the place is noted all the same
_FAILURES_MAX = 100  # with the pauses between them three quarters of an hour
_TIMEOUTS_MAX = 10  # a search that takes too long for half a page, and so on, is hopeless
_PAUSE_S_MAX = 30
_PAUSE_EVERY = 20  # resources cut to elements before other requests get their turn
_ANY_PATIENT: Filter = {"compartments": {"$elemMatch": {"$gte": "Patient/", "$lt": "Patient0"}}}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Page:
    """What was found from a place on. ``after`` is the last id that was looked at, where there may
    be more; ``""`` where there is not."""

    piece: Piece
    after: str = ""


_NOTHING = Page(Piece(()))


async def run(context: Context) -> None:
    """Work on exports for as long as the server runs."""
    while True:
        try:
            worked = await work(context)
        except Exception as error:  # noqa: BLE001 - the next job may do; to end would be silent
            _log.warning('"exports were interrupted: %s"', error.__class__.__name__)
            worked = False
        if not worked:
            await context.exports.idle()


async def work(context: Context, slice_s: float = SLICE_S) -> bool:
    """Take a job and work on it for some seconds; return whether there was one."""
    exports, now = context.exports, context.now()
    await exports.sweep(now)
    job = await exports.leased(now)
    if job is None:
        return False
    end = time.monotonic() + slice_s
    at: Job | None = job
    try:
        while at is not None and time.monotonic() < end:
            job = at
            at = await _further(job, exports, context)
    except FhirError as error:
        await _stumbled(job, error, context)
    else:
        if at is not None:
            await exports.release(at)
    return True


async def _further(job: Job, exports: Exports, context: Context) -> Job | None:
    """Write the next page of ``job``; return the job behind it, ``None`` where that was the last or
    the job is not ours any more."""
    steps = _steps(job)
    piece: Piece | None = None
    for _ in range(_EMPTY_MAX):
        if job.place.step == len(steps):
            await _finished(job, exports, context)
            return None
        kind, type = steps[job.place.step]
        seeing = await _seeing(job, type, context)
        page = _NOTHING if seeing is None else await _PAGES[kind](job, type, seeing)
        if page.piece.lines:
            piece = page.piece
            job = _with(job, File(kind, type, job.pieces), piece, context)
        job = replace(job, place=_next(job, type, page, seeing), failures=0)
        if piece is not None:
            break
        await asyncio.sleep(0)
    return job if await exports.write(job, piece, _expires(context)) else None


def _steps(job: Job) -> list[tuple[str, str]]:
    found = [(OUTPUT, type) for type in job.asked.types]
    return found if job.asked.since is None else found + [(DELETED, type) for _, type in found]


async def _seeing(job: Job, type: str, context: Context) -> Context | None:
    """Return ``context`` as who asked for ``job`` may see ``type`` now; ``None`` where it is not to
    be exported, and was not asked for by name."""
    principal = await as_of_now(restored(job.principal), context)
    seeing = replace(context, principal=principal)
    if not principal.is_unrestricted:
        seeing = replace(seeing, rights=await context.access(principal, seeing))
        check_exporting(seeing)
        if not may_search(type, seeing):
            if job.asked.named:
                raise forbidden(f"The rights of who asked do not open {type} any more.")
            return None
    store = replace(searchable(seeing), page_bytes_max=_PAGE_BYTES)
    return replace(seeing, store=store)


async def _output(job: Job, type: str, context: Context) -> Page:
    """Return the next resources of ``type``."""
    place = job.place
    within = await _within(job, type, context)
    if within is None:
        return _NOTHING
    since: Filter = {"last_updated": {"$gt": job.asked.since}} if job.asked.since else {}
    wanted = await _plan(job, type, place.query, [within, since], context)
    after = Edge((place.after,)) if place.after else None
    page = await context.store.search(replace(wanted, after=after))
    found = await _not_before(page.entries, job, type, context)
    kept = await _kept(found, job, type, context)
    names = elements_of(type, job.asked.elements, context.definitions)
    lines = await _lines([one for one in found if one.id in kept], Subset("", names), context)
    ids = tuple(one.id for one in found if one.id in kept)
    return Page(Piece(lines, ids), page.entries[-1].id if page.after else "")


async def _lines(found: Sequence[Stored], subset: Subset, context: Context) -> tuple[bytes, ...]:
    lines = []
    for n, one in enumerate(found, 1):
        lines.append(subset.applied(one.json, context.definitions) + b"\n")
        if subset.elements and n % _PAUSE_EVERY == 0:
            await asyncio.sleep(0)
    return tuple(lines)


async def _plan(
    job: Job, type: str, query: int, conditions: Iterable[Filter], context: Context
) -> Plan:
    """Return the search number ``query`` of ``type`` in the order of ids, under ``conditions``."""
    texts = [text for of, text in job.asked.filters if of == type]
    table = context.parameters
    asked = (
        await search_of(type, texts[query], context)
        if texts
        else parse(type, (), table, count_default=_PAGE_ENTRIES)
    )
    made = plan(asked, table)
    all = [one for one in (made.filter, *conditions) if one]
    filter: Filter = {"$and": all} if len(all) > 1 else (all[0] if all else {})
    # What took too long is tried again with less.
    count = max(1, _PAGE_ENTRIES >> min(job.failures, _TIMEOUTS_MAX))
    return replace(made, filter=filter, sort=(), count=count, total="none", ranged="")


async def _not_before(
    entries: Sequence[Stored], job: Job, type: str, context: Context
) -> Sequence[Stored]:
    """Return those of ``entries`` that none of the searches before has found."""
    for query in range(job.place.query):
        if not entries:
            break
        same: Filter = {"_id": {"$in": [one.id for one in entries]}}
        page = await context.store.search(await _plan(job, type, query, [same], context))
        found = {one.id for one in page.entries}
        entries = [one for one in entries if one.id not in found]
    return entries


async def _deleted(job: Job, type: str, context: Context) -> Page:
    """Return the next deletions of ``type``, a transaction Bundle each."""
    place, within = job.place, await _within(job, type, context)
    if within is None:
        return _NOTHING
    wanted: Filter = {"last_updated": {"$gt": job.asked.since}, "_id": {"$gt": place.after}}
    filter: Filter = {"$and": [wanted, within]}
    seconds = context.settings.request_timeout_s
    ids = await tombstones(context.store.database, type, filter, _PAGE_ENTRIES, seconds)
    listed = await _of_listed(ids, job, type, context)
    kept = [id for id in ids if id in listed]
    lines = tuple(encode(_deletion(type, id)) + b"\n" for id in kept)
    return Page(Piece(lines, tuple(kept)), ids[-1] if len(ids) == _PAGE_ENTRIES else "")


def _deletion(type: str, id: str) -> dict[str, Any]:
    request = {"method": "DELETE", "url": f"{type}/{id}"}
    return {"resourceType": "Bundle", "type": "transaction", "entry": [{"request": request}]}


_PAGES = {OUTPUT: _output, DELETED: _deleted}


def _is_of_patients(job: Job, type: str, context: Context) -> bool:
    if not job.asked.level or _is_by_target(job, type):
        return False
    return type not in ASSOCIATED or type in context.parameters.compartment_types(PATIENT)


def _is_by_target(job: Job, type: str) -> bool:
    """Whether the targets of ``type`` say to whom it belongs; what is deleted has none any more."""
    return bool(job.asked.level) and type == PROVENANCE and job.place.step < len(job.asked.types)


async def _within(job: Job, type: str, context: Context) -> Filter | None:
    """Return the condition of belonging to the patients of the job's place; ``None`` for none."""
    if not _is_of_patients(job, type, context):
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


async def _kept(found: Sequence[Stored], job: Job, type: str, context: Context) -> set[str]:
    """Return the ids of those of ``found`` that are to be exported at the job's place."""
    ids = [one.id for one in found]
    if not _is_by_target(job, type):
        return await _of_listed(ids, job, type, context)
    patients = await patients_of(found, context)
    if job.asked.patients is None:
        return {id for id, some in patients.items() if some}
    rows = await context.exports.rows_of(job, sorted(set().union(*patients.values())))
    return {id for id, some in patients.items() if some and some <= rows.keys()}


async def _of_listed(ids: Sequence[str], job: Job, type: str, context: Context) -> set[str]:
    """Return those of ``ids`` that are to be exported at the job's place.

    Where patients are listed, what belongs to several is exported once, with the first of them; and
    not at all if one of them is not listed.
    """
    is_one = job.asked.patients is None or type == PATIENT
    if is_one or not ids or not _is_of_patients(job, type, context):
        return set(ids)
    seconds = context.settings.request_timeout_s
    places = await compartments(context.store.database, type, ids, seconds)
    patients = {id: patients_in(places.get(id, ())) for id in ids}
    several = {patient for some in patients.values() if len(some) > 1 for patient in some}
    rows = await context.exports.rows_of(job, sorted(several)) if several else {}
    kept = set()
    for id, some in patients.items():
        found = [rows.get(patient, -1) for patient in some] if len(some) > 1 else [job.place.row]
        if min(found) == job.place.row:
            kept.add(id)
    return kept


def _next(job: Job, type: str, page: Page, context: Context | None) -> Place:
    """Return the place behind ``page``."""
    place = job.place
    if context is not None:
        if page.after:
            return replace(place, after=page.after)
        if _is_of_patients(job, type, context) and place.row + 1 < (job.asked.patients or 0):
            return replace(place, row=place.row + 1, after="")
        is_output = place.step < len(job.asked.types)
        queries = sum(of == type for of, _ in job.asked.filters) if is_output else 0
        if place.query + 1 < queries:
            return Place(place.step, place.query + 1)
    return Place(place.step + 1)


def _with(job: Job, fresh: File, piece: Piece, context: Context) -> Job:
    """Return ``job`` with ``piece`` as the last of its files; of a new one where that is full, or
    is about something else."""
    files = job.files
    last = files[-1] if files else fresh
    is_full = last.size >= context.settings.export_file_bytes_max
    if not files or (last.kind, last.type) != (fresh.kind, fresh.type) or is_full:
        files, last = (*files, fresh), fresh
    size = sum(map(len, piece.lines))
    grown = replace(
        last,
        pieces=last.pieces + 1,
        count=last.count + len(piece.lines),
        size=last.size + size,
    )
    count = job.count + (len(piece.lines) if fresh.kind == OUTPUT else 0)
    return replace(job, files=(*files[:-1], grown), pieces=job.pieces + 1, count=count)


async def _finished(job: Job, exports: Exports, context: Context) -> None:
    """Write what was left out, where something was, and that all is there."""
    piece = None
    if job.asked.ignored:
        piece = Piece(tuple(encode(dict(one)) + b"\n" for one in job.asked.ignored))
        job = _with(job, File(ERROR, "OperationOutcome", job.pieces), piece, context)
    job = replace(job, status=COMPLETE)
    await exports.write(job, piece, _expires(context))


async def _stumbled(job: Job, error: FhirError, context: Context) -> None:
    """Note that ``job`` has met ``error``: it is tried again if that may pass, else it has failed.

    A refusal by rights ends it at once.
    """
    failures = job.failures + 1
    job = replace(job, failures=failures)
    most = _TIMEOUTS_MAX if error.issues[0].code == "timeout" else _FAILURES_MAX
    if error.status < 500 or failures >= most:
        outcome = operation_outcome(error.issues)
        job = replace(job, status=FAILED, problem={"status": error.status, "outcome": outcome})
    await context.exports.write(job, None, _expires(context))
    await context.exports.release(job, min(failures, _PAUSE_S_MAX))


def _expires(context: Context) -> Any:
    return context.now() + timedelta(hours=context.settings.export_hours)


TASK = Task("exports", run)
