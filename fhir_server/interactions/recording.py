"""What the front door records of each request, and what others have recorded beside it.

Section 4 of the design page. One row for each request and each entry of a bundle, those refused
among them. The row of a change is in the change's transaction (``store/writer.py``), that of
anything else in the queue of ``store/audit.py``. Whoever lets somebody in, issues a token, opens an
emergency access or hands data out says so by :func:`note`.
"""

from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

import re2 as re

from fhir_server.context import Context
from fhir_server.interactions.entries import entry_of
from fhir_server.messages import NO_ENTRY, Request, Response
from fhir_server.outcome import FhirError
from fhir_server.r4.json import decode_stored
from fhir_server.route import route
from fhir_server.security.audit import Draft, Row
from fhir_server.security.principal import Principal
from fhir_server.store.audit import Audit, Recording
from fhir_server.store.changes import Change

UNKNOWN = "unknown"
"""What was done where a request is none of ours: a path that leads nowhere."""

_READING = frozenset(
    (
        *("read", "vread", "history-instance", "history-type", "history-system", "capabilities"),
        *("search-type", "search-system", "search-compartment"),
    )
)
_BY_PATIENT = ("patient", "subject", "patient:Patient", "subject:Patient")
_FAILED = (500, "exception")
_REFUSED = 400  # the first status that says so
_ENTRIES_MAX = (
    10_000  # of a bundle that was refused for having more, the entries were not looked at
)
_ID = re.compile(r"[A-Za-z0-9\-\.]{1,64}")

Perform = Callable[[Request, Context], Awaitable[Response]]


async def recorded(perform: Perform, request: Request, context: Context) -> Response:
    """Return what ``perform`` answers, once it is recorded, or is sure to be within moments.

    What an operation asks the front door for on its way is part of its own row. Raises
    ``transient`` (503) where nothing can be recorded.
    """
    store = context.store
    audit, outer = store.audit, store.record
    assert audit is not None, "dispatch asks only where something is recorded"
    audit.check()
    if outer is not None and request.entry == NO_ENTRY:
        response = await perform(request, context)
        outer.concerns.extend(response.concerns)
        return response
    draft = Draft(context.now(), context.principal, query_of(request), request.entry)
    recording = None
    if request.interaction not in _READING:
        recording = Recording(draft, _together(request, draft))
        context = replace(context, store=replace(store, record=recording))
    ended = _Ended(request, draft, recording, context.definitions.resource_types)
    try:
        response = await perform(request, context)
    except FhirError as error:
        await _add(ended.refused(error.status, error.issues[0].code), request, context, outer)
        raise
    except BaseException:
        await _add(ended.refused(*_FAILED), request, context, outer)
        raise
    await _add(ended.answered(response), request, context, outer)
    return response


@dataclass(frozen=True, slots=True)
class _Ended:
    """A request that has come to an end: what is still to be recorded of it."""

    request: Request
    draft: Draft
    recording: Recording | None
    types: Collection[str]

    def refused(self, status: int, issue: str) -> list[Row]:
        """Return the rows of a refusal: also of the entries, of which nothing was done."""
        request = self.request
        row = self.draft.row(
            request.interaction,
            **_place(request, self.types),
            concerns=_asked(request),
            status=status,
            issue=issue,
        )
        return [row, *(self._entry(*one, status, issue) for one in self._left())]

    def answered(self, response: Response) -> list[Row]:
        """Return the rows that are not written yet: that of the request, and of entries that came
        to nothing but an answer."""
        rows = [] if self._is_written else [self._row(response)]
        if left := list(self._left()):
            said = decode_stored(response.body).get("entry", []) if response.body else []
            for index, entry in left:
                rows.append(self._entry(index, entry, *_outcome(said, index)))
        return rows

    @property
    def _is_written(self) -> bool:
        return self.recording is not None and self.draft.entry in self.recording.written

    def _row(self, response: Response) -> Row:
        request = self.request
        type, id = request.type, request.id
        if not id and response.location:
            type, id, *_ = response.location.split("/")
        on_the_way = self.recording.concerns if self.recording else ()
        return self.draft.row(
            *(request.interaction, type, id),
            version=response.version,
            concerns=(*response.concerns, *on_the_way, *_asked(request)),
            status=response.status,
            issue=_issue_of(response),
        )

    def _left(self) -> Iterator[tuple[int, Any]]:
        """Yield place and content of the entries of a bundle that have no row yet."""
        if self.request.interaction != "transaction" or self.recording is None:
            return
        entries = (self.request.body or {}).get("entry")
        if isinstance(entries, list) and len(entries) <= _ENTRIES_MAX:
            for index, entry in enumerate(entries):
                if index not in self.recording.written:
                    yield index, entry

    def _entry(self, index: int, entry: Any, status: int, issue: str) -> Row:
        did, where = UNKNOWN, {"query": ""}
        if isinstance(entry, dict):
            with suppress(FhirError, KeyError, TypeError, AttributeError):
                one = entry_of(index, entry, self.request).request
                did, where = one.interaction, _place(one, self.types)
        draft = replace(self.draft, entry=index)
        return draft.row(did, **where, status=status, issue=issue)


async def _add(
    rows: Sequence[Row], request: Request, context: Context, outer: Recording | None
) -> None:
    """Have ``rows`` written: with the transaction under way if there is one, else by the queue."""
    store = context.store
    if store.rows is not None:
        store.rows.extend(rows)
        return
    assert store.audit is not None, "dispatch asks only where something is recorded"
    for row in rows:
        store.audit.add(row)
    if outer is not None:
        outer.written.add(request.entry)
    if rows and store.audit.strict:
        await store.audit.flushed()


def drafted(change: Change, request: Request, context: Context) -> Change:
    """Return ``change``, which ``request`` asks for, with what is known of its row.

    What is no entry belongs to the request under way, if there is one; the store knows of it.
    """
    store = context.store
    if store.audit is None or (request.entry == NO_ENTRY and store.record is not None):
        return change
    draft = Draft(context.now(), context.principal, query_of(request), request.entry)
    return replace(change, record=draft)


async def before_the_door(
    context: Context, principal: Principal, called: tuple[str, str, bytes], error: FhirError
) -> None:
    """Record a refusal of what never became a request; ``called`` are method, path below the base
    and query."""
    audit = context.store.audit
    if audit is None:
        return
    method, path, query = called
    text = query.decode("latin-1")
    did, where = UNKNOWN, {"query": f"{method} {path}{'?' if text else ''}{text}"}
    with suppress(FhirError):
        routed = route("GET" if method == "HEAD" else method, path)
        did, where = routed.interaction, _place(routed, context.definitions.resource_types, text)
    draft = Draft(context.now(), principal)
    row = draft.row(did, **where, status=error.status, issue=error.issues[0].code)
    await _soon(audit, row)


async def by_another_door(context: Context, row: Row) -> None:
    """Record what was answered to a call that is no request of FHIR, as the front door records:
    ``did`` of ``row`` begins with a dollar sign. Raises ``transient`` where nothing can be
    recorded."""
    if context.store.audit is not None:
        context.store.audit.check()
        await _soon(context.store.audit, row)


async def _soon(audit: Audit, row: Row) -> None:
    audit.add(row)
    if audit.strict:
        await audit.flushed()


def query_of(request: Request) -> str:
    """Return the query of ``request`` as it is sent, percent-encoded; of a create its criteria."""
    if request.if_none_exist is not None:
        return request.if_none_exist
    pairs = (*request.parameters, *request.format)
    return urlencode(pairs) if pairs else ""


def _place(request: Request, types: Collection[str], query: str | None = None) -> dict[str, str]:
    """Return type, id and query of a row: what is of no type of R4 is all query, as it was sent."""
    query = query_of(request) if query is None else query
    if not request.type or request.type in types:
        return {"type": request.type, "id": request.id, "query": query}
    path = f"{request.type}/{request.id}" if request.id else request.type
    return {"query": f"{path}?{query}" if query else path}


def _asked(request: Request) -> list[str]:
    """Return the patients that ``request`` asks about by name, whether anything is found or not."""
    found = []
    for name, value in request.parameters:
        if name in _BY_PATIENT:
            for one in value.split(","):
                id = one.rpartition("Patient/")[2] if "/" in one else one
                if _ID.fullmatch(id):
                    found.append(f"Patient/{id}")
        elif name == "_id" and request.type == "Patient":
            found += [f"Patient/{one}" for one in value.split(",") if _ID.fullmatch(one)]
    return found


def _together(request: Request, draft: Draft) -> Row | None:
    """Return the row of a transaction, which is written in it: what is not done has no such row."""
    body = request.body
    if request.interaction != "transaction" or body is None or body.get("type") != "transaction":
        return None
    return draft.row(request.interaction)


def _outcome(said: Sequence[Any], index: int) -> tuple[int, str]:
    """Return status and issue of the entry at ``index`` of an answered bundle."""
    if index >= len(said):
        return _FAILED[0], _FAILED[1]
    response = said[index]["response"]
    issues = response.get("outcome", {}).get("issue", [])
    status = int(response["status"][:3])
    return status, issues[0]["code"] if issues and status >= _REFUSED else ""


def _issue_of(response: Response) -> str:
    """Return the code of the first issue of an answer that is a refusal, as in a batch."""
    if response.status < _REFUSED:
        return ""
    issues = decode_stored(response.body).get("issue", []) if response.body else []
    return str(issues[0]["code"]) if issues else ""


async def note(context: Context, row: Row) -> None:
    """Have ``row`` recorded beside what the front door records; return when it is written.

    ``Row(context.now(), "login", principal)``: ``did`` is one of ``EVENTS`` of
    ``security/audit.py``; ``by`` is whom it is about, with address and request id; ``type`` and
    ``id`` are the resource or thing concerned, ``concerns`` the patients as ``Patient/1``,
    ``query`` what was asked for or granted, ``status`` and ``issue`` how it ended. In a transaction
    the row is part of it. Raises ``transient`` (503) where nothing can be written.
    """
    audit = context.store.audit
    if audit is None:
        return
    audit.check()
    if context.store.rows is not None:
        context.store.rows.append(row)
        return
    audit.add(row)
    await audit.flushed()
