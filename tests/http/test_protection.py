"""A13, A14; design/security.md, sections 1 and 6: headers of every answer, and foreign names."""

from dataclasses import replace
from typing import Any

import httpx
import pytest

from fhir_server.app import Server
from fhir_server.http.protection import names_of
from fhir_server.http.site import site
from fhir_server.security.principal import DEMO, NOBODY, Principal
from fhir_server.security.rates import Buckets, Rate, Rates
from fhir_server.settings import Settings
from tests.http.conftest import HOST, Exact, application, exchange

EVERYWHERE = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "vary": "Authorization, Accept, Prefer, Accept-Encoding",
}
PATIENT = b'{"resourceType":"Patient","id":"p"}'
# method, target, body, status
ANSWERS = [
    ("PUT", "Patient/p", PATIENT, 201),
    ("GET", "Patient?name=x", b"", 200),
    ("GET", "Patient/none", b"", 404),
    ("GET", "Nothing/none", b"", 404),
    ("POST", "Patient", b"{", 400),
    ("PUT", "metadata", b"", 405),
    ("GET", "Patient?nothing=1", b"", 400),
    ("GET", "Binary/none", b"", 404),
    ("GET", "/", b"", 200),
    ("GET", "/docs", b"", 200),
    ("GET", "/style.css", b"", 200),
    ("GET", "/live", b"", 200),
    ("GET", "/ready", b"", 200),
    ("GET", "/openapi.json", b"", 200),
    ("POST", "/live", b"", 405),
    ("GET", "/nothing", b"", 404),
    ("GET", "/fhirx", b"", 404),
]


@pytest.mark.parametrize(("method", "target", "body", "status"), ANSWERS)
async def test_every_answer_has_the_headers(
    exact: Exact, method: str, target: str, body: bytes, status: int
) -> None:
    """Errors and what is no FHIR too; pages say besides what they may do."""
    answer = await exact(method, target, {"content-type": "application/fhir+json"}, body)

    assert answer.status_code == status, answer.text
    for name, value in EVERYWHERE.items():
        assert answer.headers.get_list(name) == [value], name
    assert answer.headers["x-request-id"]
    assert "strict-transport-security" not in answer.headers
    if target.startswith("/"):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy


async def test_what_the_server_can_do_may_stay(http: httpx.AsyncClient) -> None:
    """The CapabilityStatement is kept and asked for again by its tag."""
    answer = await http.get("metadata")
    again = await http.get("metadata", headers={"If-None-Match": answer.headers["etag"]})

    assert answer.headers.get_list("cache-control") == ["no-cache"]
    assert (again.status_code, again.headers["cache-control"]) == (304, "no-cache")


async def test_in_production_browsers_keep_to_tls(server: Server) -> None:
    """Every answer says so."""
    said = {"mode": "production", "base_url": f"https://{HOST}/fhir"}
    settings = server.context.settings.model_copy(update=said)
    inner = application(server)
    app = site(inner.facade, None, None, settings)  # type: ignore[arg-type]

    for target in ("Patient/none", "metadata", "/live", "/nothing"):
        answer = await exchange(app, "GET", target)
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
    foreign = await exchange(app, "GET", "metadata", {"host": "localhost"})
    assert foreign.status_code == 403


# Mode, base URL, Host -> whether it is ours.
HOSTS = [
    ("development", "", "localhost", True),
    ("development", "", "localhost:8080", True),
    ("development", "", "LOCALHOST:1", True),
    ("development", "", "127.0.0.1:8080", True),
    ("development", "", "[::1]:8080", True),
    ("development", "", "evil.example", False),
    ("development", "", "evil.example:8080", False),
    ("development", "", "localhost.evil.example", False),
    ("development", "", "127.0.0.1.evil.example", False),
    ("development", "", "localhost.", False),
    ("development", "", "[::2]:8080", False),
    ("development", "", "[::1", False),
    ("development", "", "192.168.1.1", False),
    ("development", "", "", False),
    ("development", "https://fhir.example.org/fhir", "fhir.example.org", True),
    ("development", "https://[fe80::5]/fhir", "[fe80::5]:1", True),
    ("production", "https://fhir.example.org/fhir", "fhir.example.org:443", True),
    ("production", "https://fhir.example.org/fhir", "localhost", False),
    ("production", "https://fhir.example.org/fhir", "127.0.0.1", False),
]


@pytest.mark.parametrize(("mode", "base_url", "host", "ours"), HOSTS)
async def test_a_foreign_name_is_refused(
    empty: Server, mode: str, base_url: str, host: str, ours: bool
) -> None:
    """A14: a page of the web that has its name point here (DNS rebinding) reads and writes nothing;
    who watches the process may call it by any name."""
    named = names_of(Settings.model_validate({"mode": mode, "base_url": base_url}))
    app = site(application(empty).facade, None, None, empty.context.settings, names=named)  # type: ignore[arg-type]

    read = await exchange(app, "GET", "metadata", {"host": host})
    written = await exchange(app, "PUT", "Patient/p", {"host": host}, b"{}")
    page = await exchange(app, "GET", "/", {"host": host})
    live = await exchange(app, "GET", "/live", {"host": host})

    assert (read.status_code == 200) is ours
    assert (page.status_code == 200) is ours
    assert live.status_code == 200
    if not ours:
        assert (read.status_code, written.status_code, page.status_code) == (403, 403, 403)
        assert read.json()["resourceType"] == "OperationOutcome"
        for name, value in EVERYWHERE.items():
            assert page.headers[name] == read.headers[name] == value
        assert read.headers["x-request-id"]
    else:
        assert written.status_code == 415


async def test_two_names_are_refused(empty: Server) -> None:
    """One of them is ours, the other would be believed by somebody in front."""
    sent: list[dict[str, object]] = []
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/fhir/metadata",
        "headers": [(b"host", HOST.encode()), (b"host", b"evil.example")],
    }

    async def send(event: dict[str, object]) -> None:
        sent.append(event)

    await application(empty)(scope, None, send)
    assert sent[0]["status"] == 403


# Origin, token, origins of the setting -> whether a page may read the answer, and of metadata.
CORS = [
    ("https://app.example", False, (), False),
    ("https://app.example", True, (), False),
    ("https://app.example", False, ("https://app.example",), True),
    ("https://app.example.evil", True, ("https://app.example",), False),
    ("https://app.example", True, ("*",), True),
    ("https://app.example", False, ("*",), False),
    ("null", False, ("*",), False),
]


@pytest.mark.parametrize(("origin", "token", "origins", "may"), CORS)
async def test_which_pages_may_read(
    empty: Server, origin: str, token: bool, origins: tuple[str, ...], may: bool
) -> None:
    """Registered ones; what says how to sign in is for all."""
    settings = empty.context.settings.model_copy(update={"cors_origins": origins})
    named = frozenset({HOST.encode()})
    app = site(application(empty).facade, None, None, settings, names=named)  # type: ignore[arg-type]
    headers = {"origin": origin} | ({"authorization": "Bearer x"} if token else {})

    data = await exchange(app, "GET", "Patient", headers)
    about = await exchange(app, "GET", "metadata", headers)

    assert (data.headers.get("access-control-allow-origin") in (origin, "*")) is may
    assert about.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in {**data.headers, **about.headers}


# Who asks -> whether the fourth request of three that may come at once is refused.
RATED = [
    (Principal("user", "u", "app"), True),
    (NOBODY, True),
    (Principal("client", "backend"), False),
    (DEMO, False),
]


@pytest.mark.parametrize(("principal", "held"), RATED)
async def test_who_asks_too_often_is_told_to_wait(
    empty: Server, principal: Principal, held: bool
) -> None:
    """429 with ``Retry-After``; another user has a rate of its own."""
    rates = Rates(Buckets(Rate(0.01, 3)))
    who = [principal]

    async def identify(_headers: Any) -> Principal:
        return who[0]

    inner = application(empty)
    app = replace(inner, facade=replace(inner.facade, identify=identify, admit=rates.admit))

    answers = [await exchange(app, "GET", "metadata") for _ in range(4)]

    assert [one.status_code for one in answers[:3]] == [200] * 3
    assert (answers[3].status_code == 429) is held
    if held:
        assert 90 <= int(answers[3].headers["retry-after"]) <= 100
        assert answers[3].json()["issue"][0]["code"] == "throttled"
        who[0] = replace(principal, kind="user", name="other")
        assert (await exchange(app, "GET", "metadata")).status_code == 200


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded", "x-real-ip"])
async def test_development_is_not_for_those_behind_a_proxy(empty: Server, header: str) -> None:
    """A proxy in front would have everybody in as the demo user; one that is named may."""
    facade = application(empty).facade
    for proxies, status in (((), 403), (("127.0.0.1",), 200)):
        settings = empty.context.settings.model_copy(update={"trusted_proxies": proxies})
        app = site(facade, None, None, settings)  # type: ignore[arg-type]
        for target in ("metadata", "/"):
            answer = await exchange(app, "GET", target, {"host": "localhost", header: "9.9.9.9"})
            assert answer.status_code == status
        answer = await exchange(app, "GET", "/live", {"host": "localhost", header: "9.9.9.9"})
        assert answer.status_code == 200
