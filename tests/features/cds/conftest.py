"""The knowledge, as it is shipped and with a site's look-up tables."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from fhir_server.app import Server
from fhir_server.features.cds.knowledge import Knowledge, load_knowledge
from fhir_server.http.facade import Facade
from fhir_server.http.site import FHIR_PATH, Site, site
from fhir_server.security.principal import DEMO, Principal
from fhir_server.settings import Settings
from tests.conftest import Emptied

ROOT = Path(__file__).resolve().parents[3]
SHARED = ROOT.parent / "shared" / "data"
ROOT_URL = "http://cds.example.org"
CASES = ROOT / "tests" / "cases" / "cds"


@pytest.fixture(scope="session")
def knowledge() -> Knowledge:
    """The knowledge as it is shipped: no table of products."""
    return load_knowledge(ROOT / "terminology")


@pytest.fixture(scope="session")
def with_products(shared: Path) -> Knowledge:
    """The knowledge with RxNorm's products, which are not part of this repository."""
    return load_knowledge(ROOT / "terminology", shared / "cds" / "lookup")


async def anybody(_headers: Any) -> Principal:
    """Who asks a server in development without a token."""
    return DEMO


def app_over(server: Server) -> Site:
    """Return the whole application over ``server``, with what features have registered."""
    settings = server.context.settings
    facade = Facade(
        FHIR_PATH,
        server.perform,
        settings,
        server.context.new_id,
        server.registry.interactions,
        lambda: server.xml,
        anybody,
    )

    async def ready() -> bool:
        return True

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        yield

    def routes() -> tuple[dict[str, Any], Any]:
        return server.registry.routes, server.context

    names = frozenset({ROOT_URL.removeprefix("http://").encode()})
    return site(facade, ready, lifespan, settings, routes, names)


@asynccontextmanager
async def client_of(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """A client of ``server``; what was answered is written down before it ends."""
    transport = httpx.ASGITransport(app_over(server))
    async with httpx.AsyncClient(transport=transport, base_url=ROOT_URL) as made:
        yield made
        await server.registry.routes["/cds-services"].recorder.written()


@pytest.fixture
def settings(emptied: Emptied) -> Iterator[Settings]:
    """Settings with every service on, and RxNorm's products where they are there."""
    lookup = SHARED / "cds" / "lookup"
    with emptied.one() as name:
        yield Settings.model_validate(
            {
                "mongodb_database": name,
                "cds_services": "*",
                "cds_lookup": lookup if lookup.is_dir() else None,
                "cds_deadline_ms": 20_000,  # a busy machine is no fault of the rules
            }
        )


@pytest.fixture
async def hooks(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the services."""
    async with client_of(server) as made:
        yield made
