"""The sequence of ONC (g)(10), as an app and a backend go through it: standalone launch of a
patient, EHR launch of a physician, reading one patient, refresh, introspection, revocation, Backend
Services.

https://www.healthit.gov/test-method/standardized-api-patient-and-population-services;
docs/conformance-smart.md says which row is held by what. Pages are pressed without a browser here;
test_fhirclient.py has one.
"""

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from fhir_server.operations.export_work import work
from fhir_server.security.grants import OFFLINE_S, Grant
from tests.conformance.smart.conftest import STANDALONE, Clinic, asked, found_in
from tests.http.authorize.browsing import Forms, answer_of
from tests.http.authorize.conftest import BASE, ROOT, SECRET, assertion_of, basic

ASYNC = {"Prefer": "respond-async"}
LAUNCHED = "openid fhirUser launch launch/encounter offline_access patient/*.rs user/Patient.rs"


async def _introspected(clinic: Clinic, token: str) -> dict[str, Any]:
    answer = await clinic.http.post(
        "/auth/introspect", data={"token": token}, headers=basic("keeper", SECRET)
    )
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    return said


async def _reads_only_anna(clinic: Clinic, token: str) -> None:
    """Read and search as an app with one patient does; the other patient is not there."""
    assert (await clinic.get("Patient/a", token)).json()["id"] == "a"
    assert found_in(await clinic.get("Patient", token)) == {"Patient/a"}
    own = {"Observation/laboratory-a", "Observation/vital-signs-a"}
    for query in ("Observation", "Observation?patient=a", "Patient/a/Observation"):
        assert found_in(await clinic.get(query, token)) == own, query
    assert found_in(await clinic.get("Encounter?patient=Patient/a", token)) == {"Encounter/v1"}
    for path in ("Patient/b", "Observation/laboratory-b", "Patient/b/_history/1"):
        assert (await clinic.get(path, token)).status_code == 404, path
    for query in ("Observation?patient=b", "Patient?_id=b", "Observation?subject=Patient/b"):
        assert found_in(await clinic.get(query, token)) == set(), query


async def test_a_patient_connects_an_app_reads_refreshes_and_ends_it(clinic: Clinic) -> None:
    """Standalone launch: what the app learns of the server, what the patient grants, what it reads
    with that, and that nothing is left when the patient has ended it."""
    smart = (await clinic.http.get("/fhir/.well-known/smart-configuration")).json()
    browser = clinic.browser()
    place = smart["authorization_endpoint"].removeprefix(ROOT)
    page = await clinic.signed_in(browser, "anna", f"{place}?{asked(nonce='n1')}")
    assert "asks for access" in page.text
    told = answer_of(await browser.press(page, "/consent", decision="allow"))
    assert told["state"] == "s1"
    said = (await clinic.redeemed(told["code"])).json()
    assert (said["patient"], said["token_type"]) == ("a", "Bearer")
    assert set(said["scope"].split()) == set(STANDALONE.split())

    claims = await clinic.claims(said["id_token"])
    assert (claims["iss"], claims["aud"], claims["nonce"]) == (smart["issuer"], "app", "n1")
    assert (await clinic.get(claims["fhirUser"], said["access_token"])).json()["id"] == "a"
    await _reads_only_anna(clinic, said["access_token"])

    fresh = (await clinic.refreshed(said["refresh_token"])).json()
    assert fresh["access_token"] != said["access_token"]
    assert fresh["patient"] == "a"
    await _reads_only_anna(clinic, fresh["access_token"])
    known = await _introspected(clinic, fresh["access_token"])
    assert (known["active"], known["patient"], known["sub"]) == (True, "a", claims["sub"])

    console = await browser.get("/auth/console")
    await browser.press(console, "/end", client="app")
    for token in (said["access_token"], fresh["access_token"]):
        assert await _introspected(clinic, token) == {"active": False}
    # A verdict lasts a second in the process that gave it; another one never saw this token.
    accounts = clinic.server.context.accounts
    assert await accounts.known(fresh["access_token"]) is None
    refused = await clinic.refreshed(fresh["refresh_token"])
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")


async def test_a_physician_opens_an_app_with_patient_and_visit(clinic: Clinic) -> None:
    """EHR launch: the app has the patient and the visit that it was opened with, and reads them;
    the user is the physician."""
    scopes = ("user/*.rs",)
    grant = Grant("app", BASE, scopes, user="dr", fhir_user="Practitioner/d", roles=("physician",))
    here = (await clinic.server.context.accounts.give(grant)).access
    given = [
        {"name": "client", "valueString": "app"},
        {"name": "patient", "valueReference": {"reference": "Patient/a"}},
        {"name": "encounter", "valueReference": {"reference": "Encounter/v1"}},
    ]
    opened = await clinic.http.post(
        "/fhir/$launch",
        json={"resourceType": "Parameters", "parameter": given},
        headers={"Authorization": f"Bearer {here}"},
    )
    assert opened.status_code == 201, opened.text
    out = {one["name"]: one for one in opened.json()["parameter"]}
    url = urlsplit(out["url"]["valueUrl"])
    launch = parse_qs(url.query)
    assert url.geturl().startswith("https://app.example/launch?")
    assert launch["iss"] == [BASE]

    said = await clinic.tokens("dr", scope=LAUNCHED, launch=launch["launch"][0])
    assert (said["patient"], said["encounter"]) == ("a", "v1")
    assert said["need_patient_banner"] is True
    token = said["access_token"]
    for path in ("Patient/a", "Encounter/v1", "Practitioner/d"):
        assert (await clinic.get(path, token)).status_code == 200, path
    claims = await clinic.claims(said["id_token"])
    assert claims["fhirUser"] == f"{BASE}/Practitioner/d"
    known = await _introspected(clinic, token)
    assert (known["patient"], known["encounter"]) == ("a", "v1")
    # The same launch again is none.
    again = clinic.browser()
    page = await clinic.signed_in(
        again, "dr", f"/auth/authorize?{asked(scope=LAUNCHED, launch=launch['launch'][0])}"
    )
    assert answer_of(page)["error"] == "invalid_request"


async def test_the_console_opens_an_app_with_a_patient(clinic: Clinic) -> None:
    """EHR launch from our own page: the browser is sent to the app with ``iss`` and ``launch``."""
    browser = clinic.browser()
    await clinic.signed_in(browser, "dr", "/auth/console")
    page = await browser.get("/auth/launch?client=app&search=Anna")
    [form] = [one for one in Forms(page.text).forms if one["method"] == "post"]
    body = dict(form["fields"]) | {"patient": "a"}
    sent = await browser.http.post(form["action"], data=body)
    url = urlsplit(sent.headers["location"])
    told = parse_qs(url.query)
    assert (url.netloc, told["iss"]) == ("app.example", [BASE])
    scope = "launch patient/*.rs"
    asking = asked(scope=scope, launch=told["launch"][0])
    page = await browser.get(f"/auth/authorize?{asking}")
    told_app = answer_of(await browser.press(page, "/consent", decision="allow"))
    said = (await clinic.redeemed(told_app["code"])).json()
    assert said["patient"] == "a"
    await _reads_only_anna(clinic, said["access_token"])


async def test_a_patient_chooses_which_types_an_app_reads(clinic: Clinic) -> None:
    """Each scope is a tick of its own, also one with a category; what was not ticked is refused."""
    vital = "patient/Observation.rs?category=vital-signs"
    scope = f"launch/patient patient/Patient.rs patient/Encounter.rs {vital}"
    browser = clinic.browser()
    page = await clinic.signed_in(browser, "anna", f"/auth/authorize?{asked(scope=scope)}")
    [form] = [one for one in Forms(page.text).forms if one["action"].endswith("/consent")]
    ticks = [value for name, value in form["fields"] if name == "scope"]
    assert set(ticks) == set(scope.split())
    left = ["launch/patient", "patient/Patient.rs", vital]
    told = answer_of(await browser.press(page, "/consent", decision="allow", scope=left))
    said = (await clinic.redeemed(told["code"])).json()
    assert said["scope"].split() == left
    assert "refresh_token" not in said
    token = said["access_token"]
    assert (await clinic.get("Patient/a", token)).status_code == 200
    assert found_in(await clinic.get("Observation", token)) == {"Observation/vital-signs-a"}
    refused = await clinic.get("Encounter/v1", token)
    assert refused.status_code == 403
    assert "insufficient_scope" in refused.headers["www-authenticate"]


async def test_what_an_app_is_refused(clinic: Clinic) -> None:
    """A foreign ``aud``, consent that is not given, a wrong verifier, a used or unknown refresh
    token: errors by their names, and no token."""
    answer = await clinic.browser().get(f"/auth/authorize?{asked(aud='https://x.example/fhir')}")
    assert answer_of(answer)["error"] == "invalid_request"
    browser = clinic.browser()
    page = await clinic.signed_in(browser, "anna", f"/auth/authorize?{asked()}")
    assert answer_of(await browser.press(page, "/consent", decision="deny")) == {
        "error": "access_denied",
        "error_description": "The person did not agree.",
        "state": "s1",
    }
    code = (await clinic.consented())["code"]
    wrong = await clinic.redeemed(code, code_verifier="w" * 43)
    assert (wrong.status_code, wrong.json()["error"]) == (400, "invalid_grant")
    said = (await clinic.redeemed(code)).json()
    assert (await clinic.refreshed(said["refresh_token"])).status_code == 200
    for token in (said["refresh_token"], "x" * 43):
        refused = await clinic.refreshed(token)
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")


async def test_a_refresh_token_lasts_three_months_from_each_use(clinic: Clinic) -> None:
    """Each refresh gives a token that is good for as long again, without its user; a public client
    has them as well."""
    assert OFFLINE_S >= 92 * 86_400  # the longest three months
    said = await clinic.tokens()
    for _ in range(3):
        said = (await clinic.refreshed(said["refresh_token"])).json()
        rows = await clinic.http.post(
            "/auth/introspect",
            data={"token": said["refresh_token"]},
            headers=basic("keeper", SECRET),
        )
        left = rows.json()["exp"] - clinic.server.context.now().timestamp()
        assert OFFLINE_S - 60 < left <= OFFLINE_S


async def _asked_for(clinic: Clinic, path: str, token: str) -> httpx.Response:
    return await clinic.get(path, token, **ASYNC)


async def test_a_backend_exports_a_group(clinic: Clinic) -> None:
    """Client credentials, a search, and ``Group/[id]/$export``: kick-off, status, files in ndjson
    with the members of the group alone, deletion, and errors."""
    answer = await clinic.of_backend(assertion_of(), scope="system/*.rs")
    said = answer.json()
    assert {name: said[name] for name in said if name != "access_token"} == {
        "token_type": "Bearer",
        "expires_in": 300,
        "scope": "system/*.rs",
    }
    token = said["access_token"]
    assert found_in(await clinic.get("Patient", token)) == {"Patient/a", "Patient/b"}

    begun = await _asked_for(clinic, "Group/g/$export", token)
    assert begun.status_code == 202, begun.text
    place = begun.headers["content-location"]
    assert (await clinic.get(place, token)).status_code == 202
    while await work(clinic.server.context):
        pass
    manifest = (await clinic.get(place, token)).json()
    assert manifest["requiresAccessToken"] is True
    assert manifest["request"].endswith("/fhir/Group/g/$export")
    rows: list[dict[str, Any]] = []
    for one in manifest["output"]:
        assert (await clinic.http.get(one["url"])).status_code == 401
        file = await clinic.get(one["url"], token)
        assert file.headers["content-type"].startswith("application/fhir+ndjson")
        rows += map(json.loads, file.text.splitlines())
    found = {f"{one['resourceType']}/{one['id']}" for one in rows}
    own = {"Observation/laboratory-a", "Observation/vital-signs-a"}
    assert found >= {"Patient/a", "Encounter/v1"} | own
    assert not any(one.endswith("b") for one in found)

    deleted = await clinic.http.delete(place, headers={"Authorization": f"Bearer {token}"})
    assert deleted.status_code == 202
    for path in (place, manifest["output"][0]["url"], "Group/none/$export"):
        gone = await _asked_for(clinic, path, token)
        assert gone.status_code == 404
        assert gone.json()["resourceType"] == "OperationOutcome"


async def test_what_a_backend_is_refused(clinic: Clinic) -> None:
    """A wrong grant, an assertion that is none, a scope beyond its registration, and a client that
    has a secret instead of a key."""
    for form, error in (
        ({"grant_type": "not_a_grant"}, "unsupported_grant_type"),
        ({"client_assertion": "not.an.assertion"}, "invalid_client"),
        ({"client_assertion_type": "urn:none"}, "invalid_client"),
        ({"scope": "system/Patient.cud"}, "invalid_scope"),
    ):
        answer = await clinic.of_backend(**form)
        assert answer.json()["error"] == error
        assert answer.status_code == (401 if error == "invalid_client" else 400)
    form = {"grant_type": "client_credentials", "scope": "system/*.rs"}
    answer = await clinic.http.post("/auth/token", data=form, headers=basic("sharer", SECRET))
    assert answer.json()["error"] == "unauthorized_client"
