"""https://hl7.org/fhir/R4/xml.html, over HTTP: every interaction in XML, in and out."""

from typing import Any

import httpx
import pytest

from fhir_server.app import Server
from fhir_server.r4.json import canonical, decode
from tests.http.conftest import BASE, Exact

XML = "application/fhir+xml"
SAYS = f"{XML};charset=utf-8"
BOTH = {"accept": XML, "content-type": XML}
PATIENT = (
    '<Patient xmlns="http://hl7.org/fhir"><id value="p"/>'
    '<text><status value="generated"/><div xmlns="http://www.w3.org/1999/xhtml">A<br  /></div>'
    "</text>"
    '<active value="true"/><name><family value="Doe"/><given value="A"/>'
    '<given><extension url="urn:x"><valueCode value="c"/></extension></given></name>'
    '<birthDate value="1970-02"/></Patient>'
)
BESIDE = {"extension": [{"url": "urn:x", "valueCode": "c"}]}
OBSERVATION = (
    '<Observation xmlns="http://hl7.org/fhir"><status value="final"/><code><text value="x"/></code>'
    '<subject><reference value="{subject}"/></subject>'
    '<valueQuantity><value value="1.00"/></valueQuantity></Observation>'
)


def nested(text: str) -> str:
    """Return a resource as it stands inside of another."""
    return text.replace(' xmlns="http://hl7.org/fhir"', "", 1)


def bundle(type: str, *entries: str) -> bytes:
    """Return a Bundle."""
    inside = "".join(f"<entry>{one}</entry>" for one in entries)
    return f'<Bundle xmlns="http://hl7.org/fhir"><type value="{type}"/>{inside}</Bundle>'.encode()


def asked(method: str, url: str) -> str:
    """Return Bundle.entry.request."""
    return f'<request><method value="{method}"/><url value="{url}"/></request>'


@pytest.fixture
def read(server: Server) -> Any:
    """What an answer says: the resource of its XML."""

    def read(answer: httpx.Response, status: int = 200) -> dict[str, Any]:
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == SAYS
        assert answer.text.startswith("<?xml")
        return server.xml.decode(answer.content)

    return read


@pytest.fixture(autouse=True)
async def _patient(http: httpx.AsyncClient, read: Any) -> None:
    """Patient/p is there, sent as XML."""
    written = await http.put("Patient/p", content=PATIENT, headers=BOTH)
    assert read(written, 201)["name"][0] == {
        "family": "Doe",
        "given": ["A", None],
        "_given": [None, BESIDE],
    }


async def test_both_formats_say_the_same(http: httpx.AsyncClient, read: Any) -> None:
    """What was sent as XML is read as JSON and as XML, the same, with the same headers."""
    xml = await http.get("Patient/p", headers={"accept": XML})
    json = await http.get("Patient/p")

    assert canonical(read(xml)) == canonical(decode(json.content))
    assert 'xmlns="http://www.w3.org/1999/xhtml">A<br  /></div>' in xml.text
    assert json.json()["text"]["div"] == '<div xmlns="http://www.w3.org/1999/xhtml">A<br  /></div>'
    for name in ("etag", "last-modified", "vary", "cache-control", "x-content-type-options"):
        assert xml.headers[name] == json.headers[name]
    assert int(xml.headers["content-length"]) == len(xml.content)


async def test_a_body_in_xml_is_that_in_json(http: httpx.AsyncClient) -> None:
    """The same content is the same version, whatever format it is sent in."""
    json = (await http.get("Patient/p")).content
    for body, type in ((json, "application/fhir+json"), (PATIENT.encode(), XML)):
        again = await http.put("Patient/p", content=body, headers={"content-type": type})
        assert (again.status_code, again.headers["etag"]) == (200, 'W/"1"')


async def test_create_update_and_delete(http: httpx.AsyncClient, read: Any) -> None:
    """Writes answer in XML; Location and Prefer are as ever; decimals stay."""
    text = OBSERVATION.format(subject="Patient/p")
    made = await http.post("Observation", content=text, headers=BOTH)
    assert read(made, 201)["valueQuantity"]["value"].as_tuple().exponent == -2
    id = made.headers["location"].removeprefix(f"{BASE}/").split("/")[1]
    assert b'"value":1.00' in (await http.get(f"Observation/{id}")).content
    changed = text.replace("1.00", "1.0").replace("<status", f'<id value="{id}"/><status')
    updated = await http.put(f"Observation/{id}", content=changed, headers=BOTH)
    assert '<value value="1.0"/>' in updated.text
    minimal = await http.post(
        "Observation", content=text, headers={**BOTH, "prefer": "return=minimal"}
    )
    assert (minimal.status_code, minimal.content) == (201, b"")
    said = await http.post(
        "Observation", content=text, headers={**BOTH, "prefer": "return=OperationOutcome"}
    )
    assert read(said, 201)["resourceType"] == "OperationOutcome"
    gone = await http.delete(f"Observation/{id}", headers=BOTH)
    assert gone.status_code in (200, 204)
    assert read(await http.get(f"Observation/{id}", headers=BOTH), 410)["issue"]


READS = {
    "read": ("Patient/p", "Patient"),
    "vread": ("Patient/p/_history/1", "Patient"),
    "a summary": ("Patient/p?_summary=true", "Patient"),
    "elements": ("Patient/p?_elements=name", "Patient"),
    "history of an instance": ("Patient/p/_history", "Bundle"),
    "history of a type": ("Patient/_history", "Bundle"),
    "history of the system": ("_history", "Bundle"),
    "search": ("Patient?family=doe&_total=accurate", "Bundle"),
    "search of a compartment": ("Patient/p/Observation", "Bundle"),
    "search of the system": ("?_type=Patient&_id=p", "Bundle"),
    "a count": ("Patient?_summary=count", "Bundle"),
    "capabilities": ("metadata", "CapabilityStatement"),
}


@pytest.mark.parametrize(("path", "type"), READS.values(), ids=READS)
async def test_every_reading_interaction(
    http: httpx.AsyncClient, read: Any, path: str, type: str
) -> None:
    """By Accept and by _format, plain, laid out and packed, with GET and HEAD."""
    json = decode((await http.get(path)).content)
    by_accept = await http.get(path, headers={"accept": XML})
    pretty = await http.get(
        f"{path}{'&' if '?' in path else '?'}_format={XML.replace('+', '%2B')}&_pretty=true"
    )
    head = await http.head(path, headers={"accept": XML})

    assert read(by_accept)["resourceType"] == type
    assert _without_times(read(by_accept)) == _without_times(json)
    assert b"\n  <" in pretty.content
    assert _without_times(read(pretty)) == _without_times(json)
    assert (head.content, head.headers["content-type"]) == (b"", SAYS)


def _without_times(resource: dict[str, Any]) -> bytes:
    """Return ``resource`` without what differs between two requests."""
    meta = {
        name: value for name, value in resource.get("meta", {}).items() if name != "lastUpdated"
    }
    return canonical({**resource, "meta": meta, "link": None})


async def test_search_by_post(http: httpx.AsyncClient, read: Any) -> None:
    """A form in, XML out; and links go on in the same format."""
    form = {"content-type": "application/x-www-form-urlencoded"}
    found = await http.post("Patient/_search", content="_format=xml&_id=p", headers=form)
    bundle = read(found)

    assert bundle["entry"][0]["resource"]["id"] == "p"
    assert all("_format=xml" in link["url"] for link in bundle["link"])


async def test_a_transaction(http: httpx.AsyncClient, read: Any) -> None:
    """Writes with links, a search and a read in one bundle; the answer is XML as well."""
    urn = "urn:uuid:4f2b0b6e-6f0c-4b5a-8d0a-1d2f3a4b5c6d"
    patient = nested(PATIENT).replace('<id value="p"/>', "")
    body = bundle(
        "transaction",
        f'<fullUrl value="{urn}"/><resource>{patient}</resource>{asked("POST", "Patient")}',
        f"<resource>{nested(OBSERVATION.format(subject=urn))}</resource>"
        f"{asked('POST', 'Observation')}",
        asked("GET", "Patient?_id=p&amp;_format=xml"),
        asked("GET", "Patient/p"),
    )
    answer = read(await http.post("", content=body, headers=BOTH))

    assert [one["response"]["status"][:3] for one in answer["entry"]] == [
        "201",
        "201",
        "200",
        "200",
    ]
    assert answer["entry"][2]["resource"]["entry"][0]["resource"]["id"] == "p"
    made = answer["entry"][0]["response"]["location"].split("/_history")[0].rpartition("/")[2]
    found = read(await http.get(f"Observation?subject=Patient/{made}", headers=BOTH))
    assert found["entry"][0]["resource"]["subject"]["reference"] == f"Patient/{made}"


async def test_a_batch(http: httpx.AsyncClient, read: Any) -> None:
    """A refused entry is that entry's answer, its outcome inside of the bundle."""
    invalid = '<Patient><active value="true"/></Patient>'
    body = bundle(
        "batch",
        asked("GET", "Patient/p"),
        asked("GET", "Patient/nobody"),
        f"<resource>{invalid}</resource>{asked('PUT', 'Patient/q')}",
    )
    answer = read(await http.post("", content=body, headers=BOTH))

    assert [one["response"]["status"][:3] for one in answer["entry"]] == ["200", "404", "400"]
    assert answer["entry"][1]["response"]["outcome"]["resourceType"] == "OperationOutcome"


async def test_what_no_type_has_refuses_the_batch(http: httpx.AsyncClient, read: Any) -> None:
    """It cannot be read into JSON; the place is named."""
    body = bundle("batch", f"<resource><Patient><nam/></Patient></resource>{asked('GET', 'x')}")
    [issue] = read(await http.post("", content=body, headers=BOTH), 400)["issue"]

    assert issue["expression"] == ["Bundle.entry[0].resource"]
    assert "mean name" in issue["diagnostics"]


ERRORS = {
    # Method, target, body, status, a word of the sentence.
    "not found": ("GET", "Patient/nobody", b"", 404, "Patient/nobody"),
    "unknown type": ("GET", "Patent/p", b"", 404, "Patent"),
    "unknown parameter": ("GET", "Patient?nonsense=1", b"", 400, "nonsense"),
    "method": ("DELETE", "metadata", b"", 405, "GET"),
    "another format": ("GET", "Patient/p?_format=ttl", b"", 406, "_format=ttl"),
    "a wrong wish": ("GET", "Patient/p?_pretty=perhaps", b"", 400, "_pretty"),
    "url too long": ("GET", "Patient?name=" + "x" * 20_000, b"", 414, "_search"),
    "no XML": ("PUT", "Patient/p", b"<Patient", 400, "not XML"),
    "nothing": ("PUT", "Patient/p", b"", 400, "not XML"),
    "JSON": ("PUT", "Patient/p", b'{"resourceType":"Patient"}', 400, "not XML"),
    "not valid": (
        "POST", "Observation", b'<Observation xmlns="http://hl7.org/fhir"/>', 400, "status",
    ),
    "another code": (
        "PUT",
        "Patient/p",
        PATIENT.replace("<birthDate", '<gender value="x"/><birthDate').encode(),
        422,
        "gender",
    ),
    "another id": ("PUT", "Patient/q", PATIENT.encode(), 400, "q"),
    "another type": ("PUT", "Group/p", PATIENT.encode(), 400, "Group"),
    "a document type": (
        "PUT", "Patient/p", b"<!DOCTYPE a>" + PATIENT.encode(), 400, "DOCTYPE",
    ),
    "a script": (
        "PUT", "Patient/p", PATIENT.replace("A<br  />", "<script/>").encode(), 422, "script",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("method", "target", "body", "status", "word"), ERRORS.values(), ids=ERRORS
)
async def test_errors_are_in_xml(
    exact: Exact, read: Any, method: str, target: str, body: bytes, status: int, word: str
) -> None:
    """An OperationOutcome in the format that Accept asks for; nothing is written."""
    outcome = read(await exact(method, target, BOTH, body), status)

    assert outcome["resourceType"] == "OperationOutcome"
    assert any(word in one["diagnostics"] + str(one.get("expression")) for one in outcome["issue"])
    assert (await exact("GET", "Patient/p")).headers["etag"] == 'W/"1"'


async def test_formats_may_differ(http: httpx.AsyncClient, read: Any) -> None:
    """XML in and JSON out, and the other way round."""
    out = await http.put("Patient/p", content=PATIENT, headers={"content-type": XML})
    assert out.json()["id"] == "p"
    body = out.content
    headers = {"accept": XML, "content-type": "application/fhir+json"}
    assert read(await http.put("Patient/p", content=body, headers=headers))["id"] == "p"
    for type in (
        "text/xml",
        "application/xml; charset=UTF-8",
        "application/fhir+xml;fhirVersion=4.0",
    ):
        answer = await http.put("Patient/p", content=PATIENT, headers={"content-type": type})
        assert answer.headers["etag"] == 'W/"1"'


async def test_a_large_body_is_read_as_well(http: httpx.AsyncClient, read: Any) -> None:
    """One that is read and written in a thread."""
    of = '<extension url="http://x.org/of"><valueReference><reference value="#"/></valueReference>'
    contained = "".join(
        f'<contained><Organization><id value="o{at}"/>{of}</extension><name value="{"n" * 900}"/>'
        "</Organization></contained>"
        for at in range(400)
    )
    text = PATIENT.replace("<active", f"{contained}<active")
    answer = read(await http.put("Patient/p", content=text, headers=BOTH))
    refused = await http.put("Patient/p", content=text[:-1], headers=BOTH)

    assert [one["id"] for one in answer["contained"]] == [f"o{at}" for at in range(400)]
    assert "not XML" in read(refused, 400)["issue"][0]["diagnostics"]
