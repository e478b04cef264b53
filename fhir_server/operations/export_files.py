"""``$export-status``, ``$export-cancel`` and ``$export-file``: how far an export is, and its files.

https://hl7.org/fhir/uv/bulkdata/STU2/export.html#bulk-data-status-request

All are for who asked for the export and for nobody else: to others it does not exist. A file is
read with the rights of the moment. What its requester may not see any more, of a patient whose
consent was withdrawn or by a role that was taken away, is left out of it. Of resources a file has
the versions that the export found; their bytes are read now, a piece ahead of what is sent.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, timedelta
from email.utils import format_datetime
from typing import Any, TypeVar

from fhir_server.context import Context
from fhir_server.interactions.admitting import SIGNED_IN, forbidden, may_search, searchable
from fhir_server.interactions.parameters import Subset, known_only, value_of
from fhir_server.interactions.recording import note
from fhir_server.messages import Pieces, Request, Response
from fhir_server.operations.export import STATUS as STATUS_NAME
from fhir_server.operations.export import check_exporting
from fhir_server.operations.export_pages import DELETED, ERROR, OUTPUT
from fhir_server.operations.export_parameters import elements_of
from fhir_server.outcome import FhirError, Issue, operation_outcome, shown
from fhir_server.r4.definitions import Definitions
from fhir_server.r4.json import encode
from fhir_server.registry import Operation
from fhir_server.route import CANCEL
from fhir_server.security.audit import PATIENTS_MAX, Row
from fhir_server.store.client import Database
from fhir_server.store.documents import instant
from fhir_server.store.exported import compartments, versions
from fhir_server.store.exports import COMPLETE, FAILED, File, Job, Piece

T = TypeVar("T")

_DEFINITION = "urn:fhir-server:OperationDefinition:"
_NDJSON = "application/fhir+ndjson"
_JSON = "application/json"
_FILE_NAME = "$export-file"
_PAUSE_EVERY = 20  # resources cut to elements before other requests get their turn
_RETRY_S_MAX = 60
_RETRY_AFTER_EACH_S = 10  # so much longer an export was under way, a second later to ask again


async def status(request: Request, context: Context) -> Response:
    """Return 202 with X-Progress while an export is under way, 200 with its manifest at the end.

    Raises ``not-found`` for no export of the caller, and what the export has failed of.
    """
    known_only(request, ("job",))
    check_exporting(context)
    job = await _job(request, context)
    if job.status == FAILED:
        said = job.problem
        return Response(said["status"], encode(dict(said["outcome"])))
    if job.status != COMPLETE:
        waited = (context.now() - job.began) / timedelta(seconds=1)
        retry = min(_RETRY_S_MAX, 1 + int(max(0.0, waited)) // _RETRY_AFTER_EACH_S)
        done = f"{job.count:,} resources; {job.place.step} of {_steps(job)} steps"
        return Response(202, headers=(("X-Progress", done), ("Retry-After", str(retry))))
    expires = format_datetime(job.expires.astimezone(UTC), usegmt=True)
    body = encode(_manifest(job, request.base_url))
    return Response(200, body, headers=(("Expires", expires),), media_type=_JSON)


def _steps(job: Job) -> int:
    return len(job.asked.types) * (2 if job.asked.since else 1)


def _manifest(job: Job, base_url: str) -> dict[str, Any]:
    """https://hl7.org/fhir/uv/bulkdata/STU2/export.html#response---complete-status"""
    listed: dict[str, list[dict[str, Any]]] = {OUTPUT: [], DELETED: [], ERROR: []}
    for n, file in enumerate(job.files):
        type = "Bundle" if file.kind == DELETED else file.type
        url = f"{base_url}/{_FILE_NAME}?job={job.id}&file={n}"
        listed[file.kind].append({"type": type, "url": url, "count": file.count})
    return {
        "transactionTime": instant(job.transaction_time),
        "request": job.url,
        "requiresAccessToken": True,
        **listed,
    }


async def cancel(request: Request, context: Context) -> Response:
    """End an export, and remove its files. Raises ``not-found`` for no export of the caller."""
    known_only(request, ("job",))
    id = value_of(request, "job")
    if not await context.exports.cancel(id, context.principal.key):
        raise _no_export(id)
    text = "The export has ended, and its files are removed."
    issue = Issue("informational", text, severity="information")
    return Response(202, encode(operation_outcome([issue])))


async def file(request: Request, context: Context) -> Response:
    """Return one file of an export as NDJSON, piece by piece.

    Raises ``not-found`` for no such file of the caller, ``forbidden`` where the rights do not open
    its type any more.
    """
    known_only(request, ("job", "file"))
    check_exporting(context)
    job = await _job(request, context)
    number = value_of(request, "file")
    is_number = number.isascii() and number.isdigit() and len(number) < 9
    if job.status != COMPLETE or not is_number or int(number) >= len(job.files):
        raise FhirError(Issue("not-found", f"The export has no file {shown(number)}."))
    wanted = job.files[int(number)]
    if wanted.kind != ERROR and not may_search(wanted.type, context):
        raise forbidden(f"Your scopes do not open a search of {wanted.type}.")
    return Response(200, media_type=_NDJSON, pieces=_pieces(job, wanted, context))


@dataclass(frozen=True, slots=True)
class _Seen:
    """Lines of NDJSON that a reader may see now, and the patients that they are about, as
    references."""

    lines: bytes
    patients: Sequence[str] = ()


def _pieces(job: Job, wanted: File, context: Context) -> Callable[[int, int], Pieces]:
    said = f"job={job.id}&file={job.files.index(wanted)}"

    async def seen() -> AsyncGenerator[_Seen, None]:
        async for piece in context.exports.pieces(job, wanted):
            yield await _seen(piece, job, wanted, context)

    async def read() -> Pieces:
        async for one in _ahead(seen()):
            # That it was handed out is written before it is: a client that goes away has had it.
            for patients in _by_row(one.patients):
                row = Row(context.now(), "export", context.principal, wanted.type, query=said)
                await note(context, replace(row, concerns=patients))
            yield one.lines

    return lambda _start, _end: read()


def _by_row(patients: Sequence[str]) -> list[Sequence[str]]:
    """Return ``patients`` as the rows name them: a row names no more than so many of them."""
    starts = range(0, max(1, len(patients)), PATIENTS_MAX)
    return [patients[start : start + PATIENTS_MAX] for start in starts]


async def _ahead(found: AsyncGenerator[T, None]) -> AsyncIterator[T]:
    """Yield what ``found`` yields; the next is made while the present one is used."""
    coming = asyncio.ensure_future(anext(found, None))
    try:
        while (one := await coming) is not None:
            coming = asyncio.ensure_future(anext(found, None))
            yield one
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
        await found.aclose()


async def _seen(piece: Piece, job: Job, wanted: File, context: Context) -> _Seen:
    """Return what of ``piece`` its reader may see now."""
    if not piece.ids:
        return _Seen(b"".join(piece.lines))
    database, seconds = await _database(context), context.settings.request_timeout_s
    if piece.versions:
        listed = dict(zip(piece.ids, piece.versions, strict=True))
        rows = await versions(database, wanted.type, listed, seconds)
        names = elements_of(wanted.type, job.asked.elements, context.definitions)
        jsons = await _cut([row["json"] for row in rows], names, context.definitions)
        lines = b"\n".join((*jsons, b""))
        return _Seen(lines, _patients(row.get("compartments", ()) for row in rows))
    seen = await compartments(database, wanted.type, piece.ids, seconds)
    pairs = zip(piece.lines, piece.ids, strict=True)
    told = [line for line, id in pairs if id in seen or context.rights is None]
    return _Seen(b"".join(told), _patients(seen.values()))


async def _database(context: Context) -> Database:
    """Return what who reads may search at this moment."""
    store = context.store.as_server
    if context.rights is not None:
        rights = await context.access(context.principal, replace(context, rights=None, store=store))
        store = searchable(replace(context, rights=rights))
    return store.database


async def _cut(
    jsons: list[bytes], elements: frozenset[str], definitions: Definitions
) -> list[bytes]:
    """Return ``elements`` of the resources ``jsons``; none is all of them."""
    if not elements:
        return jsons
    subset, found = Subset("", elements), []
    for n, json in enumerate(jsons, 1):
        found.append(subset.applied(json, definitions))
        if n % _PAUSE_EVERY == 0:
            await asyncio.sleep(0)
    return found


def _patients(places: Iterable[Sequence[str]]) -> list[str]:
    return sorted({one for some in places for one in some if one.startswith("Patient/")})


async def _job(request: Request, context: Context) -> Job:
    id = value_of(request, "job")
    job = await context.exports.of(id, context.principal.key, context.now())
    if job is None:
        raise _no_export(id)
    return job


def _no_export(id: str) -> FhirError:
    text = f"You have no export {shown(id)}; what is over is kept for a time, and then gone."
    return FhirError(Issue("not-found", text))


STATUS = Operation(STATUS_NAME, f"{_DEFINITION}export-status", status, native=True, needs=SIGNED_IN)
CANCELLING = Operation(
    CANCEL, f"{_DEFINITION}export-cancel", cancel, affects_state=True, needs=SIGNED_IN
)
FILE = Operation(_FILE_NAME, f"{_DEFINITION}export-file", file, native=True, needs=SIGNED_IN)
