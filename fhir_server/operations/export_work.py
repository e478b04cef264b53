"""Makes the files of exports, page by page, beside the requests.

https://hl7.org/fhir/uv/bulkdata/STU2/export.html

The steps of a job are its types, and those once more for what was deleted of them. A step is read
page by page, from behind the last id (``export_pages.py``): what is changed meanwhile comes in its
newer version, and nothing comes twice. Pages that have little are written together.

Before each page the rights of who asked are looked up anew. Nothing is exported by rights that have
ended: the export then fails, or goes on without a type that was not named.
"""

import asyncio
import logging
import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

from fhir_server.context import Context
from fhir_server.interactions.admitting import forbidden, may_search, searchable
from fhir_server.operations.export import check_exporting, restored
from fhir_server.operations.export_pages import (
    DELETED,
    ERROR,
    OUTPUT,
    PAGES,
    TIMEOUTS_MAX,
    Page,
    is_of_patients,
)
from fhir_server.operations.export_requester import as_of_now
from fhir_server.outcome import FhirError, operation_outcome
from fhir_server.r4.json import encode
from fhir_server.registry import Task
from fhir_server.store.client import OutcomeUnknownError
from fhir_server.store.exports import COMPLETE, FAILED, Exports, File, Job, Piece, Place

SLICE_S = 2.0
"""How long one job is worked on before another gets its turn."""

_READ_BYTES = 2_097_152  # what is held of resources that are judged by what they say
_PAGES_MAX = 200  # with little or nothing, after which the place is noted all the same
_TOGETHER_S = 1.0  # or after so long: what is not written is done again after a crash
_FAILURES_MAX = 100  # with the pauses between them three quarters of an hour
_PAUSE_S_MAX = 30

_log = logging.getLogger(__name__)


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
    """Write the next pages of ``job``; return the job behind them, ``None`` where those were the
    last or the job is not ours any more."""
    steps, pieces = _steps(job), list[Piece]()
    end = time.monotonic() + _TOGETHER_S
    for _ in range(_PAGES_MAX):
        if job.place.step == len(steps):
            await _finished(job, pieces, exports, context)
            return None
        kind, type = steps[job.place.step]
        seeing = await _seeing(job, type, context)
        page = Page() if seeing is None else await PAGES[kind](job, type, seeing)
        for piece in page.pieces:
            job = _with(job, File(kind, type, job.pieces), piece, context)
        pieces += page.pieces
        has_failed = job.failures > 0  # what is done of it at last is not put at risk again
        job = replace(job, place=_next(job, type, page, seeing), failures=0)
        enough = sum(one.count for one in pieces) >= context.settings.export_page_entries
        if enough or has_failed or time.monotonic() > end:
            break
        await asyncio.sleep(0)
    return job if await exports.write(job, pieces, _expires(context)) else None


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
    store = replace(searchable(seeing), page_bytes_max=_READ_BYTES)
    return replace(seeing, store=store)


def _next(job: Job, type: str, page: Page, context: Context | None) -> Place:
    """Return the place behind ``page``."""
    place = job.place
    if context is not None:
        if page.after:
            return replace(place, after=page.after)
        if is_of_patients(job, type, context) and place.row + 1 < (job.asked.patients or 0):
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
    grown = replace(
        last,
        pieces=last.pieces + 1,
        count=last.count + piece.count,
        size=last.size + piece.size,
    )
    count = job.count + (piece.count if fresh.kind == OUTPUT else 0)
    return replace(job, files=(*files[:-1], grown), pieces=job.pieces + 1, count=count)


async def _finished(job: Job, last: list[Piece], exports: Exports, context: Context) -> None:
    """Write the ``last`` pieces, what was left out, where something was, and that all is there."""
    pieces = list(last)
    if job.asked.ignored:
        lines = tuple(encode(dict(one)) + b"\n" for one in job.asked.ignored)
        pieces.append(Piece(lines=lines, size=sum(map(len, lines))))
        job = _with(job, File(ERROR, "OperationOutcome", job.pieces), pieces[-1], context)
    job = replace(job, status=COMPLETE)
    await exports.write(job, pieces, _expires(context))


async def _stumbled(job: Job, error: FhirError, context: Context) -> None:
    """Note that ``job`` has met ``error``: it is tried again if that may pass, else it has failed.

    A refusal by rights ends it at once. Where it is unknown whether its last pages were written,
    what is stored says how far it is.
    """
    failures = job.failures + 1
    if isinstance(error, OutcomeUnknownError):
        await context.exports.release(job, min(failures, _PAUSE_S_MAX))
        return
    job = replace(job, failures=failures)
    most = TIMEOUTS_MAX if error.issues[0].code == "timeout" else _FAILURES_MAX
    if error.status < 500 or failures >= most:
        outcome = operation_outcome(error.issues)
        job = replace(job, status=FAILED, problem={"status": error.status, "outcome": outcome})
    await context.exports.write(job, (), _expires(context))
    await context.exports.release(job, min(failures, _PAUSE_S_MAX))


def _expires(context: Context) -> Any:
    return context.now() + timedelta(hours=context.settings.export_hours)


TASK = Task("exports", run)
