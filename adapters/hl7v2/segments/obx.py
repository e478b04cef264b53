"""OBX to Observation: value, status, reference range, interpretation.

HL7 v2.5.1, 7.4.2; design/hl7v2.md, section 14.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from adapters.hl7v2.attachments import attachment, encapsulated, pointed
from adapters.hl7v2.codes import alternate, coding, codings, concept, concept_of, cwe
from adapters.hl7v2.datatypes import date_time, ei_of, period
from adapters.hl7v2.message import Segment, Value
from adapters.hl7v2.quantities import (
    composite,
    number_of,
    number_range,
    quantity,
    reference_range,
    structured,
    unit_of,
)
from adapters.hl7v2.references import cwe_organization, xcn, xon
from adapters.hl7v2.scene import Scene
from adapters.hl7v2.times import clock
from adapters.hl7v2.vocabulary import V2_SYSTEM, target

Json = dict[str, Any]

VALUE_ATTACHMENT = (
    "http://hl7.org/fhir/5.0/StructureDefinition/extension-Observation.valueAttachment"
)
ANALYSIS_TIME = "http://hl7.org/fhir/StructureDefinition/observation-analysis-date-time"
NATURE = "http://hl7.org/fhir/StructureDefinition/observation-nature-of-abnormal-test"
ABSENT = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
INTERPRETATION = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"

_STATUSES = "ObservationResultStatusCodesInterpretation"
# OBX-11 -> whether the status is its exact image; else the v2 code is kept beside it.
EXACT = frozenset("ACDFPX")
WRONG = frozenset("DW")
SILENT = frozenset("UV")  # they say nothing of the value


@dataclass(frozen=True, slots=True)
class Result:
    """An OBX read: the places of its Observation, and an attachment if it has one.

    ``status`` is OBX-11; ``text`` is what a line of a text report says.
    """

    places: dict[str, Any]
    status: str
    attachment: Json | None = None
    text: str | None = None


# ----------------------------------------------------------------------------------------- values

_Made = tuple[str, Any]


def _number(value: Value, unit: Json, scene: Scene) -> _Made:
    found = number_of(value.text, comma=scene.profile.decimal_comma)
    if found is None:
        scene.note("nm-not-numeric", "The value type says number, and this is none.")
        return "String", value.text.strip()
    return "Quantity", quantity(found[1], unit, found[0])


def _structured(value: Value, unit: Json, scene: Scene) -> _Made:
    return structured(value, unit)


def _text(value: Value, unit: Json, scene: Scene) -> _Made:
    return "String", value.text


def _coded(value: Value, unit: Json, scene: Scene) -> _Made:
    made = concept_of(value, scene, codings(value, scene))
    return ("CodeableConcept", made) if made else ("String", value.readable())


def _time(value: Value, unit: Json, scene: Scene) -> _Made:
    made = date_time(value, scene)
    return ("DateTime", made) if made else ("String", value.text)


def _clock(value: Value, unit: Json, scene: Scene) -> _Made:
    made = clock(value[1])
    return ("Time", made) if made else ("String", value.text)


def _period(value: Value, unit: Json, scene: Scene) -> _Made:
    made = period(value, scene)
    return ("Period", made) if made else ("String", value.readable())


def _range(value: Value, unit: Json, scene: Scene) -> _Made:
    made = number_range(value, unit)
    return ("Range", made) if made else ("String", value.readable())


def _span(value: Value, unit: Json, scene: Scene) -> _Made:
    return "String", "-".join(part for part in (value[1], value[2]) if part)


def _composite(value: Value, unit: Json, scene: Scene) -> _Made:
    made = composite(value, scene)
    return ("Quantity", {**unit, **made}) if made else ("String", value.readable())


def _money(value: Value, unit: Json, scene: Scene) -> _Made:
    found = number_of(value[1])
    if found is None:
        return "String", value.readable()
    return "Quantity", quantity(found[1], {"unit": value[2]} if value[2] else unit, found[0])


def _readable(value: Value, unit: Json, scene: Scene) -> _Made:
    return "String", value.readable()


_VALUES: dict[str, Callable[[Value, Json, Scene], _Made]] = {
    "NM": _number, "SN": _structured, "ST": _text, "TX": _text, "FT": _text,
    "CE": _coded, "CWE": _coded, "CNE": _coded, "CF": _coded, "IS": _coded, "ID": _coded,
    "DT": _time, "DTM": _time, "TS": _time, "TM": _clock, "DR": _period, "NR": _range,
    "VR": _span, "CQ": _composite, "MO": _money,
}  # fmt: skip
_TEXTS = frozenset(("ST", "TX", "FT"))
_CODES = frozenset(("CE", "CWE", "CNE", "CF", "IS", "ID"))


def _value_places(obx: Segment, type: str, unit: Json, scene: Scene) -> dict[str, Any]:
    """Return the place of the value, and of what further repetitions say."""
    values = obx.values(5)
    scene.at(obx, 5)
    if not values:
        return {}
    if not type:
        scene.note("obx-2-missing", "The value has no type.")
        type = "NM" if len(values) == 1 and number_of(values[0].text) else "ST"
    convert = _VALUES.get(type, _readable)
    if len(values) == 1:
        kind, made = convert(values[0], unit, scene)
        return _placed(kind, made)
    if type in _TEXTS:
        return _placed("String", "\n".join(value.text for value in values))
    if type in _CODES:
        return _several_codes(values, obx, scene)
    scene.note("obx-repeated", "The value repeats: kept as text.")
    return _placed("String", "\n".join(value.readable() for value in values))


def _placed(kind: str, made: Any) -> dict[str, Any]:
    if isinstance(made, str) and not made.strip():
        return {}
    return {f"value{kind}": made}


def _several_codes(values: list[Value], obx: Segment, scene: Scene) -> dict[str, Any]:
    made = [cwe(value, scene) or {"text": value.readable()} for value in values]
    question = obx.value(3)
    asked = (concept_of(question, scene, codings(question, scene)) if question else None) or {
        "text": "value"
    }
    return {
        "valueCodeableConcept": made[0],
        "component": [{"code": asked, "valueCodeableConcept": one} for one in made[1:]],
    }


# ------------------------------------------------------------------------------------- the rest


def status_places(obx: Segment, report_status: str, scene: Scene) -> dict[str, Any]:
    """Return status, and the v2 code beside it where the status is not its exact image."""
    said = obx.text(11).upper()
    if said in EXACT and (image := target(_STATUSES, said)):
        return {"status": image.code}
    value = obx.value(11)
    scene.at(obx, 11)
    if not said:
        image = target(_STATUSES, report_status)
        return {"status": image.code if image else "unknown"}
    image = target(_STATUSES, said)
    if image is None:
        scene.note("code-unknown", "This result status is not of table 0085.")
        scene.codes["OBX-11", V2_SYSTEM + "0085", said] += 1
    places: dict[str, Any] = {"status": image.code if image else "unknown"}
    if said not in EXACT and value:
        places["_status"] = {"extension": [alternate(value, scene, "0085")]}
    return places


def interpretations(obx: Segment, scene: Scene) -> list[Json]:
    """Return OBX-8, every repetition; a local flag keeps its own system or none."""
    found = []
    for value in obx.values(8):
        scene.at(obx, 8)
        key = (interpretations, value.raw)
        if key in scene.memo:
            found.append(scene.memo[key])
            continue
        image = target("InterpretationCodes", value[1])
        if image:
            made: Json = {"coding": [coding(image.code, image.display, image.system)]}
            if value[2] and value[2] != image.display:
                made["text"] = value[2]
            scene.memo[key] = made
        else:
            local = cwe(value, scene) or {"text": value.readable()}
            local.setdefault("text", value[1] or value.readable())
            if not local["text"]:
                continue
            scene.codes["OBX-8", V2_SYSTEM + "0078", value[1]] += 1
            made = local
        found.append(made)
    return found


def _performers(obx: Segment, scene: Scene) -> list[Json]:
    found: list[Json] = []
    fields = obx.fields
    for field, convert in ((15, cwe_organization), (16, xcn), (23, xon), (25, xcn)):
        if field >= len(fields) or not fields[field]:
            continue
        scene.at(obx, field)
        for value in obx.values(field):
            made = convert(value, scene)
            if made and made not in found:
                found.append(made)
    return found


def read(obx: Segment, report_status: str, scene: Scene) -> Result:
    """Return what an OBX says. ``report_status`` is OBR-25, for an OBX without OBX-11."""
    places: dict[str, Any] = status_places(obx, report_status, scene)
    said = obx.text(11).upper()
    type = obx.text(2).upper()
    question = obx.value(3)
    scene.at(obx, 3)
    if question and (asked := concept()(question, scene)):
        places["code"] = asked
    attached, text = None, None
    unit = unit_of(obx.value(6), scene)
    if said in ("X", "N"):
        obx.raw(5)
        reason = "not-asked" if said == "N" else "not-performed"
        places["dataAbsentReason"] = {"coding": [{"system": ABSENT, "code": reason}]}
    elif type in ("ED", "RP"):
        attached = _attached(obx, type, scene)
        if attached:
            places[f"extension[{VALUE_ATTACHMENT}]"] = [
                {"url": VALUE_ATTACHMENT, "valueAttachment": attached}
            ]
        elif type == "RP" and (pointers := obx.values(5)):
            places["valueString"] = "\n".join(pointer.readable() for pointer in pointers)
    else:
        places.update(_value_places(obx, type, unit, scene))
        if type in ("TX", "FT"):
            text = str(places.get("valueString", ""))
    if len(obx.fields) > 7 and obx.fields[7] and (found := reference_range(obx, unit)):
        places["referenceRange"] = [found]
    if flags := interpretations(obx, scene):
        places["interpretation"] = flags
    _times_and_means(obx, places, scene)
    return Result(places, said, attached, text)


def _attached(obx: Segment, type: str, scene: Scene) -> Json | None:
    value = obx.value(5)
    scene.at(obx, 5)
    if value is None:
        return None
    if type == "RP":
        return pointed(value, scene)
    found = encapsulated(value, scene)
    question = obx.value(3)
    return attachment(*found, question[2] if question else "") if found else None


def _times_and_means(obx: Segment, places: dict[str, Any], scene: Scene) -> None:
    """Add time, performers, method, device, body site, identifier: few OBX have them."""
    fields = len(obx.fields)
    if fields > 14 and obx.fields[14] and (value := obx.value(14)):
        scene.at(obx, 14)
        if when := date_time(value, scene):
            places["effectiveDateTime"] = when
    if fields > 15 and (performers := _performers(obx, scene)):
        places["performer"] = performers
    if fields > 10 and obx.fields[10] and (value := obx.value(10)):
        scene.at(obx, 10)
        if nature := concept("NatureOfAbnormalTesting", "0080")(value, scene):
            places[f"extension[{NATURE}]"] = [{"url": NATURE, "valueCodeableConcept": nature}]
    if fields <= 17:
        return
    if value := obx.value(17):
        scene.at(obx, 17)
        places["method"] = cwe(value, scene)
    if (value := obx.value(18)) and (device := ei_of(value, scene)):
        places["device"] = {"type": "Device", "identifier": device, "display": value[1]}
    if (value := obx.value(19)) and (when := date_time(value, scene)):
        places[f"extension[{ANALYSIS_TIME}]"] = [{"url": ANALYSIS_TIME, "valueDateTime": when}]
    if value := obx.value(20):
        scene.at(obx, 20)
        places["bodySite"] = concept("BodySite", "0163")(value, scene)
    if (value := obx.value(21)) and (number := ei_of(value, scene)):
        places["identifier[+]"] = [number]


# The elements that one REPLACE of an Observation speaks for.
OWNED = frozenset(
    (
        "status", "_status", "code", "valueQuantity", "valueCodeableConcept", "valueString",
        "valueRange", "valueRatio", "valueTime", "valueDateTime", "valuePeriod", "component",
        "dataAbsentReason", "interpretation", "referenceRange", "effectiveDateTime", "performer",
        "method", "device", "bodySite", "note", "specimen", f"extension[{VALUE_ATTACHMENT}]",
        f"extension[{ANALYSIS_TIME}]", f"extension[{NATURE}]",
    )
)  # fmt: skip
VALUES = frozenset(
    place
    for place in OWNED
    if place.startswith("value")
    or place in ("component", "dataAbsentReason", "referenceRange", "interpretation")
)
