"""https://hl7.org/fhir/R4/http.html#mime-type"""

import gzip
import json
from collections.abc import AsyncIterator
from functools import partial
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from fhir_server.app import Server, opened
from fhir_server.r4.json import decode
from fhir_server.settings import Settings
from tests.conftest import Emptied
from tests.http.conftest import Exact, application, diagnostics_of, exchange, outcome_of

PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "p",
    "meta": {"tag": [{"system": "urn:t", "code": "kept"}]},
    "text": {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">A</div>'},
    "active": True,
    "name": [{"family": "Doe", "given": ["A"]}],
    "birthDate": "1970-02",
    "_birthDate": {"id": "b"},
    "maritalStatus": {"text": "married"},
    "photo": [{"title": "x"}],
}
OBSERVATION: dict[str, Any] = {
    "resourceType": "Observation",
    "id": "o",
    "status": "final",
    "code": {"text": "x"},
    "valueString": "v",
    "note": [{"text": "n"}],
    "component": [{"code": {"text": "c"}, "valueInteger": 1}],
}
FHIR = "application/fhir+json;charset=utf-8"
PLAIN = "application/json;charset=utf-8"
XML = "application/fhir+xml;charset=utf-8"
SUBSETTED = "SUBSETTED"
JSON = {"content-type": "application/fhir+json"}


@pytest.fixture
async def http(http: httpx.AsyncClient) -> httpx.AsyncClient:
    """A client of a server of the test's own, with Patient/p."""
    assert (await http.put("Patient/p", json=PATIENT)).status_code == 201
    return http


@pytest.fixture
def exact(http: httpx.AsyncClient, exact: Exact) -> Exact:
    """The same, for requests that a well-behaved client would not send."""
    return exact


@pytest.fixture(scope="module")
async def asked(mongodb_uri: str, emptied: Emptied) -> AsyncIterator[Exact]:
    """The same, on one server for all tests that write nothing."""
    with emptied.one() as name:
        settings = Settings.model_validate({"mongodb_database": name})
        async with opened(settings, mongodb_uri) as server:
            ask = partial(exchange, application(server))
            written = await ask("PUT", "Patient/p", JSON, json.dumps(PATIENT).encode())
            assert written.status_code == 201
            yield ask


# ------------------------------------------------------------------------------ _format, Accept

FORMATS = {
    "json": FHIR,
    "application/fhir+json": FHIR,
    "application/fhir%2Bjson": FHIR,
    "application/json": PLAIN,
    "application/json%2Bfhir": FHIR,
    "application%2Ffhir%2Bjson": FHIR,
    "text/json": PLAIN,
    "JSON": FHIR,
    "application/fhir%2Bjson;charset=utf-8": FHIR,
    "application/fhir%2Bjson;%20fhirVersion=4.0": FHIR,
    "*/*": FHIR,
    # http.html#mime-type: "xml, text/xml, application/xml, application/fhir+xml ... XML".
    "xml": XML,
    "XML": XML,
    "application/fhir+xml": XML,
    "application/fhir%2Bxml": XML,
    "application/xml%2Bfhir": XML,
    "application/xml": "application/xml;charset=utf-8",
    "text/xml": "text/xml;charset=utf-8",
    "application/fhir%2Bxml;%20fhirVersion=4.0": XML,
}
NO_FORMATS = [
    *("ttl", "text/turtle", "application/fhir%2Bturtle", "html", "text/html"),
    *(
        "nonsense",
        "jsonx",
        "xmlx",
        "application",
        "%0d%0aX-Injected:1",
        "application/fhir%2Bndjson",
    ),
    # A version of FHIR that is not ours.
    "application/fhir%2Bjson;fhirVersion=3.0",
    "application/fhir%2Bxml;fhirVersion=3.0",
]


@pytest.mark.parametrize(("format", "type"), FORMATS.items(), ids=FORMATS)
@pytest.mark.parametrize("accept", ["application/fhir+xml", "application/fhir+json", "text/html"])
async def test_format_decides(asked: Exact, format: str, type: str, accept: str) -> None:
    """The names of JSON SHALL mean JSON and those of XML XML, whatever Accept says."""
    answer = await asked("GET", f"Patient/p?_format={format}", {"accept": accept})

    assert (answer.status_code, answer.headers["content-type"]) == (200, type)
    assert answer.text.startswith("<?xml" if "xml" in type else '{"resourceType":"Patient"')


@pytest.mark.parametrize("format", NO_FORMATS)
async def test_a_format_that_we_do_not_have_is_406(asked: Exact, format: str) -> None:
    """406 with an OperationOutcome that names the way out, and nothing of it in a header."""
    answer = await asked("GET", f"Patient/p?_format={format}", {"accept": "application/fhir+json"})

    assert answer.status_code == 406
    assert "application/fhir+json" in diagnostics_of(answer)
    assert "x-injected" not in answer.headers


ACCEPTS = {
    "": FHIR,
    "*/*": FHIR,
    "application/*": FHIR,
    "application/fhir+json": FHIR,
    "APPLICATION/FHIR+JSON": FHIR,
    "application/json": PLAIN,
    "text/json": PLAIN,
    "application/json+fhir": FHIR,
    "application/fhir+json; charset=utf-8": FHIR,
    "application/fhir+json;fhirVersion=4.0": FHIR,
    'application/fhir+json; fhirVersion="4.0"; q=0.5': FHIR,
    "application/fhir+json, application/fhir+xml": FHIR,
    "application/fhir+xml, application/fhir+json": XML,
    "application/fhir+xml;q=0.1, application/json;q=0.9": PLAIN,
    "application/fhir+xml;q=0.9, application/json;q=0.1": XML,
    "application/fhir+xml": XML,
    "application/xml+fhir;q=1.0, application/fhir+xml;q=1.0": XML,
    "Application/FHIR+xml; charset=UTF-8; fhirVersion=4.0": XML,
    "application/xml": "application/xml;charset=utf-8",
    "text/xml, */*;q=0.1": "text/xml;charset=utf-8",
    "application/fhir+xml;fhirVersion=3.0, application/*;q=0.1": FHIR,
    "application/fhir+json;q=0, application/json;q=0, */*;q=0.5": XML,
    "application/json;q=0.2, application/fhir+json;q=0.8": FHIR,
    "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8": (
        "application/xml;charset=utf-8"
    ),
    "application/fhir+json;q=0.001": FHIR,
    " application/fhir+json ,": FHIR,
    "application/fhir+json;fhirVersion=3.0, application/fhir+json;fhirVersion=4.0;q=0.1": FHIR,
}
NO_ACCEPTS = [
    *("text/html", "image/png", "text/*", "nonsense", "application/fhir+turtle"),
    *("application/fhir+json;q=0", "*/*;q=0", "application/fhir+json;q=0.0, text/html"),
    *("application/fhir+json;fhirVersion=3.0", "application/fhir+json; fhirVersion=5.0"),
    *("application/fhir+xml;q=0", "application/fhir+xml;fhirVersion=3.0"),
]


@pytest.mark.parametrize(("accept", "type"), ACCEPTS.items(), ids=ACCEPTS)
async def test_accept_is_negotiated(asked: Exact, accept: str, type: str) -> None:
    """Server-driven negotiation (RFC 9110, 12.5.1); a generic type is answered as it was named."""
    answer = await asked("GET", "Patient/p", {"accept": accept} if accept else {})

    assert (answer.status_code, answer.headers["content-type"]) == (200, type)


@pytest.mark.parametrize("accept", NO_ACCEPTS)
async def test_what_we_do_not_have_is_406(asked: Exact, accept: str) -> None:
    """406 Not Acceptable, with an OperationOutcome in JSON all the same."""
    answer = await asked("GET", "Patient/p", {"accept": accept})

    assert answer.status_code == 406
    assert "Accept: application/fhir+json" in diagnostics_of(answer)


async def test_what_is_excluded_is_not_sent(exact: Exact) -> None:
    """RFC 9110, 12.5.1: the most specific range decides, so q=0 of a type beats ``*/*``."""
    answer = await exact("GET", "Patient/p", {"accept": "application/fhir+json;q=0, */*;q=0.5"})

    assert answer.headers["content-type"] != FHIR


async def test_accept_may_come_in_several_lines(http: httpx.AsyncClient) -> None:
    """RFC 9110, 5.3: several lines of one header are one list."""
    for lines in (("text/html", "application/json"), ("application/json", "text/html")):
        answer = await http.get("Patient/p", headers=[("Accept", line) for line in lines])
        assert (answer.status_code, answer.headers["content-type"]) == (200, PLAIN), lines


async def test_a_write_that_cannot_be_answered_is_not_made(http: httpx.AsyncClient) -> None:
    """A refusal has no effect: 406 comes before the write."""
    changed = {**PATIENT, "active": False}
    answer = await http.put("Patient/p", json=changed, headers={"Accept": "text/html"})

    assert answer.status_code == 406
    assert (await http.get("Patient/p")).headers["etag"] == 'W/"1"'


# -------------------------------------------------------------------------------- Content-Type

TYPES = [
    *("application/fhir+json", "application/json", "application/fhir+json; charset=utf-8"),
    *("application/fhir+json;charset=UTF-8", 'application/json;charset="utf-8"', "text/json"),
    *("Application/FHIR+json", "application/fhir+json; fhirVersion=4.0", "application/json+fhir"),
]
NO_TYPES = [
    *("application/fhir+turtle", "text/plain", "text/html", "multipart/form-data", "xhtml+xml"),
    *("application/x-www-form-urlencoded", "application/json-patch+json", "*/*", "nonsense", ""),
    *("application/fhir+json; charset=iso-8859-1", "application/json; charset=utf-16"),
    # A resource that is said to be of another release is not one of ours.
    "application/fhir+json; fhirVersion=3.0",
    *("application/fhir+xml; charset=iso-8859-1", "application/fhir+xml; fhirVersion=3.0"),
]


@pytest.mark.parametrize("type", TYPES)
async def test_json_is_taken_under_all_its_names(exact: Exact, type: str) -> None:
    """The formal type, the generic one and the one of DSTU2, with charset and fhirVersion."""
    body = json.dumps({**PATIENT, "active": False}).encode()
    answer = await exact("PUT", "Patient/p", {"content-type": type}, body)

    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("type", NO_TYPES)
@pytest.mark.parametrize("target", ["PUT Patient/p", "POST Patient", "POST "])
async def test_another_media_type_is_415(asked: Exact, target: str, type: str) -> None:
    """415 "when the client posts a format that is not supported", and nothing is written."""
    method, _, path = target.partition(" ")
    body = json.dumps({**PATIENT, "active": False}).encode()
    answer = await asked(method, path, {"content-type": type}, body)

    assert answer.status_code == 415
    assert "application/fhir+json" in diagnostics_of(answer) or "UTF-8" in diagnostics_of(answer)
    assert (await asked("GET", "Patient/p")).headers["etag"] == 'W/"1"'


# ------------------------------------------------------------------------------------- _pretty


async def test_pretty_changes_the_layout_only(http: httpx.AsyncClient) -> None:
    """_pretty=true has line breaks; true and false say the same."""
    plain, pretty = [await http.get(f"Patient/p?_pretty={value}") for value in ("false", "true")]

    assert b"\n" not in plain.content
    assert b'\n  "id"' in pretty.content
    assert plain.json() == pretty.json()
    assert (await http.get("Patient/p?_pretty=perhaps")).status_code == 400


async def test_pretty_keeps_decimals(http: httpx.AsyncClient) -> None:
    """1.00 stays 1.00 when it is laid out for reading."""
    text = json.dumps(OBSERVATION).replace('"valueString": "v"', '"valueQuantity": {"value": 1.00}')
    await http.put("Observation/o", content=text, headers={"Content-Type": "application/json"})

    assert b'"value": 1.00' in (await http.get("Observation/o?_pretty=true")).content


# --------------------------------------------------------------------------- _summary, _elements

SUMMARY_OF_PATIENT = {
    # https://hl7.org/fhir/R4/patient.html: the elements marked with a sigma.
    "true": {"active", "name", "birthDate", "_birthDate"},
    "text": {"text"},
    "data": {"active", "name", "birthDate", "_birthDate", "maritalStatus", "photo"},
    "false": {"text", "active", "name", "birthDate", "_birthDate", "maritalStatus", "photo"},
}
ALWAYS = {"resourceType", "id", "meta"}


@pytest.mark.parametrize(("summary", "members"), SUMMARY_OF_PATIENT.items(), ids=SUMMARY_OF_PATIENT)
@pytest.mark.parametrize("path", ["Patient/p", "Patient/p/_history/1", "Patient?_id=p"])
async def test_a_summary_is_the_part_asked_for(
    http: httpx.AsyncClient, path: str, summary: str, members: set[str]
) -> None:
    """What is left out is said with the tag SUBSETTED; the other tags stay."""
    answer = await http.get(f"{path}{'&' if '?' in path else '?'}_summary={summary}")
    found = answer.json()
    resource = found["entry"][0]["resource"] if "entry" in found else found

    assert set(resource) == members | ALWAYS
    codes = [tag["code"] for tag in resource["meta"]["tag"]]
    assert codes == (["kept"] if summary == "false" else ["kept", SUBSETTED])


async def test_a_summary_keeps_what_is_mandatory(http: httpx.AsyncClient, server: Server) -> None:
    """Text, id, meta and mandatory elements (search.html#summary): still a valid resource."""
    await http.put("Observation/o", json=OBSERVATION)
    for query in ("_summary=text", "_summary=true", "_elements=note"):
        answer = await http.get(f"Observation/o?{query}")
        assert {"status", "code"} <= set(answer.json()), query
        assert server.context.validate(decode(answer.content)) == (), query


async def test_a_count_is_for_searches(http: httpx.AsyncClient) -> None:
    """_summary=count: just the number of matches, without the matches."""
    answer = (await http.get("Patient?_summary=count")).json()

    assert answer["total"] == 1
    assert "entry" not in answer


ELEMENTS = {
    "name": {"name"},
    "name,active": {"name", "active"},
    "birthDate": {"birthDate", "_birthDate"},
    "Patient.name": {"name"},
    "name,resourceType,id": {"name"},
    "deceased": set(),
    " name , active ": {"name", "active"},
}


@pytest.mark.parametrize(("elements", "members"), ELEMENTS.items(), ids=ELEMENTS)
async def test_elements_are_those_asked_for(
    http: httpx.AsyncClient, elements: str, members: set[str]
) -> None:
    """The elements that are named, the mandatory ones, id and meta; and the tag SUBSETTED."""
    resource = (await http.get(f"Patient/p?_elements={quote(elements)}")).json()

    assert set(resource) == members | ALWAYS
    assert SUBSETTED in [tag["code"] for tag in resource["meta"]["tag"]]


@pytest.mark.parametrize("type", ["value", "value[x]", "valueString"])
async def test_a_choice_is_named_by_its_base(http: httpx.AsyncClient, type: str) -> None:
    """search.html#elements: the base name of the element, without [x]; we take all three."""
    await http.put("Observation/o", json=OBSERVATION)
    resource = (await http.get("Observation/o", params={"_elements": type})).json()

    assert "valueString" in resource
    assert "note" not in resource


WRONG_ELEMENTS = {
    "nmae": "Did you mean name",
    "name,nonsense": "'nonsense'",
    "name.family": "first level, as name",
    "Observation.status": "first level",
    "name,,active": "names of elements",
    "_name": "names of elements",
}


@pytest.mark.parametrize(
    "path", ["Patient/p", "Patient/p/_history/1", "Patient/_history", "Patient"]
)
async def test_an_element_that_is_none_is_refused(http: httpx.AsyncClient, path: str) -> None:
    """400 with the nearest names, the same for reads, histories and searches; a lenient client gets
    all elements, and searches say that this was ignored."""
    for elements, sentence in WRONG_ELEMENTS.items():
        answer = await http.get(f"{path}?_elements={elements}")
        assert answer.status_code == 400, elements
        assert sentence in diagnostics_of(answer), elements
    lenient = {"Prefer": "handling=lenient"}
    answer = await http.get(f"{path}?_elements=name,nonsense", headers=lenient)
    assert answer.status_code == 200
    assert b"photo" in answer.content
    assert (b"Ignored: " in answer.content) is (path == "Patient")


@pytest.mark.parametrize(
    "path", ["Patient/p", "Patient/p/_history/1", "Patient/_history", "metadata"]
)
async def test_nothing_but_a_search_can_be_counted(http: httpx.AsyncClient, path: str) -> None:
    """_summary=count is refused where there are no matches, and not answered with everything."""
    answer = await http.get(f"{path}?_summary=count")

    assert answer.status_code == 400
    assert "counts what a search finds" in diagnostics_of(answer)


@pytest.mark.parametrize("summary", ["true", "text", "data", "false"])
async def test_elements_decide_beside_a_summary(http: httpx.AsyncClient, summary: str) -> None:
    """Where both are given, the elements named are what is wanted; a count has none at all."""
    for path in ("Patient/p", "Patient"):
        found = (await http.get(f"{path}?_elements=photo&_summary={summary}")).json()
        resource = found["entry"][0]["resource"] if "entry" in found else found
        assert set(resource) == {"photo", *ALWAYS}
    assert "entry" not in (await http.get("Patient?_elements=photo&_summary=count")).json()


async def test_elements_of_several_types(http: httpx.AsyncClient) -> None:
    """Each name is an element of one of the types at least."""
    await http.put("Observation/o", json=OBSERVATION)
    bundle = (await http.get("?_type=Patient,Observation&_elements=photo,value")).json()
    found = [set(one["resource"]) for one in bundle["entry"]]

    assert found == [{"status", "code", "valueString", *ALWAYS}, {"photo", *ALWAYS}]
    answer = await http.get("?_type=Patient,Observation&_elements=photo,valueless")
    assert answer.status_code == 400
    assert "None of the types" in diagnostics_of(answer)


@pytest.mark.parametrize("query", ["_summary=nonsense", "_summary=true&_summary=text", "_summary="])
async def test_a_wrong_summary_is_refused(http: httpx.AsyncClient, query: str) -> None:
    """400 that names the parameter and the five values."""
    answer = await http.get(f"Patient/p?{query}")

    if query != "_summary=":
        assert answer.status_code == 400
        assert "_summary" in diagnostics_of(answer)


# ---------------------------------------------------------------------------------------- gzip

ENCODINGS = {
    "gzip": True,
    "gzip, deflate, br": True,
    "GZIP": True,
    "x-gzip": True,
    "br;q=1.0, gzip;q=0.5": True,
    "*": None,  # either is right
    "identity": False,
    "": False,
    "gzip;q=0": False,  # RFC 9110, 12.5.3: a quality of 0 means "not acceptable"
    "gzip; q=0.000, br": False,
    "gzipped": False,
}


@pytest.mark.parametrize(("accepted", "zipped"), ENCODINGS.items(), ids=ENCODINGS)
async def test_a_large_answer_is_compressed_for_those_who_accept_it(
    exact: Exact, accepted: str, zipped: bool | None
) -> None:
    """Content-Encoding as Accept-Encoding allows; Vary says so."""
    answer = await exact("GET", "metadata", {"accept-encoding": accepted} if accepted else {})
    plain = await exact("GET", "metadata")

    assert "Accept-Encoding" in answer.headers["vary"]
    if zipped is not None:
        assert (answer.headers.get("content-encoding") == "gzip") is zipped
    assert answer.content == plain.content


@pytest.mark.parametrize("parts", [1, 2, 3])
async def test_a_body_may_be_gzip(exact: Exact, parts: int) -> None:
    """Content-Encoding: gzip, of one member or, as RFC 1952, 2.2 allows, of several."""
    text = json.dumps({**PATIENT, "active": False}).encode()
    size = -(-len(text) // parts)
    body = b"".join(gzip.compress(text[at : at + size]) for at in range(0, len(text), size))
    headers = {"content-type": "application/fhir+json", "content-encoding": "gzip"}
    answer = await exact("PUT", "Patient/p", headers, body)

    assert answer.status_code == 200, answer.text
    assert answer.json()["active"] is False


async def test_an_outcome_is_in_the_format_asked_for(exact: Exact) -> None:
    """A refusal is negotiated like any answer."""
    answer = await exact("GET", "Patient/nobody", {"accept": "application/json"})

    assert (answer.status_code, answer.headers["content-type"]) == (404, PLAIN)
    outcome_of(answer)
