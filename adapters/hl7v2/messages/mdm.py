"""MDM: TXA and its OBX to DocumentReference.

HL7 v2.5.1, chapter 9; design/hl7v2.md, sections 12 and 13.
"""

from typing import Any

from adapters.hl7v2.attachments import attachment, encapsulated, pointed
from adapters.hl7v2.changes import Key, Mode
from adapters.hl7v2.codes import Primitive, alternate, concept
from adapters.hl7v2.datatypes import ei_of, instant, text
from adapters.hl7v2.draft import Draft, Patient, reference, system_value
from adapters.hl7v2.groups import ObxGroup, PatientGroup
from adapters.hl7v2.issues import MessageFault
from adapters.hl7v2.message import Segment, Value
from adapters.hl7v2.messages.patient import patient_change, visit_in_passing
from adapters.hl7v2.references import xcn
from adapters.hl7v2.rows import Filled, Row, Table
from adapters.hl7v2.scene import Scene

Json = dict[str, Any]

APPENDS = frozenset(("T05", "T06"))
EDITS = frozenset(("T07", "T08"))
REPLACES = frozenset(("T09", "T10"))
_DOC_STATUS = {
    "AU": "final", "LA": "final", "DI": "preliminary", "DO": "preliminary", "IN": "preliminary",
    "IP": "preliminary", "PA": "preliminary",
}  # fmt: skip
_STATUS = {"AV": "current", "CA": "entered-in-error", "OB": "superseded", "UN": "current"}


def _doc_status(value: Value, scene: Scene) -> str | None:
    return _DOC_STATUS.get(value[1].upper())


def _status(value: Value, scene: Scene) -> Any:
    said = value[1].upper()
    if said == "AV":
        return "current"
    return Primitive(_STATUS.get(said, "current"), (alternate(value, scene, "0273"),))


DOCUMENT = Table(
    "DocumentReference",
    "TXA",
    [
        Row("TXA-2", "type", concept("", "0270")),
        Row("TXA-6", "date", instant),
        Row("TXA-9*", "author*", xcn),
        Row("TXA-10", "authenticator", xcn),
        Row("TXA-12", "masterIdentifier", ei_of),
        Row("TXA-17", "docStatus", _doc_status),
        Row("TXA-18", "securityLabel*", concept("DocumentConfidentialityStatus", "0272")),
        Row("TXA-19", "status", _status),
        Row("TXA-25", "description", text),
    ],
)


def document(draft: Draft, event: str) -> None:
    """Draft what an MDM asks."""
    if not draft.groups.patients:
        raise MessageFault(100, "PID", "The message has no patient (PID).")
    for group in draft.groups.patients:
        patient = patient_change(draft, group)
        visit_in_passing(draft, group, patient)
        for txa in group.lists.get("TXA", ()):
            _document(draft, group, patient, txa, event)


def _document(
    draft: Draft, group: PatientGroup, patient: Patient, txa: Segment, event: str
) -> None:
    scene = draft.scene
    places = DOCUMENT.apply(txa, scene).set
    number = places.get("masterIdentifier")
    if number is None:
        raise MessageFault(101, "TXA^1^12", "The document has no number (TXA-12).")
    obxs = [*group.obxs, *(one for order in group.orders for one in order.obxs)]
    if content := _content(obxs, txa, scene):
        places["content"] = content
    if event == "T11":
        places["status"] = "entered-in-error"
        places.pop("_status", None)
    if event in EDITS and places.get("docStatus", "final") == "final":
        places["docStatus"] = "amended"
    places["subject"] = reference(patient.handle)
    if patient.encounter:
        places["context.encounter"] = [reference(patient.encounter)]
    _relate(draft, txa, places, event)
    draft.add(
        "DocumentReference",
        Key(*_found_by(number)),
        Mode.REPLACE if content else Mode.MERGE,
        Filled(places, set()),
        txa,
        owned=DOCUMENT.owned - {"status", "_status"},
        defaults={"status": "current", "content": [{"attachment": _no_content(txa)}]},
        subject=patient.handle,
    )


def _found_by(number: Json) -> tuple[str, tuple[str, ...]]:
    system, value = system_value(number)
    return system, (value,)


def _no_content(txa: Segment) -> Json:
    return {"title": txa.text(16) or txa.text(12)}


def _relate(draft: Draft, txa: Segment, places: dict[str, Any], event: str) -> None:
    """Add what the document appends or replaces; the replaced one becomes superseded."""
    parent = txa.value(13)
    draft.scene.at(txa, 13)
    number = ei_of(parent, draft.scene) if parent else None
    if number is None or event not in APPENDS | REPLACES:
        return
    code = "appends" if event in APPENDS else "replaces"
    target = {"type": "DocumentReference", "identifier": number}
    places["relatesTo"] = [{"code": code, "target": target}]
    if code == "replaces":
        draft.add(
            "DocumentReference",
            Key(*_found_by(number)),
            Mode.MERGE,
            Filled({"status": "superseded"}, set()),
            txa,
            only_stored=True,
            timeless=True,
        )


def _content(obxs: list[ObxGroup], txa: Segment, scene: Scene) -> list[Json]:
    """Return the text lines joined, then each further attachment."""
    lines: list[str] = []
    more: list[Json] = []
    for group in obxs:
        obx = group.obx
        obx.read.update((1, 2, 3, 4, 11, 14))
        scene.at(obx, 5)
        kind = obx.text(2).upper()
        for value in obx.values(5):
            if kind == "ED":
                found = encapsulated(value, scene)
                made = attachment(*found) if found else None
            elif kind == "RP":
                made = pointed(value, scene)
            else:
                lines.append(value.text if kind in ("TX", "FT", "ST", "") else value.readable())
                continue
            if made:
                more.append({"attachment": made})
    title = txa.text(16)
    if lines:
        joined = attachment("text/plain", "\n".join(lines).encode(), title)
        return [{"attachment": joined}, *more]
    if more and title:
        more[0]["attachment"].setdefault("title", title)
    return more
