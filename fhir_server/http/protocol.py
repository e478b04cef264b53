"""HTTP/1.1 as uvicorn reads it, with an end to what is read before a request is there.

https://www.rfc-editor.org/rfc/rfc6585#section-5

The parser collects headers without a limit, one that never ends until there is no memory. What
passes here is judged by the settings, in ``facade.py``.
"""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fhir_server.outcome import Issue, operation_outcome
from fhir_server.r4.json import encode

HEAD_BYTES_MAX = 262_144  # twice what the settings allow of URL and headers, in one read or several


class BoundedProtocol(HttpToolsProtocol):
    """Refuses, with status 431, a request whose head or trailer does not end."""

    _in_head = False
    _is_moving = False
    _waiting_bytes = 0  # that came since the parser last told of something

    def data_received(self, data: bytes) -> None:
        """Read ``data``; end the connection where too much of it tells nothing."""
        self._is_moving = False
        super().data_received(data)
        self._waiting_bytes = 0 if self._is_moving else self._waiting_bytes + len(data)
        if self._waiting_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
            self._refuse()

    def on_message_begin(self) -> None:
        """Note that a head begins."""
        self._in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; one behind the body is none (RFC 9110, 6.5.1) and is left out."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Note that a head has ended."""
        self._in_head, self._is_moving = False, True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Note that there is more of a body."""
        self._is_moving = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that a request has ended."""
        self._is_moving = True
        super().on_message_complete()

    def _refuse(self) -> None:
        if self._in_head and (self.cycle is None or self.cycle.response_complete):
            text = f"The headers are over the limit of {HEAD_BYTES_MAX:,} bytes."
            body = encode(operation_outcome([Issue("too-long", text)]))
            self.transport.write(
                b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
                b"content-type: application/fhir+json;charset=utf-8\r\n"
                b"connection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
            )
        self.transport.close()
