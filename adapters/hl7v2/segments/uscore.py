"""PID-10 and PID-22 to US Core's race and ethnicity, for senders whose profile says ``us_core``.

http://hl7.org/fhir/us/core/StructureDefinition/us-core-race and us-core-ethnicity: the categories
of the OMB, other codes of the CDC's list as details, and always a text.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from adapters.hl7v2.codes import codings, concept_text
from adapters.hl7v2.message import Segment
from adapters.hl7v2.scene import Scene

Json = dict[str, Any]

_URL = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-"
_SYSTEM = "urn:oid:2.16.840.1.113883.6.238"
_NULL_FLAVOR = "http://terminology.hl7.org/CodeSystem/v3-NullFlavor"
_DETAIL = re.compile(r"\d{4}-\d")
_UNKNOWN = {"system": _NULL_FLAVOR, "code": "UNK", "display": "unknown"}
_RACES = {
    "1002-5": "American Indian or Alaska Native",
    "2028-9": "Asian",
    "2054-5": "Black or African American",
    "2076-8": "Native Hawaiian or Other Pacific Islander",
    "2106-3": "White",
}
_ETHNICITIES = {"2135-2": "Hispanic or Latino", "2186-5": "Not Hispanic or Latino"}
# Table 0189 of v2.
_OF_TABLE = {"H": "2135-2", "N": "2186-5"}
# Field, its table, the extension, its categories, how many of them it may have.
_FIELDS: tuple[tuple[int, str, str, Mapping[str, str], int], ...] = (
    (10, "0005", "race", _RACES, 5),
    (22, "0189", "ethnicity", _ETHNICITIES, 1),
)


def race_and_ethnicity(pid: Segment, scene: Scene) -> dict[str, Any]:
    """Return the places of the two extensions, of what the fields say."""
    places: dict[str, Any] = {}
    for field, table, name, categories, most in _FIELDS:
        found: list[Json] = []
        texts: list[str] = []
        for value in pid.values(field):
            scene.at(pid, field)
            sent = codings(value, scene, table)
            found += _categories(sent, categories, most)
            said = concept_text(value) or next((str(one["code"]) for one in sent), "")
            texts += [said] if said else []
        kept = [one for n, one in enumerate(found) if one not in found[:n]]
        omb = [one for one in kept if one["url"] == "ombCategory"][:most]
        parts = [*omb, *(one for one in kept if one["url"] == "detailed")]
        if texts:
            url = _URL + name
            text = {"url": "text", "valueString": ", ".join(texts)}
            places[f"extension[{url}]"] = [{"url": url, "extension": [*parts, text]}]
    return places


def _categories(sent: list[Json], categories: Mapping[str, str], most: int) -> Iterator[Json]:
    """Yield the slices that the codes of one repetition are."""
    for one in sent:
        code = str(one["code"])
        if most == 1:
            code = _OF_TABLE.get(code, code)
        if code in categories:
            coding = {"system": _SYSTEM, "code": code, "display": categories[code]}
            yield {"url": "ombCategory", "valueCoding": coding}
        elif code == "U" and most == 1:
            yield {"url": "ombCategory", "valueCoding": _UNKNOWN}
        elif one.get("system") == _SYSTEM and _DETAIL.fullmatch(code):
            yield {"url": "detailed", "valueCoding": one}
