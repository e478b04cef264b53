"""What the booking operations are given, by name. Pure.

Sections 3 to 5 of design/scheduling.md. The names are those of IHE ITI Scheduling
(``appointment-reference``), and ``appointment`` for a proposed Appointment as a whole.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from fhir_server.features.scheduling.parts import NEARER, YEARS
from fhir_server.messages import Resource
from fhir_server.operations.asked import Given, Table
from fhir_server.outcome import FhirError, Issue, invalid_value
from fhir_server.r4.references import target

_APPOINTMENT = ("appointment-reference", "appointment", "appointment-resource")
_REASON_CHARACTERS_MAX = 500
_SERIES = (2, 52)
# http://hl7.org/fhir/R4/valueset-appointment-cancellation-reason.html: its highest codes
_CANCELLATION = "http://terminology.hl7.org/CodeSystem/appointment-cancellation-reason"
_CANCELLATION_CODES = frozenset(("pat", "prov", "maint", "meds-inc", "other"))

HOLD: Table = {
    "appointment-reference": "Reference",
    "appointment": "Resource Appointment",
    "appointment-resource": "Resource Appointment",
    "patient-reference": "Reference",
    "comment": "string",
    "override": "parts",
    "occurrence-count": "integer",
}
BOOK: Table = {**HOLD, "patient-resource": "Resource Patient"}
CONFIRM: Table = {"patient-reference": "Reference", "comment": "string"}
CANCEL: Table = {"reason": "CodeableConcept|Coding|string"}
RESCHEDULE: Table = {"start": "dateTime|instant", "schedule": "Reference", "override": "parts"}
FOLLOW_UP: Table = {"reason": "string"}


@dataclass(frozen=True, slots=True)
class Wish:
    """What ``$book`` and ``$hold`` are asked for.

    One of ``reference`` (``Appointment/x``: of a proposal, or of a hold) and ``appointment`` is
    given; ``name`` is the parameter that it came in, which decides the shape of the answer.
    ``patient`` is ``Patient/1`` or ``""``, ``person`` a Patient that is yet to be created.
    ``override`` is why the time is to be taken all the same; ``count`` how many weeks in a row.
    """

    name: str
    reference: str = ""
    appointment: Resource = field(default_factory=dict)
    patient: str = ""
    person: Resource | None = None
    comment: str = ""
    override: str = ""
    count: int = 1


def reference_of(value: Any, type: str, name: str, bases: Sequence[str] = ()) -> str:
    """Return the reference ``value`` as ``Type/id``; ``""`` for ``None``. A bare id is one of
    ``type``; ``bases`` are what this server is called.

    >>> reference_of({"reference": "https://x.org/fhir/Patient/1"}, "Patient", "patient",
    ...              ["https://x.org/fhir"])
    'Patient/1'
    """
    if value is None:
        return ""
    text = value.get("reference", "") if isinstance(value, Mapping) else value
    if isinstance(text, str) and text:
        found = target(text if "/" in text else f"{type}/{text}", bases)
        if found.type == type and found.id:
            return f"{type}/{found.id}"
    raise invalid_value(name, text, f"a reference such as {type}/1", "Parameters.parameter")


def moment_of(value: Any, name: str) -> datetime:
    """Return the instant ``value``. Raises ``value`` for what has no zone, or is none."""
    try:
        found = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        found = None
    if found is None or found.tzinfo is None:
        expected = "a time with its zone, such as 2026-12-01T09:00:00+06:00"
        raise invalid_value(name, value, expected, "Parameters.parameter")
    if found.year not in YEARS:
        raise invalid_value(name, value, NEARER, "Parameters.parameter")
    return found


def words_of(found: Given, name: str) -> str:
    """Return the text ``name``, ``""`` where it is not given. Raises ``value`` for a blank one."""
    value = found.one(name)
    if value is None:
        return ""
    if not isinstance(value, str) or not value.strip():
        raise invalid_value(name, value, "some words", "Parameters.parameter")
    return value.strip()


def override_of(found: Given) -> str:
    """Return the part ``reason`` of the parameter ``override``; ``""`` where that is not given.
    Raises ``value`` where it has no reason, or one that is too long."""
    parts = found.one("override")
    if parts is None:
        return ""
    reason = next((one.get("valueString") for one in parts if one.get("name") == "reason"), None)
    if not isinstance(reason, str) or not 0 < len(reason.strip()) <= _REASON_CHARACTERS_MAX:
        expected = f"a valueString of 1 to {_REASON_CHARACTERS_MAX} characters"
        raise invalid_value("The part reason of override", reason, expected)
    return reason.strip()


def concept_of(value: Any) -> Resource:
    """Return the reason of a cancellation as a CodeableConcept; ``{}`` for ``None``.

    >>> concept_of("pat")["coding"][0]["code"]
    'pat'
    """
    if value is None:
        return {}
    if isinstance(value, dict):
        return {"coding": [value]} if "code" in value else value
    if value in _CANCELLATION_CODES:
        return {"coding": [{"system": _CANCELLATION, "code": value}]}
    return {"text": value}


def wish_of(found: Given, bases: Sequence[str]) -> Wish:
    """Return what ``$book`` or ``$hold`` is asked for. Raises ``required`` where it is not said
    which appointment is meant, ``value`` where it is said twice."""
    named = [name for name in _APPOINTMENT if found.many(name)]
    if len(named) != 1:
        text = f"Say which appointment, once: {', '.join(_APPOINTMENT)}."
        raise FhirError(Issue("value" if named else "required", text, "Parameters.parameter"))
    if found.many("patient-reference") and found.many("patient-resource"):
        raise FhirError(Issue("value", "Give patient-reference or patient-resource, not both."))
    [name] = named
    value = found.one(name)
    is_reference = name == "appointment-reference"
    return Wish(
        name,
        reference_of(value, "Appointment", name, bases) if is_reference else "",
        {} if is_reference else value,
        reference_of(found.one("patient-reference"), "Patient", "patient-reference", bases),
        found.one("patient-resource"),
        words_of(found, "comment"),
        override_of(found),
        count_of(found),
    )


def count_of(found: Given) -> int:
    """Return the number of weeks in a row that ``occurrence-count`` asks for; 1 without it."""
    value = found.one("occurrence-count")
    least, most = _SERIES
    if value is None:
        return 1
    if not least <= value <= most:
        expected = f"a whole number from {least} to {most}"
        raise invalid_value("occurrence-count", value, expected, "Parameters.parameter")
    return int(value)
