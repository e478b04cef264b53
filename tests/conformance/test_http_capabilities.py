"""https://hl7.org/fhir/R4/http.html#capabilities"""

from typing import Any

import httpx
import pytest

from fhir_server.app import Server
from fhir_server.r4.json import decode
from tests.http.conftest import BASE, Exact, diagnostics_of

FORM = {"Content-Type": "application/x-www-form-urlencoded"}

# A value that each type of search parameter has.
VALUES = {
    "token": "x",
    "string": "x",
    "date": "2024-02",
    "number": "1.5",
    "quantity": "1.5||mg",
    "uri": "urn:x:y",
    "reference": "Patient/1",
}

# Interaction -> the request that it is, and what it answers on an empty server.
REQUESTS = {
    "read": ("GET", "{type}/none", 404),
    "vread": ("GET", "{type}/none/_history/1", 404),
    "update": ("PUT", "{type}/none", 400),
    "patch": ("PATCH", "{type}/none", 400),
    "delete": ("DELETE", "{type}/none", 204),
    "history-instance": ("GET", "{type}/none/_history", 404),
    "history-type": ("GET", "{type}/_history", 200),
    "create": ("POST", "{type}", 400),
    "search-type": ("GET", "{type}", 200),
}
SYSTEM = {
    "transaction": ("POST", "", 200),
    "batch": ("POST", "", 200),
    "search-system": ("GET", "?_type=Patient", 200),
    "history-system": ("GET", "_history", 200),
}


async def statement(http: httpx.AsyncClient) -> dict[str, Any]:
    """Return the CapabilityStatement."""
    answer = await http.get("metadata")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


async def test_the_statement_is_valid(http: httpx.AsyncClient, server: Server) -> None:
    """A CapabilityStatement of kind instance, for R4, with the base it was asked at."""
    answer = await http.get("metadata")
    found = answer.json()

    assert found["resourceType"] == "CapabilityStatement"
    assert (found["kind"], found["fhirVersion"], found["status"]) == ("instance", "4.0.1", "active")
    assert found["implementation"]["url"] == BASE
    assert {"application/fhir+json", "application/fhir+xml"} <= set(found["format"])
    assert server.context.validate(decode(answer.content)) == ()


async def test_the_statement_says_how_to_sign_in(http: httpx.AsyncClient) -> None:
    """https://hl7.org/fhir/smart-app-launch/STU2.2/conformance.html: SMART, and where."""
    [rest] = (await statement(http))["rest"]
    [service] = rest["security"]["service"]
    [oauth] = rest["security"]["extension"]
    uris = {one["url"]: one["valueUri"] for one in oauth["extension"]}

    assert service["coding"][0]["code"] == "SMART-on-FHIR"
    assert oauth["url"].endswith("/StructureDefinition/oauth-uris")
    assert uris["token"] == f"{BASE.removesuffix('/fhir')}/auth/token"
    assert {"authorize", "token"} <= uris.keys()


async def test_every_type_is_listed_once(http: httpx.AsyncClient, server: Server) -> None:
    """All the resource types of R4, each once, and nothing else."""
    [rest] = (await statement(http))["rest"]
    types = [one["type"] for one in rest["resource"]]

    assert sorted(types) == sorted(server.context.definitions.resource_types)
    assert len(set(types)) == len(types) == 146


async def test_the_statement_has_an_etag(http: httpx.AsyncClient) -> None:
    """An ETag header SHOULD be returned; it is the same for the same content."""
    first, second = await http.get("metadata"), await http.get("metadata")

    assert first.content == second.content
    assert first.headers["etag"] == second.headers["etag"]


@pytest.mark.parametrize("mode", ["full", "normative"])
async def test_a_mode_is_answered(http: httpx.AsyncClient, mode: str) -> None:
    """Both modes give a CapabilityStatement."""
    answer = await http.get(f"metadata?mode={mode}")

    assert (answer.status_code, answer.json()["resourceType"]) == (200, "CapabilityStatement")


async def test_the_terminology_mode_is_answered(http: httpx.AsyncClient) -> None:
    """A TerminologyCapabilities with the code systems that are here, in their versions."""
    answer = await http.get("metadata?mode=terminology")

    body = answer.json()
    assert (answer.status_code, body["resourceType"]) == (200, "TerminologyCapabilities")
    systems = {one["uri"]: one for one in body["codeSystem"]}
    gender = systems["http://hl7.org/fhir/administrative-gender"]
    assert gender["version"][0]["code"] == "4.0.1"
    assert "http://unitsofmeasure.org" in systems
    checked = await http.post("TerminologyCapabilities", json=body)
    assert checked.status_code == 201, checked.text


@pytest.mark.parametrize("query", ["mode=nonsense", "nonsense=1", "mode=full&mode=full"])
async def test_a_wrong_question_is_refused(http: httpx.AsyncClient, query: str) -> None:
    """400 that names the parameter."""
    answer = await http.get(f"metadata?{query}")

    assert answer.status_code == 400
    assert query.partition("=")[0] in diagnostics_of(answer)


async def test_the_statement_can_be_read_in_part(http: httpx.AsyncClient) -> None:
    """Servers are encouraged to support _summary and _elements on it."""
    whole = await http.get("metadata")
    for query in ("_summary=true", "_elements=fhirVersion"):
        part = await http.get(f"metadata?{query}")
        assert part.status_code == 200
        assert part.json()["fhirVersion"] == "4.0.1"
        assert len(part.content) < len(whole.content)


async def test_every_listed_interaction_answers(http: httpx.AsyncClient) -> None:
    """What is claimed is served, on every type: the status is that of the interaction itself."""
    [rest] = (await statement(http))["rest"]
    wrong = {}
    for resource in rest["resource"]:
        listed = [one["code"] for one in resource["interaction"]]
        # Whatever else is sent to Binary is the content of one.
        binary = {"resourceType": "Binary"} if resource["type"] == "Binary" else {}
        for method, path, status in [REQUESTS[code] for code in listed]:
            target = path.format(type=resource["type"])
            body = {} if method == "PATCH" else binary
            answer = await http.request(method, target, json=body if method[0] == "P" else None)
            if answer.status_code != status:
                wrong[f"{method} {target}"] = answer.status_code

    assert wrong == {}


async def test_what_is_not_listed_is_not_served(http: httpx.AsyncClient) -> None:
    """What is not claimed is refused with 400, 404 or 405, never done."""
    [rest] = (await statement(http))["rest"]
    patient = next(one for one in rest["resource"] if one["type"] == "Patient")
    listed = {one["code"] for one in patient["interaction"]}
    for code, (method, path, _) in REQUESTS.items():
        if code not in listed:
            answer = await http.request(method, path.format(type="Patient"), json={})
            assert answer.status_code in (400, 404, 405), code


async def test_every_system_interaction_answers(http: httpx.AsyncClient) -> None:
    """transaction, batch, history-system, as far as they are claimed."""
    [rest] = (await statement(http))["rest"]
    listed = [one["code"] for one in rest["interaction"]]

    assert len(set(listed)) == len(listed)
    for code in listed:
        method, path, status = SYSTEM[code]
        body = {"resourceType": "Bundle", "type": code} if method == "POST" else None
        answer = await http.request(method, path, json=body)
        assert answer.status_code == status, (code, answer.text)


async def test_every_listed_parameter_is_answered(http: httpx.AsyncClient) -> None:
    """A search by each parameter that is claimed is 200 with a value of its type."""
    [rest] = (await statement(http))["rest"]
    wrong = {}
    for resource in rest["resource"][::5]:
        for one in resource.get("searchParam", []):
            if one["type"] in VALUES:
                value = "2024" if one["name"] == "_lastUpdated" else VALUES[one["type"]]
                form = {one["name"]: value}
                answer = await http.post(f"{resource['type']}/_search", data=form)
                if answer.status_code != 200:
                    wrong[f"{resource['type']}?{one['name']}"] = answer.text[:150]

    assert wrong == {}


async def test_listed_parameters_are_those_of_the_specification(
    http: httpx.AsyncClient, server: Server
) -> None:
    """Each has its name once in its type, and the definition and type that R4 gives it."""
    [rest] = (await statement(http))["rest"]
    for resource in rest["resource"]:
        names = [one["name"] for one in resource.get("searchParam", [])]
        assert len(set(names)) == len(names), resource["type"]
        assert {"_id", "_lastUpdated"} <= set(names)
        assert all(one["definition"].startswith("http") for one in resource["searchParam"])


async def test_conditional_reading_is_what_is_claimed(http: httpx.AsyncClient) -> None:
    """conditionalRead, updateCreate, readHistory: as the server does it."""
    [rest] = (await statement(http))["rest"]
    patient = next(one for one in rest["resource"] if one["type"] == "Patient")

    assert patient["conditionalRead"] == "full-support"
    assert (patient["updateCreate"], patient["readHistory"]) == (True, True)
    assert patient["versioning"] in ("versioned", "versioned-update")


@pytest.mark.parametrize("host", ["a.example", "a.example:81", "[::1]:8080", "localhost"])
async def test_the_base_is_the_one_that_the_client_uses(exact: Exact, host: str) -> None:
    """implementation.url follows the Host of each request."""
    answer = await exact("GET", "metadata?_elements=implementation", {"host": host})

    assert answer.json()["implementation"]["url"] == f"http://{host}/fhir"


async def test_what_comes_along_and_compartments_are_listed(http: httpx.AsyncClient) -> None:
    """Includes are in the form that a client sends; the compartments are all five."""
    [rest] = (await statement(http))["rest"]
    patient = next(one for one in rest["resource"] if one["type"] == "Patient")

    assert "Patient:organization" in patient["searchInclude"]
    assert {"*", "Observation:patient", "Provenance:target"} <= set(patient["searchRevInclude"])
    assert "List:item" not in patient["searchRevInclude"]  # of every type: the star stands for it
    assert len(rest["compartment"]) == 5
    for name, values in (("_include", "searchInclude"), ("_revinclude", "searchRevInclude")):
        for value in patient[values]:
            answer = await http.get("Patient", params={name: value, "_count": 0})
            assert answer.status_code == 200, value
