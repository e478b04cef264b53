"""design/hl7v2.md, sections 8, 9, 12 and 13: every event of the ADT table (H40 to H42)."""

from typing import Any

import pytest

from adapters.hl7v2.messages import adt as family
from adapters.hl7v2.senders import Profile
from tests.adapters.memory import Memory
from tests.adapters.texts import adt, message, oru, pid, visit

KEPT = "in-progress"
# Event -> Encounter.status of a visit that was in progress. Events of section 10 have none.
STATUS = {
    "A01": KEPT, "A02": KEPT, "A03": "finished", "A04": KEPT, "A05": "planned", "A06": KEPT,
    "A07": KEPT, "A08": KEPT, "A09": KEPT, "A10": KEPT, "A11": "cancelled", "A12": KEPT,
    "A13": KEPT, "A14": "planned", "A15": KEPT, "A16": KEPT, "A17": KEPT, "A21": "onleave",
    "A22": KEPT, "A23": "entered-in-error", "A25": KEPT, "A26": KEPT, "A27": "cancelled",
    "A28": KEPT, "A29": KEPT, "A31": KEPT, "A32": KEPT, "A33": KEPT, "A38": "cancelled",
    "A52": KEPT, "A53": "onleave", "A54": KEPT, "A55": KEPT, "A60": KEPT, "A61": KEPT,
    "A62": KEPT,
}  # fmt: skip
ELSEWHERE = {*family.MERGES, *family.RENUMBERS, *family.LINKS, *family.NUMBERED, "A43"}
PLANNED_START, PLANNED_END = (
    f"http://hl7.org/fhir/5.0/StructureDefinition/extension-Encounter.planned{which}Date"
    for which in ("Start", "End")
)


def _at(day: int) -> str:
    return f"202401{day:02d}120000+0000"


def _extensions(resource: dict[str, Any]) -> dict[str, str]:
    return {one["url"]: one.get("valueDateTime", "") for one in resource.get("extension", ())}


def _places(encounter: dict[str, Any]) -> dict[str, str]:
    return {one["location"]["display"]: one["status"] for one in encounter.get("location", ())}


def test_h40_every_event_has_its_row() -> None:
    """Those of the table, and those of section 10; A19 and A20 are refused."""
    assert set(STATUS) | ELSEWHERE >= family.EVENTS - {"A30", "A39"}
    assert not set(STATUS) & ELSEWHERE
    assert {"A19", "A20"} & family.EVENTS == set()


@pytest.mark.parametrize(("event", "status"), STATUS.items(), ids=STATUS)
def test_h40_what_an_event_does_to_a_visit_that_goes_on(event: str, status: str) -> None:
    """One Encounter, in the state that the event says; its moves are in the history."""
    memory = Memory()
    memory.take(adt("A01", pv1=visit(f44="20240101"), said=_at(1)))
    kind = "P" if event in ("A05", "A14") else "I"
    memory.take(adt(event, pv1=visit(kind), said=_at(2)))
    encounter = memory.one("Encounter")

    assert encounter["status"] == status
    past = [one["status"] for one in encounter.get("statusHistory", ())]
    assert past == ([KEPT] if status != KEPT else [])
    assert memory.one("Patient")["active"] is (event != "A29")


@pytest.mark.parametrize("event", sorted({*STATUS} - {"A23", "A13", "A22", "A52", "A11"}))
def test_h40_pv1_45_finishes_a_visit(event: str) -> None:
    """Where the event itself says nothing of the status."""
    memory = Memory()
    memory.take(adt(event, pv1=visit(f44="20240101", f45="20240102"), said=_at(2)))
    own = {"A05": "planned", "A14": "planned", "A21": "onleave", "A53": "onleave"}
    cancelled = {"A27": "cancelled", "A38": "cancelled"}

    assert memory.one("Encounter")["status"] == {**own, **cancelled}.get(event, "finished")


def test_h40_temporary_and_planned_locations() -> None:
    """A10 arrives at PV1-11, A09 leaves it, A32 undoes the arrival; A15 plans PV1-42, A26 not."""
    memory = Memory()
    memory.take(adt("A01", pv1=visit(), said=_at(1)))
    seen = []
    for day, (event, fields) in enumerate(
        [("A10", {"f11": "XRAY"}), ("A09", {"f11": "XRAY"}), ("A10", {"f11": "LAB"}),
         ("A32", {"f11": "LAB"}), ("A15", {"f42": "W9"}), ("A26", {"f42": "W9"})], 2
    ):  # fmt: skip
        memory.take(adt(event, pv1=visit(**fields), said=_at(day)))
        seen.append({k: v for k, v in _places(memory.one("Encounter")).items() if k[:2] != "W1"})

    assert seen[0] == {"XRAY": "active"}
    assert seen[1] == {"XRAY": "completed"}
    assert seen[2]["LAB"] == "active"
    assert "LAB" not in seen[3]
    assert seen[4]["W9"] == "planned"
    assert "W9" not in seen[5]


def test_h40_planned_start_and_end() -> None:
    """A14 with PV2-8; A16 with PV2-9, which A25 takes back."""
    memory = Memory()
    pv2 = "PV2||||||||20240201|20240205"
    memory.take(adt("A14", pv2, pv1=visit("P"), said=_at(1)))
    assert _extensions(memory.one("Encounter"))[PLANNED_START] == "2024-02-01"
    memory.take(adt("A01", pv1=visit(), said=_at(2)))
    memory.take(adt("A16", pv2, pv1=visit(), said=_at(3)))
    assert _extensions(memory.one("Encounter"))[PLANNED_END] == "2024-02-05"
    memory.take(adt("A25", pv1=visit(), said=_at(4)))
    assert PLANNED_END not in _extensions(memory.one("Encounter"))


def test_h40_the_end_of_a_visit_is_pv1_45_else_evn_6_else_unknown() -> None:
    """None is invented."""
    for evn6, pv1, end in (
        ("20240103080000+0000", visit(f45="20240102"), "2024-01-02"),
        ("20240103080000+0000", visit(), "2024-01-03T08:00:00+00:00"),
        ("", visit(), None),
    ):
        memory = Memory()
        text = adt("A03", pv1=pv1, said=_at(4)).replace(
            f"EVN|A03|{_at(4)}", f"EVN|A03|{_at(4)}||||{evn6}"
        )
        memory.take(text)
        assert memory.one("Encounter").get("period", {}).get("end") == end


def test_h41_which_visit_is_meant() -> None:
    """PV1-19, else PV1-50, else PID-18 where the profile says so, else time, else the open one."""
    memory = Memory()
    memory.take(adt("A01", pv1=visit(number="", f50="ALT1"), said=_at(1)))
    memory.take(adt("A03", pv1=visit(number="", f50="ALT1"), said=_at(2)))
    assert memory.one("Encounter")["status"] == "finished"
    memory.take(adt("A01", pv1=visit(number="V9", f50="ALT2"), said=_at(3)))
    assert len(memory.all("Encounter")) == 2

    account = pid() + "|" * 10 + "ACC1"
    for is_visit, count in ((True, 1), (False, 2)):
        memory = Memory(Profile(pid18_is_visit=is_visit))
        for day, place in ((1, "20240101"), (2, "20240102")):
            evn = f"EVN|A08|{_at(day)}"
            pv1 = f"PV1|1|{visit(number='', f44=place)}"
            memory.take(message("ADT^A08", evn, account, pv1, sent=_at(day)))
        assert len(memory.all("Encounter")) == count


def test_h41_a_result_before_the_admission_is_filled_by_it() -> None:
    """PV1 of an ORU makes the Encounter; ADT then says what is so, and the ORU never again."""
    memory = Memory()
    text = oru("NM|1-8^X^LN||1||||||F", sent=_at(1))
    text = text.replace("\rOBR", f"\rPV1|1|{visit('O', 'LAB')}\rOBR")
    memory.take(text)
    assert memory.one("Encounter")["class"]["code"] == "AMB"
    memory.take(adt("A01", pv1=visit("I", "W1"), said=_at(2)))
    memory.take(text.replace(_at(1), _at(3)))
    encounter = memory.one("Encounter")

    assert encounter["class"]["code"] == "IMP"
    assert _places(encounter)["W1"] == "active"


def test_h42_class_changes_there_and_back() -> None:
    """A06 and A07: every class that was is in the history, in order."""
    memory = Memory()
    for day, (event, kind) in enumerate([("A04", "O"), ("A06", "I"), ("A07", "O")], 1):
        memory.take(adt(event, pv1=visit(kind), said=_at(day)))
    encounter = memory.one("Encounter")

    assert encounter["class"]["code"] == "AMB"
    assert [one["class"]["code"] for one in encounter["classHistory"]] == ["AMB", "IMP"]


def test_h42_a_swap_of_two_that_are_there() -> None:
    """A17: both Encounters have the place of the other one, and nobody is doubled."""
    memory = Memory()
    groups = {
        "1": [pid("1"), f"PV1|1|{visit(place='W1')}"],
        "2": [pid("2"), f"PV1|1|{visit(place='W2', number='V2')}"],
    }
    for number, segments in groups.items():
        memory.take(message("ADT^A01", f"EVN|A01|{_at(1)}", *segments, control=number))
    swapped = [
        pid("1"), f"PV1|1|{visit(place='W2')}", pid("2"), f"PV1|1|{visit(place='W1', number='V2')}"
    ]  # fmt: skip
    memory.take(message("ADT^A17", f"EVN|A17|{_at(2)}", *swapped, sent=_at(2)))
    active = {
        one["identifier"][0]["value"]: [p for p, s in _places(one).items() if s == "active"]
        for one in memory.all("Encounter")
    }

    assert active == {"V1": ["W2"], "V2": ["W1"]}
    assert len(memory.all("Patient")) == 2
