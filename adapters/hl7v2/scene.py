"""What a converter knows beside its value: the message's sender, zone and charset; what it notes.

design/hl7v2.md, section 11.
"""

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import Any

from adapters.hl7v2.changes import Stamp, is_older
from adapters.hl7v2.issues import Issue
from adapters.hl7v2.message import Message, Segment, Value
from adapters.hl7v2.senders import Profile
from adapters.hl7v2.times import Zone, moment
from adapters.hl7v2.vocabulary import uri_part


@dataclass(slots=True)
class Scene:
    """One message on its way into changes."""

    message: Message
    profile: Profile
    sender: str  # the name of the profile, else of the sending application or facility
    facility: str  # urn of the sender's own numbers
    zone: Zone
    stamp: Stamp
    arrived: str = ""
    issues: list[Issue] = dataclasses.field(default_factory=list)
    codes: Counter[tuple[str, str, str]] = dataclasses.field(default_factory=Counter)
    memo: dict[Any, Any] = dataclasses.field(default_factory=dict)  # what converters made
    # (type, system, value) of who and what is named, for the directory, and what else is said of it
    directory: dict[tuple[str, str, str], dict[str, Any]] = dataclasses.field(default_factory=dict)
    held: str = ""  # why a person must decide before the message is applied
    _segment: Segment | None = None
    _number: int = 0

    def note(self, code: str, text: str, severity: str = "warning") -> None:
        """Note something about the field that is being read."""
        self.issues.append(Issue(severity, code, self.where, text))

    def at(self, segment: Segment, number: int) -> None:
        """Say which field is being read."""
        self._segment = segment
        self._number = number

    @property
    def where(self) -> str:
        """The field that is being read: ``OBX[3]-5``."""
        return f"{self._segment.where}-{self._number}" if self._segment else ""

    @property
    def field(self) -> str:
        """The field without the number of the segment: ``OBX-5``."""
        return f"{self._segment.name}-{self._number}" if self._segment else ""


def scene_of(message: Message, profile: Profile, arrived: str = "") -> Scene:
    """Return the scene of ``message``."""
    header = message.header
    application, facility = header.text(3), header.text(4)
    own = uri_part(facility or application or "unknown")
    zone = Zone(profile.zone, _offset_of(header.text(7)), profile.server_zone)
    sent = moment(header.text(7), zone) or ""
    said = moment(message.text("EVN", 2), zone) or ""
    return Scene(
        message,
        profile,
        profile.name or application or facility or "unknown",
        f"urn:hl7v2:facility:{own}",
        zone,
        Stamp(_not_later(said, arrived), _not_later(sent, arrived)),
        arrived,
    )


def _offset_of(text: str) -> str:
    return text[-5:] if len(text) > 5 and text[-5] in "+-" else ""


def _not_later(text: str, arrived: str) -> str:
    """Return ``text``, or the time of arrival if ``text`` is in the future."""
    return arrived if arrived and text and _is_later(text, arrived) else text


def _is_later(text: str, arrived: str) -> bool:
    return is_older(Stamp(sent=arrived), Stamp(sent=text))


def stamped(scene: Scene, said: Value | None) -> Stamp:
    """Return the stamp of a statement with a time of its own, such as OBR-22."""
    text = moment(said[1], scene.zone) if said else None
    return Stamp(_not_later(text or "", scene.arrived), scene.stamp.sent)
