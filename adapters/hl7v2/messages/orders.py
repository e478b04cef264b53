"""Orders and results: ServiceRequest, DiagnosticReport, Specimen, Observation of an order group.

HL7 v2.5.1, chapters 4 and 7; design/hl7v2.md, sections 9, 12 to 14.
"""

from dataclasses import replace
from typing import Any

from adapters.hl7v2.changes import HANDLE, Key, Mode
from adapters.hl7v2.datatypes import ei_of
from adapters.hl7v2.draft import (
    Draft,
    Patient,
    concept_key,
    concept_keys,
    reference,
    system_value,
    unsigned,
)
from adapters.hl7v2.groups import OrderGroup, PatientGroup, SpecimenGroup
from adapters.hl7v2.message import Segment
from adapters.hl7v2.messages.observations import Parent, observations
from adapters.hl7v2.rows import Filled
from adapters.hl7v2.scene import stamped
from adapters.hl7v2.segments import spm as specimens
from adapters.hl7v2.segments.nte import annotations
from adapters.hl7v2.segments.obr import order_status, ordered, reported
from adapters.hl7v2.segments.spm import number_of, specimen, specimen_of_order

Json = dict[str, Any]

REPORT_NOTE = "http://hl7.org/fhir/5.0/StructureDefinition/extension-DiagnosticReport.note"
# ORC-1 of an order that others in the message are about -> ORC-1 of those, and how they name it.
HEADS = {"RP": ("RO", "replaces"), "RU": ("RO", "replaces"), "PA": ("CH", "basedOn")}


def results(draft: Draft, group: PatientGroup, patient: Patient) -> None:
    """Draft what result messages (ORU, OUL) bring: reports, results, specimens, orders behind."""
    led = {id(one): specimen_change(draft, one, patient) for one in group.specimens}
    for one in group.specimens:
        _specimen_results(draft, one, patient, led[id(one)])
    for order in group.orders:
        if order.obr is None:
            _order_results(draft, order, patient, led)
            continue
        request = service_request(draft, order, patient, Mode.FILL)
        found = _specimens(draft, order, patient, led)
        _report(draft, order, patient, request, found)


def orders(draft: Draft, group: PatientGroup, patient: Patient) -> None:
    """Draft what order messages (ORM, OML, OMG) bring of services."""
    led = {id(one): specimen_change(draft, one, patient) for one in group.specimens}
    for one in group.specimens:
        _specimen_results(draft, one, patient, led[id(one)])
    head = ("", "", "")
    for order in group.orders:
        if order.obr is None:
            if not order.has_detail:
                _order_results(draft, order, patient, led)
            continue
        request = service_request(draft, order, patient, Mode.MERGE)
        head = _follow_head(draft, order, request, head)
        found = _specimens(draft, order, patient, led)
        section = order.obr.text(24)
        parent = Parent(request, patient, section=section, orders=request, specimens=found)
        asked = observations(draft, order.obxs, parent)
        places: dict[str, Any] = {}
        if found:
            places["specimen[+]"] = [reference(one) for one in found]
        if asked.handles:
            places["supportingInfo[+]"] = [reference(one) for one in asked.handles]
        if places:
            _add_to(draft, request, places)


def _follow_head(
    draft: Draft, order: OrderGroup, request: str, head: tuple[str, str, str]
) -> tuple[str, str, str]:
    """Link a replacing order to the replaced one, a child to its parent; return the head now.

    A head is the ORC-1 of those that follow it, the element they name it in, and its handle.
    """
    control = order.orc.text(1).upper() if order.orc else ""
    if control in HEADS:
        return (*HEADS[control], request)
    follower, element, handle = head
    if control and control == follower:
        _add_to(draft, request, {element: [reference(handle)]})
    return head


def _add_to(draft: Draft, handle: str, places: dict[str, Any]) -> None:
    """Set further places of a change that is drafted already."""
    at = int(handle.removeprefix(HANDLE))
    change = draft.changes[at]
    draft.changes[at] = replace(change, set={**change.set, **places})


# --------------------------------------------------------------------------------- the order


def numbers_of(order: OrderGroup, draft: Draft) -> dict[str, Json]:
    """Return the placer's and the filler's number of an order: PLAC and FILL."""
    found: dict[str, Json] = {}
    for kind, field in (("PLAC", 2), ("FILL", 3)):
        for segment in (order.obr, order.orc):
            value = segment.value(field) if segment else None
            if segment and value and kind not in found:
                draft.scene.at(segment, field)
                if made := ei_of(value, draft.scene, kind):
                    found[kind] = made
    return found


def order_key(
    draft: Draft, order: OrderGroup, patient: Patient, codes: tuple[str, ...], what: str, when: str
) -> Key:
    """Return how the request of an order is found: a number of it, and what it asks for."""
    numbers = numbers_of(order, draft)
    pairs = tuple(dict.fromkeys(system_value(one) for one in numbers.values()))
    first = numbers.get("PLAC") or numbers.get("FILL")
    if first is None:
        parts = (patient.handle, what, when)
        return Key("order", (*parts, *draft.nth("order", *parts)))
    system, value = system_value(first)
    what = unsigned(what)
    nth = draft.nth("order", system, value, what)
    return Key(system, (value, what, *nth), () if nth else pairs, codes)


def service_request(draft: Draft, order: OrderGroup, patient: Patient, mode: Mode) -> str:
    """Draft the ServiceRequest of an OBR; return its handle."""
    scene, obr = draft.scene, order.obr
    assert obr is not None
    filled = ordered(order, scene)
    places = filled.set
    status = order_status(order, scene)
    defaults: dict[str, Any] = {"intent": "order", "status": "active"}
    if mode is Mode.MERGE:
        places.update(status)
    else:
        final = obr.text(25).upper() in ("F", "C", "X")
        said = status.get("status", "completed" if final else "active")
        defaults["status"] = said
        if "_status" in status and said == "unknown":
            defaults["_status"] = status["_status"]
    notes = annotations(order.notes, draft.scene)
    if notes and mode is Mode.MERGE:
        places["note"] = notes
    code = places.get("code")
    key = order_key(draft, order, patient, concept_keys(code), concept_key(code), obr.text(7))
    places["subject"] = reference(patient.handle)
    if patient.encounter:
        places["encounter"] = reference(patient.encounter)
    _relations(draft, order, places)
    return draft.add(
        "ServiceRequest",
        key,
        mode,
        filled,
        obr,
        defaults=defaults,
        subject=patient.handle,
    )


def _relations(draft: Draft, order: OrderGroup, places: dict[str, Any]) -> None:
    """Add what an order is based on, or replaces: OBR-29, ORC-8, ORC-1."""
    parents = []
    for segment, field in ((order.obr, 29), (order.orc, 8)):
        value = segment.value(field) if segment else None
        if segment and value:
            draft.scene.at(segment, field)
            for part, kind in ((1, "PLAC"), (2, "FILL")):
                if made := ei_of(value.subs(part), draft.scene, kind):
                    parents.append({"type": "ServiceRequest", "identifier": made})
    if parents:
        control = order.orc.text(1).upper() if order.orc else ""
        name = "replaces" if control == "RO" else "basedOn"
        places[name] = parents[:1]


# -------------------------------------------------------------------------------- specimens


def specimen_change(draft: Draft, group: SpecimenGroup, patient: Patient, order: str = "") -> str:
    """Draft the Specimen of an SPM; return its handle. ``order`` is what it is keyed by else."""
    places = specimen(group, draft.scene)
    places["subject"] = reference(patient.handle)
    return draft.add(
        "Specimen",
        _specimen_key(draft, group, patient, order),
        Mode.REPLACE,
        Filled(places, set()),
        group.spm,
        owned=specimens.OWNED,
        subject=patient.handle,
    )


def _specimen_key(draft: Draft, group: SpecimenGroup, patient: Patient, order: str) -> Key:
    number = number_of(group.spm, draft.scene)
    if number:
        system, value = system_value(number)
        return Key(system, (value,))
    nth = group.spm.text(1) or group.spm.where
    if order:
        return Key("specimen", (order, nth))
    # It comes before its orders: the numbers of the first one tell it from those of other messages.
    orders = (each for one in draft.groups.patients for each in one.orders)
    behind = (one for one in orders if any(each is group for each in one.specimens))
    first = next(behind, None)
    numbers = numbers_of(first, draft) if first else {}
    parts = [part for one in numbers.values() for part in system_value(one)]
    return Key("specimen", (patient.handle, *parts, nth))


def _specimens(draft: Draft, order: OrderGroup, patient: Patient, led: dict[int, str]) -> list[str]:
    """Return the handles of an order's specimens, drafted if they are not yet."""
    request = draft.changes[-1].handle
    found = []
    for one in order.specimens:
        if id(one) not in led:
            led[id(one)] = specimen_change(draft, one, patient, request)
        found.append(led[id(one)])
    if not found and order.obr is not None:
        places = specimen_of_order(order.obr, draft.scene)
        if places:
            places["subject"] = reference(patient.handle)
            found.append(
                draft.add(
                    "Specimen",
                    Key("specimen", (request, "OBR-15")),
                    Mode.REPLACE,
                    Filled(places, set()),
                    order.obr,
                    owned=specimens.OWNED,
                    subject=patient.handle,
                )
            )
    return found


def _specimen_results(draft: Draft, group: SpecimenGroup, patient: Patient, handle: str) -> None:
    parent = Parent(handle, patient, section="LAB", specimens=[handle])
    observations(draft, group.obxs, parent)


def _order_results(draft: Draft, order: OrderGroup, patient: Patient, led: dict[int, str]) -> None:
    """Draft specimens and results of an ORC without OBR: they are the patient's."""
    for one in order.specimens:
        if id(one) not in led:
            led[id(one)] = specimen_change(draft, one, patient)
            _specimen_results(draft, one, patient, led[id(one)])
    if order.obxs:
        observations(draft, order.obxs, Parent(patient.handle, patient))


# --------------------------------------------------------------------------------- the report


def _report(
    draft: Draft, order: OrderGroup, patient: Patient, request: str, found: list[str]
) -> None:
    scene, obr = draft.scene, order.obr
    assert obr is not None
    places = reported(order, scene)
    places["subject"] = reference(patient.handle)
    places["basedOn[+]"] = [reference(request)]
    if patient.encounter:
        places["encounter"] = reference(patient.encounter)
    if found:
        places["specimen[+]"] = [reference(one) for one in found]
    notes = annotations(order.notes, draft.scene)
    if notes:
        places[f"extension[{REPORT_NOTE}]"] = [
            {"url": REPORT_NOTE, "valueAnnotation": note} for note in notes
        ]
    if "code" not in places:
        scene.at(obr, 4)
        scene.note("obr-4-missing", "The report says not what was examined.")
        places["code"] = {"text": "unknown"}
    key = _report_key(draft, order, concept_key(places["code"]), patient)
    stamp = stamped(scene, obr.value(22))
    handle = draft.add(
        "DiagnosticReport",
        key,
        Mode.REPLACE,
        Filled(places, set()),
        obr,
        owned=REPORT_OWNED,
        subject=patient.handle,
        stamp=stamp,
    )
    effective = places.get("effectiveDateTime") or places.get("effectivePeriod", {}).get("start")
    parent = Parent(
        handle,
        patient,
        section=obr.text(24),
        status=obr.text(25).upper(),
        effective=str(effective or ""),
        orders=request,
        specimens=found,
        stamp=stamp,
        question=places["code"],
    )
    made = observations(draft, order.obxs, parent)
    _finish_report(draft, handle, made.handles, made.wrong, made.forms)
    _join_parent(draft, order, made.handles)


def _join_parent(draft: Draft, order: OrderGroup, handles: list[str]) -> None:
    """Make the results of an order members of the parent result that OBR-26 and OBR-29 name."""
    if not _has_parents(draft):
        return
    for number in numbers_of(order, draft).values():
        for group, handle in zip(order.obxs, handles, strict=False):
            named = (str(number["value"]), group.obx.text(3), group.obx.text(4))
            draft.results.setdefault(named, handle)
    obr = order.obr
    result, parent = (obr.value(26), obr.value(29)) if obr else (None, None)
    if result is None or parent is None or not handles:
        return
    for part in (1, 2):
        found = draft.results.get((parent.sub(part, 1), result.sub(1, 1), result[2]))
        if found and found not in handles:
            _add_to(draft, found, {"hasMember[+]": [reference(one) for one in handles]})
            return


def _has_parents(draft: Draft) -> bool:
    """Return whether any order of the message names a parent result."""
    memo = draft.scene.memo
    if _has_parents not in memo:
        memo[_has_parents] = any(
            len(order.obr.fields) > 26 and order.obr.fields[26] != ""
            for group in draft.groups.patients
            for order in group.orders
            if order.obr
        )
    return bool(memo[_has_parents])


def _report_key(draft: Draft, order: OrderGroup, what: str, patient: Patient) -> Key:
    numbers = numbers_of(order, draft)
    first = numbers.get("FILL") or numbers.get("PLAC")
    if first is None:
        assert order.obr is not None
        parts = (patient.handle, what, order.obr.text(7))
        return Key("report", (*parts, *draft.nth("report", *parts)))
    system, value = system_value(first)
    what = unsigned(what)
    return Key(system, (value, what, *draft.nth("report", system, value, what)))


def _finish_report(
    draft: Draft, handle: str, results: list[str], wrong: list[str], forms: list[Json]
) -> None:
    places: dict[str, Any] = {}
    right = [one for one in results if one not in wrong]
    if right:
        places["result[+]"] = [reference(one) for one in right]
    if forms:
        places["presentedForm"] = forms
    if wrong:
        places["result[-]"] = [reference(one) for one in wrong]
    if places:
        _add_to(draft, handle, places)


REPORT_OWNED = frozenset(
    (
        "status", "_status", "code", "category", "effectiveDateTime", "effectivePeriod", "issued",
        "resultsInterpreter[obr-32]", "resultsInterpreter[obr-33]", "performer[obr-34]",
        f"extension[{REPORT_NOTE}]", "presentedForm",
    )
)  # fmt: skip


def segment_of(order: OrderGroup) -> Segment | None:
    """Return the segment that an order is known by."""
    return order.obr or order.rxe or order.rxo or order.orc
