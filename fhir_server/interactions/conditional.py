"""Conditional create, update, patch and delete: by what a resource matches, not by its id.

https://hl7.org/fhir/R4/http.html#ccreate, #cond-update, #cpatch, #3.1.0.7.1

=====================  ==================  ============================  =================
interaction            nothing matches     one does                      several do
=====================  ==================  ============================  =================
create, If-None-Exist  create              200, nothing is written       412
conditional-update     create              update it                     412
conditional-patch      404                 patch it                      412
conditional-delete     204                 delete it                     412, or all
=====================  ==================  ============================  =================
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from fhir_server.context import Context
from fhir_server.interactions.admitting import check_part
from fhir_server.interactions.bodies import answer, remarks_on, written
from fhir_server.interactions.idempotency import once
from fhir_server.interactions.matching import Criteria, criteria_of, matches, several
from fhir_server.messages import Parameters, Request, Response
from fhir_server.outcome import FhirError, Issue, invalid_value, shown
from fhir_server.route import query_parameters
from fhir_server.store.documents import Stored
from fhir_server.store.resources import ResourceStore
from fhir_server.store.transactions import StaleRead

_TRIES = 3  # by then it is certain that others are at the same criteria


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a conditional request comes to: requests by id, or nothing but an answer.

    ``existing`` is what was found by a create that then creates nothing. ``unmatched`` are criteria
    that nothing matched: of two requests with the same, one at most may be performed.
    """

    requests: tuple[Request, ...] = ()
    existing: Stored | None = None
    unmatched: str = ""

    def answered(self, request: Request) -> Response:
        """Return the answer of a request that comes to no other."""
        if self.existing is None:
            return Response(204)
        return answer(replace(self.existing, created=False, changed=False), request)


def is_conditional(request: Request) -> bool:
    """Whether ``request`` names what it writes by criteria."""
    if request.interaction == "create":
        return request.if_none_exist is not None
    return request.interaction in _RESOLVERS


async def conditional(request: Request, context: Context) -> Response:
    """Perform the conditional ``request`` alone. See the table above."""
    criteria = _criteria(request, context)
    if request.interaction == "create" and context.store.session is None:
        return await _create_alone(request, criteria, context)
    return await _in_transaction(request, criteria, context)


async def _create_alone(request: Request, criteria: Criteria, context: Context) -> Response:
    """Create as part of the group commit, where nothing matches and nobody claims the same."""
    named = _by_id(request, context.new_id())
    change = context.prepare(named, context)  # what is wrong is said first
    found: tuple[Stored, ...] = ()
    more = False
    for _ in range(_TRIES):
        seen = await context.store.seen_claims(criteria.claims)
        found, more = await matches(criteria, context)
        if found or more:
            break
        with suppress(StaleRead):  # somebody was faster, and may have created it
            await context.store.check_searched()
            return await written(replace(change, claims=seen), request, context)
    if found and not more and request.idempotency_key is None:
        return Resolved(existing=found[0]).answered(request)
    work = partial(_in_transaction, request, criteria)
    if request.idempotency_key is None:
        return await work(context)
    return await once(request, context, [request.type], work)


async def _in_transaction(request: Request, criteria: Criteria, context: Context) -> Response:
    async def work(store: ResourceStore) -> Response:
        inside = replace(context, store=store)
        resolved = await _resolve(request, criteria, inside)
        if not resolved.requests:
            return resolved.answered(request)
        changes = [context.prepare(one, inside) for one in resolved.requests]
        stored = await store.write(changes, context.now())
        made.append(stored[0])
        return answer(stored[0], request)

    made: list[Stored] = []
    response = await context.store.in_transaction(work, [request.type])
    if made and (said := await remarks_on(made[-1], context)):
        return answer(made[-1], request, said)
    return response


async def resolved(request: Request, context: Context) -> Resolved:
    """Return what the conditional ``request`` comes to; ``context`` is that of a transaction.

    Raises 412 where several resources match, and what the row of the table says; ``forbidden`` to
    whom the interaction is not open.
    """
    check_part(request, context)
    return await _resolve(request, _criteria(request, context), context)


async def _resolve(request: Request, criteria: Criteria, context: Context) -> Resolved:
    return await _RESOLVERS[request.interaction](request, criteria, context)


def _criteria(request: Request, context: Context) -> Criteria:
    parameters: Parameters = request.parameters
    if request.interaction == "create":
        text = (request.if_none_exist or "").removeprefix(f"{request.type}").removeprefix("?")
        parameters = query_parameters(text)
    return criteria_of(request.type, parameters, context)


async def _one(criteria: Criteria, context: Context) -> Stored | None:
    """Return the one match, or ``None``, which then holds until the end of the transaction."""
    found, more = await matches(criteria, context)
    if more:
        raise several(criteria)
    if not found:
        await context.store.claim(criteria.claims)
    return found[0] if found else None


async def _create(request: Request, criteria: Criteria, context: Context) -> Resolved:
    found = await _one(criteria, context)
    if found is not None:
        return Resolved(existing=found)
    named = _by_id(request, request.id or context.new_id())
    return Resolved((named,), unmatched=criteria.text)


async def _update(request: Request, criteria: Criteria, context: Context) -> Resolved:
    found = await _one(criteria, context)
    body = request.body or {}
    id = body.get("id")
    if found is None and request.if_match is not None:
        raise _nothing_to_match(request, criteria)
    if found is None and id is None:
        create = replace(request, interaction="create")
        return Resolved((_by_id(create, context.new_id()),), unmatched=criteria.text)
    if found is None:
        # "Update as create": another resource that has the id already is not what was asked for.
        there = await context.store.read(request.type, str(id))
        if there is not None and not there.deleted:
            text = f"{request.type}/{id} exists, and does not match the criteria."
            raise FhirError(Issue("conflict", text))
        named = _by_id(request, str(id), interaction="update")
        return Resolved((named,), unmatched=criteria.text)
    if id not in (None, found.id):
        expected = f"'{found.id}', which is what matches, or none"
        raise invalid_value("The resource's id", id, expected, f"{request.type}.id")
    whole = replace(request, body={**body, "id": found.id}) if body else request
    return Resolved((_by_id(whole, found.id, interaction="update"),))


async def _patch(request: Request, criteria: Criteria, context: Context) -> Resolved:
    found, more = await matches(criteria, context)
    if more:
        raise several(criteria)
    if not found:
        raise FhirError(Issue("not-found", f"Nothing matches {criteria.text}."))
    return Resolved((_by_id(request, found[0].id, interaction="patch"),))


async def _delete(request: Request, criteria: Criteria, context: Context) -> Resolved:
    most = context.settings.conditional_delete_max
    found, more = await matches(criteria, context, most)
    if not found and request.if_match is not None:
        raise _nothing_to_match(request, criteria)
    if more:
        if most == 1:
            raise several(criteria)
        text = f"The criteria match more than {most:,} resources; delete them in portions."
        raise FhirError(Issue("too-costly", text), status=412)
    return Resolved(tuple(_by_id(request, one.id, interaction="delete") for one in found))


def _nothing_to_match(request: Request, criteria: Criteria) -> FhirError:
    """Return the refusal of If-Match where nothing is there that could have the version."""
    text = f"Nothing matches {shown(criteria.text)}, so no version of it is the one in If-Match."
    return FhirError(Issue("conflict", text), status=412)


def _by_id(request: Request, id: str, interaction: str = "") -> Request:
    return replace(
        request,
        interaction=interaction or request.interaction,
        id=id,
        parameters=(),
        if_none_exist=None,
    )


_RESOLVERS: Mapping[str, Callable[[Request, Criteria, Context], Awaitable[Resolved]]] = {
    "create": _create,
    "conditional-update": _update,
    "conditional-patch": _patch,
    "conditional-delete": _delete,
}
