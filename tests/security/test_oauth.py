"""https://www.rfc-editor.org/rfc/rfc6749#section-4.1.1; https://www.rfc-editor.org/rfc/rfc7636"""

from contextlib import nullcontext
from string import ascii_letters, digits

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.security.grants import Client
from fhir_server.security.oauth import (
    NotRedirected,
    OAuthError,
    authorization_request,
    challenge_of,
    redirected,
    redirection,
)

BASE = "https://fhir.example/fhir"
BACK = "https://app.example/back?x=1"
APP = Client(
    "app",
    "An app",
    redirect_uris=(BACK,),
    scopes=("openid", "launch/patient", "patient/*.rs", "user/Observation.crs"),
)
GOOD = {
    "response_type": "code",
    "client_id": "app",
    "redirect_uri": BACK,
    "scope": "openid patient/*.cruds system/*.rs launch",
    "state": "s",
    "aud": BASE,
    "code_challenge": challenge_of("v" * 43),
    "code_challenge_method": "S256",
}


def _pairs(**changes: str | None) -> list[tuple[str, str]]:
    return [(name, value) for name, value in (GOOD | changes).items() if value is not None]


def test_a_good_request() -> None:
    """What is asked is what was sent, within what the client is registered for."""
    client, uri, _ = redirection(_pairs(), APP)
    found = authorization_request(_pairs(aud=f"{BASE}/", nonce="n", launch="l"), client, (BASE,))
    assert uri == found.redirect_uri == BACK
    assert found.scopes == ("openid", "patient/*.rs")
    assert (found.state, found.audience, found.nonce, found.launch) == ("s", BASE, "n", "l")
    assert redirected(BACK, {"code": "a b", "state": "s&"}) == f"{BACK}&code=a+b&state=s%26"


@pytest.mark.parametrize(
    ("client", "changes"),
    [
        (None, {}),
        (APP, {"client_id": "other"}),
        (APP, {"client_id": None}),
        (APP, {"redirect_uri": None}),
        (APP, {"redirect_uri": BACK + "&"}),
        (APP, {"redirect_uri": "https://app.example/back"}),
        (APP, {"redirect_uri": BACK.upper()}),
        (APP, {"redirect_uri": "https://app.example.evil/back?x=1"}),
    ],
)
def test_nobody_is_sent_where_it_is_not_registered(
    client: Client | None, changes: dict[str, str | None]
) -> None:
    """An unknown client or address is shown, never redirected to."""
    with pytest.raises(NotRedirected):
        redirection(_pairs(**changes), client)


def test_two_addresses_are_none() -> None:
    """A second redirect_uri or client_id leaves it open which one is meant."""
    for name, value in (("redirect_uri", "https://evil.example"), ("client_id", "other")):
        with pytest.raises(NotRedirected):
            redirection([*_pairs(), (name, value)], APP)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": None}, "unsupported_response_type"),
        ({"request": "x"}, "request_not_supported"),
        ({"request_uri": "x"}, "request_uri_not_supported"),
        ({"state": None}, "invalid_request"),
        ({"state": ""}, "invalid_request"),
        ({"state": "s" * 2001}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "v" * 42}, "invalid_request"),
        ({"aud": None}, "invalid_request"),
        ({"aud": "https://other.example/fhir"}, "invalid_request"),
        ({"aud": BASE + ".evil.example"}, "invalid_request"),
        ({"scope": None}, "invalid_scope"),
        ({"scope": "system/*.rs"}, "invalid_scope"),
        ({"scope": "patient/*.c"}, "invalid_scope"),
        ({"nonce": "n\n"}, "invalid_request"),
    ],
)
def test_what_is_refused(changes: dict[str, str | None], error: str) -> None:
    """Each fault has its code; the client is told at its address."""
    with pytest.raises(OAuthError) as refused:
        authorization_request(_pairs(**changes), APP, (BASE,))
    assert refused.value.error == error


def test_a_parameter_is_there_once() -> None:
    """RFC 6749, section 3.1."""
    with pytest.raises(OAuthError, match="invalid_request"):
        authorization_request([*_pairs(), ("scope", "openid")], APP, (BASE,))


_UNRESERVED = f"{ascii_letters}{digits}-._~"


@given(st.text(max_size=140) | st.text(_UNRESERVED, min_size=40, max_size=130))
def test_any_verifier_is_one_or_refused(text: str) -> None:
    """A verifier is 43 to 128 unreserved characters, and nothing else."""
    is_one = 43 <= len(text) <= 128 and set(text) <= set(_UNRESERVED)
    with nullcontext() if is_one else pytest.raises(OAuthError, match="invalid_grant"):
        assert len(challenge_of(text)) == 43
