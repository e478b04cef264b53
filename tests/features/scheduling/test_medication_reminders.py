"""https://hl7.org/fhir/R4/datatypes.html#Timing and check R8: doses at the local times of codes."""

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from fhir_server.features.scheduling.medication_reminders import doses, goes_on

DHAKA = ZoneInfo("Asia/Dhaka")
NOW = datetime(2036, 12, 1, 0, tzinfo=UTC)  # six in the morning of a Monday in Dhaka
TIMES = {"MORN": "08:00", "NOON": "13:00", "NIGHT": "21:00"}
EACH = [(1, "08"), (1, "21"), (2, "08"), (2, "21")]


def at(dosage: dict[str, Any], **more: Any) -> list[tuple[int, str]]:
    """Return day and hour, local, of the doses of the next two days."""
    order = {"status": "active", "intent": "order", "dosageInstruction": [dosage], **more}
    found = doses(order, TIMES, DHAKA, NOW)
    assert found == sorted(set(found))
    local = [one.astimezone(DHAKA) for one in found]
    return [(one.day, f"{one:%H:%M}".removesuffix(":00")) for one in local]


def repeat(**members: Any) -> dict[str, Any]:
    """Return a dosage with a timing."""
    return {"timing": {"repeat": members}}


@pytest.mark.parametrize(
    ("dosage", "expected"),
    [
        ({"text": "1-0-1"}, EACH),
        ({"text": "1+0+1 after meals"}, EACH),
        ({"text": "১-\u09e6-১"}, EACH),  # the zero of Bangla
        ({"text": "½-0-½"}, EACH),
        ({"text": "0-1-0"}, [(1, "13"), (2, "13")]),
        ({"text": "0-0-0"}, []),
        ({"text": "one in the morning"}, []),
        ({"text": "2036-12-01"}, []),
        ({"text": "1-0-1", "asNeededBoolean": True}, []),
        ({"text": "1-0-1", "timing": {"repeat": {"when": ["NOON"]}}}, [(1, "13"), (2, "13")]),
        (repeat(when=["MORN", "NIGHT"]), EACH),
        (repeat(when=["MORN"], dayOfWeek=["tue"]), [(2, "08")]),
        (repeat(when=["AC"]), [(d, t) for d in (1, 2) for t in ("07:30", "13", "19:30")]),
        (repeat(when=["HS"], offset=30), [(1, "22:30"), (2, "22:30")]),
        (
            repeat(timeOfDay=["06:30:00", "18:30:00"]),
            [(1, "06:30"), (1, "18:30"), (2, "06:30"), (2, "18:30")],
        ),
        (repeat(when=["MORN"], period=2, periodUnit="d"), []),
        (repeat(frequency=2, period=1, periodUnit="d"), []),
        (repeat(when=["NIGHT"], boundsPeriod={"end": "2036-12-01"}), [(1, "21")]),
        (repeat(when=["NIGHT"], boundsPeriod={"start": "2036-12-02"}), [(2, "21")]),
        (repeat(when=["MORN", "NIGHT"], boundsPeriod={"end": "9999-12-31"}), EACH),
        (repeat(when=["MORN", "NIGHT"], boundsPeriod={"start": "9999-12-31"}), []),
        (repeat(when=["MORN"], count=3), []),
        (repeat(when=["MORN"], boundsRange={"high": {"value": 7, "code": "d"}}), []),
        (repeat(when=["MORN"], boundsDuration={"value": 7, "code": "d"}), []),  # from when on?
        ({"text": "1-0-1-1"}, []),
        ({"text": "1-0-1 then 0-0-1"}, []),
        ({"text": "1-0-1 for 7 days"}, []),  # from when on?
        (repeat(when="MORN"), []),
        (repeat(when=[7], timeOfDay=["25:00"]), []),
    ],
)
def test_doses_are_where_the_order_says(
    dosage: dict[str, Any], expected: list[tuple[int, str]]
) -> None:
    """R8: 1-0-1 is at the local morning and night times; what is not said is not guessed."""
    assert at(dosage) == expected


def test_a_course_ends() -> None:
    """A duration counts from the day of the order."""
    bounds = {"boundsDuration": {"value": 1, "code": "d"}, "when": ["MORN", "NIGHT"]}
    assert at(repeat(**bounds), authoredOn="2036-12-01T00:00:00Z") == [(1, "08"), (1, "21")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1-0-1 x 1 day", EACH[:2]),
        ("1+0+1 - ১ দিন", EACH[:2]),
        ("1-0-1 1/7", EACH[:2]),
        ("1-0-1 5 days, 1 week at most", EACH),
        ("1-0-1 500 mg", EACH),
    ],
)
def test_a_course_in_words_ends(text: str, expected: list[tuple[int, str]]) -> None:
    """Nobody is reminded to go on behind the days that the text names."""
    assert at({"text": text}, authoredOn="2036-12-01") == expected


@pytest.mark.parametrize("zone", ["America/Los_Angeles", "Pacific/Auckland"])
def test_the_last_day_is_one_of_the_patient(zone: str) -> None:
    """A date is a day where the patient lives: its last dose is that of its night."""
    dosage = repeat(when=["MORN", "NIGHT"], boundsPeriod={"end": "2036-12-01"})
    order = {"status": "active", "intent": "order", "dosageInstruction": [dosage]}
    now = datetime(2036, 11, 30, 8, tzinfo=UTC)
    found = doses(order, TIMES, ZoneInfo(zone), now)
    assert f"{found[-1].astimezone(ZoneInfo(zone)):%d %H:%M}" == "01 21:00"


@pytest.mark.parametrize(
    ("dosage", "expected"),
    [
        (repeat(when=["MORN"], dayOfWeek=["fri"]), True),
        (repeat(when=["MORN"], boundsPeriod={"start": "2037-01-01"}), True),
        (repeat(when=["MORN"], boundsPeriod={"end": "2036-11-30"}), False),
        (repeat(frequency=2), False),
        ({"text": "at night"}, False),
    ],
)
def test_an_order_goes_on_while_it_may_have_doses(dosage: dict[str, Any], expected: bool) -> None:
    """And be it in weeks; what names no times never has any."""
    order = {"status": "active", "intent": "order", "dosageInstruction": [dosage]}
    assert goes_on(order, TIMES, DHAKA, NOW) is expected


@pytest.mark.parametrize(
    "more",
    [{"status": "stopped"}, {"status": "on-hold"}, {"intent": "proposal"}, {"doNotPerform": True}],
)
def test_what_is_not_taken_is_not_reminded_of(more: dict[str, Any]) -> None:
    """Stopped with the order."""
    assert at({"text": "1-0-1"}, **more) == []
