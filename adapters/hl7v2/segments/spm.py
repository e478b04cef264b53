"""SPM and OBR-15 to Specimen.

HL7 v2.5.1, 7.4.3; design/hl7v2.md, section 13.
"""

from typing import Any

from adapters.hl7v2.codes import concept, cwe
from adapters.hl7v2.datatypes import cx, date_time, ei, ei_of, eip, period
from adapters.hl7v2.groups import SpecimenGroup
from adapters.hl7v2.message import Segment, Value
from adapters.hl7v2.quantities import composite
from adapters.hl7v2.references import xcn
from adapters.hl7v2.rows import Row, Table
from adapters.hl7v2.scene import Scene
from adapters.hl7v2.segments.nte import note_text

Json = dict[str, Any]


def _parents(value: Value, scene: Scene) -> list[Json] | None:
    found = eip(value, scene)
    return [{"type": "Specimen", "identifier": one} for one in found[-1:]] if found else None


def _number(value: Value, scene: Scene) -> list[Json] | None:
    found = eip(value, scene)
    if found is None and value[1]:
        one = ei_of(value, scene)
        return [one] if one else None
    return found


def number_of(spm: Segment, scene: Scene) -> Json | None:
    """Return the number by which a specimen is known: SPM-2, the filler's before the placer's.

    That of its group or its shipment (SPM-31, SPM-32) many specimens have.
    """
    value = spm.value(2)
    scene.at(spm, 2)
    found = _number(value, scene) if value else None
    return found[-1] if found else None


SPECIMEN = Table(
    "Specimen",
    "SPM",
    [
        Row("SPM-2", "identifier[+]", _number),
        Row("SPM-31*", "identifier[+]", cx),
        Row("SPM-32*", "identifier[+]", ei()),
        Row("SPM-30", "accessionIdentifier", cx),
        Row("SPM-3*", "parent*", _parents),
        Row("SPM-4", "type", concept("SpecimenType", "0487")),
        Row("SPM-6", "_additive", concept("AdditivePreservative", "0371")),
        Row("SPM-27", "_container", concept("ContainerType", "0378")),
        Row("SPM-7", "collection.method", concept("SpecimenCollectionMethod", "0488")),
        Row("SPM-8", "collection.bodySite", concept("SpecimenSourceSite", "0543")),
        Row("SPM-12", "collection.quantity", composite),
        Row("SPM-18", "receivedTime", date_time),
        Row("SPM-24*", "condition*", concept("SpecimenCondition", "0493")),
    ],
)


def specimen(group: SpecimenGroup, scene: Scene) -> dict[str, Any]:
    """Return the places of the Specimen of an SPM."""
    spm = group.spm
    places = SPECIMEN.apply(spm, scene).set
    value = spm.value(17)
    scene.at(spm, 17)
    if value:
        valid = period(value, scene)
        if valid and "end" in valid and valid["end"] != valid.get("start"):
            places["collection.collectedPeriod"] = valid
        elif valid:
            places["collection.collectedDateTime"] = valid["start"]
    _status(spm, places, scene)
    _containers(group, places, scene)
    notes = [text for value in spm.values(14) if (text := value.text.strip())]
    notes += [text for note in group.notes if (text := note_text(note))]
    reasons = [
        (cwe(value, scene) or {}).get("text") or value.readable() for value in spm.values(21)
    ]
    notes += [f"Rejected: {reason}" for reason in reasons]
    if notes:
        places["note"] = [{"text": text} for text in notes]
    return places


def _status(spm: Segment, places: dict[str, Any], scene: Scene) -> None:
    said = spm.text(20).upper()
    if spm.value(21):
        places["status"] = "unsatisfactory"
    elif said in ("Y", "N"):
        places["status"] = "available" if said == "Y" else "unavailable"


def _containers(group: SpecimenGroup, places: dict[str, Any], scene: Scene) -> None:
    container: Json = {}
    if kind := places.pop("_container", None):
        container["type"] = kind
    if additive := places.pop("_additive", None):
        container["additiveCodeableConcept"] = additive
    numbers = []
    for sac in group.sacs:
        for field in (3, 4):
            value = sac.value(field)
            scene.at(sac, field)
            made = ei_of(value, scene) if value else None
            if made:
                numbers.append(made)
    if numbers:
        container["identifier"] = numbers
    if container:
        places["container"] = [container]


FROM_ORDER = Table(
    "Specimen",
    "OBR",
    [
        Row("OBR-9", "collection.quantity", composite),
        Row("OBR-10", "collection.collector", xcn),
        Row("OBR-14", "receivedTime", date_time),
    ],
)


def specimen_of_order(obr: Segment, scene: Scene) -> dict[str, Any]:
    """Return the places of the Specimen that OBR-15 names; {} if it names none."""
    source = obr.value(15)
    if source is None:
        return {}
    scene.at(obr, 15)
    # SPS: its first component is a CWE; senders write plain codes as well.
    inner = source.subs(1) if source.sub(1, 2) else source
    kind = concept("SpecimenType", "0487" if len(inner.parts) < 3 else "")(inner, scene)
    if not kind:
        return {}
    places = {"type": kind, **FROM_ORDER.apply(obr, scene).set}
    for field, place in ((7, "collection.collectedDateTime"),):
        when = obr.value(field)
        scene.at(obr, field)
        if when and (made := date_time(when, scene)):
            places[place] = made
    notes = [text for value in obr.values(39) if (text := value.readable())]
    if notes:
        places["note"] = [{"text": text} for text in notes]
    return places


OWNED = SPECIMEN.owned | {
    "collection.collectedDateTime", "collection.collectedPeriod", "status", "container", "note",
    "collection.collector",
}  # fmt: skip
