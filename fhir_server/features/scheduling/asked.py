"""What the booking operations are given: Parameters, or the query of a GET, by name. Pure.

https://hl7.org/fhir/R4/parameters.html and sections 3 to 5 of design/scheduling.md. The names are
those of IHE ITI Scheduling (``appointment-reference``), and ``appointment`` for a proposed
Appointment as a whole.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from fhir_server.messages import Request, Resource
from fhir_server.outcome import FhirError, Issue, invalid_value, nearest, shown
from fhir_server.r4.references import target

Known = Mapping[str, Sequence[str]]
"""Name of a parameter -> the members that can have its value, such as ``valueString``."""

REFERENCE = ("valueReference", "valueUri", "valueString")
TEXT = ("valueString", "valueMarkdown")
MOMENT = ("valueDateTime", "valueInstant")
RESOURCE = ("resource",)
WHOLE = ("valueInteger", "valuePositiveInt", "valueUnsignedInt")
_REASON_TEXT_MAX = 500
_SERIES = (2, 52)
_AS_RESOURCE = ("appointment", "appointment-resource")
# http://hl7.org/fhir/R4/valueset-appointment-cancellation-reason.html: its highest codes
_CANCELLATION = "http://terminology.hl7.org/CodeSystem/appointment-cancellation-reason"
_CANCELLATION_CODES = frozenset(("pat", "prov", "maint", "meds-inc", "other"))

BOOK: Known = {
    "appointment-reference": REFERENCE,
    "appointment": RESOURCE,
    "appointment-resource": RESOURCE,
    "patient-reference": REFERENCE,
    "patient-resource": RESOURCE,
    "comment": TEXT,
    "override": ("part", *TEXT),
    "occurrence-count": WHOLE,
}
HOLD: Known = {name: BOOK[name] for name in BOOK if name != "patient-resource"}
CONFIRM: Known = {"patient-reference": REFERENCE, "comment": TEXT}
CANCEL: Known = {"reason": ("valueCodeableConcept", "valueCoding", "valueCode", *TEXT)}
RESCHEDULE: Known = {
    "start": MOMENT,
    "schedule": REFERENCE,
    "override": ("part", *TEXT),
}
FOLLOW_UP: Known = {"reason": TEXT}

Given = dict[str, list[Any]]


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


def given(request: Request, known: Known, *, several: Sequence[str] = ()) -> Given:
    """Return the values of the parameters of ``request`` by name, of body and query.

    The body is known to be valid. Those of ``several`` may be repeated. Raises ``value`` for an
    unknown parameter, for one that has no value of its kind, and for one that is repeated.
    """
    found: Given = {}
    for name, value in [*_of_body(request, known), *_of_query(request, known)]:
        found.setdefault(name, []).append(value)
        if len(found[name]) > 1 and name not in several:
            raise FhirError(Issue("value", f"{name} is to be given once.", "Parameters.parameter"))
    return found


def _of_body(request: Request, known: Known) -> list[tuple[str, Any]]:
    body = request.body
    if body is None:
        return []
    if body.get("resourceType") != "Parameters":
        raise invalid_value("The body", body.get("resourceType"), "Parameters", "resourceType")
    found = []
    for one in body.get("parameter", ()):
        name = one.get("name")
        members = _members(name, request, known)
        value = next((one[member] for member in members if member in one), None)
        if value is None:
            text = f"{name} is to be given as {' or '.join(members)}."
            raise FhirError(Issue("value", text, "Parameters.parameter"))
        found.append((name, value))
    return found


def _of_query(request: Request, known: Known) -> list[tuple[str, Any]]:
    """Return the parameters of the query; what is no simple value cannot be given there."""
    found = []
    for name, value in request.parameters:
        members = _members(name, request, known)
        if not any(member.startswith("value") for member in members):
            raise FhirError(Issue("value", f"{name} is to be given in the body, as Parameters."))
        found.append((name, value))
    return found


def _members(name: object, request: Request, known: Known) -> Sequence[str]:
    if isinstance(name, str) and name in known:
        return known[name]
    near = nearest(str(name), known)
    text = f"{request.interaction} has no parameter {shown(name)}.{near}"
    raise FhirError(Issue("value", text, "Parameters.parameter"))


def one_of(found: Given, name: str) -> Any:
    """Return the value of ``name``, or ``None``."""
    return found[name][0] if name in found else None


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
    return found


def text_of(value: Any, name: str) -> str:
    """Return the text ``value``, ``""`` for ``None``. Raises ``value`` where it is no text."""
    if value is None:
        return ""
    if not isinstance(value, str) or not value.strip():
        raise invalid_value(name, value, "some words", "Parameters.parameter")
    return value.strip()


def override_of(value: Any) -> str:
    """Return the reason of the parameter ``override``: a text, or its part ``reason``; ``""``
    where there is none. Raises ``value`` where it has no reason."""
    if isinstance(value, list):
        parts = [one for one in value if isinstance(one, dict) and one.get("name") == "reason"]
        value = next((one[name] for one in parts for name in TEXT if name in one), "")
    found = text_of(value, "The reason of override")
    if len(found) > _REASON_TEXT_MAX:
        raise FhirError(Issue("value", f"A reason has at most {_REASON_TEXT_MAX} characters."))
    return found


def concept_of(value: Any) -> Resource:
    """Return the reason of a cancellation as a CodeableConcept; ``{}`` for ``None``.

    >>> concept_of("pat")["coding"][0]["code"]
    'pat'
    """
    if value is None:
        return {}
    if isinstance(value, dict):
        return {"coding": [value]} if "code" in value else value
    text = text_of(value, "reason")
    if text in _CANCELLATION_CODES:
        return {"coding": [{"system": _CANCELLATION, "code": text}]}
    return {"text": text}


def wish_of(request: Request, known: Known, bases: Sequence[str]) -> Wish:
    """Return what ``$book`` or ``$hold`` is asked for. Raises ``required`` where it is not said
    which appointment is meant, ``value`` where it is said twice."""
    found = given(request, known)
    named = [name for name in ("appointment-reference", *_AS_RESOURCE) if name in found]
    if len(named) != 1:
        text = "Say which appointment, once: appointment-reference, appointment or "
        text += "appointment-resource."
        raise FhirError(Issue("value" if named else "required", text, "Parameters.parameter"))
    if {"patient-reference", "patient-resource"} <= found.keys():
        raise FhirError(Issue("value", "Give patient-reference or patient-resource, not both."))
    [name] = named
    value = one_of(found, name)
    return Wish(
        name,
        reference_of(value, "Appointment", name, bases) if name not in _AS_RESOURCE else "",
        _resource(value, "Appointment", name) if name in _AS_RESOURCE else {},
        reference_of(one_of(found, "patient-reference"), "Patient", "patient-reference", bases),
        _resource(one_of(found, "patient-resource"), "Patient", "patient-resource") or None,
        text_of(one_of(found, "comment"), "comment"),
        override_of(one_of(found, "override")),
        count_of(one_of(found, "occurrence-count")),
    )


def _resource(value: Any, type: str, name: str) -> Resource:
    if value is None:
        return {}
    if not isinstance(value, dict) or value.get("resourceType") != type:
        said = value.get("resourceType") if isinstance(value, dict) else value
        raise invalid_value(name, said, f"one resource of type {type}", "Parameters.parameter")
    return value


def count_of(value: Any) -> int:
    """Return the number of weeks in a row that ``occurrence-count`` asks for; 1 for ``None``."""
    if value is None:
        return 1
    least, most = _SERIES
    text = str(value)
    if not text.isascii() or not text.isdecimal() or not least <= int(text[:4]) <= most:
        expected = f"a whole number from {least} to {most}"
        raise invalid_value("occurrence-count", value, expected, "Parameters.parameter")
    return int(text)
