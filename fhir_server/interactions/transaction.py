"""batch and transaction: ``POST [base]`` with a Bundle.

https://hl7.org/fhir/R4/http.html#transaction

A transaction is one MongoDB transaction: its entries are judged one by one, as if each had come
alone, and written together. In a batch every entry stands for itself.
"""

import asyncio
import logging
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any, TypeVar

from fhir_server.context import Context
from fhir_server.interactions.bodies import answer, refused, remarks_on
from fhir_server.interactions.conditional import Resolved, is_conditional, resolved
from fhir_server.interactions.entries import (
    RANKS,
    WRITING,
    Entry,
    check_full_urls,
    check_unique,
    entries_of,
    entry_of,
    identities,
    in_entry,
    in_patch,
)
from fhir_server.interactions.idempotency import KEYED, entry_key, once, taken
from fhir_server.interactions.resolving import resolved_and_written, written_changes
from fhir_server.interactions.rewriting import rewritten
from fhir_server.messages import Request, Resource, Response
from fhir_server.outcome import FhirError, Issue, invalid_value, operation_outcome
from fhir_server.r4.bundles import bundle, entry
from fhir_server.r4.json import encode
from fhir_server.r4.questions import Question, Target, Unanswered
from fhir_server.store.changes import Change
from fhir_server.store.documents import instant
from fhir_server.store.resources import ResourceStore

_REASONS = {
    200: "OK",
    201: "Created",
    204: "No Content",
    304: "Not Modified",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    410: "Gone",
    412: "Precondition Failed",
    413: "Content Too Large",
    422: "Unprocessable Content",
    503: "Service Unavailable",
}
_BATCH_AT_ONCE = 16  # entries of a batch that are in the database at a time
_PAGES_PER_BUNDLE = 5  # of the largest size, in one answer
_PAUSE_EVERY = 50  # entries judged before other requests get their turn

_failures = logging.getLogger("fhir_server.failures")

T = TypeVar("T")
Answers = dict[int, Response]


async def transaction(request: Request, context: Context) -> Response:
    """Perform every entry, or none for a transaction; each for itself in a batch."""
    body = _valid(request, context)
    if body["type"] == "batch":
        await taken(request, context)
        return _rendered("batch-response", await _batch(body, request, context), request)
    entries = entries_of(body, request)
    together = partial(_together, entries, request)
    writes = any(one.request.interaction in KEYED for one in entries)
    if request.idempotency_key is None or not writes:  # what only reads is read again
        return await together(context)
    return await once(request, context, _written(entries, context), together)


def entries_together(request: Request) -> int:
    """Return how many entries ``request`` has that are in memory until all are written; 0 for what
    is no transaction."""
    body = request.body
    if request.interaction != "transaction" or not body or body.get("type") != "transaction":
        return 0
    entries = body.get("entry")
    return len(entries) if isinstance(entries, list) else 0


async def _together(entries: Sequence[Entry], request: Request, context: Context) -> Response:
    """Perform all of ``entries``, or none."""
    if any(is_conditional(one.request) for one in entries):

        async def by_criteria(store: ResourceStore) -> Answers:
            inside = replace(context, store=store)
            plain, settled = await _resolved(entries, inside)
            return await _performed(await _judged(plain, settled, inside), request, inside)

        answers = await context.store.in_transaction(by_criteria, _written(entries, context))
        return _rendered("transaction-response", answers, request)
    judged = await _judged(entries, {}, context)

    async def work(store: ResourceStore) -> Answers:
        return await _performed(judged, request, replace(context, store=store))

    types = _written(entries, context)
    answers = await (
        work(context.store) if judged.alone else context.store.in_transaction(work, types)
    )
    return _rendered("transaction-response", answers, request)


def _written(entries: Sequence[Entry], context: Context) -> set[str]:
    """Return the types that the entries may write; whether they may is judged elsewhere."""
    types = {one.request.type for one in entries if one.method not in ("GET", "HEAD")}
    return types & set(context.definitions.resource_types)


@dataclass(frozen=True, slots=True)
class _Judged:
    """The entries of a transaction with their ids, and the changes of those that write.

    ``settled`` are entries that come to nothing but an answer: the entry, and what was found.
    """

    entries: Sequence[Entry]
    changes: dict[int, Change]
    settled: Sequence[tuple[Entry, Resolved]]

    @property
    def reads(self) -> list[Entry]:
        """The entries that are performed when everything is written."""
        return [one for one in self.entries if one.index not in self.changes]

    @property
    def conditional(self) -> dict[int, frozenset[str]]:
        """The conditional references of the entries that have some."""
        return {one.index: one.conditional for one in self.entries if one.conditional}

    @property
    def alone(self) -> bool:
        """Whether there is nothing to do but to write."""
        return not self.reads and not self.conditional and not self.settled


async def _resolved(
    entries: Sequence[Entry], context: Context
) -> tuple[list[Entry], dict[int, Resolved]]:
    """Return the entries by id, and what the others come to.

    All are looked up before anything is written: http.html#trules has the identities known first.
    """
    plain: list[Entry] = []
    settled: dict[int, Resolved] = {}
    unmatched: dict[str, int] = {}
    for one in entries:
        if not is_conditional(one.request):
            plain.append(one)
            continue
        found = await _located(one.index, resolved(one.request, context))
        if found.unmatched and found.unmatched in unmatched:
            text = (
                f"Entries {unmatched[found.unmatched]} and {one.index} would create by the same "
                "criteria; a transaction creates once."
            )
            raise in_entry(one.index, FhirError(Issue("duplicate", text), status=400))
        unmatched[found.unmatched] = one.index
        if len(found.requests) > 1:
            text = "The criteria match several resources; in a transaction they may match one."
            raise in_entry(one.index, FhirError(Issue("multiple-matches", text), status=412))
        if found.requests:
            plain.append(replace(one, request=found.requests[0]))
        else:
            settled[one.index] = found
            plain.append(one)
    return plain, settled


async def _judged(
    entries: Sequence[Entry], settled: Mapping[int, Resolved], context: Context
) -> _Judged:
    """Return the entries with ids and rewritten references, and the change of each that writes."""
    known = {
        one.full_url: f"{existing.type}/{existing.id}"
        for one in entries
        if one.full_url and one.index in settled and (existing := settled[one.index].existing)
    }
    check_full_urls(entries)
    others = _with_ids([one for one in entries if one.index not in settled], known, context)
    check_unique(others)
    changes = await _changes(others, context)
    pairs = [(one, settled[one.index]) for one in entries if one.index in settled]
    return _Judged(others, changes, pairs)


async def _performed(judged: _Judged, request: Request, context: Context) -> Answers:
    """Write what is to be written, then read what is to be read."""
    changes, conditional = judged.changes, judged.conditional
    plain = {index: change for index, change in changes.items() if index not in conditional}
    stored = await written_changes(plain, context)
    stored |= await resolved_and_written(changes, conditional, context)
    wish = _quiet(request)  # what is preferred is said of the bundle
    said = {index: await remarks_on(one, context) for index, one in stored.items()}
    answers = {
        one.index: answer(stored[one.index], wish, said.get(one.index, ()))
        for one in judged.entries
        if one.index in stored
    }
    for one, found in judged.settled:
        answers[one.index] = found.answered(wish)
    room = _Room(context.settings.page_bytes_max * _PAGES_PER_BUNDLE)
    for one in judged.reads:
        answers[one.index] = await _located(one.index, _fitting(one, room, context))
    return answers


@dataclass(slots=True)
class _Room:
    """How many bytes the answer to a bundle may still hold; a search in each entry adds up."""

    left: int

    def taken(self, response: Response) -> Response:
        """Return ``response`` if there is room for it; raises ``too-costly`` if not."""
        self.left -= len(response.body)
        if self.left < 0:
            text = "The answers to this bundle are too large together; ask in several."
            raise FhirError(Issue("too-costly", text), status=413)
        return response


async def _read(one: Entry, context: Context) -> Response:
    response = await context.perform(one.request, context)
    return replace(response, body=b"") if one.method == "HEAD" else response


def _valid(request: Request, context: Context) -> Resource:
    """Return the bundle, valid in form; its resources are validated entry by entry."""
    body = request.body
    if body is None or body.get("resourceType") != "Bundle":
        raise FhirError(Issue("structure", "A batch or transaction needs a Bundle as body."))
    if body.get("type") not in ("batch", "transaction"):
        raise invalid_value("Bundle.type", body.get("type"), "batch or transaction", "Bundle.type")
    entries = body.get("entry", [])
    limit = context.settings.bundle_entries_max
    if isinstance(entries, list) and len(entries) > limit:
        raise FhirError(
            Issue(
                "too-costly", f"The bundle has {len(entries):,} entries; the limit is {limit:,}."
            ),
            status=413,
        )
    if issues := context.validate(_frame(body)):
        raise FhirError(*issues)
    return body


def _frame(body: Resource) -> Resource:
    """Return the bundle without the resources inside, which are judged as what they are."""
    entries = body.get("entry")
    if not isinstance(entries, list):
        return body
    framed = [
        {name: value for name, value in one.items() if name != "resource"}
        # An entry without anything else would be empty, which is another fault than it has.
        if isinstance(one, dict) and len(one) > 1
        else one
        for one in entries
    ]
    return {**body, "entry": framed}


def _with_ids(entries: Sequence[Entry], known: Mapping[str, str], context: Context) -> list[Entry]:
    """Choose the id of what is to be created, then rewrite the references to it.

    ``known`` are the places of what is there already, by fullUrl.
    """
    named = [
        replace(one, request=replace(one.request, id=context.new_id()))
        if one.request.interaction == "create"
        else one
        for one in entries
    ]
    places = {**known, **identities(named)}
    created = frozenset(
        places[one.full_url]
        for one in named
        if one.full_url and one.request.interaction == "create"
    )
    return [
        rewritten(one, places, created, context.links)
        if one.request.interaction in WRITING
        else one
        for one in named
    ]


async def _changes(entries: Sequence[Entry], context: Context) -> dict[int, Change]:
    """Return the change of each writing entry, in the order of processing.

    Raises the issues of all refused entries together.
    """
    changes: dict[int, Change] = {}
    refusals: list[FhirError] = []
    asked: set[Question] = set()
    inside = _knowing(entries, context)
    for count, one in enumerate(sorted(entries, key=_rank)):
        if count % _PAUSE_EVERY == _PAUSE_EVERY - 1:
            await asyncio.sleep(0)
        if one.method in ("GET", "HEAD") or _is_search(one):
            continue
        try:
            changes[one.index] = context.prepare(one.request, inside)
        except Unanswered as error:
            asked |= error.questions
        except FhirError as error:
            refusals.append(in_entry(one.index, error))
            if sum(len(refusal.issues) for refusal in refusals) >= context.settings.issues_max:
                break
    if refusals:
        first = min(refusals, key=lambda refusal: refusal.issues[0].expression)
        issues = [issue for refusal in refusals for issue in refusal.issues]
        raise FhirError(
            *issues[: context.settings.issues_max], status=first.status, headers=first.headers
        )
    if asked:
        raise Unanswered(asked)
    return changes


def _knowing(entries: Sequence[Entry], context: Context) -> Context:
    """Return ``context`` with what the bundle itself says about where its references lead."""
    if not context.settings.validation:
        return context
    written: dict[Question, Any] = {
        Target(f"{one.request.type}/{one.request.id}"): one.request.body
        for one in entries
        if one.request.interaction in ("create", "update") and one.request.id
    }
    return replace(context, answers={**context.answers, **written})


def _is_search(one: Entry) -> bool:
    """A search by POST reads, though its method is that of a write."""
    return one.request.interaction in ("search-type", "search-system")


def _rank(one: Entry) -> int:
    return RANKS["GET"] if _is_search(one) else RANKS[one.method]


async def _batch(body: Resource, request: Request, context: Context) -> Answers:
    """Answer each entry for itself, in the order of methods, several at a time."""
    answers: Answers = {}
    parsed: list[Entry] = []
    for index, raw in enumerate(body.get("entry", ())):
        try:
            parsed.append(entry_of(index, raw, request))
        except FhirError as error:
            answers[index] = refused(error)
    turn = asyncio.Semaphore(_BATCH_AT_ONCE)
    room = _Room(context.settings.page_bytes_max * _PAGES_PER_BUNDLE)

    async def one_answer(one: Entry) -> None:
        async with turn:
            quiet = replace(
                one.request,
                prefer=_quiet(request).prefer,
                idempotency_key=entry_key(request, one.index),
            )
            reads = one.method in ("GET", "HEAD") or _is_search(one)
            try:
                found = await _read(one if reads else replace(one, request=quiet), context)
                answers[one.index] = room.taken(found) if reads else found
            except FhirError as error:
                refusal = in_patch(error) if one.method == "PATCH" else error
                answers[one.index] = refused(in_entry(one.index, refusal))
            except Exception as error:  # noqa: BLE001 - the other entries stand for themselves
                _failures.error('"entry %d of a batch failed: %s"', one.index, type(error).__name__)
                failed = FhirError(Issue("exception", "The server failed on this entry."))
                answers[one.index] = refused(in_entry(one.index, failed))

    for _, group in groupby(sorted(parsed, key=_rank), key=_rank):
        await asyncio.gather(*map(one_answer, group))
    return answers


async def _fitting(one: Entry, room: _Room, context: Context) -> Response:
    return room.taken(await _read(one, context))


async def _located(index: int, work: Awaitable[T]) -> T:
    try:
        return await work
    except FhirError as error:
        raise in_entry(index, error) from error


def _quiet(request: Request) -> Request:
    """Return ``request`` with bodies in the answer only where the client asks for them.

    A thousand entries would otherwise come back whole; http.html#transaction leaves it open.
    """
    return request if "return" in request.prefer else replace(request, prefer={"return": "minimal"})


def _rendered(type: str, answers: Answers, request: Request) -> Response:
    """Return the response Bundle, with one entry for each of the request and in its order."""
    methods = [
        one.get("request", {}).get("method") for one in (request.body or {}).get("entry", ())
    ]
    entries = [
        _entry(answers[index], method, request.base_url) for index, method in enumerate(methods)
    ]
    return Response(200, bundle(type, entries))


def _entry(answer: Response, method: str, base_url: str) -> bytes:
    said: dict[str, object] = {
        "status": f"{answer.status} {_REASONS.get(answer.status, '')}".strip()
    }
    if answer.location:
        said["location"] = f"{base_url}/{answer.location}"
    if answer.version:
        said["etag"] = f'W/"{answer.version}"'
    if answer.last_updated:
        said["lastModified"] = instant(answer.last_updated)
    is_outcome = answer.body.startswith(b'{"resourceType":"OperationOutcome"')
    if is_outcome and (answer.status >= 400 or method not in ("GET", "HEAD")):
        response = encode(said)[:-1] + b',"outcome":' + answer.body + b"}"
        return b'{"response":' + response + b"}"
    if answer.remarks:
        said["outcome"] = operation_outcome(answer.remarks)
    place = answer.location.partition("/_history/")[0]
    body = b"" if answer.media_type else answer.body  # no resource, so no entry has it
    return entry(f"{base_url}/{place}" if place else "", body, response=said)
