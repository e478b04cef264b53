"""design/scheduling.md, section 8 and check R7: when an Appointment's reminders go out, and how."""

from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.features.scheduling.reminders import (
    TIMEZONE,
    Offset,
    Person,
    Policy,
    Quiet,
    changed,
    displays,
    language_of,
    notice,
    outside,
    wanted,
    ways,
    zone_of,
)
from fhir_server.features.scheduling.reminders import given as name_in

DHAKA = ZoneInfo("Asia/Dhaka")
BERLIN = ZoneInfo("Europe/Berlin")
NIGHT = Quiet(time(22), time(8))
DAY = Offset("P1D", 1, timedelta(0))
TWO_HOURS = Offset("PT2H", 0, timedelta(hours=2))
POLICY = Policy((DAY, TWO_HOURS), DHAKA, NIGHT, ("sms", "email"), "en", frozenset(("en", "bn")))
NOW = datetime(2036, 12, 1, 4, tzinfo=UTC)
PHONE = {"system": "phone", "value": "+880 1711-000001"}


def utc(text: str) -> datetime:
    """Return a local time of Dhaka."""
    return datetime.fromisoformat(f"{text}+06:00").astimezone(UTC)


def appointment(start: str, **more: Any) -> dict[str, Any]:
    """Return a booked Appointment with one patient."""
    who = [{"actor": {"reference": "Patient/p"}, "status": "accepted"}]
    return {"id": "a", "status": "booked", "start": start, "participant": who, **more}


def person(*telecom: dict[str, Any], **more: Any) -> Person:
    """Return somebody who wants all messages."""
    return Person({"telecom": list(telecom), **more}, ("sms", "email"))


def due(start: str, policy: Policy = POLICY, **more: Any) -> list[datetime]:
    """Return when the reminders of an appointment go out."""
    people = {"Patient/p": person(PHONE, **more)}
    return [one.due for one in wanted(appointment(start), people, policy, NOW)]


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("2036-12-03T15:00:00+06:00", ["2036-12-02T15:00", "2036-12-03T13:00"]),
        # R7: 02:00 and 07:00 are moved to 08:00.
        ("2036-12-03T09:00:00+06:00", ["2036-12-02T09:00", "2036-12-03T08:00"]),
        ("2036-12-04T02:00:00+06:00", ["2036-12-03T08:00", "2036-12-03T21:59"]),
        ("2036-12-03T22:30:00+06:00", ["2036-12-03T08:00", "2036-12-03T20:30"]),
        # 08:00 would be too late for 07:30: the minute before the quiet hours.
        ("2036-12-04T07:30:00+06:00", ["2036-12-03T08:00", "2036-12-03T21:59"]),
    ],
)
def test_quiet_hours_are_left_alone(start: str, expected: list[str]) -> None:
    """R7: with quiet hours of 22 to 8 in Dhaka nothing goes out in them."""
    moments = [utc(one) for one in expected]
    assert due(start) == sorted(moments)


def test_quiet_hours_are_those_of_the_patient() -> None:
    """A patient who lives elsewhere sleeps elsewhere."""
    zone = {"url": "http://hl7.org/fhir/StructureDefinition/timezone", "valueCode": "Europe/Berlin"}
    found = due("2036-12-03T12:00:00+06:00", extension=[zone])

    assert found[0] == datetime(2036, 12, 2, 7, tzinfo=UTC)  # 07:00 in Berlin is moved to 08:00


@given(
    st.integers(0, 366 * 24 * 60).map(lambda minutes: NOW + timedelta(minutes=minutes)),
    st.times(),
    st.times(),
    st.sampled_from([DHAKA, BERLIN]),
)
def test_nothing_goes_out_in_quiet_hours(
    moment: datetime, begin: time, end: time, zone: ZoneInfo
) -> None:
    """Whatever the hours: what is moved is moved out of them, or stands before them."""
    begin, end = begin.replace(second=0, microsecond=0), end.replace(second=0, microsecond=0)
    if begin == end:
        return
    quiet = Quiet(begin, end)
    start = moment + timedelta(minutes=90)
    found = outside(moment, start, quiet, zone)
    assert found < start
    if found == moment:
        assert quiet.end_of(moment, zone) is None
    else:
        assert quiet.end_of(moment, zone) is not None


def test_a_day_is_one_of_the_calendar() -> None:
    """Where the clocks change overnight, the reminder comes at the same hour of the day before."""
    policy = Policy((DAY,), BERLIN, None, ("sms",), "en", frozenset(("en",)))
    start = datetime(2037, 3, 29, 10, tzinfo=BERLIN)
    people = {"Patient/p": person(PHONE)}
    [one] = wanted(appointment(start.isoformat()), people, policy, NOW)

    assert one.due.astimezone(BERLIN).isoformat() == "2037-03-28T10:00:00+01:00"


@pytest.mark.parametrize(
    ("telecom", "expected"),
    [
        ([PHONE], ("sms", "+8801711000001")),
        ([PHONE, {"system": "email", "value": "a@b.example", "rank": 1}], ("email", "a@b.example")),
        ([{"system": "email", "value": "a@b.example"}, PHONE], ("sms", "+8801711000001")),
        (
            [
                {**PHONE, "use": "home"},
                {"system": "phone", "value": "01711000002", "use": "mobile"},
            ],
            ("sms", "01711000002"),
        ),
        ([{**PHONE, "use": "old"}], None),
        ([{**PHONE, "period": {"end": "2036-01-01"}}], None),
        ([{"system": "phone", "value": "ask the wife"}], None),
        ([{"system": "fax", "value": "+88029999999"}], None),
        ([], None),
    ],
)
def test_the_way_is_that_of_the_record(
    telecom: list[dict[str, Any]], expected: tuple[str, str] | None
) -> None:
    """By rank, then by the order of the channels; nothing that is old or is no address."""
    found = [(one.channel, one.to) for one in ways({"telecom": telecom}, ("sms", "email"), NOW)]
    assert (found[0] if found else None) == expected


@pytest.mark.parametrize(
    ("communication", "expected"),
    [
        ([], "en"),
        ([{"language": {"coding": [{"code": "bn-BD"}]}}], "bn"),
        ([{"language": {"coding": [{"code": "fr"}]}}], "en"),
        (
            [
                {"language": {"coding": [{"code": "en"}]}},
                {"language": {"coding": [{"code": "bn"}]}, "preferred": True},
            ],
            "bn",
        ),
    ],
)
def test_the_language_is_that_of_the_patient(communication: list[Any], expected: str) -> None:
    """What is preferred comes first; what nobody has written is not taken."""
    found = language_of({"communication": communication}, frozenset(("en", "bn")), "en")
    assert found == expected


def test_a_reminder_that_is_planned_again_is_the_same() -> None:
    """The id says what it is; at another time it is another."""
    people = {"Patient/p": person(PHONE)}
    one = wanted(appointment("2036-12-03T15:00:00+06:00"), people, POLICY, NOW)
    again = wanted(appointment("2036-12-03T09:00:00Z"), people, POLICY, NOW + timedelta(hours=1))
    moved = wanted(appointment("2036-12-03T15:30:00+06:00"), people, POLICY, NOW)

    assert one == again
    assert {each.id for each in one}.isdisjoint(each.id for each in moved)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (None, {"status": "booked"}, True),
        ({"status": "pending"}, {"status": "booked"}, True),
        ({"status": "booked"}, {"status": "booked", "comment": "x"}, False),
        ({"status": "booked"}, {"status": "booked", "serviceType": [{"text": "x"}]}, True),
        ({"status": "booked"}, {"status": "booked", "start": "2036-12-05T09:00:00Z"}, True),
        ({"status": "booked"}, {"status": "cancelled"}, True),
        ({"status": "booked"}, {"status": "arrived"}, True),
        ({"status": "booked"}, None, True),
        ({"status": "booked"}, {"status": "booked", "participant": []}, True),
        (None, {"status": "proposed"}, False),
        (None, {"status": "booked", "start": "2036-11-01T09:00:00Z"}, False),
    ],
)
def test_a_plan_is_made_again_where_it_matters(
    before: dict[str, Any] | None, after: dict[str, Any] | None, expected: bool
) -> None:
    """Booked, moved, cancelled, arrived, gone: yes; a comment, or what is past: no."""

    def whole(part: dict[str, Any] | None) -> dict[str, Any] | None:
        return None if part is None else {**appointment("2036-12-03T15:00:00+06:00"), **part}

    assert changed(whole(before), whole(after), NOW) is expected


def test_a_notice_waits_for_the_morning_but_not_for_the_appointment() -> None:
    """At night it waits for the end of the quiet hours, unless that is too late."""
    late = utc("2036-12-01T23:30")
    who = ("Patient/p", person(PHONE))
    soon = notice("cancelled", appointment("2036-12-02T07:00:00+06:00"), who, POLICY, late)
    later = notice("cancelled", appointment("2036-12-02T12:00:00+06:00"), who, POLICY, late)

    assert soon is not None
    assert later is not None
    assert (soon.due, later.due) == (late, utc("2036-12-02T08:00"))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "telecom",
                        "system",
                        "value",
                        "name",
                        "given",
                        "participant",
                        "actor",
                        "reference",
                        "start",
                        "status",
                        "communication",
                        "language",
                        "coding",
                        "extension",
                        "url",
                        "period",
                        "end",
                        "rank",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_nothing_that_is_stored_breaks_a_plan(odd: Any) -> None:
    """Resources of any shape give reminders or none, and never an error."""
    resource = odd if isinstance(odd, dict) else {"telecom": odd, "participant": odd, "name": odd}
    people = {"Patient/p": Person({**resource, "telecom": odd}, ("sms", "email", "webhook"))}
    wanted({**appointment("2036-12-03T15:00:00+06:00"), "serviceType": odd}, people, POLICY, NOW)
    wanted({**appointment("2036-12-03T15:00:00+06:00"), "participant": odd}, people, POLICY, NOW)
    changed({**resource, "status": "booked"}, None, NOW)
    displays(resource)
    name_in(resource)


@pytest.mark.parametrize("said", ["Mars/Base", "Asia", "../../etc/passwd", ""])
def test_a_zone_of_a_patient_that_is_none_is_not_used(said: str) -> None:
    """And stops no message."""
    one = {"extension": [{"url": TIMEZONE, "valueCode": said}]}
    assert zone_of(one, DHAKA) == DHAKA
