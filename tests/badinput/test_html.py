"""A13 and ../shared/data/badinput/html: markup in every string runs nothing in a real browser.

What this server answers is recorded and replayed to a headless Chromium, header by header. Whatever
else the browser asks for, a script or a picture has asked for.
"""

import json
import re
import threading
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from fhir_server.http.pages import docs_page, start_page
from fhir_server.http.protection import ALWAYS, PAGE_POLICY
from fhir_server.http.site import Site
from fhir_server.settings import Settings
from tests.badinput.conftest import JSON, Cases
from tests.conformance.cds_hooks.test_browser import BROWSER, browsed
from tests.http.conftest import exchange

OWN = (
    "<script>fetch('/own')</script>",
    "<img src=x onerror=fetch('/own')>",
    "<svg xmlns='http://www.w3.org/2000/svg' onload=\"fetch('/own')\"/>",
    "\"><script>fetch('/own')</script>",
    "'><svg/onload=fetch('/own')>",
    "</title></style></textarea><script>fetch('/own')</script>",
    "<x:script xmlns:x='http://www.w3.org/1999/xhtml'>fetch('/own')</x:script>",
    "]]><script xmlns='http://www.w3.org/1999/xhtml'>fetch('/own')</script>",
)
TYPES = ("text/html", "image/svg+xml", "application/xhtml+xml", "text/xml", "text/plain")
CONTROL = "control"
NAVIGATING = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
_EXPECTED = ("/", "/done", "/favicon.ico", "/style.css")


class Replay:
    """A site that gives recorded answers, and keeps what else is asked for."""

    def __init__(self) -> None:
        """Listen on a free port of this machine."""
        self.answers: dict[str, httpx.Response] = {}
        self.strange: list[str] = []
        self.opened: set[str] = set()
        self.done = threading.Event()
        replay = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                replay.answer(self)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                replay.answer(self)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Give a recorded answer, the page that opens all of them, or nothing."""
        found = self.answers.get(handler.path)
        if handler.path == "/done":
            self.done.set()
        elif handler.path not in _EXPECTED and found is None:
            self.strange.append(handler.path)
        if handler.path == "/":
            found = httpx.Response(200, headers={"content-type": "text/html"}, text=self._opening())
        self.opened.add(handler.path)
        found = found or httpx.Response(404)
        handler.send_response(found.status_code)
        for name, value in found.headers.items():
            if name not in ("content-length", "content-encoding"):
                handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(found.content)))
        handler.end_headers()
        handler.wfile.write(found.content)

    def _opening(self) -> str:
        places = json.dumps(list(self.answers))
        return (
            f"<script>const rest={places};function next(){{const one=rest.shift();"
            "if(!one){setTimeout(()=>fetch('/done',{method:'POST'}),2000);return}"
            "const seen=open(one);setTimeout(()=>{try{seen.close()}catch{};next()},150)}next()"
            "</script>"
        )

    def close(self) -> None:
        """End."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def replay() -> Iterator[Replay]:
    """A site for the browser."""
    made = Replay()
    yield made
    made.close()


def attacks(cases: Cases) -> list[str]:
    """Return markup that asks this site for something when it runs: not a dialog, which a headless
    browser closes unseen."""
    given = cases("html/scripts.b64", "html/polyglots.b64")
    texts = [text.decode("utf-8", "replace") for _, text in given]
    return [*OWN, *(re.sub("alert|prompt|confirm", "fetch", text) for text in texts)]


async def recorded(site: Site, texts: list[str]) -> dict[str, httpx.Response]:
    """Return the answers that a browser is to be shown, with ``texts`` in all of their strings."""
    found: dict[str, httpx.Response] = {}
    plain = ["".join(one for one in text if one.isprintable()) or "x" for text in texts]
    patient = {
        "resourceType": "Patient",
        "id": "html",
        "name": [{"family": text, "given": [text], "text": text} for text in plain],
        "address": [{"line": [text]} for text in plain],
        "photo": [{"contentType": "text/html", "title": text} for text in plain],
    }
    answer = await exchange(site, "PUT", "Patient/html", JSON, json.dumps(patient).encode())
    assert answer.status_code == 201, answer.text
    everything = "\n".join(texts).encode()
    for at, type in enumerate(TYPES):
        binary = {"resourceType": "Binary", "id": f"html{at}", "contentType": type}
        binary["data"] = b64encode(everything).decode()
        body = json.dumps(binary).encode()
        assert (await exchange(site, "PUT", f"Binary/html{at}", JSON, body)).status_code == 201
    targets = [f"Binary/html{at}" for at in range(len(TYPES))]
    for format in ("xml", "json", "html"):
        targets += [f"Patient/html?_format={format}", f"Patient?_id=html&_format={format}"]
        targets.append(f"Binary/html0?_format={format}")
    quoted = [str(httpx.QueryParams({text: text})) for text in plain[:12]]
    targets += [f"Patient?{text}&_format=xml" for text in quoted]
    name, _, value = NAVIGATING.partition(": ")
    for target in targets:
        answer = await exchange(site, "GET", target, {name: value})
        assert answer.status_code < 500
        found[f"/doc/d{len(found)}x"] = answer
    for text in plain[:8]:
        settings = Settings.model_validate({"base_url": f"https://a.example/{text}"})
        for page in (
            start_page(settings, settings.base_url),
            docs_page(settings.mode, settings.base_url),
        ):
            headers = [*ALWAYS, PAGE_POLICY, (b"content-type", b"text/html; charset=utf-8")]
            found[f"/doc/d{len(found)}x"] = httpx.Response(200, headers=headers, text=page)
    return found


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.skipif(not BROWSER, reason="there is no Chromium on this machine")
async def test_a13_nothing_runs(site: Site, cases: Cases, replay: Replay, tmp_path: Path) -> None:
    """FHIR answers, errors, files and pages; the same file without its headers does run."""
    replay.answers = await recorded(site, attacks(cases))
    control = f"<!doctype html><p>{CONTROL}<script>fetch('/{CONTROL}')</script>"
    bare = httpx.Response(200, headers={"content-type": "text/html"}, text=control)
    replay.answers["/doc/bare"] = bare

    browsed(f"{replay.origin}/", tmp_path / "browser", replay.done, "--disable-popup-blocking")

    assert set(replay.answers) <= replay.opened
    assert f"/{CONTROL}" in replay.strange, "the browser ran nothing at all"
    assert set(replay.strange) == {f"/{CONTROL}"}


@pytest.mark.parametrize("attack", range(len(OWN)))
async def test_a13_narrative_that_runs_is_refused(site: Site, attack: int) -> None:
    """Scripts and events in a narrative: 422, or 400 where it is no XHTML."""
    div = f'<div xmlns="http://www.w3.org/1999/xhtml">{OWN[attack]}</div>'
    patient = {"resourceType": "Patient", "text": {"status": "generated", "div": div}}
    answer = await exchange(site, "POST", "Patient", JSON, json.dumps(patient).encode())
    assert answer.status_code in (400, 422), answer.text
