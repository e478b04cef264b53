"""https://hl7.org/fhir/R4/http.html"""

from urllib.parse import quote_from_bytes

import pytest

from tests.badinput.conftest import JSON, Cases, Watch

# How many of each collection are tried: every so manieth, the same ones each time.
PATHS = {"dotdotpwn": 25, "deep": 2, "inclusion": 2, "traversal": 3}
KNOWN = {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"}
PLACES = ["", "metadata", "Patient", "Patient/canary-1", "Patient/canary-1/_history", "_history"]
# What stands in a request line as it is; the rest a client escapes.
IN_A_PATH = "/%:@!$&'()*+,;=-._~\\{}[]<>|^`\""


@pytest.mark.parametrize("place", ["Patient/", "Binary/", "Patient/canary-1/_history/"])
@pytest.mark.parametrize("collection", PATHS)
async def test_no_path_leads_out(watch: Watch, cases: Cases, collection: str, place: str) -> None:
    """As an id or a version, escaped as sent: 404, or 400 for what becomes a query."""
    for name, case in cases(f"path/{collection}.b64", every=PATHS[collection]):
        if case.strip(b"/"):
            target = place + quote_from_bytes(case, safe=IN_A_PATH + "?")
            answer = await watch(name, "GET", target)
            refused = answer.status_code in (400, 404, 414)
            query = case.startswith(b"?")
            watch.check(name, refused or query, f"status {answer.status_code} {target[:80]}")

    assert watch.faults == {}


@pytest.mark.parametrize("place", PLACES)
async def test_no_method_of_others_is_known(watch: Watch, cases: Cases, place: str) -> None:
    """405 with Allow, on every place; the methods that the place has are left out."""
    for name, case in cases("http/methods.b64"):
        method = case.decode("ascii")
        if method not in KNOWN:
            answer = await watch(method, method, place, JSON, b"{}")
            right = answer.status_code == 405 and bool(answer.headers.get("allow"))
            watch.check(method, right, f"status {answer.status_code} {name}")

    assert watch.faults == {}


@pytest.mark.parametrize(
    "place", ["Patient/{}", "Patient?family={}", "Patient?{}", "{}", "_history?{}"]
)
async def test_no_line_break_gets_into_a_header(watch: Watch, cases: Cases, place: str) -> None:
    """As an id, a value and a name: every header of the answer is one that we know."""
    known = {
        *("cache-control", "x-content-type-options", "vary", "etag", "last-modified", "location"),
        *(
            "content-type",
            "content-length",
            "content-encoding",
            "x-request-id",
            "allow",
            "referrer-policy",
        ),
    }
    for name, case in cases("http/crlf.b64", "http/crlf_more.b64"):
        target = place.format(quote_from_bytes(case.lstrip(b"/"), safe="/%"))
        answer = await watch(name, "GET", target)
        watch.check(name, set(answer.headers) <= known, f"headers {set(answer.headers) - known}")
        types = ("application/fhir+json", "application/json")
        watch.check(name, answer.headers["content-type"].startswith(types), "another type")

    assert watch.faults == {}


async def test_repeated_parameters_mean_and(watch: Watch, cases: Cases) -> None:
    """Query strings that servers read in different ways: 200 or 400."""
    for name, case in cases("http/parameter_pollution.b64"):
        for id in (b"id", b"_id", b"family"):
            query = quote_from_bytes(case.replace(b"id", id).lstrip(b"?&;"), safe="%&=;,?/:@+$")
            answer = await watch(name, "GET", f"Patient?{query}")
            watch.check(name, answer.status_code in (200, 400), f"status {answer.status_code}")
            rows = answer.content.count(b'"mode":"match"')
            watch.check(name, rows == 0, f"{rows} rows for {query}")

    assert watch.faults == {}


async def test_two_values_are_both_to_be_met(watch: Watch) -> None:
    """search.html#combining: a parameter that is repeated means AND, a comma OR."""
    rows = []
    for query in (
        "_id=canary-1&_id=canary-2",
        "_id=canary-1,canary-2",
        "_id=canary-1&_id=canary-1",
    ):
        answer = await watch(query, "GET", f"Patient?{query}")
        rows.append(answer.content.count(b'"mode":"match"'))

    assert rows == [0, 2, 1]
