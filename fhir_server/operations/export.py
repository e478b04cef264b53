"""``$export``: everything, everything of patients, or of the patients of a Group, as NDJSON files.

https://hl7.org/fhir/uv/bulkdata/STU2/export.html#bulk-data-kick-off-request

The request is answered at once; ``export_work.py`` does what it asks for, in the background and
with the rights of who asked, and ``export_files.py`` hands out what came of it.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from fhir_server.context import Context
from fhir_server.interactions.admitting import SIGNED_IN, forbidden, may_search, searchable
from fhir_server.messages import Request, Response
from fhir_server.operations.export_parameters import (
    ASSOCIATED,
    NOT_UNASKED,
    PATIENT,
    PATIENTS_MAX,
    Leniency,
    Wish,
    wish_of,
    without,
)
from fhir_server.outcome import FhirError, Issue, not_found, operation_outcome, shown
from fhir_server.r4.json import decode_stored, encode
from fhir_server.r4.references import target
from fhir_server.registry import Operation
from fhir_server.search.parameters import COMPARTMENTS
from fhir_server.security.principal import Principal
from fhir_server.security.scopes import scopes_of
from fhir_server.settings import Settings
from fhir_server.store.exported import present
from fhir_server.store.exports import Asked, Job, rows_of_patients

GROUP = "Group"
STATUS = "$export-status"
EXPORTING_ROLES = frozenset({"administrator", "analyst"})
"""The roles of users who may export; a backend may with its scopes."""

_DEFINITION = "http://hl7.org/fhir/uv/bulkdata/OperationDefinition/"
_CLOCKS_S = 30.0  # by which the clocks of server processes may differ
_URL_CHARACTERS_MAX = 2000
_GROUPS_MAX = 100
_READ_TOGETHER = 1000


async def export(request: Request, context: Context) -> Response:
    """Take on an export; the answer is 202, and Content-Location is where to ask how far it is.

    Raises ``required`` without ``Prefer: respond-async``, ``forbidden`` for types that the scopes
    do not open, ``throttled`` for one export too many.
    """
    if "respond-async" not in request.prefer:
        text = "An export is made in the background: send Prefer: respond-async."
        raise FhirError(Issue("required", text))
    check_exporting(context)
    leniency = Leniency(request.prefer.get("handling") == "lenient")
    seeing = replace(context, store=searchable(context))
    wish = await wish_of(request, leniency, seeing)
    patients = await _patients(request, wish, leniency, context)
    types = await _types(request, wish, context)
    await _check_room(context, 1)
    asked = Asked(
        *(request.type, types, bool(wish.types), wish.filters, wish.elements, wish.since),
        None if patients is None else len(rows_of_patients(patients)),
        leniency.outcomes,
    )
    now = context.now()
    job = Job(
        id=context.new_id(),
        owner=context.principal.key,
        principal=kept(context.principal),
        url=_url(request),
        asked=asked,
        began=now,
        transaction_time=now - timedelta(seconds=unsettled_s(context.settings)),
        expires=now + timedelta(hours=context.settings.export_hours),
    )
    await context.exports.begin(job, patients)
    try:
        await _check_room(context, 0)  # others may have come at the same moment
    except FhirError:
        await context.exports.cancel(job.id, job.owner)
        raise
    text = "The export has begun; Content-Location is where to ask how far it is."
    body = encode(operation_outcome([Issue("informational", text, severity="information")]))
    place = f"{request.base_url}/{STATUS}?job={job.id}"
    return Response(202, body, headers=(("Content-Location", place),))


def unsettled_s(settings: Settings) -> float:
    """Return for how many seconds a write may be under way: what bears an older time is committed
    by now, or never will be.

    ``meta.lastUpdated`` is the time at which a write begins, so what bears a time before that of an
    export may still be on its way when the export reads. The transaction time lies before all that.
    """
    message_s = settings.hl7_commit_s_max + settings.hl7_apply_s_max
    return max(settings.request_timeout_s, settings.write_timeout_s, message_s) + _CLOCKS_S


def check_exporting(context: Context) -> None:
    """Raise ``forbidden`` unless the principal may export at all: a backend with scopes of its own,
    or a user with one of :data:`EXPORTING_ROLES`. Others see single patients, not all at once."""
    if context.rights is None or context.principal.kind == "client":
        return
    if EXPORTING_ROLES.isdisjoint(context.rights.roles):
        raise forbidden("Exports are for backend services, analysts and administrators.")


async def _types(request: Request, wish: Wish, context: Context) -> tuple[str, ...]:
    """Return the types to export, in the order of the specification's list."""
    members = context.parameters.compartment_types(PATIENT)
    if request.type:
        context.parameters.check_complete(COMPARTMENTS, members)
    if wish.types:
        closed = [type for type in wish.types if not may_search(type, context)]
        if closed:
            raise forbidden(f"Your scopes do not open a search of {', '.join(closed)}.")
        return wish.types
    known = await context.store.indexes.existing()
    beside = (*members, *ASSOCIATED) if request.type else known
    found = tuple(
        type
        for type in known
        if type in beside and type not in NOT_UNASKED and may_search(type, context)
    )
    if not found and not any(
        may_search(type, context) for type in context.definitions.resource_types
    ):
        raise forbidden("Your scopes open no search of any type.")
    return found


async def _patients(
    request: Request, wish: Wish, leniency: Leniency, context: Context
) -> tuple[str, ...] | None:
    """Return the patients that the export is about; ``None`` for all."""
    members = await _members(request.id, context) if request.type == GROUP else None
    if wish.patients is None:
        return members
    there = await _existing(wish.patients, context)
    lacking = [
        id for id in wish.patients if id not in there or (members is not None and id not in members)
    ]
    if lacking:
        named = ", ".join(lacking[:10])
        text = f"{len(lacking)} of the patients cannot be exported here: {shown(named, most=400)}"
        leniency.refuse(FhirError(Issue("not-found", text), status=400))
    return without(wish, lacking).patients


async def _existing(ids: Sequence[str], context: Context) -> set[str]:
    found: set[str] = set()
    for start in range(0, len(ids), _READ_TOGETHER):
        some = ids[start : start + _READ_TOGETHER]
        seconds = context.settings.request_timeout_s
        found |= await present(searchable(context).database, PATIENT, some, seconds)
    return found


async def _members(id: str, context: Context) -> tuple[str, ...]:
    """Return the patients of Group/``id`` and of the groups in it, each once, in their order.

    A member that is inactive is none. Raises ``not-found`` for a Group that is not there or may not
    be seen, ``processing`` for one that lists nobody but describes whom it means.
    """
    if context.rights and not any(context.rights.allows(GROUP, letter) for letter in "rs"):
        raise forbidden("Your scopes do not open Group.")
    found: dict[str, None] = {}
    waiting, seen = [id], {id}
    while waiting:
        group = await _group(waiting.pop(), context)
        if group is None:
            if len(seen) == 1:
                raise not_found(GROUP, id)
            continue
        for type, member in _members_of(group, context.parameters.base_urls):
            if type == PATIENT:
                found[member] = None
            elif member not in seen:
                seen.add(member)
                waiting.append(member)
        if len(seen) > _GROUPS_MAX or len(found) > PATIENTS_MAX:
            text = f"Group/{id} has more than {PATIENTS_MAX:,} patients or {_GROUPS_MAX} groups."
            raise FhirError(Issue("too-costly", text))
    return tuple(sorted(found))


async def _group(id: str, context: Context) -> dict[str, Any] | None:
    stored = await context.store.read(GROUP, id)
    if stored is None or stored.deleted:
        return None
    group: dict[str, Any] = decode_stored(stored.json)
    if not group.get("actual", True):
        text = f"Group/{id} describes whom it means (actual is false) and lists nobody."
        raise FhirError(Issue("processing", text, "Group.actual"))
    return group


def _members_of(group: dict[str, Any], base_urls: Sequence[str]) -> list[tuple[str, str]]:
    found = []
    for member in group.get("member", ()):
        to = target(member.get("entity", {}).get("reference", ""), base_urls)
        if to.type in (PATIENT, GROUP) and to.id and not member.get("inactive"):
            found.append((to.type, to.id))
    return found


async def _check_room(context: Context, more: int) -> None:
    """Raise ``throttled`` where the requester has too many exports, and ``more`` to come."""
    settings, owner = context.settings, context.principal.key
    under_way, kept = await context.exports.counts(owner, context.now())
    if under_way + more > settings.export_jobs_max:
        text = f"{under_way} exports are under way; wait for one of them, or delete it."
        raise FhirError(Issue("throttled", text), headers=(("Retry-After", "60"),))
    if kept + more > settings.export_kept_max:
        text = f"The files of {kept} exports are kept; delete those that you have."
        raise FhirError(Issue("throttled", text), headers=(("Retry-After", "600"),))


def _url(request: Request) -> str:
    """Return the request's URL as it was sent, about; "in the case of a POST request, this URL will
    not include the request parameters"."""
    path = "/".join(part for part in (request.type, request.id, "$export") if part)
    url = f"{request.base_url}/{path}"
    if not request.reading or not request.parameters:
        return url
    query = "&".join(f"{quote(name)}={quote(value)}" for name, value in request.parameters)
    return f"{url}?{query}"[:_URL_CHARACTERS_MAX]


def kept(principal: Principal) -> dict[str, Any]:
    """Return what ``principal`` is made of again; nothing of it lets anybody in."""
    return {
        "kind": principal.kind,
        "name": principal.name,
        "client": principal.client,
        "scopes": [scope.text for scope in principal.scopes],
        "roles": list(principal.roles),
        "fhir_user": principal.fhir_user,
        "patient": principal.patient,
        "purpose": principal.purpose,
        "token": principal.token,
        "address": principal.address,
        "context": [[name, value] for name, value in principal.context.items()],
    }


def restored(said: Any) -> Principal:
    """Return the principal that was :func:`kept`."""
    return Principal(
        **{
            **said,
            "scopes": scopes_of(" ".join(said["scopes"])),
            "roles": tuple(said["roles"]),
            "context": dict(said["context"]),
        }
    )


SYSTEM = Operation("$export", f"{_DEFINITION}export", export, needs=SIGNED_IN)
PATIENTS = Operation(
    "$export", f"{_DEFINITION}patient-export", export, on=(PATIENT,), needs=SIGNED_IN
)
MEMBERS = Operation(
    *("$export", f"{_DEFINITION}group-export", export, (GROUP,)),
    instance=True,
    whole=False,
    needs=SIGNED_IN,
)
