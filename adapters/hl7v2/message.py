"""Text to Message, Segment and Value, without loss; escapes, nulls and batches.

HL7 v2.5.1, chapter 2; design/hl7v2.md, section 4. Nothing is refused for order, repetition or
unknown segments; only a text that does not begin with a message header is no message.

=========================  ==================================================================
absent, or blanks          says nothing: :meth:`Segment.valued` is false
``""``                     says *delete*: :meth:`Segment.is_null` is true, ``valued`` is false
anything else              is *valued*
=========================  ==================================================================

Fields, components and subcomponents are counted from 1 as in the standard, in MSH as well.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from adapters.hl7v2.issues import MessageFault

NULL = '""'
USUAL = "^~\\&"
_LINE_END = re.compile(r"\r\n|\r|\n")
_NAME = re.compile(r"[A-Z][A-Z0-9]{2}")
# What FHIR's string does not allow; line ends and tabs may stay.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff\ud800-\udfff]")
_SPACES_MAX = 100


@dataclass(frozen=True, slots=True, eq=False)
class Delimiters:
    """The characters of MSH-1 and MSH-2; an empty one is a level that is switched off.

    ``codec`` is the message's charset, for ``\\Xhh\\`` escapes. Equal by identity, so that what is
    made of a value can be remembered cheaply.
    """

    field: str
    component: str = "^"
    repetition: str = "~"
    escape: str = "\\"
    subcomponent: str = "&"
    truncation: str = ""
    codec: str = "utf-8"


class Value:
    """One repetition of a field. ``value[2]`` is its second component, escapes undone."""

    __slots__ = ("delimiters", "parts", "raw", "simple")

    def __init__(self, raw: str, delimiters: Delimiters) -> None:
        self.raw = raw
        self.delimiters = delimiters
        mark = delimiters.component
        self.parts = raw.split(mark) if mark and mark in raw else [raw]
        # Most values have neither escapes nor subcomponents, and are read without looking.
        self.simple = (
            raw.isprintable()
            and '"' not in raw
            and (not delimiters.escape or delimiters.escape not in raw)
            and (not delimiters.subcomponent or delimiters.subcomponent not in raw)
        )

    def __getitem__(self, component: int) -> str:
        """Return the first subcomponent, without blanks around it; "" if absent or null."""
        parts = self.parts
        if component > len(parts):
            return ""
        return parts[component - 1].strip() if self.simple else self.sub(component, 1)

    def sub(self, component: int, subcomponent: int) -> str:
        """Return a subcomponent, without blanks around it; "" if absent or null."""
        if component > len(self.parts):
            return ""
        part = self.parts[component - 1]
        mark = self.delimiters.subcomponent
        if mark and mark in part:
            leaves = part.split(mark)
            part = leaves[subcomponent - 1] if subcomponent <= len(leaves) else ""
        elif subcomponent > 1:
            return ""
        return plain(part, self.delimiters).strip() if part and part != NULL else ""

    def subs(self, component: int) -> "Value":
        """Return a component as a value whose components are its subcomponents."""
        raw = self.parts[component - 1] if component <= len(self.parts) else ""
        return _Inner(raw, self.delimiters)

    def whole(self, component: int) -> str:
        """Return a component with all of its subcomponents, blank between them."""
        if component > len(self.parts):
            return ""
        part = self.parts[component - 1]
        mark = self.delimiters.subcomponent
        leaves = part.split(mark) if mark else [part]
        kept = (plain(leaf, self.delimiters).strip() for leaf in leaves if leaf != NULL)
        return " ".join(leaf for leaf in kept if leaf)

    @property
    def text(self) -> str:
        """The whole repetition as text: escapes undone, white space kept, delimiters as sent."""
        return plain(self.raw, self.delimiters) if self.raw != NULL else ""

    def readable(self) -> str:
        """Return all leaves that say something, joined by blanks."""
        found = (self.whole(n) for n in range(1, len(self.parts) + 1))
        return " ".join(part for part in found if part)

    def __len__(self) -> int:
        return len(self.parts)


class _Inner(Value):
    """A component seen as a value of its own."""

    __slots__ = ()

    def __init__(self, raw: str, delimiters: Delimiters) -> None:
        self.raw = raw
        self.delimiters = delimiters
        mark = delimiters.subcomponent
        self.parts = raw.split(mark) if mark and mark in raw else [raw]
        self.simple = False

    def sub(self, component: int, subcomponent: int) -> str:
        if component > len(self.parts) or subcomponent > 1:
            return ""
        part = self.parts[component - 1]
        return plain(part, self.delimiters).strip() if part and part != NULL else ""


class Segment:
    """A segment: its name, and ``fields[n]``, field n as it was sent.

    ``number`` counts the segments of this name in the message, from 1. ``read`` holds the fields
    that somebody has read, for the report of what is not mapped.
    """

    __slots__ = ("delimiters", "fields", "name", "number", "read")

    def __init__(self, fields: list[str], delimiters: Delimiters, number: int = 1) -> None:
        self.fields = fields
        self.name = fields[0]
        self.delimiters = delimiters
        self.number = number
        self.read: set[int] = set()

    def raw(self, field: int) -> str:
        """Return the field as it was sent, "" if it is missing."""
        self.read.add(field)
        fields = self.fields
        return fields[field] if field < len(fields) else ""

    def valued(self, field: int) -> bool:
        """Return whether the field says something other than *delete*."""
        raw = self.raw(field)
        return raw != "" and raw != NULL and not raw.isspace()

    def is_null(self, field: int) -> bool:
        """Return whether the field is ``""``: delete what it once said."""
        return self.raw(field).strip() == NULL

    def value(self, field: int) -> Value | None:
        """Return the first repetition that says something."""
        self.read.add(field)
        fields = self.fields
        raw = fields[field] if field < len(fields) else ""
        if not raw or raw == NULL:
            return None
        delimiters = self.delimiters
        mark = delimiters.repetition
        if mark and mark in raw:
            return next(iter(self.values(field)), None)
        return Value(raw, delimiters) if raw[0].isalnum() or _says(raw, delimiters) else None

    def values(self, field: int) -> list[Value]:
        """Return the repetitions that say something."""
        self.read.add(field)
        fields = self.fields
        raw = fields[field] if field < len(fields) else ""
        if not raw or raw == NULL:
            return []
        delimiters = self.delimiters
        mark = delimiters.repetition
        parts = raw.split(mark) if mark and mark in raw else [raw]
        return [Value(part, delimiters) for part in parts if _says(part, delimiters)]

    def text(self, field: int, component: int = 1, subcomponent: int = 1) -> str:
        """Return one leaf of the first repetition, escapes undone, without blanks around it."""
        fields = self.fields
        if field < len(fields) and component == subcomponent == 1 and fields[field].isalnum():
            self.read.add(field)
            return fields[field]
        value = self.value(field)
        if value is None:
            return ""
        return value[component] if subcomponent == 1 else value.sub(component, subcomponent)

    @property
    def where(self) -> str:
        """The segment in an issue: ``OBX[3]``."""
        return f"{self.name}[{self.number}]"


def _says(raw: str, delimiters: Delimiters) -> bool:
    """Return whether ``raw`` has a leaf that is neither empty, blank nor null."""
    first = raw[:1]
    if first.isalnum():
        return True
    rest = raw.replace(NULL, "").strip()
    for mark in (delimiters.component, delimiters.subcomponent, delimiters.repetition):
        if mark:
            rest = rest.replace(mark, "")
    return rest.strip() != ""


@dataclass(frozen=True, slots=True)
class Message:
    """A message: its delimiters, and its segments in the order in which they were sent."""

    delimiters: Delimiters
    segments: tuple[Segment, ...]

    @property
    def header(self) -> Segment:
        """The segment MSH."""
        return self.segments[0]

    @property
    def control_id(self) -> str:
        """MSH-10 as text; "" if there is none."""
        return self.header.text(10)

    @property
    def type(self) -> str:
        """MSH-9.1, such as ``ADT``."""
        return self.header.text(9).upper()

    @property
    def event(self) -> str:
        """MSH-9.2, else EVN-1, else the usual event of the type; "" if nothing says it."""
        said = self.header.text(9, 2).upper()
        return said or self.text("EVN", 1).upper() or USUAL_EVENTS.get(self.type, "")

    @property
    def version(self) -> str:
        """MSH-12.1; a message without counts as 2.3."""
        return self.header.text(12) or "2.3"

    def all(self, name: str) -> list[Segment]:
        """Return the segments called ``name``."""
        return [segment for segment in self.segments if segment.name == name]

    def text(self, name: str, field: int, component: int = 1) -> str:
        """Return one leaf of the first segment called ``name``."""
        for segment in self.segments:
            if segment.name == name:
                return segment.text(field, component)
        return ""


USUAL_EVENTS = {"ORU": "R01", "ORM": "O01", "VXU": "V04", "DFT": "P03", "RDE": "O11"}


# ------------------------------------------------------------------------------------- reading


def read(text: str, *, codec: str = "utf-8", segments_max: int = 20_000) -> Message:
    """Return the message that ``text`` is: one message, from its MSH on, no frame, no batch.

    Raises :class:`MessageFault` 100 if it does not begin with a header, or if another header
    follows, and 207 above ``segments_max``.
    """
    text = text.lstrip("\ufeff\x0b \t\r\n").rstrip("\x1c\r\n \t")
    delimiters = _delimiters(text, codec)
    lines = _lines(text, delimiters.field)
    if len(lines) > segments_max:
        raise MessageFault(
            207, "", f"The message has more than {segments_max} segments.", refused=True
        )
    counts: dict[str, int] = {}
    segments = []
    mark = delimiters.field
    for line in lines:
        fields = line.split(mark)
        name = fields[0]
        counts[name] = number = counts.get(name, 0) + 1
        if name == "MSH":
            fields.insert(1, mark)
        segments.append(Segment(fields, delimiters, number))
    if counts["MSH"] > 1:
        raise MessageFault(
            100, "MSH", "Several message headers stand in one message without a batch header.",
            refused=True,
        )  # fmt: skip
    return Message(delimiters, tuple(segments))


def _delimiters(text: str, codec: str) -> Delimiters:
    mark = text[3:4]
    if not text.startswith("MSH") or not mark or mark.isalnum() or mark in "\r\n":
        raise MessageFault(
            100, "MSH", "The text does not begin with a message header (MSH).", refused=True
        )
    end = text.find(mark, 4)
    line_end = _LINE_END.search(text)
    ends = [at for at in (end, line_end.start() if line_end else -1) if at >= 0]
    return _delimiters_of(mark, text[4 : min(ends, default=len(text))].strip()[:8], codec)


@lru_cache(maxsize=64)
def _delimiters_of(field: str, marks: str, codec: str) -> Delimiters:
    chosen: list[str] = []
    before = ""
    for mark in marks:
        if mark != before:
            chosen.append("" if mark in chosen else mark)
        before = mark
    for usual in USUAL[len(chosen) :]:
        chosen.append("" if usual in chosen or usual == field else usual)
    component, repetition, escape, subcomponent, truncation = (*chosen, "")[:5]
    return Delimiters(field, component, repetition, escape, subcomponent, truncation, codec)


def _lines(text: str, mark: str) -> list[str]:
    """Return the segments; a line end inside a text stays in the text."""
    if "\n" in text:
        text = text.replace("\r\n", "\r")
        if "\n" in text:
            return _careful_lines(text, mark)
    lines = text.split("\r")
    for line in lines:
        if line[3:4] != mark or not line[:3].isalnum() or not line[:1].isupper():
            return _careful_lines(text, mark)
    return lines


def _careful_lines(text: str, mark: str) -> list[str]:
    """Return the segments of a text with line ends inside: those become LF."""
    lines: list[list[str]] = []
    for line in _LINE_END.split(text):
        bare = line.strip()
        name = _NAME.match(bare)
        if name and (len(bare) == 3 or bare[3] == mark):
            lines.append([line.lstrip()])
        elif bare and lines:
            lines[-1].append(line)
    return ["\n".join(parts) for parts in lines]


def write(message: Message) -> str:
    """Return the text of ``message``, each segment ended by CR."""
    mark = message.delimiters.field
    lines = []
    for segment in message.segments:
        fields = segment.fields
        lines.append(mark.join(fields[:1] + fields[2:] if fields[0] == "MSH" else fields))
    return "\r".join(lines) + "\r"


# ------------------------------------------------------------------------------------- escapes


def plain(text: str, delimiters: Delimiters) -> str:
    """Return ``text`` with its escape sequences undone and without control characters.

    Unknown sequences stay as they are, and a lone escape character is itself.
    """
    mark = delimiters.escape
    if mark and mark in text:
        text = _sequences(mark).sub(_undoing(delimiters), text)
    return text if text.isprintable() else _CONTROL.sub("", text)


def escaped(text: str, delimiters: Delimiters) -> str:
    """Return ``text`` such that :func:`plain` gives it back (line ends as LF)."""
    mark = delimiters.escape
    if not mark:
        return text
    letters = {
        delimiters.field: "F", delimiters.component: "S", delimiters.subcomponent: "T",
        delimiters.repetition: "R", mark: "E",
    }  # fmt: skip
    written = []
    for character in text.replace("\r\n", "\n").replace("\r", "\n"):
        if character == "\n":
            written.append(f"{mark}.br{mark}")
        elif letter := letters.get(character):
            written.append(f"{mark}{letter}{mark}")
        else:
            written.append(character)
    return "".join(written)


@lru_cache(maxsize=64)
def _sequences(mark: str) -> re.Pattern[str]:
    """Return the pattern of the sequences that are undone; each has a bounded length."""
    known = r"[FSTREPHN]|X(?:[0-9A-Fa-f]{2}){1,10000}|\.(?:br|ce|fi|nf|sp|in|ti|sk) ?[+-]?\d{0,3}"
    return re.compile(f"{re.escape(mark)}({known}){re.escape(mark)}")


@lru_cache(maxsize=64)
def _undoing(delimiters: Delimiters) -> Callable[[re.Match[str]], str]:
    letters = {
        "F": delimiters.field, "S": delimiters.component, "T": delimiters.subcomponent,
        "R": delimiters.repetition, "E": delimiters.escape, "P": delimiters.truncation or "#",
        "H": "", "N": "",
    }  # fmt: skip

    def undone(found: re.Match[str]) -> str:
        sequence = found.group(1)
        if sequence in letters:
            return letters[sequence]
        if sequence.startswith("X"):
            return _from_bytes(bytes.fromhex(sequence[1:]), delimiters.codec)
        count = sequence[3:].strip(" +")
        times = min(int(count), _SPACES_MAX) if count.isdecimal() else 1
        return ("\n" if sequence[1:3] in _LINE_BREAKS else " ") * times

    return undone


_LINE_BREAKS = ("br", "sp", "ce")


def _from_bytes(data: bytes, codec: str) -> str:
    try:
        return data.decode(codec)
    except UnicodeDecodeError:
        return data.decode("latin-1")


# ------------------------------------------------------------------------------------- batches


@dataclass(frozen=True, slots=True)
class Batch:
    """A file or frame cut into messages. ``header`` is BHS, else FHS, as sent, or ""."""

    header: str
    texts: tuple[str, ...]
    warnings: tuple[str, ...]


class Splitter:
    """Cuts a stream of text into messages and the headers and trailers around them.

    :meth:`feed` yields ``(name, text)`` of each part that is complete: ``MSH`` and a whole
    message, or ``FHS``, ``BHS``, ``BTS``, ``FTS`` and that segment. :meth:`end` yields the last.
    A text before the first of them is yielded with the name "".
    """

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._rest = ""

    def feed(self, text: str) -> Iterator[tuple[str, str]]:
        """Take the next piece of the text, of any length."""
        lines = _LINE_END.split(self._rest + text)
        # A lone CR at the end may be half a CRLF: it is an empty line then, which says nothing.
        self._rest = lines.pop()
        return self._taken(lines)

    def end(self) -> Iterator[tuple[str, str]]:
        """Take the end of the text."""
        lines, self._rest = [self._rest], ""
        yield from self._taken(lines)
        yield from self._finished()

    def _taken(self, lines: Iterable[str]) -> Iterator[tuple[str, str]]:
        for line in lines:
            start = line.lstrip("\ufeff\x0b\x1c \t")
            if start[:3] in _ENVELOPES and not start[3:4].isalnum():
                yield from self._finished()
                self._lines.append(start)
            else:
                self._lines.append(line)

    def _finished(self) -> Iterator[tuple[str, str]]:
        text = "\r".join(line for line in self._lines if line.strip("\x1c \t"))
        self._lines = []
        if text:
            name = text[:3]
            yield (name, text) if name in _ENVELOPES else ("", text)


_ENVELOPES = ("FHS", "BHS", "MSH", "BTS", "FTS")


def batch(text: str) -> Batch:
    """Return the messages of ``text``: one, several, or a batch with headers and trailers.

    A wrong count, a missing trailer or header is a warning. A text without any message has none.
    """
    splitter = Splitter()
    parts = [*splitter.feed(text), *splitter.end()]
    names = [name for name, _ in parts]
    texts = tuple(part for name, part in parts if name == "MSH")
    header = next((part for wanted in ("BHS", "FHS") for name, part in parts if name == wanted), "")
    warnings = [
        f"{first} has no {last}."
        for first, last in (("FHS", "FTS"), ("BHS", "BTS"), ("FTS", "FHS"), ("BTS", "BHS"))
        if names.count(first) > names.count(last)
    ]
    counts = {"BTS": _batch_counts(names), "FTS": [names.count("BHS")]}
    for name, part in parts:
        if name in counts:
            said = part[4:].split(part[3:4], 1)[0].strip() if len(part) > 4 else ""
            found = counts[name].pop(0) if counts[name] else 0
            if said and said != str(found):
                warnings.append(f"{name}-1 does not count what was found: {found}.")
    if "" in names:
        warnings.append("Text before the first header was left out.")
    return Batch(header, texts, tuple(warnings))


def _batch_counts(names: list[str]) -> list[int]:
    """Return the number of messages before each BTS, since the one before it."""
    counts, count = [], 0
    for name in names:
        if name == "MSH":
            count += 1
        elif name == "BTS":
            counts.append(count)
            count = 0
    return counts
