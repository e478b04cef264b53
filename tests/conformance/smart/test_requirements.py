"""https://hl7.org/fhir/smart-app-launch/STU2.2/: what it asks of servers and no other test holds.

docs/conformance-smart.md lists every requirement and its test.
"""

import json
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

import pytest

from fhir_server.interactions.launching import launched
from fhir_server.security.grants import Grant
from fhir_server.security.registration import Application, client_for
from tests.conformance.smart.conftest import (
    CATEGORIES,
    STANDALONE,
    Clinic,
    asked,
    found_in,
)
from tests.http.authorize.browsing import answer_of
from tests.http.authorize.conftest import (
    BASE,
    ES384,
    REDIRECT,
    ROOT,
    SECRET,
    assertion_of,
    basic,
)

SMART = "/fhir/.well-known/smart-configuration"
ORIGIN = "https://app.example"
TOKEN_CHARACTERS = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/=")

# What discovery has a member for -> what it must be.
METADATA: dict[str, Any] = {
    "issuer": ROOT,
    "authorization_endpoint": f"{ROOT}/auth/authorize",
    "token_endpoint": f"{ROOT}/auth/token",
    "introspection_endpoint": f"{ROOT}/auth/introspect",
    "revocation_endpoint": f"{ROOT}/auth/revoke",
    "jwks_uri": f"{ROOT}/auth/jwks",
    "code_challenge_methods_supported": ["S256"],
}
CAPABILITIES = {
    *("launch-ehr", "launch-standalone", "authorize-post", "client-public"),
    *("client-confidential-symmetric", "client-confidential-asymmetric", "sso-openid-connect"),
    *("context-banner", "context-ehr-patient", "context-ehr-encounter"),
    *("context-standalone-patient", "context-standalone-encounter"),
    *("permission-offline", "permission-online", "permission-patient", "permission-user"),
    *("permission-v1", "permission-v2"),
}
# What makes a whole of capabilities, by its name in the specification.
SETS = {
    "Patient Access for Standalone Apps": (
        *("launch-standalone", "client-public", "client-confidential-symmetric"),
        *("context-standalone-patient", "permission-patient"),
    ),
    "Patient Access for EHR Launch": (
        *("launch-ehr", "client-public", "client-confidential-symmetric"),
        *("context-ehr-patient", "permission-patient"),
    ),
    "Clinician Access for Standalone": (
        *("launch-standalone", "client-public", "client-confidential-symmetric"),
        *("permission-user", "permission-patient"),
    ),
    "Clinician Access for EHR Launch": (
        *("launch-ehr", "client-public", "client-confidential-symmetric"),
        *("context-ehr-patient", "context-ehr-encounter", "permission-user", "permission-patient"),
    ),
}


async def _smart(clinic: Clinic) -> dict[str, Any]:
    found: dict[str, Any] = (await clinic.http.get(SMART)).json()
    return found


async def test_discovery_has_every_member_that_is_required(clinic: Clinic) -> None:
    """Each with its value; what the profile of keys asks for is among them."""
    said = await _smart(clinic)
    assert {name: said.get(name) for name in METADATA} == METADATA
    assert set(said["grant_types_supported"]) >= {"authorization_code", "client_credentials"}
    assert "private_key_jwt" in said["token_endpoint_auth_methods_supported"]
    assert {"RS384", "ES384"} <= set(said["token_endpoint_auth_signing_alg_values_supported"])
    assert {"openid", "launch/patient", "patient/*.rs", "system/*.rs"} <= set(
        said["scopes_supported"]
    )


async def test_what_is_announced_is_what_is_tested(clinic: Clinic) -> None:
    """No styles, no app state, no brands; a further capability has to come to the page first."""
    said = await _smart(clinic)
    assert set(said["capabilities"]) == CAPABILITIES
    assert not any(name.startswith("user_access_brand") for name in said)
    assert "smart_app_state_endpoint" not in said


@pytest.mark.parametrize("name", SETS)
async def test_sets_of_capabilities_are_whole(clinic: Clinic, name: str) -> None:
    """An app for patients or clinicians, standalone or opened here, finds all that it needs."""
    assert set(SETS[name]) <= set((await _smart(clinic))["capabilities"])


async def test_openid_configuration_has_what_openid_requires(clinic: Clinic) -> None:
    """OpenID Connect Discovery, section 3: the required members; RS256 for ``id_token``."""
    said = (await clinic.http.get("/.well-known/openid-configuration")).json()
    for name in ("issuer", "authorization_endpoint", "token_endpoint", "jwks_uri"):
        assert said[name] == METADATA[name]
    assert said["response_types_supported"] == ["code"]
    assert said["subject_types_supported"] == ["public"]
    assert said["id_token_signing_alg_values_supported"] == ["RS256"]
    keys = (await clinic.http.get("/auth/jwks")).json()["keys"]
    assert all("x5c" not in key for key in keys)  # bare keys


async def test_an_authorization_request_comes_by_get_or_post(clinic: Clinic) -> None:
    """A POST leads to the same page as a GET, and to the same code."""
    browser = clinic.browser()
    sent = await browser.http.post("/auth/authorize", data=dict(parse_qsl(asked())))
    assert sent.status_code == 303
    page = await clinic.signed_in(browser, "anna", sent.headers["location"])
    told = answer_of(await browser.press(page, "/consent", decision="allow"))
    assert set(told) == {"code", "state"}
    assert (await clinic.redeemed(told["code"])).status_code == 200


@pytest.mark.parametrize("state", ["a", "x y&z=1#?", "\u00e4\u4e2d", "s" * 2_000])
async def test_state_comes_back_as_it_was_sent(clinic: Clinic, state: str) -> None:
    """Whatever its characters are, with a code and with an error; to the registered address."""
    page = await clinic.browser().get(f"/auth/authorize?{asked(state=state, scope='system/*.rs')}")
    assert answer_of(page)["state"] == state
    browser = clinic.browser()
    page = await clinic.signed_in(browser, "anna", f"/auth/authorize?{asked(state=state)}")
    page = await browser.press(page, "/consent", decision="allow")
    assert answer_of(page)["state"] == state
    assert page.headers["location"].partition("?")[0] == REDIRECT


async def test_the_answer_to_a_code_is_one_of_oauth(clinic: Clinic) -> None:
    """JSON in the body with the parameters of SMART; tokens are of the characters of RFC 6750."""
    answer = await clinic.redeemed((await clinic.consented())["code"])
    said = answer.json()
    assert answer.headers["content-type"] == "application/json"
    assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")
    assert (said["token_type"], said["expires_in"]) == ("Bearer", 3600)
    assert set(said["access_token"]) | set(said["refresh_token"]) <= TOKEN_CHARACTERS
    assert isinstance(said["patient"], str)


async def test_the_answer_to_a_refresh_is_one_of_oauth(clinic: Clinic) -> None:
    """The same members as the first time; without ``scope`` the scopes are those of the launch."""
    first = await clinic.tokens()
    answer = await clinic.refreshed(first["refresh_token"])
    said = answer.json()
    assert answer.status_code == 200
    assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")
    assert (said["token_type"], said["expires_in"]) == ("Bearer", 3600)
    assert said["scope"] == first["scope"]
    assert said["access_token"] not in (first["access_token"], "")
    asked_for = {"scope": "patient/Patient.rs"}
    less = (await clinic.refreshed(said["refresh_token"], **asked_for)).json()
    assert less["scope"] == "patient/Patient.rs"
    assert (await clinic.get("Observation", less["access_token"])).status_code == 403


async def test_a_refresh_token_is_of_one_client(clinic: Clinic) -> None:
    """Another client, with its own proof, gets nothing by it, and it stays good."""
    first = await clinic.tokens()
    form = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
    strange = await clinic.http.post("/auth/token", data=form, headers=basic("keeper", SECRET))
    assert (strange.status_code, strange.json()["error"]) == (400, "invalid_grant")
    assert (await clinic.refreshed(first["refresh_token"])).status_code == 200


async def test_without_a_scope_for_it_there_is_no_refresh_token(clinic: Clinic) -> None:
    """Nor an ``id_token``, nor context that nobody asked for."""
    said = await clinic.tokens("dr", scope="user/Patient.rs")
    assert set(said) == {"access_token", "token_type", "expires_in", "scope"}


async def test_who_is_no_resource_grants_no_fhir_user(clinic: Clinic) -> None:
    """The scope is neither shown nor granted, and the ``id_token`` has no such claim."""
    said = await clinic.tokens("clerk", scope="openid fhirUser user/Patient.rs")
    assert said["scope"] == "openid user/Patient.rs"
    assert "fhirUser" not in await clinic.claims(said["id_token"])


async def test_fhir_user_is_a_resource_that_the_app_reads(clinic: Clinic) -> None:
    """Its URL is one of this server: a Patient of the patient, a Practitioner of the physician."""
    for name, scope, user in (
        ("anna", STANDALONE, "Patient/a"),
        ("dr", "openid fhirUser user/*.rs", "Practitioner/d"),
    ):
        said = await clinic.tokens(name, scope=scope)
        url = (await clinic.claims(said["id_token"]))["fhirUser"]
        assert url == f"{BASE}/{user}"
        found = (await clinic.get(url, said["access_token"])).json()
        assert f"{found['resourceType']}/{found['id']}" == user


async def test_a_launch_with_nobody_in_context_has_a_patient_chosen(clinic: Clinic) -> None:
    """Where a scope of one patient is granted, there is a patient in context."""
    _, value = await launched(clinic.server.context, "dr", "app")
    browser = clinic.browser()
    asking = asked(scope="launch patient/*.rs", launch=value)
    page = await clinic.signed_in(browser, "dr", f"/auth/authorize?{asking}")
    assert "Which patient?" in page.text
    page = await browser.press(page, "/choose", search="Anna")
    page = await browser.press(page, "/choose", patient="a")
    told = answer_of(await browser.press(page, "/consent", decision="allow"))
    said = (await clinic.redeemed(told["code"])).json()
    assert (said["patient"], said["scope"]) == ("a", "launch patient/*.rs")
    assert found_in(await clinic.get("Patient", said["access_token"])) == {"Patient/a"}


async def test_a_visit_in_context_is_one_of_the_patient(clinic: Clinic) -> None:
    """A launch with a visit has its patient in context; with another patient it is refused."""
    grant = Grant("app", BASE, ("user/*.rs",), user="dr", roles=("physician",))
    token = (await clinic.server.context.accounts.give(grant)).access
    for patient, status in (("", 201), ("a", 201), ("b", 400)):
        given = [{"name": "client", "valueString": "app"}]
        for name, value in (("encounter", "Encounter/v1"), ("patient", f"Patient/{patient}")):
            if name == "encounter" or patient:
                given.append({"name": name, "valueReference": {"reference": value}})  # type: ignore[dict-item]
        answer = await clinic.http.post(
            "/fhir/$launch",
            json={"resourceType": "Parameters", "parameter": given},
            headers={"Authorization": f"Bearer {token}"},
        )
        assert answer.status_code == status, answer.text
        if status == 201:
            value = answer.json()["parameter"][0]["valueString"]
            taken = await clinic.server.context.accounts.take_launch(value, "app", "dr")
            assert taken is not None
            assert (taken.patient, taken.encounter) == ("a", "v1")


async def test_a_visit_is_chosen_standalone(clinic: Clinic) -> None:
    """``launch/encounter``: the visit that was chosen is told, and the app reads it."""
    browser = clinic.browser()
    scope = "launch/patient launch/encounter patient/*.rs"
    page = await clinic.signed_in(browser, "anna", f"/auth/authorize?{asked(scope=scope)}")
    page = await browser.press(page, "/choose", encounter="v1", patient="a")
    told = answer_of(await browser.press(page, "/consent", decision="allow"))
    said = (await clinic.redeemed(told["code"])).json()
    assert (said["patient"], said["encounter"]) == ("a", "v1")
    assert (await clinic.get("Encounter/v1", said["access_token"])).status_code == 200


async def test_introspection_says_what_was_said_before(clinic: Clinic) -> None:
    """Scope, client and context of the token response, ``exp`` of ``expires_in``, ``iss``, ``sub``
    and ``fhirUser`` of the ``id_token``."""
    before = int(clinic.server.context.now().timestamp())
    _, value = await launched(clinic.server.context, "dr", "app", patient="a", encounter="v1")
    scope = "openid fhirUser launch patient/*.rs"
    said = await clinic.tokens("dr", scope=scope, launch=value)
    answer = await clinic.http.post(
        "/auth/introspect", data={"token": said["access_token"]}, headers=basic("keeper", SECRET)
    )
    known = answer.json()
    claims = await clinic.claims(said["id_token"])
    assert known["active"] is True
    assert known["client_id"] == "app"
    assert 0 <= known["exp"] - said["expires_in"] - before < 60
    for name in ("scope", "patient", "encounter", "need_patient_banner"):
        assert known[name] == said[name], name
    for name in ("iss", "sub", "fhirUser"):
        assert known[name] == claims[name], name


async def test_pages_of_registered_apps_may_call(clinic: Clinic) -> None:
    """CORS on the answers themselves: discovery for every page, tokens and FHIR for registered
    ones, on success and on refusals."""
    foreign = {"Origin": "https://anywhere.example"}
    for path in (SMART, "/fhir/metadata"):
        found = await clinic.http.get(path, headers=foreign)
        assert found.headers["access-control-allow-origin"] == "*"
    token = (await clinic.tokens())["access_token"]
    for one, status in ((token, 200), ("x" * 43, 401)):
        found = await clinic.get("Patient", one, Origin=ORIGIN)
        assert found.status_code == status
        assert found.headers["access-control-allow-origin"] == ORIGIN
        other = await clinic.get("Patient", one, **foreign)
        assert "access-control-allow-origin" not in other.headers
    code = (await clinic.consented())["code"]
    clinic.http.headers["Origin"] = ORIGIN
    try:
        exchanged = await clinic.redeemed(code)
    finally:
        del clinic.http.headers["Origin"]
    assert exchanged.headers["access-control-allow-origin"] == ORIGIN


# Scope -> what a physician finds of all observations by it.
VITAL = f"category={CATEGORIES}|vital-signs"
FOUND = {
    "user/Observation.rs": {"laboratory-a", "laboratory-b", "vital-signs-a", "vital-signs-b"},
    "user/Observation.read": {"laboratory-a", "laboratory-b", "vital-signs-a", "vital-signs-b"},
    "user/*.rs": {"laboratory-a", "laboratory-b", "vital-signs-a", "vital-signs-b"},
    f"user/Observation.rs?{VITAL}": {"vital-signs-a", "vital-signs-b"},
    "user/Patient.rs": set(),
}


@pytest.mark.parametrize("scope", FOUND)
async def test_scopes_open_what_they_say(clinic: Clinic, scope: str) -> None:
    """Both syntaxes, wildcards, and conditions; what no scope covers is refused."""
    grant = Grant("app", BASE, (scope,), user="dr", roles=("physician",))
    token = (await clinic.server.context.accounts.give(grant)).access
    answer = await clinic.get("Observation", token)
    if FOUND[scope]:
        assert found_in(answer) == {f"Observation/{one}" for one in FOUND[scope]}
    else:
        assert answer.status_code == 403
        assert "insufficient_scope" in answer.headers["www-authenticate"]


async def test_rights_are_those_of_the_user_too(clinic: Clinic) -> None:
    """A wide scope opens no more than the role does; nor is what is out of reach overwritten."""
    wide = Grant("app", BASE, ("user/*.cruds",), user="x", roles=("front-desk",))
    token = (await clinic.server.context.accounts.give(wide)).access
    assert (await clinic.get("Observation/laboratory-a", token)).status_code in (403, 404)
    mine = replace(wide, scopes=("patient/*.cruds",), roles=("patient",), patient="a")
    mine = replace(mine, user="anna", fhir_user="Patient/a")
    token = (await clinic.server.context.accounts.give(mine)).access
    body = {"resourceType": "Patient", "id": "b", "name": [{"text": "Anna A"}]}
    signed = {"Authorization": f"Bearer {token}"}
    refused = await clinic.http.put("/fhir/Patient/b", json=body, headers=signed)
    assert refused.status_code in (403, 404)


async def test_an_update_that_would_create_is_refused_to_apps(clinic: Clinic) -> None:
    """Whoever does not see everything creates under ids of the server: a PUT to a new id is 404, as
    one to an id that is hidden."""
    grant = Grant("app", BASE, ("user/*.cruds",), user="dr", roles=("physician",))
    signed = {
        "Authorization": f"Bearer {(await clinic.server.context.accounts.give(grant)).access}"
    }
    subject = {"reference": "Patient/a"}
    body = {"resourceType": "Condition", "id": "new", "code": {"text": "x"}, "subject": subject}
    refused = await clinic.http.put("/fhir/Condition/new", json=body, headers=signed)
    assert refused.status_code == 404
    made = await clinic.http.post("/fhir/Condition", json=body, headers=signed)
    assert made.status_code == 201, made.text


async def test_a_batch_is_judged_entry_by_entry(clinic: Clinic) -> None:
    """What each request in it may, whatever the others may."""
    token = (await clinic.tokens(scope="launch/patient patient/Patient.rs"))["access_token"]
    urls = ("Patient/a", "Observation/laboratory-a", "Patient/b")
    entries = [{"request": {"method": "GET", "url": url}} for url in urls]
    answer = await clinic.http.post(
        "/fhir",
        json={"resourceType": "Bundle", "type": "batch", "entry": entries},
        headers={"Authorization": f"Bearer {token}"},
    )
    statuses = [one["response"]["status"][:3] for one in answer.json()["entry"]]
    assert statuses == ["200", "403", "404"]


async def test_a_secret_is_no_proof_of_a_backend(clinic: Clinic) -> None:
    """System scopes are for keys: no token by a secret, though the client is registered so."""
    form = {"grant_type": "client_credentials", "scope": "system/*.rs"}
    answer = await clinic.http.post("/auth/token", data=form, headers=basic("sharer", SECRET))
    assert (answer.status_code, answer.json()["error"]) == (400, "unauthorized_client")


async def test_keys_come_from_the_url_of_the_client(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client is registered with the URL of its keys, and proves itself by one of them; they are
    read once for as long as ``Cache-Control`` says."""
    url, read = "https://keys.example/jwks", []

    async def published(asked: str, _: Any) -> tuple[bytes, str]:
        read.append(asked)
        return json.dumps({"keys": [ES384.as_dict(private=False)]}).encode(), "max-age=600"

    monkeypatch.setattr("fhir_server.remote.key_sets.document", published)
    kind = "confidential-asymmetric"
    asked = Application("publisher", "One", kind, scopes=("system/*.rs",), is_backend=True)
    client = client_for(replace(asked, jwks_uri=url, algorithm="ES384"))
    await clinic.server.context.accounts.clients.add(client)
    for _ in range(2):
        answer = await clinic.of_backend(assertion_of(iss="publisher", sub="publisher"))
        assert answer.status_code == 200, answer.text
    assert read == [url]
    strange = assertion_of(header={"kid": "none"}, iss="publisher", sub="publisher")
    assert (await clinic.of_backend(strange)).json()["error"] == "invalid_client"


async def test_a_token_with_introspect_sees_tokens_of_any_client(clinic: Clinic) -> None:
    """A bearer token of a backend, or of an app, with the scope; without it there is none."""
    token = (await clinic.tokens())["access_token"]
    asking = (await clinic.of_backend(scope="introspect")).json()["access_token"]
    other = (await clinic.of_backend(scope="system/*.rs")).json()["access_token"]
    for bearer, status in ((asking, 200), (other, 401), (token, 401)):
        answer = await clinic.http.post(
            "/auth/introspect",
            data={"token": token},
            headers={"Authorization": f"Bearer {bearer}"},
        )
        assert answer.status_code == status
        assert answer.json().get("client_id", "") == ("app" if status == 200 else "")
