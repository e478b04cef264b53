"""AuditEvent: what this server has recorded, beside the AuditEvents that clients have written.

https://hl7.org/fhir/R4/auditevent.html and section 4 of the design page

A row of the record becomes an AuditEvent when it is read (``security/audit_events.py``). It has one
version, and nobody changes or deletes it, nor an AuditEvent of a client. The record is for
administrators, and for whom rights open AuditEvent without a condition.
"""

from typing import Any

from fhir_server.context import Context
from fhir_server.interactions import create, update
from fhir_server.interactions.admitting import ADMINISTRATOR
from fhir_server.interactions.audit_search import SEARCHED, About, rows_filter
from fhir_server.interactions.bodies import written
from fhir_server.interactions.links import Neighbours, page_links, unpacked_request
from fhir_server.interactions.parameters import Subset, count_of, known_only, subset_of, value_of
from fhir_server.interactions.read import read as read_stored
from fhir_server.interactions.read import vread as vread_stored
from fhir_server.interactions.search_type import search_query
from fhir_server.interactions.search_type import search_type as search_stored
from fhir_server.messages import Request, Response
from fhir_server.outcome import FhirError, Issue, not_found, version_not_found
from fhir_server.r4.bundles import bundle, entry
from fhir_server.r4.json import encode
from fhir_server.registry import Registry
from fhir_server.search.page import cursor, digest, values_of
from fhir_server.search.parse import CURSOR
from fhir_server.security.audit_events import audit_event
from fhir_server.security.chain import placed
from fhir_server.security.plan import Filter, both
from fhir_server.store.audit_rows import AUDIT_EVENT, Found, Place, Wanted
from fhir_server.store.changes import Change, unchanging

_REFUSED = (
    *("patch", "delete"),
    *("conditional-update", "conditional-patch", "conditional-delete"),
    *("$meta-add", "$meta-delete", "$expunge"),
)
_RESULT = ("_count", "_sort", "_total", "_summary", "_elements", CURSOR)
_SORTS = {"-date": True, "-_lastUpdated": True, "date": False, "_lastUpdated": False}
_TOTALS = ("none", "estimate", "accurate")


async def read(request: Request, context: Context) -> Response:
    """Return the AuditEvent of a row, or one that a client has written."""
    if placed(request.id) is None:
        return await read_stored(request, context)
    return await _row(request, context)


async def vread(request: Request, context: Context) -> Response:
    """Return the one version of the AuditEvent of a row, or a version of a client's."""
    if placed(request.id) is None:
        return await vread_stored(request, context)
    if request.version != "1":
        raise version_not_found(request.type, request.id, request.version)
    return await _row(request, context)


async def _row(request: Request, context: Context) -> Response:
    subset = subset_of(request, (AUDIT_EVENT,), context.definitions)
    known_only(request, ("_summary", "_elements"))
    row = await context.store.audit_row(request.id) if _sees_rows(context) else None
    if row is None:
        raise not_found(request.type, request.id)
    body = subset.applied(encode(audit_event(row, request.base_url)), context.definitions)
    return Response(200, body, 1, row["at"])


async def search_type(request: Request, context: Context) -> Response:
    """Return a page of what was recorded, newest first unless ``_sort=date``; where nothing is
    recorded here, AuditEvent is searched as any other type."""
    if context.store.audit is None:
        return await search_stored(request, context)
    request = unpacked_request(request, AUDIT_EVENT, context.link_key)
    given = tuple(one for one in request.parameters if one[1] and one[0] != CURSOR)
    asked = [one for one in given if one[0] not in _RESULT]
    subset = _subset(request, context)
    about = About(context.parameters.base_urls, request.base_url, context.now())
    rows = rows_filter(asked, about)
    subject = digest(AUDIT_EVENT, given)
    wanted = Wanted(
        rows if _sees_rows(context) else None,
        await _of_resources(asked, request, context),
        count_of(request, context.settings.page_entries, context.settings.page_entries_max),
        _SORTS[_sort(request)],
        _after(request, subject, context),
    )
    is_count = value_of(request, "_summary") == "count" or wanted.count == 0
    found, more = ([], False) if is_count else await context.store.audit_page(wanted)
    total = None
    if is_count or value_of(request, "_total") in _TOTALS[1:]:
        total = await context.store.audit_count(wanted)
    elif wanted.after is None and not more:
        total = len(found)
    entries = [_entry(one, subset, request, context) for one in found]
    others = Neighbours()
    if more:
        others = Neighbours(((CURSOR, cursor(found[-1].place, subject, context.link_key)),))
    here = tuple(one for one in request.parameters if one[0] == CURSOR)
    links = page_links(request, AUDIT_EVENT, (*given, *here), others, context.link_key)
    concerns = [
        place for one in found if one.resource is not None for place in one.resource.compartments
    ]
    body = bundle("searchset", entries, links=links, total=total)
    return Response(200, body, concerns=concerns)


async def _of_resources(
    asked: list[tuple[str, str]], request: Request, context: Context
) -> Filter | None:
    """Return the filter of the AuditEvents that clients have written."""
    if AUDIT_EVENT not in await context.store.indexes.existing():
        return None
    query = await search_query(AUDIT_EVENT, tuple(asked), request, context)
    return both(*query.filters)


def _sees_rows(context: Context) -> bool:
    """Whether all that was recorded may be seen: a condition on AuditEvent is about what rows do
    not have, and so opens none."""
    store, rights = context.store, context.rights
    if store.plan is None or (rights is not None and ADMINISTRATOR in rights.roles):
        return True
    return store.plan.see.get(AUDIT_EVENT) == {}


def _subset(request: Request, context: Context) -> Subset:
    if value_of(request, "_summary") == "count":
        return Subset()
    return subset_of(request, (AUDIT_EVENT,), context.definitions)


def _sort(request: Request) -> str:
    text = value_of(request, "_sort") or "-date"
    if text not in _SORTS:
        raise FhirError(
            Issue("not-supported", f"_sort of AuditEvent is one of {', '.join(_SORTS)}.")
        )
    return text


def _after(request: Request, subject: str, context: Context) -> Place | None:
    text = value_of(request, CURSOR)
    if not text:
        return None
    moment, id = values_of(text, subject, context.link_key)
    return moment, id


def _entry(found: Found, subset: Subset, request: Request, context: Context) -> bytes:
    if found.resource is not None:
        json = found.resource.json
    else:
        assert found.row is not None, "it is a row or a resource"
        json = encode(audit_event(found.row, request.base_url))
    url = f"{request.base_url}/{AUDIT_EVENT}/{found.place[1]}"
    return entry(url, subset.applied(json, context.definitions), search={"mode": "match"})


def unchanged(request: Request, _context: Context) -> Change:
    """Refuse (405): what is recorded stays as it is, whoever asks."""
    raise unchanging(request.type)


async def unchangeable(request: Request, context: Context) -> Response:
    """Refuse as :func:`unchanged` does."""
    raise unchanging(request.type)


def change(request: Request, context: Context) -> Change:
    """Return the change that a PUT asks for: under a new id, as where files are loaded, and never
    under that of a row. The store refuses it where something else is there."""
    if placed(request.id) is not None:
        raise unchanging(request.type)
    return update.change(request, context)


async def update_as_create(request: Request, context: Context) -> Response:
    """Write the body under its new id; the same again changes nothing."""
    return await written(change(request, context), request, context)


def created(request: Request, context: Context) -> Change:
    """Return the change that a POST asks for. Raises ``forbidden`` for what says that this server
    has observed it: that is what rows are for. Who loads a record has no such bounds."""
    _check_observer(request, context)
    return create.change(request, context)


async def create_event(request: Request, context: Context) -> Response:
    """Write the body under a new id, unless what If-None-Exist says is there."""
    _check_observer(request, context)
    return await create.create(request, context)


def _check_observer(request: Request, context: Context) -> None:
    if context.rights is None:
        return
    source = _dict((request.body or {}).get("source"))
    observer = _dict(source.get("observer"))
    said = (
        source.get("site"),
        observer.get("reference"),
        _dict(observer.get("identifier")).get("value"),
    )
    ours = {one.rstrip("/") for one in (request.base_url, *context.parameters.base_urls) if one}
    if any(isinstance(one, str) and one.rstrip("/") in ours for one in said):
        text = "The source of this AuditEvent is this server, which records by itself."
        raise FhirError(Issue("forbidden", text, "AuditEvent.source"))


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def register(registry: Registry) -> None:
    """Have AuditEvent answered by this module, where it differs from other types."""
    for name, handler in (("read", read), ("vread", vread), ("search-type", search_type)):
        registry.of_type(AUDIT_EVENT, name, handler)
    registry.of_type(AUDIT_EVENT, "create", create_event, created)
    registry.of_type(AUDIT_EVENT, "update", update_as_create, change)
    for name in _REFUSED:
        registry.of_type(AUDIT_EVENT, name, unchangeable, unchanged)
    registry.refused[AUDIT_EVENT] = frozenset((*_REFUSED, "update"))
    registry.searched[AUDIT_EVENT] = frozenset(SEARCHED)
