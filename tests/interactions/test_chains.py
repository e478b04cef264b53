"""https://hl7.org/fhir/R4/search.html#chaining and https://hl7.org/fhir/R4/search.html#has

Each search is asked twice: once with what the inner side has put into the filter, once with every
candidate looked up. Both find the same.
"""

from typing import Any

import pytest

from fhir_server.messages import Request
from fhir_server.store import joins
from tests.conftest import Fhir
from tests.interactions.asking import BASE, json_of, put

QUESTIONNAIRE = "http://x/q"


def _observation(id: str, patient: str, code: str, **members: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": id,
        "status": "final",
        "code": {"coding": [{"code": code}]},
        "subject": {"reference": patient},
        **members,
    }


def _response(id: str, questionnaire: str) -> dict[str, Any]:
    return {
        "resourceType": "QuestionnaireResponse",
        "id": id,
        "status": "completed",
        "questionnaire": questionnaire,
    }


def _patient(id: str, family: str, **members: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": id, "name": [{"family": family}], **members}


def _questionnaire(id: str, version: str, title: str) -> dict[str, Any]:
    return {
        "resourceType": "Questionnaire",
        "id": id,
        "status": "active",
        "url": QUESTIONNAIRE,
        "version": version,
        "title": title,
    }


RESOURCES = [
    {"resourceType": "Organization", "id": "o1", "name": "North"},
    {"resourceType": "Organization", "id": "o2", "name": "South"},
    _patient("a", "Ahmed", gender="male", managingOrganization={"reference": "Organization/o1"}),
    _patient("b", "Begum", gender="female", managingOrganization={"reference": "Organization/o2"}),
    {"resourceType": "Patient", "id": "c"},
    {"resourceType": "Device", "id": "a", "deviceName": [{"name": "Ahmed", "type": "other"}]},
    _observation("a1", "Patient/a", "bp"),
    _observation("a2", "Patient/a/_history/1", "hr"),
    _observation("b1", "Patient/b", "bp", hasMember=[{"reference": "Observation/a1"}]),
    _observation("c1", "Patient/c", "glu"),
    _observation("d1", "Device/a", "temp"),
    _observation("x1", "Patient/gone", "bp"),
    _observation("y1", "http://elsewhere/Patient/a", "bp"),
    _questionnaire("q1", "1", "First"),
    _questionnaire("q2", "2", "Second"),
    _response("r0", QUESTIONNAIRE),
    _response("r1", f"{QUESTIONNAIRE}|1"),
    _response("r2", f"{QUESTIONNAIRE}|2"),
    _patient("gone", "Ahmed"),
]

# search -> ids of what it finds
CASES = {
    "Observation?subject:Patient.name=ahmed": "a1 a2",
    "Observation?subject.name=ahmed": "a1 a2",
    "Observation?subject:Device.device-name=ahmed": "d1",
    "Observation?patient.name=ahmed,begum": "a1 a2 b1",
    "Observation?patient.name:exact=ahmed": "",
    "Observation?patient.gender:not=male": "b1 c1",
    "Observation?patient.gender:missing=true": "c1",
    "Observation?patient._id=a,c": "a1 a2 c1",
    "Observation?subject._id=a": "a1 a2 d1",
    "Observation?patient._lastUpdated=gt2000": "a1 a2 b1 c1",
    "Observation?patient._lastUpdated=lt2000": "",
    "Observation?patient.organization.name=north": "a1 a2",
    "Observation?patient.organization.name=north&code=hr": "a2",
    "Observation?patient.organization.name=north&patient.name=begum": "",
    "Observation?patient.organization=o2": "b1",
    "Observation?has-member.patient.name=ahmed": "b1",
    "Patient?_has:Observation:patient:code=bp": "a b",
    "Patient?_has:Observation:patient:code=bp&_has:Observation:patient:code=hr": "a",
    "Patient?_has:Observation:patient:code=bp&gender=female": "b",
    "Patient?_has:Observation:patient:code:not=bp": "a c",
    "Patient?_has:Observation:subject:has-member.code=bp": "b",
    "Patient?_has:Observation:patient:_has:Observation:has-member:patient=b": "a",
    "Organization?_has:Patient:organization:_has:Observation:patient:code=hr": "o1",
    "Observation?patient._has:Observation:patient:code=hr": "a1 a2",
    "QuestionnaireResponse?questionnaire.title=first": "r0 r1",
    "QuestionnaireResponse?questionnaire.title=first,second": "r0 r1 r2",
    "Questionnaire?_has:QuestionnaireResponse:questionnaire:_id=r1": "q1",
    "Questionnaire?_has:QuestionnaireResponse:questionnaire:_id=r0": "q1 q2",
    "Questionnaire?_has:QuestionnaireResponse:questionnaire:_id=r1,r2": "q1 q2",
    "Observation?_filter=subject.name co hme": "a1 a2",
    "Observation?_filter=subject:Patient.name eq ahmed and code eq hr": "a2",
    "Observation?_filter=subject:Device.device-name sw ah or code eq glu": "c1 d1",
    "Observation?_filter=not (subject:Patient.name eq ahmed)": "b1 c1 d1 x1 y1",
    "Observation?_filter=code eq bp and not (patient.name eq ahmed)": "b1 x1 y1",
    "Observation?_filter=(patient.name eq ahmed or patient.name eq begum) and code eq bp": "a1 b1",
    "Observation?_filter=not (patient.name eq ahmed or not (code eq bp))": "b1 x1 y1",
    "Observation?_filter=patient.organization.name eq north": "a1 a2",
    "Observation?_filter=patient[gender eq male].name eq ahmed": "a1 a2",
    "Observation?_filter=patient[gender eq female].name eq ahmed": "",
    "Observation?_filter=patient[organization.name eq south].gender pr true": "b1",
    "Observation?_filter=has-member[code eq bp].patient.name eq ahmed": "b1",
    "Observation?_filter=patient.name pr false": "c1",
    "Observation?_filter=patient.name eq ahmed&code=hr": "a2",
    "Observation?_filter=patient.name eq ahmed&patient.gender=female": "",
    "Observation?_filter=not (encounter.status eq finished) and code eq hr": "a2",
    "QuestionnaireResponse?_filter=questionnaire.title eq first": "r0 r1",
    "QuestionnaireResponse?_filter=not (questionnaire.title eq first)": "r2",
    "Encounter?patient.name=ahmed": "",
    "Observation?encounter.status=finished": "",
}


@pytest.fixture(params=["listed", "looked up"])
async def filled(request: Any, fhir: Fhir, monkeypatch: pytest.MonkeyPatch) -> Fhir:
    """The front door of a server with the resources; Patient/gone is deleted."""
    if request.param == "looked up":
        for name in ("ONE_PAGE", "FEW", "MANY"):
            monkeypatch.setattr(joins, name, joins.Bounds(-1, -1))
    for one in RESOURCES:
        assert (await fhir(put(one))).status == 201
    await fhir(Request("delete", "Patient", "gone"))
    return fhir


def _request(search: str, *more: tuple[str, str]) -> Request:
    type, _, query = search.partition("?")
    pairs = [one.partition("=") for one in query.split("&")]
    parameters = (*((name, value) for name, _, value in pairs), *more)
    return Request("search-type", type, parameters=parameters, base_url=BASE)


async def test_chains_find_what_they_say(filled: Fhir) -> None:
    """Every search of the table, in every order, with its total, and on pages of one."""
    for search, ids in CASES.items():
        for sort in ("_id", "-_lastUpdated", "-date,_id", "date"):
            more = (("_sort", sort), ("_total", "accurate"))
            if not search.startswith("Observation"):
                more = (("_sort", "_id"), ("_total", "accurate"))
            answer = json_of(await filled(_request(search, *more)))
            found = [one["resource"]["id"] for one in answer.get("entry", [])]
            assert (sorted(found), answer["total"]) == (ids.split(), len(found)), (search, sort)
        answer = json_of(await filled(_request(search, ("_count", "1"))))
        assert [one["resource"]["id"] for one in answer.get("entry", [])] == ids.split()[:1]
        assert any(link["relation"] == "next" for link in answer["link"]) == (len(ids.split()) > 1)


LEAVES = (
    "code eq bp",
    "patient.name eq ahmed",
    "patient[gender eq female].organization.name eq south",
    "not (subject:Device.device-name eq ahmed)",
    "(patient._id eq c or has-member.code eq bp)",
)


async def test_filters_are_sets(filled: Fhir) -> None:
    """``and`` is what both find, ``or`` what either finds, ``not`` the rest, however they mix."""

    async def found(text: str) -> set[str]:
        answer = json_of(await filled(_request(f"Observation?_filter={text}")))
        return {one["resource"]["id"] for one in answer.get("entry", [])}

    every = await found("_id pr true")
    alone = {leaf: await found(leaf) for leaf in LEAVES}
    assert all(0 < len(some) < len(every) for some in alone.values()), alone
    for left in LEAVES:
        assert await found(f"not ({left})") == every - alone[left]
        for right in LEAVES:
            assert await found(f"{left} and {right}") == alone[left] & alone[right]
            assert await found(f"{left} or {right}") == alone[left] | alone[right]
            assert await found(f"not ({left} or not ({right}))") == alone[right] - alone[left]
