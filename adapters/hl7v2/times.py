"""Times of v2 to those of FHIR: precision kept, offset as sent, nothing invented.

HL7 v2.5.1, 2.A.22 (DTM); design/hl7v2.md, section 15.

=====================  ==========================================
``1984``, ``198407``   ``1984``, ``1984-07``
``1984071213``         ``1984-07-12T13:00:00`` and the offset
``…+0545``             ``…+05:45``, not turned into ``Z``
=====================  ==========================================
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from adapters.hl7v2.remembering import remembered

_TIME = re.compile(
    r"(\d{4})(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(?:(\d\d)(\.\d{1,9})?)?)?)?)?)?([+-]\d{4})?",
    re.ASCII,
)
_CLOCK = re.compile(r"(\d\d)(?:(\d\d)(?:(\d\d)(\.\d{1,9})?)?)?([+-]\d{4})?", re.ASCII)
_CUTS = {"Y": 4, "L": 6, "D": 8, "H": 10, "M": 12}
_OFFSET_MINUTES_MAX = 14 * 60


@dataclass(frozen=True, slots=True)
class Zone:
    """What a time without an offset means: the sender's zone, the header's offset, the server's
    zone. ``header`` is ``+0600`` or "". An unknown zone counts as none."""

    sender: str = ""
    header: str = ""
    server: str = "UTC"


@remembered(2048)
def moment(text: str, zone: Zone, precision: str = "") -> str | None:
    """Return a v2 time as a FHIR dateTime; None if it is none.

    ``precision`` is TS.2: Y, L, D, H or M cut. A date never gets a time.
    """
    found = _TIME.fullmatch(text.strip())
    if not found:
        return None
    year, month, day, hour, minute, second, fraction, offset = found.groups()
    length = _CUTS.get(precision, 14)
    if length < 14:
        parts = [year, month, day, hour, minute]
        year, month, day, hour, minute = (
            part if part and at <= length else None
            for part, at in zip(parts, (4, 6, 8, 10, 12), strict=True)
        )
        second = fraction = None
    try:
        wall = datetime(
            int(year or 0), int(month or 1), int(day or 1),
            int(hour or 0), int(minute or 0), int(second or 0), tzinfo=UTC,
        ).replace(tzinfo=None)  # fmt: skip
    except ValueError:
        return None
    if hour is None:
        return "-".join(part for part in (year, month, day) if part)
    written = _offset(offset) if offset else _offset_at(wall, zone)
    if written is None:
        return None
    shifted, mark = written if isinstance(written, tuple) else (wall, written)
    return f"{shifted.isoformat(timespec='seconds')}{fraction or ''}{mark}"


@remembered(2048)
def is_unclear(text: str, zone: Zone) -> bool:
    """Return whether the hour of ``text`` comes twice, or not at all, in its zone."""
    found = _TIME.fullmatch(text.strip())
    if not found or not found[4] or found[8]:
        return False
    info = _info(_meant(zone))
    if info is None:
        return False
    try:
        year, month, day, hour, minute, second = (int(found[n] or 0) for n in range(1, 7))
        wall = datetime(year, month, day, hour, minute, second, tzinfo=info)
    except ValueError:
        return False
    return wall.utcoffset() != wall.replace(fold=1).utcoffset()


def _offset(text: str) -> str | None:
    minutes = int(text[1:3]) * 60 + int(text[3:])
    if minutes > _OFFSET_MINUTES_MAX or int(text[3:]) > 59:
        return None
    return f"{text[:3]}:{text[3:]}"


@lru_cache(maxsize=256)
def _info(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def _meant(zone: Zone) -> str:
    if _info(zone.sender):
        return zone.sender
    return "" if zone.header else zone.server


def _offset_at(wall: datetime, zone: Zone) -> str | tuple[datetime, str] | None:
    """Return the offset that a wall clock without one has; with another clock for a skipped hour.

    The sender's zone counts unless the header says another offset at that instant.
    """
    info = _info(zone.sender)
    header = _offset(zone.header) if zone.header else None
    if info is not None:
        own = _in_zone(wall, info)
        if header is None or header == own[1]:
            return own
    if header is not None:
        return header
    return _in_zone(wall, _info(zone.server) or ZoneInfo("UTC"))


def _in_zone(wall: datetime, info: ZoneInfo) -> tuple[datetime, str]:
    local = wall.replace(tzinfo=info)
    try:
        real = local.astimezone(UTC).astimezone(info)
    except OverflowError:
        real = local
    # A skipped hour is the later one; a repeated hour is the first.
    shown = real if real.replace(tzinfo=None) != wall else local
    return shown.replace(tzinfo=None), offset_text(shown.utcoffset() or timedelta())


def offset_text(offset: timedelta) -> str:
    """Return an offset as FHIR writes it; seconds of old local times are cut."""
    minutes = int(offset.total_seconds() // 60)
    sign = "-" if minutes < 0 else "+"
    hours, rest = divmod(abs(minutes), 60)
    return f"{sign}{hours:02d}:{rest:02d}"


def clock(text: str) -> str | None:
    """Return a v2 time of day as FHIR's time; None if it is none. An offset is left out.

    >>> clock("2231"), clock("2460")
    ('22:31:00', None)
    """
    found = _CLOCK.fullmatch(text.strip())
    if not found:
        return None
    hour, minute, second, fraction, _ = found.groups()
    if int(hour) > 23 or int(minute or 0) > 59 or int(second or 0) > 59:
        return None
    return f"{hour}:{minute or '00'}:{second or '00'}{fraction or ''}"


def later(start: str, seconds: float) -> str:
    """Return the FHIR dateTime ``seconds`` after ``start``, with the offset of ``start``."""
    moved = datetime.fromisoformat(start) + timedelta(seconds=seconds)
    return moved.isoformat()
