"""A sender: one message after the other to a listener, and what it answers.

For ``fhir-server hl7 send``, tests and benchmarks. Sockets that block: nothing else runs beside it.
"""

import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from socket import create_connection, socket
from urllib.parse import urlsplit

import httpx

from adapters.hl7v2.ack import answered, asked, header_of
from adapters.hl7v2.frame import Framer, framed
from adapters.hl7v2.message import Splitter

_TIMEOUT_S = 60.0
_READ_BYTES = 65_536
_PIECE_BYTES = 1_048_576


class TransportError(Exception):
    """The listener cannot be reached, or ended without an answer."""


def messages_of(file: Path) -> Iterator[bytes]:
    """Yield the messages in ``file``, which may be a batch; ``-`` is standard input."""
    splitter = Splitter()
    with (Path("/dev/stdin") if str(file) == "-" else file).open("rb") as opened:
        while piece := opened.read(_PIECE_BYTES):
            # Latin-1 keeps every byte: the splitter looks at line ends and three letters only.
            for name, text in splitter.feed(piece.decode("latin-1")):
                if name == "MSH":
                    yield text.encode("latin-1")
    for name, text in splitter.end():
        if name == "MSH":
            yield text.encode("latin-1")


class Sender:
    """Sends to ``to``: mllp, mllps, http or https. ``certificate`` and ``authority`` are PEM;
    ``token`` is sent by HTTP alone."""

    def __init__(
        self,
        to: str,
        certificate: Path | None = None,
        authority: Path | None = None,
        charset: str = "",
        token: str = "",
    ) -> None:
        """Prepare; nothing is sent yet. Raises ``ValueError`` for another address."""
        self._to = urlsplit(to)
        if self._to.scheme not in ("mllp", "mllps", "http", "https") or not self._to.hostname:
            raise ValueError("Send to mllp://host:port, mllps://host:port or https://host/hl7v2.")
        self._charset = charset
        self._token = token
        self._tls: ssl.SSLContext | None = None
        if self._to.scheme in ("mllps", "https"):
            self._tls = ssl.create_default_context(cafile=str(authority) if authority else None)
            if certificate is not None:
                self._tls.load_cert_chain(certificate)
        self._socket: socket | None = None
        self._framer = Framer()
        self._client: httpx.Client | None = None

    def send(self, message: bytes) -> list[bytes]:
        """Send ``message``; return its acknowledgements. Raises :class:`TransportError`."""
        try:
            if self._to.scheme.startswith("http"):
                return self._by_http(message)
            return self._by_mllp(message)
        except (OSError, httpx.HTTPError) as error:
            self.close()
            raise TransportError(f"{type(error).__name__}: {error}"[:200]) from error

    def close(self) -> None:
        """End the connection."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.close()
        if self._client is not None:
            self._client.close()
        self._socket, self._client, self._framer = None, None, Framer()

    def _by_http(self, message: bytes) -> list[bytes]:
        if self._client is None:
            self._client = httpx.Client(timeout=_TIMEOUT_S, verify=self._tls or True)
        media = "application/hl7-v2"
        kind = f"{media}; charset={self._charset}" if self._charset else media
        url = self._to.geturl()
        headers = {"Content-Type": kind}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        answer = self._client.post(url, content=message, headers=headers)
        if answer.status_code not in (200, 204, 400):
            raise TransportError(f"HTTP {answer.status_code}")
        return [answer.content] if answer.content else []

    def _by_mllp(self, message: bytes) -> list[bytes]:
        header = header_of(message)
        wanted = _wanted(message)
        if self._socket is None:
            plain = create_connection((self._to.hostname, self._to.port or 2575), _TIMEOUT_S)
            host = self._to.hostname
            wrapped = self._tls.wrap_socket(plain, server_hostname=host) if self._tls else plain
            self._socket = wrapped
        self._socket.sendall(framed(message))
        answers: list[bytes] = []
        end = time.monotonic() + _TIMEOUT_S
        while len(answers) < wanted and time.monotonic() < end:
            data = self._socket.recv(_READ_BYTES)
            if not data:
                raise TransportError("The connection was closed without an answer.")
            for frame in self._framer.receive(data):
                code, control = answered(frame.data)
                if header is None or control in ("", header.control_id):
                    answers.append(frame.data)
                    if code not in ("AA", "CA"):
                        return answers
        return answers


def _wanted(message: bytes) -> int:
    """Return how many answers success brings."""
    header = header_of(message)
    if header is None:
        return 1
    wishes = asked(header)
    if not wishes.enhanced:
        return 1
    return wishes.wants_commit(positive=True) + wishes.wants_application(positive=True)
