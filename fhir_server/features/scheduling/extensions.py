"""Names of our own in the resources of scheduling, and how they are read. Pure.

https://hl7.org/fhir/R4/extensibility.html. Their definitions are in ``profiles/fhir-server``.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from fhir_server.outcome import FhirError
from fhir_server.r4.dates import date_range

_BASE = "urn:fhir-server:StructureDefinition:"
HOLD_EXPIRES = f"{_BASE}hold-expires"
"""On an Appointment that is pending: until when its time is held (dateTime)."""
OVERRIDE_REASON = f"{_BASE}override-reason"
"""On an Appointment that takes a time where it was taken: why (string)."""
WAITLIST_ENTRY = f"{_BASE}waitlist-entry"
"""On an Appointment that is pending: an offer to an entry of the waiting list, and the version that
it was the entry in (string)."""
CONFLICTS_WITH = f"{_BASE}conflicts-with"
"""On an Appointment: what came after it and leaves no time for it (Reference to a Slot, a Schedule
or a HealthcareService)."""
SERVER_MADE = {"system": "urn:fhir-server:CodeSystem:origin", "code": "server-made"}
"""The tag of a Slot that was made for one appointment, and goes with it."""


def extensions(resource: Mapping[str, Any], url: str) -> Iterator[Mapping[str, Any]]:
    """Yield the extensions ``url`` of ``resource``."""
    for one in resource.get("extension", ()):
        if isinstance(one, dict) and one.get("url") == url:
            yield one


def hold_expires(appointment: Mapping[str, Any]) -> datetime | None:
    """Return until when the time of ``appointment`` is held (UTC); ``None``: for good."""
    if appointment.get("status") != "pending":
        return None
    for one in extensions(appointment, HOLD_EXPIRES):
        return moment(one.get("valueDateTime"))
    return None


def moment(text: object) -> datetime | None:
    """Return the instant or dateTime ``text`` in UTC; ``None`` for what is none."""
    if not isinstance(text, str):
        return None
    try:
        return date_range(text)[0]
    except FhirError:
        return None


def is_server_made(slot: Mapping[str, Any]) -> bool:
    """Whether ``slot`` was made by the server for one appointment."""
    tags = slot.get("meta", {}).get("tag", ())
    return any(SERVER_MADE.items() <= one.items() for one in tags if isinstance(one, dict))
