"""Published collections of attacks and malformed data, put into every place that takes text.

``FHIR_TEST_BADINPUT`` names the folder; the index in it says what each collection is for. Without
it these tests are skipped.
"""

import json
import os
import time
from base64 import b64decode
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from fhir_server.app import Server, opened
from fhir_server.http.site import Site
from fhir_server.settings import Settings
from tests.conftest import SHARED, Emptied
from tests.http.conftest import application, exchange

JSON = {"content-type": "application/fhir+json"}
SECONDS_MAX = 1.0

Cases = Callable[..., list[tuple[str, bytes]]]
"""``cases("strings/naughty.b64")``: name and bytes of every case of these files."""


@pytest.fixture(scope="session")
def cases() -> Cases:
    """The cases of a file, each with a name that a failure can be found by."""
    folder = Path(os.environ.get("FHIR_TEST_BADINPUT", SHARED / "badinput"))
    if not folder.is_dir():
        pytest.skip("the bad input is not there (FHIR_TEST_BADINPUT, ../shared/data/badinput)")

    def read(*files: str, every: int = 1) -> list[tuple[str, bytes]]:
        return [case for file in files for case in _cases(folder / file)[::every]]

    return read


def _cases(path: Path) -> list[tuple[str, bytes]]:
    lines = path.read_text("ascii").splitlines()
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in lines]
        return [(row["name"], b64decode(row["b64"])) for row in rows]
    return [(f"{path.stem}:{number}", b64decode(line)) for number, line in enumerate(lines, 1)]


@pytest.fixture(scope="module")
async def server(mongodb_uri: str, emptied: Emptied) -> AsyncIterator[Server]:
    """One server for the cases of a module, with limits that a test can reach."""
    name = emptied.take()
    settings = Settings.model_validate({"mongodb_database": name})
    async with opened(settings, mongodb_uri) as server:
        yield server
    emptied.give_back(name)


@pytest.fixture(scope="module")
async def site(server: Server) -> Site:
    """The application, with five patients of a name that is in no collection."""
    made = application(server)
    for number, letter in enumerate("qxzvk"):
        patient = {
            "resourceType": "Patient",
            "id": f"canary-{number}",
            "name": [{"family": f"Qxzvkanary{letter}"}],
            "gender": "other",
            "birthDate": "1901-01-01",
            "identifier": [{"system": "urn:x:canary", "value": f"qxzv-{number}"}],
        }
        answer = await put(made, patient)
        assert answer.status_code == 201
    return made


async def put(site: Site, resource: dict[str, Any]) -> httpx.Response:
    """Write ``resource`` under its id."""
    text = json.dumps(resource, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return await exchange(site, "PUT", f"{resource['resourceType']}/{resource['id']}", JSON, text)


class Watch:
    """Sends requests and collects what is wrong with the answers, by the name of the case."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.faults: dict[str, str] = {}

    async def __call__(
        self,
        name: str,
        method: str,
        target: str,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
    ) -> httpx.Response:
        """Send one request; note 5xx, a 4xx without an outcome, slowness, the canary."""
        began = time.perf_counter()
        answer = await exchange(self._site, method, target, headers, body)
        seconds = time.perf_counter() - began
        status = answer.status_code
        self.check(name, status < 500, f"status {status}")
        self.check(name, seconds < SECONDS_MAX, f"{seconds:.1f} s")
        self.check(name, b"root:x:0" not in answer.content, "a file of the machine")
        self.check(name, "set-cookie" not in answer.headers, "an injected header")
        if status >= 400 and method != "HEAD":
            right = b'"resourceType":"OperationOutcome"' in answer.content
            self.check(name, right, f"{status} without an outcome: {answer.text[:80]!r}")
        return answer

    def check(self, name: str, right: bool, fault: str) -> None:
        """Note ``fault`` of the case ``name`` unless it is ``right``; the first one is kept."""
        if not right:
            self.faults.setdefault(name, fault)


@pytest.fixture
async def watch(site: Site) -> AsyncIterator[Watch]:
    """A watch; after the test the server must still answer, and have the canaries as they were."""
    made = Watch(site)
    yield made
    answer = await exchange(site, "GET", "Patient?family=Qxzvkanary&_total=accurate")
    assert (answer.status_code, answer.json()["total"]) == (200, 5)
