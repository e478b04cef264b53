"""design/hl7v2.md, sections 12 and 13: orders, medications, schedules, vaccinations, documents,
charges, problems, queries (H54 to H61, H71)."""

import base64

import pytest

from adapters.hl7v2.issues import MessageFault
from adapters.hl7v2.message import Message, read
from adapters.hl7v2.messages import changes_of
from adapters.hl7v2.messages.query import Found, Question, answered, question
from adapters.hl7v2.scene import scene_of
from adapters.hl7v2.senders import Profile
from tests.adapters.memory import Memory
from tests.adapters.texts import message, oru, pid


def _day(n: int) -> str:
    return f"202401{n:02d}120000+0000"


# ---------------------------------------------------------------------------------------- orders


def _order(control: str, status: str = "", kind: str = "ORM^O01", day: int = 5) -> str:
    orc = f"ORC|{control}|P1^EHR|||{status}||||20240101||||||||"
    return message(kind, pid(), orc, "OBR|1|P1^EHR||1-8^CMP^LN", sent=_day(day))


@pytest.mark.parametrize("kind", ["ORM^O01", "OML^O21", "OMG^O19"])
@pytest.mark.parametrize(
    ("control", "status", "means"),
    [
        ("NW", "", "active"), ("CA", "", "revoked"), ("DC", "", "revoked"), ("OC", "", "revoked"),
        ("OD", "", "revoked"), ("HD", "", "on-hold"), ("RL", "", "active"), ("RP", "", "revoked"),
        ("SC", "CM", "completed"), ("SC", "IP", "active"), ("NW", "HD", "on-hold"),
        ("SC", "", "active"), ("NA", "", "active"), ("ZZ", "", "unknown"),
    ],
)  # fmt: skip
def test_h54_the_status_of_an_order(kind: str, control: str, status: str, means: str) -> None:
    """ORC-5, else ORC-1, else active; the order control itself is kept."""
    memory = Memory()
    memory.take(_order(control, status, kind))
    request = memory.one("ServiceRequest")
    assert request["status"] == means
    assert control in str(request["extension"])


def test_h54_an_order_changes_in_place_and_its_result_is_linked() -> None:
    """One ServiceRequest from order to result."""
    memory = Memory()
    memory.take(_order("NW", day=5))
    memory.take(_order("HD", day=6))
    memory.take(_order("SC", "IP", day=7))
    obr = "OBR|1|P1^EHR|F1^LAB|1-8^CMP^LN||||||||||||||||||||LAB|F"
    memory.take(oru("NM|2-1^X^LN||1||||||F", obr=obr, sent=_day(8)))
    request = memory.one("ServiceRequest")
    assert request["status"] == "active"  # results mention the order in passing
    based = memory.one("DiagnosticReport")["basedOn"]
    assert based == [{"reference": f"ServiceRequest/{request['id']}"}]
    assert {one["value"] for one in request["identifier"]} == {"P1", "F1"}


def test_h54_a_replaced_order_is_revoked_and_named() -> None:
    """RP and RO, PA and CH."""
    memory = Memory()
    obr = "OBR|1|{}||1-8^CMP^LN"
    for head, follower, element in (("RP", "RO", "replaces"), ("PA", "CH", "basedOn")):
        segments = [f"ORC|{head}|{head}1", obr.format(f"{head}1")]
        segments += [f"ORC|{follower}|{head}2", obr.format(f"{head}2")]
        memory.take(message("ORM^O01", pid(), *segments))
        old, new = memory.all("ServiceRequest")[-2:]
        assert new[element] == [{"reference": f"ServiceRequest/{old['id']}"}]
        assert (old["status"], new["status"]) == ("revoked" if head == "RP" else "active", "active")


def test_h54_an_order_written_by_a_fhir_client_is_found() -> None:
    """By its number and what it asks for."""
    memory = Memory()
    memory.take(message("ADT^A08", "EVN|A08", pid()))
    subject = {"reference": f"Patient/{memory.one('Patient')['id']}"}
    memory.resources["ServiceRequest", "mine"] = {
        "resourceType": "ServiceRequest", "id": "mine", "status": "active", "intent": "order",
        "identifier": [{"system": "urn:hl7v2:authority:EHR", "value": "P1"}],
        "code": {"coding": [{"system": "http://loinc.org", "code": "1-8"}]}, "subject": subject,
    }  # fmt: skip
    obr = "OBR|1|P1^EHR|F1^LAB|1-8^CMP^LN||||||||||||||||||||LAB|F"
    memory.take(oru("NM|2-1^X^LN||1||||||F", obr=obr))
    based = memory.one("DiagnosticReport")["basedOn"]
    assert based == [{"reference": "ServiceRequest/mine"}]


def test_h55_a_specimen_is_known_by_its_own_number() -> None:
    """Not by that of its group or shipment, which others have; without one, by its order."""
    memory = Memory()
    for number in ("1", "2"):
        spm = f"SPM|1|S{number}^T{number}||SER" + "|" * 27 + "G1|ShipID-32"
        memory.take(message("ORU^R01", pid(number), f"OBR|1|P{number}|F{number}|1^A^L", spm))
        unnumbered = ("SPM|1|||SER" + "|" * 27 + "G1|ShipID-32", f"OBR|1|Q{number}||1^A^L")
        memory.take(message("OML^O33", pid(), *unnumbered))
    again = message("ORU^R01", pid("1"), "OBR|1|P3|F3|2^B^L", "SPM|1|S1^T1||SER")
    memory.take(again)  # of the same specimen, another test
    values = [[id["value"] for id in one["identifier"]] for one in memory.all("Specimen")]
    numbered = [["S1", "T1", "G1", "ShipID-32"], ["S2", "T2", "G1", "ShipID-32"]]
    assert sorted(values) == sorted([*numbered, ["G1", "ShipID-32"], ["G1", "ShipID-32"]])


def test_h55_specimens_of_orders_and_results() -> None:
    """OML O33 and OUL R22 are led by the specimen, OML O21 has it behind the order."""
    o33 = message(
        "OML^O33", pid(), "SPM|1|S1||SER^Serum^HL70487", "SAC|||C1", "ORC|NW|P1", "OBR|1|P1||1^A^L",
        "ORC|NW|P2", "OBR|2|P2||2^B^L", "SPM|2|S2||UR^Urine^HL70487", "ORC|NW|P3",
        "OBR|3|P3||3^C^L",
    )  # fmt: skip
    memory = Memory()
    memory.take(o33)
    specimens = {one["identifier"][0]["value"]: one["id"] for one in memory.all("Specimen")}
    named = {
        one["code"]["text"]: one["specimen"][0]["reference"] for one in memory.all("ServiceRequest")
    }
    assert named == {
        "A": f"Specimen/{specimens['S1']}",
        "B": f"Specimen/{specimens['S1']}",
        "C": f"Specimen/{specimens['S2']}",
    }
    assert "C1" in str(memory.all("Specimen")[0]["container"])
    oul = message(
        "OUL^R22", pid(), "SPM|1|S1||SER^Serum^HL70487", "OBX|1|NM|9-9^Volume^LN||2||||||F",
        "OBR|1||F1|1^A^L||||||||||||||||||||LAB|F", "ORC|RE|P1",
        "OBX|1|NM|2-1^X^LN||1||||||F", "NTE|1||fine",
    )  # fmt: skip
    memory = Memory()
    memory.take(oul)
    assert len(memory.all("Observation")) == 2
    assert memory.one("DiagnosticReport")["specimen"][0]["reference"].startswith("Specimen/")
    assert len(memory.all("ServiceRequest")) == 1


# ----------------------------------------------------------------------------------- medications

_RXE = "RXE||00006^Aspirin^NDC|1|2|TAB^Tablet||^take with water||N|30|TAB|2"


def test_h56_request_dispense_and_administration_are_linked() -> None:
    """And a cancelled order is cancelled."""
    memory = Memory()
    orc = "ORC|{}|P1^EHR|F1^PHARM||||||20240101"
    tail = ("RXR|PO^Oral^HL70162", "TQ1|1||Q6H|||||20240101")
    memory.take(message("RDE^O11", pid(), orc.format("NW"), _RXE, *tail, sent=_day(1)))
    rxd = "RXD|1|00006^Aspirin^NDC|20240102|30|TAB||RX7"
    memory.take(message("RDS^O13", pid(), orc.format("RE"), _RXE, rxd, sent=_day(2)))
    rxa = "RXA|0|1|20240103100000||00006^Aspirin^NDC|1|TAB||||||||||||CP"
    memory.take(message("RAS^O17", pid(), orc.format("RE"), _RXE, rxa, "RXR|PO", sent=_day(3)))
    request = memory.one("MedicationRequest")
    dosage = request["dosageInstruction"][0]
    assert dosage["timing"]["repeat"]["period"] == 6
    assert str(dosage["doseAndRate"][0]["doseRange"]["high"]["value"]) == "2"
    assert request["dispenseRequest"]["numberOfRepeatsAllowed"] == 2
    named = {"reference": f"MedicationRequest/{request['id']}"}
    assert memory.one("MedicationDispense")["authorizingPrescription"] == [named]
    given = memory.one("MedicationAdministration")
    assert given["request"] == named
    assert given["effectiveDateTime"] == "2024-01-03T10:00:00+00:00"
    memory.take(message("RDE^O11", pid(), orc.format("CA"), _RXE, sent=_day(4)))
    assert memory.one("MedicationRequest")["status"] == "cancelled"


# ------------------------------------------------------------------------------------- schedules


def _siu(event: str, day: int, sch: str = "", *segments: str) -> str:
    line = sch or "SCH|P1|F1|||||||30|MIN|^^^20240201090000+0000|||||||||||||"
    return message(f"SIU^{event}", line, pid(), *segments, sent=_day(day))


def test_h57_one_appointment_from_booking_to_no_show() -> None:
    """Status by event; participants replaced by the segments that are carried."""
    memory = Memory()
    seen = []
    for day, event in enumerate(["S12", "S13", "S14", "S15", "S12", "S26", "S17"], 1):
        memory.take(_siu(event, day, "", f"AIP|1||{day}^DOC", "AIL|1||R1"))
        seen.append(memory.one("Appointment")["status"])
    assert seen == ["booked"] * 3 + ["cancelled", "booked", "noshow", "entered-in-error"]
    appointment = memory.one("Appointment")
    actors = [one["actor"] for one in appointment["participant"]]
    assert [one.get("display") for one in actors][1:] == ["R1", "DOC"]
    assert actors[0]["reference"].startswith("Patient/")


def test_h57_an_appointment_is_known_by_its_number_not_by_its_notes() -> None:
    """Two with one note are two; of two patients with one number each keeps the own one."""
    memory = Memory()
    note = ("AIL|1||R1", "NTE|1||Location ready")
    for number in ("1", "2"):
        memory.take(_siu("S12", 1, f"SCH|P{number}|F{number}", *note))
    assert [one["comment"] for one in memory.all("Appointment")] == ["Location ready"] * 2
    other = _siu("S12", 2, "SCH|P1|F1", *note).replace(pid(), pid("2", "|ROE"))
    memory.take(other)
    patients = {one["participant"][0]["actor"]["reference"] for one in memory.all("Appointment")}
    assert (len(memory.all("Appointment")), len(patients)) == (3, 2)


@pytest.mark.parametrize(
    ("sch", "segments", "start", "end"),
    [
        ("SCH|P|F|||||||30|MIN|^^^202402010900+0000", (), "09:00", "09:30"),
        ("SCH|P|F|||||||30|MIN|^^^202402010900+0000^202402011000+0000", (), "09:00", "10:00"),
        ("SCH|P|F|||||||2|H|^^^202402010900+0000", (), "09:00", "11:00"),
        ("SCH|P|F", ("AIS|1||A|202402010900+0000|||20|MIN",), "09:00", "09:20"),
        ("SCH|P|F", ("AIL|1||A|||202402011000+0000", "AIP|1||1||||202402010900+0000"), "10:00", ""),
        ("SCH|P|F|||||||||^^^20240201", (), "", ""),
    ],
)
def test_h57_start_and_end(sch: str, segments: tuple[str, ...], start: str, end: str) -> None:
    """None is invented: what is not known is said to be absent."""
    memory = Memory()
    memory.take(_siu("S12", 1, sch, *segments))
    appointment = memory.one("Appointment")
    for name, time in (("start", start), ("end", end)):
        assert appointment.get(name, "")[11:16] == time
        assert (f"_{name}" in appointment) is not bool(time)


def test_h57_times_are_blocked_and_freed() -> None:
    """S23 and S24 on the same Slot."""
    memory = Memory()
    text = message("SIU^{}", "SCH|P|F|||||||30|MIN", "AIL|1||R1|||202402010900+0000")
    for event, status in (("S23", "busy-unavailable"), ("S24", "free")):
        memory.take(text.replace("{}", event))
        assert memory.one("Slot")["status"] == status


# ---------------------------------------------------------------------------------- vaccinations


def _vxu(rxa: str, *obxs: str) -> Memory:
    memory = Memory()
    memory.take(message("VXU^V04", pid(), "ORC|RE|P1|F1", rxa, "RXR|IM|LA", *obxs))
    return memory


@pytest.mark.parametrize(
    ("rest", "status"),
    [
        ("CP|A", "completed"),
        ("RE|A", "not-done"),
        ("|A", "completed"),
        ("CP|D", "entered-in-error"),
    ],
)
def test_h58_doses_refusals_deletions(rest: str, status: str) -> None:
    """RXA-20 and RXA-21."""
    rxa = f"RXA|0|1|20240101||140^Flu^CVX|0.5|mL||00||||||L1|20250101|MSD^Merck^MVX|||{rest}"
    immunization = _vxu(rxa).one("Immunization")
    assert immunization["status"] == status
    assert str(immunization["doseQuantity"]["value"]) == "0.5"
    assert immunization["primarySource"] is True


def test_h58_nothing_administered_makes_no_immunization() -> None:
    """RXA-5 998, and a dose of 999 is none."""
    memory = _vxu("RXA|0|1|20240101||998^None^CVX|999", "OBX|1|CWE|59784-9^X^LN|1|A^B^L||||||F")
    assert memory.all("Immunization") == []
    assert memory.one("Observation")["subject"]
    found = _vxu("RXA|0|1|20240101||140^Flu^CVX|999").one("Immunization")
    assert "doseQuantity" not in found


def test_h58_funding_eligibility_and_education() -> None:
    """The OBX of the immunization guides."""
    memory = _vxu(
        "RXA|0|1|20240101||140^Flu^CVX|0.5",
        "OBX|1|CWE|30963-3^Funding^LN|1|VXC1^Private^CDC||||||F",
        "OBX|2|CWE|64994-7^Eligibility^LN|1|V01^Not eligible^HL70064||||||F",
        "OBX|3|CWE|30956-7^Document^LN|2|88^Influenza VIS^CVX||||||F",
        "OBX|4|DT|29768-9^Published^LN|2|20230801||||||F",
        "OBX|5|DT|29769-7^Presented^LN|2|20240101||||||F",
    )
    immunization = memory.one("Immunization")
    assert immunization["fundingSource"]["coding"][0]["code"] == "VXC1"
    assert immunization["programEligibility"][0]["coding"][0]["code"] == "V01"
    assert immunization["education"] == [
        {
            "documentType": "Influenza VIS",
            "publicationDate": "2023-08-01",
            "presentationDate": "2024-01-01",
        }
    ]
    assert all(one["partOf"] for one in memory.all("Observation"))


# ------------------------------------------------------------------------------------- documents


def _mdm(
    event: str, number: str, day: int, *segments: str, parent: str = "", status: str = "AU"
) -> str:
    txa = f"TXA|1|DS^Summary^L|TX||{'|' * 7}{number}|{parent}|||Title|{status}||AV"
    return message(f"MDM^{event}", pid(), txa, *segments, sent=_day(day))


def test_h59_documents_are_made_joined_replaced_and_cancelled() -> None:
    """T02, T06, T08, T10, T11; T01 carries no content and keeps what is there."""
    memory = Memory()
    lines = ("OBX|1|TX|1^Text^L||first||||||F", "OBX|2|TX|1^Text^L||second||||||F")
    memory.take(_mdm("T02", "D1", 1, *lines))
    document = memory.one("DocumentReference")
    data = document["content"][0]["attachment"]["data"]
    assert base64.b64decode(data) == b"first\nsecond"
    memory.take(_mdm("T01", "D1", 2))
    assert memory.one("DocumentReference")["content"] == document["content"]
    memory.take(_mdm("T08", "D1", 3, lines[0]))
    assert memory.one("DocumentReference")["docStatus"] == "amended"
    memory.take(_mdm("T06", "D2", 4, lines[1], parent="D1"))
    memory.take(_mdm("T10", "D3", 5, lines[1], parent="D1"))
    by_number = {one["masterIdentifier"]["value"]: one for one in memory.all("DocumentReference")}
    assert by_number["D2"]["relatesTo"][0]["code"] == "appends"
    assert by_number["D3"]["relatesTo"][0]["code"] == "replaces"
    assert by_number["D1"]["status"] == "superseded"
    memory.take(_mdm("T11", "D3", 6))
    by_number = {one["masterIdentifier"]["value"]: one for one in memory.all("DocumentReference")}
    assert by_number["D3"]["status"] == "entered-in-error"
    assert not memory.all("Observation")


# --------------------------------------------------------------------------- charges and problems


def test_h60_charges_credits_and_payments() -> None:
    """A payment makes no charge; an account is ended."""
    memory = Memory()
    account = "PID|1||1^^^HOSP^MR||DOE^JANE|||||||||||||ACC1"
    fields = "FT1|{}|{}||20240101|20240102|{}|C1^Visit^L|||2||50.00"
    charges = [fields.format(n, f"T{n}", kind) for n, kind in enumerate(("CG", "CD", "PY"), 1)]
    memory.take(message("DFT^P03", account, *charges))
    assert [one["status"] for one in memory.all("ChargeItem")] == ["billable", "aborted"]
    assert memory.one("Account")["status"] == "active"
    memory.take(message("BAR^P06", account, sent=_day(6)))
    assert memory.one("Account")["status"] == "inactive"


def test_h61_problems_are_added_updated_resolved_deleted() -> None:
    """PRB-1 and PRB-14 on one Condition."""
    memory = Memory()
    seen = []
    for day, (action, status) in enumerate(
        [("AD", "ACTIVE"), ("UP", "INACTIVE"), ("UP", "RESOLVED"), ("DE", "")], 1
    ):
        prb = f"PRB|{action}|20240101|I10^Hypertension^I10|PB1||||||||||{status}||20230101"
        memory.take(message("PPR^PC1", pid(), prb, sent=_day(day)))
        condition = memory.one("Condition")
        seen.append(condition.get("clinicalStatus", {}).get("coding", [{}])[0].get("code"))
    assert seen == ["active", "inactive", "resolved", None]
    assert memory.one("Condition")["verificationStatus"]["coding"][0]["code"] == "entered-in-error"


# ---------------------------------------------------------------------------------------- queries


def test_h71_a_query_becomes_search_parameters() -> None:
    """Q22 by demographics, Q21 and Q23 by number; at most RCP-2 or 50."""
    q22 = read(
        message("QBP^Q22", "QPD|Q22^Find^L|T1|@PID.5.1^DOE~@PID.7^19800203~@PID.8^F", "RCP|I|5")
    )
    asked = asked_by(q22)
    assert asked.parameters == (
        ("family", "DOE"),
        ("birthdate", "1980-02-03"),
        ("gender", "female"),
    )
    assert (asked.tag, asked.count) == ("T1", 5)
    q23 = read(message("QBP^Q23", "QPD|Q23^Get^L|T2|1|2"))
    own = "urn:hl7v2:facility:" + q23.header.text(4)
    assert asked_by(q23).parameters == (("identifier", f"{own}|1"),)
    for refused in ("", "@PID.13^1", "@PID.7^soon", "@PID.3.4^ACME"):
        with pytest.raises(MessageFault):
            asked_by(read(message("QBP^Q22", f"QPD|Q22^Find^L|T1|{refused}")))
    assert changes_of(q22, Profile()).changes == ()


def asked_by(query: Message) -> Question:
    """Return what a query asks, of a sender without a profile."""
    return question(query, scene_of(query, Profile()))


def test_h71_an_authority_goes_with_its_number() -> None:
    """In Q21 and Q23 by CX.4, in Q22 by the components of PID-3."""
    q21 = read(message("QBP^Q21", "QPD|Q21^Get^L|T2|1^^^ACME&1.2.3&ISO"))
    q22 = read(message("QBP^Q22", "QPD|Q22^Find^L|T|@PID.3.1^1~@PID.3.4.2^1.2.3~@PID.3.4.3^ISO"))
    assert (
        asked_by(q21).parameters == asked_by(q22).parameters == (("identifier", "urn:oid:1.2.3|1"),)
    )


def test_h71_the_answer_reads_as_the_patient() -> None:
    """A PID for each match; none is NF."""
    q22 = read(message("QBP^Q22", "QPD|Q22^Find^L|T1|@PID.5.1^DOE"))
    memory = Memory()
    memory.take(message("ADT^A08", "EVN|A08", pid(rest="|O\\T\\DOE^JANE||19800203|F")))
    patients = tuple(memory.all("Patient"))
    lines = answered(q22, Found(patients, 1, "T1"))
    assert lines[0] == "QAK|T1|OK||1|1|0"
    found = read(message("RSP^K22", lines[-1])).segments[1]
    assert found.values(3)[0][1] == "1"
    assert (found.text(5), found.text(5, 2), found.text(7)) == ("O&DOE", "JANE", "19800203")
    assert answered(q22, Found(patients, 7, "T1"))[0] == "QAK|T1|OK||7|1|6"
    assert answered(q22, Found())[0].startswith("QAK|T1|NF")
    assert answered(q22, Found(failed=True))[0].startswith("QAK|T1|AE")
    q23 = read(message("QBP^Q23", "QPD|Q23^Get^L|T2|1"))
    [*_, numbers] = answered(q23, Found(patients, 1))
    assert "DOE" not in numbers
