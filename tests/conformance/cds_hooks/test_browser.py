"""design/cds.md, section 15, A15: a client in a real browser, from discovery to feedback.

Its page comes from another origin than the services, so the browser asks first (CORS) and refuses
what is not allowed. What the page does is ``browser_client.html``.
"""

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conformance.cds_hooks.conftest import EC, PATIENT, SANDBOX, order
from tests.conformance.cds_hooks.test_sandbox import RECORDED
from tests.faults.serving import Serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

PAGE = Path(__file__).with_name("browser_client.html")
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
DRAFT = RECORDED["context"]["draftOrders"]["entry"][0]["resource"]
WAIT_S = 90.0


class Pages:
    """A site of one page, which hands in at the end what happened."""

    def __init__(self) -> None:
        """Listen on a free port of this machine."""
        self.html = b""
        self.said: dict[str, Any] = {}
        self.done = threading.Event()
        pages = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(200 if self.path == "/" else 404, pages.html)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self._answer(200, b"{}")
                pages.said = json.loads(body)
                pages.done.set()

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        """End."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def pages() -> Iterator[Pages]:
    """A site for the page."""
    made = Pages()
    yield made
    made.close()


@pytest.fixture
def serving(tmp_path: Path, pages: Pages) -> Iterator[Serving]:
    """A server that knows the page's origin and its key, with a patient who takes warfarin."""
    clients = tmp_path / "clients.json"
    keys = {"keys": [EC.as_dict(private=False)]}
    row = {"iss": SANDBOX, "keys": keys, "algorithm": "ES384", "origins": [pages.origin]}
    clients.write_text(json.dumps({"clients": [row]}), "utf-8")
    one = Serving(
        tmp_path,
        cds_services="*",
        cds_clients=clients,
        cors_origins=pages.origin,
        cds_deadline_ms=20_000,
    )
    one.start()
    drugs = [order("w1", "Warfarin Sodium 5 MG Oral Tablet"), order("s1", "Ibuprofen 400 MG")]
    for resource in (PATIENT, *drugs):
        place = f"{one.base}/{resource['resourceType']}/{resource['id']}"
        assert httpx.put(place, json=resource, timeout=30).status_code == 201
    yield one
    one.stop()
    one.clean_up()


def browsed(url: str, folder: Path, done: threading.Event, *more: str) -> None:
    """Open ``url`` until the page has handed in what happened; ``more`` are options."""
    options = (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *("--no-first-run", "--disable-background-networking", f"--user-data-dir={folder}"),
    )
    browser = subprocess.Popen(
        [BROWSER, *options, *more, url],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert done.wait(WAIT_S), "the page did not come to its end"
    finally:
        os.killpg(browser.pid, signal.SIGKILL)  # its own processes, and no others
        browser.wait()


@pytest.mark.skipif(not BROWSER, reason="there is no Chromium on this machine")
def test_a_client_in_a_browser(serving: Serving, pages: Pages, tmp_path: Path) -> None:
    """Discovery, prefetch, patient-view, order-select, order-sign, a reason, a suggestion."""
    config = {
        "cds": serving.site,
        "fhir": serving.base,
        "patient": "p1",
        "draft": DRAFT,
        "iss": SANDBOX,
        "kid": "ec1",
        "jku": f"{SANDBOX}/.well-known/jwks.json",
        "key": {name: EC.as_dict(private=True)[name] for name in ("kty", "crv", "x", "y", "d")},
    }
    page = PAGE.read_text("utf-8").replace("__CONFIG__", json.dumps(config))
    pages.html = page.encode()
    browsed(f"{pages.origin}/", tmp_path / "browser", pages.done)
    said = pages.said

    assert said["errors"] == []
    assert len(said["services"]) == 8
    assert said["fhirVersion"] == "4.0.1"
    assert said["ways"].pop("patient") == "GET"
    assert set(said["ways"].values()) == {"POST"}
    assert ["ibuprofen with warfarin" in card["summary"] for card in said["cards"]["view"]] == [
        True
    ]
    for hook in ("select", "sign"):
        shown = [card["summary"] for card in said["cards"][hook]]
        assert any("naproxen with warfarin" in one for one in shown)
    assert said["feedback"] == [{}, {}]
    assert said["cards"]["after"] == []
    assert said["wrong"] == 401
    report = httpx.get(f"{serving.base}/$cds-report", timeout=30).text
    assert "vka-nsaid" in report
