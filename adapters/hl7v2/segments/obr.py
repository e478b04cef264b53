"""ORC and OBR to ServiceRequest; OBR to DiagnosticReport.

HL7 v2.5.1, 4.5.1 and 4.5.3; design/hl7v2.md, sections 12 and 13.
"""

from typing import Any

from adapters.hl7v2.codes import alternate, coding, concept, cwe
from adapters.hl7v2.datatypes import date_time, ei, ei_of, instant, span, xtn
from adapters.hl7v2.groups import OrderGroup
from adapters.hl7v2.message import Segment, Value
from adapters.hl7v2.quantities import composite
from adapters.hl7v2.references import ndl, xcn, xon
from adapters.hl7v2.rows import Filled, Row, Table
from adapters.hl7v2.scene import Scene
from adapters.hl7v2.vocabulary import V2_SYSTEM, target

Json = dict[str, Any]

BUSINESS_EVENT = "http://hl7.org/fhir/StructureDefinition/businessEvent"
STATUS_REASON = "http://hl7.org/fhir/StructureDefinition/request-statusReason"
SUPPORTING = "http://hl7.org/fhir/5.0/StructureDefinition/extension-ServiceRequest.supportingInfo"
CALLBACK = "http://hl7.org/fhir/StructureDefinition/servicerequest-order-callback-phone-number"
OBSERVATION_CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"


def _reasons(value: Value, scene: Scene) -> Json | None:
    return cwe(value, scene)


def _supporting(value: Value, scene: Scene) -> list[Json] | None:
    made = cwe(value, scene)
    return [{"url": "concept", "valueCodeableConcept": made}] if made else None


def priority_of(text: str) -> str | None:
    """Return what a priority of table 0485 is in FHIR; ``TM30`` and the like are timed."""
    image = target("ExtendedPriorityCodes", text) if text else None
    if image:
        return image.code
    timed = text[:1] == "T" and text[1:2] in tuple("SMHDWL") and text[2:].isdecimal()
    return "urgent" if timed else None


def _priority(value: Value, scene: Scene) -> str | None:
    return priority_of(value[1])


def _callback(value: Value, scene: Scene) -> Json | None:
    points = xtn()(value, scene)
    return points[0] if points else None


def _intent(value: Value, scene: Scene) -> str | None:
    return "reflex-order" if value[1].upper() == "G" else None


ORDER = Table(
    "ServiceRequest",
    "OBR",
    [
        Row("OBR-2", "identifier[+]", ei("PLAC")),
        Row("OBR-3", "identifier[+]", ei("FILL")),
        Row("OBR-4", "code", concept()),
        Row("OBR-5", "priority", _priority),
        Row("OBR-6", "occurrenceDateTime", date_time),
        Row("OBR-11", "intent", _intent),
        Row("OBR-13", f"extension[{SUPPORTING}]", _supporting, "extension"),
        Row("OBR-16*", "_requester*", xcn),
        Row("OBR-17", f"extension[{CALLBACK}]", _callback, "valueContactPoint"),
        Row("OBR-24", "category*", concept("DiagnosticServiceSectionID", "0074")),
        Row("OBR-31*", "reasonCode*", _reasons),
        Row("OBR-46*", "orderDetail[]", cwe),
        Row("OBR-47*", "orderDetail[]", cwe),
        Row("OBR-53*", "identifier[+]", ei("PLAC")),
    ],
)


def _requisition(value: Value, scene: Scene) -> Json | None:
    return ei_of(value if value[1] and not value.sub(1, 2) else value.subs(1), scene, "PGN")


def _security(value: Value, scene: Scene) -> list[Json] | None:
    image = target("ConfidentialityCode", value[1])
    return [coding(image.code, image.display, image.system)] if image else None


CONTROL = Table(
    "ServiceRequest",
    "ORC",
    [
        Row("ORC-2", "identifier[+]", ei("PLAC")),
        Row("ORC-3", "identifier[+]", ei("FILL")),
        Row("ORC-4", "requisition", _requisition),
        Row("ORC-12*", "_requester*", xcn),
        Row("ORC-14", f"extension[{CALLBACK}]", _callback, "valueContactPoint"),
        Row("ORC-16", f"extension[{STATUS_REASON}]", cwe, "valueCodeableConcept",
            when=lambda segment, scene: not segment.valued(5)),
        Row("ORC-21", "_organization", xon),
        Row("ORC-28", "meta.security*", _security),
        Row("ORC-29", "locationCode*", concept("OrderType", "0482")),
        Row("ORC-33*", "identifier[+]", ei("PLAC")),
    ],
)  # fmt: skip


def ordered(order: OrderGroup, scene: Scene) -> Filled:
    """Return what an order says of its ServiceRequest."""
    filled = Filled({}, set())
    if order.obr:
        ORDER.apply(order.obr, scene, filled)
    places = filled.set
    requesters = places.pop("_requester", None)
    if order.orc:
        said = CONTROL.apply(order.orc, scene)
        control = said.set
        filled.remove |= said.remove
        requesters = control.pop("_requester", None) or requesters
        organization = control.pop("_organization", None)
        requesters = requesters or ([organization] if organization else None)
        numbers = [*control.pop("identifier[+]", []), *places.get("identifier[+]", [])]
        places.update(control)
        if numbers:
            places["identifier[+]"] = _once(numbers)
        _business_event(order.orc, places, scene)
    if requesters:
        places["requester"] = requesters[0]
    _times(order, places, scene)
    if filled.remove & {"_requester", "_organization"}:
        filled.remove.add("requester")
    return filled


def _once(numbers: list[Json]) -> list[Json]:
    """Return one identifier of each type: ORC and OBR say the same number twice."""
    found: dict[tuple[str, ...], Json] = {}
    for one in numbers:
        kind = one.get("type", {}).get("coding", [{}])[0].get("code", "")
        found.setdefault((kind, one["value"]), one)
    return list(found.values())


def _business_event(orc: Segment, places: dict[str, Any], scene: Scene) -> None:
    control = orc.value(1)
    if control is None:
        return
    parts: list[Json] = [
        {
            "url": "code",
            "valueCodeableConcept": {"coding": [coding(control[1], "", V2_SYSTEM + "0119")]},
        }
    ]
    when = orc.value(9)
    scene.at(orc, 9)
    if when and (made := date_time(when, scene)):
        parts.append({"url": "date", "valueDateTime": made})
        if control[1].upper() == "NW":
            places["authoredOn"] = made
    places[f"extension[{BUSINESS_EVENT}]"] = [{"url": BUSINESS_EVENT, "extension": parts}]


def _times(order: OrderGroup, places: dict[str, Any], scene: Scene) -> None:
    """Take priority and times from OBR-27, ORC-7 and TQ1: the last one that says it counts."""
    for segment, field in ((order.obr, 27), (order.orc, 7)):
        value = segment.value(field) if segment else None
        if segment and value:
            scene.at(segment, field)
            _take_time(places, value.subs(4), value.subs(5), value[6], scene)
    for timing in order.timings:
        start, end, quantity = timing.value(7), timing.value(8), timing.value(2)
        scene.at(timing, 7)
        _take_time(places, start, end, timing.text(9), scene)
        if quantity and (made := composite(quantity, scene)):
            places["quantityQuantity"] = made


def _take_time(
    places: dict[str, Any], start: Value | None, end: Value | None, priority: str, scene: Scene
) -> None:
    if found := priority_of(priority):
        places["priority"] = found
    valid = span(date_time(start, scene) if start else None, date_time(end, scene) if end else None)
    if not valid:
        return
    places.pop("occurrenceDateTime", None)
    places.pop("occurrencePeriod", None)
    if "end" in valid:
        places["occurrencePeriod"] = valid
    else:
        places["occurrenceDateTime"] = valid["start"]


def order_status(order: OrderGroup, scene: Scene) -> dict[str, Any]:
    """Return status, and what is beside it, by ORC-5, else ORC-1; {} if neither says it."""
    orc = order.orc
    if orc is None:
        return {}
    for field, map, table in (
        (5, "OrderStatus", "0038"),
        (1, "OrderControlCode[ServiceRequest.status]", "0119"),
    ):
        value = orc.value(field)
        scene.at(orc, field)
        if value is None or not value[1]:
            continue
        if field == 1 and value[1].upper() in ("SC", "RE", "NA", "SN"):
            return {}  # they change status only where ORC-5 says so
        image = target(map, value[1])
        if image is None:
            scene.note("code-unknown", "This order status has no image in FHIR.")
            kept = {"extension": [alternate(value, scene, table)]}
            return {"status": "unknown", "_status": kept}
        return {"status": image.code}
    return {}


# ---------------------------------------------------------------------------------------- reports

REPORT = Table(
    "DiagnosticReport",
    "OBR",
    [
        Row("OBR-2", "identifier[+]", ei("PLAC")),
        Row("OBR-3", "identifier[+]", ei("FILL")),
        Row("OBR-4", "code", concept()),
        Row("OBR-22", "issued", instant),
        Row("OBR-24", "category*", concept("DiagnosticServiceSectionID", "0074")),
        Row("OBR-32*", "resultsInterpreter[]", ndl),
        Row("OBR-33*", "resultsInterpreter[]", ndl),
        Row("OBR-34*", "performer[]", ndl),
    ],
)


def reported(order: OrderGroup, scene: Scene) -> dict[str, Any]:
    """Return the places of the DiagnosticReport of an OBR, all but its results."""
    obr = order.obr
    assert obr is not None
    places = REPORT.apply(obr, scene).set
    if order.orc:
        numbers = places.get("identifier[+]", [])
        for field, kind in ((2, "PLAC"), (3, "FILL")):
            value = order.orc.value(field)
            scene.at(order.orc, field)
            made = ei_of(value, scene, kind) if value else None
            if made:
                numbers = [*numbers, made]
        if numbers:
            places["identifier[+]"] = _once(numbers)
    start, end = _time(obr, 7, scene), _time(obr, 8, scene)
    valid = span(start, end)
    if valid and "end" in valid and "start" in valid and valid["end"] != valid["start"]:
        places["effectivePeriod"] = valid
    elif valid:
        places["effectiveDateTime"] = valid.get("start") or valid["end"]
    places.update(_report_status(obr, scene))
    return places


def _time(segment: Segment, field: int, scene: Scene) -> str | None:
    value = segment.value(field)
    scene.at(segment, field)
    return date_time(value, scene) if value else None


def _report_status(obr: Segment, scene: Scene) -> dict[str, Any]:
    value = obr.value(25)
    scene.at(obr, 25)
    if value is None:
        return {"status": "unknown"}
    image = target("ResultStatus[Non-Queries]", value[1])
    if image is None or value[1].upper() in "AMNYZIS":
        if image is None:
            scene.note("code-unknown", "This result status is not of table 0123.")
        kept = {"extension": [alternate(value, scene, "0123")]}
        return {"status": image.code if image else "unknown", "_status": kept}
    return {"status": image.code}


# OBR-24 (table 0074) -> category of observations.
_CATEGORIES = {
    **dict.fromkeys(
        "LAB AU BG BLB CG CH CP HM ICU IMM MB MCB MYC SP SR TX VR".split(),
        "laboratory",
    ),
    **dict.fromkeys("RAD CT NMR MR RUS CUS VUS NMS XRC RX US OUS".split(), "imaging"),
    **dict.fromkeys("EC EN PF PHR PT OT RT CTH".split(), "procedure"),
    "NRS": "exam", "PHY": "exam", "VS": "vital-signs",
}  # fmt: skip
VITAL_SIGNS = frozenset(
    "85353-1 9279-1 8867-4 2708-6 8310-5 8302-2 9843-4 29463-7 39156-5 85354-9 8480-6 8462-4 "
    "8478-0 59408-5".split()
)


def observation_category(section: str, code: Json | None) -> list[Json]:
    """Return Observation.category by OBR-24, or vital signs by the code; [] if neither says it."""
    for one in (code or {}).get("coding", ()):
        if one.get("system") == "http://loinc.org" and one["code"] in VITAL_SIGNS:
            return [_category("vital-signs")]
    name = _CATEGORIES.get(section.upper())
    return [_category(name)] if name else []


def _category(name: str) -> Json:
    return {"coding": [{"system": OBSERVATION_CATEGORY, "code": name}]}
