# https://hl7.org/fhir/R4/search.html#modifiers
"""Searches that look something up first: value sets, code systems, hierarchies, on a database."""

from typing import Any

import pytest

from fhir_server.messages import Request
from tests.conftest import Fhir
from tests.interactions.asking import BASE, bundle, entry, json_of, put

DRUGS, SETS = "http://here/drugs", "http://here/sets/"
MISSING_SYSTEM = "http://snomed.info/sct"
_CODES = "http://terminology.hl7.org/CodeSystem/"


def value_set(id: str, *include: Any, **members: Any) -> dict[str, Any]:
    return {
        "resourceType": "ValueSet",
        "id": id,
        "url": f"{SETS}{id}",
        "status": "active",
        "compose": {"include": [*include]},
        **members,
    }


def observation(id: str, code: str, **members: Any) -> dict[str, Any]:
    coding = {"system": DRUGS, "code": code}
    return {
        "resourceType": "Observation",
        "id": id,
        "status": "final",
        "code": {"coding": [coding]},
        **members,
    }


def location(id: str, parent: str = "") -> dict[str, Any]:
    part_of = {"partOf": {"reference": f"Location/{parent}"}} if parent else {}
    return {"resourceType": "Location", "id": id, **part_of}


def encounter(id: str, place: str) -> dict[str, Any]:
    return {
        "resourceType": "Encounter",
        "id": id,
        "status": "planned",
        "class": {"code": "AMB"},
        "location": [{"location": {"reference": f"Location/{place}"}}],
    }


PENICILLINS = {
    "system": DRUGS,
    "filter": [{"property": "concept", "op": "is-a", "value": "penicillin"}],
}
RESOURCES: tuple[dict[str, Any], ...] = (
    {
        "resourceType": "CodeSystem",
        "id": "drugs",
        "url": DRUGS,
        "status": "active",
        "content": "complete",
        "concept": [
            {
                "code": "antibiotic",
                "concept": [
                    {"code": "penicillin", "concept": [{"code": "amoxicillin"}]},
                    {"code": "macrolide"},
                ],
            },
            {"code": "opioid"},
        ],
    },
    value_set("penicillins", PENICILLINS, version="2"),
    value_set(
        "all",
        {"valueSet": [f"{SETS}penicillins|2"]},
        {"system": DRUGS, "concept": [{"code": "opioid"}]},
    ),
    value_set(
        "old",
        {"system": DRUGS, "concept": [{"code": "opioid"}]},
        url=f"{SETS}two",
        version="10",
        status="retired",
    ),
    value_set(
        "one", {"system": DRUGS, "concept": [{"code": "opioid"}]}, url=f"{SETS}two", version="9"
    ),
    value_set(
        "two", {"system": DRUGS, "concept": [{"code": "macrolide"}]}, url=f"{SETS}two", version="10"
    ),
    value_set("circle", {"valueSet": [f"{SETS}circle"]}),
    value_set("foreign", {"system": MISSING_SYSTEM}),
    observation("a", "amoxicillin"),
    observation("m", "macrolide"),
    observation("o", "opioid", hasMember=[{"reference": "Observation/a"}]),
    location("house"),
    location("floor", "house"),
    location("room", "floor"),
    location("ring1", "ring2"),
    location("ring2", "ring1"),
    encounter("e1", "room"),
    encounter("e2", "house"),
    encounter("e3", "ring1"),
)
FOUND: list[tuple[str, str, str, list[str]]] = [
    ("Observation", "code:in", f"{SETS}penicillins", ["a"]),
    ("Observation", "code:in", f"{SETS}penicillins|2", ["a"]),
    ("Observation", "code:in", "ValueSet/penicillins", ["a"]),
    ("Observation", "code:in", f"{SETS}all", ["a", "o"]),
    ("Observation", "code:not-in", f"{SETS}all", ["m"]),
    ("Observation", "code:in", f"{SETS}two", ["m"]),
    ("Observation", "code:in", f"{SETS}two|9", ["o"]),
    ("Observation", "code:in", f"{SETS}two|9,{SETS}penicillins", ["a", "o"]),
    ("Observation", "has-member:Observation.code:in", f"{SETS}penicillins", ["o"]),
    ("Observation", "_has:Observation:has-member:code:in", f"{SETS}two|9", ["a"]),
    ("Observation", "_filter", f"code in {SETS}penicillins or code in {SETS}two", ["a", "m"]),
    ("Observation", "code:below", f"{DRUGS}|antibiotic", ["a", "m"]),
    ("Observation", "code:above", f"{DRUGS}|amoxicillin", ["a"]),
    ("Location", "partof:below", "Location/house", ["floor", "room"]),
    ("Location", "partof:above", "floor", ["floor", "room"]),
    ("Location", "partof:below", "ring1", ["ring1", "ring2"]),
    ("Encounter", "location:below", "Location/house", ["e1", "e2"]),
    ("Encounter", "location:below", "Location/floor", ["e1"]),
    ("Encounter", "location:above", "room", ["e1", "e2"]),
    ("Encounter", "location:below", "nowhere", []),
    ("Encounter", "location:below", "Location/ring2", ["e3"]),
]


LIST = {
    "resourceType": "List",
    "id": "42",
    "status": "current",
    "mode": "working",
    "entry": [{"item": {"reference": "Encounter/e1"}}, {"item": {"reference": "Observation/o"}}],
}
DEEP = [value_set(f"deep{n}", {"valueSet": [f"{SETS}deep{n + 1}"]}) for n in range(12)]
# A few thousand filters of a system of a thousand codes: small to store, and much to look at.
MUCH: tuple[dict[str, Any], ...] = (
    {
        "resourceType": "CodeSystem",
        "id": "much",
        "url": "http://here/much",
        "status": "active",
        "content": "complete",
        "concept": [{"code": f"c{n}"} for n in range(1000)],
    },
    value_set(
        "much",
        {
            "system": "http://here/much",
            "filter": [{"property": "concept", "op": "is-not-a", "value": "c1"}] * 1000,
        },
    ),
)


@pytest.fixture
async def filled(fhir: Fhir) -> Fhir:
    """A server that has the resources."""
    written = (*RESOURCES, LIST, *DEEP, *MUCH)
    entries = (entry("PUT", f"{one['resourceType']}/{one['id']}", one) for one in written)
    answer = await fhir(bundle(*entries))
    assert answer.status == 200, answer.body
    return fhir


async def ids(fhir: Fhir, type: str, *parameters: tuple[str, str]) -> list[str]:
    request = Request("search-type", type, parameters=parameters, base_url=BASE)
    answer = json_of(await fhir(request))
    assert answer["resourceType"] == "Bundle", answer
    return sorted(one["resource"]["id"] for one in answer.get("entry", []))


async def test_what_is_found(filled: Fhir) -> None:
    """Stored value sets and hierarchies are asked wherever a parameter can stand."""
    for type, name, value, expected in FOUND:
        assert await ids(filled, type, (name, value)) == expected, (name, value)


REFUSED = [
    ("Observation", "code:in", f"{SETS}circle", "defined by itself"),
    ("Observation", "code:in", f"{SETS}foreign", f"{MISSING_SYSTEM} is not here"),
    ("Observation", "code:in", f"{SETS}nothing", "is not here"),
    ("Observation", "code:in", f"{SETS}penicillins|3", "is not here"),
    ("Observation", "code:in", f"{SETS}deep0", "more than 10 levels"),
    ("Observation", "code:in", f"{SETS}much", "too many codes"),
    ("Observation", "code:in", ",".join(f"http://no/{n}" for n in range(101)), "more than 100"),
    ("Observation", "code:below", "http://nowhere|x", "is not here"),
    ("Encounter", "location:below", "Patient/1", "the id of a Location"),
]


async def test_what_is_refused(filled: Fhir) -> None:
    """What cannot be known whole is 400, with the reason."""
    for type, name, value, expected in REFUSED:
        answer = await filled(Request("search-type", type, parameters=((name, value),)))
        assert answer.status == 400, (name, value)
        assert expected in json_of(answer)["issue"][0]["diagnostics"]


async def test_a_change_of_a_value_set_counts_at_once(filled: Fhir) -> None:
    """Nothing of a stored value set is kept between searches."""
    assert await ids(filled, "Observation", ("code:in", f"{SETS}two|9")) == ["o"]
    changed = value_set("one", PENICILLINS, url=f"{SETS}two", version="9")
    await filled(put(changed))

    assert await ids(filled, "Observation", ("code:in", f"{SETS}two|9")) == ["a"]


async def test_what_is_looked_up_is_bounded(filled: Fhir, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search looks up so many bytes and no more."""
    monkeypatch.setattr("fhir_server.interactions.asking.BYTES_MAX", 200)
    for name, value in (("code:in", f"{SETS}two|9"), ("_list", "42")):
        asked = ((name, value),)
        answer = await filled(Request("search-type", "Observation", parameters=asked))
        assert answer.status == 400
        assert "MB of other resources" in json_of(answer)["issue"][0]["diagnostics"]


async def test_over_several_types(filled: Fhir) -> None:
    """Value sets and lists can be asked of several types at once."""
    parameters = (("_type", "Observation,Encounter"), ("_tag:in", f"{SETS}penicillins"))
    answer = await filled(Request("search-system", parameters=parameters, base_url=BASE))

    assert answer.status == 200
    assert json_of(answer)["total"] == 0
    parameters = (("_list", "42"), ("_type", "Observation,Encounter,Location"))
    answer = await filled(Request("search-system", parameters=parameters, base_url=BASE))
    found = [one["resource"]["id"] for one in json_of(answer)["entry"]]
    assert found == ["e1", "o"]


async def test_a_hierarchy_is_bounded(filled: Fhir, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many parts, or too many levels, are refused; what fits is found."""
    monkeypatch.setattr("fhir_server.store.kin.KIN_MAX", 2)
    parameters = (("location:below", "house"),)
    answer = await filled(Request("search-type", "Encounter", parameters=parameters))
    assert answer.status == 400
    assert "More lies below Location/house" in json_of(answer)["issue"][0]["diagnostics"]
    assert await ids(filled, "Encounter", ("location:below", "floor")) == ["e1"]
    monkeypatch.setattr("fhir_server.store.kin.LEVELS_MAX", 1)
    answer = await filled(Request("search-type", "Encounter", parameters=parameters))
    assert answer.status == 400


def allergy(id: str, clinical: str = "", verified: str = "", **members: Any) -> dict[str, Any]:
    system = f"{_CODES}allergyintolerance-"
    statuses = {
        "clinicalStatus": ("clinical", clinical),
        "verificationStatus": ("verification", verified),
    }
    return {
        "resourceType": "AllergyIntolerance",
        "id": id,
        "patient": {"reference": "Patient/42"},
        **{
            name: {"coding": [{"system": system + suffix, "code": code}]}
            for name, (suffix, code) in statuses.items()
            if code
        },
        **members,
    }


def request_for(id: str, status: str, intent: str) -> dict[str, Any]:
    return {
        "resourceType": "MedicationRequest",
        "id": id,
        "status": status,
        "intent": intent,
        "medicationCodeableConcept": {"text": "x"},
        "subject": {"reference": "Patient/42"},
    }


def condition(id: str, clinical: str, category: str = "") -> dict[str, Any]:
    kind = {"category": [{"coding": [{"system": f"{_CODES}condition-category", "code": category}]}]}
    return {
        "resourceType": "Condition",
        "id": id,
        "clinicalStatus": {"coding": [{"system": f"{_CODES}condition-clinical", "code": clinical}]},
        "subject": {"reference": "Patient/42"},
        **(kind if category else {}),
    }


ON_LISTS = (
    allergy("active", "active", "confirmed", category=["medication"]),
    allergy("unsaid", category=["food"]),
    allergy("gone", "resolved", "confirmed"),
    allergy("wrong", "active", "refuted"),
    allergy("error", verified="entered-in-error"),
    request_for("taken", "active", "order"),
    request_for("planned", "active", "plan"),
    request_for("over", "stopped", "order"),
    condition("problem", "active", "problem-list-item"),
    condition("plain", "relapse"),
    condition("visit", "active", "encounter-diagnosis"),
    condition("healed", "remission"),
)
FUNCTIONAL = [
    ("AllergyIntolerance", "$current-allergies", ["active", "unsaid"]),
    ("AllergyIntolerance", "$current-drug-allergies", ["active"]),
    ("MedicationRequest", "$current-medications", ["taken"]),
    ("MedicationStatement", "$current-medications", []),
    ("Condition", "$current-problems", ["plain", "problem"]),
    ("Condition", "none,$current-problems", ["plain", "problem"]),
]


async def test_functional_lists(fhir: Fhir) -> None:
    """What is current is found by rule, and what says nothing about it stays on the list."""
    for resource in ON_LISTS:
        assert (await fhir(put(resource))).status == 201

    for type, name, expected in FUNCTIONAL:
        asked = (("patient", "42"), ("_list", name))
        assert await ids(fhir, type, *asked) == expected, name
        assert await ids(fhir, type, ("patient", "43"), ("_list", name)) == []


def appointment(id: str, status: str, start: str) -> dict[str, Any]:
    return {
        "resourceType": "Appointment",
        "id": id,
        "status": status,
        "start": start,
        "end": start,
        "participant": [{"actor": {"reference": "Patient/42"}, "status": "accepted"}],
    }


async def test_named_queries(fhir: Fhir) -> None:
    """A name stands for its searches, others narrow it, and no name is taken for nothing."""
    for one in (
        appointment("past", "booked", "2020-01-01T10:00:00Z"),
        appointment("next", "booked", "2999-01-01T10:00:00Z"),
        appointment("off", "cancelled", "2999-01-01T10:00:00Z"),
    ):
        assert (await fhir(put(one))).status == 201, one

    assert await ids(fhir, "Appointment", ("_query", "upcoming")) == ["next"]
    assert await ids(fhir, "Appointment", ("_query", "upcoming"), ("patient", "43")) == []
    lenient = {"handling": "lenient"}
    for prefer in ({}, lenient):
        for type, name, expected in (
            ("Appointment", "upcomin", "Did you mean upcoming?"),
            ("Appointment", "x", "It has upcoming."),
            ("Patient", "upcoming", "Patient has no named query"),
        ):
            asked = (("_query", name),)
            answer = await fhir(Request("search-type", type, parameters=asked, prefer=prefer))
            assert answer.status == 400
            assert expected in json_of(answer)["issue"][0]["diagnostics"]
