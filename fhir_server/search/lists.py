"""``_list``: members of a List, or of a list that the server keeps by a rule.

https://hl7.org/fhir/R4/search.html#list, https://hl7.org/fhir/R4/lifecycle.html#lists

A functional list has the resources of a type that meet the searches in the table: what is
clinically active, and what nobody said was wrong. What says neither stays on the list: an allergy
without a status is one that somebody should look at.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fhir_server.outcome import FhirError, Issue, invalid_value, nearest, shown
from fhir_server.r4.references import target
from fhir_server.search.criteria import Criteria
from fhir_server.search.escape import unescape
from fhir_server.search.keys import NOTHING, Filter
from fhir_server.search.parameters import ParameterTable
from fhir_server.search.wanted import Artifact, NotKnown

LIST = "_list"
_ID = re.compile(r"(?:List/)?([A-Za-z0-9\-.]{1,64})")

_CODES = "http://terminology.hl7.org/CodeSystem/"
_ALLERGY_CLINICAL = f"{_CODES}allergyintolerance-clinical"
_ALLERGY_VERIFIED = f"{_CODES}allergyintolerance-verification"
_CLINICAL = f"{_CODES}condition-clinical"
_VERIFIED = f"{_CODES}condition-ver-status"

_Search = tuple[str, tuple[str, ...]]
_ALLERGIES: tuple[_Search, ...] = (
    ("clinical-status:not", (f"{_ALLERGY_CLINICAL}|inactive", f"{_ALLERGY_CLINICAL}|resolved")),
    (
        "verification-status:not",
        (f"{_ALLERGY_VERIFIED}|refuted", f"{_ALLERGY_VERIFIED}|entered-in-error"),
    ),
)
FUNCTIONAL: Mapping[str, Mapping[str, tuple[_Search, ...]]] = {
    "$current-allergies": {"AllergyIntolerance": _ALLERGIES},
    "$current-drug-allergies": {"AllergyIntolerance": (*_ALLERGIES, ("category", ("medication",)))},
    "$current-medications": {
        "MedicationStatement": (("status", ("active",)),),
        "MedicationRequest": (
            ("status", ("active",)),
            ("intent:not", ("proposal", "plan", "option")),
        ),
    },
    "$current-problems": {
        "Condition": (
            ("category:not", (f"{_CODES}condition-category|encounter-diagnosis",)),
            (
                "clinical-status:not",
                tuple(f"{_CLINICAL}|{code}" for code in ("inactive", "remission", "resolved")),
            ),
            (
                "verification-status:not",
                (f"{_VERIFIED}|refuted", f"{_VERIFIED}|entered-in-error"),
            ),
        ),
    },
}
"""Name -> type of its members -> the searches that all of them meet."""


def compile_list(
    type: str, values: Sequence[str], table: ParameterTable, criteria: Criteria
) -> Filter:
    """Return the filter for the resources of ``type`` that are on one of the lists in ``values``.

    Lists that are not looked up yet are remembered in ``criteria.wants``. A List that does not
    exist has no members.

    Raises ``not-supported`` for an unknown functional list and for one without members of
    ``type``, ``value`` for what is no id.
    """
    ids: dict[str, None] = {}
    rules = []
    for value in values:
        text = unescape(value)
        if text.startswith("$"):
            rules.append(_functional(text, type, table, criteria))
        else:
            try:
                found = criteria.wants.get(Artifact("List", f"List/{_id(value, text)}"))
            except NotKnown:
                continue
            ids |= dict.fromkeys(_members(found or {}, type, table.base_urls))
    members = {"_id": {"$in": sorted(ids)}} if ids else NOTHING
    return {"$or": [members, *rules]} if rules else members


def _id(value: str, text: str) -> str:
    found = _ID.fullmatch(text)
    if found is None:
        raise invalid_value(LIST, value, "the id of a List")
    return found[1]


def _functional(name: str, type: str, table: ParameterTable, criteria: Criteria) -> Filter:
    if name not in FUNCTIONAL:
        text = f"There is no functional list {shown(name)}.{nearest(name, FUNCTIONAL)}"
        raise FhirError(Issue("not-supported", text))
    if type not in FUNCTIONAL[name]:
        kinds = ", ".join(FUNCTIONAL[name])
        raise FhirError(Issue("not-supported", f"{name} is a list of {kinds}, not of {type}."))
    filters = []
    for parameter, values in FUNCTIONAL[name][type]:
        code, _, modifier = parameter.partition(":")
        filters.append(criteria.filter(table.of(type)[code], modifier, values))
    return {"$and": filters}


def _members(found: Mapping[str, Any], type: str, base_urls: tuple[str, ...]) -> Iterator[str]:
    """Yield the ids of the resources of ``type`` that a List has, but for those taken off it."""
    for entry in found.get("entry", ()):
        text = entry.get("item", {}).get("reference", "")
        member = target(text, base_urls)
        if member.id and member.type == type and not entry.get("deleted"):
            yield member.id
