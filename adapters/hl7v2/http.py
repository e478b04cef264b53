"""``POST /hl7v2``: messages and batches over HTTP, as a plain ASGI application.

design/hl7v2.md, section 3; HL7 over HTTP. The status speaks of the exchange, MSA-1 of the message.

Who hands in messages has a token with the scope ``hl7v2/submit``; in development none is needed, as
for FHIR.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from adapters.hl7v2.ack import header_of
from adapters.hl7v2.batches import TooManyError, is_batch, pieces_of, several, take_batch
from adapters.hl7v2.failures import log_failure
from adapters.hl7v2.inbox import Intake, UnavailableError
from adapters.hl7v2.reading import Arrival
from fhir_server.outcome import FhirError

MEDIA_TYPES = (
    "application/hl7-v2",
    "application/hl7-v2+er7",
    "x-application/hl7-v2+er7",
)
SUBMIT = "hl7v2/submit"
"""The scope that opens this endpoint."""
_BODY_S_MAX = 60.0  # without a byte
_TEXT = b"text/plain; charset=utf-8"

IntakeOf = Callable[[Any], Awaitable[Intake]]


class _Refusal(Exception):
    """An HTTP status instead of an acknowledgement."""

    def __init__(self, status: int, text: str, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(text)
        self.status, self.text, self.headers = status, text, headers


class Endpoint:
    """Answers ``POST``; ``intake_of`` returns what takes messages, for a context."""

    def __init__(self, intake_of: IntakeOf) -> None:
        """Prepare."""
        self._intake_of = intake_of

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one HTTP request; whatever happens, there is an answer."""
        try:
            if scope["method"] != "POST":
                raise _Refusal(405, "Send the message with POST.", (b"allow", b"POST"))
            await _admit(scope)
            intake = await self._intake_of(scope["fhir_server.context"])
            headers = dict(scope["headers"])
            charset = _charset(headers)
            await self._taken(intake, scope, receive, send, charset)
        except _Refusal as refusal:
            content = (b"content-type", _TEXT)
            await _send(
                send, refusal.status, (refusal.text + "\n").encode(), content, *refusal.headers
            )
        except UnicodeDecodeError:
            text = b"The body is not in the encoding of its byte order mark.\n"
            await _send(send, 400, text, (b"content-type", _TEXT))
        except (UnavailableError, FhirError) as error:
            if isinstance(error, FhirError):  # the database, before anything could be opened
                log_failure(error)
            text = b"The message could not be stored; send it again.\n"
            await _send(send, 503, text, (b"content-type", _TEXT), (b"retry-after", b"5"))
        except Exception as error:  # noqa: BLE001 - outermost shell: the next request is served
            log_failure(error)
            text = b"The server failed; send the message again.\n"
            await _send(send, 500, text, (b"content-type", _TEXT))

    async def _taken(
        self, intake: Intake, scope: Any, receive: Any, send: Any, charset: str
    ) -> None:
        settings = intake.context.settings
        first, pieces = await _opened(_body(receive))
        like = Arrival(
            b"",
            str((scope.get("client") or ("",))[0]),
            "http",
            intake.context.now(),
            charset=charset,
        )
        if is_batch(first):
            await self._batch(intake, like, _bounded(pieces, settings.hl7_batch_bytes_max), send)
            return
        body = bytearray()
        async for piece in _bounded(pieces, settings.hl7_batch_bytes_max):
            body += piece
        data = bytes(body)
        if several(data):
            await self._batch(intake, like, pieces_of(data), send)
            return
        if len(data) > settings.hl7_message_bytes_max:
            raise _Refusal(413, f"A message has at most {settings.hl7_message_bytes_max:,} bytes.")
        taken = await intake.take(
            Arrival(data, like.peer, "http", like.received, charset, size=len(data))
        )
        answer = taken.answer
        if taken.later is not None:
            answer = await taken.later() or answer
        if not answer:
            await _send(send, 204, b"")
            return
        status = 200 if header_of(data) is not None else 400
        await _send(send, status, answer, _content_type(charset))

    async def _batch(
        self, intake: Intake, like: Arrival, pieces: AsyncIterator[bytes], send: Any
    ) -> None:
        parts = []
        limit = intake.context.settings.hl7_batch_messages_max
        try:
            async for part in take_batch(pieces, like, intake.take, limit):
                parts.append(part)
        except TooManyError as error:
            raise _Refusal(413, f"A batch has at most {limit:,} messages.") from error
        await _send(send, 200, b"".join(parts), _content_type(like.charset))


async def _admit(scope: Any) -> None:
    """Refuse who may not hand in messages, before anything of a message is read."""
    try:
        principal = await scope["fhir_server.identify"](dict(scope["headers"]))
    except FhirError as error:
        if error.status not in (401, 429):
            raise
        said = ((name.lower().encode(), value.encode()) for name, value in error.headers)
        raise _Refusal(error.status, str(error), *said) from error
    if principal.is_unrestricted or SUBMIT in principal.others:
        return
    challenge = (b"www-authenticate", b'Bearer scope="hl7v2/submit"')
    if principal.kind == "nobody":
        raise _Refusal(401, f"This needs an access token with the scope {SUBMIT}.", challenge)
    raise _Refusal(403, f"Your token has not the scope {SUBMIT}.", challenge)


async def _opened(pieces: AsyncIterator[bytes]) -> tuple[bytes, AsyncIterator[bytes]]:
    """Return the beginning of the body, and all of it."""
    head = bytearray()
    async for piece in pieces:
        head += piece
        if len(head) >= 64:
            break

    async def rejoined() -> AsyncIterator[bytes]:
        yield bytes(head)
        async for piece in pieces:
            yield piece

    return bytes(head), rejoined()


async def _body(receive: Any) -> AsyncIterator[bytes]:
    while True:
        try:
            async with asyncio.timeout(_BODY_S_MAX):
                event = await receive()
        except TimeoutError as error:
            raise _Refusal(408, "The body did not come.") from error
        if event["type"] == "http.disconnect":
            raise _Refusal(400, "The connection was closed.")
        if event.get("body"):
            yield event["body"]
        if not event.get("more_body"):
            return


async def _bounded(pieces: AsyncIterator[bytes], limit: int) -> AsyncIterator[bytes]:
    size = 0
    async for piece in pieces:
        size += len(piece)
        if size > limit:
            raise _Refusal(413, f"The body has at most {limit:,} bytes.")
        yield piece


def _charset(headers: Mapping[bytes, bytes]) -> str:
    """Return the charset of the Content-Type; raises 415 for another one than that of HL7 v2."""
    said = headers.get(b"content-type", b"").decode("latin-1")
    media, *parameters = (part.strip() for part in said.split(";"))
    if media.lower() not in MEDIA_TYPES:
        raise _Refusal(415, f"The body is to be {MEDIA_TYPES[0]}.")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip('"')[:40]
    return ""


def _content_type(charset: str) -> tuple[bytes, bytes]:
    said = f"{MEDIA_TYPES[0]}; charset={charset}" if charset else MEDIA_TYPES[0]
    return (b"content-type", said.encode("latin-1"))


async def _send(send: Any, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    length = (b"content-length", str(len(body)).encode())
    sent = [*headers] if status == 204 else [*headers, length]
    await send({"type": "http.response.start", "status": status, "headers": sent})
    await send({"type": "http.response.body", "body": body})
