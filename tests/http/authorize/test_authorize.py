"""https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html#obtain-authorization-code"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from functools import partial
from secrets import token_bytes
from urllib.parse import parse_qsl, urlencode, urlsplit
from uuid import uuid4

import pytest

from fhir_server.app import Server, opened
from fhir_server.interactions.launching import launched
from fhir_server.interactions.people import people_of
from fhir_server.messages import Request
from fhir_server.security.grants import Grant, Tokens
from fhir_server.security.oauth import OAuthError, challenge_of
from fhir_server.security.passwords import hashed
from fhir_server.security.second_factor import code_of, step_of
from fhir_server.settings import Settings
from fhir_server.store.accounts import Accounts
from fhir_server.store.sessions import Sessions
from fhir_server.store.users import User
from tests.conftest import drop
from tests.http.authorize.browsing import APP, BACK, VERIFIER, Browser, answer_of, asked

PASSWORD = "violet harbour 19 lanterns"
HASH = hashed(PASSWORD, token_bytes(16))
RAHIMA = User("rahima", "Rahima Begum", ("patient",), "Patient/a", "a", password=HASH)
DEMO = User("dr", "Dr <Demo>", ("physician",), "Practitioner/d", password=HASH, is_demo=True)


@pytest.fixture(scope="module")
async def site(mongodb_uri: str) -> AsyncIterator[Server]:
    """A server with two patients, an app, the first of them as a user, and a physician."""
    settings = Settings.model_validate({"mongodb_database": f"test-{uuid4().hex[:12]}"})
    async with opened(settings, mongodb_uri) as server:
        yield await _furnished(server)
        await drop(server.database)


async def _furnished(server: Server) -> Server:
    for id, name in (("a", "Rahima"), ("b", "Karim")):
        body = {"resourceType": "Patient", "id": id, "name": [{"text": name}]}
        await server.perform(Request("update", "Patient", id, body=body))
    people = people_of(server.context)
    for user in (RAHIMA, DEMO):
        await people.users.add(user, people.now())
    await server.context.accounts.clients.add(APP)
    return server


async def _redeemed(server: Server, code: str) -> Tokens:
    return await server.context.accounts.redeem(
        code, APP, redirect_uri=BACK, challenge=challenge_of(VERIFIER)
    )


async def test_a_patient_grants_an_app_what_is_left_ticked(site: Server) -> None:
    """Sign-in, then consent; the code is good for what was ticked, and for the patient alone."""
    browser = Browser(site.context)
    page = await browser.get(asked(nonce="n1"))
    assert "The &lt;Growth&gt; Chart" in page.text
    page = await browser.sign_in(page, "Rahima", PASSWORD)
    assert page.status_code == 200, page.text
    assert "of Rahima" in page.text
    page = await browser.press(
        page, "/consent", decision="allow", scope=["openid", "patient/*.rs", "user/Observation.rs"]
    )
    told = answer_of(page)
    tokens = await _redeemed(site, told["code"])

    assert told["state"] == "s1"
    assert tokens.nonce == "n1"
    grant = tokens.grant
    assert grant.scopes == ("openid", "patient/*.rs")  # what was not asked for cannot be ticked
    assert (grant.user, grant.patient, grant.roles) == ("rahima", "a", ("patient",))
    assert grant.auth_time is not None


@pytest.mark.parametrize(
    ("other", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge": ""}, "invalid_request"),
        ({"aud": "https://other.example/fhir"}, "invalid_request"),
        ({"aud": ""}, "invalid_request"),
        ({"state": ""}, "invalid_request"),
        ({"scope": "patient/*.cud"}, "invalid_scope"),
        ({"prompt": "none"}, "login_required"),
        ({"prompt": "dance"}, "invalid_request"),
        ({"max_age": "-1"}, "invalid_request"),
        ({"request": "x"}, "request_not_supported"),
    ],
)
async def test_other_faults_are_told_to_the_app(
    site: Server, other: dict[str, str], error: str
) -> None:
    """Every fault but those of client and address goes to the app, with its state."""
    told = answer_of(await Browser(site.context).get(asked(**other)))
    assert told["error"] == error
    assert told.get("state", "") == ("" if other.get("state") == "" else "s1")


@pytest.mark.parametrize(
    "other",
    [
        {"client_id": "other"},
        {"client_id": ""},
        {"redirect_uri": f"{BACK}/more"},
        {"redirect_uri": "https://app.example.evil/back"},
        {"redirect_uri": ""},
    ],
)
async def test_a_bad_client_or_address_is_shown_here(site: Server, other: dict[str, str]) -> None:
    """Whoever is not registered is sent nobody. RFC 6749, section 4.1.2.1"""
    page = await Browser(site.context).get(asked(**other))
    assert page.status_code == 400
    assert "location" not in page.headers
    assert "cannot be connected" in page.text


@pytest.mark.parametrize("decision", ["deny", "allow"])
async def test_nothing_is_granted_that_nobody_ticked(site: Server, decision: str) -> None:
    """Not to agree, and to leave nothing ticked, are the same to the app."""
    browser = Browser(site.context)
    page = await browser.sign_in(await browser.get(asked()), "rahima", PASSWORD)
    page = await browser.press(page, "/consent", decision=decision, scope=[])
    assert answer_of(page)["error"] == "access_denied"


async def test_a_form_of_another_page_is_not_taken(site: Server) -> None:
    """Without the token of this browser's form, nothing happens; nor with that of another's."""
    browser, other = Browser(site.context), Browser(site.context)
    page = await browser.sign_in(await browser.get(asked()), "rahima", PASSWORD)
    strange = await other.sign_in(await other.get(asked()), "rahima", PASSWORD)
    token = strange.text.partition('name="form_token" value="')[2].partition('"')[0]
    for sent in ("", token):
        answer = await browser.press(page, "/consent", decision="allow", form_token=sent)
        assert answer.status_code == 403
        assert "location" not in answer.headers
    browser.http.headers["sec-fetch-site"] = "cross-site"
    assert (await browser.press(page, "/consent", decision="allow")).status_code == 403


async def test_a_patient_cannot_choose_another(site: Server) -> None:
    """Whom a patient sends along as chosen does not matter."""
    browser = Browser(site.context)
    page = await browser.sign_in(await browser.get(asked()), "rahima", PASSWORD)
    page = await browser.press(page, "/consent", decision="allow", patient="b")
    assert (await _redeemed(site, answer_of(page)["code"])).grant.patient == "a"


async def test_sign_in_is_asked_for_again(site: Server) -> None:
    """prompt=login and max_age ask who is signed in for the password again, once."""
    browser = Browser(site.context)
    await browser.sign_in(await browser.get(asked()), "rahima", PASSWORD)
    assert "asks for access" in (await browser.get(asked())).text
    for other in ({"prompt": "login"}, {"max_age": "0"}):
        page = await browser.get(asked(login_hint="rahima", **other))
        assert 'value="rahima"' in page.text
        page = await browser.sign_in(page, "rahima", PASSWORD)
        assert "asks for access" in page.text
    told = answer_of(await browser.get(asked(prompt="none")))
    assert told["error"] == "consent_required"


async def test_pages_say_what_may_load_and_lead_where(site: Server) -> None:
    """No script, no frame, and forms lead back to the app that asked, for browsers that hold
    redirects to that; the answer is not kept, and everything is escaped."""
    page = await Browser(site.context).get(asked())
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'; script-src 'none'" in policy
    assert policy.endswith("form-action 'self' https://app.example")
    assert "frame-ancestors 'none'" in policy
    assert page.headers["cache-control"] == "no-store"
    assert "<script" not in page.text
    assert "<Growth>" not in page.text


@pytest.mark.parametrize(
    ("https", "expected"),
    [
        (True, "__Host-fhir-form=; Path=/; HttpOnly; SameSite=Lax; Secure"),
        (False, "fhir-form=; Path=/; HttpOnly; SameSite=Lax"),
    ],
)
async def test_cookies_are_of_this_host_alone(site: Server, https: bool, expected: str) -> None:
    """Over https they are __Host- and Secure; over http on loopback, the page says that they are
    not."""
    settings = site.context.settings.model_copy(
        update={"base_url": "https://fhir.example.org/fhir" if https else None}
    )
    browser = Browser(replace(site.context, settings=settings))
    page = await browser.get("/auth/login")
    name, _, rest = page.headers["set-cookie"].partition("=")
    assert f"{name}=;{rest.partition(';')[2]}" == expected
    assert ("without TLS" in page.text) is not https


async def test_an_app_that_was_opened_here_has_its_patient(site: Server) -> None:
    """A launch is good once, for its app and its user, and brings its patient along."""
    _, value = await launched(site.context, "dr", "app", patient="a")
    scope = "launch patient/*.rs openid fhirUser"
    stranger = Browser(site.context)
    page = await stranger.sign_in(
        await stranger.get(asked(launch=value, scope=scope)), "rahima", PASSWORD
    )
    assert answer_of(page)["error"] == "invalid_request"

    browser = Browser(site.context)
    page = await browser.sign_in(
        await browser.get(asked(launch=value, scope=scope)), "dr", PASSWORD
    )
    assert "Dr &lt;Demo&gt;" in page.text
    first = await browser.press(page, "/consent", decision="allow")
    again = await browser.press(page, "/consent", decision="allow")
    grant = (await _redeemed(site, answer_of(first)["code"])).grant
    assert (grant.patient, grant.fhir_user) == ("a", "Practitioner/d")
    assert answer_of(again)["error"] == "invalid_request"


@pytest.mark.parametrize(
    ("other", "error"),
    [
        ({"scope": "launch patient/*.rs"}, "invalid_request"),
        ({"scope": "patient/*.rs", "launch": "x"}, "invalid_scope"),
        ({"scope": "launch patient/*.rs", "launch": "x"}, "invalid_request"),
    ],
)
async def test_a_launch_needs_its_scope_and_its_value(
    site: Server, other: dict[str, str], error: str
) -> None:
    """The scope launch and the value launch come together."""
    browser = Browser(site.context)
    page = await browser.sign_in(await browser.get(asked(**other)), "rahima", PASSWORD)
    assert answer_of(page)["error"] == error


async def test_staff_choose_patient_and_visit(site: Server) -> None:
    """Of those whom they see, found by name; a visit of that patient, or none."""
    visit = {
        "resourceType": "Encounter",
        "id": "v1",
        "status": "finished",
        "class": {"code": "AMB"},
        "subject": {"reference": "Patient/b"},
    }
    await site.perform(Request("update", "Encounter", "v1", body=visit))
    browser = Browser(site.context)
    scope = "launch/patient launch/encounter patient/*.rs"
    page = await browser.sign_in(await browser.get(asked(scope=scope)), "dr", PASSWORD)
    assert "Which patient?" in page.text
    page = await browser.press(page, "/choose", search="kar")
    assert "Karim" in page.text
    assert "Rahima" not in page.text
    page = await browser.press(page, "/choose", patient="b")
    assert "Which visit?" in page.text
    consent = await browser.press(page, "/choose", encounter="v1", patient="b")
    answer = await browser.press(consent, "/consent", decision="allow")
    grant = (await _redeemed(site, answer_of(answer)["code"])).grant
    assert (grant.patient, grant.encounter) == ("b", "v1")
    answer = await browser.press(consent, "/consent", decision="allow", patient="a")
    assert answer_of(answer)["error"] == "access_denied"


async def test_staff_choose_nobody_whom_they_do_not_see(site: Server) -> None:
    """A role that sees no patients has nobody to choose from."""
    user = replace(DEMO, name="nobody", roles=())
    people = people_of(site.context)
    await people.users.add(user, people.now())
    browser = Browser(site.context)
    page = await browser.sign_in(await browser.get(asked()), "nobody", PASSWORD)
    assert "There is nobody to choose from" in page.text
    page = await browser.press(page, "/choose", search="", patient="a")
    assert answer_of(page)["error"] == "access_denied"


async def test_signing_out_ends_what_lasts_as_long(site: Server) -> None:
    """online_access ends with the login, offline_access does not; the console ends both."""
    browser = Browser(site.context)
    accounts = site.context.accounts
    page = await browser.sign_in(await browser.get("/auth/login"), "rahima", PASSWORD)
    tokens = []
    for kind in ("online_access", "offline_access"):
        page = await browser.get(asked(scope=f"patient/*.rs {kind}"))
        page = await browser.press(page, "/consent", decision="allow")
        tokens.append(await _redeemed(site, answer_of(page)["code"]))
    console = await browser.get("/auth/console")
    assert "Growth" in console.text
    await browser.press(console, "/logout")
    with pytest.raises(OAuthError):
        await accounts.refresh(tokens[0].refresh, APP, lambda grant: grant.scopes)
    fresh = await accounts.refresh(tokens[1].refresh, APP, lambda grant: grant.scopes)
    page = await browser.get("/auth/console")
    assert "Sign in" in page.text

    console = await browser.sign_in(page, "rahima", PASSWORD)
    await browser.press(console, "/end", client="app")
    assert await accounts.known(fresh.access) is None
    assert await accounts.grants_of("rahima") == {}


async def test_a_session_ends(site: Server) -> None:
    """Of staff after a quarter of an hour without a page, of everybody after twelve hours."""
    for name, minutes, is_there in (
        *(("dr", 14, True), ("dr", 16, False)),
        *(("rahima", 16, True), ("rahima", 719, True), ("rahima", 721, False)),
    ):
        browser = Browser(site.context)
        await browser.sign_in(await browser.get("/auth/login"), name, PASSWORD)
        browser.context = replace(site.context, now=partial(_later, site, minutes))
        page = await browser.get("/auth/console")
        assert ("Connected apps" in page.text) is is_there, (name, minutes)


def _later(server: Server, minutes: int) -> datetime:
    return server.context.now() + timedelta(minutes=minutes)


async def test_staff_set_up_a_second_factor(site: Server) -> None:
    """The first sign-in shows a key and asks for its code; then there are codes for paper; the
    next sign-in asks for a code, and what was asked for goes on after each."""
    people = people_of(site.context)
    user = User("nurse", "Nurse", ("nurse",), password=HASH)
    await people.users.add(user, people.now())
    browser = Browser(site.context)
    page = await browser.sign_in(await browser.get(asked(scope="openid")), "nurse", PASSWORD)
    assert "Set up your second factor" in page.text
    assert "Sign in" in (await browser.get(asked(scope="openid"))).text  # not yet signed in
    half = await people.users.named("nurse")
    assert half is not None
    seed = await people.seed(half)
    step = step_of(people.now())
    wrong = await browser.press(page, "/set-up", code="000000")
    assert wrong.status_code == 403
    page = await browser.press(wrong, "/set-up", code=code_of(seed, step))
    assert page.text.count("<li>") == 10
    assert "asks for access" in (await browser.get(asked(scope="openid"))).text

    other = Browser(site.context)
    page = await other.sign_in(await other.get(asked(scope="openid")), "nurse", PASSWORD)
    assert "The code, please" in page.text
    again = await other.press(page, "/second-factor", code=code_of(seed, step))
    assert again.status_code == 403
    page = await other.press(again, "/second-factor", code=code_of(seed, step + 1))
    assert "asks for access" in page.text


async def test_guessing_waits(site: Server) -> None:
    """A network that guesses is told to wait, whatever the names; another is not."""
    at = site.context.now()
    browser = Browser(replace(site.context, now=partial(_same, at)))
    page = await browser.get("/auth/login")
    network = f"{browser.address.rpartition('.')[0]}.0/24"
    for _ in range(8):
        assert site.context.rates.logins.wait_s(network, at.timestamp()) == 0
    answers = [await browser.sign_in(page, f"guess{n}", "") for n in range(4)]
    assert [one.status_code for one in answers] == [403] * 2 + [429] * 2
    assert int(answers[-1].headers["retry-after"]) <= 7
    other = Browser(site.context)
    assert (await other.sign_in(await other.get("/auth/login"), "guess1", "")).status_code == 403


def _same(at: datetime) -> datetime:
    return at


async def test_what_happens_is_recorded(site: Server) -> None:
    """Sign-in, a wrong password, consent or its refusal, and the end of the session."""
    browser = Browser(site.context)
    page = await browser.sign_in(await browser.get(asked()), "rahima", "wrong password it is")
    page = await browser.sign_in(page, "my password is this", "")
    page = await browser.sign_in(page, "rahima", PASSWORD)
    await browser.press(page, "/consent", decision="deny")
    await browser.press(page, "/consent", decision="allow")
    await browser.press(await browser.get("/auth/console"), "/logout")
    rows = site.database["audit"].find({"address": browser.address}, sort=[("_id", 1)])
    seen = [
        (one["did"], one["agents"][0], one["status"], one.get("query", "")) async for one in rows
    ]
    assert seen == [
        ("login", "user/rahima", 403, ""),
        ("login", "nobody/nobody", 403, ""),
        ("login", "user/rahima", 200, ""),
        ("consent", "user/rahima", 403, ""),
        ("consent", "user/rahima", 200, "openid fhirUser launch/patient patient/*.rs"),
        ("logout", "user/rahima", 200, ""),
    ]


async def test_a_scope_that_can_be_no_condition_is_not_granted(site: Server) -> None:
    """Whoever asks for one narrowed by a chain would get something else than what was shown."""
    for scope, errors in (
        ("user/Observation.rs?subject.name=x", {"invalid_scope"}),
        ("user/Observation.rs?code=x", {None}),
    ):
        browser = Browser(site.context)
        page = await browser.get(asked(scope=scope))
        where = page.headers.get("location", "")
        assert {dict(parse_qsl(urlsplit(where).query)).get("error")} == errors


@pytest.mark.parametrize("uri", ["http://[", "http://a\uff0fb/", "https://[::1"])
async def test_an_address_that_is_none_breaks_no_page(site: Server, uri: str) -> None:
    """What goes along in the hidden field is not judged yet when the page is shown."""
    browser = Browser(site.context)
    page = await browser.get(asked())
    request = urlencode({"redirect_uri": uri})
    page = await browser.press(page, "/login", name="rahima", password="wrong", request=request)
    assert page.status_code == 403, page.text


async def test_login_among_other_prompts_is_asked_once(site: Server) -> None:
    """prompt is a list: who has just signed in is not sent back to the beginning."""
    browser = Browser(site.context)
    page = await browser.get(asked(prompt="login consent"))
    page = await browser.sign_in(page, "rahima", PASSWORD)
    assert "asks for access" in page.text


async def test_a_network_signs_in_as_often_as_it_likes(site: Server) -> None:
    """A hospital has one address: only passwords that are wrong are counted to ten."""
    at = site.context.now()
    context = replace(site.context, now=partial(_same, at))
    for _ in range(12):
        browser = Browser(context, "198.51.100.9")
        page = await browser.sign_in(await browser.get("/auth/login"), "rahima", PASSWORD)
        assert page.status_code == 200, page.text


async def test_an_app_opened_without_a_patient_has_one_chosen(site: Server) -> None:
    """A launch may leave open who it is about."""
    _, value = await launched(site.context, "dr", "app")
    browser = Browser(site.context)
    page = await browser.get(asked(launch=value, scope="launch patient/*.rs"))
    page = await browser.sign_in(page, "dr", PASSWORD)
    assert "Which patient?" in page.text
    page = await browser.press(page, "/choose", patient="b")
    page = await browser.press(page, "/consent", decision="allow")
    assert (await _redeemed(site, answer_of(page)["code"])).grant.patient == "b"


@dataclass(frozen=True, slots=True)
class _Ending(Accounts):
    """Accounts where an administrator ends the sessions just before a code is kept."""

    async def issue_code(self, grant: Grant, **said: str) -> str:
        """Return a code of somebody who is not signed in any more."""
        await Sessions(self.database, 5.0).end_all(grant.user)
        await self.revoke(user=grant.user)
        return await Accounts.issue_code(self, grant, **said)


async def test_who_is_put_out_meanwhile_grants_nothing(site: Server) -> None:
    """A code that comes after what ends all access would outlive it."""
    accounts = _Ending(*(getattr(site.context.accounts, one.name) for one in fields(Accounts)))
    browser = Browser(replace(site.context, accounts=accounts))
    page = await browser.sign_in(await browser.get(asked()), "rahima", PASSWORD)
    page = await browser.press(page, "/consent", decision="allow")
    assert answer_of(page)["error"] == "access_denied"


async def test_an_app_that_nobody_here_knows_is_shown_as_one(site: Server) -> None:
    """Whoever registers itself may call itself as it likes."""
    app = replace(APP, id="self-made", registered_itself=True)
    await site.context.accounts.clients.add(app)
    for id, is_said in (("app", False), ("self-made", True)):
        browser = Browser(site.context)
        page = await browser.sign_in(await browser.get(asked(client_id=id)), "rahima", PASSWORD)
        assert ("registered itself" in page.text) is is_said


@pytest.mark.parametrize("name", ["rahima", "dr"])
async def test_signing_out_ends_what_came_before_another_sign_in(site: Server, name: str) -> None:
    """Who signs in again, and then out, is out; where it is somebody else, at once."""
    browser = Browser(site.context)
    page = await browser.sign_in(
        await browser.get(asked(scope="patient/*.rs online_access")), "rahima", PASSWORD
    )
    page = await browser.press(page, "/consent", decision="allow")
    tokens = await _redeemed(site, answer_of(page)["code"])
    page = await browser.get(asked(prompt="login"))
    await browser.sign_in(page, name, PASSWORD)
    known = await site.context.accounts.known(tokens.access)
    assert (known is not None) is (name == "rahima")
    await browser.press(await browser.get("/auth/console"), "/logout")
    assert await site.context.accounts.known(tokens.access) is None
