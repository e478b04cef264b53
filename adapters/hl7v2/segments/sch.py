"""SCH, AIS, AIG, AIL and AIP to Appointment.

HL7 v2.5.1, 10.6; design/hl7v2.md, sections 12 and 13.
"""

from decimal import Decimal
from typing import Any

from adapters.hl7v2.codes import concept, concept_text, cwe
from adapters.hl7v2.datatypes import date_time, ei, ei_of
from adapters.hl7v2.message import Segment, Value
from adapters.hl7v2.quantities import decimal_of
from adapters.hl7v2.references import pl, xcn
from adapters.hl7v2.rows import Row, Table
from adapters.hl7v2.scene import Scene
from adapters.hl7v2.times import later
from adapters.hl7v2.vocabulary import target

Json = dict[str, Any]

DATA_ABSENT = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
ACTOR_ROLE = "http://terminology.hl7.org/CodeSystem/participant-type"
# Names of units of time as SCH-10 has them, in lower letters -> seconds.
_SECONDS = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1),
    **dict.fromkeys(("", "m", "min", "mins", "minute", "minutes", "mn"), 60),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600),
    **dict.fromkeys(("d", "day", "days"), 86400),
}


def _order(value: Value, scene: Scene) -> Json | None:
    number = ei_of(value, scene)
    return {"type": "ServiceRequest", "identifier": number} if number else None


def _contact(code: str) -> Any:
    def convert(value: Value, scene: Scene) -> Json | None:
        actor = xcn(value, scene)
        if not actor:
            return None
        return {"type": [{"text": code}], "actor": actor, "status": "accepted"}

    return convert


APPOINTMENT = Table(
    "Appointment",
    "SCH",
    [
        Row("SCH-1", "identifier[+]", ei("PLAC")),
        Row("SCH-2", "identifier[+]", ei("FILL")),
        Row("SCH-7", "reasonCode*", concept("AppointmentReasonCodes", "0276")),
        Row("SCH-8", "appointmentType", concept("AppointmentTypeCodes", "0277")),
        Row("SCH-12*", "participant[]", _contact("placer contact")),
        Row("SCH-16*", "participant[]", _contact("filler contact")),
        Row("SCH-20*", "participant[]", _contact("entered by")),
        Row("SCH-26", "basedOn[]", _order),
        Row("SCH-27", "basedOn[]", _order),
    ],
)


def seconds_of(number: str, unit: str) -> int | None:
    """Return a length of time; None if it is none, or its unit is unknown."""
    amount = decimal_of(number)
    factor = _SECONDS.get(unit.strip().lower())
    if amount is None or factor is None or not 0 < amount < Decimal(10**7):
        return None
    return int(amount * factor)


def duration(sch: Segment) -> int | None:
    """Return SCH-9 in units of SCH-10, as seconds; else the duration of SCH-11."""
    unit = sch.value(10)
    found = seconds_of(sch.text(9), unit[1] if unit else "")
    if found is None and unit:
        found = seconds_of(sch.text(9), concept_text(unit))
    return found


# Segment -> fields of start and of its offset, its unit, duration, unit, status.
_TIMES = {
    "AIS": (4, 7, 8, 10),
    "AIG": (8, 11, 12, 14),
    "AIL": (6, 9, 10, 12),
    "AIP": (6, 9, 10, 12),
}


def resource_time(segment: Segment, scene: Scene) -> tuple[str | None, int | None]:
    """Return start and length in seconds of an AIS, AIG, AIL or AIP."""
    begin, length, unit, _ = _TIMES[segment.name]
    value = segment.value(begin)
    scene.at(segment, begin)
    start = date_time(value, scene) if value else None
    return start, seconds_of(segment.text(length), segment.text(unit))


def participant(segment: Segment, scene: Scene, pending: bool) -> Json | None:
    """Return the participant that an AIG, AIL or AIP names."""
    value = segment.value(3)
    scene.at(segment, 3)
    kind = segment.value(4)
    if segment.name == "AIG":
        value = value or segment.value(5)
        actor = _resource(value, scene) if value else None
    elif segment.name == "AIL":
        actor = pl(value, scene) if value else None
    else:
        actor = xcn(value, scene) if value else None
    made: Json = {}
    if actor:
        made["actor"] = actor
    if kind and (named := cwe(kind, scene)):
        made["type"] = [named]
    if not made:
        return None
    made["status"] = _participation(segment, pending)
    start, length = resource_time(segment, scene)
    if start:
        made["period"] = {"start": start}
        if length and "T" in start:
            made["period"]["end"] = later(start, length)
    return made


def _resource(value: Value, scene: Scene) -> Json | None:
    made: Json = {}
    if value[1]:
        number = ei_of(value, scene)
        made["identifier"] = {"value": value[1]} if number is None else {"value": number["value"]}
    if shown := concept_text(value) or value[1]:
        made["display"] = shown
    return made or None


def _participation(segment: Segment, pending: bool) -> str:
    image = target("FillerStatusCodes[Appointment]", segment.text(_TIMES[segment.name][3]))
    status = image.code if image else "pending" if pending else "booked"
    return {"pending": "needs-action", "cancelled": "declined", "waitlist": "needs-action"}.get(
        status, "accepted"
    )


def absent() -> Json:
    """Return what stands for an element that R4 requires and the message lacks."""
    return {"extension": [{"url": DATA_ABSENT, "valueCode": "unknown"}]}
