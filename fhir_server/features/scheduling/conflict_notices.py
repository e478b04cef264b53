"""Who blocks time, or changes hours, is told which appointments that is about. Section 4 of
design/scheduling.md.

Before the handlers of writes: whoever asks is told of appointments as far as he may search them.
"""

from collections.abc import Sequence
from dataclasses import replace

from fhir_server.context import Context
from fhir_server.features.scheduling.conflicts import (
    BLOCK,
    during,
    is_marked,
    marked,
    outside_hours,
    unmarked,
)
from fhir_server.features.scheduling.diaries import by_key
from fhir_server.features.scheduling.telling import Message, messages, plain_message, tell
from fhir_server.features.scheduling.waitlist import TYPES, put, resource
from fhir_server.messages import Request, Resource, Response
from fhir_server.outcome import FhirError, Issue, operation_outcome
from fhir_server.r4.json import decode, encode
from fhir_server.registry import Handler
from fhir_server.store.offers import Freed
from fhir_server.store.resources import ResourceStore

_LISTED_MAX = 50
_TAKEN = 409
_WRITES = frozenset(("create", "update", "patch"))
_REFUSED = (401, 403)
_OVERTAKEN = (404, 409, 410, 412)
_TEXT = (
    "At the time of your appointment on {start} there is nobody to see you. The clinic will tell "
    "you of another time."
)


class Blocks:
    """Has the refusal of a block say which appointments stand there."""

    def concerns(self, request: Request, context: Context) -> bool:
        """Whether ``request`` may block time."""
        if context.store.session is not None:
            return False
        if request.interaction == "transaction":
            return bool(_blocks(request))
        return request.type == "Slot" and request.interaction in _WRITES

    async def __call__(self, request: Request, context: Context, handler: Handler) -> Response:
        """Have ``handler`` answer. Raises ``conflict`` with an issue for each appointment."""
        try:
            return await handler(request, context)
        except FhirError as error:
            if error.status != _TAKEN or error.issues[-1].code != "not-found":
                raise
            listed = [_issue(one) for one in await _in_the_way(request, context)]
            issues = [*error.issues[:-1], *listed[:_LISTED_MAX], error.issues[-1]]
            made = FhirError(*issues, status=error.status, headers=error.headers)
            made.place = error.place
            raise made from error


def _blocks(request: Request) -> list[Resource]:
    """Return the blocks that ``request`` writes."""
    body = request.body or {}
    some: list[object] = [body]
    if body.get("resourceType") == "Bundle":
        entries = body.get("entry")  # nobody has looked at it yet
        listed = entries if isinstance(entries, list) else []
        some = [one.get("resource") for one in listed if isinstance(one, dict)]
    return [
        one
        for one in some
        if isinstance(one, dict)
        and one.get("resourceType") == "Slot"
        and one.get("status") == BLOCK
    ]


async def _in_the_way(request: Request, context: Context) -> list[Resource]:
    try:
        some = _blocks(request)
        if request.interaction == "patch":
            slot = await resource(f"Slot/{request.id}", context)
            some = [slot] if slot is not None else []
        there = [one for slot in some for one in await during(slot, context)]
    except FhirError as error:
        if error.status in _REFUSED:
            return []  # who may not search appointments is told of none
        raise
    return list({one["id"]: one for one in there}.values())


def _issue(appointment: Resource) -> Issue:
    text = f"Appointment/{appointment['id']} is then, at {appointment['start']}."
    return Issue("conflict", text)


class Hours:
    """Has the answer to a change of hours say which appointments lie outside them."""

    def concerns(self, request: Request, context: Context) -> bool:
        """Whether ``request`` may change hours."""
        is_one = request.type in ("Schedule", "HealthcareService") and context.store.session is None
        return is_one and request.interaction in ("update", "patch")

    async def __call__(self, request: Request, context: Context, handler: Handler) -> Response:
        """Have ``handler`` answer, and say more where somebody wants to hear it."""
        response = await handler(request, context)
        if response.status != 200 or request.prefer.get("return") != "OperationOutcome":
            return response
        key = f"{request.type}/{request.id}"
        try:
            outside, _ = await outside_hours(key, context)
        except FhirError as error:
            if error.status in _REFUSED:
                return response
            raise
        said = tuple(
            Issue(
                "business-rule",
                f"Appointment/{one['id']}, at {one['start']}, is outside the hours now.",
                severity="warning",
            )
            for one in outside[:_LISTED_MAX]
        )
        if len(outside) > _LISTED_MAX:
            text = f"{len(outside) - _LISTED_MAX} more appointments are outside the hours now."
            said += (Issue("business-rule", text, severity="warning"),)
        if not said:
            return response
        body = decode(response.body, depth_max=context.settings.depth_max)
        more = operation_outcome(said)["issue"]
        made = encode({**body, "issue": [*body["issue"], *more]})
        return replace(response, body=made, remarks=(*response.remarks, *said))


async def second_look(event: Freed, context: Context) -> None:
    """Mark what lies outside the hours that were changed a minute ago, and take the mark off what
    does not any more."""
    key = event.subject
    outside, others = await outside_hours(key, context)
    changed = [marked(one, key) for one in outside if not is_marked(one, key)]
    changed += [unmarked(one, key) for one in others if is_marked(one, key)]
    for one in changed:
        try:
            await put(one, context)
        except FhirError as error:
            if error.status not in _OVERTAKEN:
                raise


async def told(event: Freed, context: Context) -> None:
    """Tell the patients whose appointments a block stands over that was overridden."""
    slot = await resource(event.subject, context)
    some = await during(slot, context) if slot is not None else []
    for one in some:
        plain = await plain_message("blocked", one, _TEXT, context)
        to_be = await messages("blocked", one, context)
        ids = {message.reminder.id for message in to_be} or {plain["id"]}
        known = await by_key([f"CommunicationRequest/{id}" for id in ids], context)
        if is_marked(one, event.subject) and not known:  # it may be that this is done once more
            await _tell(to_be, one, plain, context)


async def _tell(
    some: Sequence[Message], appointment: Resource, plain: Resource, context: Context
) -> None:
    async def within(store: ResourceStore) -> None:
        await tell(some, appointment, plain, {}, replace(context, store=store))

    await context.store.in_transaction(within, TYPES)
