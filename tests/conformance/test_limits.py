"""https://hl7.org/fhir/R4/http.html#Status-Codes and SPEC_CHOICES.md, "Limits"

What is over a limit is refused with the status that says so and the number in the sentence, in
whatever format it comes, packed or not; nothing is written, and the next request is answered.
"""

import gzip
import json
from base64 import b64encode
from dataclasses import dataclass, field

import pytest

from fhir_server.http.protocol import HEAD_BYTES_MAX
from fhir_server.settings import Settings
from tests.http.conftest import Exact, diagnostics_of

JSON, XML = "application/fhir+json", "application/fhir+xml"
FHIR = 'xmlns="http://hl7.org/fhir"'
LIMITS = {
    "body_bytes_max": 40_000,
    "resource_bytes_max": 20_000,
    "binary_bytes_max": 50_000,
    "depth_max": 30,
    "bundle_entries_max": 5,
    "patch_operations_max": 7,
    "url_bytes_max": 3_000,
    "headers_bytes_max": 4_000,
}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Small limits, so that little is needed to pass them."""
    return settings.model_copy(update=LIMITS)


@dataclass(frozen=True)
class Case:
    """A request over a limit: its status, and the number in the sentence."""

    status: int
    number: str
    body: bytes = b""
    type: str = JSON
    target: str = "PUT Patient/p"
    headers: dict[str, str] = field(default_factory=dict)

    def packed(self) -> "Case":
        """Return the same with its body packed."""
        headers = {**self.headers, "content-encoding": "gzip"}
        return Case(
            self.status, self.number, gzip.compress(self.body), self.type, self.target, headers
        )


def patient(text: str) -> bytes:
    """Return a patient as JSON."""
    return json.dumps({"resourceType": "Patient", "id": "p", "name": [{"text": text}]}).encode()


def xml_patient(inside: str) -> bytes:
    """Return a patient as XML."""
    return f'<Patient {FHIR}><id value="p"/>{inside}</Patient>'.encode()


def bundle(type: str, count: int) -> bytes:
    """Return a bundle of ``count`` reads as JSON."""
    entry = {"request": {"method": "GET", "url": "Patient/p"}}
    return json.dumps({"resourceType": "Bundle", "type": type, "entry": [entry] * count}).encode()


def xml_bundle(type: str, count: int) -> bytes:
    """Return a bundle of ``count`` reads as XML."""
    entry = '<entry><request><method value="GET"/><url value="Patient/p"/></request></entry>'
    return f'<Bundle {FHIR}><type value="{type}"/>{entry * count}</Bundle>'.encode()


def patch_bundle(type: str, patch: bytes) -> bytes:
    """Return a transaction with ``patch`` in a Binary."""
    binary = {"resourceType": "Binary", "contentType": type, "data": b64encode(patch).decode()}
    entry = {"resource": binary, "request": {"method": "PATCH", "url": "Patient/there"}}
    return json.dumps({"resourceType": "Bundle", "type": "transaction", "entry": [entry]}).encode()


DEEP = '<extension url="u">' * 40 + '<valueString value="x"/>' + "</extension>" * 40
JSON_PATCH, XML_PATCH = "application/json-patch+json", "application/xml-patch+xml"
TESTS = json.dumps([{"op": "test", "path": "/id", "value": "there"}] * 8).encode()
REMOVALS = b"<diff>" + b'<remove sel="Patient/active"/>' * 8 + b"</diff>"
FORM = "application/x-www-form-urlencoded"

BODIES = {
    "a body in JSON": Case(413, "40,000 bytes", patient("x" * 40_000)),
    "a body in XML": Case(413, "40,000 bytes", xml_patient(" " * 40_000), XML),
    "a body that is no resource": Case(413, "40,000 bytes", b"x" * 40_001),
    "a bundle": Case(413, "40,000 bytes", b" " * 40_001, target="POST "),
    "a form": Case(413, "40,000 bytes", b"a" * 40_001, FORM, "POST Patient/_search"),
    "a patch": Case(413, "40,000 bytes", b" " * 40_001, JSON_PATCH, "PATCH Patient/there"),
    "a patch in XML": Case(413, "40,000 bytes", b" " * 40_001, XML_PATCH, "PATCH Patient/there"),
    "an operation": Case(413, "40,000 bytes", b" " * 40_001, target="POST Patient/there/$meta-add"),
    "a Binary as a resource": Case(413, "40,000 bytes", b" " * 40_001, target="PUT Binary/p"),
    "a file": Case(413, "50,000 bytes", b"x" * 50_001, "application/pdf", "PUT Binary/p"),
    "a file of lines": Case(
        413, "50,000 bytes", b"{}\n" * 16_667, "application/fhir+ndjson", "PUT Binary/p"
    ),
    "a resource": Case(413, "20,000 bytes", patient("x" * 21_000)),
    "a resource in XML": Case(
        413, "20,000 bytes", xml_patient(f'<name><text value="{"x" * 21_000}"/></name>'), XML
    ),
    "nesting": Case(400, "30 levels", b'{"a":' * 40 + b"1" + b"}" * 40),
    "nesting in lists": Case(400, "30 levels", b"[" * 9_000),
    "nesting in XML": Case(400, "30 levels", xml_patient(DEEP), XML),
    "nesting in a patch": Case(
        400,
        f"{LIMITS['depth_max'] + 3} levels",
        b"[" * 40 + b"]" * 40,
        JSON_PATCH,
        "PATCH Patient/there",
    ),
    "nesting in a patch in XML": Case(
        400, "200 levels", b"<diff>" + b"<a>" * 200, XML_PATCH, "PATCH Patient/there"
    ),
    "nesting by a patch in XML": Case(
        422,
        "30 levels",
        f'<diff><add sel="Patient/active" pos="before">{DEEP}</add></diff>'.encode(),
        XML_PATCH,
        "PATCH Patient/there",
    ),
    "entries of a batch": Case(413, "limit is 5", bundle("batch", 6), target="POST "),
    "entries of a transaction": Case(413, "limit is 5", bundle("transaction", 6), target="POST "),
    "entries in XML": Case(413, "limit is 5", xml_bundle("batch", 6), XML, "POST "),
    "operations of a patch": Case(413, "limit is 7", TESTS, JSON_PATCH, "PATCH Patient/there"),
    "operations in XML": Case(413, "limit is 7", REMOVALS, XML_PATCH, "PATCH Patient/there"),
    "operations in a bundle": Case(
        413, "limit is 7", patch_bundle(JSON_PATCH, TESTS), target="POST "
    ),
    "operations in XML in a bundle": Case(
        413, "limit is 7", patch_bundle(XML_PATCH, REMOVALS), target="POST "
    ),
    "parameters of a form": Case(
        400, "1000 parameters", b"a=b&" * 1001, FORM, "POST Patient/_search"
    ),
}
CASES = {
    **BODIES,
    **{f"{name}, packed": case.packed() for name, case in BODIES.items()},
    "a path": Case(414, "3,000 bytes", target=f"GET Patient/{'x' * 3000}"),
    "a query": Case(414, "3,000 bytes", target=f"GET Patient?name={'x' * 3000}"),
    "a query of a write": Case(414, "3,000 bytes", b"{}", target=f"PUT Patient?name={'x' * 3000}"),
    "parameters": Case(400, "1000 parameters", target=f"GET Patient?{'a&' * 1001}"),
    "a header": Case(431, "4,000 bytes", headers={"x-a": "x" * 4000}),
    "the name of a header": Case(431, "4,000 bytes", headers={"x" * 4000: "x"}),
    "many headers": Case(431, "100 headers", headers={f"x-{n}": "x" for n in range(1000)}),
    "the headers of a read": Case(
        431, "4,000 bytes", target="GET Patient/there", headers={"if-none-match": "1," * 2000}
    ),
}


@pytest.mark.parametrize("name", CASES)
async def test_what_is_over_a_limit_is_refused(exact: Exact, name: str) -> None:
    """The status and the number, also in XML where that is accepted; nothing changes."""
    case = CASES[name]
    there = b'{"resourceType":"Patient","id":"there","active":true}'
    assert (await exact("PUT", "Patient/there", {"content-type": JSON}, there)).status_code == 201
    method, _, path = case.target.partition(" ")
    headers = {"content-type": case.type, **case.headers}

    answer = await exact(method, path, headers, case.body)

    assert answer.status_code == case.status, answer.text
    assert case.number in diagnostics_of(answer)
    as_xml = await exact(method, path, {**headers, "accept": XML}, case.body)
    assert as_xml.status_code == case.status
    assert case.number in as_xml.text
    for id in ("Patient/p", "Binary/p"):
        assert (await exact("GET", id, {"accept": JSON})).status_code == 404
    after = await exact("GET", "Patient/there")
    assert (after.status_code, after.headers["etag"]) == (200, 'W/"1"')


UNDER = {
    "a body": Case(201, "", patient("x") + b" " * 39_900),
    "nesting": Case(400, "", b'{"a":' * 29 + b"1" + b"}" * 29),
    "entries": Case(200, "", bundle("batch", 5), target="POST "),
    "headers": Case(404, "", target="GET Patient/p", headers={"x-a": "x" * 3_900}),
    "a file": Case(201, "", b"x" * 50_000, "application/pdf", "PUT Binary/p"),
}


@pytest.mark.parametrize("case", UNDER.values(), ids=UNDER)
async def test_what_is_at_a_limit_is_not_refused(exact: Exact, case: Case) -> None:
    """Up to the limit, something else decides."""
    method, _, path = case.target.partition(" ")
    headers = {"content-type": case.type, **case.headers}
    answer = await exact(method, path, headers, case.body)

    assert answer.status_code == case.status, answer.text
    assert "limit" not in answer.text


def test_a_connection_reads_what_the_settings_allow() -> None:
    """Otherwise the connection would refuse what the settings let through."""
    schema = Settings.model_json_schema()["properties"]
    largest = sum(schema[name]["maximum"] for name in ("url_bytes_max", "headers_bytes_max"))

    assert largest * 2 <= HEAD_BYTES_MAX
