"""https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html, with a client library that others
have written: npm fhirclient in headless Chromium, against a server that serves.

The library is fetched by npm into a folder of the test; without npm, Chromium or its registry the
test is skipped and says so.
"""

import json
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conformance.smart.chromium import FOUND, Chromium
from tests.faults.serving import Serving, command

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LIBRARY = "fhirclient@2.6.3"
NPM = shutil.which("npm") or ""
PAGE = Path(__file__).with_name("app.html")
SCOPE = "openid fhirUser launch/patient patient/*.rs online_access"
LAUNCH_SCOPE = "openid fhirUser launch patient/*.rs online_access"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The library as a browser loads it."""
    if not FOUND:
        pytest.skip("there is no Chromium on this machine")
    if not NPM:
        pytest.skip("there is no npm on this machine")
    folder = tmp_path_factory.mktemp("npm")
    packed = subprocess.run(
        [NPM, "pack", "--silent", LIBRARY],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    archives = list(folder.glob("*.tgz"))
    if packed.returncode or not archives:
        pytest.skip(f"npm does not hand out {LIBRARY}: {packed.stderr[-200:]}")
    with tarfile.open(archives[0]) as archive:
        found = archive.extractfile("package/build/fhir-client.min.js")
        assert found is not None
        return found.read()


class App:
    """The site of the app, which hands in what the library could do."""

    def __init__(self, library: bytes) -> None:
        """Listen on a free port of this machine."""
        self.html = b""
        self.said: list[dict[str, Any]] = []
        app = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.startswith("/fhir-client.js"):
                    self._answer(library, "text/javascript")
                else:
                    self._answer(app.html, "text/html; charset=utf-8")

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                app.said.append(json.loads(body))
                self._answer(b"{}", "application/json")

            def _answer(self, body: bytes, kind: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
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


@pytest.fixture(scope="module")
def app(library: bytes) -> Iterator[App]:
    """The app's site."""
    made = App(library)
    yield made
    made.close()


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory, app: App) -> Iterator[Serving]:
    """A server with two patients, where apps may register themselves, and this one has."""
    one = Serving(
        tmp_path_factory.mktemp("serving"),
        cors_origins=app.origin,
        client_registration="true",
    )
    one.start()
    for id in "ab":
        patient = {"resourceType": "Patient", "id": id, "name": [{"text": f"Patient {id.upper()}"}]}
        observation = {
            "resourceType": "Observation",
            "id": f"o{id}",
            "status": "final",
            "code": {"text": "weight"},
            "subject": {"reference": f"Patient/{id}"},
        }
        for resource in (patient, observation):
            place = f"{one.base}/{resource['resourceType']}/{resource['id']}"
            assert httpx.put(place, json=resource, timeout=30).status_code == 201
    asked = {
        "client_name": "An app",
        "redirect_uris": [f"{app.origin}/"],
        "initiate_login_uri": f"{app.origin}/",
        "token_endpoint_auth_method": "none",
        "scope": f"{SCOPE} launch",
    }
    registered = httpx.post(f"{one.site}/auth/register", json=asked, timeout=30)
    assert registered.status_code == 201, registered.text
    config = {
        "client": registered.json()["client_id"],
        "base": one.base,
        "back": f"{app.origin}/",
        "scope": SCOPE,
        "launchScope": LAUNCH_SCOPE,
        "other": "b",
        "hidden": "Observation/ob",
    }
    app.html = PAGE.read_text("utf-8").replace("__CONFIG__", json.dumps(config)).encode()
    yield one
    one.stop()
    one.clean_up()


@pytest.fixture(scope="module")
def password(serving: Serving) -> str:
    """The password of the user who is patient a, as the command prints it."""
    arguments = ("--role", "patient", "--patient", "a", "--fhir-user", "Patient/a")
    folder = serving.data.parent
    added = command(
        *("user", "add", "anna", *arguments, "--display", "Anna A", "--data", str(serving.data)),
        folder=folder,
    )
    assert added.returncode == 0, added.stderr
    return added.stdout.partition("password: ")[2].strip()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chromium]:
    """A browser of its own."""
    one = Chromium(tmp_path / "browser")
    yield one
    one.close()


def _sign_in(browser: Chromium, password: str) -> None:
    browser.waits_for("Sign in")
    browser.types("name", "anna")
    browser.types("password", password)
    browser.presses("Sign in")


def _check_read(said: dict[str, Any]) -> None:
    assert "error" not in said, said
    assert said["patient"] == "a"
    assert said["user"].endswith("Patient/a")
    assert said["own"] == {"type": "Patient", "id": "a", "about": []}
    assert said["other"] == {"status": 404}
    assert said["hidden"] == {"status": 404}
    assert said["observations"]["about"] == ["Patient/a"]
    assert said["observations"]["total"] == 1
    assert said["others"].get("about", []) == []
    assert said["refreshed"]


def test_a_standalone_launch(app: App, serving: Serving, password: str, browser: Chromium) -> None:
    """The app begins, its user signs in and agrees, and it reads that patient and nobody else."""
    app.said.clear()
    browser.opens(f"{app.origin}/")
    _sign_in(browser, password)
    browser.waits_for("An app asks for access")
    assert browser.value("getComputedStyle(document.querySelector('main')).maxWidth") != "none"
    browser.presses("Allow")
    browser.waits_for("The app is done")
    [said] = app.said
    assert set(said["scope"].split()) == set(SCOPE.split())
    _check_read(said)


def test_an_app_is_opened_here(
    app: App, serving: Serving, password: str, browser: Chromium
) -> None:
    """The user signs in here and opens the app with a patient (EHR launch)."""
    app.said.clear()
    browser.opens(f"{serving.site}/auth/console")
    _sign_in(browser, password)
    browser.waits_for("Open an app with a patient")
    browser.presses("An app")
    browser.waits_for("With which patient?")
    browser.presses("Patient A")
    browser.waits_for("An app asks for access")
    browser.presses("Allow")
    browser.waits_for("The app is done")
    [said] = app.said
    _check_read(said)


def test_a_user_does_not_agree(
    app: App, serving: Serving, password: str, browser: Chromium
) -> None:
    """Without consent the app gets nothing, and is told so."""
    app.said.clear()
    browser.opens(f"{app.origin}/")
    _sign_in(browser, password)
    browser.waits_for("An app asks for access")
    browser.presses("Do not allow")
    browser.waits_for("The app failed")
    assert "agree" in app.said[0]["error"]
