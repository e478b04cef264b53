"""https://hl7.org/fhir/smart-app-launch/STU2.2/conformance.html"""

from dataclasses import replace
from datetime import timedelta

import httpx
import pytest

from fhir_server.http.authorize.endpoints import OPENID_CONFIGURATION
from fhir_server.messages import Request
from fhir_server.store.client import database_of
from fhir_server.store.signing_keys import RENEWED, SigningKeys, UnopenedKeyError
from tests.http.authorize.conftest import BASE, ROOT, Authorization

SMART = "/fhir/.well-known/smart-configuration"


@pytest.mark.parametrize("path", [SMART, OPENID_CONFIGURATION, "/auth/jwks"])
@pytest.mark.parametrize("accept", ["*/*", "application/fhir+xml", "text/html"])
async def test_discovery_is_json_for_everybody(auth: Authorization, path: str, accept: str) -> None:
    """JSON whatever Accept says, for pages of every origin, without a token."""
    headers = {"Accept": accept, "Origin": "https://anywhere.example"}
    answer = await auth.http.get(path, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert (await auth.http.head(path)).content == b""


async def test_what_is_announced_is_there(auth: Authorization) -> None:
    """Each endpoint is an absolute URL that answers; PKCE is S256 alone."""
    smart = (await auth.http.get(SMART)).json()
    openid = (await auth.http.get(OPENID_CONFIGURATION)).json()

    assert smart["issuer"] == openid["issuer"] == ROOT
    assert smart["code_challenge_methods_supported"] == ["S256"]
    assert smart["token_endpoint"] == f"{ROOT}/auth/token"
    assert "registration_endpoint" not in smart
    assert {"client-confidential-symmetric", "client-confidential-asymmetric"} <= set(
        smart["capabilities"]
    )
    assert ("authorization_endpoint" in smart) == ("launch-standalone" in smart["capabilities"])
    for name, url in openid.items():
        if name.endswith(("_endpoint", "_uri")):
            method = "GET" if name in ("jwks_uri", "authorization_endpoint") else "POST"
            assert (await auth.http.request(method, url)).status_code not in (404, 405, 500)
    metadata = await auth.server.perform(Request("capabilities", base_url=BASE))
    assert metadata.status == 200


async def test_keys_are_public_halves(auth: Authorization) -> None:
    """RS256, which SMART asks for, and ES384, without anything private."""
    keys = (await auth.http.get("/auth/jwks")).json()["keys"]
    assert {key["alg"] for key in keys} == {"RS256", "ES384"}
    for key in keys:
        assert set(key) <= {"kty", "kid", "use", "alg", "n", "e", "crv", "x", "y"}
        assert key["use"] == "sig"


async def test_keys_are_renewed_and_sealed(auth: Authorization) -> None:
    """After 90 days there is another key, and the old one is published as long as its tokens live;
    in the database lies nothing that opens without the master key."""
    now, sealing = auth.server.context.now(), b"k" * 32
    client = auth.server.database.client
    database = database_of(client, f"{auth.server.database.name}-keys")

    def at(days: float, key: bytes = sealing) -> SigningKeys:
        return SigningKeys(database, lambda: now + timedelta(days=days), key, 30.0)

    first, again = await at(0).signing(), await at(0).signing()
    assert first.kid == again.kid
    later = await at(RENEWED.days).signing()
    assert later.kid != first.kid
    days = RENEWED.days - (now.timestamp() / 86_400) % RENEWED.days  # until the next key
    for after, is_published in ((0.01, True), (0.2, False)):
        kids = {key["kid"] for key in await at(days + after).published()}
        assert (first.kid in kids, later.kid in kids) == (is_published, True)
    rows = await database["oauth_signing_keys"].find().to_list()
    assert b'"d"' not in b"".join(bytes(row["sealed"]) for row in rows)
    with pytest.raises(UnopenedKeyError):
        await at(0, b"o" * 32).signing()
    await client.drop_database(database.name)


async def test_pages_of_registered_origins_may_call(auth: Authorization) -> None:
    """The token endpoint is for pages of registered apps; others get no leave from the browser."""

    async def preflight(origin: str) -> httpx.Response:
        asking = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        return await auth.http.options("/auth/token", headers=asking)

    good = await preflight("https://app.example")
    assert good.headers["access-control-allow-origin"] == "https://app.example"
    for origin in ("https://app.example.evil", "null", "https://APP.example"):
        assert "access-control-allow-origin" not in (await preflight(origin)).headers
    for path in ("/auth/token", "/fhir/Patient"):
        asking = {"Origin": "https://app.example", "Access-Control-Request-Method": "GET"}
        found = await auth.http.options(path, headers=asking)
        assert found.headers["access-control-allow-origin"] == "https://app.example"
    refused = await auth.http.post("/auth/token", headers={"Origin": "https://app.example"})
    assert refused.headers["access-control-allow-origin"] == "https://app.example"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/auth/token", 405),
        ("PUT", "/auth/introspect", 405),
        ("POST", "/auth/jwks", 405),
        ("GET", "/auth/nothing", 404),
        ("GET", "/fhir/.well-known/nothing", 404),
    ],
)
async def test_other_paths_and_methods(
    auth: Authorization, method: str, path: str, status: int
) -> None:
    """What is not there is said so, as JSON."""
    answer = await auth.http.request(method, path)
    assert answer.status_code == status
    assert ("allow" in answer.headers) == (status == 405)


async def test_bodies_are_bounded(auth: Authorization) -> None:
    """A form over 64 KiB, one that is not ASCII, and one of a thousand names are refused."""
    form = {"content-type": "application/x-www-form-urlencoded"}
    for body, status in ((b"a" * 70_000, 413), (b"\xff=1", 400), (b"a=1&" * 10_000, 400)):
        answer = await auth.http.post("/auth/token", content=body, headers=form)
        assert answer.status_code == status
        assert answer.json()["error"] == "invalid_request"


async def test_another_issuer_takes_the_place(auth: Authorization) -> None:
    """With FHIR_AUTH_ISSUER this server issues nothing itself."""
    context = auth.server.context
    settings = context.settings.model_copy(update={"auth_issuer": "https://issuer.example"})
    app = auth.server.registry.routes["/auth/"]
    sent: list[dict[str, object]] = []

    async def send(event: dict[str, object]) -> None:
        sent.append(event)

    await app(
        {
            "type": "http",
            "method": "GET",
            "path": "/auth/jwks",
            "headers": [],
            "query_string": b"",
            "fhir_server.context": replace(context, settings=settings),
        },
        None,
        send,
    )
    assert sent[0]["status"] == 404
