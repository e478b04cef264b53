"""QBP: a query, asked through the front door; the RSP that answers it.

HL7 v2.5.1, 3.3.56 to 3.3.58; design/hl7v2.md, section 21. Nothing is written: no row, no resource.
"""

from collections.abc import Sequence

from adapters.hl7v2.ack import Fault, Sent, acknowledgement
from adapters.hl7v2.issues import MessageFault
from adapters.hl7v2.messages.query import RESPONSES, Found, answered, question
from adapters.hl7v2.outcomes import Taken, as_fault
from adapters.hl7v2.permissions import may_write
from adapters.hl7v2.reading import Item
from adapters.hl7v2.scene import scene_of
from fhir_server.context import Context
from fhir_server.messages import Request
from fhir_server.outcome import FhirError
from fhir_server.r4.json import decode_stored

_UTF8 = "UNICODE UTF-8"


async def replied(item: Item, context: Context, sent: Sent) -> Taken:
    """Return the answer to a query that was let in. Raises what the database raises."""
    try:
        if not may_write(item.profile.principal, "Patient", "r"):
            text = "The profile of the sender does not let it read the type Patient."
            raise MessageFault(207, "", text)
        found = await _found(item, context)
    except MessageFault as fault:
        return _answer(item, sent, Found(failed=True), [as_fault(fault)])
    except FhirError as error:
        if error.status >= 500:
            raise
        told = Fault("102", "A value of the query cannot be searched for.", "QPD^1^3")
        return _answer(item, sent, Found(failed=True), [told])
    return _answer(item, sent, found, [])


async def _found(item: Item, context: Context) -> Found:
    asked = question(item.message, scene_of(item.message, item.profile))
    parameters = (
        *asked.parameters,
        ("active:not", "false"),  # a number of who was merged is a number of the survivor
        ("_count", str(asked.count)),
        ("_total", "accurate"),
        ("_sort", "_id"),
    )
    request = Request("search-type", "Patient", parameters=parameters)
    context = context.under(f"hl7v2/{item.profile.name}")
    body = decode_stored((await context.perform(request, context)).body)
    patients = [
        one["resource"]
        for one in body.get("entry", ())
        if one.get("search", {}).get("mode") != "outcome"
    ]
    return Found(tuple(patients), int(body.get("total", len(patients))), asked.tag)


def _answer(item: Item, sent: Sent, found: Found, faults: Sequence[Fault]) -> Taken:
    """Return the RSP: in the charset of the message, or in UTF-8 where a name does not fit that."""
    event = RESPONSES[item.message.event]
    code = "AE" if faults else "AA"
    header = item.header
    lines = "".join(f"{line}\r" for line in answered(item.message, found))
    codec = item.codec
    try:
        rest = lines.encode(codec)
    except UnicodeEncodeError:
        codec, rest = "utf-8", lines.encode()
        fields = [*header.fields, *[""] * (19 - len(header.fields))]
        fields[18] = _UTF8
        header = type(header)(header.delimiters, tuple(fields))
    if header.codec != "latin-1":  # the mark stands at the beginning alone
        rest = lines.encode(f"{header.codec}-le")
    head = acknowledgement(header, code, sent, faults, ("RSP", event, f"RSP_{event}"))
    return Taken("RSP", head + rest)
