"""design/security.md, section 2.3: who may sign in, seen to by an administrator."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import pytest

from fhir_server.app import Server, opened
from fhir_server.dispatch import answer
from fhir_server.interactions.people import SignedIn, Wrong, people_of
from fhir_server.messages import Request, Response
from fhir_server.r4.json import decode_stored
from fhir_server.security.grants import Client, Grant
from fhir_server.security.principal import NOBODY, SERVER, Principal
from fhir_server.security.scopes import scopes_of
from fhir_server.settings import Settings
from fhir_server.user_commands import demo_users
from tests.conftest import drop

APP = Client(
    "app", "App", redirect_uris=("https://app.example/",), launch_uri="https://app.example/l"
)
HERE = "192.0.2.1"


@pytest.fixture(scope="module")
async def clinic(mongodb_uri: str) -> AsyncIterator[Server]:
    """A server with two patients and an app."""
    settings = Settings.model_validate({"mongodb_database": f"test-{uuid4().hex[:12]}"})
    async with opened(settings, mongodb_uri) as server:
        for id in ("a", "b", "rahima-khatun"):
            body = {"resourceType": "Patient", "id": id}
            await server.perform(Request("update", "Patient", id, body=body))
        await server.context.accounts.clients.add(APP)
        yield server
        await drop(server.database)


async def _asked(
    server: Server, operation: str, principal: Principal = SERVER, /, **given: Any
) -> Response:
    parameters = []
    for key, value in given.items():
        for one in value if isinstance(value, list) else [value]:
            kind = "valueString"
            if key == "role":
                kind = "valueCode"
            elif isinstance(one, bool):
                kind = "valueBoolean"
            elif key in ("patient", "fhirUser", "encounter"):
                kind, one = "valueReference", {"reference": one}
            parameters.append({"name": key, kind: one})
    body = {"resourceType": "Parameters", "parameter": parameters} if parameters else None
    request = Request(
        operation, body=body, reading=not parameters, base_url="https://x.example/fhir"
    )
    return await answer(server.registry, request, replace(server.context, principal=principal))


def _value(response: Response, name: str) -> Any:
    found = [one for one in decode_stored(response.body)["parameter"] if one["name"] == name]
    return [next(one[key] for key in one if key != "name") for one in found]


async def test_a_user_is_added_and_changed(clinic: Server) -> None:
    """The password is shown once and good; roles, account and password can be taken away, and what
    was granted with them ends."""
    people, accounts = people_of(clinic.context), clinic.context.accounts
    added = await _asked(
        clinic, "$user-add", name="Anna", role="patient", patient="Patient/a", display="Anna A"
    )
    assert added.status == 201, added.body
    [password] = _value(added, "password")
    signed_in = await people.password("anna", password, HERE)
    assert isinstance(signed_in, SignedIn)
    listed = await _asked(clinic, "$users")
    assert b"Anna A" in listed.body
    assert password.encode() not in listed.body
    assert b"argon2" not in listed.body

    grant = Grant("app", "https://x.example/fhir", ("patient/*.rs",), user="anna", patient="a")
    token = (await accounts.give(grant)).access
    assert await accounts.known(token) is not None
    changed = await _asked(clinic, "$user-change", name="anna", disabled=True)
    assert _value(changed, "disabled") == [True]
    assert await accounts.known(token) is None
    assert await people.current(signed_in.cookie) is None
    assert isinstance(await people.password("anna", password, HERE), Wrong)
    await _asked(clinic, "$user-change", name="anna", disabled=False)
    assert isinstance(await people.password("anna", password, HERE), SignedIn)

    token = (await accounts.give(grant)).access
    [fresh] = _value(await _asked(clinic, "$user-password", name="anna"), "password")
    assert await accounts.known(token) is None
    assert isinstance(await people.password("anna", password, HERE), Wrong)
    assert isinstance(await people.password("anna", fresh, HERE), SignedIn)


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"name": "../x"}, 400),
        ({"name": "x y"}, 400),
        ({"name": "new", "role": "emperor"}, 400),
        ({"name": "new", "role": "patient"}, 400),
        ({"name": "new", "role": "patient", "patient": "Patient/none"}, 400),
        ({"name": "new", "role": ["patient", "nurse"], "patient": "Patient/a"}, 400),
        ({"name": "new", "fhirUser": "Device/1"}, 400),
        ({"name": "new", "fhirUser": "Practitioner/none"}, 400),
        ({"name": "new", "password": "short"}, 400),
        ({"name": "new", "password": "welcome-hospital"}, 400),
        ({"name": "new", "unknown": "x"}, 400),
        ({"display": "Nobody"}, 400),
        ({"name": "twice", "role": "nurse"}, 409),
    ],
)
async def test_what_a_user_cannot_be(clinic: Server, given: dict[str, Any], status: int) -> None:
    """Names, roles, resources and passwords are judged; nobody is added twice."""
    if status == 409:
        await _asked(clinic, "$user-add", **given)
    found = await _asked(clinic, "$user-add", **given)
    assert found.status == status, found.body


@pytest.mark.parametrize("name", ["$users", "$user-add", "$user-change", "$user-password"])
async def test_users_are_for_administrators(clinic: Server, name: str) -> None:
    """Who has every scope is no administrator by that, and nobody is nobody."""
    physician = Principal("user", "dr", "app", scopes_of("user/*.cruds"), ("physician",))
    assert (await _asked(clinic, name, physician, name="x")).status == 403
    assert (await _asked(clinic, name, NOBODY, name="x")).status == 401


async def test_demo_users_are_made_anew(clinic: Server) -> None:
    """At each start with other passwords; a patient among them sees the own record alone, and
    whoever is missing in the data is left out."""
    people = people_of(clinic.context)
    first = {user.name: password for user, password in await demo_users(clinic, "http://x")}
    found = {user.name: password for user, password in await demo_users(clinic, "http://x")}
    assert set(first) == set(found) == {"rahima", "admin"}
    assert first["rahima"] != found["rahima"]
    signed_in = await people.password("admin", found["admin"], "198.51.100.7")
    assert isinstance(signed_in, SignedIn)
    assert signed_in.session.is_whole
    assert await people.users.has_demo()
    assert not await people.users.has_administrator()


async def test_an_app_is_opened_for_who_sees_the_patient(clinic: Server) -> None:
    """The value is for this user and app, with a patient whom the user sees."""
    scopes = scopes_of("patient/*.rs")
    anna = Principal("user", "anna", "app", scopes, ("patient",), "Patient/a", "a")
    found = await _asked(clinic, "$launch", anna, client="app", patient="Patient/a")
    assert found.status == 201, found.body
    [url], [value] = _value(found, "url"), _value(found, "launch")
    assert parse_qs(urlsplit(url).query) == {"iss": ["https://x.example/fhir"], "launch": [value]}
    accounts = clinic.context.accounts
    assert await accounts.take_launch(value, "app", "other") is None
    assert await accounts.take_launch(value, "other", "anna") is None
    taken = await accounts.take_launch(value, "app", "anna")
    assert taken is not None
    assert taken.patient == "a"
    assert await accounts.take_launch(value, "app", "anna") is None

    for given, status in (
        ({"client": "app", "patient": "Patient/b"}, 404),
        ({"client": "app", "patient": "Observation/b"}, 400),
        ({"client": "none", "patient": "Patient/a"}, 404),
        ({"patient": "Patient/a"}, 400),
    ):
        assert (await _asked(clinic, "$launch", anna, **given)).status == status, given
    assert (await _asked(clinic, "$launch", NOBODY, client="app")).status == 401
    assert (await _asked(clinic, "$launch", SERVER, client="app")).status == 403
