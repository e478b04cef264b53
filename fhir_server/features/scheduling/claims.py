"""Who may have which times: what is wanted, against who is there. Pure.

Section 4 of design/scheduling.md. The documents are those of ``store/granules.py``. The plan writes
every granule that it looked at, so that of two plans about one granule only one is carried out.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from fhir_server.store.granules import Taken, granule_id

Document = dict[str, Any]

LIMIT = "limit|"
"""How the ids of granules begin that count the appointments of a day or a week."""


@dataclass(frozen=True, slots=True)
class Room:
    """How many may be at a time: ``count`` of ``schedule``, which is ``""`` for a patient.
    ``until`` is when the granule may be forgotten."""

    schedule: str
    count: int
    until: datetime


@dataclass(frozen=True, slots=True)
class Want:
    """What ``holder`` (``Appointment/1``) is to have: room in each granule, by id, and the
    ``slots`` that it stands for. ``expires`` is the end of a hold. ``overrides`` takes it where it
    is full."""

    holder: str
    rooms: Mapping[str, Room]
    end: datetime
    slots: Sequence[str] = ()
    expires: datetime | None = None
    overrides: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """A want that there is no room for: the granules, by id, and who has them."""

    holder: str
    full: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be written; ``displaced`` are holders whose hold had expired, ``refusals`` what
    there is no room for. ``overrode`` are holders who are there beyond what there is room for."""

    taken: Taken
    displaced: Collection[str] = ()
    refusals: Sequence[Refusal] = ()
    overrode: Collection[str] = ()


def granules_of(
    actor: str, start: datetime, end: datetime, granule: timedelta
) -> list[tuple[str, datetime]]:
    """Return id and end of the granules of ``actor`` that the time from ``start`` to ``end``
    touches: off-grid times are rounded outward."""
    moment = floored(start, granule)
    found = []
    while moment < end:
        found.append((granule_id(actor, moment), moment + granule))
        moment += granule
    return found


def floored(moment: datetime, granule: timedelta) -> datetime:
    """Return when the granule begins that ``moment`` lies in (UTC).

    >>> floored(datetime(2026, 1, 1, 9, 7, 30, tzinfo=UTC), timedelta(minutes=5)).minute
    5
    """
    hour = moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    return hour + (moment - hour) // granule * granule


def is_live(one: Mapping[str, Any], now: datetime) -> bool:
    """Whether a holder is there: booked, or with a hold that has not expired."""
    return one["x"] is None or one["x"] > now


def has_room(
    there: Mapping[str, Any] | None, room: Room, now: datetime, but: Collection[str] = ()
) -> bool:
    """Whether one more finds room in the granule ``there``, as if the holders ``but`` were gone."""
    if there is None:
        return True
    live = [one for one in there["h"] if is_live(one, now) and one["a"] not in but]
    return not live or (there["s"] == room.schedule and len(live) < min(there["k"], room.count))


@dataclass(slots=True)
class _State:
    """The granules as they become; what is not looked at is not in it."""

    there: Mapping[str, Document]
    now: datetime
    changed: dict[str, Document] = field(default_factory=dict)

    def at(self, id: str) -> Document | None:
        return self.changed.get(id) or self.there.get(id)

    def let_go(self, id: str, holders: Collection[str]) -> None:
        found = self.at(id)
        if found is not None:
            rest = [one for one in found["h"] if one["a"] not in holders]
            self.changed[id] = {**found, "h": rest}

    def put(self, id: str, room: Room, holder: Document) -> Iterator[str]:
        """Put ``holder`` there; yield who is displaced."""
        found = self.at(id)
        live = []
        for one in found["h"] if found is not None else ():
            if is_live(one, self.now):
                live.append(one)
            else:
                yield one["a"]
        counts = [room.count, *([found["k"]] if found is not None and live else [])]
        self.changed[id] = {
            "_id": id,
            "s": room.schedule,
            "k": min(counts),
            "t": room.until,
            "h": [*live, holder],
            "n": found["n"] if found is not None else 0,
        }

    def documents(self) -> dict[str, Document | None]:
        """Return what to write, each with another number: to write what is there already would not
        be seen by who does the same."""
        return {
            id: {**one, "n": one["n"] + 1} if one["h"] else None for id, one in self.changed.items()
        }


def claim_plan(
    wants: Sequence[Want],
    released: Iterable[str],
    granules: Mapping[str, Document],
    bookings: Mapping[str, Document],
    now: datetime,
) -> Plan:
    """Return what is to be written so that each of ``wants`` has what it wants, and those
    ``released`` have nothing any more.

    ``granules`` are those that are there of all that are wanted or released, ``bookings`` what
    holders have now; the holder of a want keeps nothing else. Two wants see each other.
    """
    state, gone = _State(granules, now), set(released)
    leaving = gone | {one.holder for one in wants}
    for holder in leaving:
        for id in bookings.get(holder, {}).get("g", ()):
            state.let_go(id, (holder,))
    displaced: set[str] = set()
    refusals, overrode = [], []
    written: dict[str, Document | None] = {one: None for one in gone if one in bookings}
    for want in wants:
        full = {
            id: [one["a"] for one in found["h"] if is_live(one, now)]
            for id, room in want.rooms.items()
            if (found := state.at(id)) is not None and not has_room(found, room, now)
        }
        if full and not want.overrides:
            refusals.append(Refusal(want.holder, full))
            continue
        if full:
            overrode.append(want.holder)
        there: Document = {"a": want.holder, "x": want.expires}
        for id, room in want.rooms.items():
            displaced.update(state.put(id, room, there))
        written[want.holder] = {
            "_id": want.holder,
            "g": sorted(want.rooms),
            "slots": sorted(want.slots),
            "t": want.end,
            "x": want.expires,
        }
    taken = Taken(state.documents(), written)
    return Plan(taken, displaced - leaving, refusals, overrode)
