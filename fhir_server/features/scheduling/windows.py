"""When a service is open: weekly windows, and periods in which it is not. Pure.

https://hl7.org/fhir/R4/healthcareservice.html: ``availableTime``, ``notAvailable``; the extension
``availability`` of a Schedule is nested in the same way. ``availabilityExceptions`` is text, shown
and never computed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from fhir_server.features.scheduling.parts import NEVER, Faults, Part, clock, period, whole

Json = Mapping[str, Any]
Span = tuple[datetime, datetime]

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY = 1440
_WINDOWS_MAX = 100


@dataclass(frozen=True, slots=True)
class Window:
    """Open on ``days`` (0 is Monday) of the local date on which it starts, from ``start`` to before
    ``end`` in minutes since midnight; an end above 1440 is on the next day."""

    days: frozenset[int]
    start: int
    end: int


def not_available(
    said: Sequence[Part], service: Json | None, local: ZoneInfo, faults: Faults
) -> Iterator[Span]:
    """Yield when nothing is open, whoever says so; what names no time is text for people."""
    for part in said:
        for one in part.parts("notAvailableTime"):
            for during in one.parts("during"):
                yield faults.read(during, period(local), (NEVER, NEVER))
    for place, one in _elements(service, "notAvailable"):
        if "during" in one.value:
            element = {"url": "notAvailable.during", "valuePeriod": one.value["during"]}
            part = Part(one.owner, f"{place}.during", element)
            yield faults.read(part, period(local), (NEVER, NEVER))


def windows_of(
    said: Sequence[Part], service: Json | None, *, always: bool, faults: Faults
) -> tuple[Window, ...]:
    """Return when it is open: by the parameters ``availability`` (``said``), else as the
    HealthcareService says; ``always``, or else never, where that says nothing."""
    for part in said:
        if part.owner.startswith("HealthcareService/"):
            faults.add(part, "availability is no parameter here; say it in availableTime.")
    found = [one for part in said for one in _available(part, faults)]
    if not said:
        if always and "availableTime" not in (service or {}):
            return (Window(frozenset(range(7)), 0, DAY),)
        for _, one in _elements(service, "availableTime"):
            found += _window(one, one.value, faults)
    if len(found) > _WINDOWS_MAX:
        text = f"there are {len(found)} windows; {_WINDOWS_MAX} are possible."
        faults.add(said[0] if said else whole(service or {}), text)
    return tuple(found[:_WINDOWS_MAX])


def _elements(resource: Json | None, name: str) -> Iterator[tuple[str, Part]]:
    """Yield the objects of the list ``name``, each with its place."""
    owner = whole(resource or {})
    found = owner.value.get(name)
    for index, one in enumerate(found if isinstance(found, list) else ()):
        if isinstance(one, dict):
            place = f"{owner.place}.{name}[{index}]"
            yield place, Part(owner.owner, place, one)


def _available(part: Part, faults: Faults) -> Iterator[Window]:
    """Yield the windows of an extension ``availability``, nested as the element is."""
    if "extension" not in part.value:
        faults.add(part, "availability has no availableTime inside.")
    for one in part.parts():
        if one.name == "notAvailableTime":
            continue
        if one.name != "availableTime":
            faults.add(one, f"availability has no part {one.name[:40]!r}.")
            continue
        said: dict[str, Any] = {}
        for inside in one.parts():
            value = next((v for k, v in inside.value.items() if k.startswith("value")), None)
            if inside.name == "daysOfWeek":
                said.setdefault("daysOfWeek", []).append(value)
            else:
                said[inside.name] = value
        yield from _window(one, said, faults)


def _window(part: Part, said: Json, faults: Faults) -> Iterator[Window]:
    """Yield the window that ``said`` is, in the form of ``HealthcareService.availableTime``.

    Without days it is every day. https://hl7.org/fhir/R4/healthcareservice.html
    """
    days = said.get("daysOfWeek") or DAYS
    unknown = [one for one in days if one not in DAYS]
    if unknown:
        faults.add(
            part, f"availableTime has the day {str(unknown[0])[:20]!r}; expected mon to sun."
        )
        return
    numbers = frozenset(map(DAYS.index, days))
    if said.get("allDay") is True:
        yield Window(numbers, 0, DAY)
        return
    try:
        start = clock(said.get("availableStartTime"))
        end = clock(said.get("availableEndTime"), is_end=True)
    except ValueError as error:
        text = (
            f"availableTime needs availableStartTime and availableEndTime, or allDay: one {error}"
        )
        faults.add(part, text)
        return
    yield Window(numbers, start, end if end > start else end + DAY)
