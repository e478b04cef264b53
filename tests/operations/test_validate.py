"""$validate: https://hl7.org/fhir/R4/resource-operation-validate.html"""

from typing import Any

import pytest

from fhir_server.app import Server
from fhir_server.messages import Request, Response
from fhir_server.r4.json import decode
from fhir_server.settings import Settings
from tests.conftest import Fhir
from tests.test_packages import URL, profile

PATIENT: dict[str, Any] = {"resourceType": "Patient", "id": "x", "name": [{"family": "Rahman"}]}
NAMELESS: dict[str, Any] = {"resourceType": "Patient", "id": "x", "active": True}
LINE = "http://hl7.org/fhir/StructureDefinition/operationoutcome-issue-line"
COLUMN = "http://hl7.org/fhir/StructureDefinition/operationoutcome-issue-col"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A server that keeps what others refer to."""
    return settings.model_copy(update={"referential_integrity": ("Patient",)})


@pytest.fixture(autouse=True)
async def stored_profile(fhir: Fhir) -> None:
    """A profile that demands a name."""
    body = profile("p")
    assert (await fhir(Request("update", "StructureDefinition", "p", body=body))).status == 201


def parameters(**values: Any) -> dict[str, Any]:
    """The Parameters that carry ``values``."""
    members = {"resource": "resource", "mode": "valueCode", "profile": "valueUri"}
    return {
        "resourceType": "Parameters",
        "parameter": [{"name": name, members[name]: one} for name, one in values.items()],
    }


def said(response: Response) -> list[tuple[str, str, str]]:
    """Severity, expression and sentence of each issue; the operation has succeeded."""
    assert response.status == 200, response.body
    return [
        (one["severity"], one.get("expression", [""])[0], one["diagnostics"])
        for one in decode(response.body)["issue"]
    ]


def errors(response: Response) -> str:
    return " ".join(text for severity, _, text in said(response) if severity == "error")


async def test_nothing_is_wrong(fhir: Fhir) -> None:
    """A valid resource has one issue, an information."""
    found = said(await fhir(Request("$validate", "Patient", body=PATIENT)))

    assert found == [("information", "", "All OK: nothing is wrong.")]


WAYS: dict[str, Request] = {
    "as the body": Request(
        "$validate", "Patient", body=NAMELESS, parameters=(("profile", URL + "p"),)
    ),
    "in Parameters": Request(
        "$validate", "Patient", body=parameters(resource=NAMELESS, profile=URL + "p")
    ),
    "by its own meta": Request(
        "$validate", "Patient", body={**NAMELESS, "meta": {"profile": [URL + "p"]}}
    ),
    "with its version": Request(
        "$validate", "Patient", body=parameters(profile=URL + "p|1.0.0", resource=NAMELESS)
    ),
    "on an instance": Request(
        "$validate", "Patient", "x", body=NAMELESS, parameters=(("profile", URL + "p"),)
    ),
}


@pytest.mark.parametrize("request_", WAYS.values(), ids=WAYS)
async def test_a_profile_is_held_against_a_resource(fhir: Fhir, request_: Request) -> None:
    """Wherever the resource and the profile stand, what is missing is said, each time again."""
    for _ in range(2):
        [(severity, expression, text)] = said(await fhir(request_))

        assert (severity, expression) == ("error", "Patient")
        assert "name is missing" in text
        assert URL + "p" in text


async def test_a_stored_resource_is_meant_where_none_is_sent(fhir: Fhir) -> None:
    """GET on an instance judges what is stored, of any version of it the current one."""
    await fhir(Request("update", "Patient", "x", body=NAMELESS))
    asked = (("profile", URL + "p"),)
    found = await fhir(Request("$validate", "Patient", "x", parameters=asked, reading=True))

    assert "name is missing" in errors(found)
    assert (await fhir(Request("$validate", "Patient", "none"))).status == 404
    assert (await fhir(Request("$validate", "Patient"))).status == 400


async def test_an_unknown_profile_is_an_error_that_names_it(fhir: Fhir) -> None:
    """Nobody is to believe that something was checked which was not."""
    body = parameters(resource=PATIENT, profile="http://nowhere.example.org/profile")
    found = errors(await fhir(Request("$validate", "Patient", body=body)))

    assert "http://nowhere.example.org/profile" in found


async def test_structure_and_profile_are_judged_together(fhir: Fhir) -> None:
    """A name that R4 does not have and one that the profile demands are both said."""
    body = {**NAMELESS, "gendre": "male", "meta": {"profile": [URL + "p"]}}
    found = said(await fhir(Request("$validate", "Patient", body=body)))

    assert {expression for _, expression, _ in found} == {"Patient", "Patient.gendre"}
    assert "Did you mean gender?" in found[-1][2]


async def test_a_changed_profile_holds_at_once(fhir: Fhir) -> None:
    """What this process has changed, it judges by from then on."""
    request = Request("$validate", "Patient", body=parameters(resource=PATIENT, profile=URL + "p"))
    assert errors(await fhir(request)) == ""
    element = [{"id": "Patient.gender", "path": "Patient.gender", "min": 1}]
    body = profile("p", differential={"element": element})
    await fhir(Request("update", "StructureDefinition", "p", body=body))

    assert "gender is missing" in errors(await fhir(request))
    await fhir(Request("delete", "StructureDefinition", "p"))
    assert "not known here" in errors(await fhir(request))


MODES: dict[str, tuple[Request, str]] = {
    "create": (
        Request("$validate", "Patient", body=parameters(mode="create", resource=PATIENT)),
        "",
    ),
    "update": (
        Request("$validate", "Patient", "x", body=parameters(mode="update", resource=PATIENT)),
        "",
    ),
    "update of another": (
        Request("$validate", "Patient", "y", body=parameters(mode="update", resource=PATIENT)),
        "needs that id",
    ),
    "another type": (Request("$validate", "Observation", body=PATIENT), "is a 'Patient'"),
    "a search parameter that cannot be served": (
        Request(
            "$validate",
            "SearchParameter",
            body={
                "resourceType": "SearchParameter",
                "url": "http://example.org/s",
                "name": "S",
                "status": "active",
                "description": "S",
                "code": "_s",
                "base": ["Patient"],
                "type": "token",
                "expression": "Patient.active",
            },
        ),
        "cannot be served",
    ),
}


@pytest.mark.parametrize(("request_", "expected"), MODES.values(), ids=MODES)
async def test_modes(fhir: Fhir, request_: Request, expected: str) -> None:
    """A mode asks whether this server would do it."""
    found = errors(await fhir(request_))

    assert (expected in found) if expected else (found == "")


async def test_delete_looks_for_those_who_refer(fhir: Fhir) -> None:
    """With referential integrity, what others refer to is said not to be deletable."""
    await fhir(Request("update", "Patient", "x", body=PATIENT))
    asked = Request("$validate", "Patient", "x", body=parameters(mode="delete"))
    assert errors(await fhir(asked)) == ""
    observation = {
        "resourceType": "Observation",
        "id": "o",
        "status": "final",
        "code": {"text": "Weight"},
        "subject": {"reference": "Patient/x"},
    }
    await fhir(Request("update", "Observation", "o", body=observation))

    assert "Observation/o refer" in errors(await fhir(asked))
    assert (await fhir(Request("read", "Patient", "x"))).status == 200


REFUSED: dict[str, tuple[Request, str]] = {
    "no such mode": (
        Request("$validate", "Patient", body=parameters(mode="creat", resource=PATIENT)),
        "Did you mean create",
    ),
    "delete of a type": (
        Request("$validate", "Patient", body=parameters(mode="delete")),
        "Patient/[id]/$validate",
    ),
    "profile without one": (
        Request("$validate", "Patient", body=parameters(mode="profile", resource=PATIENT)),
        "needs the parameter profile",
    ),
    "another parameter": (
        Request("$validate", "Patient", parameters=(("profiles", "x"),)),
        "Did you mean profile",
    ),
    "another member": (
        Request(
            "$validate",
            "Patient",
            body={"resourceType": "Parameters", "parameter": [{"name": "resourc"}]},
        ),
        "Did you mean resource",
    ),
    "no list": (
        Request("$validate", "Patient", body={"resourceType": "Parameters", "parameter": 1}),
        "list of objects",
    ),
    "a profile that is no text": (
        Request(
            "$validate",
            "Patient",
            body={
                "resourceType": "Parameters",
                "parameter": [{"name": "profile", "valueInteger": 1}],
            },
        ),
        "valueUri",
    ),
}


@pytest.mark.parametrize(("request_", "expected"), REFUSED.values(), ids=REFUSED)
async def test_what_cannot_be_asked_is_refused(
    fhir: Fhir, request_: Request, expected: str
) -> None:
    """Where the operation cannot be understood it does not run: 400 with the reason."""
    response = await fhir(request_)

    assert response.status == 400
    assert expected in decode(response.body)["issue"][0]["diagnostics"]


TEXTS = {
    "JSON": (b'{"resourceType": "Patient",\n  "gender": "mail"}', (2, 3)),
    "Parameters": (
        b"""{"resourceType":"Parameters","parameter":[{"name":"resource","resource":
{"resourceType":"Patient",
 "gender":"mail"}}]}""",
        (3, 2),
    ),
}


@pytest.mark.parametrize(("text", "place"), TEXTS.values(), ids=TEXTS)
async def test_line_and_column(fhir: Fhir, text: bytes, place: tuple[int, int]) -> None:
    """Where the input was text, an issue says where in it."""
    response = await fhir(Request("$validate", "Patient", body=decode(text), text=text))
    [issue] = decode(response.body)["issue"]
    found = {one["url"]: one["valueInteger"] for one in issue["extension"]}

    assert issue["expression"] == ["Patient.gender"]
    assert (found[LINE], found[COLUMN]) == place


async def test_in_a_batch(fhir: Fhir) -> None:
    """An entry of a batch may call it like any other operation."""
    entry = {
        "request": {"method": "POST", "url": "Patient/$validate"},
        "resource": parameters(resource=NAMELESS, profile=URL + "p"),
    }
    bundle = {"resourceType": "Bundle", "type": "batch", "entry": [entry]}
    response = await fhir(Request("transaction", body=bundle))
    [answer] = decode(response.body)["entry"]

    assert answer["response"]["status"] == "200 OK"
    assert "name is missing" in str(answer)


async def test_it_is_in_the_capability_statement(server: Server) -> None:
    """Each type has it, with R4's own definition."""
    statement = decode((await server.perform(Request("capabilities"))).body)
    [patient] = [one for one in statement["rest"][0]["resource"] if one["type"] == "Patient"]

    assert {
        "name": "validate",
        "definition": "http://hl7.org/fhir/OperationDefinition/Resource-validate",
    } in patient["operation"]
