"""The front door: every request passes here, wherever it came from.

https://hl7.org/fhir/R4/http.html
"""

from dataclasses import replace
from functools import partial

from fhir_server.context import Context
from fhir_server.interactions.admitting import (
    ADMINISTRATOR,
    NEEDS,
    admitted,
    check_part,
    check_power,
)
from fhir_server.interactions.bodies import refused
from fhir_server.interactions.consenting import as_opened
from fhir_server.interactions.idempotency import KEYED, is_one_change, once, once_alone
from fhir_server.interactions.judging import judged_first
from fhir_server.interactions.recording import drafted, recorded
from fhir_server.interactions.transaction import entries_together
from fhir_server.messages import Request, Response
from fhir_server.outcome import FhirError, Issue, nearest, unknown_type
from fhir_server.registry import Handler, Operation, Registry
from fhir_server.security.scopes import OVERRIDE
from fhir_server.store.changes import Change

GUARDED = (*KEYED, "transaction")
"""The interactions that guards stand before: those that write."""


async def perform(registry: Registry, request: Request, context: Context) -> Response:
    """Find the handler for ``request`` and run it, and record what came of it. A refusal is raised
    as :class:`FhirError`."""
    context = await as_opened(context)
    if context.store.audit is None:
        return await _performed(registry, request, context)
    return await recorded(partial(_performed, registry), request, context)


async def _performed(registry: Registry, request: Request, context: Context) -> Response:
    _check_type(request, context)
    handler = registry.handler(request)
    if handler is None:
        raise _no_handler(registry, request)
    operation = registry.operation_of(request)
    if operation is not None:
        _check_operation(operation, request, context)
    context = await admitted(request, _needs(operation, request), context)
    if request.override and _is_writing(request, operation):
        check_power(OVERRIDE, context)
        context = replace(context, store=replace(context.store, override=request.override))
    is_plain = True
    if request.interaction in GUARDED:
        guarded = registry.guarded(handler, request, context)
        is_plain, handler = guarded is handler, guarded
    performing = partial(_handled, handler, operation, request, is_plain=is_plain)
    if context.settings.validation and request.pieces is None:
        performing = partial(judged_first, performing)
    if entries := entries_together(request):
        async with context.turns.turn(entries, context.settings.request_timeout_s):
            return await performing(context)
    return await performing(context)


async def _handled(
    handler: Handler,
    operation: Operation | None,
    request: Request,
    context: Context,
    *,
    is_plain: bool,
) -> Response:
    if request.idempotency_key is not None:
        keyed = operation.keyed if operation is not None else ()
        changing = operation is not None and operation.affects_state
        if request.pieces is not None or (changing and not keyed):
            raise _not_keyed(request)
        if keyed:
            unkeyed = replace(request, idempotency_key=None)
            return await once(request, context, keyed, partial(handler, unkeyed))
        if request.interaction in KEYED:
            if is_plain and is_one_change(request):
                return await once_alone(request, context, partial(handler, request, context))
            unkeyed = replace(request, idempotency_key=None)  # the key is taken here
            return await once(request, context, [request.type], partial(handler, unkeyed))
    return await handler(request, context)


def _is_writing(request: Request, operation: Operation | None) -> bool:
    if operation is not None:
        return operation.affects_state
    return request.interaction in GUARDED


def prepare(registry: Registry, request: Request, context: Context) -> Change:
    """Judge a writing request like :func:`perform`, and return the change that it asks for.

    A transaction makes the changes of all its entries at once.
    """
    _check_type(request, context)
    change = registry.change_of(request)
    if change is None and registry.operation_of(request):
        text = (
            f"{request.interaction} is not possible in a transaction; call it alone, or in a batch."
        )
        raise FhirError(Issue("not-supported", text))
    if change is None:
        raise _no_handler(registry, request)
    check_part(request, context)
    return drafted(change(request, context), request, context)


def _needs(operation: Operation | None, request: Request) -> str:
    if operation is not None:
        return operation.needs
    return NEEDS.get(request.interaction, ADMINISTRATOR)


async def answer(registry: Registry, request: Request, context: Context) -> Response:
    """Like :func:`perform`, with a refusal as a response: for adapters and for tests."""
    try:
        return await perform(registry, request, context)
    except FhirError as error:
        return refused(error)


def _check_type(request: Request, context: Context) -> None:
    types = context.definitions.resource_types
    if request.type and request.type not in types:
        raise unknown_type(request.type, types)


def _check_operation(operation: Operation, request: Request, context: Context) -> None:
    """https://hl7.org/fhir/R4/operations.html#executing"""
    if request.reading and operation.affects_state:
        text = f"{request.interaction} changes something; call it with POST."
        raise FhirError(Issue("not-supported", text), status=405, headers=(("Allow", "POST"),))
    if operation.setting and not getattr(context.settings, operation.setting):
        text = (
            f"{request.interaction} is switched off on this server; the setting "
            f"FHIR_{operation.setting.upper()} switches it on."
        )
        raise FhirError(Issue("forbidden", text))


def _not_keyed(request: Request) -> FhirError:
    """A key that is not heeded would let a client repeat what must not be.

    A raw body is read once, as it comes; whether it is the same again would be known too late.
    """
    text = f"{request.interaction} takes no Idempotency-Key; call it without."
    return FhirError(Issue("not-supported", text))


def _no_handler(registry: Registry, request: Request) -> FhirError:
    where = f" on {request.type}" if request.type else ""
    if request.interaction.startswith("$"):
        near = nearest(request.interaction, registry.operation_names())
        issue = Issue("not-supported", f"There is no operation {request.interaction}{where}.{near}")
        return FhirError(issue, status=404)
    issue = Issue("not-supported", f"{request.interaction}{where} is not supported.")
    # http.html#cond-update and #cond-delete: servers without them SHOULD answer 400.
    return FhirError(issue, status=400 if request.interaction.startswith("conditional-") else 405)
