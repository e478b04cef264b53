"""https://hl7.org/fhir/R4/http.html#Status-Codes

Every row is refused with a 4xx and a valid OperationOutcome that names the place or the remedy,
none with a 500, and the request after it works.
"""

from collections.abc import AsyncIterator
from uuid import uuid4

import httpx
import pytest

from fhir_server.app import Server, opened
from fhir_server.http.site import Site
from fhir_server.r4.json import decode
from fhir_server.settings import Settings
from tests.conformance import refused_bodies, refused_requests
from tests.conftest import drop
from tests.http.conftest import application, diagnostics_of, exchange, outcome_of

Row = refused_requests.Row
JSON = refused_requests.JSON
VALID = b'{"resourceType":"Patient","id":"p"}'


def rows() -> dict[str, Row]:
    """Return every row by its name."""
    found: dict[str, Row] = {}
    for kind in ("JSON", "NUMBERS", "RESOURCES"):
        for name, (body, statuses, word) in getattr(refused_bodies, kind).items():
            sent = body if isinstance(body, bytes) else body.encode()
            target = "Observation/o" if b'"Observation"' in sent else "Patient/p"
            headers = refused_requests.GZIP if "gzip" in name else JSON
            found[f"{kind.lower()}: {name}"] = ("PUT", target, headers, sent, statuses, word)
    for kind in ("PLACES", "HEADERS", "PARAMETERS", "BUNDLES"):
        for name, row in getattr(refused_requests, kind).items():
            found[f"{kind.lower()}: {name}"] = row
    return found


ROWS = rows()


@pytest.fixture(scope="module")
async def server(mongodb_uri: str) -> AsyncIterator[Server]:
    """One server for all rows: none of them writes anything."""
    settings = Settings.model_validate(
        {"mongodb_database": f"test-{uuid4().hex[:12]}", "body_bytes_max": 2_000_000}
    )
    async with opened(settings, mongodb_uri) as server:
        yield server
        await drop(server.database)


@pytest.fixture(scope="module")
async def site(server: Server) -> Site:
    """The application, with Patient/p in it."""
    made = application(server)
    await exchange(made, "PUT", "Patient/p", JSON, VALID)
    return made


def test_there_are_enough_rows() -> None:
    """Sixty wrong requests are asked for; there are more."""
    assert len(ROWS) >= 100


@pytest.mark.parametrize("name", ROWS)
async def test_a_wrong_request_is_refused(site: Site, server: Server, name: str) -> None:
    """4xx, an OperationOutcome that is itself valid, and a word that helps."""
    method, target, headers, body, statuses, word = ROWS[name]
    answer = await exchange(site, method, target, headers, body)

    assert answer.status_code in statuses, answer.text[:500]
    check_outcome(answer, server)
    assert word in diagnostics_of(answer), diagnostics_of(answer)[:500]
    assert "x-injected" not in answer.headers
    after = await exchange(site, "GET", "Patient/p")
    assert (after.status_code, after.headers["etag"]) == (200, 'W/"1"')


def check_outcome(answer: httpx.Response, server: Server) -> None:
    """Check that ``answer`` is a valid OperationOutcome of errors that says nothing internal."""
    outcome = outcome_of(answer)
    issues = server.context.validate(decode(answer.content))
    assert issues == (), issues
    for issue in outcome["issue"]:
        assert issue["severity"] == "error"
        assert issue["diagnostics"].strip().endswith((".", "?")), issue["diagnostics"]
        assert len(issue["diagnostics"]) < 600
    for internal in ("Traceback", "pymongo", "MongoServerError", ".py", "msgspec", "asyncio"):
        assert internal not in answer.text
