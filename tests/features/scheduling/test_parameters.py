"""Section 2 of design/scheduling.md: the rules of a Schedule, read from it and from its service."""

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fhir_server.app import offline_judge
from fhir_server.features.scheduling.holidays import dates, holidays_of
from fhir_server.features.scheduling.parameters import Limit, named_services
from fhir_server.features.scheduling.windows import Window
from fhir_server.outcome import FhirError
from fhir_server.settings import Settings
from tests.features.scheduling.rules import (
    alias,
    available,
    parameters,
    read,
    schedule,
    service,
    span,
)

DAILY = frozenset(range(7))
MONDAY = {"daysOfWeek": ["mon"], "availableStartTime": "09:00:00", "availableEndTime": "17:00:00"}
FOR_H1 = {"url": "service", "valueReference": {"reference": "HealthcareService/h1"}}


def test_defaults() -> None:
    """What nobody says has the default of the table; no hours is closed."""
    found = read(schedule())

    assert (found.schedule, found.service, found.duration) == ("Schedule/s1", "", None)
    assert found.windows == ()
    assert (found.before, found.after, found.capacity, found.limits) == (0, 0, 1, ())
    assert (found.notice, found.horizon) == (timedelta(0), timedelta(days=90))
    assert (found.cancel_cutoff, found.reschedule_cutoff, found.hold_minutes) == (None, None, 10)
    assert found.zone.key == "UTC"


def test_field_by_field_the_schedule_wins_then_the_service() -> None:
    """A field of the Schedule replaces the one of the service; the others stay."""
    found = read(
        schedule(parameters(duration=span(20), bufferAfter=span(5))),
        service(
            parameters(
                duration=span(30), bufferBefore=span(10), slotCapacity={"valuePositiveInt": 3}
            ),
            availableTime=[MONDAY],
        ),
    )

    assert (found.duration, found.before, found.after, found.capacity) == (20, 10, 5, 3)
    assert found.interval == 20, "the duration, where nothing else is said"
    assert found.windows == (Window(frozenset((0,)), 540, 1020),)


def test_hours_of_the_schedule_replace_those_of_the_service() -> None:
    """``availability`` is not added to ``availableTime``."""
    hours = parameters(available("tue wed", "22:00:00", "06:00:00"))
    found = read(schedule(hours), service(availableTime=[MONDAY]))

    assert found.windows == (Window(frozenset((1, 2)), 1320, 1800),)


def test_a_group_for_the_service_wins_over_one_for_all() -> None:
    """And a group for another service says nothing here."""
    other = {"url": "service", "valueReference": {"reference": "HealthcareService/h2"}}
    groups = (
        parameters(duration=span(15), bufferAfter=span(5)),
        parameters(other, duration=span(45)),
        parameters(FOR_H1, duration=span(30)),
    )

    assert read(schedule(*groups), service()).duration == 30
    assert read(schedule(*groups), service()).after == 5
    assert read(schedule(*groups)).duration == 15


def test_every_field_is_read() -> None:
    """Units, limits, cutoffs, zones, holidays."""
    limit = [{"url": "count", "valuePositiveInt": 3}, {"url": "per", "valueCode": "day"}]
    weekly = [{"url": "count", "valuePositiveInt": 9}, {"url": "per", "valueCode": "week"}]
    found = read(
        schedule(
            parameters(
                {"url": "bookingLimit", "extension": limit},
                {"url": "bookingLimit", "extension": weekly},
                duration=span(1, "h"),
                timezone={"valueCode": "Asia/Dhaka"},
                alignmentInterval=span(30),
                alignmentOffset=span(10),
                alignmentTimezone={"valueCode": "Asia/Kathmandu"},
                minimumNotice=span(2, "h"),
                horizon=span(2, "wk"),
                cancelCutoff=span(1, "d"),
                rescheduleCutoff=span(0),
                holdMinutes={"valuePositiveInt": 3},
                holidayCalendar={"valueCode": "here"},
            )
        ),
        None,
        here=frozenset((date(2026, 12, 16),)),
    )

    assert (found.duration, found.interval, found.offset) == (60, 30, 10)
    assert (found.zone.key, found.alignment_zone.key) == ("Asia/Dhaka", "Asia/Kathmandu")
    assert found.limits == (Limit(3, "day"), Limit(9, "week"))
    assert (found.notice, found.horizon) == (timedelta(hours=2), timedelta(days=14))
    assert (found.cancel_cutoff, found.reschedule_cutoff) == (timedelta(days=1), timedelta(0))
    assert (found.hold_minutes, set(found.holidays)) == (3, {date(2026, 12, 16)})
    start = datetime(2026, 12, 31, 19, tzinfo=UTC)  # the first of January in Dhaka
    assert found.limits_at(start) == {
        "limit|Schedule/s1||2027-01-01": 3,
        "limit|Schedule/s1||2026-W53": 9,
    }


def test_the_alias_has_its_own_defaults() -> None:
    """Starts every 60 minutes from UTC midnight, open when no hours are given."""
    found = read(schedule(), service(alias(duration=span(30))))

    assert (found.duration, found.interval, found.offset) == (30, 60, 0)
    assert found.alignment_zone.key == "UTC"
    assert found.windows == (Window(DAILY, 0, 1440),)
    assert read(schedule(), service(alias(duration=span(30)), availableTime=[])).windows == ()


def test_the_alias_on_a_schedule() -> None:
    """It is for its service, and says the same as ours."""
    group = alias(
        FOR_H1,
        available("wed", "08:00:00", "16:00:00"),
        duration=span(3, "h"),
        alignmentInterval=span(0),
        slotCapacity={"valuePositiveInt": 2},
        timezone={"valueCode": "America/New_York"},
    )
    found = read(schedule(group), service(alias(duration=span(1, "h"), bufferAfter=span(24))))

    assert (found.duration, found.after, found.capacity, found.interval) == (180, 24, 2, 60)
    assert (found.zone.key, found.alignment_zone.key) == ("America/New_York", "UTC")
    assert found.windows == (Window(frozenset((2,)), 480, 960),)


def test_ours_goes_before_the_alias() -> None:
    """Where both are there, the defaults are ours."""
    found = read(schedule(parameters(duration=span(20))), service(alias(duration=span(30))))

    assert (found.duration, found.interval, found.windows) == (20, 20, ())


PLACE = {"resourceType": "Location", "id": "l1"}
ZONED = {"url": "http://hl7.org/fhir/StructureDefinition/timezone", "valueCode": "Asia/Dhaka"}


def test_the_zone_of_the_actor_then_of_the_place() -> None:
    """The first of them that has one; a rule goes before it."""
    other = {**PLACE, "extension": [{**ZONED, "valueCode": "Asia/Tokyo"}]}

    assert read(schedule(), None, PLACE, {**PLACE, "extension": [ZONED]}, other).zone.key == (
        "Asia/Dhaka"
    )
    rule = parameters(timezone={"valueCode": "Europe/Oslo"})
    assert read(schedule(rule), None, other).zone.key == "Europe/Oslo"


WINDOWS: dict[str, tuple[dict[str, Any], Window]] = {
    "all day": ({"daysOfWeek": ["sun"], "allDay": True}, Window(frozenset((6,)), 0, 1440)),
    "every day where no day is named": (
        {"availableStartTime": "08:00:00", "availableEndTime": "09:30:00"},
        Window(DAILY, 480, 570),
    ),
    "an end of one second before midnight": (
        {"availableStartTime": "00:00:00", "availableEndTime": "23:59:59"},
        Window(DAILY, 0, 1440),
    ),
    "seconds cut inward": (
        {"availableStartTime": "08:00:01", "availableEndTime": "09:00:30"},
        Window(DAILY, 481, 540),
    ),
    "an end equal to the start is a whole day": (
        {"availableStartTime": "08:00:00", "availableEndTime": "08:00:00"},
        Window(DAILY, 480, 1920),
    ),
}


@pytest.mark.parametrize("said", WINDOWS)
def test_windows(said: str) -> None:
    """https://hl7.org/fhir/R4/healthcareservice.html, availableTime."""
    element, window = WINDOWS[said]

    assert read(schedule(), service(availableTime=[element])).windows == (window,)


def test_what_is_not_available() -> None:
    """A date is a local day, and the last one is part of it; text without a period is text."""
    dhaka = parameters(
        {
            "url": "availability",
            "extension": [
                {
                    "url": "notAvailableTime",
                    "extension": [
                        {"url": "description", "valueString": "Leave"},
                        {"url": "during", "valuePeriod": {"start": "2026-12-01T10:00:00Z"}},
                    ],
                }
            ],
        },
        timezone={"valueCode": "Asia/Dhaka"},
    )
    closed = [
        {"description": "Eid", "during": {"start": "2027-03-10", "end": "2027-03-11"}},
        {"description": "Sometimes"},
    ]
    found = read(schedule(dhaka), service(notAvailable=closed)).not_available

    assert found[0][0] == datetime(2026, 12, 1, 10, tzinfo=UTC)
    assert found[1] == (
        datetime(2027, 3, 9, 18, tzinfo=UTC),
        datetime(2027, 3, 11, 18, tzinfo=UTC),
    )
    assert len(found) == 2


def test_the_planning_horizon_of_the_schedule() -> None:
    """What lies outside is not covered by this Schedule."""
    period = {"start": "2026-12-01", "end": "2026-12-31"}

    assert read(schedule(planningHorizon=period)).planning == (
        datetime(2026, 12, 1, tzinfo=UTC),
        datetime(2027, 1, 1, tzinfo=UTC),
    )


BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "no unit": (
        parameters(duration={"valueDuration": {"value": 3}}),
        "Schedule.extension[0].extension[0]",
        "unit",
    ),
    "a month": (parameters(duration=span(1, "mo")), "extension[0].extension[0]", "'mo'"),
    "half a minute": (
        parameters(bufferAfter={"valueDuration": {"value": 0.5, "unit": "min"}}),
        "extension[0].extension[0]",
        "whole minutes",
    ),
    "nothing": (parameters(duration=span(0)), "extension[0].extension[0]", "from 1"),
    "less than nothing": (parameters(bufferBefore=span(-5)), "extension[0].extension[0]", "0 to"),
    "a comparator": (
        parameters(duration={"valueDuration": {"value": 3, "unit": "min", "comparator": ">"}}),
        "extension[0].extension[0]",
        "comparator",
    ),
    "no zone": (
        parameters(timezone={"valueCode": "../../etc/passwd"}),
        "extension[0].extension[0]",
        "no time zone",
    ),
    "an unknown zone": (
        parameters(timezone={"valueCode": "Mars/Base"}),
        "extension[0].extension[0]",
        "no time zone",
    ),
    "a folder of zones": (parameters(timezone={"valueCode": "Asia"}), "extension[0]", "no time"),
    "twice": (
        parameters({"url": "duration", **span(5)}, duration=span(10)),
        "extension[0].extension[1]",
        "2 times",
    ),
    "unknown": (parameters(lenght=span(5)), "extension[0].extension[0]", "no parameter 'lenght'"),
    "no capacity": (
        parameters(slotCapacity={"valuePositiveInt": 0}),
        "extension[0].extension[0]",
        "slotCapacity is 0",
    ),
    "no calendar": (
        parameters(holidayCalendar={"valueCode": "../x"}),
        "extension[0].extension[0]",
        "'../x'",
    ),
    "a limit of half": (
        parameters({"url": "bookingLimit", "extension": [{"url": "per", "valueCode": "day"}]}),
        "extension[0].extension[0]",
        "no count",
    ),
    "no time": (
        parameters(available("mon", "9 o'clock", "10:00:00")),
        "extension[0].extension[0].extension[0]",
        "09:30:00",
    ),
    "no day": (
        parameters(available("monday", "09:00:00", "10:00:00")),
        "extension[0].extension[0].extension[0]",
        "'monday'",
    ),
    "the old form of the alias": (
        alias({"url": "availability", "valueTiming": {"repeat": {}}}),
        "extension[0].extension[0]",
        "no availableTime",
    ),
    "another server's service": (
        parameters(
            {"url": "service", "valueReference": {"reference": "http://a/HealthcareService/1"}}
        ),
        "extension[0].extension[0]",
        "no reference to a HealthcareService here",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_used_is_refused_with_its_place(case: str) -> None:
    """Never passed over: a rule that is misread gives out time that is not there."""
    extension, place, words = BAD[case]
    with pytest.raises(FhirError) as refused:
        read(schedule(extension))

    issue = refused.value.issues[0]
    assert (issue.code, refused.value.status) == ("extension", 422)
    assert place in issue.expression
    assert issue.diagnostics.startswith("Schedule/s1: ")
    assert words in issue.diagnostics


def test_all_faults_are_said_together() -> None:
    """Of the Schedule and of the service, also where another value wins."""
    with pytest.raises(FhirError) as refused:
        read(
            schedule(parameters(duration=span(10))),
            service(
                parameters(available("mon", "09:00:00", "10:00:00"), duration=span(0)),
                availableTime=[{"daysOfWeek": ["mon"], "availableStartTime": "09:00:00"}],
            ),
        )

    said = [one.expression for one in refused.value.issues]
    assert "HealthcareService.extension[0].extension[0]" in said
    assert len(said) == 2, "the duration, and hours where they do not belong"


def test_the_services_that_a_schedule_names() -> None:
    """By its service type, its actors and its parameters."""
    typed = [
        {
            "extension": [
                {
                    "url": "https://medplum.com/fhir/service-type-reference",
                    "valueReference": {"reference": "HealthcareService/h3"},
                }
            ]
        }
    ]
    actors = [{"reference": "Practitioner/p1"}, {"reference": "HealthcareService/h2"}]
    found = schedule(alias(FOR_H1), actor=actors, serviceType=typed)

    assert named_services(found, ()) == [
        "HealthcareService/h3",
        "HealthcareService/h2",
        "HealthcareService/h1",
    ]


def test_calendars_of_holidays(tmp_path: Path) -> None:
    """Ours are there; a site's own goes before, and one that cannot be read is not there at all."""
    (tmp_path / "own.csv").write_text("date,name\n2027-01-02,Own\n", encoding="utf-8")
    (tmp_path / "bad.csv").write_text("2027-02-30\n", encoding="utf-8")
    found = holidays_of(Settings(scheduling_calendars=tmp_path))

    assert date(2026, 12, 16) in found["bangladesh-fixed"]
    assert found["own"] == {date(2027, 1, 2)}
    assert "bad" not in found
    with pytest.raises(ValueError, match="line 1"):
        dates(["x"])


def test_our_extensions_are_defined() -> None:
    """A Schedule with every part is valid by the definition, and a wrong part is not."""
    judge, _ = offline_judge((), ())
    limit = [{"url": "count", "valuePositiveInt": 3}, {"url": "per", "valueCode": "day"}]
    good = schedule(
        parameters(
            available("mon", "09:00:00", "17:00:00"),
            FOR_H1,
            {"url": "bookingLimit", "extension": limit},
            duration=span(20),
            timezone={"valueCode": "Asia/Dhaka"},
            holdMinutes={"valuePositiveInt": 5},
        )
    )
    bad = schedule(parameters(duration={"valueString": "20"}, nonsense=span(1)))

    assert [
        one for one in judge.issues(json.loads(json.dumps(good))) if one.severity == "error"
    ] == []
    said = " ".join(one.diagnostics for one in judge.issues(bad))
    assert "nonsense" in said
