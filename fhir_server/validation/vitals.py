"""Observations that must follow a vital sign's profile, whatever profiles they name.

https://hl7.org/fhir/R4/observation-vitalsigns.html: "FHIR resources SHALL conform to the vital
signs profiles when the resource includes vital signs". The code says which it is: the LOINC code
of the table there, or a SNOMED CT concept that means the same and needs the LOINC code beside it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from fhir_server.r4.structures import TYPE_URL

VITAL_SIGNS = TYPE_URL + "vitalsigns"
_LOINC = "http://loinc.org"
_SNOMED = "http://snomed.info/sct"
_PROFILES: Mapping[tuple[str, str], str] = {
    (system, code): TYPE_URL + profile
    for profile, codes in {
        "vitalspanel": ((_LOINC, "85353-1"),),
        "resprate": ((_LOINC, "9279-1"), (_SNOMED, "86290005")),
        "heartrate": ((_LOINC, "8867-4"), (_SNOMED, "364075005"), (_SNOMED, "78564009")),
        "oxygensat": ((_LOINC, "2708-6"), (_SNOMED, "431314004")),
        "bodytemp": ((_LOINC, "8310-5"), (_SNOMED, "386725007"), (_SNOMED, "276885007")),
        "bodyheight": ((_LOINC, "8302-2"), (_SNOMED, "50373000"), (_SNOMED, "248327008")),
        "headcircum": ((_LOINC, "9843-4"), (_SNOMED, "363812007")),
        "bodyweight": ((_LOINC, "29463-7"), (_SNOMED, "27113001")),
        "bmi": ((_LOINC, "39156-5"), (_SNOMED, "60621009")),
        "bp": ((_LOINC, "85354-9"), (_SNOMED, "75367002")),
    }.items()
    for system, code in codes
}


def vital_profiles(observation: Mapping[str, Any]) -> Iterator[str]:
    """Yield the canonicals of the profiles that the code of an Observation calls for."""
    code = observation.get("code")
    codings = code.get("coding") if isinstance(code, dict) else None
    for one in codings if isinstance(codings, list) else ():
        if isinstance(one, dict):
            key = (one.get("system"), one.get("code"))
            found = _PROFILES.get(key) if all(isinstance(part, str) for part in key) else None  # type: ignore[arg-type]
            if found is not None:
                yield found
