"""Frames of the minimal lower layer protocol: a stream of bytes, however it was cut -> messages.

HL7 v2.5.1, appendix C; https://www.hl7.org/documentcenter/public/wg/inm/mllp_transport_specification.PDF

A frame is ``0x0B`` message ``0x1C 0x0D``. No charset that the protocol can carry has ``0x0B`` or
``0x1C`` in its text, so that ``0x1C`` alone ends a frame, and ``0x0B`` begins one anew.

=====================================  ===============================================
CR, LF, blanks between frames          skipped
other bytes between frames             dropped up to the next ``0x0B``, and counted
``0x0B`` inside an unfinished frame    the first part comes out as ``broken``
``0x1C`` without ``0x0D``              an end as well, and counted
a frame above the limit                skipped to its end; its beginning comes out as ``large``
=====================================  ===============================================
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

START, END, RETURN = 0x0B, 0x1C, 0x0D
HEAD_BYTES = 4096
"""What is kept of a frame above the limit: enough for the header that names the message."""

_MARK = re.compile(rb"[\x0b\x1c]")  # one character class: linear, whatever a peer sends
_BLANKS = b"\r\n\t "


class FrameError(Exception):
    """What arrives is no stream of frames; the connection is to be closed."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One message as it arrived. ``fault`` is ``""``, ``broken`` or ``large``; of a faulty frame
    ``data`` is the beginning, and ``size`` says how many bytes it had."""

    data: bytes
    size: int
    fault: str = ""


class Framer:
    """Turns a stream of bytes, however it was cut, into frames.

    ``message_bytes_max`` bounds what one peer can make us hold, ``junk_bytes_max`` what is dropped
    between two frames before :class:`FrameError` is raised.
    """

    def __init__(self, message_bytes_max: int = 16_777_216, junk_bytes_max: int = 65_536) -> None:
        """Begin between two frames."""
        self.faults: Counter[str] = Counter()
        self._message_bytes_max = message_bytes_max
        self._junk_bytes_max = junk_bytes_max
        self._junk = 0
        self._held = bytearray()
        self._size = 0
        self._open = False
        self._ended = False  # the byte before was an END whose RETURN is still to come

    @property
    def unfinished(self) -> int:
        """How many bytes of an unfinished frame have arrived, its START included."""
        return self._size + 1 if self._open else 0

    def receive(self, data: bytes) -> list[Frame]:
        """Take what arrived and return the frames it completed, oldest first."""
        frames: list[Frame] = []
        place = 0
        while place < len(data):
            if self._open:
                place = self._inside(data, place, frames)
            else:
                place = self._outside(data, place)
        return frames

    def _inside(self, data: bytes, place: int, frames: list[Frame]) -> int:
        mark = _MARK.search(data, place)
        self._keep(data, place, mark.start() if mark else len(data))
        if mark is None:
            return len(data)
        if data[mark.start()] == END:
            frames.append(self._taken(""))
            self._open, self._ended = False, True
        else:
            self.faults["restarted"] += 1
            if self._size:
                frames.append(self._taken("broken"))
        return mark.end()

    def _outside(self, data: bytes, place: int) -> int:
        if self._ended:
            self._ended = False
            if data[place] == RETURN:
                return place + 1
            self.faults["end-without-return"] += 1
        start = data.find(START, place)
        between = data[place : start if start >= 0 else len(data)]
        if junk := len(between.translate(None, _BLANKS)):
            self.faults["junk"] += 1
            self._junk += junk
            if self._junk > self._junk_bytes_max:
                raise FrameError(f"more than {self._junk_bytes_max} bytes outside of frames")
        if start < 0:
            return len(data)
        self._open, self._size, self._junk = True, 0, 0
        return start + 1

    def _keep(self, data: bytes, first: int, end: int) -> None:
        self._size += end - first
        if self._size <= self._message_bytes_max:
            self._held += data[first:end]
        elif len(self._held) < HEAD_BYTES:
            self._held += data[first : min(end, first + HEAD_BYTES)]
        if self._size > self._message_bytes_max:
            del self._held[HEAD_BYTES:]

    def _taken(self, fault: str) -> Frame:
        if self._size > self._message_bytes_max:
            fault = "large"
            self.faults["large"] += 1
        frame = Frame(bytes(self._held[:HEAD_BYTES] if fault else self._held), self._size, fault)
        self._held, self._size = bytearray(), 0
        return frame


def framed(message: bytes) -> bytes:
    """Return ``message`` as a frame."""
    return b"\x0b%b\x1c\r" % message


def stream(messages: Iterable[bytes]) -> bytes:
    """Return ``messages`` as frames, one behind the other."""
    return b"".join(map(framed, messages))
