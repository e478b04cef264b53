"""resource-operation-validate.html over HTTP: JSON and XML, GET and POST.

https://hl7.org/fhir/R4/resource-operation-validate.html
"""

import httpx
import pytest

from tests.http.conftest import BASE

PACK = "urn:fhir-server:bd.core:StructureDefinition:bd-patient"
JSON = b'{"resourceType":"Patient",\n "gender":"mail"}'
XML = b'<Patient xmlns="http://hl7.org/fhir">\n  <gender value="mail"/>\n</Patient>'
WRAPPED = (
    b'<Parameters xmlns="http://hl7.org/fhir"><parameter><name value="resource"/><resource>\n'
    + XML.replace(b' xmlns="http://hl7.org/fhir"', b"")
    + b"</resource></parameter></Parameters>"
)
BODIES = {
    "JSON": ("application/fhir+json", JSON, (2, 2)),
    "XML": ("application/fhir+xml", XML, (2, 3)),
    "Parameters in XML": ("application/fhir+xml", WRAPPED, (3, 3)),
}


@pytest.mark.parametrize(("kind", "body", "place"), BODIES.values(), ids=BODIES)
async def test_what_is_wrong_with_a_body(
    http: httpx.AsyncClient, kind: str, body: bytes, place: tuple[int, int]
) -> None:
    """Whatever is wrong, the answer is 200; line and column are those of the text that was sent."""
    headers = {"content-type": kind, "accept": "application/fhir+json"}
    response = await http.post(f"{BASE}/Patient/$validate", content=body, headers=headers)
    [issue] = response.json()["issue"]

    assert response.status_code == 200
    assert issue["expression"] == ["Patient.gender"]
    assert tuple(one["valueInteger"] for one in issue["extension"]) == place


async def test_a_profile_that_comes_with_the_server(http: httpx.AsyncClient) -> None:
    """A profile on disk needs nobody to add it; on an instance, GET judges what is stored."""
    headers = {"content-type": "application/fhir+json"}
    body = b'{"resourceType":"Patient","id":"x","name":[{"text":"Rahima"}],"gender":"female"}'
    await http.put(f"{BASE}/Patient/x", content=body, headers=headers)
    stored = await http.get(f"{BASE}/Patient/x/$validate", params={"profile": PACK})
    sent = await http.post(
        f"{BASE}/Patient/$validate", params={"profile": PACK}, content=JSON, headers=headers
    )

    assert "error" not in [one["severity"] for one in stored.json()["issue"]]
    assert any("name is missing" in one["diagnostics"] for one in sent.json()["issue"])


async def test_the_answer_in_xml(http: httpx.AsyncClient) -> None:
    """Who asks for XML gets it, extensions of issues included."""
    headers = {"content-type": "application/fhir+xml", "accept": "application/fhir+xml"}
    response = await http.post(f"{BASE}/Patient/$validate", content=XML, headers=headers)

    assert response.headers["content-type"].startswith("application/fhir+xml")
    assert b"operationoutcome-issue-line" in response.content


BROKEN = {
    "JSON": ("application/fhir+json", b'{"resourceType":'),
    "XML": ("application/fhir+xml", b"<Patient"),
    "nothing": ("application/fhir+json", b""),
}


@pytest.mark.parametrize(("kind", "body"), BROKEN.values(), ids=BROKEN)
async def test_a_body_that_is_no_resource(http: httpx.AsyncClient, kind: str, body: bytes) -> None:
    """What cannot be read cannot be judged: the operation is refused."""
    headers = {"content-type": kind}
    response = await http.post(f"{BASE}/Patient/$validate", content=body, headers=headers)

    assert response.status_code == 400
    assert response.json()["resourceType"] == "OperationOutcome"
