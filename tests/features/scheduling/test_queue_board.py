"""design/scheduling.md, section 7, check Q4: the queue board, a page that is told of changes.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn

from fhir_server.app import Server, opened
from fhir_server.context import Context
from fhir_server.ending import end_of
from fhir_server.features.scheduling import queue_page, queue_watching
from fhir_server.features.scheduling.queue import Expected
from fhir_server.features.scheduling.queue_board import Board, Call, Line, board, fragment, page
from fhir_server.features.scheduling.queue_page import ENDING, BoardPage
from fhir_server.features.scheduling.queue_words import LANGUAGES, language
from fhir_server.http import protocol
from fhir_server.http.protocol import BoundedProtocol
from fhir_server.http.site import Site
from fhir_server.outcome import FhirError, Issue
from fhir_server.settings import Settings
from tests.conftest import Emptied
from tests.features.scheduling.queues import Desk, reference
from tests.features.scheduling.test_queue import NOON, entry

EN, BN = LANGUAGES["en"], LANGUAGES["bn"]


# ------------------------------------------------------------------------------ what is shown

CALLED = entry(14, state="called", counter="3", called=NOON)


def test_a_board_shows_who_is_called_and_who_is_next() -> None:
    """The last call first, marked as long as it is new; then who is next, and how long it takes."""
    old = entry(13, state="called", counter="Room 2", called=NOON - timedelta(minutes=5))
    waiting = [entry(number, minutes=number) for number in (15, 16)]
    shown = board([CALLED, old], waiting, {"s": Expected((300.0,), 1)}, NOON)
    assert shown == Board(
        (Call("CARD-014", "3", is_new=True), Call("CARD-013", "Room 2", is_new=False)),
        ("CARD-015", "CARD-016"),
        (Line("CARD", 2, 10),),
    )
    html = fragment(shown, EN)
    assert '<li class="new"><b>CARD-014</b> <span>Counter 3</span></li>' in html
    assert "<b>CARD-013</b> <span>Room 2</span>" in html
    assert "2 waiting · about 10 min" in html
    assert "\n" not in html


def test_a_board_in_bangla_has_bangla_digits() -> None:
    """Numbers, counters and minutes; the letters stay as they are called out."""
    shown = board([CALLED], [entry(15)], {"s": Expected((600.0,), 1)}, NOON)
    html = fragment(shown, BN)
    assert "CARD-০১৪" in html
    assert "কাউন্টার ৩" in html
    assert "১ জন অপেক্ষায় · আনুমানিক ১০ মিনিট" in html
    assert not set("0123456789") & set(html.replace("h2", ""))


def test_each_service_has_a_line_of_its_own() -> None:
    """Where several services share a board, each says how many wait, by its letters."""
    lab = replace(entry(2), service="lab", token="LAB-002")
    html = fragment(board([], [entry(1), lab], {}, NOON), EN)
    assert "<p><b>CARD</b> 1 waiting</p><p><b>LAB</b> 1 waiting</p>" in html
    assert EN.nobody_called in html


def test_a_line_has_the_letters_of_most_who_wait_there() -> None:
    """Who was sent on from elsewhere comes first, and the queue is still called by its own."""
    sent_on = replace(entry(1), token="TRIA-001")
    [line] = board([], [sent_on, entry(2), entry(3)], {}, NOON).lines
    assert (line.letters, line.waiting) == ("CARD", 3)


def test_what_is_put_into_a_page_is_escaped() -> None:
    """A place may be called what it likes."""
    html = page("<script>", Board((Call("A-1", "<b>", is_new=False),)), EN, '/x?"', "dark")
    assert "<script>" not in html.replace('<script src="/board.js" defer></script>', "")
    assert "&lt;b&gt;" in html
    assert 'data-events="/x?&quot;"' in html
    assert '<html lang="en" data-theme="dark">' in html


@pytest.mark.parametrize(
    ("wanted", "accepted", "lang"),
    [
        ("bn", "en", "bn"),
        ("", "bn-BD,bn;q=0.9,en;q=0.8", "bn"),
        ("xx", "en", "en"),
        ("", "de, fr", "en"),
        ("../", "", "en"),
    ],
)
def test_the_language_is_that_of_the_link_or_of_the_browser(
    wanted: str, accepted: str, lang: str
) -> None:
    """English where there is no other."""
    assert language(wanted, accepted).lang == lang


# ------------------------------------------------------------------------------ the page


@pytest.fixture(scope="module")
async def server(mongodb_uri: str, emptied: Emptied) -> AsyncIterator[Server]:
    """A server for all boards of this file; each test has a place of its own."""
    name = emptied.take()
    settings = Settings.model_validate({"mongodb_database": name})
    async with opened(settings, mongodb_uri) as one:
        task = asyncio.create_task(one.registry.tasks["queue-boards"].run(one.context))
        yield one
        await end_of([task])
    emptied.give_back(name)


@pytest.fixture
def desk(server: Server) -> Desk:
    """The front desk."""
    return Desk(server)


@dataclass
class Listener:
    """A browser: asks for a path of the board, and keeps what it is sent."""

    server: Server
    context: Context | None = None
    status: int = 0
    starts: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    at: list[float] = field(default_factory=list)
    ended: bool = False
    state: dict[str, Any] = field(default_factory=dict)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def get(self, url: str, method: str = "GET", accepts: bytes = b"") -> "Listener":
        """Send one request, and wait for the end of its answer."""
        path, _, query = url.partition("?")
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": [(b"accept-language", accepts)],
            "state": self.state,
            "fhir_server.context": self.context or self.server.context,
        }
        below = path[: path.find("/", 1) + 1]
        routes = self.server.registry.routes
        app = routes.get(path) or routes[below]
        await app(scope, self._receive, self._send)
        return self

    async def _receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, event: dict[str, Any]) -> None:
        if event["type"] == "http.response.start":
            self.status = event["status"]
            self.starts += 1
            self.headers = dict(event["headers"])
            return
        self.body += event["body"]
        self.at.append(time.monotonic())
        self.ended = not event.get("more_body", False)

    @property
    def text(self) -> str:
        """What came, as text."""
        return self.body.decode()

    async def has(self, text: str) -> None:
        """Wait until ``text`` came."""
        async with asyncio.timeout(5):
            while text not in self.text:
                await asyncio.sleep(0.005)


@asynccontextmanager
async def listening(listener: Listener, url: str) -> AsyncIterator[Listener]:
    """Have ``listener`` listen meanwhile."""
    task = asyncio.create_task(listener.get(url))
    try:
        yield listener
    finally:
        listener.gone.set()
        async with asyncio.timeout(5):
            await task


async def test_the_first_view_needs_no_script(server: Server, desk: Desk) -> None:
    """The page has all that there is; nothing is inline; no name but that of the place."""
    place = await desk.place("first", alias=["হৃদরোগ বিভাগ"])
    await desk.put("Patient", "named", name=[{"family": "Rahman"}])
    await desk("$issue-token", place, patient=reference("Patient/named"))
    await desk.take(place)
    await desk.call(place, "2")
    seen = await Listener(server).get("/board/first")
    assert (seen.status, seen.headers[b"content-type"]) == (200, b"text/html; charset=utf-8")
    assert "<h1>Cardiology</h1>" in seen.text
    assert "<b>CARD-001</b> <span>Counter 2</span>" in seen.text
    assert "<li>CARD-002</li>" in seen.text
    assert '<noscript><meta http-equiv="refresh"' in seen.text
    assert "Rahman" not in seen.text
    assert "style=" not in seen.text
    bangla = await Listener(server).get("/board/first", accepts=b"bn-BD")
    assert '<html lang="bn">' in bangla.text
    assert "<h1>হৃদরোগ বিভাগ</h1>" in bangla.text
    assert "CARD-০০১" in bangla.text


@pytest.mark.parametrize(
    ("url", "method", "status"),
    [
        ("/board/none", "GET", 404),
        ("/board/", "GET", 404),
        ("/board/a%2f..", "GET", 404),
        ("/board/there/else", "GET", 404),
        ("/board/there", "POST", 405),
        ("/board/there", "HEAD", 200),
        ("/board/there?lang=%ff&theme=<x>&key=%C3%A4", "GET", 200),
        ("/board/there?" + "x" * 2000, "GET", 200),
        ("/board/there/events", "HEAD", 200),
        ("/board.css", "GET", 200),
        ("/board.js", "GET", 200),
    ],
)
async def test_what_is_asked_for_oddly(
    server: Server, desk: Desk, url: str, method: str, status: int
) -> None:
    """Each path has one answer, and HEAD no body."""
    await desk.place("there")
    seen = await Listener(server).get(url, method)
    assert seen.status == status
    assert seen.ended
    assert bool(seen.body) == (method == "GET")


async def test_a_hundred_boards_are_told_within_a_second(server: Server, desk: Desk) -> None:
    """Q4: 100 boards see a change within 1 s, by one look at the database for all of them."""
    place = await desk.place("hundred")
    await desk.take(place)
    boards = [Listener(server) for _ in range(100)]
    watched = _boards(server)
    asking = [asyncio.create_task(one.get("/board/hundred/events?lang=bn")) for one in boards]
    for one in boards:
        await one.has("CARD-০০১")
    looks, began = watched.looks, time.monotonic()
    await desk.call(place, "5")
    called = time.monotonic()
    for one in boards:
        await one.has("কাউন্টার ৫")
    slowest = max(one.at[-1] for one in boards) - called
    assert slowest < 1.0, slowest
    assert watched.looks - looks <= (time.monotonic() - began) / queue_watching.LOOK_EVERY_S + 2
    assert {one.text.count("event: board") for one in boards} == {2}
    assert boards[0].headers[b"content-type"].startswith(b"text/event-stream")
    for one in boards:
        one.gone.set()
    async with asyncio.timeout(5):
        await asyncio.gather(*asking)
    assert watched.listeners == 0
    looks = watched.looks
    await asyncio.sleep(2 * queue_watching.LOOK_EVERY_S)
    assert watched.looks <= looks + 1, "nobody listens, and it looks all the same"


def _boards(server: Server) -> queue_watching.Boards:
    page = server.registry.routes["/board/"]
    assert isinstance(page, BoardPage)
    return page._boards


async def test_a_board_is_told_that_it_lives(
    server: Server, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A comment now and then keeps the connection; no change is told twice."""
    monkeypatch.setattr(queue_page, "HEARTBEAT_S", 0.05)
    await desk.place("quiet")
    async with listening(Listener(server), "/board/quiet/events") as seen:
        await seen.has("\n\n:\n\n:\n\n")
        assert seen.text.count("event: board") == 1


async def test_more_boards_than_the_setting_says_are_refused(server: Server, desk: Desk) -> None:
    """Each board holds a connection; whoever comes too much is told when to ask again."""
    await desk.place("full")
    settings = server.context.settings.model_copy(update={"queue_listeners_max": 1})
    few = replace(server.context, settings=settings)
    async with listening(Listener(server, few), "/board/full/events") as seen:
        await seen.has("event: board")
        refused = await Listener(server, few).get("/board/full/events")
        assert (refused.status, refused.headers[b"retry-after"]) == (503, b"30")
    again = Listener(server, few)
    async with listening(again, "/board/full/events"):
        await again.has("event: board")


async def test_events_end_when_the_server_stops(server: Server, desk: Desk) -> None:
    """An answer without an end has one then: the browser asks the next server."""
    assert ENDING == protocol.ENDING
    await desk.place("stops")
    async with listening(Listener(server), "/board/stops/events") as seen:
        await seen.has("event: board")
        seen.state[ENDING].set()
        async with asyncio.timeout(5):
            while not seen.ended:
                await asyncio.sleep(0.005)


async def test_a_server_stops_though_boards_are_open(server: Server, desk: Desk) -> None:
    """Over a socket: the headers of every page, events as they come, and an end to them."""
    await desk.place("socket")
    routes = server.registry.routes, server.context
    facade: Any = SimpleNamespace(new_id=server.context.new_id, identify=None)
    site = Site(facade, facade, lambda: routes, (), frozenset((b"127.0.0.1",)), is_tls_only=True)
    with socket.create_server(("127.0.0.1", 0)) as listening_on:
        config = uvicorn.Config(site, http=BoundedProtocol, lifespan="off", log_level="critical")
        running = uvicorn.Server(config)
        task = asyncio.create_task(running.serve(sockets=[listening_on]))
        reader, writer = await asyncio.open_connection(*listening_on.getsockname())
        writer.write(
            b"GET /board/socket/events HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Request-Id: 1\r\n\r\n"
        )
        async with asyncio.timeout(10):
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"content-security-policy: default-src 'self'" in head
            assert b"cache-control: no-store" in head
            await reader.readuntil(b"event: board\ndata: <section")
            running.should_exit = True
            await task
            assert (await reader.read()).endswith(b"0\r\n\r\n")
        writer.close()


async def test_in_production_a_board_needs_its_link(
    server: Server, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deny by default: not without the key, not with that of another place, not with an old one;
    and who listens by a link that was made void is sent away."""
    place, other = await desk.place("locked"), await desk.place("other-locked")
    settings = server.context.settings.model_copy(update={"mode": "production"})
    strict = replace(server.context, settings=settings)

    async def status(url: str) -> int:
        return (await Listener(server, strict).get(url)).status

    url = (await desk("$board-link", place, lang={"valueCode": "bn"}))["url"]
    path = "/board/" + url.partition("/board/")[2]
    key = path.partition("?")[2]
    assert await status("/board/locked") == 403
    assert await status("/board/none") == 403  # nor is it said what there is
    assert await status("/board/locked/events") == 403
    assert await status(f"/board/other-locked?{key}") == 403
    seen = await Listener(server, strict).get(path)
    assert (seen.status, '<html lang="bn">' in seen.text) == (200, True)
    assert key.partition("&")[0] in seen.text  # what listens has the key as well
    assert (await desk("$board-link", place))["url"] in url

    monkeypatch.setattr(queue_page, "HEARTBEAT_S", 0.05)
    events = f"/board/locked/events?{key}"
    async with listening(Listener(server, strict), events) as listener:
        await listener.has("event: board")
        renewed = await desk("$board-link", place, renew={"valueBoolean": True})
        async with asyncio.timeout(5):
            while not listener.ended:
                await asyncio.sleep(0.005)
    assert await status(path) == 403
    assert await status("/board/" + renewed["url"].partition("/board/")[2]) == 200
    assert (await desk("$board-link", other, lang={"valueCode": "xx"})).status == 400
    open_to_all = settings.model_copy(update={"queue_boards_open": True})
    seen = await Listener(server, replace(strict, settings=open_to_all)).get("/board/locked")
    assert seen.status == 200


async def test_a_link_that_is_void_ends_a_busy_board_too(
    server: Server, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is news all the time as well, and not only where a board is quiet."""
    place = await desk.place("busy")
    settings = server.context.settings.model_copy(update={"mode": "production"})
    strict = replace(server.context, settings=settings)
    url = (await desk("$board-link", place))["url"]
    events = "/board/busy/events?" + url.partition("?")[2]
    monkeypatch.setattr(queue_page, "HEARTBEAT_S", 0.3)
    async with listening(Listener(server, strict), events) as seen:
        await seen.has("event: board")
        await desk("$board-link", place, renew={"valueBoolean": True})
        watch = _boards(server)._watched["busy"]
        async with asyncio.timeout(5):
            while not seen.ended:
                watch.changed.set()
                watch.changed = asyncio.Event()
                await asyncio.sleep(0.02)


async def test_events_end_where_nobody_knows_whether_they_may_go_on(
    server: Server, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the database the answer that has begun ends; one that has not is 503."""
    await desk.place("away")

    async def away(*_: Any) -> bool:
        raise FhirError(Issue("transient", "The database is away."))

    monkeypatch.setattr(queue_page, "HEARTBEAT_S", 0.05)
    async with listening(Listener(server), "/board/away/events") as seen:
        await seen.has("event: board")
        monkeypatch.setattr(queue_page._Call, "is_admitted", away)
        async with asyncio.timeout(5):
            while not seen.ended:
                await asyncio.sleep(0.005)
    assert seen.starts == 1
    assert (await Listener(server).get("/board/away")).status == 503


async def test_a_board_says_when_it_is_not_up_to_date(
    server: Server, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number that is over must not stay on the wall as if it were called now."""
    await desk.place("stale")
    monkeypatch.setattr(queue_watching, "_STALE_AFTER_S", 0.0)

    async def lost(*_: Any) -> Board:
        raise OSError

    async with listening(Listener(server), "/board/stale/events") as seen:
        await seen.has("event: board")
        watched = _boards(server)
        monkeypatch.setattr(watched, "_look", lost, raising=False)
        await seen.has(EN.lost)
        monkeypatch.undo()
        async with asyncio.timeout(5):
            while EN.lost in seen.text.rpartition("event: board")[2]:
                await asyncio.sleep(0.005)


def test_the_clock_of_a_call() -> None:
    """What was called half a minute ago is not marked any more."""
    later = NOON + timedelta(seconds=31)
    assert not board([CALLED], [], {}, later).called[0].is_new
