"""A server in production with its authorization server, an app and a backend."""

import time
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from secrets import token_urlsafe
from typing import Any
from uuid import uuid4

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from fhir_server.app import Server, bearer, opened
from fhir_server.http.facade import Facade, Identify
from fhir_server.http.site import FHIR_PATH, Site, site
from fhir_server.security.assertions import ASSERTION_TYPE
from fhir_server.security.grants import Client, Grant, hashed
from fhir_server.security.oauth import challenge_of
from fhir_server.security.rates import Buckets, Rate, Rates
from fhir_server.settings import Settings
from tests.conftest import drop

ROOT = "https://fhir.example.org"
BASE = f"{ROOT}{FHIR_PATH}"
TOKEN = f"{ROOT}/auth/token"
SECRET = token_urlsafe(32)
VERIFIER = token_urlsafe(48)
REDIRECT = "https://app.example/back"
ES384 = ECKey.generate_key("P-384", {"kid": "es"})
RS384 = RSAKey.generate_key(2048, {"kid": "rs"})
FORM = "application/x-www-form-urlencoded"

APP = Client(
    "app",
    "An app",
    redirect_uris=(REDIRECT,),
    scopes=("openid", "fhirUser", "launch/patient", "offline_access", "patient/*.rs"),
    origins=("https://app.example",),
)
KEEPER = replace(APP, id="keeper", kind="confidential-symmetric", secret_hash=hashed(SECRET))
BACKEND = Client(
    "backend",
    "A backend",
    "confidential-asymmetric",
    scopes=("system/Patient.rs", "system/Observation.rs"),
    jwks={"keys": [ES384.as_dict(private=False)]},
    algorithm="ES384",
    roles=("backend",),
    is_backend=True,
)
OTHER = replace(
    BACKEND,
    id="other",
    algorithm="RS384",
    jwks={"keys": [RS384.as_dict(private=False)]},
    scopes=("introspect",),
)
CLIENTS = (APP, KEEPER, BACKEND, OTHER)
GRANT = Grant(
    "app",
    BASE,
    ("openid", "fhirUser", "launch/patient", "offline_access", "patient/*.rs"),
    user="u1",
    fhir_user="Patient/p1",
    patient="p1",
    encounter="e1",
    context={
        "need_patient_banner": True,
        "smart_style_url": f"{ROOT}/style.json",
        "intent": "order",
        "tenant": "t1",
        "fhirContext": [{"reference": "ImagingStudy/i1"}],
    },
)

Ask = Callable[..., Awaitable[httpx.Response]]


def application(server: Server, identify: Identify | None = None) -> Site:
    """Return the application that ``fhir_server.app.application`` returns, over ``server``."""
    settings = server.context.settings
    facade = Facade(
        FHIR_PATH,
        server.perform,
        settings,
        server.context.new_id,
        server.registry.interactions,
        lambda: server.xml,
        identify or bearer(settings, lambda: server.context.accounts),
        server.registry.is_native,
        admit=server.context.rates.admit,
    )

    async def ready() -> bool:
        return True

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        yield

    def routes() -> tuple[dict[str, Any], Any]:
        return server.registry.routes, server.context

    return site(facade, ready, lifespan, settings, routes)


@asynccontextmanager
async def client_of(app: Site) -> AsyncIterator[httpx.AsyncClient]:
    """A client of ``app``; paths are relative to the root of the site."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=ROOT) as made:
        yield made


@dataclass(frozen=True, slots=True)
class Authorization:
    """The server, and a client of its site."""

    server: Server
    http: httpx.AsyncClient

    async def token(self, **form: str) -> httpx.Response:
        """Ask the token endpoint."""
        return await self.http.post("/auth/token", data=form)

    async def code(self, grant: Grant = GRANT, nonce: str = "") -> str:
        """Return a code for ``grant``, as a sign-in page would issue it."""
        return await self.server.context.accounts.issue_code(
            grant, redirect_uri=REDIRECT, challenge=challenge_of(VERIFIER), nonce=nonce
        )

    async def redeemed(self, good: str, **more: str) -> httpx.Response:
        """Redeem the code ``good`` as the public app, with ``more`` or other parameters."""
        form = {
            "grant_type": "authorization_code",
            "code": good,
            "redirect_uri": REDIRECT,
            "code_verifier": VERIFIER,
            "client_id": "app",
        }
        return await self.token(**{name: value for name, value in (form | more).items() if value})

    async def of_backend(self, token: str = "", **more: str) -> httpx.Response:
        """Ask for a token with an assertion of the backend."""
        form = {
            "grant_type": "client_credentials",
            "scope": "system/*.rs",
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": token or assertion_of(),
        }
        return await self.token(**form | more)


def claims_of(**changes: Any) -> dict[str, Any]:
    """Return the claims of a good assertion with ``changes``; ``None`` leaves one out, a
    ``timedelta`` is a time from now on."""
    now = int(time.time())
    claims = {
        "iss": "backend",
        "sub": "backend",
        "aud": TOKEN,
        "exp": now + 240,
        "jti": token_urlsafe(16),
    }
    said = {
        name: now + int(value.total_seconds()) if isinstance(value, timedelta) else value
        for name, value in (claims | changes).items()
    }
    return {name: value for name, value in said.items() if value is not None}


def assertion_of(
    key: ECKey | RSAKey = ES384,
    header: dict[str, Any] | None = None,
    **changes: Any,
) -> str:
    """Return a signed assertion of the backend."""
    algorithm = "ES384" if isinstance(key, ECKey) else "RS384"
    head = {"alg": algorithm, "typ": "JWT", "kid": key.kid} | (header or {})
    return jwt.encode(head, claims_of(**changes), key, algorithms=[str(head["alg"])])


def basic(id: str, secret: str) -> dict[str, str]:
    """Return the header of a client that proves itself by its secret."""
    return {"Authorization": f"Basic {b64encode(f'{id}:{secret}'.encode()).decode()}"}


@pytest.fixture(scope="session")
async def production(mongodb_uri: str) -> AsyncIterator[Server]:
    """One open server in production for all tests that keep apart by what they make: to open one
    takes longer than most of them."""
    named = {"mongodb_database": f"test-{uuid4().hex[:12]}", "mode": "production", "base_url": BASE}
    named["master_key"] = "5e" * 32
    async with opened(Settings.model_validate(named), mongodb_uri) as server:
        for client in CLIENTS:
            await server.context.accounts.clients.add(client)
        # What is counted by the minute is tested apart.
        many = Rates(*(Buckets(Rate(1e6, 1e6)) for _ in range(3)))
        yield replace(server, context=replace(server.context, rates=many))
        await drop(server.database)


@pytest.fixture(scope="session")
async def auth(production: Server) -> AsyncIterator[Authorization]:
    """The server, with its clients."""
    async with client_of(application(production)) as http:
        yield Authorization(production, http)
