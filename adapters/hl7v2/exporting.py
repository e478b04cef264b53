"""``$hl7v2``: a Patient, Encounter, DiagnosticReport or Observation as a v2 message.

Everything is read through the front door. The answer is a Binary, ``application/hl7-v2``, which is
served by its own content type unless FHIR is asked for.
"""

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from adapters.hl7v2.charset import codec_of
from adapters.hl7v2.outbound.messages import PATIENT_EVENTS, TYPES, Envelope, Subject, message_of
from adapters.hl7v2.parameters import given
from fhir_server.context import Context
from fhir_server.messages import Request, Response
from fhir_server.outcome import FhirError, Issue, invalid_value
from fhir_server.r4.json import decode_stored, encode
from fhir_server.registry import Operation

Json = Mapping[str, Any]

_DEFINITION = "urn:fhir-server:OperationDefinition:hl7v2"
_RESULTS_MAX, _SPECIMENS_MAX = 1000, 50
_UTF8 = "UNICODE UTF-8"
_MEDIA = "application/hl7-v2"
_KINDS = {
    "event": "string",
    "charset": "string",
    "receiving-application": "string",
    "receiving-facility": "string",
}


def operation() -> Operation:
    """Return the operation."""
    return Operation(
        *("$hl7v2", _DEFINITION, hl7v2),
        on=TYPES,
        instance=True,
        whole=False,
        native=True,
        needs="r",
    )


async def hl7v2(request: Request, context: Context) -> Response:
    """Return the message as a Binary. Raises ``value`` for an event or a charset that cannot be,
    ``business-rule`` for a resource without a Patient, or with text that the charset lacks."""
    known = given(request, _KINDS)
    event = known.get("event", "")
    if event and (request.type != "Patient" or event not in PATIENT_EVENTS):
        raise invalid_value("event", event, f"of a Patient one of {', '.join(PATIENT_EVENTS)}")
    charset = known.get("charset", _UTF8)
    codec = codec_of(charset)
    if not codec or codec.startswith(("utf-16", "utf-32")):
        raise invalid_value("charset", charset, "of table 0211, such as UNICODE UTF-8 or 8859/1")
    subject = await _subject(request, context)
    now = context.now()
    digits = context.new_id().replace("-", "")
    envelope = Envelope(
        digits[:12] + digits[-8:],
        f"{now:%Y%m%d%H%M%S}+0000",
        receiver=(known.get("receiving-application", ""), known.get("receiving-facility", "")),
        charset=charset,
        processing="P" if context.settings.mode == "production" else "T",
    )
    text = message_of(subject, envelope, request.base_url, event)
    try:
        data = text.encode(codec)
    except UnicodeEncodeError as error:
        said = f"The resource has characters that {charset} lacks; ask for charset={_UTF8}."
        raise FhirError(Issue("business-rule", said), status=422) from error
    reference = {"reference": f"Patient/{subject.patient['id']}"}
    return Response(
        200,
        encode(
            {
                "resourceType": "Binary",
                "contentType": f"{_MEDIA}; charset={codec}",
                "securityContext": reference,
                "data": base64.b64encode(data).decode(),
            }
        ),
    )


async def _subject(request: Request, context: Context) -> Subject:
    response = await context.perform(Request("read", request.type, request.id), context)
    resource = decode_stored(response.body)
    if request.type == "Patient":
        return Subject(resource, resource)
    [patient] = await _read([resource.get("subject")], ("Patient",), 1, context) or [None]
    if patient is None:
        text = f"{request.type}/{request.id} has no subject that is a Patient here."
        raise FhirError(Issue("business-rule", text, "subject"), status=422)
    if request.type == "Encounter":
        return Subject(resource, patient)
    visits = await _read([resource.get("encounter")], ("Encounter",), 1, context)
    results: list[Any] = [resource]
    if request.type == "DiagnosticReport":
        results = await _read(resource.get("result", ()), ("Observation",), _RESULTS_MAX, context)
    results += await _members(results, context)
    named = [one.get("specimen") for one in results]
    specimens = resource.get("specimen", ())
    named = [*(specimens if isinstance(specimens, list) else []), *named]
    return Subject(
        resource,
        patient,
        visits[0] if visits else None,
        results,
        await _read(named, ("Specimen",), _SPECIMENS_MAX, context),
    )


async def _members(results: Sequence[Json], context: Context) -> list[Any]:
    """Return the members of panels that are not among ``results``."""
    known = {f"Observation/{one['id']}" for one in results}
    named = [
        member
        for one in results
        for member in one.get("hasMember", ())
        if member.get("reference") not in known
    ]
    room = _RESULTS_MAX - len(results)
    return await _read(named, ("Observation",), room, context) if named else []


async def _read(
    references: Iterable[Any], types: tuple[str, ...], count: int, context: Context
) -> list[Any]:
    """Return the resources that are named, each once; what is not there is left out.

    Raises ``too-costly`` for more than ``count``.
    """
    places = dict.fromkeys(
        str(one["reference"]) for one in references if one and one.get("reference")
    )
    wanted = [one.split("/") for one in places if one.startswith(tuple(f"{t}/" for t in types))]
    if len(wanted) > count:
        text = f"A message has at most {count:,} resources of type {types[0]}; here are more."
        raise FhirError(Issue("too-costly", text), status=422)
    found = []
    for type, id, *_ in wanted:
        try:
            response = await context.perform(Request("read", type, id), context)
        except FhirError as error:
            if error.status not in (404, 410):
                raise
            continue
        found.append(decode_stored(response.body))
    return found
