"""design/hl7v2.md, sections 8, 12 and 13: admissions and visits (H39 to H43)."""

from typing import Any

import pytest

from adapters.hl7v2.messages import adt as family
from tests.adapters.memory import Memory
from tests.adapters.texts import adt, message, oru, pid, visit


def _at(hour: int) -> str:
    return f"202401{hour:02d}120000+0000"


def _places(encounter: dict[str, Any]) -> dict[str, str]:
    return {one["location"]["display"]: one["status"] for one in encounter.get("location", ())}


def test_h39_one_encounter_from_admission_to_discharge() -> None:
    """Status, locations, period and history after each event."""
    memory = Memory()
    steps = [
        ("A05", visit("P", "W1"), "planned", {"W1": "planned"}),
        ("A01", visit("I", "W1", f44="20240102100000"), "in-progress", {"W1": "active"}),
        ("A02", visit("I", "W2"), "in-progress", {"W1": "completed", "W2": "active"}),
        ("A12", visit("I", "W1"), "in-progress", {"W1": "active"}),
        ("A02", visit("I", "W3"), "in-progress", {"W1": "completed", "W3": "active"}),
        ("A21", visit("I", "W3"), "onleave", {"W1": "completed", "W3": "active"}),
        ("A22", visit("I", "W3"), "in-progress", {"W1": "completed", "W3": "active"}),
        ("A03", visit("I", "W3", f36="01", f45="20240109100000"), "finished",
         {"W1": "completed", "W3": "completed"}),
        ("A13", visit("I", "W3"), "in-progress", {"W1": "completed", "W3": "active"}),
        ("A03", visit("I", "W3", f45="20240111100000"), "finished",
         {"W1": "completed", "W3": "completed"}),
    ]  # fmt: skip
    for day, (event, pv1, status, places) in enumerate(steps, 1):
        memory.take(adt(event, pv1=pv1, said=_at(day)))
        encounter = memory.one("Encounter")
        assert (encounter["status"], _places(encounter)) == (status, places), event
        if event == "A13":
            assert "end" not in encounter["period"]
            assert "dischargeDisposition" not in encounter.get("hospitalization", {})
    past = [one["status"] for one in memory.one("Encounter")["statusHistory"]]
    assert past == ["planned", "in-progress", "onleave", "in-progress", "finished", "in-progress"]
    assert memory.one("Encounter")["period"]["end"] == "2024-01-11T10:00:00+00:00"


@pytest.mark.parametrize(
    ("event", "status"), [("A11", "cancelled"), ("A38", "cancelled"), ("A23", "entered-in-error")]
)
def test_h39_what_was_wrong_is_cancelled_not_deleted(event: str, status: str) -> None:
    """Nothing is deleted by a message."""
    memory = Memory()
    memory.take(adt("A01", pv1=visit(), said=_at(1)))
    memory.take(adt(event, pv1=visit(), said=_at(2)))
    assert memory.one("Encounter")["status"] == status


@pytest.mark.parametrize("event", sorted(family.EVENTS - {"A43"}))
def test_h40_every_event_is_taken(event: str) -> None:
    """An event about a visit that is not there creates it in the state the event says."""
    memory = Memory()
    mrg = "MRG|9^^^HOSP^MR||A9^^^HOSP||V9^^^HOSP"
    segments = [pid(), mrg, f"PV1|1|{visit()}", pid("2"), mrg, f"PV1|1|{visit(number='V2')}"]
    memory.take(message(f"ADT^{event}", f"EVN|{event}|20240105120000", *segments))
    assert memory.all("Patient")


@pytest.mark.parametrize(
    ("event", "kind", "status"),
    [
        ("A01", "I", "in-progress"),
        ("A01", "P", "planned"),
        ("A01", "U", "unknown"),
        ("A04", "O", "in-progress"),
        ("A14", "I", "planned"),
        ("A27", "I", "cancelled"),
        ("A08", "E", "in-progress"),
        ("A53", "I", "onleave"),
        ("A52", "I", "in-progress"),
    ],
)
def test_h40_the_status_of_a_visit_that_was_unknown(event: str, kind: str, status: str) -> None:
    """By the event, else by PV1-2."""
    memory = Memory()
    memory.take(adt(event, pv1=visit(kind)))
    assert memory.one("Encounter")["status"] == status


def test_h40_an_update_after_discharge_leaves_it_finished() -> None:
    """A08 keeps the status."""
    memory = Memory()
    memory.take(adt("A03", pv1=visit(), said=_at(1)))
    memory.take(adt("A08", pv1=visit(f14="7"), said=_at(2)))
    assert memory.one("Encounter")["status"] == "finished"


def test_h41_without_a_number_the_open_visit_is_meant() -> None:
    """And with PV1-44 the one of that time."""
    memory = Memory()
    memory.take(adt("A01", pv1=visit(), said=_at(1)))
    memory.take(adt("A08", pv1=visit(number="", f14="7"), said=_at(2)))
    assert memory.one("Encounter")["hospitalization"]["admitSource"]["coding"][0]["code"] == "7"
    memory.take(adt("A01", pv1=visit("O", number="", f44="20240301"), said=_at(3)))
    memory.take(adt("A03", pv1=visit("O", number="", f44="20240301"), said=_at(4)))
    assert len(memory.all("Encounter")) == 2


def test_h41_a_result_fills_and_never_overwrites() -> None:
    """PV1 in an ORU is what the laboratory happens to know."""
    memory = Memory()
    memory.take(adt("A01", pv1=visit("I", "W1"), said=_at(1)))
    text = oru("NM|1-8^X^LN||1||||||F", sent=_at(9))
    memory.take(text.replace("\rOBR", f"\rPV1|1|{visit('O', 'LAB', f14='7')}\rOBR"))
    encounter = memory.one("Encounter")
    assert encounter["class"]["code"] == "IMP"
    assert _places(encounter) == {"W1": "active"}
    assert encounter["hospitalization"]["admitSource"]["coding"][0]["code"] == "7"


def test_h42_a_change_of_class_is_remembered() -> None:
    """A06, A07."""
    memory = Memory()
    memory.take(adt("A04", pv1=visit("O", f44="20240101"), said=_at(1)))
    memory.take(adt("A06", pv1=visit("I"), said=_at(2)))
    encounter = memory.one("Encounter")
    assert encounter["class"]["code"] == "IMP"
    assert [one["class"]["code"] for one in encounter["classHistory"]] == ["AMB"]


def test_h42_a_swap_moves_both_visits() -> None:
    """A17: each takes its own PV1-3."""
    memory = Memory()
    groups = (
        pid("1"),
        f"PV1|1|{visit(place='W1')}",
        pid("2"),
        f"PV1|1|{visit(place='W2', number='V2')}",
    )
    memory.take(message("ADT^A17", "EVN|A17", *groups))
    assert sorted(next(iter(_places(one))) for one in memory.all("Encounter")) == ["W1", "W2"]


def test_h42_a_change_of_doctor_keeps_the_rest() -> None:
    """A54 replaces the participants of the fields it carries."""
    memory = Memory()
    memory.take(adt("A01", pv1=visit(f7="1^A", f8="2^B", f14="7"), said=_at(1)))
    memory.take(adt("A54", pv1=visit(f7="3^C"), said=_at(2)))
    encounter = memory.one("Encounter")
    names = {one["individual"]["display"] for one in encounter["participant"]}
    assert names == {"C", "B"}
    assert "admitSource" in encounter["hospitalization"]


def test_h43_lists_sent_five_times_make_no_doubles() -> None:
    """Entries are found by their keys; a missing entry deletes nothing."""
    memory = Memory()
    lists = (
        "NK1|1|DOE^JOHN|SPO", "AL1|1|DA|PCN^Penicillin|SV|RASH", "AL1|2|FA|NUT^Nuts|MI",
        "DG1|1||I10^Hypertension^I10", "PR1|1||0001^Cut^L||20240101",
        "IN1|1|PLAN|INS1|Aetna||||||||20240101",
    )  # fmt: skip
    for day in range(1, 6):
        memory.take(adt("A08", *lists, pv1=visit(), said=_at(day)))
    memory.take(adt("A08", lists[1], pv1=visit(), said=_at(7)))
    counts = {type: len(memory.all(type)) for type in ("AllergyIntolerance", "Condition")}
    assert counts == {"AllergyIntolerance": 2, "Condition": 1}
    assert len(memory.all("Procedure")) == len(memory.all("Coverage")) == 1
    assert len(memory.one("Patient")["contact"]) == 1
    assert memory.one("Encounter")["diagnosis"][0]["condition"]["reference"].startswith(
        "Condition/"
    )


def test_h43_an_action_code_says_it_was_an_error() -> None:
    """IAM-6 D, DG1-21 D: R4 then wants no clinical status."""
    memory = Memory()
    memory.take(adt("A08", "IAM|1|DA|PCN^Penicillin|SV|RASH|A", "DG1|1||I10^HT^I10", said=_at(1)))
    wrong = "DG1|1||I10^HT^I10" + "|" * 18 + "D"
    memory.take(adt("A08", "IAM|1|DA|PCN^Penicillin|SV|RASH|D", wrong, said=_at(2)))
    for type in ("AllergyIntolerance", "Condition"):
        resource = memory.one(type)
        assert resource["verificationStatus"]["coding"][0]["code"] == "entered-in-error"
        assert "clinicalStatus" not in resource


def test_a_person_is_deactivated_not_deleted() -> None:
    """A29, and A23 without a visit number."""
    for event, pv1 in (("A29", ""), ("A23", "I")):
        memory = Memory()
        memory.take(adt("A08", said=_at(1)))
        memory.take(adt(event, pv1=pv1, said=_at(2)))
        assert memory.one("Patient")["active"] is False
