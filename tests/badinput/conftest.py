"""The client of tests/http, on a server of the test's own."""

from collections.abc import AsyncIterator
from functools import partial

import httpx
import pytest

from fhir_server.app import Server
from tests.http.conftest import Exact, application, client, exchange


@pytest.fixture
async def http(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an empty server of the test's own."""
    async with client(server) as made:
        yield made


@pytest.fixture
def exact(server: Server) -> Exact:
    """The same, for requests that a well-behaved client would not send."""
    return partial(exchange, application(server))
