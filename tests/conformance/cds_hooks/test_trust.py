"""https://cds-hooks.hl7.org/2.0/#trusting-cds-clients: S-50 to S-58 of design/cds.md, 16."""

import asyncio
import base64
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from joserfc.jwk import ECKey, OctKey

from fhir_server.app import Server
from fhir_server.features.cds.http import Endpoint
from fhir_server.features.cds.keys import PAUSE_S
from fhir_server.features.cds.schema import KnowledgeError
from fhir_server.features.cds.services import DrugSafety
from fhir_server.features.cds.trust import load_clients
from tests.conformance.cds_hooks.conftest import (
    AUDIENCE,
    EC,
    ISSUER,
    OTHER,
    RSA,
    SANDBOX,
    SIGN,
    full,
    naproxen,
    token,
)

Headers = dict[str, str]


async def status_of(guarded: httpx.AsyncClient, headers: Headers) -> int:
    return (await guarded.post(SIGN, json=full(naproxen()), headers=headers)).status_code


def by_rsa(**claims: Any) -> Headers:
    """Return the header of the other client, which signs with RS384."""
    return token(RSA, {"alg": "RS384", "kid": "rsa1"}, iss=OTHER, **claims)


async def test_s50_what_of_a_token_is_read(guarded: httpx.AsyncClient) -> None:
    """S-50: alg, kid, typ, iss, aud, exp, iat and jti; tenant where the client has some."""
    assert await status_of(guarded, token()) == 200
    assert await status_of(guarded, by_rsa(tenant="north")) == 200
    assert await status_of(guarded, by_rsa(tenant="south")) == 401
    assert await status_of(guarded, by_rsa()) == 401


NOW = int(time.time())
INCOMPLETE: dict[str, dict[str, Any]] = {
    "expired": {"exp": NOW - 3_600},
    "lives too long": {"exp": NOW + 86_400},
    "issued in the future": {"iat": NOW + 3_600},
    "exp is text": {"exp": "soon"},
    "no exp": {"exp": None},
    "exp is no number": {"exp": float("nan")},
    "no iat": {"iat": None},
    "no iss": {"iss": None},
    "no aud": {"aud": None},
    "no jti": {"jti": None},
    "jti is a number": {"jti": 7},
    "no kid": {"header": {"kid": ""}},
    "other type": {"header": {"typ": "at+jwt"}},
    "critical": {"header": {"crit": ["exp"]}},
}


@pytest.mark.parametrize("what", INCOMPLETE)
async def test_s50_what_is_missing_or_wrong(guarded: httpx.AsyncClient, what: str) -> None:
    """S-50: a claim or a header that is missing or wrong: 401."""
    assert await status_of(guarded, _signed(**INCOMPLETE[what])) == 401


def _signed(**change: Any) -> Headers:
    try:
        return token(**change)
    except Exception:  # noqa: BLE001 - the library does not sign this; sign it as nobody would
        return _unsigned({"alg": "ES384", "typ": "JWT", "kid": "ec1", **change.get("header", {})})


def _unsigned(header: dict[str, Any], **claims: Any) -> Headers:
    said = {"iss": ISSUER, "aud": AUDIENCE, "exp": NOW + 200, "iat": NOW, "jti": str(uuid4())}

    def part(of: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(of).encode()).decode().rstrip("=")

    return {"Authorization": f"Bearer {part(header)}.{part({**said, **claims})}."}


ALGORITHMS: dict[str, tuple[int, dict[str, Any]]] = {
    "ES384": (200, {}),
    "a MAC": (401, {"key": OctKey.import_key("x" * 48), "header": {"alg": "HS256"}}),
    "ES256": (
        401,
        {"key": ECKey.generate_key("P-256", {"kid": "ec1"}), "header": {"alg": "ES256"}},
    ),
    "RS384 of a client with ES384": (401, {"key": RSA, "header": {"alg": "RS384", "kid": "ec1"}}),
}


@pytest.mark.parametrize("what", ALGORITHMS)
async def test_s51_algorithms(guarded: httpx.AsyncClient, what: str) -> None:
    """S-51: a client's own algorithm, ES384 or RS384, and no other."""
    status, change = ALGORITHMS[what]

    assert await status_of(guarded, token(**change)) == status
    assert await status_of(guarded, by_rsa(tenant="north")) == 200


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "", "ES384"])
async def test_s51_no_signature(guarded: httpx.AsyncClient, alg: str) -> None:
    """S-51: ``none`` is no signature, however it is written; nor is nothing one."""
    headers = _unsigned({"alg": alg, "typ": "JWT", "kid": "ec1"})

    assert await status_of(guarded, headers) == 401


async def test_s51_the_public_key_is_no_secret(guarded: httpx.AsyncClient) -> None:
    """S-51: a MAC by the public key, which everybody knows."""
    unsigned = _unsigned({"alg": "HS256", "typ": "JWT", "kid": "ec1"})["Authorization"]
    said = unsigned.removeprefix("Bearer ").removesuffix(".")
    mac = hmac.digest(EC.as_pem(private=False), said.encode(), "sha256")
    signature = base64.urlsafe_b64encode(mac).decode().rstrip("=")

    assert await status_of(guarded, {"Authorization": f"Bearer {said}.{signature}"}) == 401


@pytest.mark.parametrize(
    ("aud", "status"),
    [
        (AUDIENCE, 200),
        (f"{AUDIENCE}/", 200),
        (["https://other.example.org", AUDIENCE], 200),
        (f"{AUDIENCE}x", 401),
        (f"{AUDIENCE}/feedback", 401),
        ("https://cds.example.org", 401),
        ("https://cds.example.org/cds-services", 401),
        ("http://cds.example.org" + SIGN, 401),
        ([], 401),
        ([7, None], 401),
        ({"url": AUDIENCE}, 401),
    ],
)
async def test_s52_the_audience_is_the_url(
    guarded: httpx.AsyncClient, aud: Any, status: int
) -> None:
    """S-52: ``aud`` is the URL that is called, as text or in a list."""
    assert await status_of(guarded, token(aud=aud)) == status


async def test_s52_discovery_and_feedback_have_their_own(guarded: httpx.AsyncClient) -> None:
    """S-52: discovery and feedback are other URLs, so other audiences."""
    path = "/cds-services"
    assert (await guarded.get(path, headers=token())).status_code == 401
    right = token(aud=f"https://cds.example.org{path}")
    assert (await guarded.get(path, headers=right)).status_code == 200

    item = {"card": str(uuid4()), "outcome": "overridden"}
    body = {"feedback": [{**item, "outcomeTimestamp": "2026-11-22T10:05:31Z"}]}
    path = f"{SIGN}/feedback"
    assert (await guarded.post(path, json=body, headers=token())).status_code == 401
    right = token(aud=f"{AUDIENCE}/feedback")
    assert (await guarded.post(path, json=body, headers=right)).status_code == 200


async def test_s53_issuers_are_listed(guarded: httpx.AsyncClient) -> None:
    """S-53: an issuer that is not on the list is refused, and one client is not the other."""
    assert await status_of(guarded, token(iss="https://evil.example.org")) == 401
    assert await status_of(guarded, token(iss=OTHER)) == 401
    assert await status_of(guarded, token(iss=[ISSUER])) == 401


@asynccontextmanager
async def publishing(*keys: ECKey) -> AsyncIterator[tuple[str, list[bytes], list[ECKey]]]:
    """A site on loopback that publishes ``keys``: its URL, what it was asked, what it has."""
    asked: list[bytes] = []
    held = list(keys)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        body = json.dumps({"keys": [key.as_dict(private=False) for key in held]}).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        writer.write(body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/jwks.json", asked, held


async def called(server: Server, endpoint: Endpoint, path: Path, headers: Headers) -> int:
    """Return the status of discovery by ``endpoint`` with the clients of ``path``.

    In development, where keys are read by http on this machine as well.
    """
    said: list[dict[str, Any]] = []
    changed = {"cds_clients": path, "mode": "development"}
    settings = server.context.settings.model_copy(update=changed)
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/cds-services",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "fhir_server.context": replace(server.context, settings=settings),
    }

    async def send(event: dict[str, Any]) -> None:
        said.append(event)

    await endpoint(scope, None, send)
    status: int = said[0]["status"]
    return status


def written(path: Path, **more: Any) -> Path:
    """Write a file of clients with one."""
    path.write_text(json.dumps({"clients": [{"iss": ISSUER, **more}]}), "utf-8")
    return path


DISCOVERY = "https://cds.example.org/cds-services"


def fresh(kid: str) -> ECKey:
    return ECKey.generate_key("P-384", {"kid": kid})


async def test_s53_keys_are_read_where_they_are_registered(
    closed_server: Server, tmp_path: Path
) -> None:
    """S-53: keys come from the registered URL; another ``jku`` is refused unread."""
    key = fresh("k1")
    async with publishing(key) as (url, asked, _), publishing(key) as (evil, evil_asked, _):
        path = written(tmp_path / "clients.json", keysUrl=url)
        endpoint = Endpoint({}, DrugSafety())
        for jku, status in ((evil, 401), (url, 200), (None, 200)):
            header = {"kid": "k1"} | ({"jku": jku} if jku else {})
            headers = token(key, header, aud=DISCOVERY)
            assert await called(closed_server, endpoint, path, headers) == status

    assert len(asked) == 1
    assert evil_asked == []


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"keysUrl": "http://ehr.example.org/jwks.json"},
        {"keysUrl": "file:///etc/passwd"},
        {"keysUrl": "https://ehr.example.org/jwks.json", "keys": {"keys": []}},
        {"keysUrl": "https://ehr.example.org/jwks.json", "algorithm": "HS256"},
        {"keysUrl": "https://ehr.example.org/jwks.json", "algorithm": "none"},
    ],
)
def test_s53_what_is_not_registered(tmp_path: Path, more: dict[str, Any]) -> None:
    """S-53: a client has keys or an https URL of them, and one of two algorithms."""
    with pytest.raises(KnowledgeError, match="FHIR_CDS_CLIENTS"):
        load_clients(written(tmp_path / "clients.json", **more))


async def test_s54_a_token_counts_once(guarded: httpx.AsyncClient) -> None:
    """S-54: a token that was used is refused, on every process; of two at once one is taken."""
    headers = token()
    said = [await status_of(guarded, headers) for _ in range(2)]
    same = token()
    together = await asyncio.gather(*(status_of(guarded, same) for _ in range(4)))

    assert said == [200, 401]
    assert sorted(together) == [200, 401, 401, 401]


async def test_s54_ids_are_those_of_an_issuer(guarded: httpx.AsyncClient) -> None:
    """S-54: the same id of two issuers is two ids; they are forgotten some time after they end."""
    jti = str(uuid4())
    assert await status_of(guarded, token(jti=jti)) == 200
    assert await status_of(guarded, by_rsa(jti=jti, tenant="north")) == 200


async def test_s55_an_unknown_key_is_looked_for_once(closed_server: Server, tmp_path: Path) -> None:
    """S-55: keys that changed are read again; not again within a minute, whoever asks."""
    first, second = fresh("k1"), fresh("k2")
    async with publishing(first) as (url, asked, held):
        path = written(tmp_path / "clients.json", keysUrl=url)
        endpoint = Endpoint({}, DrugSafety())

        async def status(key: ECKey, kid: str) -> int:
            headers = token(key, {"kid": kid}, aud=DISCOVERY)
            return await called(closed_server, endpoint, path, headers)

        assert await status(first, "k1") == 200
        held[:] = [second]
        assert await status(second, "k2") == 401  # read a moment ago
        for kept in endpoint._published._kept.values():  # a minute later
            kept.tried_at -= PAUSE_S
        assert await status(second, "k2") == 200
        assert await status(first, "k1") == 401  # it was withdrawn
        assert [await status(fresh("k9"), "k9") for _ in range(3)] == [401] * 3

    assert len(asked) == 2


async def test_s55_who_comes_meanwhile_waits(closed_server: Server, tmp_path: Path) -> None:
    """S-55: of many calls at once after a start all are answered, and the keys read once."""
    key = fresh("k1")
    async with publishing(key) as (url, asked, _):
        path = written(tmp_path / "clients.json", keysUrl=url)
        endpoint = Endpoint({}, DrugSafety())
        headers = [token(key, {"kid": "k1"}, aud=DISCOVERY) for _ in range(8)]
        said = await asyncio.gather(
            *(called(closed_server, endpoint, path, one) for one in headers)
        )

    assert said == [200] * 8
    assert len(asked) == 1


async def test_s55_keys_that_cannot_be_had(closed_server: Server, tmp_path: Path) -> None:
    """S-55: a site that does not answer is a token that is not trusted, not a failure."""
    path = written(tmp_path / "clients.json", keysUrl="http://127.0.0.1:9/jwks.json")
    headers = token(EC, aud=DISCOVERY)

    assert await called(closed_server, Endpoint({}, DrugSafety()), path, headers) == 401


async def test_s55_keys_that_were_registered_by_hand(guarded: httpx.AsyncClient) -> None:
    """S-55: they need no URL, and where a token says that they are means nothing."""
    jku = {"jku": "https://evil.example.org/jwks.json"}
    another = ECKey.generate_key("P-384", {"kid": "ec1"})

    assert await status_of(guarded, token(header=jku)) == 200
    assert await status_of(guarded, token(header={"kid": "ec9"})) == 401
    assert await status_of(guarded, token(another)) == 401


async def test_s56_no_reason_is_given(guarded: httpx.AsyncClient) -> None:
    """S-56: every refusal is the same 401, byte by byte."""
    bare = await guarded.post(SIGN, json=full(naproxen()))
    assert bare.status_code == 401
    assert bare.headers["www-authenticate"] == "Bearer"
    for headers in (
        token(exp=1),
        token(iss="https://evil.example.org"),
        token(header={"kid": "ec9"}),
        token(aud="https://cds.example.org"),
        _unsigned({"alg": "none", "typ": "JWT", "kid": "ec1"}),
        {"Authorization": "Bearer x"},
        {"Authorization": "Bearer a.b.c"},
        {"Authorization": "Basic eDp5"},
        {"Authorization": f"Bearer {'x' * 9000}"},
    ):
        response = await guarded.post(SIGN, json=full(naproxen()), headers=headers)
        assert response.status_code == 401
        assert response.content == bare.content


async def test_s57_the_log_has_no_token(
    guarded: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """S-57: why a token is refused is logged, the token is not; nor one that is taken."""
    wrong, right = token(exp=1), token()
    with caplog.at_level("DEBUG"):
        assert await status_of(guarded, wrong) == 401
        assert await status_of(guarded, right) == 200

    assert "expired" in caplog.text
    for headers in (wrong, right):
        parts = headers["Authorization"].removeprefix("Bearer ").split(".")
        assert parts[1] not in caplog.text
        assert parts[2] not in caplog.text


ASKED = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type",
}


@pytest.mark.parametrize("path", ["/cds-services", SIGN, f"{SIGN}/feedback"])
async def test_s58_preflights(hooks: httpx.AsyncClient, path: str) -> None:
    """S-58: answered for discovery, services and feedback, to listed origins."""
    response = await hooks.options(path, headers={"Origin": SANDBOX, **ASKED})

    assert response.status_code == 204
    assert response.headers["access-control-allow-origin"] in ("*", SANDBOX)
    allowed = response.headers["access-control-allow-headers"].lower().replace(" ", "").split(",")
    assert {"authorization", "content-type"} <= set(allowed)
    assert "access-control-allow-credentials" not in response.headers


async def test_s58_origins_of_clients(guarded: httpx.AsyncClient) -> None:
    """S-58: services for the pages of registered clients only; discovery for every page; a page
    can read a refusal as well."""
    mine = await guarded.options(SIGN, headers={"Origin": ISSUER, **ASKED})
    evil = await guarded.options(SIGN, headers={"Origin": "https://evil.example.org", **ASKED})
    found = await guarded.get("/cds-services", headers={"Origin": "https://evil.example.org"})
    refused = await guarded.post(SIGN, json=full(naproxen()), headers={"Origin": ISSUER})

    assert mine.headers["access-control-allow-origin"] == ISSUER
    assert "access-control-allow-origin" not in evil.headers
    assert found.headers["access-control-allow-origin"] == "*"
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, ISSUER)
