"""design/scheduling.md, section 4: what ``claim_plan`` lets through, whatever is asked."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fhir_server.features.scheduling.claims import (
    Room,
    Want,
    claim_plan,
    granules_of,
    has_room,
    is_live,
)

NOON = datetime(2036, 1, 1, 12, tzinfo=UTC)
FIVE = timedelta(minutes=5)
ACTOR = "Practitioner/1"

Documents = dict[str, dict[str, Any]]


class Database:
    """Granules and bookings as the plans leave them."""

    def __init__(self) -> None:
        self.granules: Documents = {}
        self.bookings: Documents = {}

    def ask(self, wants: list[Want], released: set[str], now: datetime) -> tuple[str, ...]:
        """Carry out the plan, if nothing is refused; return who is refused."""
        plan = claim_plan(wants, released, self.granules, self.bookings, now)
        if plan.refusals:
            return tuple(one.holder for one in plan.refusals)
        for kept, written in (
            (self.granules, plan.taken.granules),
            (self.bookings, plan.taken.bookings),
        ):
            for id, document in written.items():
                if document is None:
                    kept.pop(id, None)
                else:
                    kept[id] = document
        if plan.displaced:
            self.ask([], set(plan.displaced), now)
        return ()


def want(holder: str, start: int, minutes: int, **more: Any) -> Want:
    """Return what ``holder`` wants, ``start`` minutes after noon."""
    begin = NOON + timedelta(minutes=start)
    end = begin + timedelta(minutes=minutes)
    schedule, count = more.pop("schedule", "Schedule/1"), more.pop("count", 1)
    rooms = {id: Room(schedule, count, until) for id, until in granules_of(ACTOR, begin, end, FIVE)}
    return Want(holder, rooms, end, **more)


STEPS = st.tuples(
    st.sampled_from(["take", "take", "take", "hold", "free"]),
    st.integers(0, 7),  # whose
    st.integers(0, 40),  # when
    st.integers(1, 40),  # how long
    st.sampled_from(["Schedule/1", "Schedule/1", "Schedule/2"]),
    st.integers(1, 3),  # capacity
)


@given(st.lists(STEPS, max_size=40))
def test_nobody_is_there_beyond_what_there_is_room_for(steps: list[Any]) -> None:
    """After any steps: in each granule at most as many as the smallest capacity asked for, of one
    Schedule; and each holder is where its booking says, and nowhere else."""
    database = Database()
    asked: dict[str, Want] = {}
    now = NOON
    for minute, (kind, who, start, minutes, schedule, count) in enumerate(steps):
        now = NOON + timedelta(minutes=minute)
        holder = f"Appointment/{who}"
        if kind == "free":
            database.ask([], {holder}, now)
            asked.pop(holder, None)
            continue
        expires = now + timedelta(minutes=2) if kind == "hold" else None
        wish = want(holder, start, minutes, schedule=schedule, count=count, expires=expires)
        if not database.ask([wish], set(), now):
            asked[holder] = wish
        _consistent(database, asked, now)


def _consistent(database: Database, asked: dict[str, Want], now: datetime) -> None:
    places: dict[str, set[str]] = {}
    for id, one in database.granules.items():
        live = [holder for holder in one["h"] if is_live(holder, now)]
        assert one["h"]
        assert len({holder["a"] for holder in one["h"]}) == len(one["h"])
        if live:
            rooms = [asked[holder["a"]].rooms[id] for holder in live]
            assert {room.schedule for room in rooms} == {one["s"]}
            assert len(live) <= min(room.count for room in rooms)
        for holder in one["h"]:
            places.setdefault(holder["a"], set()).add(id)
    booked = {holder: set(one["g"]) for holder, one in database.bookings.items()}
    assert booked == places


@given(st.integers(-300, 300), st.integers(1, 200), st.sampled_from([5, 10, 15, 20, 30, 60]))
def test_granules_cover_the_time(start: int, seconds: int, minutes: int) -> None:
    """All of it and no more than a granule on either side, each beginning on the grid."""
    granule = timedelta(minutes=minutes)
    begin = NOON + timedelta(seconds=start * 37)
    end = begin + timedelta(seconds=seconds * 61)
    found = granules_of(ACTOR, begin, end, granule)
    first = found[0][1] - granule

    assert first <= begin < first + granule
    assert end <= found[-1][1] < end + granule
    assert [one[1] for one in found] == [first + granule * n for n in range(1, len(found) + 1)]


def test_an_override_goes_beyond() -> None:
    """It is said whom it was for; the others stay."""
    database = Database()
    database.ask([want("Appointment/1", 0, 10)], set(), NOON)
    assert database.ask([want("Appointment/2", 5, 10)], set(), NOON) == ("Appointment/2",)
    wish = want("Appointment/2", 5, 10, overrides=True)
    plan = claim_plan([wish], (), database.granules, database.bookings, NOON)

    assert plan.overrode == ["Appointment/2"]
    shared = plan.taken.granules[f"{ACTOR}|2036-01-01T12:05Z"]
    assert shared is not None
    assert [one["a"] for one in shared["h"]] == ["Appointment/1", "Appointment/2"]


def test_a_smaller_capacity_counts() -> None:
    """With one there who wants at most two, a third is refused whatever it asks for."""
    database = Database()
    assert not database.ask([want("Appointment/1", 0, 5, count=2)], set(), NOON)
    assert not database.ask([want("Appointment/2", 0, 5, count=5)], set(), NOON)
    assert database.ask([want("Appointment/3", 0, 5, count=5)], set(), NOON)
    [granule] = database.granules.values()
    assert not has_room(granule, Room("Schedule/1", 5, NOON), NOON)
    assert has_room(granule, Room("Schedule/1", 5, NOON), NOON, but={"Appointment/1"})


def test_several_see_each_other() -> None:
    """A series in which one is taken is refused whole."""
    database = Database()
    wants = [want("Appointment/1", 0, 10), want("Appointment/2", 5, 10)]
    assert database.ask(wants, set(), NOON) == ("Appointment/2",)
    assert not database.granules
