# https://hl7.org/fhir/R4/search.html#contained
"""``_contained`` and ``_containedType``, on a real database."""

from typing import Any

import pytest

from fhir_server.app import Server
from fhir_server.messages import Request
from fhir_server.store.documents import PRESENT
from tests.conftest import Fhir
from tests.interactions.asking import BASE, json_of, put

RX = "http://rx"


def medication(id: str, code: str, **members: Any) -> dict[str, Any]:
    coding = {"system": RX, "code": code}
    return {"resourceType": "Medication", "id": id, "code": {"coding": [coding]}, **members}


def order(id: str, *contained: dict[str, Any], patient: str = "1") -> dict[str, Any]:
    medication = (
        {"medicationReference": {"reference": f"#{contained[0]['id']}"}}
        if contained
        else {"medicationCodeableConcept": {"text": "x"}}
    )
    others = [{"reference": f"#{one['id']}"} for one in contained[1:]]
    return {
        "resourceType": "MedicationRequest",
        "id": id,
        "status": "active",
        "intent": "order",
        "subject": {"reference": f"Patient/{patient}"},
        **medication,
        **({"contained": [*contained]} if contained else {}),
        **({"supportingInformation": others} if others else {}),
    }


RESOURCES: tuple[dict[str, Any], ...] = (
    medication("m1", "aspirin", status="active"),
    medication("m2", "codeine"),
    order("r1", medication("a", "aspirin", status="inactive")),
    order(
        "r2",
        medication("b", "codeine"),
        {"resourceType": "Condition", "id": "c", "subject": {"reference": "Patient/2"}},
        patient="2",
    ),
    order(
        "r3",
        medication("a", "aspirin", batch={"expirationDate": "2030-01-01"}),
        medication("b", "aspirin", manufacturer={"reference": "Organization/o"}),
        {"resourceType": "Organization", "id": "aspirin", "name": "Aspirin Makers"},
    ),
    order("r4"),
    {
        "resourceType": "MedicationStatement",
        "id": "s1",
        "status": "active",
        "subject": {"reference": "Patient/1"},
        "medicationReference": {"reference": "#z"},
        "contained": [medication("z", "aspirin")],
    },
    medication(
        "m3",
        "aspirin",
        ingredient=[{"itemReference": {"reference": "#i"}}],
        contained=[medication("i", "aspirin")],
    ),
)
R, S = "MedicationRequest", "MedicationStatement"
CODE = ("code", f"{RX}|aspirin")
BOTH, TRUE, ALONE = ("_contained", "both"), ("_contained", "true"), ("_containedType", "contained")
FOUND: list[tuple[tuple[tuple[str, str], ...], str]] = [
    ((CODE,), "Medication/m1 Medication/m3"),
    ((CODE, ("_contained", "false"), ALONE), "Medication/m1 Medication/m3"),
    ((CODE, TRUE), f"Medication/m3 {R}/r1 {R}/r3 {S}/s1"),
    ((CODE, TRUE, ALONE), f"Medication/m3#i {R}/r1#a {R}/r3#a {R}/r3#b {S}/s1#z"),
    ((CODE, BOTH), f"Medication/m1 Medication/m3 {R}/r1 {R}/r3 {S}/s1"),
    (
        (CODE, BOTH, ALONE),
        f"Medication/m1 Medication/m3 Medication/m3#i {R}/r1#a {R}/r3#a {R}/r3#b {S}/s1#z",
    ),
    ((("status", "inactive"), TRUE, ALONE), f"{R}/r1#a"),
    ((CODE, ("status:missing", "false"), TRUE, ALONE), f"{R}/r1#a"),
    ((("code:not", "aspirin"), TRUE, ALONE), f"{R}/r2#b"),
    ((("expiration-date", "gt2029"), TRUE, ALONE), f"{R}/r3#a"),
    ((("manufacturer", "Organization/o"), CODE, TRUE, ALONE), f"{R}/r3#b"),
    # Both must be true of one and the same contained resource.
    ((("manufacturer", "Organization/o"), ("expiration-date", "gt2029"), TRUE), ""),
    ((("_id", "z"), TRUE), f"{S}/s1"),
    (
        (("_filter", "code eq aspirin and not (status eq inactive)"), TRUE, ALONE),
        f"Medication/m3#i {R}/r3#a {R}/r3#b {S}/s1#z",
    ),
    ((("code", "nothing"), BOTH, ALONE), ""),
]


@pytest.fixture
async def filled(fhir: Fhir) -> Fhir:
    """A server that has the resources."""
    for resource in RESOURCES:
        assert (await fhir(put(resource))).status == 201, resource
    return fhir


async def answer(fhir: Fhir, *parameters: tuple[str, str], type: str = "Medication") -> Any:
    request = Request("search-type", type, parameters=parameters, base_url=BASE)
    return json_of(await fhir(request))


def addresses(found: Any) -> str:
    return " ".join(one["fullUrl"].removeprefix(f"{BASE}/") for one in found.get("entry", ()))


async def test_what_is_found(filled: Fhir) -> None:
    """Containers or what they contain, each once, under its address, and page by page."""
    for parameters, expected in FOUND:
        whole = await answer(filled, *parameters)
        assert whole["resourceType"] == "Bundle", whole
        assert addresses(whole) == expected, parameters
        assert whole["total"] == len(expected.split())
        for one in whole.get("entry", ()):
            resource = one["resource"]
            _, hash, id = one["fullUrl"].partition("#")
            assert one["fullUrl"].startswith(f"{BASE}/{resource['resourceType']}/") or hash
            assert not hash or (resource["resourceType"], resource["id"]) == ("Medication", id)
        paged: list[str] = []
        after: tuple[tuple[str, str], ...] = ()
        while True:
            page = await answer(filled, *parameters, ("_count", "1"), *after)
            paged.append(addresses(page))
            links = {one["relation"]: one["url"] for one in page["link"]}
            if "next" not in links:
                break
            after = (("_cursor", links["next"].partition("_cursor=")[2]),)
        assert " ".join(filter(None, paged)) == expected


async def test_totals_compartments_and_other_types(filled: Fhir) -> None:
    """Containers are counted; a compartment is that of the container."""
    assert (await answer(filled, CODE, TRUE, ("_summary", "count")))["total"] == 4
    assert (await answer(filled, CODE, BOTH, ("_total", "accurate"), ("_count", "1")))["total"] == 5
    for patient, expected in (("1", ""), ("2", f"{R}/r2")):
        request = Request(
            "search-compartment", "Patient", patient, "Condition", parameters=(TRUE,), base_url=BASE
        )
        assert addresses(json_of(await filled(request))) == expected
    named = await answer(filled, ("name", "aspirin"), TRUE, ALONE, type="Organization")
    assert addresses(named) == f"{R}/r3#aspirin"


REFUSED = [
    ((TRUE, ("manufacturer.name", "x")), "chains"),
    ((TRUE, ("_sort", "code")), "_sort"),
    ((TRUE, ("_include", "Medication:manufacturer")), "_include"),
    ((TRUE, ("_list", "1")), "_list"),
    ((TRUE, ("_lastUpdated", "2020")), "_lastUpdated"),
    ((TRUE, ("_text", "x")), "_text"),
    ((TRUE, ALONE, ("_total", "accurate")), "total"),
    ((("_contained", "maybe"),), "false, true, both"),
    ((TRUE, ("_containedType", "box")), "container, contained"),
]


@pytest.mark.parametrize(("parameters", "expected"), REFUSED)
async def test_what_is_refused(
    fhir: Fhir, parameters: tuple[tuple[str, str], ...], expected: str
) -> None:
    """What cannot be asked of contained resources is 400 and says so."""
    found = await answer(fhir, *parameters)

    assert found["resourceType"] == "OperationOutcome"
    assert expected in found["issue"][0]["diagnostics"]


async def test_only_what_contains_something_carries_keys_for_it(
    filled: Fhir, server: Server
) -> None:
    """Other documents are as they were, and an update takes away what is no longer contained."""
    rows = {row["_id"]: row async for row in server.database[R].find({})}
    assert "contained" not in rows["r4"]
    [first] = rows["r1"]["contained"]
    assert (first["_id"], first["type"]) == ("a", "Medication")
    assert first["keys"]["code"] == [f"aspirin\x1f{RX}"]

    assert (await filled(put(order("r1")))).status == 200
    assert addresses(await answer(filled, ("status", "inactive"), TRUE)) == ""


async def test_an_index_answers(filled: Fhir, server: Server) -> None:
    """Contained resources are found by the wildcard index, not by looking at every document."""
    many = [order(f"n{n}", medication("a", f"c{n}")) for n in range(200)]
    for one in many:
        await filled(put(one))
    inside = {"type": "Medication", "keys.code": f"c7\x1f{RX}"}
    wanted = {"contained": {"$elemMatch": inside}, **PRESENT}
    plan = await server.database[R].find(wanted).explain()

    assert plan["executionStats"]["nReturned"] == 1
    assert plan["executionStats"]["totalDocsExamined"] < 10
