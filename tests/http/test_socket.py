"""https://www.rfc-editor.org/rfc/rfc9112

What only a socket shows: the application under uvicorn, as ``fhir-server serve`` starts it.
"""

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import uvicorn

from fhir_server.app import Server
from fhir_server.http import facade
from fhir_server.http.protocol import HEAD_BYTES_MAX, BoundedProtocol
from fhir_server.store.contents import Contents
from tests.http.conftest import application

PATIENT = b'{"resourceType":"Patient","id":"p"}'
CLOSE = b"Connection: close\r\n"
HOST = b"Host: fhir.example.org\r\n"
TYPE = b"Content-Type: application/fhir+json\r\n"
ANSWER_S = 10


@pytest.fixture
async def port(server: Server) -> AsyncIterator[int]:
    """The port of a running uvicorn on loopback."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        application(server),
        http=BoundedProtocol,
        lifespan="off",
        ws="none",
        log_level="critical",
        access_log=False,
        server_header=False,
    )
    running = uvicorn.Server(config)
    task = asyncio.create_task(running.serve(sockets=[listening]))
    yield listening.getsockname()[1]
    running.should_exit = True
    await task
    listening.close()


async def talk(port: int, *parts: bytes, eof: bool = False) -> bytes:
    """Send ``parts`` one after the other; return what comes back until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        if eof:
            writer.write_eof()
        return await asyncio.wait_for(reader.read(), ANSWER_S)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


def request(
    line: bytes, *headers: bytes, body: bytes | None = None, length: int | None = None
) -> bytes:
    """Return a request that asks for the connection to be closed."""
    head = line + b" HTTP/1.1\r\n" + HOST + CLOSE + b"".join(headers)
    if body is not None:
        head += TYPE + b"Content-Length: %d\r\n" % (len(body) if length is None else length)
    return head + b"\r\n" + (body or b"")


def statuses(answers: bytes) -> Sequence[int]:
    """Return the status of each answer in ``answers``."""
    return [int(part[:3]) for part in answers.split(b"HTTP/1.1 ")[1:]]


async def works(port: int) -> bool:
    """Whether the server answers a plain request, on a new connection."""
    return statuses(await talk(port, request(b"GET /fhir/metadata?_elements=kind"))) == [200]


async def test_head_sends_no_body(port: int) -> None:
    """The length of the GET, and not one byte of its body."""
    head = await talk(port, request(b"HEAD /fhir/metadata"))

    assert statuses(head) == [200]
    assert head.endswith(b"\r\n\r\n")
    assert b"content-length: 0" not in head


async def test_pipelined_requests_are_answered_in_order(port: int) -> None:
    """RFC 9112, 9.3.2: answers come in the order of the requests."""
    kept = b" HTTP/1.1\r\n" + HOST
    first = b"PUT /fhir/Patient/p" + kept + TYPE + b"Content-Length: 35\r\n\r\n" + PATIENT
    second = b"GET /fhir/Patient/nobody" + kept + b"\r\n"
    third = b"DELETE /fhir/Patient/p" + kept + b"\r\n"
    last = request(b"GET /fhir/Patient/p")

    assert statuses(await talk(port, first + second + third + last)) == [201, 404, 204, 410]


async def test_a_body_in_pieces_is_put_together(port: int) -> None:
    """A body that comes a byte at a time is one body."""
    whole = request(b"PUT /fhir/Patient/p", body=PATIENT)
    pieces = [whole[at : at + 1] for at in range(len(whole))]

    assert statuses(await talk(port, *pieces)) == [201]


async def test_a_chunked_body_is_read(port: int) -> None:
    """RFC 9112, 7.1: chunks, also of a compressed body."""
    for id, body, more in (("a", None, b""), ("b", gzip.compress, b"Content-Encoding: gzip\r\n")):
        text = PATIENT.replace(b'"p"', b'"%s"' % id.encode())
        sent = body(text) if body else text
        chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in sent) + b"0\r\n\r\n"
        headers = (TYPE, more, b"Transfer-Encoding: chunked\r\n")
        line = f"PUT /fhir/Patient/{id}".encode()
        assert statuses(await talk(port, request(line, *headers) + chunks)) == [201]


async def test_a_client_that_goes_away_writes_nothing(port: int) -> None:
    """Half a body and an end: nothing is written, and the server goes on."""
    half = request(b"PUT /fhir/Patient/p", body=PATIENT[:20], length=len(PATIENT))
    await talk(port, half, eof=True)

    assert statuses(await talk(port, request(b"GET /fhir/Patient/p"))) == [404]
    assert await works(port)


async def test_a_body_that_does_not_come_is_408(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that stops sending does not hold its connection for long."""
    monkeypatch.setattr(facade, "_BODY_TIMEOUT_S", 0.05)
    half = request(b"PUT /fhir/Patient/p", body=PATIENT[:20], length=len(PATIENT))
    answer = await talk(port, half)

    assert statuses(answer) == [408]
    assert b"OperationOutcome" in answer


async def test_a_length_that_is_too_short_cuts_the_body(port: int) -> None:
    """The declared length decides: what is cut off is no JSON, and is written by nobody."""
    answer = await talk(port, request(b"PUT /fhir/Patient/p", body=PATIENT, length=20))

    assert statuses(answer)[:1] == [400]
    assert await works(port)


async def test_a_length_over_the_limit_is_refused_at_once(port: int) -> None:
    """413 before the body is sent."""
    answer = await talk(port, request(b"PUT /fhir/Patient/p", body=b"", length=10**12))

    assert statuses(answer) == [413]
    assert b"OperationOutcome" in answer


AMBIGUOUS = {
    "two lengths": (b"Content-Length: 35\r\n", b"Content-Length: 5\r\n"),
    "length and chunks": (b"Content-Length: 35\r\n", b"Transfer-Encoding: chunked\r\n"),
    "negative length": (b"Content-Length: -1\r\n",),
    "length that is no number": (b"Content-Length: 35x\r\n",),
    "space before the colon": (b"Content-Length : 35\r\n",),
}


@pytest.mark.parametrize("headers", AMBIGUOUS.values(), ids=AMBIGUOUS)
async def test_an_ambiguous_length_is_refused(port: int, headers: tuple[bytes, ...]) -> None:
    """RFC 9112, 6.3: two readers could disagree about where the body ends; nothing is written."""
    sent = request(b"PUT /fhir/Patient/p", TYPE, *headers) + PATIENT
    answer = await talk(port, sent, eof=True)

    assert all(400 <= status < 500 for status in statuses(answer)), answer[:300]
    assert statuses(await talk(port, request(b"GET /fhir/Patient/p"))) == [404]


TARGETS = {
    "raw bytes": b"/fhir/Patient/\xff\xfe",
    "raw UTF-8": "/fhir/Patient/é".encode(),
    "raw NUL": b"/fhir/Patient/a\0b",
    "escaped NUL": b"/fhir/Patient/a%00b",
    "escaped line break": b"/fhir/Patient/a%0d%0aX-Injected:1",
    "broken escape": b"/fhir/Patient/%zz%",
    "dot segments": b"/fhir/Patient/../../etc/passwd",
    "escaped dot segments": b"/fhir/Patient/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "long path": b"/fhir/Patient/" + b"x" * 20_000,
    "long query": b"/fhir/Patient?name=" + b"x" * 20_000,
    "raw bytes in the query": b"/fhir/Patient?name=\xff",
    "another scheme": b"gopher://fhir.example.org/fhir/Patient/nobody",
    "absolute": b"http://elsewhere.example/fhir/Patient/nobody",
    "asterisk": b"*",
    "nothing": b"",
}


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
async def test_a_strange_target_is_refused(port: int, target: bytes) -> None:
    """A 4xx or an end of the connection; no 5xx, no injected header, and the next one works."""
    answer = await talk(port, request(b"GET " + target), eof=True)

    assert all(400 <= status < 500 for status in statuses(answer)), answer[:300]
    assert b"\r\nx-injected" not in answer.lower()
    assert b"root:" not in answer
    assert await works(port)


GARBAGE = {
    "nothing": b"\r\n\r\n",
    "another protocol": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "MLLP": b"\x0bMSH|^~\\&|\x1c\r",
    "no version": b"GET /fhir/metadata\r\n\r\n",
    "HTTP/9": b"GET /fhir/metadata HTTP/9.9\r\n\r\n",
    "many headers": b"GET /fhir/metadata HTTP/1.1\r\n" + b"A: b\r\n" * 50_000 + b"\r\n",
    "endless header": b"GET /fhir/metadata HTTP/1.1\r\nA: " + b"x" * 1_000_000 + b"\r\n\r\n",
    "folded header": b"GET /fhir/Patient/nobody HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
}


@pytest.mark.parametrize("sent", GARBAGE.values(), ids=GARBAGE)
async def test_what_is_no_request_does_no_harm(port: int, sent: bytes) -> None:
    """Refused or dropped, and the next connection is served."""
    answer = await talk(port, sent, eof=True)

    assert all(status < 500 for status in statuses(answer)), answer[:300]
    assert await works(port)


async def test_a_host_is_answered_with_links_to_it(port: int) -> None:
    """What the client called the base comes back in Location."""
    sent = request(b"POST /fhir/Patient", body=PATIENT)
    answer = await talk(port, sent)

    assert b"\r\nlocation: http://fhir.example.org/fhir/Patient/" in answer.lower().replace(
        b"/fhir/patient/", b"/fhir/Patient/"
    )
    assert b"\r\nserver:" not in answer.lower()


async def test_a_download_ends_with_its_client(
    port: int, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who leaves in the middle of a large Binary does not have the rest of it read."""
    written = request(b"PUT /fhir/Binary/b", b"Content-Type: a/b\r\nContent-Length: 30000000\r\n")
    assert statuses(await talk(port, written + bytes(30_000_000))) == [201]
    read: list[int] = []
    between = Contents._between

    async def counted(self: Contents, id: str, first: int, last: int) -> Any:
        read.append(first)
        return await between(self, id, first, last)

    monkeypatch.setattr(Contents, "_between", counted)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /fhir/Binary/b HTTP/1.1\r\n" + HOST + b"\r\n")
    await reader.readexactly(1000)
    writer.transport.abort()
    await asyncio.sleep(0.3)
    there = len(read)
    await asyncio.sleep(0.3)

    assert len(read) == there < 15
    assert await works(port)


ENDLESS = {
    "a header": b"x-a: ",
    "headers": b"",
    "a target": None,
}


@pytest.mark.parametrize("name", ENDLESS)
async def test_a_head_that_does_not_end_is_refused(port: int, name: str) -> None:
    """431 (RFC 6585, 5) before there is a request; the connection ends, the server lives."""
    begin = ENDLESS[name]
    line = b"GET /fhir/metadata HTTP/1.1\r\n" + HOST if begin is not None else b"GET /fhir/"
    piece = b"x-a: y\r\n" * 1000 if name == "headers" else b"x" * 8000
    count = HEAD_BYTES_MAX // 8000 + 40
    answers = await talk(port, line + (begin or b""), *[piece] * count)

    assert statuses(answers) in ([431], [])  # what is still on its way may reset the connection
    assert await works(port)


CHUNKED = HOST + TYPE + b"Transfer-Encoding: chunked\r\n"


async def test_a_trailer_that_does_not_end_is_refused(port: int) -> None:
    """Behind the last chunk there may be headers as well; the request never was whole."""
    head = b"PUT /fhir/Patient/p HTTP/1.1\r\n" + CHUNKED + b"\r\n"
    body = b"%x\r\n%b\r\n0\r\n" % (len(PATIENT), PATIENT)
    answers = await talk(port, head + body, *[b"x-a: y\r\n" * 1000] * 60)

    assert statuses(answers) == []
    assert await works(port)


async def test_a_trailer_is_no_header(port: int) -> None:
    """RFC 9110, 6.5.1: what a proxy has judged by the head is not changed behind the body."""
    head = b"PUT /fhir/Patient/p HTTP/1.1\r\n" + CLOSE + CHUNKED + b"\r\n"
    body = b'%x\r\n%b\r\n0\r\nIf-Match: W/"9"\r\n\r\n' % (len(PATIENT), PATIENT)

    assert statuses(await talk(port, head + body)) == [201]


async def test_a_long_body_is_no_head(port: int) -> None:
    """A body that comes in many pieces is judged by its own limits."""
    body = PATIENT + b" " * (HEAD_BYTES_MAX * 2)
    pieces = [body[at : at + 50_000] for at in range(0, len(body), 50_000)]
    head = request(b"PUT /fhir/Patient/p", body=b"", length=len(body))
    assert statuses(await talk(port, head, *pieces)) == [201]
