"""What stays of a message beside what it became: its bytes, what they are, who said them.

design/hl7v2.md, section 19; https://hl7.org/fhir/R4/provenance.html

The Binary has the Patient as ``securityContext``: whoever may not see the patient does not see the
message.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from adapters.hl7v2.reading import Item
from adapters.hl7v2.scene import scene_of
from adapters.hl7v2.times import moment

DOCUMENTS = ("Binary", "DocumentReference", "Provenance")

_EVENTS = "http://terminology.hl7.org/CodeSystem/v2-0003"
_PARTICIPANTS = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
_CHARSETS = {"utf_8": "utf-8", "cp1252": "windows-1252"}


def records(
    item: Item,
    ids: Mapping[str, str],
    targets: Sequence[tuple[str, str]],
    subjects: Sequence[str],
    now: str,
) -> list[dict[str, Any]]:
    """Return the Binary, the DocumentReference and the Provenance of ``item``.

    ``targets`` are type and id of everything written, ``subjects`` references to Patients; ``now``
    is an instant.
    """
    header = item.header
    subject = {"reference": subjects[0]} if subjects else None
    codec = _CHARSETS.get(item.codec, item.codec)
    content_type = f"application/hl7-v2; charset={codec}"
    event = item.message.event
    binary = {
        "resourceType": "Binary",
        "id": ids["Binary"],
        "contentType": content_type,
        **({"securityContext": subject} if subject else {}),
        "data": base64.b64encode(item.arrival.data).decode("ascii"),
    }
    document = {
        "resourceType": "DocumentReference",
        "id": ids["DocumentReference"],
        "identifier": [{"value": item.message.control_id or header.control_id}],
        "status": "current",
        "type": {"text": f"HL7 v2 message {item.message.type}^{event}".rstrip("^")},
        **({"subject": subject} if subject else {}),
        "date": now,
        "content": [
            {"attachment": {"contentType": content_type, "url": f"Binary/{ids['Binary']}"}}
        ],
    }
    occurred = _occurred(item)
    provenance = {
        "resourceType": "Provenance",
        "id": ids["Provenance"],
        "target": [{"reference": f"{type}/{id}"} for type, id in targets],
        **({"occurredDateTime": occurred} if occurred else {}),
        "recorded": now,
        **({"activity": {"coding": [{"system": _EVENTS, "code": event}]}} if event else {}),
        "agent": [
            _agent("author", {"display": _facility(header.value(4), header.value(3))}),
            _agent("assembler", {"display": "FHIR server"}),
        ],
        "entity": [
            {
                "role": "source",
                "what": {"reference": f"DocumentReference/{ids['DocumentReference']}"},
            }
        ],
    }
    return [binary, document, provenance]


def _occurred(item: Item) -> str:
    """Return when it happened as the message says: EVN-6, else EVN-2, else MSH-7."""
    zone = scene_of(item.message, item.profile).zone
    told = (item.message.text("EVN", 6), item.message.text("EVN", 2), item.message.header.text(7))
    return next((made for one in told if (made := moment(one, zone))), "")


def _agent(role: str, who: dict[str, Any]) -> dict[str, Any]:
    return {"type": {"coding": [{"system": _PARTICIPANTS, "code": role}]}, "who": who}


def _facility(facility: str, application: str) -> str:
    """Return the sender as a person reads it. Latin-1 at most: MSH-3 and MSH-4 are codes."""
    text = " ".join(part for part in (facility, application) if part)
    return "".join(one for one in text if one.isprintable()).strip() or "unknown sender"
