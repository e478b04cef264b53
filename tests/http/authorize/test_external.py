"""design/security.md, section 2.1: another issuer in place of the built-in server."""

import json
import time
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

from fhir_server.http.authorize.external import ExternalIssuer, read_metadata
from fhir_server.outcome import FhirError
from fhir_server.remote.fetching import Unfetched
from fhir_server.remote.key_sets import Published
from fhir_server.security.jose import read_key_set
from fhir_server.security.principal import Principal
from fhir_server.settings import Settings

ISSUER = "https://issuer.example/realm"
BASE = "https://fhir.example.org/fhir"
JWKS = "https://issuer.example/keys"
KEY, OTHER = (RSAKey.generate_key(2048, {"kid": "k"}) for _ in range(2))


async def _fetch(url: str) -> tuple[bytes, str]:
    if url == f"{ISSUER}/.well-known/openid-configuration":
        return json.dumps({"issuer": ISSUER, "jwks_uri": JWKS}).encode(), ""
    assert url == JWKS
    return json.dumps({"keys": [KEY.as_dict(private=False)]}).encode(), ""


async def _absent(url: str) -> tuple[bytes, str]:
    raise Unfetched("it is not there")


def _issuer(fetch: Any = _fetch, answer: Any = None, **settings: Any) -> ExternalIssuer:
    async def ask(url: str, form: Any, basic: Any) -> bytes:
        assert (url, basic) == (settings["auth_introspection_url"], ("me", "s"))
        return json.dumps(answer | {"sub": form["token"]}).encode()

    keys: Published[KeySet] = Published(read_key_set, fetch)
    chosen = Settings.model_validate({"auth_issuer": ISSUER, "base_url": BASE} | settings)
    metadata = Published(read_metadata, fetch)
    return ExternalIssuer(chosen, (BASE,), time.time, keys, metadata, ask)


def _claims(**changes: Any) -> dict[str, Any]:
    claims = {
        "iss": ISSUER,
        "aud": BASE,
        "sub": "u1",
        "client_id": "app",
        "exp": int(time.time()) + 60,
        "scope": "openid patient/*.rs",
        "fhirUser": f"{BASE}/Patient/p1",
        "patient": "p1",
        "roles": ["patient"],
        "admin": True,
    }
    return {name: value for name, value in (claims | changes).items() if value is not None}


def _token(key: RSAKey = KEY, algorithm: str = "RS256", **changes: Any) -> str:
    header = {"alg": algorithm, "kid": "k", "typ": "at+jwt"}
    return jwt.encode(header, _claims(**changes), key, algorithms=[algorithm])


async def _judged(issuer: ExternalIssuer, token: str) -> Principal | None:
    found = await issuer(token)
    return None if found is None else found.principal


async def test_a_good_token_says_who_asks() -> None:
    """The claims of the table are what is known; others give nothing."""
    found = await _judged(_issuer(), _token())
    assert found is not None
    assert (found.kind, found.name, found.client) == ("user", "u1", "app")
    assert [one.text for one in found.scopes] == ["patient/*.rs"]
    assert (found.roles, found.fhir_user, found.patient) == (("patient",), "Patient/p1", "p1")


@pytest.mark.parametrize(
    ("changes", "lacking"),
    [
        ({"scope": None}, "scopes"),
        ({"scope": {"a": 1}}, "scopes"),
        ({"roles": None}, "roles"),
        ({"roles": {"administrator": True}}, "roles"),
        ({"fhirUser": None}, "fhir_user"),
        ({"fhirUser": "https://other.example/fhir/Patient/p1"}, "fhir_user"),
        ({"fhirUser": "Device/1"}, "fhir_user"),
        ({"patient": None}, "patient"),
        ({"patient": ["p1"]}, "patient"),
    ],
)
async def test_what_is_missing_gives_no_rights(changes: dict[str, Any], lacking: str) -> None:
    """A claim that is not there, or of another form, is nothing, never everything."""
    found = await _judged(_issuer(), _token(**changes))
    assert found is not None
    assert not getattr(found, lacking)


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://issuer.example"},
        {"iss": None},
        {"aud": "https://other.example/fhir"},
        {"aud": f"{BASE}x"},
        {"aud": None},
        {"exp": 1},
        {"exp": None},
        {"nbf": 4_000_000_000},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"patient": "../x"},
    ],
    ids=str,
)
async def test_tokens_that_are_refused(changes: dict[str, Any]) -> None:
    """Issuer, audience, times and subject are as they have to be."""
    assert await _issuer()(_token(**changes)) is None


async def test_signatures_that_are_refused() -> None:
    """Another key, another algorithm, none."""
    issuer = _issuer()
    for token in (_token(OTHER), _token(algorithm="RS384"), _token().rpartition(".")[0] + ".", "x"):
        assert await issuer(token) is None
    assert await issuer(_token()) is not None


async def test_an_issuer_that_is_away_is_no_verdict() -> None:
    """Where the keys cannot be read, the client is told to try again: 503, not 401."""
    with pytest.raises(FhirError) as refused:
        await _issuer(_absent)(_token())
    assert refused.value.status == 503


async def test_claims_have_other_names_by_a_setting() -> None:
    """A table maps claims; a name of several parts goes down."""
    issuer = _issuer(auth_claims={"roles": "realm_access.roles", "client": "azp"})
    token = _token(realm_access={"roles": ["nurse", 7]}, azp="backend", sub="backend")
    found = await _judged(issuer, token)
    assert found is not None
    assert (found.kind, found.roles) == ("client", ("nurse",))


@pytest.mark.parametrize("is_active", [True, False, "true", None])
async def test_introspection(is_active: Any) -> None:
    """The issuer may be asked instead; what it says is held to the same rules."""
    settings = {
        "auth_introspection_url": "https://issuer.example/introspect",
        "auth_introspection_client": "me",
        "auth_introspection_secret": "s",
    }
    found = await _judged(_issuer(answer=_claims(active=is_active), **settings), "u9")
    assert (found.name if found else "") == ("u9" if is_active is True else "")
    wrong = _claims(active=True, aud="https://other.example")
    assert await _issuer(answer=wrong, **settings)("u9") is None


def test_an_issuer_is_called_by_https() -> None:
    """Keys that came over plain HTTP could be anybody's."""
    with pytest.raises(ValueError, match="FHIR_AUTH_ISSUER"):
        Settings.model_validate({"auth_issuer": "http://issuer.example"})
