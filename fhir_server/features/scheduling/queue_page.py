"""``/board/[location]``: the queue board, a page and its events, as a plain ASGI application.

design/scheduling.md, section 7. In development boards are open, as everything is; in production a
board is shown to whoever has its link, which ``$board-link`` makes. The link says nothing but
which board it is for; it is void when another is made with ``renew``.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
import hmac
import logging
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode

import re2 as re

from fhir_server.asgi import HTML, query_of, sent
from fhir_server.context import Context
from fhir_server.features.scheduling.queue_board import (
    CSS_PATH,
    SCRIPT,
    SCRIPT_PATH,
    STYLE,
    THEMES,
    event,
    notice,
    page,
    title_of,
)
from fhir_server.features.scheduling.queue_watching import Boards, Watch
from fhir_server.features.scheduling.queue_words import Words, language
from fhir_server.outcome import FhirError
from fhir_server.r4.json import decode_stored
from fhir_server.security.principal import NOBODY

PATH = "/board/"
_LOG = logging.getLogger("fhir_server.queue")
_LOCATION = re.compile(r"[A-Za-z0-9\-.]{1,64}")
HEARTBEAT_S = 15.0
_PATIENCE_S = 20.0  # a board that takes nothing for so long is gone
_RETRY_MS = 3000
_EVENTS = "text/event-stream; charset=utf-8"
_FILES: Mapping[str, tuple[str, bytes]] = {
    CSS_PATH: ("text/css; charset=utf-8", STYLE.encode()),
    SCRIPT_PATH: ("text/javascript; charset=utf-8", SCRIPT.encode()),
}
ENDING = "fhir_server.ending"
"""Where in the state of a connection an answer without an end has the event that ends it, when
the server stops; see ``http/protocol.py``."""


def board_key(key: bytes, location: str, edition: int) -> str:
    """Return what the link of a board has as its key. ``edition`` counts the links that were
    made void."""
    said = hmac.digest(key, f"queue-board|{location}|{edition}".encode(), sha256)
    return urlsafe_b64encode(said[:18]).decode()


def edition_name(location: str) -> str:
    """Return the counter of the editions of a board's link."""
    return f"board|{location}"


@dataclass(frozen=True, slots=True)
class _Call:
    """One request for a board."""

    scope: Any
    context: Context
    location: str
    query: Mapping[str, str]
    words: Words

    async def is_admitted(self) -> bool:
        """Whether the board is shown to who asks."""
        settings = self.context.settings
        if settings.mode == "development" or settings.queue_boards_open:
            return True
        given = self.query.get("key", "")
        if not given.isascii():
            return False
        edition = await self.context.store.queues.edition(edition_name(self.location))
        return hmac.compare_digest(given, board_key(self.context.page_key, self.location, edition))

    def events(self) -> str:
        """Return where the page hears of changes."""
        kept = {"lang": self.words.lang}
        if key := self.query.get("key"):
            kept["key"] = key
        return f"{PATH}{self.location}/events?{urlencode(kept)}"


class BoardPage:
    """Answers what is below ``/board/``, and the two files of its pages."""

    def __init__(self, boards: Boards) -> None:
        """Show what ``boards`` look at."""
        self._boards = boards

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one HTTP request; whatever happens, there is an answer."""
        context: Context = scope["fhir_server.context"]
        words = language("", "")
        try:
            if scope["method"] not in ("GET", "HEAD"):
                await sent(scope, send, 405, HTML, b"", (b"allow", b"GET, HEAD"))
                return
            if (file := _FILES.get(scope["path"])) is not None:
                await sent(scope, send, 200, *file, (b"cache-control", b"no-cache"))
                return
            location, _, rest = scope["path"][len(PATH) :].partition("/")
            query = query_of(scope)
            headers = dict(scope["headers"])
            accepted = headers.get(b"accept-language", b"").decode("latin-1")
            words = language(query.get("lang", ""), accepted)
            address = str((scope.get("client") or ("",))[0])
            context.rates.admit(NOBODY, address, time.monotonic())
            call = _Call(scope, context, location, query, words)
            await self._answer(call, rest, receive, send)
        except FhirError as error:  # no database, too many boards, or asked for too often
            body = notice(words.lost, words).encode()
            more = [(name.lower().encode(), value.encode()) for name, value in error.headers]
            await sent(scope, send, error.status, HTML, body, *more)

    async def _answer(self, call: _Call, rest: str, receive: Any, send: Any) -> None:
        words = call.words
        is_known = bool(_LOCATION.fullmatch(call.location)) and rest in ("", "events")
        if is_known and not await call.is_admitted():
            await sent(call.scope, send, 403, HTML, notice(words.refused, words).encode())
            return
        # Whoever has the link sees what the place is called; nobody has signed in for it.
        found = await call.context.store.read("Location", call.location) if is_known else None
        if found is None or found.deleted:
            await sent(call.scope, send, 404, HTML, notice(words.unknown, words).encode())
        elif rest and call.scope["method"] == "HEAD":
            await sent(call.scope, send, 200, _EVENTS, b"")
        elif rest:
            await self._events(call, receive, send)
        else:
            content = await self._boards.current(call.location, call.context)
            title = title_of(decode_stored(found.json), words)
            theme = call.query.get("theme", "")
            said = page(title, content, words, call.events(), theme if theme in THEMES else "")
            await sent(call.scope, send, 200, HTML, said.encode())

    async def _events(self, call: _Call, receive: Any, send: Any) -> None:
        """Tell of each change until somebody goes: the board, the link, or the server."""
        most = call.context.settings.queue_listeners_max
        with self._boards.listening(call.location, most) as watch:
            watch.show(await self._boards.current(call.location, call.context))
            headers = [
                (b"content-type", _EVENTS.encode()),
                (b"x-accel-buffering", b"no"),  # nginx would keep events back
            ]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            state = call.scope.setdefault("state", {})
            ending: asyncio.Event = state.setdefault(ENDING, asyncio.Event())
            gone = asyncio.ensure_future(_gone(receive))
            ends = asyncio.ensure_future(ending.wait())
            try:
                with suppress(FhirError):  # the database is not there; the board asks again
                    await _told(call, watch, send, (gone, ends))
                if not gone.done():
                    await send({"type": "http.response.body", "body": b""})
            except (TimeoutError, OSError):
                _LOG.debug('"a queue board takes nothing"')  # as one that was switched off
            finally:
                gone.cancel()
                ends.cancel()


async def _told(
    call: _Call, watch: Watch, send: Any, ends: tuple[asyncio.Future[Any], ...]
) -> None:
    """Send what ``watch`` shows, and each change of it, until one of ``ends`` is done."""
    await _piece(send, f"retry: {_RETRY_MS}\n\n".encode())
    last, admitted = "", time.monotonic()
    while not any(one.done() for one in ends):
        if time.monotonic() - admitted >= HEARTBEAT_S:  # also where there is news all the time
            if not await call.is_admitted():
                return
            admitted = time.monotonic()
        changed = asyncio.ensure_future(watch.changed.wait())
        if (said := watch.fragment(call.words)) != last:
            changed.cancel()
            last = said
            await _piece(send, event(said))
            continue
        done, _ = await asyncio.wait(
            (changed, *ends), timeout=HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED
        )
        changed.cancel()
        if not done:
            await _piece(send, b":\n\n")


async def _piece(send: Any, data: bytes) -> None:
    async with asyncio.timeout(_PATIENCE_S):
        await send({"type": "http.response.body", "body": data, "more_body": True})


async def _gone(receive: Any) -> None:
    """Wait until the board has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass
