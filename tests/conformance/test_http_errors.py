"""https://hl7.org/fhir/R4/http.html#Status-Codes"""

from typing import Any

import httpx
import pytest

from fhir_server.settings import Settings
from tests.http.conftest import BASE, Exact, diagnostics_of, outcome_of

PATIENT = {"resourceType": "Patient", "id": "p", "active": True}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Small limits, so that little is needed to pass them."""
    return settings.model_copy(
        update={"body_bytes_max": 20_000, "resource_bytes_max": 10_000, "url_bytes_max": 2_000}
    )


# ------------------------------------------------------------------------------ 405 and Allow

PLACES = {
    "": "GET HEAD POST",
    "_search": "POST",
    "Patient/p/Observation": "GET HEAD",
    "Patient/p/*": "GET HEAD",
    "metadata": "GET HEAD",
    "_history": "GET HEAD",
    "Patient": "GET HEAD POST",
    "Patient/_search": "POST",
    "Patient/_history": "GET HEAD",
    "Patient/p": "GET HEAD PUT PATCH DELETE",
    "Patient/p/_history": "GET HEAD",
    "Patient/p/_history/1": "GET HEAD",
}
METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FOO", "get"]


@pytest.mark.parametrize("path", PLACES)
async def test_a_method_that_a_place_does_not_have_is_405(
    http: httpx.AsyncClient, exact: Exact, path: str
) -> None:
    """405 with an Allow header (RFC 9110, 15.5.6) for all but what the place answers."""
    await http.put("Patient/p", json=PATIENT)
    for method in METHODS:
        if method not in PLACES[path].split():
            answer = await exact(method, path, {"content-type": "application/json"}, b"{}")
            # Conditional update, patch and delete: 400 where they are not supported.
            assert answer.status_code in (400, 405), (method, answer.status_code)
            if answer.status_code == 405:
                assert "allow" in answer.headers, method
            if method != "HEAD":
                assert method in diagnostics_of(answer) or "not supported" in diagnostics_of(answer)


@pytest.mark.parametrize("path", PLACES)
async def test_what_allow_offers_is_possible(
    http: httpx.AsyncClient, exact: Exact, path: str
) -> None:
    """Allow lists the methods that the place supports (RFC 9110, 10.2.1): none answers 405."""
    await http.put("Patient/p", json=PATIENT)
    headers = {"content-type": "application/json"}
    offered = (await exact("TRACE", path)).headers["allow"].split(", ")
    wrong = [
        method
        for method in offered
        if (await exact(method, path, headers, b"{}")).status_code == 405
    ]

    assert wrong == []
    assert sorted(set(offered)) == sorted(offered)


# Fault 18: the sentence offers PATCH and the conditional interactions.
@pytest.mark.parametrize("path", PLACES)
async def test_the_refusal_of_a_method_says_what_allow_says(exact: Exact, path: str) -> None:
    """The remedy in diagnostics is the list of the header."""
    answer = await exact("TRACE", path)
    _, _, named = diagnostics_of(answer).partition("possible is ")

    assert set(named.rstrip(".").split(", ")) == set(answer.headers["allow"].split(", "))


@pytest.mark.parametrize(
    ("method", "headers"),
    [("PUT", {}), ("DELETE", {}), ("POST", {"If-None-Exist": "identifier=1"})],
)
async def test_a_conditional_write_that_is_not_supported_is_400(
    http: httpx.AsyncClient, method: str, headers: dict[str, str]
) -> None:
    """Servers that don't support the conditional update SHOULD return an HTTP 400 error."""
    path = "Patient" if headers else "Patient?identifier=1"
    body = None if method == "DELETE" else PATIENT
    answer = await http.request(method, path, json=body, headers=headers)

    assert answer.status_code in (200, 201, 204, 400)
    if answer.status_code == 400:
        outcome_of(answer)


# -------------------------------------------------------------------------------- 404

NOWHERE = [
    *("Unknown", "Unknown/p", "patient", "Patient/p/x", "Patient/p/_history/1/x", "a/b/c/d"),
    *("$nothing", "Patient/$nothing", "Patient/p/$nothing", "Patient/$Nothing", "_nothing"),
    *("Patient/" + "x" * 65, "Patient/a_b", "Patient/%00", "Patient/%ff", "Patient//p", "%2e%2e"),
    *("Patient%2Fp", "Patient/p%2F_history", "metadata/x", "Patient/_history/1", "Patient/."),
    *("DomainResource/p", "Resource", "Element/p", "HumanName"),
]


@pytest.mark.parametrize("path", NOWHERE)
async def test_what_is_nowhere_is_404(http: httpx.AsyncClient, exact: Exact, path: str) -> None:
    """404 with an OperationOutcome for what is no place, no type, no operation or no id."""
    await http.put("Patient/p", json=PATIENT)
    answer = await exact("GET", path)

    # "." can be an id by its form: then it is one that was never given.
    assert answer.status_code == 404, answer.text
    assert len(diagnostics_of(answer)) < 400


# ------------------------------------------------------------------------------ 413, 414


async def test_a_body_over_the_limit_is_413(exact: Exact) -> None:
    """413 by its length, declared or not, packed or not, and the limit is named."""
    large = b'{"resourceType":"Patient","id":"p","name":[{"text":"' + b"x" * 20_000 + b'"}]}'
    headers = {"content-type": "application/json"}
    for more in ({}, {"content-length": str(len(large))}, {"content-length": "9" * 30}):
        answer = await exact("PUT", "Patient/p", headers | more, large)
        assert answer.status_code == 413
        assert "20,000 bytes" in diagnostics_of(answer)


async def test_a_resource_over_its_limit_is_413(http: httpx.AsyncClient) -> None:
    """A resource has a limit of its own below that of the body; nothing is written."""
    answer = await http.put("Patient/p", json={**PATIENT, "name": [{"text": "x" * 12_000}]})

    assert answer.status_code == 413
    assert "10,000 bytes" in diagnostics_of(answer)
    assert (await http.get("Patient/p")).status_code == 404


async def test_a_url_over_the_limit_is_414(http: httpx.AsyncClient) -> None:
    """414, and the way out: POST _search, which takes the same parameters."""
    query = "&".join([f"name={'x' * 900}"] * 3)
    answer = await http.get(f"Patient?{query}")
    post = await http.post(
        "Patient/_search",
        content=query,
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )

    assert answer.status_code == 414
    assert "_search" in diagnostics_of(answer)
    assert post.status_code == 200


# -------------------------------------------------------------------------------- X-Request-Id

TAKEN = ["a", "A-b_c.9", "x" * 64, "0b9de2a4-5a3c-4f0f-9a39-7b1c2f3d4e5f"]
MADE = [
    "",
    "x" * 65,
    "a b",
    "a\tb",
    "a,b",
    "<script>",
    "é",
    "a\r\nX-Injected: 1",
    "a\nb",
    "{}",
    "$x",
]


@pytest.mark.parametrize("path", ["metadata", "Patient/nobody", "Patient?nonsense=1"])
@pytest.mark.parametrize("id", TAKEN)
async def test_a_request_id_is_taken(exact: Exact, path: str, id: str) -> None:
    """The client can assign an id; it comes back, with success and with refusal."""
    answer = await exact("GET", path, {"x-request-id": id})

    assert answer.headers["x-request-id"] == id


@pytest.mark.parametrize("id", MADE)
async def test_a_request_id_is_made(exact: Exact, id: str) -> None:
    """What is no plain word is replaced by an id of the server's own, and never echoed."""
    answer = await exact("GET", "metadata", {"x-request-id": id})
    own = answer.headers["x-request-id"]

    assert own != id
    assert len(own) == 36
    assert "x-injected" not in answer.headers


async def test_every_answer_has_an_id_of_its_own(http: httpx.AsyncClient) -> None:
    """A unique id for each request."""
    ids = {(await http.get("Patient/nobody")).headers["x-request-id"] for _ in range(5)}

    assert len(ids) == 5


# ---------------------------------------------------------------------------------------- Host

BAD_HOSTS = [
    *(
        "",
        "evil.example/path",
        "a b",
        "<script>",
        "evil.example\r\nX: y",
        "a@b",
        "a:b:c",
        "é.example",
    ),
    *("x" * 300, "a?b", "a#b", '"', "[::1", "a:999999", "a:", "javascript:alert(1)"),
]


@pytest.mark.parametrize("host", BAD_HOSTS)
async def test_a_host_that_is_none_is_not_echoed(exact: Exact, host: str) -> None:
    """What is no name of this server goes into no header, link or body: it is refused."""
    body = b'{"resourceType":"Patient"}'
    answer = await exact(
        "POST", "Patient", {"host": host, "content-type": "application/json"}, body
    )

    assert answer.status_code == 403
    assert "location" not in answer.headers
    said = diagnostics_of(answer) + str(answer.headers)
    assert len(host) < 3 or host not in said


@pytest.mark.parametrize("name", ["x-forwarded-host", "x-forwarded-proto", "x-host"])
async def test_forwarding_headers_of_strangers_change_nothing(exact: Exact, name: str) -> None:
    """Links follow the Host, or the setting base_url where a proxy stands in front."""
    answer = await exact("GET", "Patient", {name: "evil.example"})

    assert answer.json()["link"][0]["url"] == f"{BASE}/Patient"


@pytest.mark.parametrize("name", ["forwarded", "x-forwarded-for", "x-real-ip"])
async def test_what_a_proxy_has_sent_on_is_refused_in_development(exact: Exact, name: str) -> None:
    """Where everybody may do everything, nobody comes from elsewhere; nothing of it is repeated."""
    answer = await exact("GET", "Patient", {name: "for=evil.example"})

    assert answer.status_code == 403
    assert "evil" not in answer.text + str(answer.headers)


async def test_two_hosts_are_none(exact: Exact, http: httpx.AsyncClient) -> None:
    """RFC 9112, 3.2: a request with two Host lines is wrong; neither is used."""
    answer = await http.get("Patient", headers=[("Host", "a.example"), ("Host", "b.example")])

    assert answer.status_code == 403
    assert ".example" not in answer.text


# --------------------------------------------------------------------------------- every answer

ANSWERS: dict[str, tuple[str, str]] = {
    "success": ("GET", "Patient"),
    "refusal": ("GET", "Patient/nobody"),
    "method": ("DELETE", "metadata"),
}


@pytest.mark.parametrize(("method", "path"), ANSWERS.values(), ids=ANSWERS)
async def test_answers_are_not_for_caches_or_guessing(
    http: httpx.AsyncClient, method: str, path: str
) -> None:
    """Patient data stays out of caches and is not sniffed (security.html)."""
    headers: Any = (await http.request(method, path)).headers

    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert "Accept" in headers["vary"]
    assert "server" not in headers
