"""https://hl7.org/fhir/R4/http.html#brules"""

from typing import Any

import pytest

from fhir_server.messages import Request
from tests.conftest import Fhir
from tests.interactions.asking import (
    BASE,
    bundle,
    entry,
    issues_of,
    json_of,
    patient,
    put,
    read,
    statuses,
)

# Entry -> status, and code of the outcome's first issue where it is refused.
MIXED: dict[str, tuple[Any, str, str]] = {
    "update": (entry("PUT", "Patient/a", patient("a")), "201", ""),
    "create": (entry("POST", "Patient", {"resourceType": "Patient"}), "201", ""),
    "delete": (entry("DELETE", "Patient/gone"), "204", ""),
    "read": (entry("GET", "Patient/there"), "200", ""),
    "search": (entry("GET", "Patient?_id=there"), "200", ""),
    "search by POST": (entry("POST", "Patient/_search?_id=there"), "200", ""),
    "vread": (entry("GET", "Patient/there/_history/1"), "200", ""),
    "not modified": (entry("GET", "Patient/there", ifNoneMatch='W/"1"'), "304", ""),
    "missing": (entry("GET", "Patient/nobody"), "404", "not-found"),
    "invalid": (entry("PUT", "Patient/b", patient("b", gender="x")), "422", "code-invalid"),
    "unknown element": (entry("PUT", "Patient/b", patient("b", x=1)), "400", "structure"),
    "stale": (entry("PUT", "Patient/there", patient("there"), ifMatch='W/"9"'), "412", "conflict"),
    "unknown type": (entry("GET", "Patent/1"), "404", "not-supported"),
    "unknown parameter": (entry("GET", "Patient?shoe=43"), "400", "not-supported"),
    "no resource": (entry("PUT", "Patient/c"), "400", "structure"),
    "a text as resource": (entry("PUT", "Patient/c", "x"), "400", "structure"),
    "no such operation": (entry("POST", "Patient/$nothing"), "404", "not-supported"),
    "another server": (entry("GET", "https://elsewhere.org/fhir/Patient/1"), "400", "value"),
}


async def test_each_entry_stands_for_itself(fhir: Fhir) -> None:
    """The whole is 200; each entry has its own status, in its place, with an outcome if refused."""
    await fhir(put(patient("there")))
    await fhir(put(patient("gone")))
    response = await fhir(bundle(*(one for one, _, _ in MIXED.values()), type="batch"))
    answered = json_of(response)["entry"]

    assert response.status == 200
    assert json_of(response)["type"] == "batch-response"
    expected = {name: (status, code) for name, (_, status, code) in MIXED.items()}
    got = {}
    for name, status, one in zip(MIXED, statuses(response), answered, strict=True):
        outcome = one["response"].get("outcome", {"issue": [{"code": ""}]})
        got[name] = (status, outcome["issue"][0]["code"])
    assert got == expected
    assert (await fhir(Request("read", "Patient", "a"))).status == 200
    assert (await fhir(Request("read", "Patient", "b"))).status == 404


async def test_places_in_a_batch_are_those_in_the_bundle(fhir: Fhir) -> None:
    """An issue inside an entry says where it is in the bundle that was sent."""
    bad = entry("PUT", "Patient/b", patient("b", gender="x"))
    response = await fhir(bundle(entry("GET", "Patient?_count=1"), bad, type="batch"))
    [issue] = json_of(response)["entry"][1]["response"]["outcome"]["issue"]

    assert issue["expression"] == ["Bundle.entry[1].resource.gender"]


async def test_references_in_a_batch_stay_as_they_are(fhir: Fhir) -> None:
    """http.html#brules: entries of a batch do not refer to each other, so nothing is rewritten."""
    urn = "urn:uuid:0d5b5f0e-4bd5-4b13-9e0b-6ee2f1b6b111"
    linked = patient("b", link=[{"other": {"reference": urn}, "type": "seealso"}])
    await fhir(
        bundle(
            entry("POST", "Patient", {"resourceType": "Patient"}, urn),
            entry("PUT", "Patient/b", linked),
            type="batch",
        )
    )

    assert (await read(fhir, "Patient/b"))["link"][0]["other"]["reference"] == urn


async def test_an_entry_that_asks_for_the_head_gets_no_body(fhir: Fhir) -> None:
    """HEAD in an entry answers as GET does, without the resource (RFC 9110, 9.3.2)."""
    await fhir(put(patient("there")))
    response = await fhir(bundle(entry("HEAD", "Patient/there"), type="batch"))
    [only] = json_of(response)["entry"]

    assert only["response"]["status"].startswith("200")
    assert only["response"]["etag"] == 'W/"1"'
    assert "resource" not in only


BODIES: dict[str, Any] = {
    "nothing": None,
    "another resource": patient(),
    "a searchset": {"resourceType": "Bundle", "type": "searchset"},
    "no type": {"resourceType": "Bundle"},
    "entries that are an object": {"resourceType": "Bundle", "type": "transaction", "entry": {}},
    "entries that are a text": {"resourceType": "Bundle", "type": "transaction", "entry": "x"},
    "no entries in a list": {"resourceType": "Bundle", "type": "transaction", "entry": []},
    "entries that are null": {"resourceType": "Bundle", "type": "batch", "entry": None},
    "entries that are a number": {"resourceType": "Bundle", "type": "batch", "entry": 5},
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_what_is_no_batch_and_no_transaction(fhir: Fhir, body: Any) -> None:
    """Another body at the base is refused with 400."""
    response = await fhir(Request("transaction", body=body, base_url=BASE))

    assert response.status == 400
    assert issues_of(response)
