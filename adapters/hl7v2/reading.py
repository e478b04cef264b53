"""What arrives, read: judged by its header, decoded, cut into segments, mapped. Waits for nothing.

design/hl7v2.md, sections 4 and 5. A refusal is a :class:`MessageFault`; ``refused`` says that the
reason lies outside of the content (AR), and the row is rejected.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from adapters.hl7v2.ack import ECHOED_CHARACTERS_MAX, Asked, Header, asked
from adapters.hl7v2.charset import decoded, marked
from adapters.hl7v2.issues import Issue, MessageFault
from adapters.hl7v2.message import Message, read
from adapters.hl7v2.messages import changes_of
from adapters.hl7v2.permissions import is_bound, may_use
from adapters.hl7v2.plan import Report
from adapters.hl7v2.senders import Profile, chosen, is_receiver

PRODUCTION, PROCESSING = ("P",), ("P", "T", "D")
_VERSION = re.compile(r"2(\.\d+){0,3}")
_FIRST_LINE = re.compile(rb"[\r\n]")
_LINE_ENDS = re.compile(rb"[\r\n]+")
_ABOUT_PATIENTS = frozenset(
    ("ADT", "ORU", "ORM", "OML", "OMG", "OMP", "RDE", "RDS", "RAS", "VXU", "MDM", "DFT", "BAR")
)
_UNKNOWN = "The sender (MSH-3, MSH-4) has no profile here."
# Who comes by these is somebody else; a file in the folder, and a dry run, are of this site.
_LISTENED = ("mllp", "mllps", "http")


class ForeignFault(MessageFault):
    """A peer has sent as a sender that it may not use."""

    def __init__(self) -> None:
        text = "This peer may not send as this sender (MSH-3, MSH-4)."
        super().__init__(207, "MSH[1]-3", text, refused=True)


@dataclass(frozen=True, slots=True)
class Arrival:
    """What arrived: the bytes of one message without its frame, from whom, and when (UTC).

    ``transport`` is mllp, mllps, http or file; ``charset`` that of a Content-Type. ``fault`` and
    ``size`` are those of a :class:`Frame`. ``bound`` are the names of a client certificate.
    """

    data: bytes
    peer: str
    transport: str
    received: datetime
    charset: str = ""
    fault: str = ""
    size: int = 0
    bound: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Item:
    """A message that could be read. ``id`` and ``sequence`` are those of its row."""

    arrival: Arrival
    header: Header
    asked: Asked
    message: Message
    report: Report
    profile: Profile
    codec: str
    key: str
    digest: bytes
    issues: tuple[Issue, ...] = ()
    id: str = ""
    sequence: int = 0
    force: bool = False

    @property
    def patients(self) -> Sequence[str]:
        """The keys in whose order it is applied."""
        return self.report.partitions


class Readers:
    """Reads messages by the settings of the server and the profiles of the senders."""

    def __init__(self, settings: Any) -> None:
        """Begin with no profiles."""
        self.settings = settings
        self.profiles: tuple[Profile, ...] = ()
        self._usual = Profile(
            server_zone=settings.hl7_time_zone, charset_fallback=settings.hl7_charset_fallback
        )

    def item(
        self,
        arrival: Arrival,
        header: Header | None,
        *,
        judged: bool = True,
        zone: str = "",
        sender: str = "",
    ) -> Item:
        """Return what ``arrival`` is. ``judged`` has it refused by its header as at the door;
        ``zone`` goes before the sender's; ``sender`` names the profile, whatever the header says.
        """
        profile = self.named(sender) or (self.profile_of(header) if header else None)
        if judged:
            self._judge(arrival, header, profile)
        if header is None:
            raise MessageFault(100, "MSH", "There is no message header (MSH).", refused=True)
        profile = profile or self._usual
        if zone:
            profile = replace(profile, zone=zone)
        text = decoded(
            arrival.data,
            content_type_charset=arrival.charset,
            sender_charset=profile.charset,
            strict=profile.charset_strict,
            fallback=profile.charset_fallback,
        )
        message = read(text.text, codec=text.codec, segments_max=self.settings.hl7_segments_max)
        self._check_whole(message)
        arrived = f"{arrival.received:%Y-%m-%dT%H:%M:%S}.000Z"
        report = changes_of(message, profile, arrived=arrived)
        if report.fault is None and message.type in _ABOUT_PATIENTS and not message.all("PID"):
            lacks = "The message has no patient (PID), and its type needs one."
            report = replace(report, fault=MessageFault(100, "PID", lacks))
        if judged and report.fault is not None and report.fault.refused:
            raise report.fault
        return Item(
            arrival,
            header,
            asked(header),
            message,
            report,
            profile,
            text.codec,
            key_of(header),
            digest_of(arrival.data),
            text.issues,
        )

    def named(self, name: str) -> Profile | None:
        """Return the profile called ``name``; ``None`` if there is none."""
        return next((one for one in self.profiles if name and one.name == name), None)

    def profile_of(self, header: Header) -> Profile | None:
        """Return the profile of the sender, the most exact match first; ``None`` without one."""
        return chosen(self.profiles, header.value(3), header.value(4)) if self.profiles else None

    def judge(self, arrival: Arrival, header: Header) -> None:
        """Raise what a message is refused for at the door, its content aside."""
        self._judge(arrival, header, self.profile_of(header))

    def _judge(self, arrival: Arrival, header: Header | None, profile: Profile | None) -> None:
        """Raise what is wrong with the frame, the header, or who sends it."""
        if header is None:
            text = "The message does not begin with a message header (MSH)."
            raise MessageFault(100, "", text, refused=True)
        if arrival.fault == "large":
            limit = self.settings.hl7_message_bytes_max
            text = f"The message has {arrival.size:,} bytes; the limit is {limit:,}."
            raise MessageFault(207, "", text, refused=True)
        if arrival.fault:
            text = "The frame was not ended before the next one began."
            raise MessageFault(100, "", text, refused=True)
        if not header.control_id:
            text = "The message has no control id (MSH-10)."
            raise MessageFault(101, "MSH[1]-10", text, refused=True)
        if len(header.control_id) > ECHOED_CHARACTERS_MAX:
            text = f"The control id (MSH-10) is over {ECHOED_CHARACTERS_MAX} characters."
            raise MessageFault(102, "MSH[1]-10", text, refused=True)
        if profile is None and not self.settings.is_taking_any_sender:
            raise MessageFault(207, "MSH[1]-3", _UNKNOWN, refused=True)
        if not self.is_of_peer(arrival, profile):
            raise ForeignFault
        self._judge_versions(header, profile)

    def is_of_peer(self, arrival: Arrival, profile: Profile | None) -> bool:
        """Whether who sent ``arrival`` may send as the sender of ``profile``.

        A client certificate that any profile lists binds its connection to the senders that list
        it.
        """
        if arrival.transport not in _LISTENED:
            return True
        if profile is not None and not may_use(profile.peers, arrival.peer, arrival.bound):
            return False
        if not arrival.bound or (profile is not None and is_bound(profile.peers, arrival.bound)):
            return True
        return not any(is_bound(one.peers, arrival.bound) for one in self.profiles)

    def _judge_versions(self, header: Header, profile: Profile | None) -> None:
        accept: Mapping[str, Any] = profile.accept if profile else {}
        usual = PROCESSING if self.settings.mode == "development" else PRODUCTION
        processing = header.value(11) or "P"
        if processing not in accept.get("processing", usual):
            text = "The processing id (MSH-11) is not accepted of this sender."
            raise MessageFault(202, "MSH[1]-11", text, refused=True)
        version = header.value(12)
        if version and not _VERSION.fullmatch(version):
            text = "The version (MSH-12) is none of HL7 version 2."
            raise MessageFault(203, "MSH[1]-12", text, refused=True)
        listed = accept.get("types")
        type = f"{header.value(9)}^{header.value(9, 2)}"
        if listed is not None and type not in listed and header.value(9) not in listed:
            text = "The profile of the sender does not list this type of message (MSH-9)."
            raise MessageFault(201, "MSH[1]-9", text, refused=True)
        if header.value(9).upper() == "QBP" and not accept.get("query", False):
            text = "The profile of the sender does not allow queries (accept.query)."
            raise MessageFault(201, "MSH[1]-9", text, refused=True)
        receivers = accept.get("receivers")
        if receivers is not None and not is_receiver(receivers, header.value(5), header.value(6)):
            text = "The receiver (MSH-5, MSH-6) is none of those that this sender's profile lists."
            raise MessageFault(207, "MSH[1]-5", text, refused=True)

    def _check_whole(self, message: Message) -> None:
        """Raise for half a message. Some senders value MSH-14 for no reason: what has a patient is
        not the rest of another message."""
        if message.header.raw(14).strip() and not message.all("PID"):
            text = "A message in pieces (MSH-14) is not put together here; send it whole."
            raise MessageFault(100, "MSH[1]-14", text)
        limit = self.settings.hl7_field_repetitions_max
        mark = message.delimiters.repetition
        for segment in message.segments:
            if segment.name == "DSC":
                text = "A message in pieces (DSC) is not put together here; send it whole."
                raise MessageFault(100, "DSC", text)
            if mark and any(field.count(mark) >= limit for field in segment.fields[3:]):
                text = f"A field of {segment.where} is repeated more than {limit:,} times."
                raise MessageFault(207, segment.where, text, refused=True)


def mapped(item: Item) -> Item:
    """Return ``item`` mapped again, with the rules of today."""
    return replace(item, report=changes_of(item.message, item.profile))


def key_of(header: Header) -> str:
    """Return what names a message among all: facility, application, control id."""
    return f"{header.value(4)}|{header.value(3)}|{header.control_id}"


def digest_of(data: bytes) -> bytes:
    """Return SHA-256 of the segments without MSH-7 and MSH-13, whatever ended them."""
    if (codec := marked(data)) != "latin-1":
        data = data.decode(codec, "replace").encode()
    data = data.strip(b"\r\n\t \x0b\x1c")
    first = _FIRST_LINE.search(data)
    end = first.start() if first else len(data)
    fields = data[:end].split(data[3:4] or b"|")
    for place in (6, 12):
        if place < len(fields):
            fields[place] = b""
    digest = hashlib.sha256(b"|".join(fields))
    digest.update(_LINE_ENDS.sub(b"\r", data[end:]))
    return digest.digest()


def known(arrival: Arrival, header: Header | None, item: Item | None = None) -> dict[str, Any]:
    """Return the members of a row that tell of the message as it arrived.

    What was too large is kept without its text.
    """
    found: dict[str, Any] = {
        "received": arrival.received,
        "peer": arrival.peer,
        "transport": arrival.transport,
        "size": arrival.size or len(arrival.data),
    }
    if item is None:
        found |= {"raw": b"" if arrival.fault == "large" else arrival.data}
        found |= {"digest": digest_of(arrival.data), "charset": arrival.charset}
    else:
        found |= {"digest": item.digest, "charset": item.codec}
    if header is not None:
        found |= {
            "key": key_of(header) if header.control_id else "",
            "sender": (item.profile.name if item else "") or _sender(header),
            "type": "^".join(filter(None, (header.value(9), header.value(9, 2))))[:20],
            "version": header.value(12)[:10],
            "control_id": header.control_id[:ECHOED_CHARACTERS_MAX],
        }
    return found


def _sender(header: Header) -> str:
    return f"{header.value(4)}|{header.value(3)}"[:200]
