"""A client of the whole application, in this process: what FHIR clients see, without a socket.

https://hl7.org/fhir/R4/http.html
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
import pytest

from fhir_server.app import Server
from fhir_server.http.facade import Facade
from fhir_server.http.site import FHIR_PATH, Site, site
from fhir_server.interactions.recording import before_the_door
from fhir_server.security.principal import DEMO, Principal
from fhir_server.store.client import is_ready

HOST = "fhir.example.org"
BASE = f"http://{HOST}{FHIR_PATH}"
NAMES = frozenset(
    {HOST.encode(), b"other.example.org", b"a.example", b"[::1]", b"localhost", b"127.0.0.1"}
)
"""By which the application of the tests may be called."""

Resource = dict[str, Any]
Exact = Callable[..., Awaitable[httpx.Response]]
"""``await exact(method, target, headers, body)``: see :func:`exchange`."""


async def anybody(_headers: Any) -> Principal:
    """Who asks a server in development without a token."""
    return DEMO


def application(server: Server) -> Site:
    """Return the application that ``fhir_server.app.application`` returns, over ``server``."""
    settings = server.context.settings
    facade = Facade(
        FHIR_PATH,
        server.perform,
        settings,
        server.context.new_id,
        server.registry.interactions,
        lambda: server.xml,
        anybody,
        server.registry.is_native,
        partial(before_the_door, server.context),
    )

    async def ready() -> bool:
        return await is_ready(server.database)

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        yield

    return site(facade, ready, lifespan, settings, names=NAMES)


@asynccontextmanager
async def client(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of ``server`` to which paths are relative to the FHIR base."""
    transport = httpx.ASGITransport(application(server), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=f"{BASE}/") as made:
        yield made


async def exchange(
    app: Site,
    method: str,
    target: str,
    headers: Mapping[str, str | bytes] | None = None,
    body: bytes = b"",
) -> httpx.Response:
    """Send one request whose target nobody tidies up: dot segments, escapes and case stay.

    ``target`` is relative to the FHIR base unless it begins with a slash. The scope is the one
    that uvicorn makes of these bytes.
    """
    raw = target if target.startswith("/") else f"{FHIR_PATH}/{target}"
    path, _, query = raw.partition("?")
    given = {"host": HOST, **(headers or {})}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http",
        "method": method,
        "path": unquote(path),
        "raw_path": path.encode("latin-1"),
        "query_string": query.encode("latin-1"),
        "root_path": "",
        "headers": [
            (name.lower().encode(), value if isinstance(value, bytes) else value.encode("latin-1"))
            for name, value in given.items()
        ],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    messages = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if not messages:  # the client is there until it has its answer
            await asyncio.Event().wait()
        return messages.pop()

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start, *rest = sent
    content = b"".join(one.get("body", b"") for one in rest)
    return httpx.Response(start["status"], headers=start["headers"], content=content)


def outcome_of(answer: httpx.Response) -> Resource:
    """Return the OperationOutcome that ``answer`` is."""
    assert answer.headers["content-type"].startswith("application/"), answer.text[:200]
    resource: Resource = answer.json()
    assert resource["resourceType"] == "OperationOutcome", answer.text[:200]
    return resource


def diagnostics_of(answer: httpx.Response) -> str:
    """Return what the OperationOutcome ``answer`` says and where, in one line."""
    parts = [
        " ".join([one.get("diagnostics", ""), *one.get("expression", [])])
        for one in outcome_of(answer)["issue"]
    ]
    return " ".join(parts)


def links_of(bundle: Resource) -> dict[str, str]:
    """Return relation -> url of the links of ``bundle``."""
    return {link["relation"]: link["url"] for link in bundle.get("link", [])}


async def pages(http: httpx.AsyncClient, url: str, *, most: int = 100) -> list[Resource]:
    """Return the Bundles at ``url`` and behind its ``next`` links, to the end."""
    found: list[Resource] = []
    while url:
        assert len(found) < most, "the pages do not end"
        assert urlsplit(url).netloc in ("", HOST)
        answer = await http.get(url)
        assert answer.status_code == 200, answer.text
        found.append(answer.json())
        url = links_of(found[-1]).get("next", "")
    return found


@pytest.fixture
async def http(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an empty server of the test's own."""
    async with client(server) as made:
        yield made


@pytest.fixture
def exact(server: Server) -> Exact:
    """The same, for requests that a well-behaved client would not send."""
    return partial(exchange, application(server))
