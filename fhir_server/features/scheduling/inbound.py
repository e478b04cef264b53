"""``POST /notify/sms``: answers to SMS, from the gateway. Section 8 of design/scheduling.md.

STOP writes a Consent, START ends it; 1 confirms the appointment that was reminded of, 2 cancels it.
What is not plain changes nothing. Without a secret in the settings there is no such place.
"""

import asyncio
import json
import logging
from typing import Any

from fhir_server.asgi import received, sent
from fhir_server.context import Context
from fhir_server.features.scheduling.communications import channels_of, objection, objects
from fhir_server.features.scheduling.drafting import asked_of
from fhir_server.features.scheduling.places import check_cutoff, places_of
from fhir_server.features.scheduling.planning import objections, resource
from fhir_server.features.scheduling.reminders import local, started
from fhir_server.features.scheduling.sms_replies import Reply, is_signed, mark, meant, reply_of
from fhir_server.messages import Request, Resource
from fhir_server.outcome import FhirError, Issue
from fhir_server.r4.json import decode
from fhir_server.store.notices import KEPT
from fhir_server.store.outbox import Row

PATH = "/notify/sms"
_BODY_BYTES_MAX = 16_384
_BODY_S = 10.0
_DEPTH_MAX = 4
_REASON = {
    "coding": [
        {
            "system": "http://terminology.hl7.org/CodeSystem/appointment-cancellation-reason",
            "code": "pat",
        }
    ],
    "text": "Cancelled by the patient, by SMS.",
}
_log = logging.getLogger("fhir_server.reminders")


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answer one HTTP request: ``{"did": "stop"}``, or that it is refused."""
    context: Context = scope["fhir_server.context"]
    try:
        did = await _did(scope, receive, context)
        status, said = 200, {"did": did}
    except FhirError as error:
        status, said = error.status, {"error": error.issues[0].diagnostics}
    except Exception as error:  # noqa: BLE001 - outermost shell: the next call is answered
        _log.error('"%s failed: %s"', PATH, type(error).__name__)
        status, said = 500, {"error": "The server failed; send it again."}
    body = json.dumps(said).encode()
    await sent(scope, send, status, "application/json", body, (b"cache-control", b"no-store"))


async def _did(scope: Any, receive: Any, context: Context) -> str:
    secret = context.settings.sms_inbound_secret.get_secret_value()
    if not secret:
        raise FhirError(Issue("not-found", "There is nothing here."))
    if scope["method"] != "POST":
        raise FhirError(Issue("not-supported", "Answers come by POST."), status=405)
    body = await _body(receive)
    headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
    timestamp, signature = headers.get(b"x-timestamp", ""), headers.get(b"x-signature", "")
    if not is_signed(secret, timestamp, signature, body, context.now()):
        raise FhirError(Issue("login", "This is not signed as it should be."))
    return await answered(reply_of(decode(body, depth_max=_DEPTH_MAX)), context.under("sms"))


async def answered(reply: Reply, context: Context) -> str:
    """Do what ``reply`` means; return ``stop``, ``start``, ``confirm``, ``cancel`` or
    ``nothing``."""
    to, meaning, now = mark(reply.sender), reply.meaning, context.now()
    if not to or not meaning:
        return "nothing"
    rows = await context.store.outbox.sent_to(to, now - KEPT)
    if meaning in ("stop", "start"):
        patients = {one.content["patient"] for one in rows}
        for patient in sorted(patients):
            await _wanted(patient, context, is_wanted=meaning == "start")
        return meaning if patients else "nothing"
    row = meant(rows, now)
    if row is None:
        return "nothing"
    return meaning if await _changed(row, context, is_off=meaning == "cancel") else "nothing"


async def _wanted(patient: str, context: Context, *, is_wanted: bool) -> None:
    """Write that ``patient`` wants SMS, or does not; once."""
    now = context.now()
    against = [one for one in await objections(patient, context) if objects([one], "sms", now)]
    if not is_wanted and not against:
        body = objection(patient, "sms", now)
        await context.perform(Request("create", "Consent", body=body), context)
    for one in against if is_wanted else ():
        if channels_of(one) == ["sms"]:  # who wants no messages at all has not said so by SMS
            await _update({**one, "status": "inactive"}, context)


async def _changed(row: Row, context: Context, *, is_off: bool) -> bool:
    """Confirm or cancel the appointment of ``row``; return whether that was still possible."""
    appointment = await resource(row.subject, context)
    if appointment is None or appointment.get("status") != "booked":
        return False
    if started(appointment) != row.content["start"]:
        return False  # it was moved: the answer is to what is not so any more
    if is_off and await _is_late(appointment, context):
        return False
    if is_off:
        await _update({**appointment, "status": "cancelled", "cancelationReason": _REASON}, context)
        return True
    shown = local(appointment, context.parameters.base_urls)["participant"]
    participants = [
        {**one, "status": "accepted"}
        if (there.get("actor") or {}).get("reference") == row.content["patient"]
        else one
        for one, there in zip(appointment["participant"], shown, strict=True)
    ]
    await _update({**appointment, "participant": participants}, context)
    return True


async def _is_late(appointment: Resource, context: Context) -> bool:
    """Whether only the clinic may cancel ``appointment`` by now: who answers is the patient,
    whatever this server may do itself."""
    try:
        asked, places = await places_of(asked_of(appointment), context, stands=True)
        check_cutoff("cancel", asked.start, places, context.now())
    except FhirError as error:
        return error.issues[0].code == "business-rule"  # else it is in no Schedule: no rule holds
    return False


async def _update(body: Resource, context: Context) -> None:
    """Write ``body`` in the place of the version that it was made of."""
    version = frozenset((body["meta"]["versionId"],))
    request = Request("update", body["resourceType"], body["id"], body=body, if_match=version)
    await context.perform(request, context)


async def _body(receive: Any) -> bytes:
    """Return the body, of whoever sends one in time: it is not known yet who it is."""
    try:
        async with asyncio.timeout(_BODY_S):
            return await received(receive, _BODY_BYTES_MAX)
    except TimeoutError as error:
        raise FhirError(Issue("timeout", "The body did not come in time."), status=408) from error
