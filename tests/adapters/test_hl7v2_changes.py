"""design/hl7v2.md, sections 8 and 9: how a change meets what is stored (H29 to H31)."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.hl7v2.changes import Change, Key, Mode, Stamp, is_older, linked, merged, united
from adapters.hl7v2.senders import Profile
from tests.adapters.memory import Memory
from tests.adapters.texts import adt, message, oru, pid, visit

_PLACES: dict[str, Any] = {
    "gender": "female",
    "birthDate": "1980-02-03",
    "period.start": "2024-01-01",
    "telecom[pid-13]": [{"id": "pid-13.1", "value": "1"}],
    "extension[urn:a]": [{"url": "urn:a", "valueString": "x"}],
    "identifier[+]": [{"system": "urn:s", "value": "1"}],
}


def _change(mode: Mode, places: dict[str, Any], remove: frozenset[str] = frozenset()) -> Change:
    return Change(
        "Patient", "change:0", Key("", ()), mode, places, Stamp(), "PID[1]", remove,
        owned=frozenset(_PLACES),
    )  # fmt: skip


_STORED = {
    "resourceType": "Patient",
    "id": "a",
    "gender": "male",
    "birthDate": "1970",
    "telecom": [{"id": "pid-14.1", "value": "2"}, {"value": "3"}, {"id": "pid-13.1", "value": "0"}],
    "extension": [{"url": "urn:b", "valueString": "kept"}],
    "identifier": [{"system": "urn:s", "value": "2"}],
}


@pytest.mark.parametrize("mode", list(Mode))
@given(chosen=st.sets(st.sampled_from(sorted(_PLACES))))
def test_twice_is_once(mode: Mode, chosen: set[str]) -> None:
    """A change that is applied again changes nothing."""
    change = _change(mode, {place: _PLACES[place] for place in chosen})
    once = merged(_STORED, change)
    assert merged(once, change) == once


@pytest.mark.parametrize(
    ("mode", "places", "remove", "gender", "birth"),
    [
        (Mode.MERGE, {"gender": "female"}, frozenset(), "female", "1970"),
        (Mode.MERGE, {}, frozenset({"gender"}), None, "1970"),
        (Mode.REPLACE, {"gender": "female"}, frozenset(), "female", None),
        (Mode.FILL, {"gender": "female"}, frozenset({"birthDate"}), "male", "1970"),
    ],
)
def test_h29_absent_keeps_null_removes_valued_replaces(
    mode: Mode, places: dict[str, Any], remove: frozenset[str], gender: str | None, birth: str
) -> None:
    """The table of section 8."""
    found = merged(_STORED, _change(mode, places, remove))
    assert found is not None
    assert (found.get("gender"), found.get("birthDate")) == (gender, birth)


def test_h30_a_field_owns_its_own_members_only() -> None:
    """PID-13 leaves those of PID-14 and of clients; identifiers only grow."""
    places = {place: _PLACES[place] for place in ("telecom[pid-13]", "identifier[+]")}
    found = merged(_STORED, _change(Mode.MERGE, places)) or {}
    assert [one["value"] for one in found["telecom"]] == ["2", "3", "1"]
    assert [one["value"] for one in found["identifier"]] == ["2", "1"]
    assert found["extension"] == _STORED["extension"]
    gone = merged(found, _change(Mode.MERGE, {}, frozenset({"telecom[pid-13]"}))) or {}
    assert [one["value"] for one in gone["telecom"]] == ["2", "3"]


def test_one_choice_of_type_takes_the_place_of_another() -> None:
    """A resource has one value[x]."""
    stored = {"resourceType": "Observation", "valueString": "x"}
    change = Change(
        "Observation", "change:0", Key("", ()), Mode.MERGE, {"valueQuantity": {}}, Stamp(), ""
    )
    assert "valueString" not in (merged(stored, change) or {})


@pytest.mark.parametrize(
    ("stamp", "origin", "older"),
    [
        (Stamp("2024-01-01", ""), Stamp("2024-01-02", ""), True),
        (Stamp("2024-01-02", ""), Stamp("2024-01-02T10:00:00+00:00", ""), False),
        (Stamp("2024-01", ""), Stamp("2024-01-02", ""), False),
        (Stamp("2024-01-02T10:00:00+06:00", ""), Stamp("2024-01-02T05:00:00+00:00", ""), True),
        (Stamp("", "2024-01-01"), Stamp("2024-01-02", "2024-01-03"), True),
        (Stamp("2024-01-02", "2024-01-01"), Stamp("2024-01-02", "2024-01-03"), True),
        (Stamp(), Stamp("2024-01-02", "2024-01-03"), False),
        (Stamp("2024-01-01", ""), None, False),
    ],
)
def test_h31_said_counts_before_sent(stamp: Stamp, origin: Stamp | None, older: bool) -> None:
    """At the coarser precision of the two; what cannot be compared is not older."""
    assert is_older(stamp, origin) is older


def test_h31_an_older_statement_fills_gaps_only() -> None:
    """An A08 older than what is stored; an A01 that comes after its cancellation."""
    memory = Memory()
    memory.take(adt("A11", said="20240105120000+0000", pv1=visit()))
    plan = memory.take(adt("A01", said="20240105110000+0000", pv1=visit(f14="7")))
    encounter = memory.one("Encounter")
    assert encounter["status"] == "cancelled"
    assert encounter["hospitalization"]["admitSource"]["coding"][0]["code"] == "7"
    assert "late" in {issue.code for issue in plan.issues}


def test_h31_an_older_update_fills_gaps_of_the_patient_too() -> None:
    """What newer messages have said stands; what they did not say is taken."""
    memory = Memory()
    memory.take(adt("A08", said="20240105120000+0000", pv1=visit(place="W2")))
    older = adt("A08", said="20240104120000+0000", pv1=visit(place="W1", f14="7"))
    plan = memory.take(
        older.replace("|DOE^JANE||19800203|F", "|ROE^MARY||19990101|M||||||||||||||||N")
    )
    patient, encounter = memory.one("Patient"), memory.one("Encounter")
    assert (patient["name"][0]["family"], patient["gender"]) == ("DOE", "female")
    assert patient["birthDate"] == "1980-02-03"
    assert patient["multipleBirthBoolean"] is False
    assert encounter["location"][0]["location"]["display"] == "W2"
    assert encounter["hospitalization"]["admitSource"]["coding"][0]["code"] == "7"
    assert "late" in {issue.code for issue in plan.issues}
    memory.take(adt("A08", said="20240105110000+0000").replace("DOE^JANE", "POE^ANN"))
    assert memory.one("Patient")["name"][0]["family"] == "DOE", "the older one moved no stamp"


@pytest.mark.parametrize(
    ("first", "second", "family"),
    [
        ("20240105120000+0600", "20240105070000+0000", "NEW"),
        ("20240105120000+0600", "20240105050000+0000", "OLD"),
        ("20240105120000", "20240105110000", "OLD"),
        ("20240105120000", "20240105070000+0000", "NEW"),  # 06:00 UTC in the sender's zone
        ("20240105120000", "20240105050000+0000", "OLD"),
        ("20240105120000+0600", "20240105", "NEW"),
        ("20240105", "20240104235959+0600", "OLD"),
    ],
)
def test_h31_times_with_and_without_offset_and_dates(first: str, second: str, family: str) -> None:
    """Without an offset the sender's zone; a date and a time are compared as dates."""
    memory = Memory(Profile(zone="Asia/Dhaka"))
    for sent, name in ((first, "OLD"), (second, "NEW")):
        memory.take(message("ADT^A08", f"EVN||{sent}", pid(rest=f"|{name}"), sent=sent))
    assert memory.one("Patient")["name"][0]["family"] == family


def test_h31_a_late_preliminary_result_does_not_undo_a_correction() -> None:
    """REPLACE does nothing when it is older."""
    memory = Memory()
    obr = "OBR|1|P1|F1|1^A^L||||||||||||||||||{}||LAB|{}"
    memory.take(oru("NM|2-1^X^LN||5||||||C", obr=obr.format("20240105100000", "C")))
    memory.take(oru("NM|2-1^X^LN||4||||||P", obr=obr.format("20240105090000", "P")))
    assert str(memory.one("Observation")["valueQuantity"]["value"]) == "5"
    assert memory.one("DiagnosticReport")["status"] == "corrected"


def test_h31_a_time_in_the_future_counts_as_arrival() -> None:
    """A clock that is ahead does not shut out what comes later."""
    memory = Memory()
    future = message("ADT^A08", "EVN|A08", pid(rest="|OLD"), sent="20300101000000+0000")
    memory.take(future, arrived="2024-01-05T12:00:00+00:00")
    now = message("ADT^A08", "EVN|A08", pid(rest="|NEW"), sent="20240105120100+0000")
    memory.take(now, arrived="2024-01-05T12:01:00+00:00")
    assert memory.one("Patient")["name"][0]["family"] == "NEW"


def test_what_comes_out_equal_writes_no_version() -> None:
    """H23: a replay of everything changes nothing."""
    memory = Memory()
    texts = [
        adt("A01", pv1=visit()),
        oru("NM|2-1^X^LN||5||||||F"),
        adt("A02", pv1=visit("I", "W2")),
    ]
    for text in texts:
        memory.take(text)
    written = len(memory.history)
    for text in texts[1:]:
        memory.take(text)
    assert len(memory.history) == written


def test_references_to_the_same_message_become_real() -> None:
    """Handles are replaced wherever they stand."""
    value = {"a": [{"reference": "change:1"}], "b": {"c": {"reference": "Patient/x"}}}
    assert linked(value, {"change:1": "Patient/y"})["a"] == [{"reference": "Patient/y"}]


def test_a_union_knows_members_by_value() -> None:
    """The first stays, and gets what only the other has."""
    one, other = {"system": "s", "value": "1"}, {"system": "s", "value": "1", "use": "old"}
    assert united([one], [other, {"system": "t", "value": "1"}]) == [
        {"system": "s", "value": "1", "use": "old"},
        {"system": "t", "value": "1"},
    ]
