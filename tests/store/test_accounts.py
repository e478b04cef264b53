"""https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html; design/security.md, 2.1."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from secrets import token_urlsafe
from typing import Any

import pytest

from fhir_server.app import Server
from fhir_server.security.grants import Client, Grant, Launch
from fhir_server.security.oauth import OAuthError
from fhir_server.store.accounts import Accounts

APP = Client("app", "An app", redirect_uris=("https://app.example/back",))
GRANT = Grant(
    "app", "https://fhir.example/fhir", ("patient/*.rs", "offline_access"), user="u", patient="p"
)
REDIRECTED = {"redirect_uri": "https://app.example/back", "challenge": "c" * 43}
AT_ONCE = 64


@pytest.fixture
async def accounts(empty: Server) -> AsyncIterator[Accounts]:
    """The accounts of a server, with the client ``app``."""
    found = empty.context.accounts
    await found.clients.add(APP)
    yield found
    await found.revoke(client="app")
    await found.clients.remove("app")


def _later(accounts: Accounts, seconds: float) -> Accounts:
    return replace(accounts, now=lambda: datetime.now(UTC) + timedelta(seconds=seconds))


async def _won(tries: list[asyncio.Future[object]]) -> int:
    """Return how many of ``tries`` gave something, the others having been refused."""
    found = await asyncio.gather(*tries, return_exceptions=True)
    for one in found:
        assert not isinstance(one, BaseException) or isinstance(one, OAuthError), repr(one)
    return sum(not isinstance(one, OAuthError) and bool(one) for one in found)


async def test_a_code_gives_tokens_that_are_known(accounts: Accounts) -> None:
    """What a user granted is what is known of the token, and of what it is refreshed to."""
    code = await accounts.issue_code(GRANT, **REDIRECTED, nonce="n")
    tokens = await accounts.redeem(code, APP, **REDIRECTED)
    again = await accounts.refresh(tokens.refresh, APP, lambda grant: grant.scopes)

    assert (tokens.nonce, tokens.seconds) == ("n", 3600)
    for token in (tokens.access, again.access):
        known = await accounts.known(token)
        assert known is not None
        assert (known.grant, known.client) == (GRANT, APP)
    assert await accounts.known(token_urlsafe(32)) is None


@pytest.mark.parametrize(
    ("change", "client", "seconds"),
    [
        ({"redirect_uri": "https://app.example/back/"}, "app", 0),
        ({"challenge": "d" * 43}, "app", 0),
        ({}, "other", 0),
        ({}, "app", 61),
    ],
)
async def test_a_code_is_bound(
    accounts: Accounts, change: dict[str, str], client: str, seconds: float
) -> None:
    """A code is for its client, redirection and verifier, and for a minute."""
    code = await accounts.issue_code(GRANT, **REDIRECTED)
    with pytest.raises(OAuthError, match="invalid_grant"):
        await _later(accounts, seconds).redeem(
            code, replace(APP, id=client), **{**REDIRECTED, **change}
        )


async def test_the_second_use_of_a_code_ends_what_the_first_gave(accounts: Accounts) -> None:
    """RFC 6749, section 4.1.2."""
    code = await accounts.issue_code(GRANT, **REDIRECTED)
    tokens = await accounts.redeem(code, APP, **REDIRECTED)
    with pytest.raises(OAuthError, match="invalid_grant"):
        await accounts.redeem(code, APP, **REDIRECTED)
    assert await accounts.known(tokens.access) is None


async def test_an_old_refresh_token_ends_its_family(accounts: Accounts) -> None:
    """Whoever has stolen a token, or was stolen from, finds that none of them is good any more."""
    code = await accounts.issue_code(GRANT, **REDIRECTED)
    first = await accounts.redeem(code, APP, **REDIRECTED)
    second = await accounts.refresh(first.refresh, APP, lambda grant: grant.scopes)
    for token in (first.refresh, second.refresh):
        with pytest.raises(OAuthError, match="invalid_grant"):
            await accounts.refresh(token, APP, lambda grant: grant.scopes)
    assert await accounts.known(second.access) is None


@pytest.mark.parametrize("rounds", [2, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("what", ["code", "refresh", "assertion", "launch"])
async def test_of_many_at_once_one_succeeds(accounts: Accounts, what: str, rounds: int) -> None:
    """A7: of 64 that use the same thing at once, exactly one has it."""
    for _ in range(rounds):
        code = await accounts.issue_code(GRANT, **REDIRECTED)
        refresh = ""
        if what == "refresh":
            refresh = (await accounts.redeem(code, APP, **REDIRECTED)).refresh
        launch = await accounts.new_launch(Launch("app", "u", "p"))
        jti, until = token_urlsafe(8), accounts.now() + timedelta(seconds=400)
        tries: dict[str, Callable[[], Any]] = {
            "code": partial(accounts.redeem, code, APP, **REDIRECTED),
            "refresh": partial(accounts.refresh, refresh, APP, lambda one: one.scopes),
            "assertion": partial(accounts.claim_assertion, "app", jti, until),
            "launch": partial(accounts.take_launch, launch, "app", "u"),
        }
        assert await _won([tries[what]() for _ in range(AT_ONCE)]) == 1


@pytest.mark.parametrize(
    ("client", "user", "seconds"), [("other", "u", 0), ("app", "v", 0), ("app", "u", 301)]
)
async def test_a_launch_is_bound(
    accounts: Accounts, client: str, user: str, seconds: float
) -> None:
    """A launch is for its client and user, and for five minutes."""
    value = await accounts.new_launch(Launch("app", "u", "p", context={"intent": "order"}))
    assert await _later(accounts, seconds).take_launch(value, client, user) is None


async def test_what_ends_a_grant(accounts: Accounts) -> None:
    """The end of the login, of the client, and a revocation end tokens; each only what it says."""
    online = replace(GRANT, scopes=("patient/*.rs",), session="s", user="v")
    offline = replace(GRANT, session="s")
    tokens = [await accounts.give(one) for one in (online, offline)]

    async def good() -> list[bool]:
        return [await accounts.known(one.access) is not None for one in tokens]

    assert await good() == [True, True]
    assert list((await accounts.grants_of("v")).values()) == [online]
    await accounts.end_session("")
    await accounts.end_session("s")
    assert await good() == [False, True]
    await accounts.revoke_token(tokens[1].access, "other")
    assert await good() == [False, True]
    await accounts.clients.remove("app")
    assert await good() == [False, False]
