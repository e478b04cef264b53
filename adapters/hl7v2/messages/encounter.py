"""What an ADT event does to an Encounter: status, class, locations and their histories.

HL7 v2.5.1, chapter 3; design/hl7v2.md, section 12, the table of ADT events.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from adapters.hl7v2.changes import Change, Merging

Json = dict[str, Any]

KEPT = ""
BY_CLASS = "by class"


@dataclass(frozen=True, slots=True)
class Event:
    """What an event does: the status it brings, and what it does to locations and the rest."""

    status: str = KEPT
    finish: Callable[[Json, str], None] | None = None


def _discharged(resource: Json, when: str) -> None:
    for place in resource.get("location", ()):
        if place.get("status") == "active":
            place["status"] = "completed"


def _back_in(resource: Json, when: str) -> None:
    period = resource.get("period", {})
    period.pop("end", None)
    if not period:
        resource.pop("period", None)
    hospitalization = resource.get("hospitalization", {})
    hospitalization.pop("dischargeDisposition", None)
    if not hospitalization:
        resource.pop("hospitalization", None)
    for place in resource.get("location", ()):
        if _is_of(place, "pv1-3"):
            place["status"] = "active"


def _without(field: str) -> Callable[[Json, str], None]:
    def finish(resource: Json, when: str) -> None:
        _keep_locations(resource, lambda place: not _is_of(place, field))

    return finish


def _without_planned_end(resource: Json, when: str) -> None:
    url = "http://hl7.org/fhir/5.0/StructureDefinition/extension-Encounter.plannedEndDate"
    kept = [one for one in resource.get("extension", ()) if one.get("url") != url]
    _set_list(resource, "extension", kept)


def _departed(resource: Json, when: str) -> None:
    for place in resource.get("location", ()):
        if _is_of(place, "pv1-11"):
            place["status"] = "completed"


def _is_of(place: Json, field: str) -> bool:
    return str(place.get("id", "")).startswith(field + ".")


def _keep_locations(resource: Json, wanted: Callable[[Json], bool]) -> None:
    _set_list(resource, "location", [one for one in resource.get("location", ()) if wanted(one)])


def _set_list(resource: Json, name: str, members: list[Json]) -> None:
    if members:
        resource[name] = members
    else:
        resource.pop(name, None)


EVENTS: dict[str, Event] = {
    "A01": Event(BY_CLASS),
    "A04": Event(BY_CLASS),
    "A05": Event("planned"),
    "A14": Event("planned"),
    "A26": Event(KEPT, _without("pv1-42")),
    "A25": Event(KEPT, _without_planned_end),
    "A03": Event("finished", _discharged),
    "A13": Event("in-progress", _back_in),
    "A11": Event("cancelled"),
    "A27": Event("cancelled"),
    "A38": Event("cancelled"),
    "A23": Event("entered-in-error"),
    "A06": Event(BY_CLASS),
    "A07": Event(BY_CLASS),
    "A09": Event(KEPT, _departed),
    "A33": Event(KEPT),
    "A32": Event(KEPT, _without("pv1-11")),
    "A21": Event("onleave"),
    "A53": Event("onleave"),
    "A22": Event("in-progress"),
    "A52": Event("in-progress"),
}


def finishing(event: str, by_class: str, when: str) -> Merging:
    """Return the function that finishes an Encounter after ``event``.

    ``by_class`` is the status that PV1 itself gives; ``when`` the time of the event, or "".
    A late statement changes neither status nor locations that are there.
    """
    rule = EVENTS.get(event, Event())

    def finish(resource: Json, change: Change, late: bool) -> None:
        before = resource.get("status")
        if late and before:
            return
        status = rule.status
        if status == BY_CLASS or (status == KEPT and before is None):
            status = by_class
        elif status == KEPT:
            status = "finished" if by_class == "finished" else str(before)
        if before and before != status:
            _remember(resource, "statusHistory", "status", before, when)
        resource["status"] = status
        if rule.finish:
            rule.finish(resource, when)

    return finish


def _remember(resource: Json, history: str, name: str, old: Any, when: str) -> None:
    """Add an entry to a history: what was, until ``when``."""
    entries = resource.setdefault(history, [])
    start = entries[-1]["period"].get("end") if entries else None
    start = start or resource.get("period", {}).get("start")
    period = {key: time for key, time in (("start", start), ("end", when)) if time}
    if period:
        entries.append({name: old, "period": period})
    if not entries:
        del resource[history]


def reclassed(event: str, new: Json | None, when: str) -> Merging:
    """Return the function that sets the class, and after A06 or A07 remembers the one before."""

    def finish(resource: Json, change: Change, late: bool) -> None:
        old = resource.get("class")
        if new is None or (late and old):
            return
        if event in ("A06", "A07") and old and old.get("code") != new.get("code"):
            _remember(resource, "classHistory", "class", old, when)
        resource["class"] = new

    return finish


WAS = "pv1-3-was"


def transferred(event: str, place: Json | None, when: str) -> Merging:
    """Return the function that puts PV1-3 into the locations, as A02 and A12 want it.

    A02: the location before becomes completed and stays. A12: the patient is back at PV1-3, and
    the location of the cancelled transfer goes. Any other event replaces the current location.
    """

    def finish(resource: Json, change: Change, late: bool) -> None:
        if place is None:
            return
        locations = resource.get("location", [])
        current = [one for one in locations if _is_of(one, "pv1-3")]
        others = [one for one in locations if not _is_of(one, "pv1-3")]
        if late and current:
            return
        if event == "A02" and current and not _same_place(current[0], place):
            past = {**current[0], "status": "completed", "id": f"{WAS}.{_count(others) + 1}"}
            if when:
                past["period"] = {**past.get("period", {}), "end": when}
            others.append(past)
        if event == "A12":
            others = [one for one in others if not (_is_of(one, WAS) and _same_place(one, place))]
        resource["location"] = [*others, {"id": "pv1-3.1", **place}]

    return finish


def _count(places: list[Json]) -> int:
    return sum(_is_of(one, WAS) for one in places)


def _same_place(left: Json, right: Json) -> bool:
    return bool(left.get("location") == right.get("location"))
