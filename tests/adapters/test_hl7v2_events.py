"""design/hl7v2.md, sections 12 to 14: every event of the families beside ADT.

Checks H45, H49, H50, H52, H54, H55, H57, H59, H60, H61.
"""

import base64
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from adapters.hl7v2.identity import IdentityRules
from adapters.hl7v2.issues import MessageFault
from adapters.hl7v2.message import read
from adapters.hl7v2.messages import FAMILIES, changes_of
from adapters.hl7v2.senders import Profile
from fhir_server.artifacts import artifacts_root
from fhir_server.r4.definitions import load_definitions
from fhir_server.validation.structure import StructureValidator
from tests.adapters.memory import Memory
from tests.adapters.test_hl7v2_shared import _texts
from tests.adapters.texts import message, oru, pid


def _day(n: int) -> str:
    return f"202401{n:02d}120000+0000"


def _issues(text: str, **profile: Any) -> set[str]:
    return {one.code for one in changes_of(read(text), Profile(**profile)).issues}


@pytest.fixture(scope="module")
def validator() -> StructureValidator:
    """The server's own validator."""
    return StructureValidator(load_definitions(artifacts_root()))


# --------------------------------------------------------------------------------------- results


def test_h45_every_obx_of_the_shared_results_becomes_an_observation(shared: Path) -> None:
    """Whatever its OBX-2: nothing is lost, and nothing that has a value comes out without."""
    seen: Counter[str] = Counter()
    for name, text in _texts(shared / "hl7v2"):
        sent = read(text)
        if sent.type not in ("ORU", "OUL"):
            continue
        memory = Memory(Profile(identity=IdentityRules(anonymous="create")))
        try:
            memory.take(text)
        except MessageFault:
            continue
        rows = sent.all("OBX")
        found = memory.all("Observation")
        assert len(found) == len(rows), name
        valued = sum(
            row.valued(5)
            and row.text(11) not in ("X", "N")
            and (row.text(2) != "ED" or row.text(5, 5) != "")
            for row in rows
        )
        shown = sum(
            any(name.startswith("value") for name in one)
            or any("valueAttachment" in extension for extension in one.get("extension", ()))
            or "component" in one
            for one in found
        )
        assert shown >= valued, name
        seen.update(row.text(2) for row in rows)
    assert len(seen) > 8


@pytest.mark.parametrize(
    ("row", "issue", "is_kept"),
    [
        ("XX|2-1^X^LN||a^b||||||F", "", lambda one: one["valueString"] == "a b"),
        ("|2-1^X^LN||5||||||F", "obx-2-missing", lambda one: "valueQuantity" in one),
        ("NM|||5||||||F", "obx-3-missing", lambda one: "valueQuantity" in one),
        ("NM|2-1^X^LN||5||||||?", "code-unknown", lambda one: "?" in str(one["_status"])),
        ("NM|2-1^X^LN||5|||QQ|||F", "", lambda one: "QQ" in str(one["interpretation"])),
    ],
    ids=["OBX-2", "no OBX-2", "no OBX-3", "OBX-11", "OBX-8"],
)
def test_h49_what_is_unknown_costs_no_result(row: str, issue: str, is_kept: Any) -> None:
    """It is kept, the code as it was sent stays with it, and the row says what was strange."""
    memory = Memory()
    memory.take(oru(row))

    assert is_kept(memory.one("Observation"))
    assert not issue or issue in _issues(oru(row))


def test_h50_orders_that_share_a_placer_number_stay_apart() -> None:
    """One ServiceRequest and one report for each OBR; a partial report grows, also by a later
    message with another OBR of the same order."""
    memory = Memory()
    obr = "OBR|{}|P1^EHR|F{}^LAB|{}^{}^L||||||||||||||||||||LAB|{}"
    for day, status in ((1, "P"), (2, "F")):
        lines = [
            line
            for n, test in enumerate(("CBC", "CHEM"), 1)
            for line in (
                obr.format(n, n, test, test, status),
                f"OBX|1|NM|{test}{day}^X^L||{day}||||||F",
            )
        ]
        memory.take(message("ORU^R01", pid(), *lines, sent=_day(day)))

    requests = {one["code"]["coding"][0]["code"] for one in memory.all("ServiceRequest")}
    assert requests == {"CBC", "CHEM"}
    assert len(memory.all("ServiceRequest")) == len(memory.all("DiagnosticReport")) == 2
    for report in memory.all("DiagnosticReport"):
        assert (len(report["result"]), report["status"]) == (2, "final")
        assert len(report["basedOn"]) == 1


@pytest.mark.parametrize(
    ("value", "media", "data"),
    [
        ("^TEXT^^A^plain \\T\\ simple", "text/plain", b"plain & simple"),
        ("^AP^RTF^Base64^" + base64.b64encode(b"{\\rtf}").decode(), "application/rtf", b"{\\rtf}"),
        ("^application^octet-stream^Hex^00ff10", "application/octet-stream", b"\x00\xff\x10"),
        ("^image^jpeg^Base64^/9j/", "image/jpeg", b"\xff\xd8\xff"),
    ],
)
def test_h52_documents_of_every_encoding(value: str, media: str, data: bytes) -> None:
    """A, Hex and Base64: bytes as they were, with their size and hash."""
    memory = Memory()
    memory.take(oru(f"ED|2-1^X^LN||{value}||||||F"))
    [form] = memory.one("DiagnosticReport")["presentedForm"]

    assert (form["contentType"], base64.b64decode(form["data"])) == (media, data)
    assert form["size"] == len(data)


@pytest.mark.parametrize("data", ["###", "QUJ", "QUJD!", "4142G"])
def test_h52_broken_data_costs_no_result(data: str) -> None:
    """The Observation is there, and an issue says why it has no document."""
    row = f"ED|2-1^X^LN||^AP^PDF^{'Hex' if data[0] == '4' else 'Base64'}^{data}||||||F"
    memory = Memory()
    memory.take(oru(row, "NM|3-1^Y^LN||7||||||F"))

    assert len(memory.all("Observation")) == 2
    assert "presentedForm" not in memory.one("DiagnosticReport")
    assert "attachment-invalid" in _issues(oru(row))


# ---------------------------------------------------------------------------------------- orders


@pytest.mark.parametrize("code", "NW RO RP PA CH CA DC OC OD HD RL NA SN SC RE XO".split())
def test_h54_every_order_control_is_taken_and_kept(
    code: str, validator: StructureValidator
) -> None:
    """One ServiceRequest, valid, with the control in its extension; NA and SN add the number."""
    memory = Memory()
    obr = "OBR|1|P1^EHR|{}|1-8^CMP^LN"
    memory.take(message("ORM^O01", pid(), "ORC|NW|P1^EHR", obr.format(""), sent=_day(1)))
    filler = "F9^LAB"
    orc = f"ORC|{code}|P1^EHR|{filler}"
    memory.take(message("ORM^O01", pid(), orc, obr.format(filler), sent=_day(2)))
    request = memory.one("ServiceRequest")

    assert code in str(request["extension"])
    assert {one["value"] for one in request["identifier"]} == {"P1", "F9"}
    assert not validator.issues(request)


@pytest.mark.parametrize("event", ["O33", "O35"])
def test_h55_orders_led_by_specimens(event: str) -> None:
    """OML: each order has the specimen before it, each specimen its container."""
    memory = Memory()
    lines = []
    for n in (1, 2):
        lines += [f"SPM|{n}|S{n}||SER^Serum^HL70487", f"SAC|||C{n}", f"ORC|NW|P{n}"]
        lines += [f"OBR|{n}|P{n}||{n}^Test{n}^L"]
    memory.take(message(f"OML^{event}", pid(), *lines))
    containers = {
        one["id"]: one["container"][0]["identifier"][0]["value"] for one in memory.all("Specimen")
    }
    links = {
        one["code"]["coding"][0]["code"]: one["specimen"][0]["reference"].partition("/")[2]
        for one in memory.all("ServiceRequest")
    }

    assert {n: containers[id] for n, id in links.items()} == {"1": "C1", "2": "C2"}


@pytest.mark.parametrize("event", ["R22", "R23", "R24"])
def test_h55_results_led_by_specimen_container_or_order(event: str) -> None:
    """OUL: specimen, container, report and result are linked, whatever leads."""
    spm, sac = "SPM|1|S1||SER^Serum^HL70487", "SAC|||C1"
    obr = "OBR|1|P1|F1|1^A^L||||||||||||||||||||LAB|F"
    obx = "OBX|1|NM|2-1^X^LN||1||||||F"
    orders = {
        "R22": (spm, sac, obr, "ORC|RE|P1", obx),
        "R23": (spm, sac, obr, "ORC|RE|P1", obx),
        "R24": (obr, "ORC|RE|P1", spm, sac, obx),
    }
    memory = Memory()
    memory.take(message(f"OUL^{event}", pid(), *orders[event]))
    place = f"Specimen/{memory.one('Specimen')['id']}"

    assert memory.one("Specimen")["container"][0]["identifier"][0]["value"] == "C1"
    assert memory.one("DiagnosticReport")["specimen"] == [{"reference": place}]
    assert memory.one("Observation")["specimen"] == {"reference": place}
    result = {"reference": f"Observation/{memory.one('Observation')['id']}"}
    assert memory.one("DiagnosticReport")["result"] == [result]
    assert len(memory.all("ServiceRequest")) == 1


# ------------------------------------------------------------------------------------- schedules

APPOINTMENT = "SCH|P1|F1|||||||30|MIN|^^^20240201090000+0000|||||||||||||"
STATUS = {
    **dict.fromkeys("S12 S13 S14 S18 S19 S20 S21 S22".split(), "booked"),
    "S15": "cancelled", "S16": "cancelled", "S17": "entered-in-error", "S26": "noshow",
}  # fmt: skip


def test_h57_every_event_has_its_row() -> None:
    """S23 and S24 make Slots; S25 is none."""
    assert set(STATUS) | {"S23", "S24"} == FAMILIES["SIU"][0] - {"S27"}


@pytest.mark.parametrize(("event", "status"), STATUS.items(), ids=STATUS)
def test_h57_the_status_of_an_appointment(event: str, status: str) -> None:
    """By the event, on the Appointment that was booked."""
    memory = Memory()
    memory.take(message("SIU^S12", APPOINTMENT, pid(), "AIL|1||R1", sent=_day(1)))
    memory.take(message(f"SIU^{event}", APPOINTMENT, pid(), sent=_day(2)))
    appointment = memory.one("Appointment")

    assert appointment["status"] == status
    assert "R1" in str(appointment["participant"])  # no AIL in the second one: it stays


@pytest.mark.parametrize("event", ["S18", "S19", "S20", "S21", "S22"])
def test_h57_participants_of_the_segments_carried_are_replaced(event: str) -> None:
    """AIP replaces those of AIP, and leaves those of AIL."""
    memory = Memory()
    memory.take(message("SIU^S12", APPOINTMENT, pid(), "AIL|1||R1", "AIP|1||1^OLD", sent=_day(1)))
    memory.take(message(f"SIU^{event}", APPOINTMENT, pid(), "AIP|1||2^NEW", sent=_day(2)))
    shown = [one["actor"].get("display") for one in memory.one("Appointment")["participant"]]

    assert sorted(filter(None, shown)) == ["NEW", "R1"]


@pytest.mark.parametrize(
    ("said", "status"),
    [("Booked", "booked"), ("PENDING", "pending"), ("noshow", "noshow"), ("zzz", "booked")],
)
def test_h57_the_status_of_sch_25(said: str, status: str) -> None:
    """Table 0278, whatever the case; an unknown one is an issue."""
    text = message("SIU^S14", APPOINTMENT.rstrip("|") + "|" * 14 + said, pid())
    memory = Memory()
    memory.take(text)

    assert memory.one("Appointment")["status"] == status
    assert ("code-unknown" in _issues(text)) is (said == "zzz")


def test_h57_a_cancelled_appointment_says_why_and_is_booked_again() -> None:
    """SCH-6 becomes the reason; both numbers find the same Appointment."""
    memory = Memory()
    reason = APPOINTMENT.replace("SCH|P1|F1||||", "SCH|P1|F1||||ILL^Ill^L")
    memory.take(message("SIU^S12", APPOINTMENT, pid(), sent=_day(1)))
    memory.take(message("SIU^S15", reason, pid(), sent=_day(2)))
    assert memory.one("Appointment")["cancelationReason"]["coding"][0]["code"] == "ILL"
    again = APPOINTMENT.replace("SCH|P1|F1", "SCH|P1|")
    memory.take(message("SIU^S12", again, pid(), sent=_day(3)))

    assert memory.one("Appointment")["status"] == "booked"


# ------------------------------------------------------------------------------------- documents

TXA = "TXA|1|DS^Summary^L|TX|||||||||{}|{}|||Title|AU||AV"
TEXT = "OBX|1|TX|1^Text^L||{}||||||F"


@pytest.mark.parametrize("event", [f"T{n:02d}" for n in range(1, 12)])
def test_h59_every_event_of_a_document(event: str) -> None:
    """Odd ones carry no content and keep what is there; even ones bring theirs."""
    memory = Memory()
    memory.take(message("MDM^T02", pid(), TXA.format("D1", ""), TEXT.format("old"), sent=_day(1)))
    number = "D2" if event in ("T05", "T06", "T09", "T10") else "D1"
    parent = "D1" if number == "D2" else ""
    carries = int(event[1:]) % 2 == 0
    lines = [TEXT.format("new")] if carries else []
    memory.take(message(f"MDM^{event}", pid(), TXA.format(number, parent), *lines, sent=_day(2)))
    documents = {one["masterIdentifier"]["value"]: one for one in memory.all("DocumentReference")}
    found = documents[number]
    data = found["content"][0]["attachment"].get("data", "")

    assert set(documents) == {"D1", number}
    assert base64.b64decode(data) == (b"new" if carries else b"old" if number == "D1" else b"")
    relates = [one["code"] for one in found.get("relatesTo", ())]
    assert relates == {"T05": ["appends"], "T06": ["appends"], "T09": ["replaces"],
                       "T10": ["replaces"]}.get(event, [])  # fmt: skip
    superseded = event in ("T09", "T10")
    status = "entered-in-error" if event == "T11" else "superseded" if superseded else "current"
    assert documents["D1"]["status"] == status
    assert found["docStatus"] == ("amended" if event in ("T07", "T08") else "final")


# ------------------------------------------------------------------------- charges and problems


@pytest.mark.parametrize("event", ["P01", "P02", "P05", "P06", "P10", "P12"])
def test_h60_every_event_of_an_account(event: str) -> None:
    """BAR: the account, its insurance, diagnoses and procedures; P06 ends it."""
    account = pid() + "|" * 10 + "ACC1"
    lists = (
        "DG1|1||I10^Hypertension^I10",
        "PR1|1||0001^Cut^L||20240101",
        "IN1|1|PLAN|INS1|Aetna",
    )
    memory = Memory()
    memory.take(message(f"BAR^{event}", f"EVN|{event}|{_day(1)}", account, *lists))

    assert memory.one("Account")["status"] == ("inactive" if event == "P06" else "active")
    for type in ("Condition", "Procedure", "Coverage"):
        assert len(memory.all(type)) == 1, type


@pytest.mark.parametrize("event", ["P03", "P11"])
def test_h60_a_charge_sent_again_is_one_and_a_credit_ends_it(event: str) -> None:
    """Found by FT1-2; price, quantity and codes as they were sent."""
    memory = Memory()
    ft1 = "FT1|1|T1||20240101|20240102|{}|C1^Visit^L|||2||50.00&USD"
    for day, kind in enumerate(("CG", "CG", "CD"), 1):
        memory.take(message(f"DFT^{event}", pid(), ft1.format(kind), sent=_day(day)))
    charge = memory.one("ChargeItem")

    assert charge["status"] == "aborted"
    assert str(charge["quantity"]["value"]) == "2"
    assert str(charge["priceOverride"]["value"]) == "50.00"
    assert charge["priceOverride"]["currency"] == "USD"
    payment = message(f"DFT^{event}", pid(), ft1.replace("|T1|", "|T2|").format("PY"))
    assert "not-a-charge" in _issues(payment)


@pytest.mark.parametrize("event", ["PC1", "PC2", "PC3"])
def test_h61_every_event_of_a_problem(event: str) -> None:
    """PRB-1 decides, and PRB-4 finds the Condition again."""
    memory = Memory()
    prb = "PRB|{}|20240101|I10^Hypertension^I10|PB1||20230101||20240105|||||CONFIRMED|{}"
    memory.take(message(f"PPR^{event}", pid(), prb.format("AD", "ACTIVE"), sent=_day(1)))
    memory.take(message(f"PPR^{event}", pid(), prb.format("UP", "RESOLVED"), sent=_day(2)))
    condition = memory.one("Condition")

    assert condition["clinicalStatus"]["coding"][0]["code"] == "resolved"
    assert condition["verificationStatus"]["coding"][0]["code"] == "confirmed"
    assert condition["category"][0]["coding"][0]["code"] == "problem-list-item"
