# https://hl7.org/fhir/R4/search.html#all
"""``_list``, ``_content``, ``near`` and quantities across units, on a real database."""

from decimal import Decimal
from typing import Any

import pytest

from fhir_server.messages import Request
from tests.conftest import Fhir
from tests.interactions.asking import json_of, put

UCUM = "http://unitsofmeasure.org"
PLACE = {"latitude": Decimal("23.8"), "longitude": Decimal("90.4")}
RESOURCES: tuple[dict[str, Any], ...] = (
    {"resourceType": "Patient", "id": "a", "name": [{"family": "Roy"}]},
    {"resourceType": "Patient", "id": "b", "name": [{"family": "Das"}]},
    {"resourceType": "Patient", "id": "c"},
    {
        "resourceType": "List",
        "id": "42",
        "status": "current",
        "mode": "changes",
        "entry": [
            {"item": {"reference": "Patient/a"}},
            {"item": {"reference": "Patient/b/_history/1"}},
            {"item": {"reference": "Patient/c"}, "deleted": True},
            {"item": {"reference": "Group/c"}},
        ],
    },
    {"resourceType": "Location", "id": "l", "position": PLACE},
    {
        "resourceType": "Observation",
        "id": "o",
        "status": "final",
        "code": {"text": "Glucose"},
        "valueQuantity": {"value": 5400, "system": UCUM, "code": "umol/L", "unit": "µmol/L"},
        "component": [
            {
                "code": {"text": "x"},
                "valueQuantity": {"value": 1, "comparator": ">", "system": UCUM, "code": "g"},
            }
        ],
    },
)
FOUND: list[tuple[str, tuple[tuple[str, str], ...], list[str]]] = [
    ("Patient", (("_list", "42"),), ["a", "b"]),
    ("Patient", (("_list", "List/42"), ("family", "roy")), ["a"]),
    ("Patient", (("_list", "42,none"),), ["a", "b"]),
    ("Patient", (("_list", "none"),), []),
    ("Patient", (("_list", "42"), ("_list", "none")), []),
    ("Observation", (("_list", "42"),), []),
    ("Patient", (("_content", "roy OR nobody"),), ["a"]),
    ("Location", (("near", "23.7|90.4|12|km"),), ["l"]),
    ("Location", (("near", "23.7|90.4|10|km"), ("_total", "accurate")), []),
    ("Observation", (("value-quantity", f"5.4|{UCUM}|mmol/L"),), ["o"]),
    ("Observation", (("value-quantity", f"5.4|{UCUM}|mg/dL"),), []),
    ("Observation", (("combo-value-quantity", f"gt2000|{UCUM}|mg"),), ["o"]),
    ("Observation", (("combo-value-quantity", f"lt500|{UCUM}|mg"),), []),
    ("Observation", (("code:text", "GLUC"),), ["o"]),
]


@pytest.fixture
async def filled(fhir: Fhir) -> Fhir:
    """A server that has the resources."""
    for resource in RESOURCES:
        type, id = resource["resourceType"], resource["id"]
        answer = await fhir(Request("update", type, id, body=resource))
        assert answer.status == 201
    return fhir


async def test_what_is_found(filled: Fhir) -> None:
    """Each search finds the ids that the table says."""
    for type, parameters, expected in FOUND:
        answer = json_of(await filled(Request("search-type", type, parameters=parameters)))
        ids = [one["resource"]["id"] for one in answer.get("entry", [])]
        assert ids == expected, (type, parameters)


REFUSED_LISTS = {
    "$current-problems": "a list of Condition, not of Patient",
    "$current-problem": "Did you mean $current-problems",
    "a b": "the id of a List",
    "Patient/1": "the id of a List",
    "{}": "the id of a List",
}


@pytest.mark.parametrize(("value", "expected"), REFUSED_LISTS.items(), ids=REFUSED_LISTS)
async def test_lists_that_are_refused(fhir: Fhir, value: str, expected: str) -> None:
    """Functional lists of another type and what is no id of a List are refused with a sentence."""
    parameters = (("_list", value),)
    answer = await fhir(Request("search-type", "Patient", parameters=parameters))

    assert answer.status == 400
    assert expected in json_of(answer)["issue"][0]["diagnostics"]


async def test_lists_in_conditions(fhir: Fhir) -> None:
    """A list is a condition like any other: of one that is not there, nothing is deleted."""
    await fhir(put({"resourceType": "Patient", "id": "on-the-list"}))
    condition = (("_list", "42"),)
    delete = Request("conditional-delete", "Patient", parameters=condition)
    read = Request("read", "Patient", "on-the-list")

    assert (await fhir(delete)).status == 204
    assert (await fhir(read)).status == 200
    item = {"reference": "Patient/on-the-list"}
    members = {"status": "current", "mode": "working", "entry": [{"item": item}]}
    await fhir(put({"resourceType": "List", "id": "42", **members}))
    assert (await fhir(delete)).status == 204
    assert (await fhir(read)).status == 410
