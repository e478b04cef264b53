"""A clinic in production with its authorization server: a patient, a physician, apps, a backend."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from itertools import count
from secrets import token_bytes
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet

from fhir_server.app import Server, opened
from fhir_server.interactions.people import people_of
from fhir_server.messages import Request
from fhir_server.security.grants import Client
from fhir_server.security.grants import hashed as hash_of
from fhir_server.security.oauth import challenge_of
from fhir_server.security.passwords import hashed
from fhir_server.security.rates import Buckets, Rate, Rates
from fhir_server.settings import Settings
from fhir_server.store.users import User
from tests.conftest import drop
from tests.http.authorize import browsing
from tests.http.authorize.conftest import (
    BASE,
    ES384,
    REDIRECT,
    ROOT,
    SECRET,
    VERIFIER,
    Authorization,
    application,
    client_of,
)

PASSWORD = "violet harbour 19 lanterns"
STANDALONE = "openid fhirUser launch/patient offline_access patient/*.rs"
_HASH = hashed(PASSWORD, token_bytes(16))
ANNA = User("anna", "Anna A", ("patient",), "Patient/a", "a", password=_HASH)
DOCTOR = User("dr", "Dr D", ("physician",), "Practitioner/d", password=_HASH)
NO_RESOURCE = User("clerk", "A clerk", ("physician",), "", password=_HASH, is_demo=True)
APP = Client(
    "app",
    "An app",
    redirect_uris=(REDIRECT,),
    launch_uri="https://app.example/launch",
    scopes=(
        *("openid", "fhirUser", "launch", "launch/patient", "launch/encounter"),
        *("offline_access", "online_access", "patient/*.cruds", "user/*.cruds"),
    ),
    origins=("https://app.example",),
)
KEEPER = replace(
    APP,
    id="keeper",
    name="A resource server",
    kind="confidential-symmetric",
    secret_hash=hash_of(SECRET),
    scopes=(*APP.scopes, "introspect"),
)
BACKEND = Client(
    "backend",
    "A backend",
    "confidential-asymmetric",
    scopes=("system/*.rs", "introspect"),
    jwks={"keys": [ES384.as_dict(private=False)]},
    algorithm="ES384",
    roles=("backend",),
    is_backend=True,
)
SHARER = replace(
    BACKEND,
    id="sharer",
    kind="confidential-symmetric",
    secret_hash=hash_of(SECRET),
    jwks={},
    algorithm="",
)


def _observation(patient: str, category: str) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": f"{category}-{patient}",
        "status": "final",
        "category": [{"coding": [{"system": CATEGORIES, "code": category}]}],
        "code": {"text": "something measured"},
        "subject": {"reference": f"Patient/{patient}"},
    }


CATEGORIES = "http://terminology.hl7.org/CodeSystem/observation-category"
VISIT = {
    "resourceType": "Encounter",
    "id": "v1",
    "status": "finished",
    "class": {"code": "AMB"},
    "subject": {"reference": "Patient/a"},
}
DATA: tuple[dict[str, Any], ...] = (
    {"resourceType": "Patient", "id": "a", "name": [{"text": "Anna A"}]},
    {"resourceType": "Patient", "id": "b", "name": [{"text": "Boris B"}]},
    {"resourceType": "Practitioner", "id": "d", "name": [{"text": "Dr D"}]},
    VISIT,
    *(_observation(one, two) for one in "ab" for two in ("laboratory", "vital-signs")),
    {
        "resourceType": "Group",
        "id": "g",
        "type": "person",
        "actual": True,
        "member": [{"entity": {"reference": "Patient/a"}}],
    },
)
_ADDRESSES = count(1)


def asked(**other: str) -> str:
    """Return the query of a good authorization request with ``other`` parameters; an empty one is
    left out."""
    given = {
        "response_type": "code",
        "client_id": "app",
        "redirect_uri": REDIRECT,
        "scope": STANDALONE,
        "state": "s1",
        "aud": BASE,
        "code_challenge": challenge_of(VERIFIER),
        "code_challenge_method": "S256",
    }
    return urlencode({name: value for name, value in (given | other).items() if value})


@dataclass
class Browser(browsing.Browser):
    """A browser at the whole site: the pages and the FHIR endpoint."""

    app: Any = None

    def __post_init__(self) -> None:
        """Open it, in a network of its own."""
        self.address = f"10.{next(_ADDRESSES)}.7.1"
        transport = httpx.ASGITransport(self.app, client=(self.address, 1))
        self.http = httpx.AsyncClient(transport=transport, base_url=ROOT)


@dataclass(frozen=True, slots=True)
class Clinic(Authorization):
    """The server, a client of its site, and who signs in there."""

    app: Any = None

    def browser(self) -> Browser:
        """Return a browser that nobody has signed in at."""
        return Browser(self.server.context, app=self.app)

    async def signed_in(self, browser: Browser, name: str, where: str) -> httpx.Response:
        """Go to ``where`` and sign in there, staff with a code of theirs on paper."""
        page = await browser.sign_in(await browser.get(where), name, PASSWORD)
        people = people_of(self.server.context)
        user = await people.users.named(name)
        assert user is not None
        if not user.needs_second_factor:
            return page
        _, codes = await people.give_second_factor(user)
        page = await browser.sign_in(await browser.get(where), name, PASSWORD)
        return await browser.press(page, "/second-factor", code=codes[0])

    async def consented(self, name: str = "anna", **other: Any) -> dict[str, str]:
        """Return what the app is told when ``name`` agrees to the request with ``other``."""
        ticked = {"scope": other.pop("ticked")} if "ticked" in other else {}
        browser = self.browser()
        page = await self.signed_in(browser, name, f"/auth/authorize?{asked(**other)}")
        page = await browser.press(page, "/consent", decision="allow", **ticked)
        return browsing.answer_of(page)

    async def tokens(self, name: str = "anna", **other: Any) -> dict[str, Any]:
        """Return the token response to what ``name`` agreed to."""
        told = await self.consented(name, **other)
        answer = await self.redeemed(told["code"])
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def refreshed(self, token: str, **more: str) -> httpx.Response:
        """Redeem a refresh token as the app."""
        form = {"grant_type": "refresh_token", "refresh_token": token, "client_id": "app"}
        return await self.token(**form | more)

    async def get(self, path: str, token: str, **headers: str) -> httpx.Response:
        """Ask ``path`` of the FHIR endpoint, or a URL, as the bearer of ``token``."""
        url = path if path.startswith("https:") else f"/fhir/{path}"
        return await self.http.get(url, headers={"Authorization": f"Bearer {token}"} | headers)

    async def claims(self, token: str) -> Mapping[str, Any]:
        """Return the claims of an ``id_token``, verified by the keys that are published."""
        keys = KeySet.import_key_set((await self.http.get("/auth/jwks")).json())
        return jwt.decode(token, keys, algorithms=["RS256"]).claims


def found_in(answer: httpx.Response) -> set[str]:
    """Return the references of what a search has found."""
    assert answer.status_code == 200, answer.text
    rows = (entry["resource"] for entry in answer.json().get("entry", []))
    return {f"{row['resourceType']}/{row['id']}" for row in rows}


@pytest.fixture(scope="session")
async def clinic(mongodb_uri: str) -> AsyncIterator[Clinic]:
    """One for all tests of SMART: to open one takes longer than most of them."""
    named = {"mongodb_database": f"test-{uuid4().hex[:12]}", "mode": "production", "base_url": BASE}
    named["master_key"] = "5e" * 32
    async with opened(Settings.model_validate(named), mongodb_uri) as opened_one:
        many = Rates(*(Buckets(Rate(1e6, 1e6)) for _ in range(3)))  # tested apart
        server = replace(opened_one, context=replace(opened_one.context, rates=many))
        await _furnish(server)
        app = application(server)
        async with client_of(app) as http:
            yield Clinic(server, http, app)
        await drop(server.database)


async def _furnish(server: Server) -> None:
    for client in (APP, KEEPER, BACKEND, SHARER):
        await server.context.accounts.clients.add(client)
    for body in DATA:
        request = Request("update", body["resourceType"], body["id"], body=body)
        assert (await server.perform(request)).status == 201
    people = people_of(server.context)
    for user in (ANNA, DOCTOR, NO_RESOURCE):
        await people.users.add(user, people.now())
