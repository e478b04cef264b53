"""HTTP/1.1 as uvicorn reads it, with an end to what is read before a request is there.

https://www.rfc-editor.org/rfc/rfc6585#section-5

The parser collects headers without a limit, one that never ends until there is no memory. What
passes here is judged by the settings, in ``facade.py``. Nor is there an end to how long it waits
for them.

And it takes what comes behind a head with Upgrade for another protocol. Java's own client offers
HTTP/2 so with every request: the body of its writes would be lost.
"""

import asyncio
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fhir_server.http.protection import ALWAYS
from fhir_server.outcome import Issue, operation_outcome
from fhir_server.r4.json import encode

ENDING = "fhir_server.ending"
"""Where in the state of a request an answer without an end has the event that ends it."""
_CONNECT = b"CONNECT"  # asks for a tunnel; uvicorn refuses it
HEAD_TIMEOUT_S = 60.0  # for a whole head, as for a body
HEAD_BYTES_MAX = 262_144  # twice what the settings allow of URL and headers, in one read or several


class BoundedProtocol(HttpToolsProtocol):
    """Refuses, with status 431, a request whose head or trailer does not end; an Upgrade is not
    heard."""

    _in_head = False
    head_is_offer = False
    _is_moving = False
    _is_retiring = False
    _waiting_bytes = 0  # that came since the parser last told of something
    _head_timer: asyncio.TimerHandle | None = None

    def __init__(self, *arguments: Any, **named: Any) -> None:
        """Take what uvicorn gives."""
        super().__init__(*arguments, **named)
        self.parser = cast(httptools.HttpRequestParser, _Parser(self))

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a first request."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        self._head_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read ``data``; end the connection where too much of it tells nothing."""
        self._is_moving = False
        super().data_received(data)
        if self._in_head or self._is_idle():
            self._await_head()
        self._waiting_bytes = 0 if self._is_moving else self._waiting_bytes + len(data)
        if self._waiting_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
            self._refuse()

    def shutdown(self) -> None:
        """End an answer that has no end of its own, such as events: uvicorn waits for it."""
        self._end_events()
        super().shutdown()

    def retire(self, idle_s: float) -> None:
        """Close this connection with the next answer, or when nothing was asked for ``idle_s``.

        Closed at once, it would cut a request that is on its way here.
        """
        self._is_retiring = True
        self._end_events()
        if self._is_idle():
            self.loop.call_later(idle_s, self._close_idle)
        elif not self.cycle.response_started:
            self.cycle.keep_alive = False

    def _end_events(self) -> None:
        ending = self.scope.get("state", {}).get(ENDING) if self.scope else None
        if ending is not None:
            ending.set()

    def _close_idle(self) -> None:
        if self._is_idle() and not self._in_head and not self.transport.is_closing():
            self.transport.close()

    def on_message_begin(self) -> None:
        """Note that a head begins."""
        self._in_head, self.head_is_offer = True, False
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; one behind the body is none (RFC 9110, 6.5.1) and is left out."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Note that a head has ended; one with an Upgrade comes again without it."""
        self._in_head, self._is_moving = False, True
        self._head_came()
        self.head_is_offer = self.parser.should_upgrade() and self.parser.get_method() != _CONNECT
        if not self.head_is_offer:
            super().on_headers_complete()
            if self._is_retiring and self.cycle is not None:
                self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Note that there is more of a body."""
        self._is_moving = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that a request has ended."""
        self._is_moving = True
        if not self.head_is_offer:
            super().on_message_complete()

    def head_without_upgrade(self) -> bytes:
        """Return the head that was read last, without the header that offers another protocol."""
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (method, self.url, version)]
        lines += [b"%b: %b" % one for one in self.headers if one[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def _await_head(self) -> None:
        """End the connection in a while, unless a head is complete by then; uvicorn itself ends
        those only that are silent after an answer."""
        if self._head_timer is None and not self.transport.is_closing():
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._head_is_late)

    def _head_came(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._is_idle():
            self.transport.close()
        else:  # the answer to an earlier request is under way
            self._await_head()

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _refuse(self) -> None:
        if self._in_head and self._is_idle():
            text = f"The headers are over the limit of {HEAD_BYTES_MAX:,} bytes."
            self._say(b"431 Request Header Fields Too Large", Issue("too-long", text))
        self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, and end the connection."""
        self._say(b"400 Bad Request", Issue("structure", msg))
        self.transport.close()

    def _say(self, status: bytes, issue: Issue) -> None:
        body = encode(operation_outcome([issue]))
        always = b"".join(b"%b: %b\r\n" % one for one in ALWAYS)
        self.transport.write(
            b"HTTP/1.1 %b\r\n%bcontent-type: application/fhir+json;charset=utf-8\r\n"
            b"connection: close\r\ncontent-length: %d\r\n\r\n%b" % (status, always, len(body), body)
        )


class _Parser:
    """The parser of httptools, which goes on with HTTP/1.1 where another protocol is offered.

    RFC 9110, 7.8: "A server MAY ignore a received Upgrade header field".
    """

    def __init__(self, protocol: BoundedProtocol) -> None:
        self._protocol = protocol
        self._parser = _parser(protocol)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)

    def feed_data(self, data: bytes) -> None:
        rest = memoryview(data)
        while True:
            try:
                self._parser.feed_data(rest)
                return
            except httptools.HttpParserUpgrade as offered:
                if not self._protocol.head_is_offer:
                    raise
                rest = rest[offered.args[0] :]
                head = self._protocol.head_without_upgrade()
                self._parser = _parser(self._protocol)
                self._parser.feed_data(head)


def _parser(protocol: BoundedProtocol) -> httptools.HttpRequestParser:
    parser = httptools.HttpRequestParser(protocol)
    # As uvicorn does: a request behind one that ends the connection must not fail the first.
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser
