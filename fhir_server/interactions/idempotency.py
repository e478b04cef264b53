"""Idempotency-Key: a write that is sent again is answered as it was the first time.

https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-idempotency-key-header

A client that got no answer cannot know whether its create was made. With a key it sends the request
again, to this or another process of the server, and gets the first answer. Only what was done has
one: a refusal wrote nothing, and the request is judged anew.

A transaction has one answer. A batch has none of its own: each writing entry has a key made of the
batch's and its place, so that what the first attempt did is told again, and what it did not get to
is done.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256

import msgspec

from fhir_server.context import Context
from fhir_server.messages import Request, Response
from fhir_server.outcome import FhirError
from fhir_server.r4.json import canonical
from fhir_server.store.changes import Asked, Change, Once
from fhir_server.store.documents import Stored
from fhir_server.store.resources import ResourceStore

_BY_ID = ("create", "update", "patch", "delete")
KEYED = (*_BY_ID, "conditional-update", "conditional-patch", "conditional-delete")
"""The interactions that write one thing; a bundle takes its key itself. Reading needs none."""

REPEATED = ("Idempotency-Replayed", "true")
"""The header of an answer that is told again: nothing was written for it."""


async def once(
    request: Request,
    context: Context,
    types: Iterable[str],
    work: Callable[[Context], Awaitable[Response]],
) -> Response:
    """Return what ``work`` answers to ``request``, or what it answered to it the first time.

    ``work`` is given the context of a transaction, in which its answer is kept as well; it may run
    more than once. ``types`` are those that it may write.

    While another request with the key is being performed, this one waits for its outcome, and at
    most as long as a request may take: then ``transient``, with Retry-After. Raises
    ``business-rule`` (422) for a key that was used for another request.
    """
    asked = _asked(request, context)

    async def attempt(store: ResourceStore) -> Response:
        first = await store.first_answer(asked)
        if first is not None:
            return _again(first)
        answer = await work(replace(context, store=store))
        await store.keep_answer(asked, answer)
        return answer

    return await context.store.in_transaction(attempt, types)


def is_one_change(request: Request) -> bool:
    """Whether ``request`` comes to one change, whose id is known before anything is looked up."""
    return request.interaction in _BY_ID


async def once_alone(
    request: Request, context: Context, work: Callable[[], Awaitable[Response]]
) -> Response:
    """Like :func:`once` for what :func:`is_one_change`: ``work`` ends in :func:`written_once`.

    What is refused before it comes to be written, as invalid by rules that have changed, is told
    only where there is no first answer.
    """
    try:
        return await work()
    except FhirError:
        first = await context.store.answered(_asked(request, context))
        if first is None:
            raise
        return _again(first)


async def written_once(
    change: Change, request: Request, context: Context, answer: Callable[[Stored], Response]
) -> Response:
    """Make ``change`` as part of the group commit, its key and its answer in one transaction with
    it; or return the first answer. ``answer`` returns that of what the change came to."""
    kept = replace(change, once=Once(_asked(request, context), answer))
    outcome = await context.store.write_once(kept, context.now())
    return _again(outcome) if isinstance(outcome, Response) else answer(outcome)


def _again(first: Response) -> Response:
    return replace(first, headers=(*first.headers, REPEATED))


async def taken(request: Request, context: Context) -> None:
    """Note that the key of ``request``, if it has one, stands for it and for no other."""
    if request.idempotency_key is not None:
        await once(request, context, (), _nothing)


def entry_key(request: Request, index: int) -> str | None:
    """Return the key of entry ``index`` in the batch ``request``; no client can send such a one."""
    key = request.idempotency_key
    return None if key is None else f"{key}\n{index}"


async def _nothing(_: Context) -> Response:
    return Response(200)


def _asked(request: Request, context: Context) -> Asked:
    """Return ``request`` as the store knows it. The keys of one principal are its own."""
    now = context.now()
    named = [context.principal.key, request.idempotency_key]
    id = sha256(msgspec.json.encode(named)).hexdigest()
    until = now + timedelta(hours=context.settings.idempotency_hours)
    # Of a bundle the body is no version, nor is an OperationOutcome about one.
    by_version = request.interaction in KEYED and request.prefer.get("return") != "OperationOutcome"
    return Asked(id, _fingerprint(request), now, until, by_version, _rights(context))


def _rights(context: Context) -> bytes:
    """Return what tells these rights from others; nothing for those to whom everything is open."""
    return b"" if context.rights is None else context.rights.digest


def _fingerprint(request: Request) -> bytes:
    """Return what two requests have in common that ask for the same.

    How it is to be answered (format, Prefer) is left out, and so is the name of the server.
    """
    asked = [
        request.interaction,
        request.type,
        request.id,
        request.parameters,
        sorted(request.if_match) if request.if_match is not None else None,
        sorted(request.if_none_match) if request.if_none_match is not None else None,
        request.if_none_exist,
    ]
    said = sha256(msgspec.json.encode(asked))
    said.update(canonical(request.body))
    return said.digest()
