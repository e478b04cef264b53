"""https://hl7.org/fhir/R4/datatypes.html#string"""

import json
import re
from urllib.parse import quote_from_bytes

import httpx

from fhir_server.http.site import Site
from tests.badinput.conftest import JSON, Cases, Watch
from tests.http.conftest import exchange

STRINGS = (
    "strings/naughty.b64",
    "strings/unicode.b64",
    "strings/format.b64",
    "strings/null_bytes.b64",
    "mixed/all.b64",
    "mixed/commands.b64",
    "mixed/templates.b64",
    "html/scripts.b64",
)
# One parameter of each type of search, and each modifier of strings.
PARAMETERS = [
    *("family", "family:exact", "family:contains", "identifier", "gender", "birthdate"),
    *("general-practitioner", "_id", "_lastUpdated", "_profile", "_tag", "_source"),
]
RESULTS = ["_count", "_sort", "_summary", "_elements", "_total", "_cursor", "_format", "_pretty"]
CONTROLS = {chr(code) for code in range(32)} - set("\t\n\r")


def text_of(case: bytes) -> str | None:
    """Return ``case`` as a text, or ``None`` for what is not UTF-8."""
    try:
        return case.decode()
    except UnicodeDecodeError:
        return None


def must_be_kept(text: str) -> bool:
    """Whether FHIR allows ``text`` as a string: no control characters, not only white space."""
    return bool(text.strip()) and not CONTROLS & set(text)


async def test_strings_come_back_byte_for_byte(watch: Watch, site: Site, cases: Cases) -> None:
    """Written and read back unchanged, or refused where FHIR forbids a character."""
    for number, (name, case) in enumerate(cases(*STRINGS)):
        text = text_of(case)
        if text is None:
            continue
        resource = {"resourceType": "Basic", "id": f"s{number}", "code": {"text": text}}
        body = json.dumps(resource, ensure_ascii=False).encode()
        written = await watch(name, "PUT", f"Basic/s{number}", JSON, body)
        if written.status_code == 201:
            read = await exchange(site, "GET", f"Basic/s{number}")
            kept = json.dumps(text, ensure_ascii=False).encode() in read.content
            watch.check(name, kept or read.json()["code"]["text"] == text, "another text")
        else:
            right = written.status_code in (400, 422) and not must_be_kept(text)
            watch.check(name, right, f"{written.status_code} for an allowed text")

    assert watch.faults == {}


async def test_bytes_inside_a_string(watch: Watch, site: Site, cases: Cases) -> None:
    """What is not UTF-8 is 400; what is comes back byte for byte."""
    for number, (name, case) in enumerate(cases("strings/utf8.b64", "strings/all_bytes.b64")):
        clean = case.replace(b"\\", b"").replace(b'"', b"").replace(b"\0", b"")
        body = b'{"resourceType":"Basic","id":"u%d","code":{"text":"%s"}}' % (number, clean)
        answer = await watch(name, "PUT", f"Basic/u{number}", JSON, body)
        text = text_of(clean)
        if text is None:
            watch.check(name, answer.status_code == 400, f"status {answer.status_code}")
        elif must_be_kept(text):
            watch.check(name, answer.status_code == 201, f"status {answer.status_code}")
            read = await exchange(site, "GET", f"Basic/u{number}")
            watch.check(name, clean in read.content, "other bytes")

    assert watch.faults == {}


def canaries(answer: httpx.Response) -> int:
    """Return how many of the canary patients are in ``answer``."""
    return answer.content.count(b"Qxzvkanary")


async def test_no_text_finds_what_it_does_not_name(watch: Watch, cases: Cases) -> None:
    """As the value of each parameter: 200 or 400, and no more rows than a plain word finds."""
    for name, case in cases("strings/naughty.b64", "strings/format.b64", "mixed/all.b64"):
        for parameter in PARAMETERS:
            place = f"{name} {parameter}"
            target = f"Patient?{parameter}={quote_from_bytes(case)}"
            answer = await watch(place, "GET", target)
            allowed = (200, 400, 414)
            watch.check(place, answer.status_code in allowed, f"status {answer.status_code}")
            watch.check(place, canaries(answer) == 0 or names(case), f"{canaries(answer)} rows")

    assert watch.faults == {}


def names(case: bytes) -> bool:
    """Whether ``case`` names the canaries by a part of their name, punctuation aside."""
    parts = case.decode("utf-8", "replace").lower().split(",")
    letters = ("".join(filter(str.isalnum, part)) for part in parts)
    return any(one and one in "qxzvkanary" for one in letters)


async def test_result_parameters_take_no_text(watch: Watch, cases: Cases) -> None:
    """As the value of each result parameter: 200, 400 or 406."""
    files = ("strings/naughty.b64", "strings/integers.b64", "strings/all_bytes.b64")
    for name, case in cases(*files, every=2):
        for parameter in RESULTS:
            for place in ("Patient", "Patient/_history", "_history"):
                target = f"{place}?{parameter}={quote_from_bytes(case)}"
                answer = await watch(f"{name} {target[:60]}", "GET", target)
                allowed = (200, 400, 406, 414)
                watch.check(name, answer.status_code in allowed, f"status {answer.status_code}")

    assert watch.faults == {}


async def test_no_text_is_an_id(watch: Watch, cases: Cases) -> None:
    """In the path, as an id, a version or a type: 400 or 404."""
    files = ("strings/unicode.b64", "strings/all_bytes.b64", "strings/null_bytes.b64")
    for name, case in cases(*STRINGS, *files):
        escaped = quote_from_bytes(case, safe="")
        if not case.strip(b"/"):
            continue
        for target in (f"Patient/{escaped}", f"Patient/canary-1/_history/{escaped}"):
            answer = await watch(f"{name} {target[:60]}", "GET", target)
            right = answer.status_code in (400, 404, 414)
            watch.check(name, right, f"{answer.status_code} for {target[:80]}")
            watch.check(name, canaries(answer) == 0, "a resource")

    assert watch.faults == {}


async def test_no_byte_gets_into_a_header(watch: Watch, cases: Cases) -> None:
    """As X-Request-Id, Host, Prefer, If-Match and the like: no answer repeats it in a header."""
    names = ["x-request-id", "host", "prefer", "accept", "if-none-match", "if-modified-since"]
    files = ("strings/naughty.b64", "strings/all_bytes.b64", "http/crlf.b64", "strings/format.b64")
    for name, case in cases(*files):
        value = case.decode("latin-1").replace("\r", "").replace("\n", "").strip()
        for header in names:
            answer = await watch(f"{name} {header}", "GET", "Patient/canary-1", {header: value})
            allowed = (403,) if header == "host" else (200, 304, 400, 406)
            watch.check(name, answer.status_code in allowed, f"{answer.status_code} {header}")
            plain = re.fullmatch(r"[A-Za-z0-9._-]{1,64}", value)
            echoed = answer.headers["x-request-id"] == value and not plain
            watch.check(name, not echoed, "echoed")

    assert watch.faults == {}


async def test_integers_are_numbers_or_refused(watch: Watch, cases: Cases) -> None:
    """As _count, a version, a positiveInt and a content length: 200, 400, 404 or 413."""
    for name, case in cases("strings/integers.b64"):
        text = quote_from_bytes(case)
        for target in (f"Patient?_count={text}", f"_history?_count={text}"):
            answer = await watch(name, "GET", target)
            watch.check(name, answer.status_code in (200, 400), f"{answer.status_code} {target}")
        answer = await watch(name, "GET", f"Patient/canary-1/_history/{text}")
        watch.check(name, answer.status_code == 404, f"version {answer.status_code}")
        body = b'{"resourceType":"Patient","id":"i","telecom":[{"rank":%s}]}' % case
        answer = await watch(name, "PUT", "Patient/i", JSON, body)
        watch.check(name, answer.status_code in (400, 422), f"rank {answer.status_code}")

    assert watch.faults == {}
