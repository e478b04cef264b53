"""Acknowledgements: the header of a message and what became of it -> the answer.

HL7 v2.5.1, chapter 2, sections 2.9.2 (original mode), 2.9.3 (enhanced mode), 2.15.1 (ACK).

Everything here is Latin-1, whatever the charset: what is echoed comes back byte for byte, and our
own words are ASCII, so that an acknowledgement is in the charset of its message.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from adapters.hl7v2.charset import marked

ECHOED_CHARACTERS_MAX = 250
"""Of MSH-10 and MSH-3 to 6 at most so much comes back; MSH-10 may not be longer."""

# HL7 table 0357, message error condition codes
CONDITIONS = {
    "0": "Message accepted",
    "100": "Segment sequence error",
    "101": "Required field missing",
    "102": "Data type error",
    "103": "Table value not found",
    "200": "Unsupported message type",
    "201": "Unsupported event code",
    "202": "Unsupported processing id",
    "203": "Unsupported version id",
    "204": "Unknown key identifier",
    "205": "Duplicate key identifier",
    "206": "Application record locked",
    "207": "Application internal error",
}
_PLACE = re.compile(
    r"(?P<segment>[A-Z][A-Z0-9]{2})(?:\[(?P<nth>\d+)\])?(?:-(?P<field>\d+)(?:\.(?P<component>\d+))?)?"
)
_LINE_END = re.compile(r"[\r\n]")
_USUAL = "|^~\\&"
_VERSION = re.compile(r"2(?:\.\d+){0,3}")


@dataclass(frozen=True, slots=True)
class Header:
    """MSH as Latin-1 text. ``delimiters`` are five: field, component, repetition, escape,
    subcomponent. ``fields`` are the fields by number; MSH-1 and MSH-2 are in their places.

    ``codec`` is what its answer is encoded by; another one than Latin-1 where the message has the
    mark of UTF-16 or UTF-32, of which the text is the text itself.
    """

    delimiters: str
    fields: tuple[str, ...]
    codec: str = "latin-1"

    def value(self, number: int, component: int = 1) -> str:
        """Return component ``component`` of the first repetition of MSH-``number``, blanks off.

        A null (``""``) is no value.
        """
        text = self.whole(number).split(self.delimiters[2])[0].split(self.delimiters[1])
        found = text[component - 1].strip() if component <= len(text) else ""
        return "" if found == '""' else found

    def whole(self, number: int) -> str:
        """Return all of MSH-``number``."""
        return self.fields[number] if number < len(self.fields) else ""

    @property
    def control_id(self) -> str:
        """MSH-10, blanks off."""
        found = self.whole(10).strip()
        return "" if found == '""' else found

    @property
    def version(self) -> tuple[int, ...]:
        """MSH-12 as numbers; 2.3 where it is empty, as the design says, or unreadable."""
        found = _VERSION.fullmatch(self.value(12))
        return tuple(map(int, found[0].split("."))) if found else (2, 3)


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a message is not taken as it is, or what is to be known of one that is.

    ``condition`` is a code of table 0357, ``place`` such as ``OBX[3]-5`` or ``PID-3.1`` or ``""``,
    ``text`` one sentence without patient data, ``severity`` ``E`` or ``W``.
    """

    condition: str
    text: str
    place: str = ""
    severity: str = "E"


def as_issue(fault: Fault) -> dict[str, str]:
    """Return ``fault`` as an issue of a row."""
    severity = "error" if fault.severity == "E" else "warning"
    return {
        "severity": severity,
        "code": fault.condition,
        "where": fault.place,
        "text": fault.text,
    }


def header_of(data: bytes) -> Header | None:
    """Return the MSH that ``data`` begins with, or ``None``. Blank lines before it are skipped."""
    codec = marked(data)
    head = data[:65_536]
    text = head.decode(codec, "ignore" if codec != "latin-1" else "strict")
    text = text.removeprefix("ï»¿").lstrip("\ufeff\r\n\t ")
    if not text.startswith("MSH") or len(text) < 4 or text[3] in "\r\n" or text[3].isalnum():
        return None
    line = _LINE_END.split(text, maxsplit=1)[0]
    separator = line[3]
    parts = line.split(separator)
    encoding = parts[1] if len(parts) > 1 else ""
    return Header(separator + _encoding(encoding), ("MSH", separator, *parts[1:]), codec)


def _encoding(characters: str) -> str:
    """Return the four delimiters of MSH-2. A character that repeats the one before it is skipped,
    one that occurs earlier switches that level off: it becomes what no message has."""
    seen: list[str] = []
    for index, one in enumerate(characters):
        if index and one == characters[index - 1]:
            continue
        seen.append(one if one not in seen else "\x00")
    return "".join([*seen[:4], *_USUAL[1 + len(seen[:4]) :]])


@dataclass(frozen=True, slots=True)
class Asked:
    """Which acknowledgements a sender asks for: by MSH-15 and MSH-16, table 0155.

    ``enhanced`` says that one of them is valued. ``waits`` says that what is answered is the
    outcome of applying the message, so that it is applied before there is an answer.
    """

    enhanced: bool
    commit: str
    application: str

    @property
    def waits(self) -> bool:
        """Whether the message is applied before anything is answered."""
        return not self.enhanced or (
            self.commit not in ("AL", "SU") and self.application in ("AL", "SU", "ER")
        )

    def wants_commit(self, positive: bool) -> bool:
        """Whether a commit acknowledgement (CA, or CE and CR) is sent."""
        return self.enhanced and self.commit in (("AL", "SU") if positive else ("AL", "ER"))

    def wants_application(self, positive: bool) -> bool:
        """Whether an application acknowledgement (AA, or AE and AR) is sent."""
        wanted = ("AL", "SU") if positive else ("AL", "ER")
        return not self.enhanced or self.application in wanted

    def refusal(self, code: str) -> str:
        """Return the code by which a refusal at the door is told, ``""`` for none.

        ``code`` is ``AE`` or ``AR``.
        """
        if not self.enhanced or (self.waits and self.wants_application(positive=False)):
            return code
        return "C" + code[1] if self.wants_commit(positive=False) else ""


def asked(header: Header) -> Asked:
    """Return what ``header`` asks for. A value that is none of table 0155 counts as ``AL``: an
    answer too many is safer than one too few."""
    commit, application = (header.value(number).upper() for number in (15, 16))
    if not commit and not application:
        return Asked(False, "NE", "AL")
    known = ("AL", "NE", "ER", "SU", "")
    commit, application = (one if one in known else "AL" for one in (commit, application))
    return Asked(True, commit or "NE", application or "NE")


@dataclass(frozen=True, slots=True)
class Sent:
    """What our own header says: MSH-10, at most 20 characters, and MSH-7."""

    control_id: str
    at: datetime


def acknowledgement(
    header: Header | None,
    code: str,
    sent: Sent,
    faults: Sequence[Fault] = (),
    type: tuple[str, ...] = (),
) -> bytes:
    """Return the acknowledgement ``code`` (AA … CR) of the message with ``header``.

    ``faults`` become ERR segments from v2.5 on, and ERR-1 before. Without a header, MSA-2 is empty.
    ``type`` is MSH-9 of what is more than an acknowledgement: ``("RSP", "K22", "RSP_K22")``.
    """
    header = header or Header(_USUAL, ("MSH", "|", _USUAL[1:]))
    separator, component = header.delimiters[0], header.delimiters[1]
    msh = [
        f"MSH{separator}{header.whole(2) or _USUAL[1:]}",
        *(_bounded(header.whole(number)) for number in (5, 6, 3, 4)),
        f"{sent.at:%Y%m%d%H%M%S}.{sent.at.microsecond // 1000:03d}{sent.at:%z}",
        "",
        component.join(type) or _type(header, component),
        sent.control_id,
        _bounded(header.whole(11)) or "P",
        _bounded(header.whole(12)) or "2.3",
    ]
    if header.whole(18):
        msh += ["", "", "", "", "", _bounded(header.whole(18))]
    old = header.version < (2, 5)
    text = _escaped(faults[0].text, header.delimiters) if faults and old else ""
    msa = ["MSA", code, _bounded(header.whole(10)), *([text] if text else [])]
    errors = [_old_error(header, faults)] if old else [_error(header, one) for one in faults]
    lines = [separator.join(msh), separator.join(msa), *(line for line in errors if line)]
    return "".join(f"{line}\r" for line in lines).encode(header.codec)


def answered(answer: bytes) -> tuple[str, str]:
    """Return MSA-1 and MSA-2 of ``answer``, ``""`` where it has none."""
    header = header_of(answer)
    if header is None:
        return "", ""
    for line in _LINE_END.split(answer.decode(header.codec)):
        parts = line.split(header.delimiters[0])
        if parts[0] == "MSA":
            return (*parts[1:3], "", "")[0], (*parts[1:3], "", "")[1]
    return "", ""


def _type(header: Header, component: str) -> str:
    event = header.value(9, 2)
    if header.version < (2, 4) or not event:
        return "ACK"
    return component.join(("ACK", event[:10], "ACK"))


def _error(header: Header, fault: Fault) -> str:
    separator, component, *_ = list(header.delimiters)
    name = CONDITIONS.get(fault.condition, "")
    code = component.join((fault.condition, name, "HL70357"))
    text = _escaped(fault.text, header.delimiters)
    location = _location(fault.place, component)
    return separator.join(("ERR", "", location, code, fault.severity, "", "", text, text))


def _old_error(header: Header, faults: Sequence[Fault]) -> str:
    """ERR-1 of versions before 2.5: segment, sequence, field, and the code in its subcomponents."""
    if not faults:
        return ""
    separator, component, repetition, _, sub = list(header.delimiters)
    told = []
    for fault in faults:
        segment, nth, field = (*_location(fault.place, component).split(component), "", "", "")[:3]
        code = sub.join((fault.condition, CONDITIONS.get(fault.condition, ""), "HL70357"))
        told.append(component.join((segment, nth, field, code)))
    return separator.join(("ERR", repetition.join(told)))


def _location(place: str, component: str) -> str:
    """``OBX[3]-5.1`` as ERL: segment, which of its name, field, repetition, component.

    ``OBX^3^5`` is one already.
    """
    if "^" in place:
        return component.join(place.split("^"))
    found = _PLACE.fullmatch(place)
    if found is None:
        return ""
    parts = [found["segment"], found["nth"] or "1"]
    if found["field"]:
        parts.append(found["field"])
    if found["component"]:
        parts += ["1", found["component"]]
    return component.join(parts)


def _escaped(text: str, delimiters: str) -> str:
    """Return ``text`` in ASCII, with what delimits as escape sequences."""
    plain = text.encode("ascii", "replace").decode("ascii")
    plain = re.sub(r"[\x00-\x1f\x7f]", " ", plain)
    names = dict(zip(delimiters, "FSRET", strict=False))
    escape = delimiters[3]
    return "".join(f"{escape}{names[one]}{escape}" if one in names else one for one in plain)


def _bounded(text: str) -> str:
    return text[:ECHOED_CHARACTERS_MAX]
