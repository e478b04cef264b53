"""RXO, RXE, RXR, RXC, TQ1 to MedicationRequest; RXD to MedicationDispense; RXA to
MedicationAdministration.

HL7 v2.5.1, 4.14; design/hl7v2.md, section 13.
"""

import re
from typing import Any

from adapters.hl7v2.codes import concept, cwe
from adapters.hl7v2.datatypes import date_time, ei, positive, span
from adapters.hl7v2.groups import OrderGroup
from adapters.hl7v2.message import Segment, Value
from adapters.hl7v2.quantities import composite, decimal_of, quantity, unit_of
from adapters.hl7v2.references import xcn
from adapters.hl7v2.rows import Filled, Row, Table
from adapters.hl7v2.scene import Scene
from adapters.hl7v2.vocabulary import target

Json = dict[str, Any]

# Q6H, Q30M, QD2 … of table 0335 -> unit of Timing.repeat.
_UNITS = {"S": "s", "M": "min", "H": "h", "D": "d", "W": "wk", "L": "mo"}
_EVERY = re.compile(r"Q(\d{1,3})([SMHDWL])")
_TIMES_A_DAY = {"QD": 1, "BID": 2, "TID": 3, "QID": 4}


def _medication(value: Value, scene: Scene) -> Json | None:
    return concept("", "0292")(value, scene)


def _substitution(value: Value, scene: Scene) -> Json | None:
    return concept("AllowSubstitution", "0161")(value, scene)


def _repeats(value: Value, scene: Scene) -> int | None:
    said = value[1]
    return int(said[:6]) if said.isdecimal() else None


REQUESTED = Table(
    "MedicationRequest",
    "RXO",
    [
        Row("RXO-1", "medicationCodeableConcept", _medication),
        Row("RXO-9", "substitution.allowedCodeableConcept", _substitution),
        Row("RXO-13", "dispenseRequest.numberOfRepeatsAllowed", _repeats),
        Row("RXO-14*", "_requester*", xcn),
    ],
)
ENCODED = Table(
    "MedicationRequest",
    "RXE",
    [
        Row("RXE-2", "medicationCodeableConcept", _medication),
        Row("RXE-9", "substitution.allowedCodeableConcept", _substitution),
        Row("RXE-12", "dispenseRequest.numberOfRepeatsAllowed", _repeats),
        Row("RXE-13*", "_requester*", xcn),
    ],
)
CONTROL = Table(
    "MedicationRequest",
    "ORC",
    [
        Row("ORC-2", "identifier[+]", ei("PLAC")),
        Row("ORC-3", "identifier[+]", ei("FILL")),
        Row("ORC-4", "groupIdentifier", ei("PGN")),
        Row("ORC-9", "authoredOn", date_time),
        Row("ORC-12*", "_requester*", xcn),
        Row("ORC-16", "statusReason", cwe),
    ],
)


def prescription(order: OrderGroup, scene: Scene) -> Filled:
    """Return what an order says of its MedicationRequest."""
    filled = Filled({}, set())
    places = filled.set
    requesters: list[Json] = []
    for table, segment in (
        (REQUESTED, order.rxo),
        (ENCODED, order.rxe),
        (CONTROL, order.orc),
    ):
        if segment:
            table.apply(segment, scene, filled)
            requesters = places.pop("_requester", None) or requesters
    if requesters:
        places["requester"] = requesters[0]
    if "_requester" in filled.remove:
        filled.remove.add("requester")
    if dosage := _dosage(order, scene):
        places["dosageInstruction"] = [dosage]
    for segment, amount, unit in ((order.rxo, 11, 12), (order.rxe, 10, 11)):
        if segment and (made := _amount(segment, amount, unit, scene)):
            places["dispenseRequest.quantity"] = made
    _form(order.rxo, places, scene)
    return filled


def _amount(segment: Segment, amount: int, unit: int, scene: Scene) -> Json | None:
    number = decimal_of(segment.text(amount))
    named = segment.value(unit)
    scene.at(segment, unit)
    return quantity(number, unit_of(named, scene)) if number is not None else None


def _form(rxo: Segment | None, places: dict[str, Any], scene: Scene) -> None:
    """Make a contained Medication where RXO says form or strength."""
    if rxo is None or "medicationCodeableConcept" not in places:
        return
    form = rxo.value(5)
    scene.at(rxo, 5)
    made_form = cwe(form, scene) if form else None
    strength = _amount(rxo, 18, 19, scene)
    if not made_form and not strength:
        return
    code = places.pop("medicationCodeableConcept")
    medication: Json = {"resourceType": "Medication", "id": "medication", "code": code}
    if made_form:
        medication["form"] = made_form
    if strength:
        volume = _amount(rxo, 25, 26, scene) or {"value": 1}
        ratio = {"numerator": strength, "denominator": volume}
        medication["ingredient"] = [{"itemCodeableConcept": code, "strength": ratio}]
    places["contained"] = [medication]
    places["medicationReference"] = {"reference": "#medication"}


# ----------------------------------------------------------------------------------------- dosage


def _dosage(order: OrderGroup, scene: Scene) -> Json:
    made: Json = {}
    instructions = []
    for segment, fields in ((order.rxo, (7,)), (order.rxe, (7, 21))):
        for field in fields:
            for value in segment.values(field) if segment else ():
                scene.at(segment, field)  # type: ignore[arg-type]
                if found := cwe(value, scene):
                    instructions.append(found)
    if instructions:
        made["additionalInstruction"] = instructions
    for segment, low, high, unit in ((order.rxo, 2, 3, 4), (order.rxe, 3, 4, 5)):
        if segment and (dose := _dose(segment, low, high, unit, scene)):
            made["doseAndRate"] = [dose]
    if order.routes:
        made.update(administration(order.routes[0], scene))
    if timing := _timing(order, scene):
        made["timing"] = timing
    text = _text(order)
    if text:
        made["text"] = text
    return made


def _dose(segment: Segment, low: int, high: int, unit: int, scene: Scene) -> Json | None:
    least, most = decimal_of(segment.text(low)), decimal_of(segment.text(high))
    named = segment.value(unit)
    scene.at(segment, unit)
    said = unit_of(named, scene)
    if least is not None and most is not None and least < most:
        return {"doseRange": {"low": quantity(least, said), "high": quantity(most, said)}}
    number = least if least is not None else most
    return {"doseQuantity": quantity(number, said)} if number is not None else None


def administration(rxr: Segment, scene: Scene) -> Json:
    """Return route, site and method of an RXR."""
    made: Json = {}
    for field, name, map, table in (
        (1, "route", "RouteOfAdministration", "0162"),
        (2, "site", "BodySite", "0163"),
        (4, "method", "AdministrationMethod", "0165"),
    ):
        value = rxr.value(field)
        scene.at(rxr, field)
        if value and (found := concept(map, table)(value, scene)):
            made[name] = found
    return made


def _text(order: OrderGroup) -> str:
    found = [timing.text(field) for timing in order.timings for field in (11, 10)]
    return "; ".join(text for text in found if text)


def _timing(order: OrderGroup, scene: Scene) -> Json | None:
    for tq1 in order.timings:
        start, end = tq1.value(7), tq1.value(8)
        scene.at(tq1, 3)
        pattern = tq1.value(3)
        made = timing(pattern, start, end, scene)
        count = tq1.value(14)
        if count and (number := positive(count, scene)):
            made.setdefault("repeat", {})["count"] = number
        length = tq1.value(6)
        if length and "boundsPeriod" not in made.get("repeat", {}):
            found = composite(length, scene)
            if found:
                made.setdefault("repeat", {})["boundsDuration"] = found
        if made:
            return made
    for segment, field in ((order.rxe, 1), (order.orc, 7)):
        value = segment.value(field) if segment else None
        if segment and value:
            scene.at(segment, field)
            made = timing(value.subs(2), value.subs(4), value.subs(5), scene)
            if made:
                return made
    return None


def timing(pattern: Value | None, start: Value | None, end: Value | None, scene: Scene) -> Json:
    """Return a Timing: the pattern as a code, its repetition where it has an image, its bounds."""
    made: Json = {}
    repeat: Json = {}
    valid = span(date_time(start, scene) if start else None, date_time(end, scene) if end else None)
    if valid:
        repeat["boundsPeriod"] = valid
    said = pattern[1].upper() if pattern else ""
    if said:
        image = target("RepeatPattern", said)
        if image:
            code = {"system": image.system, "code": image.code, "display": image.display}
            made["code"] = {"coding": [{k: v for k, v in code.items() if v}], "text": said}
        else:
            made["code"] = {"text": said}
        if every := _EVERY.fullmatch(said):
            if int(every.group(1)):
                repeat |= {
                    "frequency": 1,
                    "period": int(every.group(1)),
                    "periodUnit": _UNITS[every.group(2)],
                }
        elif said in _TIMES_A_DAY:
            repeat |= {"frequency": _TIMES_A_DAY[said], "period": 1, "periodUnit": "d"}
    if repeat:
        made["repeat"] = repeat
    return made


# ------------------------------------------------------------------------- dispensed, administered


def _performer(value: Value, scene: Scene) -> Json | None:
    actor = xcn(value, scene)
    return {"actor": actor} if actor else None


def _number(value: Value, scene: Scene) -> Json | None:
    return {"system": scene.facility, "value": value[1]} if value[1] else None


DISPENSE = Table(
    "MedicationDispense",
    "RXD",
    [
        Row("RXD-2", "medicationCodeableConcept", _medication),
        Row("RXD-3", "whenHandedOver", date_time),
        Row("RXD-7", "identifier[+]", _number),
        Row("RXD-10*", "performer[]", _performer),
    ],
)
ADMINISTRATION = Table(
    "MedicationAdministration",
    "RXA",
    [
        Row("RXA-5", "medicationCodeableConcept", _medication),
        Row("RXA-10*", "performer[]", _performer),
        Row("RXA-18*", "statusReason*", cwe),
        Row("RXA-19*", "reasonCode*", cwe),
    ],
)


def dispensed(rxd: Segment, scene: Scene) -> dict[str, Any]:
    """Return the places of a MedicationDispense."""
    places = DISPENSE.apply(rxd, scene).set
    if made := _amount(rxd, 4, 5, scene):
        places["quantity"] = made
    return places


# RXA-20 (table 0322) -> MedicationAdministration.status
_COMPLETION = {"CP": "completed", "PA": "completed", "RE": "not-done", "NA": "not-done"}


def administered(rxa: Segment, routes: list[Segment], scene: Scene) -> dict[str, Any]:
    """Return the places of a MedicationAdministration."""
    places = ADMINISTRATION.apply(rxa, scene).set
    start, end = rxa.value(3), rxa.value(4)
    scene.at(rxa, 3)
    valid = span(date_time(start, scene) if start else None, date_time(end, scene) if end else None)
    if valid and "end" in valid and valid["end"] != valid.get("start"):
        places["effectivePeriod"] = valid
    elif valid:
        places["effectiveDateTime"] = valid.get("start") or valid["end"]
    dosage = administration(routes[0], scene) if routes else {}
    number = decimal_of(rxa.text(6)) if rxa.text(6) != "999" else None
    unit = rxa.value(7)
    scene.at(rxa, 7)
    if number is not None:
        dosage["dose"] = quantity(number, unit_of(unit, scene))
    if dosage:
        places["dosage"] = dosage
    said = rxa.text(20).upper()
    places["status"] = _COMPLETION.get(said, "unknown" if said else "completed")
    if rxa.text(21).upper() == "D":
        places["status"] = "entered-in-error"
    return places
