"""https://hl7.org/fhir/R4/http.html#patch over HTTP, with RFC 5789."""

import json
from typing import Any

import httpx
import pytest

from fhir_server.app import Server
from tests.http.conftest import BASE, Exact, diagnostics_of

PATIENT: dict[str, Any] = {"resourceType": "Patient", "id": "p", "gender": "male"}
JSON_PATCH = [{"op": "replace", "path": "/gender", "value": "female"}]
PARAMETERS = {
    "resourceType": "Parameters",
    "parameter": [
        {
            "name": "operation",
            "part": [
                {"name": "type", "valueCode": "replace"},
                {"name": "path", "valueString": "Patient.gender"},
                {"name": "value", "valueCode": "female"},
            ],
        }
    ],
}
FORMATS = (
    "application/fhir+json",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/xml-patch+xml",
)
XML_PATCH = '<diff><replace sel="Patient/gender/@value">female</replace></diff>'

TYPES: dict[str, Any] = {
    "application/json-patch+json": JSON_PATCH,
    "application/json-patch+json; charset=utf-8": JSON_PATCH,
    "Application/JSON-Patch+JSON": JSON_PATCH,
    "application/merge-patch+json": {"gender": "female"},
    "application/fhir+json": PARAMETERS,
    "application/fhir+json; fhirVersion=4.0": PARAMETERS,
    "application/json": PARAMETERS,
}


@pytest.fixture(autouse=True)
async def there(http: httpx.AsyncClient) -> None:
    """Patient/p in version 1."""
    assert (await http.put("Patient/p", json=PATIENT)).status_code == 201


@pytest.mark.parametrize("type", TYPES)
async def test_a_patch_is_taken_under_its_media_type(exact: Exact, type: str) -> None:
    """200 with ETag, Last-Modified and the resource, as for an update."""
    body = json.dumps(TYPES[type]).encode()
    answer = await exact("PATCH", "Patient/p", {"content-type": type}, body)

    assert answer.status_code == 200, answer.text
    assert answer.headers["etag"] == 'W/"2"'
    assert "last-modified" in answer.headers
    assert answer.json()["gender"] == "female"


@pytest.mark.parametrize("type", [FORMATS[3], "application/xml-patch+xml; charset=UTF-8"])
async def test_an_xml_patch(exact: Exact, type: str) -> None:
    """The answer is in the format that is accepted, whatever that of the patch is."""
    headers = {"content-type": type, "accept": "application/fhir+xml"}
    answer = await exact("PATCH", "Patient/p", headers, XML_PATCH.encode())

    assert answer.status_code == 200, answer.text
    assert answer.headers["etag"] == 'W/"2"'
    assert b'<gender value="female"/>' in answer.content


async def test_a_fhirpath_patch_in_xml(exact: Exact) -> None:
    """It is a Parameters like any other, and a Parameters can be XML."""
    text = (
        '<Parameters xmlns="http://hl7.org/fhir"><parameter><name value="operation"/>'
        '<part><name value="type"/><valueCode value="replace"/></part>'
        '<part><name value="path"/><valueString value="Patient.gender"/></part>'
        '<part><name value="value"/><valueCode value="other"/></part>'
        "</parameter></Parameters>"
    )
    headers = {"content-type": "application/fhir+xml"}
    answer = await exact("PATCH", "Patient/p", headers, text.encode())
    assert answer.status_code == 200, answer.text
    assert answer.json()["gender"] == "other"


@pytest.mark.parametrize(
    "type",
    [
        *("", "text/plain", "application/xml-patch", "*/*"),
        *("application/x-www-form-urlencoded", "application/json-patch+json; charset=utf-16"),
        "application/fhir+json; fhirVersion=3.0",
    ],
)
async def test_another_media_type_is_415(exact: Exact, type: str) -> None:
    """With Accept-Patch (RFC 5789, 2.2), whatever the body is; nothing is written."""
    headers = {"content-type": type} if type else {}
    answer = await exact("PATCH", "Patient/p", headers, json.dumps(JSON_PATCH).encode())

    assert answer.status_code == 415
    if ";" not in type:
        assert answer.headers["accept-patch"] == ", ".join(FORMATS)
        assert "application/json-patch+json" in diagnostics_of(answer)
    assert (await exact("GET", "Patient/p")).headers["etag"] == 'W/"1"'


@pytest.mark.parametrize("type", FORMATS[1:])
@pytest.mark.parametrize("target", ["PUT Patient/p", "POST Patient", "POST "])
async def test_a_patch_is_no_resource(exact: Exact, target: str, type: str) -> None:
    """The media types of patches are for PATCH only."""
    method, _, path = target.partition(" ")
    answer = await exact(method, path, {"content-type": type}, json.dumps(PATIENT).encode())

    assert answer.status_code == 415


BODIES = {
    "nothing": (FORMATS[1], b"", 400),
    "no JSON": (FORMATS[1], b"[{", 400),
    "no UTF-8": (FORMATS[1], b'[{"op":"\xff"}]', 400),
    "an object": (FORMATS[1], b"{}", 400),
    "two members of one name": (FORMATS[1], b'[{"op":"test","op":"add"}]', 400),
    "a number of 40 digits": (
        FORMATS[1],
        b'[{"op":"add","path":"/x","value":' + b"9" * 40 + b"}]",
        400,
    ),
    "nested deeply": (FORMATS[2], b'{"a":' * 5000 + b"1" + b"}" * 5000, 400),
    "nested more deeply": (FORMATS[1], b"[" * 100_000 + b"]" * 100_000, 400),
    "a list as a merge patch": (FORMATS[2], b"[]", 400),
    "a resource": (FORMATS[0], json.dumps(PATIENT).encode(), 400),
    "a list as a resource": (FORMATS[0], json.dumps(JSON_PATCH).encode(), 400),
    "a test that fails": (FORMATS[1], b'[{"op":"test","path":"/gender","value":"x"}]', 422),
    "an operator as a name": (FORMATS[2], b'{"$set":{"gender":"female"}}', 422),
    "a path as a name": (FORMATS[2], b'{"name.0.family":"x"}', 422),
    "an XML Patch that is none": (FORMATS[3], b"<diff/>", 400),
    "an XML Patch that is JSON": (FORMATS[3], b"[]", 400),
    "an XML Patch in UTF-16": (FORMATS[3], XML_PATCH.encode("utf-16"), 400),
    "an XML Patch with a document type": (
        FORMATS[3],
        (
            b'<!DOCTYPE diff [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
            b'<diff><replace sel="Patient/gender/@value">&a;</replace></diff>'
        ),
        400,
    ),
    "an XML Patch of nothing there": (FORMATS[3], b'<diff><remove sel="Patient/x"/></diff>', 422),
    "an XML Patch against the order": (
        FORMATS[3],
        b'<diff><add sel="Patient"><active value="true"/></add></diff>',
        422,
    ),
    "an XML Patch against the codes": (
        FORMATS[3],
        b'<diff><replace sel="Patient/gender/@value">x</replace></diff>',
        422,
    ),
    "an XML Patch of the id": (
        FORMATS[3],
        b'<diff><replace sel="Patient/id/@value">q</replace></diff>',
        422,
    ),
    "an XML Patch of the type": (
        FORMATS[3],
        b'<diff><replace sel="Patient"><Group><id value="p"/></Group></replace></diff>',
        422,
    ),
    "a doubling": (
        FORMATS[1],
        json.dumps(
            [{"op": "add", "path": "/x", "value": ["x" * 100]}]
            + [{"op": "copy", "from": "/x", "path": "/x/-"}] * 40
        ).encode(),
        413,
    ),
    "too many operations": (
        FORMATS[1],
        json.dumps([{"op": "test", "path": "/id", "value": "p"}] * 1001).encode(),
        413,
    ),
}


@pytest.mark.parametrize(("type", "body", "status"), BODIES.values(), ids=BODIES)
async def test_a_bad_body_is_refused(exact: Exact, type: str, body: bytes, status: int) -> None:
    """An OperationOutcome with a sentence, never 5xx, and nothing is written."""
    answer = await exact("PATCH", "Patient/p", {"content-type": type}, body)

    assert answer.status_code == status, answer.text
    assert answer.json()["resourceType"] == "OperationOutcome"
    assert diagnostics_of(answer)
    assert (await exact("GET", "Patient/p")).headers["etag"] == 'W/"1"'


async def test_digits_are_kept(exact: Exact) -> None:
    """Those of the patch, and those that it does not touch: 6.30, 1e2, -0."""
    body = (
        b'{"resourceType":"Observation","id":"o","status":"final","code":{"text":"x"},'
        b'"component":[{"code":{"text":"a"},"valueQuantity":{"value":6.30}},'
        b'{"code":{"text":"b"},"valueQuantity":{"value":1e2}},'
        b'{"code":{"text":"c"},"valueQuantity":{"value":-0}}]}'
    )
    await exact("PUT", "Observation/o", {"content-type": "application/fhir+json"}, body)
    patch = b'[{"op":"add","path":"/valueQuantity","value":{"value":0.10}}]'
    answer = await exact("PATCH", "Observation/o", {"content-type": FORMATS[1]}, patch)

    assert answer.status_code == 200
    for text in (b'"value":6.30}', b'"value":1e2}', b'"value":-0}', b'"value":0.10}'):
        assert text in answer.content


async def test_preconditions(http: httpx.AsyncClient) -> None:
    """If-Match is honoured; http.html#patch: "works exactly the same as specified for update"."""
    for version, status in (("2", 412), ("1", 200), ("1", 412)):
        answer = await http.patch(
            "Patient/p",
            content=json.dumps({"active": version == "1"}),
            headers={"content-type": FORMATS[2], "if-match": f'W/"{version}"'},
        )
        assert answer.status_code == status


async def test_an_xml_patch_with_preconditions(http: httpx.AsyncClient) -> None:
    """By version, and by criteria."""
    for path, version, status in (
        ("Patient/p", "2", 412),
        ("Patient?_id=p", "2", 412),
        ("Patient?_id=p", "1", 200),
        ("Patient?_id=none", None, 404),
    ):
        answer = await http.patch(
            path,
            content=XML_PATCH,
            headers={"content-type": FORMATS[3], **({"if-match": version} if version else {})},
        )
        assert answer.status_code == status, answer.text
    assert (await http.get("Patient/p")).json()["gender"] == "female"


async def test_a_page_of_another_site_cannot_patch(exact: Exact) -> None:
    """As for every change."""
    headers = {"content-type": FORMATS[2], "sec-fetch-site": "cross-site"}
    answer = await exact("PATCH", "Patient/p", headers, b'{"active":true}')

    assert answer.status_code == 403


async def test_the_statement_says_so(http: httpx.AsyncClient, server: Server) -> None:
    """CapabilityStatement.patchFormat, and patch among the interactions of every type but that
    which nobody changes."""
    found = (await http.get("metadata")).json()

    assert found["patchFormat"] == list(FORMATS)
    without = [
        resource["type"]
        for resource in found["rest"][0]["resource"]
        if {"code": "patch"} not in resource["interaction"]
    ]
    assert without == ["AuditEvent"]


async def test_a_bundle_entry_as_the_specification_shows_it(http: httpx.AsyncClient) -> None:
    """http.html#transaction: a Binary with the content type of the patch."""
    binary = {
        "resourceType": "Binary",
        "contentType": "application/json-patch+json",
        "data": "W3sib3AiOiJhZGQiLCJwYXRoIjoiL2FjdGl2ZSIsInZhbHVlIjpmYWxzZX1d",
    }
    entry = {
        "fullUrl": f"{BASE}/Patient/p",
        "resource": binary,
        "request": {"method": "PATCH", "url": "Patient/p"},
    }
    body = {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}
    answer = await http.post("", json=body)

    assert answer.json()["entry"][0]["response"]["status"] == "200 OK", answer.text
    assert (await http.get("Patient/p")).json()["active"] is False
