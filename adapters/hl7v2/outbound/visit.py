"""Encounter to PV1 and PV2.

HL7 v2.5.1, 3.4.3 and 3.4.4; the rows of ``segments/pv1.py`` the other way round.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from adapters.hl7v2.outbound.fields import Marks, joined
from adapters.hl7v2.outbound.pid import extension_of
from adapters.hl7v2.outbound.values import code_of, cwe, cx, dtm, own, pl, xcn
from adapters.hl7v2.segments.pv1 import LOCATION_CLASS, R5
from adapters.hl7v2.vocabulary import V2_SYSTEM, source

Json = Mapping[str, Any]

# Classes of v3 that v2 has in one: inpatients, and all that come and go.
_CLASSES = {"ACUTE": "I", "NONAC": "I", "SS": "O", "OBSENC": "O", "FLD": "O", "HH": "O", "VR": "O"}
_PARTICIPANTS = {"ATND": 7, "REF": 8, "CON": 9, "ADM": 17}
_OTHERS = 52
_PLACES = {"planned": 42, "completed": 6}


def class_of(encounter: Json) -> str:
    """Return PV1-2; "" where the class is not known."""
    said = encounter.get("class", {})
    code, system = str(said.get("code", "")), str(said.get("system", ""))
    if system == V2_SYSTEM + "0004":
        return code
    return source("PatientClass[EncounterClass]", code, system) or _CLASSES.get(code, "")


def visit_segments(encounter: Json, marks: Marks) -> list[str]:
    """Return PV1, and PV2 where it has something to say."""
    numbers = [one for one in encounter.get("identifier", ()) if one.get("value")]
    numbers = numbers or [own("Encounter", str(encounter.get("id", "unknown")), marks)]
    stay = encounter.get("hospitalization", {})
    start, end = (dtm(encounter.get("period", {}).get(one, "")) for one in ("start", "end"))
    unknown = "U" if encounter.get("status") == "unknown" else ""
    pv1 = {
        1: "1",
        2: marks.text(class_of(encounter) or unknown),
        4: cwe(next(iter(encounter.get("type", ())), None), marks, "AdmissionType", "0007"),
        10: cwe(encounter.get("serviceType"), marks, "HospitalService", "0069"),
        14: cwe(stay.get("admitSource"), marks),
        19: cx(numbers[0], marks),
        36: cwe(stay.get("dischargeDisposition"), marks, "DischargeDisposition", "0112"),
        44: start,
        45: end,
        50: marks.repeated(cx(one, marks) for one in numbers[1:]),
        **_places(encounter, marks),
        **_participants(encounter, marks),
    }
    segments = [joined("PV1", pv1, marks)]
    pv2 = _more(encounter, marks)
    if any(pv2.values()):
        segments.append(joined("PV2", pv2, marks))
    return segments


def _places(encounter: Json, marks: Marks) -> dict[int, str]:
    """Return the places, one of each kind, the last one of each."""
    found = {}
    for one in encounter.get("location", ()):
        status = str(one.get("status", "active"))
        number = 11 if extension_of(one, LOCATION_CLASS) else _PLACES.get(status, 3)
        found[number] = pl(one.get("location"), marks)
    return found


def _participants(encounter: Json, marks: Marks) -> dict[int, str]:
    fields: dict[int, list[str]] = defaultdict(list)
    for one in encounter.get("participant", ()):
        codes = [
            str(coding.get("code", ""))
            for kind in one.get("type", ())
            for coding in kind.get("coding", ())
        ]
        numbers = [_PARTICIPANTS[code] for code in codes if code in _PARTICIPANTS]
        fields[(numbers or [_OTHERS])[0]].append(xcn(one.get("individual"), marks))
    return {number: marks.repeated(texts) for number, texts in fields.items()}


def _more(encounter: Json, marks: Marks) -> dict[int, str]:
    planned = (
        dtm(extension_of(encounter, f"{R5}planned{one}Date").get("valueDateTime", ""))
        for one in ("Start", "End")
    )
    start, end = planned
    return {
        3: cwe(next(iter(encounter.get("reasonCode", ())), None), marks),
        8: start,
        9: end,
        25: marks.text(code_of(encounter.get("priority"), "EncounterPriority", "0217")),
    }
