"""https://www.rfc-editor.org/rfc/rfc6750#section-3.1; design/security.md, sections 1 and 2.1"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from fhir_server.app import bearer, opened
from fhir_server.http.authorize.bearer import Bearer, Verdict
from fhir_server.outcome import FhirError
from fhir_server.security.principal import DEMO, NOBODY, Principal
from tests.http.authorize.conftest import GRANT, Authorization


def _headers(token: str, scheme: str = "Bearer") -> Mapping[bytes, bytes]:
    return {b"authorization": f"{scheme} {token}".encode()}


async def test_the_principal_is_what_was_granted(auth: Authorization) -> None:
    """Who asks is the user with the app, the scopes and the context; no token is kept."""
    context = auth.server.context
    identify = bearer(context.settings, lambda: context.accounts)
    token = (await context.accounts.give(replace(GRANT, roles=("patient",)))).access
    found = await identify(_headers(token, "bearer"))

    assert (found.kind, found.name, found.client) == ("user", "u1", "app")
    assert [one.text for one in found.scopes] == ["patient/*.rs"]
    assert (found.roles, found.fhir_user, found.patient) == (("patient",), "Patient/p1", "p1")
    assert found.context["encounter"] == "e1"
    assert found.token
    assert token not in repr(found)


@pytest.mark.parametrize("mode", ["development", "production"])
async def test_without_a_token(auth: Authorization, mode: str) -> None:
    """Development without a token is the demo, with one it is judged by the token."""
    context = auth.server.context
    settings = context.settings.model_copy(update={"mode": mode})
    identify = bearer(settings, lambda: context.accounts)
    assert await identify({}) is (DEMO if mode == "development" else NOBODY)
    token = (await context.accounts.give(GRANT)).access
    assert (await identify(_headers(token))).kind == "user"
    for headers in (_headers("x"), _headers(""), _headers("YTpi", "Basic"), _headers(token + "=")):
        with pytest.raises(FhirError) as refused:
            await identify(headers)
        assert refused.value.status == 401


async def test_tokens_that_are_refused(auth: Authorization) -> None:
    """Wrong audience, expired, revoked, of a removed client, unknown: 401 invalid_token."""
    accounts = auth.server.context.accounts
    old = replace(accounts, now=lambda: datetime.now(UTC) - timedelta(seconds=3601))
    tokens = {
        "wrong audience": (await accounts.give(replace(GRANT, audience="https://x/fhir"))).access,
        "expired": (await old.give(GRANT)).access,
        "revoked": (await accounts.give(GRANT)).access,
        "of a removed client": (await accounts.give(replace(GRANT, client="gone"))).access,
        "unknown": "x" * 43,
        "two": f"{'x' * 43}, Bearer {'y' * 43}",
        "strange": "$ne",
    }
    await accounts.revoke_token(tokens["revoked"], "app")
    for name, token in tokens.items():
        answer = await auth.http.get(
            "/fhir/Patient/p1", headers={"Authorization": f"Bearer {token}"}
        )
        assert answer.status_code == 401, name
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]
        assert answer.json()["resourceType"] == "OperationOutcome"
    none = await auth.http.get("/fhir/Patient/p1")
    assert (none.status_code, none.headers["www-authenticate"]) == (401, "Bearer")


async def test_a_verdict_lasts_a_second() -> None:
    """Within a second nobody is asked again, after it somebody is; refusals are not remembered."""
    asked: list[str] = []
    good = {"t"}

    async def judge(token: str) -> Verdict | None:
        asked.append(token)
        return Verdict(Principal("user", "u")) if token in good else None

    clock = [100.0]
    identify = Bearer(judge, NOBODY, lambda: clock[0])
    for now, count in ((100.0, 1), (100.99, 1), (101.0, 2)):
        clock[0] = now
        assert (await identify(_headers("t"))).name == "u"
        assert len(asked) == count
    good.clear()
    clock[0] = 101.99
    assert (await identify(_headers("t"))).name == "u"
    for _ in range(2):
        clock[0] += 0.01
        with pytest.raises(FhirError):
            await identify(_headers("t"))
    assert len(asked) == 4


async def test_what_is_remembered_is_bounded() -> None:
    """However many tokens come within a second, the memory of a process stays small."""

    async def judge(token: str) -> Verdict | None:
        return Verdict(Principal("user", token))

    identify = Bearer(judge, NOBODY, lambda: 0.0)
    for number in range(10_050):
        assert (await identify(_headers(f"t{number}"))).name == f"t{number}"
    assert len(identify._remembered) <= 10_000


async def test_a_revocation_holds_in_another_process_within_a_second(
    auth: Authorization, mongodb_uri: str
) -> None:
    """A7: what one process revokes, another refuses a second later at most."""
    context = auth.server.context
    async with opened(context.settings, mongodb_uri, observing=True) as other:
        identify = bearer(context.settings, lambda: other.context.accounts)
        token = (await context.accounts.give(GRANT)).access
        assert (await identify(_headers(token))).kind == "user"
        await context.accounts.revoke_token(token, "app")
        revoked = time.monotonic()
        while await _is_good(identify, token) and time.monotonic() < revoked + 5:
            await asyncio.sleep(0.01)
        assert time.monotonic() - revoked < 1.5  # a second, and what a busy machine adds


async def _is_good(identify: Bearer, token: str) -> bool:
    try:
        return (await identify(_headers(token))).kind == "user"
    except FhirError:
        return False


async def test_a_backend_is_held_to_its_own_rate() -> None:
    """A client that is registered for ten requests a second has twenty at once, then 429."""

    async def judge(token: str) -> Verdict | None:
        return Verdict(Principal("client", token, token), 10 if token == "slow" else 0)

    clock = [0.0]
    identify = Bearer(judge, NOBODY, lambda: clock[0])
    for _ in range(20):
        await identify(_headers("slow"))
        await identify(_headers("fast"))
    with pytest.raises(FhirError) as refused:
        await identify(_headers("slow"))
    assert (refused.value.status, dict(refused.value.headers)["Retry-After"]) == (429, "1")
    clock[0] = 0.1
    await identify(_headers("slow"))
