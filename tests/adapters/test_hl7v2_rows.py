"""design/hl7v2.md, section 8: every row of every MERGE table meets what is stored (H29, H30)."""

from collections.abc import Mapping

import pytest

from adapters.hl7v2.rows import Row, Table
from adapters.hl7v2.segments import al1, dg1, in1, nk1, obr, pid, pv1, rx, sch
from adapters.hl7v2.senders import Profile
from fhir_server.r4.json import encode
from tests.adapters.memory import Json, Memory
from tests.adapters.texts import message

DAYS = [f"2024010{day}120000+0000" for day in range(5, 9)]
# What a field may be given; the first that makes a difference is taken.
VALUES = (
    *("7", "20240102030405", "Y", "M", "P", "SV", "G", "R", "MTH", "F", "inactive", "DA"),
    "resolved",
    *("A^B^L", "12^DOC^JOE", "1&2^3&4", "2^DAY"),
)
# Segment -> the type of a message that brings it, the fields without which it is nothing or by
# which it is found again, and the segments before it.
BRINGS: Mapping[str, tuple[str, dict[int, str], str]] = {
    "PID": ("ADT^A08", {3: "1^^^HOSP^MR", 5: "DOE"}, ""),
    "PD1": ("ADT^A08", {}, "PID"),
    "NK1": ("ADT^A08", {2: "ROE^MARY", 33: "9^^^HOSP"}, "PID"),
    "PV1": ("ADT^A08", {2: "I", 19: "V1^^^HOSP"}, "PID"),
    "PV2": ("ADT^A08", {}, "PID PV1"),
    "AL1": ("ADT^A08", {3: "X^x^L"}, "PID"),
    "IAM": ("ADT^A60", {3: "X^x^L", 7: "I1"}, "PID"),
    "DG1": ("ADT^A08", {3: "X^x^L", 20: "D1"}, "PID"),
    "PR1": ("ADT^A08", {3: "X^x^L", 19: "R1"}, "PID"),
    "IN1": ("ADT^A08", {2: "P1^Plan", 3: "C1", 36: "77"}, "PID"),
    "PRB": ("PPR^PC1", {3: "X^x^L", 4: "B1"}, "PID"),
    "SCH": ("SIU^S12", {1: "P1", 2: "F1"}, "PID"),
    "ORC": ("ORM^O01", {1: "NW", 2: "P1"}, "PID"),
    "OBR": ("ORM^O01", {2: "P1", 4: "X^x^L"}, "PID ORC"),
    "RXO": ("OMP^O09", {1: "D^d^L"}, "PID ORC"),
    "RXE": ("RDE^O11", {2: "D^d^L"}, "PID ORC"),
}
# Rows that count only where another field is not valued -> that field.
INSTEAD = {"DG1-4": 3, "PR1-4": 3, "IN1-49": 36}
# Rows after which something stays that follows from what was said, as the event or another field.
FOLLOWS = {"PV1-45": "a visit does not begin anew", "PRB-9": "PRB-14 says what the state is"}
TABLES = [
    *(pid.PATIENT, pid.PRIMARY_CARE, nk1.RELATIVE, pv1.VISIT, pv1.VISIT_MORE, al1.AL1, al1.IAM),
    *(dg1.DIAGNOSIS, dg1.PROBLEM, dg1.PROCEDURE, in1.INSURANCE, sch.APPOINTMENT, obr.ORDER),
    *(obr.CONTROL, rx.REQUESTED, rx.ENCODED, rx.CONTROL),
]


def _written(name: str, fields: Mapping[int, str]) -> str:
    return "|".join([name, *(fields.get(n, "") for n in range(1, max(fields, default=0) + 1))])


def _message(table: Table, field: int, value: str, day: str, without: int) -> str:
    kind, keys, before = BRINGS[table.segment]
    given = {n: text for n, text in keys.items() if n != without} | (
        {field: value} if value else {}
    )
    lines = [_written(name, BRINGS[name][1]) for name in before.split()]
    lines.append(_written(table.segment, given))
    if table is rx.CONTROL:
        kind = "OMP^O09"
        lines.append("RXO|D^d^L")
    elif table is obr.CONTROL:
        lines.append("OBR|1|P1||X^x^L")
    return message(kind, f"EVN||{day}", *lines, sent=day, control=day)


def _state(memory: Memory, type: str) -> list[Json]:
    found = []
    for one in memory.all(type):
        security = one.get("meta", {}).get("security")
        rest = {name: value for name, value in one.items() if name not in ("meta", "id")}
        found.append({**rest, "security": security})
    return found


def _rows(table: Table) -> list[tuple[Row, int]]:
    keys = BRINGS[table.segment][1]
    numbered = [(row, int(row.field.partition("-")[2].rstrip("*"))) for row in table.rows]
    return [(row, n) for row, n in numbered if n not in keys and not row.place.endswith("[+]")]


def _states(table: Table, field: int, value: str, without: int) -> list[list[Json]]:
    """Return what is stored after a field was absent, valued, absent and ``""``."""
    memory = Memory(Profile(next_of_kin="RelatedPerson"))
    states = []
    for said, day in zip(("", value, "", '""'), DAYS, strict=True):
        memory.take(_message(table, field, said, day, without))
        states.append(_state(memory, table.type))
    return states


@pytest.mark.parametrize("table", TABLES, ids=lambda one: f"{one.segment}-{one.type}")
def test_h29_each_row_keeps_replaces_and_removes(table: Table) -> None:
    """Valued it is there; absent it stays; ``""`` and it is as if it had never been said."""
    for row, field in _rows(table):
        without = INSTEAD.get(row.field.rstrip("*"), 0)
        tried = (_states(table, field, value, without) for value in VALUES)
        found = next((states for states in tried if states[0] != states[1]), None)
        assert found, f"{row.field}: no value fits"
        never, valued, absent, null = found
        assert absent == valued, f"{row.field}: absent does not keep"
        if row.field in FOLLOWS:
            assert row.place.partition(".")[0] not in null[0], row.field
        else:
            assert null == never, f'{row.field}: "" does not remove'


@pytest.mark.parametrize("table", TABLES, ids=lambda one: f"{one.segment}-{one.type}")
def test_h29_no_delete_mark_is_ever_stored(table: Table) -> None:
    """Inside a valued field a component ``""`` is a component without value."""
    for row, field in _rows(table):
        for value in ('A^""^B', '""^A^L', 'A&""^B&""', 'A~""~B'):
            memory = Memory(Profile(next_of_kin="RelatedPerson"))
            without = INSTEAD.get(row.field.rstrip("*"), 0)
            memory.take(_message(table, field, value, DAYS[0], without))
            for resource in memory.resources.values():
                assert b'\\"\\"' not in encode(resource), (row.field, value)


def test_h30_each_field_keeps_its_place_among_the_names_of_others() -> None:
    """What one field says anew does not move behind what another said: no version for nothing."""
    both, one = (f"PID|1||1^^^HOSP^MR||DOE^J||||{alias}" for alias in ("ALIAS^A", ""))
    memory = Memory()
    for day, text in zip(DAYS, (both, one, both), strict=False):
        memory.take(message("ADT^A08", f"EVN||{day}", text, sent=day))
    assert len([place for place in memory.history if place[0] == "Patient"]) == 1


def test_h29_a_number_stands_for_the_payor_only_until_it_has_a_name() -> None:
    """IN1-3 where IN1-4 never said who it is; afterwards what IN1-4 said stays."""
    memory = Memory()
    shown = []
    for day, name in zip(DAYS, ("", "Insurer", ""), strict=False):
        in1 = f"IN1|1|P1|C1|{name}"
        memory.take(message("ADT^A08", f"EVN||{day}", "PID|1||1^^^HOSP^MR", in1, sent=day))
        [payor] = memory.one("Coverage")["payor"]
        shown.append(payor.get("display") or payor["identifier"]["value"])
    assert shown == ["C1", "Insurer", "Insurer"]
