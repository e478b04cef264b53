"""VXU: RXA, RXR and ORC to Immunization.

HL7 v2.5.1, chapter 4A; design/hl7v2.md, sections 12 and 13.
"""

from typing import Any

from adapters.hl7v2.changes import Key, Mode
from adapters.hl7v2.codes import code, coding, concept, cwe
from adapters.hl7v2.datatypes import date, date_time, ei, ei_of, text
from adapters.hl7v2.draft import Draft, Patient, concept_key, reference, system_value
from adapters.hl7v2.groups import GiveGroup, OrderGroup, PatientGroup
from adapters.hl7v2.issues import MessageFault
from adapters.hl7v2.message import Segment, Value
from adapters.hl7v2.messages.clinical import lists
from adapters.hl7v2.messages.observations import Parent, observations
from adapters.hl7v2.messages.orders import service_request
from adapters.hl7v2.messages.patient import patient_change, visit_in_passing
from adapters.hl7v2.quantities import decimal_of, quantity, unit_of
from adapters.hl7v2.references import cwe_organization, pl, xcn
from adapters.hl7v2.rows import Filled, Row, Table
from adapters.hl7v2.scene import Scene
from adapters.hl7v2.segments.nte import annotations
from adapters.hl7v2.vocabulary import V2_SYSTEM

Json = dict[str, Any]

NOT_ADMINISTERED = "998"
FUNDING, ELIGIBILITY = "30963-3", "64994-7"
PUBLISHED, PRESENTED = "29768-9", "29769-7"
DOCUMENTS = frozenset(("30956-7", "69764-9"))


def performer(function: str, display: str) -> Any:
    """Return a converter of XCN to a performer with a function of table 0443."""
    kind = {"coding": [coding(function, display, V2_SYSTEM + "0443")]}

    def convert(value: Value, scene: Scene) -> Json | None:
        actor = xcn(value, scene)
        return {"function": kind, "actor": actor} if actor else None

    return convert


def _location(value: Value, scene: Scene) -> Json | None:
    return pl(value, scene)


VACCINATION = Table(
    "Immunization",
    "RXA",
    [
        Row("RXA-3", "occurrenceDateTime", date_time),
        Row("RXA-5", "vaccineCode", concept("", "0292")),
        Row("RXA-10*", "performer[]", performer("AP", "Administering Provider")),
        Row("RXA-11", "location", _location),
        Row("RXA-27", "location", _location, unless="RXA-11"),
        Row("RXA-15", "lotNumber", text),
        Row("RXA-16", "expirationDate", date),
        Row("RXA-17", "manufacturer", cwe_organization),
        Row("RXA-18", "statusReason", cwe),
        Row("RXA-19*", "reasonCode*", cwe),
        Row("RXA-20", "status", code("CompletionStatus", "completed", "0322")),
        Row("RXA-22", "recorded", date_time),
    ],
)
ORDERED = Table(
    "Immunization",
    "ORC",
    [
        Row("ORC-2", "identifier[+]", ei("PLAC")),
        Row("ORC-3", "identifier[+]", ei("FILL")),
        Row("ORC-9", "recorded", date_time),
        Row("ORC-12*", "performer[]", performer("OP", "Ordering Provider")),
    ],
)
OWNED = VACCINATION.owned | {
    "performer[orc-12]", "doseQuantity", "primarySource", "reportOrigin", "route", "site", "note",
    "fundingSource", "programEligibility", "education",
}  # fmt: skip


def vaccination(draft: Draft, event: str) -> None:
    """Draft what a VXU asks."""
    if not draft.groups.patients:
        raise MessageFault(100, "PID", "The message has no patient (PID).")
    for group in draft.groups.patients:
        patient = patient_change(draft, group)
        visit_in_passing(draft, group, patient)
        lists(draft, group, patient)
        for order in group.orders:
            _order(draft, group, order, patient)


def _order(draft: Draft, group: PatientGroup, order: OrderGroup, patient: Patient) -> None:
    for give in order.gives:
        if give.segment.name == "RXA":
            _vaccination(draft, order, give, patient)
    if order.obr is not None:
        request = service_request(draft, order, patient, Mode.FILL)
        observations(draft, order.obxs, Parent(request, patient, orders=request))
    elif order.obxs:
        observations(draft, order.obxs, Parent(patient.handle, patient))


def _vaccination(draft: Draft, order: OrderGroup, give: GiveGroup, patient: Patient) -> None:
    scene, rxa = draft.scene, give.segment
    if rxa.text(5) == NOT_ADMINISTERED:
        rxa.read.update(range(len(rxa.fields)))
        observations(draft, give.obxs, Parent(patient.handle, patient))
        return
    places = VACCINATION.apply(rxa, scene).set
    if order.orc:
        for place, value in ORDERED.apply(order.orc, scene).set.items():
            places.setdefault(place, value)
    _dose(rxa, places, scene)
    _source(rxa, places, scene)
    for route in give.routes[:1]:
        for field, place, map, table in (
            (1, "route", "RouteOfAdministration", "0162"),
            (2, "site", "BodySite", "0163"),
        ):
            value = route.value(field)
            scene.at(route, field)
            if value:
                places[place] = concept(map, table)(value, scene)
    if rxa.text(21).upper() == "D":
        places["status"] = "entered-in-error"
    if notes := annotations(give.notes, scene):
        places["note"] = notes
    places["patient"] = reference(patient.handle)
    if patient.encounter:
        places["encounter"] = reference(patient.encounter)
    _guided(give, places, scene)
    if "occurrenceDateTime" not in places:
        places["occurrenceString"] = "unknown"
    vaccine = concept_key(places.get("vaccineCode"))
    handle = draft.add(
        "Immunization",
        _key(draft, order, patient, rxa, vaccine),
        Mode.REPLACE,
        Filled(places, set()),
        rxa,
        owned=OWNED,
        defaults={"status": "completed", "vaccineCode": {"text": "unknown"}},
        subject=patient.handle,
    )
    parent = Parent(handle, patient, part_of=handle)
    observations(draft, give.obxs, parent)


def _key(draft: Draft, order: OrderGroup, patient: Patient, rxa: Segment, vaccine: str) -> Key:
    value = order.orc.value(3) if order.orc else None
    number = ei_of(value, draft.scene, "FILL") if value else None
    if number:
        system, text = system_value(number)
        return Key(system, (text, vaccine, *draft.nth("vaccine", system, text, vaccine)))
    parts = (patient.handle, vaccine, rxa.text(3))
    return Key("vaccine", (*parts, *draft.nth("vaccine", *parts)))


def _dose(rxa: Segment, places: dict[str, Any], scene: Scene) -> None:
    amount = rxa.text(6)
    unit = rxa.value(7)
    scene.at(rxa, 7)
    number = decimal_of(amount) if amount != "999" else None
    if number is not None:
        places["doseQuantity"] = quantity(number, unit_of(unit, scene))


def _source(rxa: Segment, places: dict[str, Any], scene: Scene) -> None:
    for value in rxa.values(9):
        scene.at(rxa, 9)
        if not value[1]:
            if said := value.readable():
                places.setdefault("note", []).append({"text": said})
        elif value[1] == "00":
            places["primarySource"] = True
        else:
            places["primarySource"] = False
            places["reportOrigin"] = cwe(value, scene)
        return


def _guided(give: GiveGroup, places: dict[str, Any], scene: Scene) -> None:
    """Fill funding, eligibility and education from the OBX of the immunization guides."""
    education: dict[str, Json] = {}
    for group in give.obxs:
        obx = group.obx
        asked, value = obx.text(3), obx.value(5)
        scene.at(obx, 5)
        if value is None:
            continue
        if asked == FUNDING:
            places["fundingSource"] = cwe(value, scene)
        elif asked == ELIGIBILITY:
            places["programEligibility"] = [cwe(value, scene) or {"text": value.readable()}]
        elif asked in DOCUMENTS:
            found = value[2] or value[1] or value.readable()
            education.setdefault(obx.text(4), {})["documentType"] = found
        elif asked in (PUBLISHED, PRESENTED) and (when := date_time(value, scene)):
            name = "publicationDate" if asked == PUBLISHED else "presentationDate"
            education.setdefault(obx.text(4), {})[name] = when
    if education:
        places["education"] = [{"documentType": "unknown", **one} for one in education.values()]
