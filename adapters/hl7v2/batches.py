"""Batches: each message its own transaction with its own acknowledgement, in order.

HL7 v2.5.1, 2.10.3; design/hl7v2.md, section 3. The answer is a batch of them: BHS, one
acknowledgement for each message, BTS with the count and what was noticed about the envelope.

What has the mark of UTF-16 or UTF-32 is read and answered in that; all else byte by byte.
"""

import codecs
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

from adapters.hl7v2.ack import header_of
from adapters.hl7v2.charset import marked
from adapters.hl7v2.message import Splitter
from adapters.hl7v2.outcomes import Taken
from adapters.hl7v2.reading import Arrival

_ENVELOPE = ("FHS", "BHS")
_BLANKS = "\ufeff\xef\xbb\xbf\r\n\t \x0b"
_PIECE_BYTES = 1_048_576
_WARNINGS_MAX = 5
# Half a surrogate pair is passed on to the message that has it, and refused there.
_LENIENT = "surrogatepass"

Take = Callable[[Arrival], Awaitable[Taken]]


class TooManyError(Exception):
    """The batch has more messages than are taken in one; those before were taken."""


def is_batch(data: bytes) -> bool:
    """Whether ``data`` begins with a file or batch header."""
    head = data[:256].decode(marked(data), "ignore").lstrip(_BLANKS)
    return head[:3] in _ENVELOPE and not head[3:4].isalnum()


def several(data: bytes) -> bool:
    """Whether ``data`` is a batch, or has more than one message."""
    if is_batch(data):
        return True
    if (codec := marked(data)) != "latin-1":
        data = data.decode(codec, "replace").removeprefix("\ufeff").encode()
    return len(re.findall(rb"(?:^|[\r\n])MSH[^0-9A-Za-z\r\n]", data)) > 1


async def pieces_of(data: bytes) -> AsyncIterator[bytes]:
    """Yield ``data`` in pieces, as a stream would come."""
    for begin in range(0, len(data), _PIECE_BYTES):
        yield data[begin : begin + _PIECE_BYTES]


async def take_batch(
    pieces: AsyncIterator[bytes], like: Arrival, take: Take, messages_max: int
) -> AsyncIterator[bytes]:
    """Take each message in ``pieces``; yield the batch of acknowledgements piece by piece.

    ``like`` tells from whom and how it arrives. Raises :class:`TooManyError`, and
    ``UnicodeDecodeError`` for what is not what its mark says.
    """
    splitter = Splitter()
    envelope = _Envelope()
    seen = 0
    codec = ""
    decode, encode = _coding("latin-1")

    async def taken(name: str, text: str) -> str:
        nonlocal seen
        if name != "MSH":
            envelope.part(name, text)
            return ""
        seen += 1
        if seen > messages_max:
            raise TooManyError
        envelope.part(name, "")
        answer = await take(replace(like, data=text.encode(codec, _LENIENT), size=0))
        return answer.answer.decode(codec)

    async for piece in pieces:
        if not codec:
            codec = marked(piece)
            decode, encode = _coding(codec)
            yield encode(envelope.begin(like))
        for name, text in splitter.feed(decode(piece)):
            yield encode(await taken(name, text))
    if not codec:
        yield encode(envelope.begin(like))
    for name, text in splitter.end():
        yield encode(await taken(name, text))
    yield encode(envelope.end())


def _coding(codec: str) -> tuple[Callable[[bytes], str], Callable[[str], bytes]]:
    """Return what decodes and encodes a stream piece by piece."""
    decoder = codecs.getincrementaldecoder(codec)(_LENIENT)
    return decoder.decode, codecs.getincrementalencoder(codec)().encode


class _Envelope:
    """The headers and trailers of a batch, counted."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.messages = 0
        self.in_batch = 0
        self.warnings: list[str] = []

    def begin(self, like: Arrival) -> str:
        return f"BHS|^~\\&|||||{like.received:%Y%m%d%H%M%S}+0000\r"

    def part(self, name: str, text: str) -> None:
        if name == "MSH":
            self.messages += 1
            self.in_batch += 1
            return
        if not name:
            self.warnings.append("Text before the first header was left out.")
            return
        self.names.append(name)
        if name == "BHS":
            self.in_batch = 0
        if name in ("BTS", "FTS"):
            said = text[4:].split(text[3:4], 1)[0].strip() if len(text) > 4 else ""
            found = self.in_batch if name == "BTS" else max(1, self.names.count("BHS"))
            if said and said != str(found):
                self.warnings.append(f"{name}-1 is not the number that was found, {found}.")

    def end(self) -> str:
        for first, last in (("FHS", "FTS"), ("BHS", "BTS"), ("FTS", "FHS"), ("BTS", "BHS")):
            if self.names.count(first) > self.names.count(last):
                self.warnings.append(f"{first} has no {last}.")
        comment = " ".join(dict.fromkeys(self.warnings[:_WARNINGS_MAX]))
        return f"BTS|{self.messages}|{comment}\r"


def control_of(data: bytes) -> str:
    """Return MSH-10 of ``data``, ``""`` where it has none."""
    header = header_of(data)
    return header.control_id if header else ""
