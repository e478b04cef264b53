"""The pure parts of booking: series, allocation, drafting, what is asked for."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given as with_examples
from hypothesis import strategies as some

from fhir_server.features.scheduling.allocation import (
    TRIED_MAX,
    Candidate,
    Wishes,
    best,
    cost,
    leaves_gap,
)
from fhir_server.features.scheduling.asked import (
    concept_of,
    moment_of,
    override_of,
    reference_of,
)
from fhir_server.features.scheduling.drafting import (
    Terms,
    appointment_of,
    asked_of,
    moved,
    patient_of,
)
from fhir_server.features.scheduling.extensions import HOLD_EXPIRES, OVERRIDE_REASON, hold_expires
from fhir_server.features.scheduling.persons import is_scheduler, own_patient
from fhir_server.features.scheduling.series import weekly
from fhir_server.operations.asked import Given
from fhir_server.outcome import FhirError
from fhir_server.security.principal import DEMO, NOBODY, Principal
from fhir_server.security.rights import has_power
from fhir_server.security.scopes import OVERRIDE
from tests.features.scheduling.clinic import proposed

NOW = datetime(2026, 12, 1, 6, tzinfo=UTC)
ZONES = ("Asia/Dhaka", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu")


# ---------------------------------------------------------------- series


@with_examples(
    some.integers(0, 4 * 366 * 24 * 60),
    some.integers(2, 52),
    some.sampled_from(ZONES),
)
def test_a_series_keeps_its_local_time(minutes: int, count: int, zone: str) -> None:
    """Each a week of the calendar after the one before; else the whole series is refused."""
    local = ZoneInfo(zone)
    first = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    with suppress(FhirError):
        found = weekly(first, count, local)
        walls = [one.astimezone(local).replace(tzinfo=None, fold=0) for one in found]
        assert found[0] == first
        assert walls == [walls[0] + timedelta(weeks=n) for n in range(count)]


def test_a_series_is_refused_where_its_time_is_skipped() -> None:
    """New York has no 02:30 on 2026-03-08."""
    first = datetime(2026, 3, 1, 2, 30, tzinfo=ZoneInfo("America/New_York"))
    with pytest.raises(FhirError, match=r"2026-03-08 at 02:30.*America/New_York skip"):
        weekly(first, 2, ZoneInfo("America/New_York"))
    assert len(weekly(first - timedelta(hours=1), 2, ZoneInfo("America/New_York"))) == 2


# ---------------------------------------------------------------- allocation


def _candidate(**members: Any) -> Candidate:
    said = {
        "start": NOW,
        "schedule": "Schedule/1",
        "practitioner": "Practitioner/1",
        "location": "Location/1",
        "languages": frozenset(("bn",)),
        "short_gap": False,
        "proposal": {},
    }
    return Candidate(**{**said, **members})


WISHES = Wishes(("Practitioner/1", "Practitioner/2"), ("Location/1", "Location/2"), "BN")


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, 0),
        ({"practitioner": "Practitioner/2"}, 10),
        ({"practitioner": "Practitioner/9"}, 20),
        ({"location": "Location/2"}, 5),
        ({"location": ""}, 10),
        ({"start": NOW + timedelta(days=3, hours=5)}, 3),
        ({"short_gap": True}, 3),
        ({"languages": frozenset(("en",))}, 5),
        ({"practitioner": "Practitioner/2", "short_gap": True, "languages": frozenset()}, 18),
    ],
)
def test_the_cost_is_the_sum_of_what_is_not_as_wished(
    members: dict[str, Any], expected: int
) -> None:
    """The table of section 3."""
    assert cost(_candidate(**members), WISHES, NOW) == expected


def test_without_wishes_only_the_waiting_counts() -> None:
    """Who prefers nothing gets the first time there is."""
    one = _candidate(practitioner="Practitioner/9", languages=frozenset())
    assert cost(one, Wishes(), NOW) == 0


def test_of_equal_cost_the_earliest_then_the_schedule() -> None:
    """Whatever the order they come in; at most 50 are tried."""
    first = _candidate(schedule="Schedule/2")
    second = _candidate(start=NOW + timedelta(hours=1), schedule="Schedule/0")
    third = _candidate(start=NOW + timedelta(hours=1), schedule="Schedule/1")
    for order in permutations((first, second, third)):
        assert best(order, Wishes(), NOW) == [first, second, third]
    assert len(best([first] * 60, Wishes(), NOW)) == TRIED_MAX


@pytest.mark.parametrize(
    ("start", "expected"),
    [(60, False), (50, True), (40, True), (30, False), (0, False), (125, True), (150, False)],
)
def test_a_gap_that_is_too_short(start: int, expected: bool) -> None:
    """Taken is the second and the third half hour ... of two hours from ``60 + 30`` on."""
    at = [NOW + timedelta(minutes=n) for n in range(241)]
    taken = [(at[90], at[120]), (at[180], at[240])]
    assert leaves_gap(at[start], at[start + 30], taken, timedelta(minutes=30)) is expected


# ---------------------------------------------------------------- drafting


def test_a_booking_is_the_proposal_with_its_slots() -> None:
    """What the proposal says is kept; what the server says is not the client's."""
    proposal = {
        **proposed(NOW, "p1", description="knee"),
        "id": "find-1",
        "extension": [
            {"url": HOLD_EXPIRES, "valueDateTime": "2036-01-01T00:00:00Z"},
            {"url": OVERRIDE_REASON, "valueString": "none"},
            {"url": "http://example.org/own", "valueString": "kept"},
        ],
        "created": "1999-01-01",
    }
    until = NOW + timedelta(minutes=10)
    terms = Terms("pending", "Patient/amina", NOW, until=until, comment="hello")
    found = appointment_of(asked_of(proposal), ["51aa"], terms)
    assert "id" not in found
    assert "contained" not in found
    assert (found["status"], found["description"], found["comment"]) == (
        "pending",
        "knee",
        "hello",
    )
    assert found["slot"] == [{"reference": "Slot/51aa"}]
    assert [one["url"] for one in found["extension"]] == ["http://example.org/own", HOLD_EXPIRES]
    assert hold_expires(found) == until
    assert patient_of(found) == "Patient/amina"
    assert {one["status"] for one in found["participant"]} == {"tentative"}
    assert found["created"].startswith("2026-12-01T06:00:00")


def test_a_moved_hold_is_held_as_long_as_before() -> None:
    """And its override was about another time."""
    proposal = proposed(NOW, "p1")
    terms = Terms("pending", "", NOW, until=NOW + timedelta(minutes=10), override="because")
    held = {**appointment_of(asked_of(proposal), ["a"], terms), "id": "x"}
    after = moved(held, asked_of(held).at(NOW + timedelta(hours=1)), ["b"])
    assert [one["url"] for one in after["extension"]] == [HOLD_EXPIRES]
    assert (after["id"], after["slot"]) == ("x", [{"reference": "Slot/b"}])
    assert datetime.fromisoformat(after["end"]) == NOW + timedelta(minutes=90)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"start": None}, "required"),
        ({"end": "2026-12-01T06:00:00+00:00"}, "value"),
        ({"end": "2026-12-01T07:00:00+00:00"}, "value"),  # not that of its Slot
    ],
)
def test_a_proposal_says_when(change: dict[str, Any], code: str) -> None:
    """And its Slots say the same."""
    said = {**proposed(NOW, "p1"), **change}
    said = {name: value for name, value in said.items() if value is not None}
    with pytest.raises(FhirError) as caught:
        asked_of(said)
    assert caught.value.issues[0].code == code


# ---------------------------------------------------------------- what is asked, and who asks


@pytest.mark.parametrize(
    "said", ["Patient/1", "1", {"reference": "https://a.example/fhir/Patient/1/_history/2"}]
)
def test_a_reference_is_read_in_each_form(said: Any) -> None:
    """A bare id, a relative and an absolute one."""
    assert reference_of(said, "Patient", "patient", ["https://a.example/fhir"]) == "Patient/1"


@pytest.mark.parametrize(
    "said",
    [
        "",
        7,
        {},
        "Group/1",
        "Patient/" + "x" * 65,
        "Patient?name=x",
        "https://b.example/fhir/Patient/1",
    ],
)
def test_what_is_no_reference_is_refused(said: Any) -> None:
    """It never becomes part of a query."""
    with pytest.raises(FhirError):
        reference_of(said, "Patient", "patient")


def test_a_reason_is_read_in_each_form() -> None:
    """A code, a text, a Coding, a CodeableConcept; of an override the part."""
    assert concept_of("ill") == {"text": "ill"}
    assert concept_of({"code": "pat"}) == {"coding": [{"code": "pat"}]}
    assert concept_of({"text": "ill"}) == {"text": "ill"}
    assert override_of(Given("$book", {})) == ""
    reasons = ["x", "", " ", "x" * 501, 7, None]
    for reason, is_good in zip(reasons, (True, *(False,) * 5), strict=True):
        found = Given("$book", {"override": [[{"name": "reason", "valueString": reason}]]})
        if is_good:
            assert override_of(found) == "x"
            continue
        with pytest.raises(FhirError):
            override_of(found)


LEAD = Principal("user", "lead", roles=("front-desk-lead",))


@pytest.mark.parametrize(
    ("who", "power"),
    [
        (DEMO, True),
        (NOBODY, False),
        (LEAD, True),
        (Principal("user", "lead", "app", roles=("front-desk-lead",)), False),
        (Principal("user", "lead", "app", roles=("front-desk-lead",), others=(OVERRIDE,)), True),
        (Principal("user", "desk", roles=("front-desk",)), False),
        (Principal("user", "desk", "app", roles=("front-desk",), others=(OVERRIDE,)), False),
        (Principal("user", "a", "app", patient="a", others=(OVERRIDE,)), False),
        (Principal("client", "kiosk"), False),
        (Principal("client", "kiosk", others=(OVERRIDE,)), True),
    ],
)
def test_who_may_override(who: Principal, power: bool) -> None:
    """A role that has the right; an app and a backend with its scope, of a user within the role."""
    assert has_power(who, OVERRIDE) is power
    assert has_power(who.at("192.0.2.1", "r1"), OVERRIDE) is power


def test_who_asks_for_himself() -> None:
    """A patient is meant where nobody is named, somebody of the clinic is not."""
    patient = Principal("user", "a", roles=("patient",), fhir_user="Patient/a")
    app = Principal("user", "a", "app", patient="b", fhir_user="Patient/a")
    assert (own_patient(patient), own_patient(app)) == ("Patient/a", "Patient/b")
    assert own_patient(LEAD) == own_patient(DEMO) == ""
    assert [is_scheduler(one) for one in (patient, app, LEAD, DEMO)] == [False, False, True, True]


@pytest.mark.parametrize(
    "said", ["2026-12-01T09:00:00", "9999-12-31T23:59:00-12:00", "0001-01-01T00:00:00Z"]
)
def test_a_time_has_a_zone_and_time_around_it(said: str) -> None:
    """Buffers and series lie before and after it."""
    with pytest.raises(FhirError):
        moment_of(said, "start")
