"""An export whose server process is killed in its middle.

https://hl7.org/fhir/uv/bulkdata/STU2/export.html#bulk-data-status-request
"""

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pymongo import MongoClient

from tests.faults.serving import Serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SIZE = 6000
TRIES = 5


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    """A running server on data of its own; nothing of it outlives the test."""
    one = Serving(tmp_path, export_page_entries=200)
    one.start()
    yield one
    one.clean_up()


def _entry(n: int) -> dict[str, Any]:
    body = {"resourceType": "Basic", "id": f"b{n}", "code": {"text": f"number {n}"}}
    return {"resource": body, "request": {"method": "PUT", "url": f"Basic/b{n}"}}


def test_it_goes_on_behind_the_last_page(serving: Serving) -> None:
    """Killed between its pages and started again, it comes to its end: each resource once."""
    with httpx.Client(base_url=serving.base, timeout=60) as http:
        for start in range(0, SIZE, 1000):
            entries = [_entry(n) for n in range(start, start + 1000)]
            bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
            headers = {"Content-Type": "application/fhir+json"}
            assert http.post("", json=bundle, headers=headers).status_code == 200
        place = _killed_in_the_middle(http, serving)
        serving.start()  # first: it ends what the killed one had begun, if that had
        _lease_ends(serving)
        manifest = _waited(http, place)
        found = Counter(
            json.loads(line)["id"]
            for file in manifest["output"]
            for line in http.get(file["url"]).text.splitlines()
        )
    assert len(found) == SIZE
    assert set(found.values()) == {1}


def _killed_in_the_middle(http: httpx.Client, serving: Serving) -> str:
    """Return the status of an export that was killed when some of it was written."""
    for _ in range(TRIES):
        begun = http.get("$export?_type=Basic", headers={"Prefer": "respond-async"})
        place: str = begun.headers["content-location"]
        while (found := http.get(place)).status_code == 202:
            if not found.headers["x-progress"].startswith("0 "):
                serving.kill()
                return place
        http.delete(place)
    raise AssertionError("every export was complete before it could be killed")


def _lease_ends(serving: Serving) -> None:
    """Let the time pass for which the killed process had the job."""
    port = json.loads((serving.data / "mongod.json").read_text())["port"]
    uri = f"mongodb://127.0.0.1:{port}/?directConnection=true"
    with MongoClient[dict[str, Any]](uri) as client:
        changed = client["fhir"]["exports"].update_many({}, {"$unset": {"until": ""}})
        assert changed.matched_count == 1


def _waited(http: httpx.Client, place: str) -> Any:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = http.get(place)
        if found.status_code == 200:
            return found.json()
        assert found.status_code == 202, found.text
        time.sleep(0.1)
    raise AssertionError("the export did not come to its end")
