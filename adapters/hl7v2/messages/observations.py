"""OBX groups to Observations: keys, parents, notes, the life of a result, text reports.

design/hl7v2.md, sections 9 and 14.
"""

import base64
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from adapters.hl7v2.changes import Key, Mode, Stamp
from adapters.hl7v2.datatypes import authority, own_system
from adapters.hl7v2.draft import Draft, Patient, concept_key, reference, unsigned
from adapters.hl7v2.groups import ObxGroup
from adapters.hl7v2.message import Segment
from adapters.hl7v2.rows import Filled
from adapters.hl7v2.scene import Scene
from adapters.hl7v2.segments.nte import annotations
from adapters.hl7v2.segments.obr import observation_category
from adapters.hl7v2.segments.obx import OWNED, SILENT, VALUES, WRONG, Result, read

Json = dict[str, Any]


@dataclass(slots=True)
class Parent:
    """What OBX belong to: the change whose handle keys them, and what they take from it.

    ``section`` is OBR-24, ``status`` OBR-25, ``effective`` the time of the specimen or report,
    ``orders`` the handle of the request, ``question`` the code of the report.
    """

    handle: str
    patient: Patient
    section: str = ""
    status: str = ""
    effective: str = ""
    orders: str = ""
    specimens: list[str] = field(default_factory=list)
    stamp: Stamp | None = None
    question: Json | None = None
    part_of: str = ""


@dataclass(slots=True)
class Made:
    """The Observations of a list of OBX: their handles, those that are wrong, attachments."""

    handles: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    forms: list[Json] = field(default_factory=list)


def observations(draft: Draft, groups: list[ObxGroup], parent: Parent) -> Made:
    """Draft an Observation for each OBX, in message order."""
    scene = draft.scene
    made = Made()
    repeated: Counter[tuple[str, str]] = Counter()
    ambiguous = False
    lines: list[str] | None = []
    for group in _joined(groups, scene):
        result = read(group.obx, parent.status, scene)
        places = result.places
        if "code" not in places:
            places["code"] = _unasked(group.obx, parent, scene)
        pair = (unsigned(concept_key(places["code"])), group.obx.text(4))
        key = _key(group.obx, parent, pair, repeated[pair], scene)
        ambiguous |= repeated[pair] > 0
        repeated[pair] += 1
        handle = _draft(draft, group, result, key, parent)
        made.handles.append(handle)
        if result.status in WRONG:
            made.wrong.append(handle)
        if result.attachment:
            made.forms.append(result.attachment)
        if result.text is None:
            lines = None
        elif lines is not None:
            lines.append(result.text)
    if ambiguous:
        scene.at(groups[0].obx, 4)
        scene.note("obx-ambiguous", "OBX-3 and OBX-4 repeat in one OBR: counted in order.")
    if lines and len(lines) > 1 and len({pair[0] for pair in repeated}) == 1:
        text = "\n".join(lines).encode()
        form = {"contentType": "text/plain", "data": base64.b64encode(text).decode()}
        made.forms.append(form)
    return made


def _joined(groups: list[ObxGroup], scene: Scene) -> list[ObxGroup]:
    """Return the OBX, the lines of a text report made one if the sender's profile wants that."""
    if scene.profile.text_report != "join" or len(groups) < 2:
        return groups
    first = groups[0].obx
    same = all(
        group.obx.text(2) in ("TX", "FT") and group.obx.text(3) == first.text(3) for group in groups
    )
    if not same:
        return groups
    mark = first.delimiters.repetition or "~"
    fields = [*first.fields, *[""] * (6 - len(first.fields))]
    fields[5] = mark.join(group.obx.raw(5) for group in groups)
    for group in groups:
        group.obx.read.update(range(len(group.obx.fields)))
    notes = [note for group in groups for note in group.notes]
    return [ObxGroup(Segment(fields, first.delimiters, first.number), notes)]


def _unasked(obx: Segment, parent: Parent, scene: Scene) -> Json:
    """Return the code of an OBX without OBX-3: that of its report, as text."""
    scene.at(obx, 3)
    scene.note("obx-3-missing", "The result says not what was observed.")
    question = parent.question or {}
    text = question.get("text") or next(
        (one.get("display") or one["code"] for one in question.get("coding", ())), "unknown"
    )
    return {"text": text}


def _key(obx: Segment, parent: Parent, pair: tuple[str, str], nth: int, scene: Scene) -> Key:
    if scene.profile.obx21_is_key and (value := obx.value(21)) and value[1]:
        system = authority(value[2], value[3], value[4], scene) or own_system(scene)
        return Key(system, (value[1],))
    parts: tuple[str, ...] = (parent.handle, *pair)
    if parent.handle == parent.patient.handle:
        parts = (*parts, parent.patient.encounter or "-", obx.text(14))
    return Key("obx", (*parts, str(nth)) if nth else parts)


def _draft(draft: Draft, group: ObxGroup, result: Result, key: Key, parent: Parent) -> str:
    places = result.places
    patient = parent.patient
    places["subject"] = reference(patient.handle)
    if patient.encounter:
        places["encounter"] = reference(patient.encounter)
    if parent.effective and "effectiveDateTime" not in places:
        places["effectiveDateTime"] = parent.effective
    category = observation_category(parent.section, places["code"])
    if category:
        places["category"] = category
    if parent.specimens:
        places["specimen"] = reference(parent.specimens[0])
    if parent.orders:
        places["basedOn[+]"] = [reference(parent.orders)]
    if parent.part_of:
        places["partOf[+]"] = [reference(parent.part_of)]
    notes = annotations(group.notes, draft.scene)
    if notes:
        places["note"] = notes
    owned = OWNED
    if result.status in SILENT and not group.obx.value(5):
        owned = OWNED - VALUES  # the stored value is kept
    return draft.add(
        "Observation",
        key,
        Mode.REPLACE,
        Filled(places, set()),
        group.obx,
        owned=owned,
        subject=patient.handle,
        **({"stamp": parent.stamp} if parent.stamp else {}),
    )
