"""What is sent to break in, or to break: refused with a clear answer, counted, and recorded."""

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from joserfc import jws

from fhir_server.messages import Request
from fhir_server.security.claims import CLAIMS, principal_of
from fhir_server.security.jose import Untrusted, check_times, read_key_set
from fhir_server.security.rates import Buckets, Rate, Rates
from fhir_server.security.rights import Known, rights
from tests.http.authorize.conftest import (
    ES384,
    GRANT,
    TOKEN,
    Authorization,
    application,
    assertion_of,
    basic,
    claims_of,
    client_of,
)

HALF = "\ud800"


def _unsigned(**claims: Any) -> str:
    parts = ({"alg": "ES384", "kid": "es"}, claims)
    texts = [base64.urlsafe_b64encode(json.dumps(one).encode()) for one in parts]
    return ".".join([*(one.decode().rstrip("=") for one in texts), "AAAA"])


def _signed(**changes: Any) -> str:
    text = json.dumps(claims_of(**changes)).encode()  # with escapes, as the library does not
    return jws.serialize_compact({"alg": "ES384", "kid": "es"}, text, ES384, algorithms=["ES384"])


@pytest.mark.parametrize(
    "assertion",
    [
        _unsigned(iss=HALF, sub=HALF, aud=TOKEN),
        _unsigned(iss="a\0b", sub="a\0b", aud=TOKEN),
        _signed(jti=HALF),
        assertion_of(exp=10**400),
        assertion_of(nbf=10**400),
    ],
)
async def test_an_assertion_never_breaks_the_endpoint(auth: Authorization, assertion: str) -> None:
    """Half a character, or a number without end, is refused as any other fault."""
    answer = await auth.of_backend(assertion)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


@pytest.mark.parametrize("name", ["key_ops", "use", "alg", "kid", "n", "e", "kty"])
@pytest.mark.parametrize("value", [5, None, [], {}, "é", HALF])
def test_a_published_key_of_any_shape_is_a_refusal(name: str, value: Any) -> None:
    """Keys come from a client: ``ValueError`` is what the reader of them may raise."""
    key = {"kty": "RSA", "kid": "k", "n": "AQAB", "e": "AQAB", name: value}
    with pytest.raises(ValueError, match=r"."):
        read_key_set(json.dumps({"keys": [key]}).encode(), "RS384")


@pytest.mark.parametrize("body", [{"client_name": HALF}, {"redirect_uris": [f"https://a/{HALF}"]}])
async def test_half_a_character_is_not_registered(auth: Authorization, body: Any) -> None:
    """RFC 7591: what cannot be is the client's fault."""
    server = auth.server
    settings = server.context.settings.model_copy(update={"client_registration": True})
    chosen = replace(server, context=replace(server.context, settings=settings))
    good = {"client_name": "An app", "redirect_uris": ["https://new.example/back"]}
    async with client_of(application(chosen)) as http:
        answer = await http.post("/auth/register", content=json.dumps(good | body).encode())
    assert answer.status_code == 400, answer.text


def test_a_token_without_a_client_is_held_to_its_scopes() -> None:
    """A missing claim is nothing: it does not turn an app into its user without one."""
    claims = {"sub": "u1", "roles": ["administrator", "physician"], "scope": "user/Patient.r"}
    found = principal_of(claims, CLAIMS, (), "t")
    given = rights(found, Known(("Patient", "Observation"), frozenset()))
    assert set(given.may) == {("Patient", "r")}
    assert "administrator" not in given.roles


def test_a_time_without_end_is_no_time() -> None:
    """Whoever signed it."""
    with pytest.raises(Untrusted):
        check_times({"exp": 10**400}, 0.0)


async def test_refused_tokens_are_counted_by_address(auth: Authorization) -> None:
    """Guessing ends with 429; who has a token goes on, from the same network."""
    few = Rates(Buckets(Rate(0.001, 3)))
    server = replace(auth.server, context=replace(auth.server.context, rates=few))
    tokens = await server.context.accounts.give(GRANT)
    async with client_of(application(server)) as http:
        bad = [
            (await http.get("/fhir/Patient", headers={"Authorization": f"Bearer x{n}"})).status_code
            for n in range(5)
        ]
        good = await http.get("/fhir/Patient", headers={"Authorization": f"Bearer {tokens.access}"})
    assert bad == [401, 401, 401, 429, 429]
    assert good.status_code == 200, good.text


async def test_registrations_are_counted_by_network(auth: Authorization) -> None:
    """Nobody fills the database with apps."""
    server = auth.server
    settings = server.context.settings.model_copy(update={"client_registration": True})
    few = Rates(tokens=Buckets(Rate(0.001, 2)))
    chosen = replace(server, context=replace(server.context, settings=settings, rates=few))
    good = {"client_name": "An app", "redirect_uris": ["https://new.example/back"]}
    async with client_of(application(chosen)) as http:
        found = [(await http.post("/auth/register", json=good)).status_code for _ in range(4)]
    assert found == [201, 201, 429, 429]


async def _rows(auth: Authorization, **wanted: Any) -> list[dict[str, Any]]:
    audit = auth.server.context.store.audit
    assert audit is not None
    await audit.flushed()
    cursor = auth.server.database["audit"].find({"did": "token", **wanted}, sort=[("at", -1)])
    return await cursor.to_list()


async def test_tokens_and_their_refusals_are_recorded(auth: Authorization) -> None:
    """Who was given one, and who was not; never the token, code or secret."""
    before = len(await _rows(auth))
    code = await auth.code()
    given = (await auth.redeemed(code)).json()
    await auth.redeemed(code)
    await auth.http.post(
        "/auth/token",
        data={"grant_type": "client_credentials"},
        headers=basic("keeper", "a wrong secret"),
    )
    rows = await _rows(auth)
    assert len(rows) == before + 3
    said = {(row["status"], row.get("issue", ""), tuple(row["agents"])) for row in rows[:3]}
    assert (200, "", ("user/u1", "client/app", "Patient/p1")) in said
    assert (400, "forbidden", ("client/app",)) in {(s, i, a[:1]) for s, i, a in said}
    assert (401, "login", ("nobody/nobody", "client/keeper")) in said
    events = await auth.server.perform(
        Request("search-type", "AuditEvent", parameters=(("_count", "3"),))
    )
    text = repr(rows) + events.body.decode()
    assert text.count('"AuditEvent"') == 3
    for secret in (given["access_token"], given["refresh_token"], code, "a wrong secret"):
        assert secret not in text


async def test_pages_of_apps_read_with_a_token_alone(auth: Authorization) -> None:
    """An app may have registered itself: without a token its pages would be the demo user's."""
    origin = {"Origin": "https://app.example"}
    plain = await auth.http.get("/fhir/Patient", headers=origin)
    assert "access-control-allow-origin" not in plain.headers
    held = await auth.http.get("/fhir/Patient", headers=origin | {"Authorization": "Bearer x"})
    assert held.headers["access-control-allow-origin"] == "https://app.example"


async def test_a_token_in_an_address_is_not_kept(auth: Authorization) -> None:
    """It is refused there (RFC 6750, 2.3), and the record of that does not have it."""
    tokens = await auth.server.context.accounts.give(GRANT)
    answer = await auth.http.get(f"/fhir/Patient?name=x&access_token={tokens.access}&_count=1")
    assert answer.status_code == 401
    audit = auth.server.context.store.audit
    assert audit is not None
    await audit.flushed()
    rows = await auth.server.database["audit"].find({"query": {"$regex": "access_token"}}).to_list()
    assert rows
    assert tokens.access not in repr(rows)
    assert all("name=x" in row["query"] and "_count=1" in row["query"] for row in rows)
