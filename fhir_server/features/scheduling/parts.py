"""The parts of an extension, with their places: what cannot be used is said, never passed over.

https://hl7.org/fhir/R4/extensibility.html. Pure.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from decimal import Decimal
from functools import lru_cache
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from fhir_server.outcome import FhirError, Issue, shown
from fhir_server.r4.dates import date_range
from fhir_server.r4.references import target

Json = Mapping[str, Any]
NEVER = datetime(9999, 12, 29, tzinfo=UTC)
YEARS = range(1900, 9000)
"""In which something may be looked for or booked: buffers and series have time around them."""
NEARER = "a date that lies nearer"
T = TypeVar("T")

# https://hl7.org/fhir/R4/valueset-units-of-time.html, without what is shorter than a minute and
# what has no fixed length.
_MINUTES = {"min": 1, "h": 60, "d": 1440, "wk": 10_080}
_IN_WORDS = {
    "minute": "min",
    "minutes": "min",
    "hour": "h",
    "hours": "h",
    "day": "d",
    "days": "d",
    "week": "wk",
    "weeks": "wk",
}
_TIME = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9])(?:\.[0-9]+)?)?")
_ZONE = re.compile(r"[A-Za-z0-9_+-]{1,40}(?:/[A-Za-z0-9_+-]{1,40}){0,2}")


@dataclass(frozen=True, slots=True)
class Part:
    """An element ``value`` of the resource ``owner`` (``Schedule/1``), at ``place``."""

    owner: str
    place: str
    value: Json

    def parts(self, url: str = "") -> list["Part"]:
        """Return the extensions inside, those called ``url`` if it is given."""
        inside = self.value.get("extension")
        return [
            Part(self.owner, f"{self.place}.extension[{number}]", one)
            for number, one in enumerate(inside if isinstance(inside, list) else ())
            if isinstance(one, dict) and (not url or one.get("url") == url)
        ]

    @property
    def name(self) -> str:
        """The url of this extension."""
        return str(self.value.get("url", ""))


def whole(resource: Json) -> Part:
    """Return ``resource`` as a part of itself."""
    type = str(resource.get("resourceType", ""))
    return Part(f"{type}/{resource.get('id', '')}", type, resource)


@dataclass(slots=True)
class Faults:
    """What was found that cannot be used, as issues."""

    issues: list[Issue] = field(default_factory=list)

    def add(self, part: Part, text: str) -> None:
        """Say that ``part`` cannot be used; ``text`` goes on behind its owner."""
        self.issues.append(Issue("extension", f"{part.owner}: {text}", part.place))

    def one(self, found: Sequence[Part], name: str) -> Part | None:
        """Return the part ``name`` of ``found``; of several the first, and that is a fault."""
        named = [one for one in found if one.name == name]
        if len(named) > 1:
            self.add(named[1], f"{name} is there {len(named)} times; once is possible.")
        return named[0] if named else None

    def read(self, part: Part | None, reader: Callable[[Part], T], default: T) -> T:
        """Return what ``reader`` makes of ``part``; ``default`` for none and where it cannot."""
        if part is None:
            return default
        try:
            return reader(part)
        except ValueError as error:
            self.add(part, f"{part.name} {error}")
            return default


def minutes(least: int, most: int) -> Callable[[Part], int]:
    """Return what reads a Duration as minutes from ``least`` to ``most``.

    https://hl7.org/fhir/R4/datatypes.html#Duration
    """

    def read(part: Part) -> int:
        value = part.value.get("valueDuration")
        if not isinstance(value, dict) or value.get("comparator"):
            raise ValueError("is no valueDuration without comparator.")
        said = value.get("code") or value.get("unit")
        unit = _MINUTES.get(_IN_WORDS.get(str(said), str(said)))
        if unit is None:
            raise ValueError(f"has the unit {shown(said)}; expected min, h, d or wk.")
        number = value.get("value")
        if isinstance(number, bool) or not isinstance(number, int | Decimal | float):
            raise ValueError("has no value.")
        exact = Decimal(str(number)) * unit
        if not exact.is_finite() or not least <= exact <= most or exact != int(exact):
            raise ValueError(
                f"is {shown(str(number), most=20)} {said}; expected whole minutes from {least} to "
                f"{most:,}."
            )
        return int(exact)

    return read


def number(least: int, most: int) -> Callable[[Part], int]:
    """Return what reads a whole number from ``least`` to ``most``."""

    def read(part: Part) -> int:
        for name in ("valuePositiveInt", "valueUnsignedInt", "valueInteger"):
            value = part.value.get(name)
            if isinstance(value, int) and not isinstance(value, bool):
                if least <= value <= most:
                    return value
                raise ValueError(f"is {value}; expected {least} to {most:,}.")
        raise ValueError("has no valuePositiveInt.")

    return read


def text(part: Part) -> str:
    """Return the code or string of ``part``."""
    value = part.value.get("valueCode", part.value.get("valueString"))
    if not isinstance(value, str) or not value:
        raise ValueError("has no valueCode.")
    return value


def one_of(known: Sequence[str]) -> Callable[[Part], str]:
    """Return what reads one of the codes ``known``."""

    def read(part: Part) -> str:
        value = text(part)
        if value not in known:
            raise ValueError(f"is {shown(value)}; expected one of {', '.join(known)}.")
        return value

    return read


def zone(part: Part) -> ZoneInfo:
    """Return the time zone that ``part`` names, such as ``Asia/Dhaka``."""
    return zone_of(text(part))


@lru_cache(maxsize=1000)
def zone_of(name: str) -> ZoneInfo:
    """Return the time zone ``name``. Raises ``ValueError`` for what is none."""
    try:
        if _ZONE.fullmatch(name):
            return ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        pass  # a folder of zones, or none of that name
    raise ValueError(f"is {shown(name)}, no time zone such as Asia/Dhaka.")


def clock(said: object, *, is_end: bool = False) -> int:
    """Return the minutes since midnight of the time ``said``, ``09:30:00``.

    Seconds are cut inward: up for a beginning, down for an end. An end whose seconds are 59 is
    the last one that counts, as in ``23:59:59``.
    """
    found = _TIME.fullmatch(said) if isinstance(said, str) else None
    if found is None:
        raise ValueError(f"is {shown(said)}; expected a time such as 09:30:00.")
    hour, minute, second = (int(one or 0) for one in found.groups())
    late = second == 59 if is_end else second > 0
    return hour * 60 + minute + late


def period(local: ZoneInfo) -> Callable[[Part], tuple[datetime, datetime]]:
    """Return what reads a Period as ``[start, end)`` in UTC; a side that is absent is open.

    A date without time is a day of the zone ``local``, and the last one is part of it.
    """

    def read(part: Part) -> tuple[datetime, datetime]:
        value = part.value.get("valuePeriod")
        if not isinstance(value, dict) or not (value.get("start") or value.get("end")):
            raise ValueError("has no start and no end.")
        low = _bound(value.get("start", "0001"), local)[0]
        high = _bound(value.get("end", "9999"), local)[1]
        if high <= low:
            raise ValueError("ends before it starts.")
        return low, high

    return read


def _bound(said: object, local: ZoneInfo) -> tuple[datetime, datetime]:
    try:
        return moments(said if isinstance(said, str) else "", local)
    except FhirError as error:
        raise ValueError(f"has {shown(said)}, no dateTime.") from error


def moments(said: str, local: ZoneInfo) -> tuple[datetime, datetime]:
    """Return when the dateTime ``said`` begins and, as the last moment of a time, ends: of a date
    without time its local day (or month, or year), of an instant that instant twice.

    Raises ``value`` for what is no dateTime.
    """
    low, high = date_range(said)
    if "T" in said:
        return low, low
    return _local(low, local), _local(high, local)


def _local(moment: datetime, local: ZoneInfo) -> datetime:
    """Return midnight of the same date in ``local``, in UTC."""
    if not 2 <= moment.year <= 9998:
        return moment
    midnight = datetime.combine(moment.date(), time(0), local)
    return midnight.astimezone(moment.tzinfo)


def reference(element: object, type: str, bases: Sequence[str]) -> str:
    """Return the resource of ``type`` on this server that the Reference ``element`` points at, as
    ``HealthcareService/1``; ``""`` for none."""
    said = element.get("reference") if isinstance(element, dict) else None
    found = target(said, bases) if isinstance(said, str) else None
    return found.key if found is not None and found.id and found.type == type else ""
