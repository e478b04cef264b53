"""design/hl7v2.md, sections 9, 11 and 14: results (H44 to H50, H52, H53)."""

import base64
from time import perf_counter
from typing import Any

import pytest

from adapters.hl7v2.message import read
from adapters.hl7v2.messages import changes_of
from adapters.hl7v2.senders import Profile
from tests.adapters.memory import Memory
from tests.adapters.texts import message, oru, pid


def _one(result: str, **profile: Any) -> dict[str, Any]:
    memory = Memory(Profile(**profile))
    memory.take(oru(result))
    return memory.one("Observation")


def _value(observation: dict[str, Any]) -> tuple[str, Any]:
    found = [(name, value) for name, value in observation.items() if name.startswith("value")]
    assert len(found) <= 1
    return found[0] if found else ("", None)


def test_h44_the_life_of_a_result_is_one_observation() -> None:
    """O, P, F, C, W on one Observation; the report drops the wrong one."""
    memory = Memory()
    seen = []
    for hour, (code, value) in enumerate(
        [("O", ""), ("P", "1"), ("F", "2"), ("U", ""), ("V", ""), ("C", "3"), ("W", "3")], 10
    ):
        obr = f"OBR|1|P1|F1|1^A^L||||||||||||||||||2024010{1}{hour}0000||LAB|F"
        memory.take(oru(f"NM|2-1^X^LN||{value}||||||{code}", obr=obr))
        observation = memory.one("Observation")
        seen.append((observation["status"], str(observation.get("valueQuantity", {}).get("value"))))
    assert seen == [
        ("registered", "None"), ("preliminary", "1"), ("final", "2"), ("final", "2"),
        ("final", "2"), ("corrected", "3"), ("entered-in-error", "3"),
    ]  # fmt: skip
    assert "result" not in memory.one("DiagnosticReport")


@pytest.mark.parametrize(
    ("code", "status", "kept"),
    [
        ("F", "final", False), ("C", "corrected", False), ("A", "amended", False),
        ("B", "amended", True), ("I", "registered", True), ("R", "preliminary", True),
        ("S", "preliminary", True), ("X", "cancelled", False), ("N", "cancelled", True),
        ("D", "entered-in-error", False), ("?", "unknown", True), ("", "final", False),
    ],
)  # fmt: skip
def test_h49_the_status_of_a_result(code: str, status: str, kept: bool) -> None:
    """The v2 code stays where the status is not its exact image."""
    observation = _one(f"NM|2-1^X^LN||1||||||{code}")
    assert observation["status"] == status
    assert ("_status" in observation) is kept


def test_h44_what_was_not_done_has_a_reason_instead_of_a_value() -> None:
    """X and N."""
    observation = _one("NM|2-1^X^LN||5||||||N")
    assert _value(observation) == ("", None)
    assert observation["dataAbsentReason"]["coding"][0]["code"] == "not-asked"


@pytest.mark.parametrize(
    ("type", "text", "name", "value"),
    [
        ("NM", "7.20", "valueQuantity", {"value": "7.20"}),
        ("NM", "<5", "valueQuantity", {"comparator": "<", "value": "5"}),
        ("NM", "1,5", "valueString", "1,5"),
        ("SN", "^10", "valueQuantity", {"value": "10"}),
        ("SN", ">^10", "valueQuantity", {"comparator": ">", "value": "10"}),
        ("SN", "^1^-^3", "valueRange", {"low": {"value": "1"}, "high": {"value": "3"}}),
        ("SN", "^1^:^32", "valueRatio",
         {"numerator": {"value": "1"}, "denominator": {"value": "32"}}),
        ("SN", "^x^:^y", "valueString", "x : y"),
        ("ST", " two  words", "valueString", " two  words"),
        ("TX", "a~b", "valueString", "a\nb"),
        ("FT", "a\\.br\\b", "valueString", "a\nb"),
        ("CWE", "A^B^LN", "valueCodeableConcept",
         {"coding": [{"system": "http://loinc.org", "code": "A", "display": "B"}], "text": "B"}),
        ("CE", "^only text", "valueCodeableConcept", {"text": "only text"}),
        ("IS", "Y", "valueCodeableConcept", {"coding": [{"code": "Y"}]}),
        ("DT", "20240105", "valueDateTime", "2024-01-05"),
        ("TS", "202401051200+0600", "valueDateTime", "2024-01-05T12:00:00+06:00"),
        ("DTM", "20240231", "valueString", "20240231"),
        ("TM", "2231", "valueTime", "22:31:00"),
        ("DR", "20240101^20240102", "valuePeriod", {"start": "2024-01-01", "end": "2024-01-02"}),
        ("NR", "1^3", "valueRange", {"low": {"value": "1"}, "high": {"value": "3"}}),
        ("VR", "first^last", "valueString", "first-last"),
        ("NA", "1^2^3", "valueString", "1 2 3"),
        ("CQ", "5^mg", "valueQuantity",
         {"value": "5", "unit": "mg", "system": "http://unitsofmeasure.org", "code": "mg"}),
        ("MO", "5.00^EUR", "valueQuantity", {"value": "5.00", "unit": "EUR"}),
        ("XAD", "1 Main^^Town^ST", "valueString", "1 Main Town ST"),
        ("XPN", "Doe^Jane", "valueString", "Doe Jane"),
        ("HD", "A^1.2^ISO", "valueString", "A 1.2 ISO"),
        ("", "5", "valueQuantity", {"value": "5"}),
        ("", "abc", "valueString", "abc"),
        ("XX", "a^b", "valueString", "a b"),
    ],
)  # fmt: skip
def test_h45_the_value_by_its_type(type: str, text: str, name: str, value: Any) -> None:
    """Each row of the OBX-2 table; what cannot be used is text."""
    found = _value(_one(f"{type}|2-1^X^LN||{text}||||||F"))
    assert found[0] == name
    assert _plain(found[1]) == value


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_plain(member) for member in value]
    return str(value)


def test_h45_further_repetitions_are_not_lost() -> None:
    """Codes become components, other types text."""
    coded = _one("CWE|2-1^X^LN||A^a^L~B^b^L||||||F")
    assert coded["valueCodeableConcept"]["text"] == "a"
    assert [one["valueCodeableConcept"]["text"] for one in coded["component"]] == ["b"]
    assert _one("NM|2-1^X^LN||1~2||||||F")["valueString"] == "1\n2"


@pytest.mark.parametrize(
    ("text", "comparator", "number"),
    [
        ("007", "", "7"), ("+5", "", "5"), ("-0.50", "", "-0.50"), (".8", "", "0.8"),
        ("5.", "", "5"), ("<=5", "<=", "5"), ("≥ 7", ">=", "7"), (" 3 ", "", "3"),
        ("1234567890123456789012345678901234", "", "1234567890123456789012345678901234"),
    ],
)  # fmt: skip
def test_h46_the_digits_of_a_number_are_kept(text: str, comparator: str, number: str) -> None:
    """Leading zeros, a plus and a trailing point go; the rest stays."""
    quantity = _one(f"NM|2-1^X^LN||{text}||||||F")["valueQuantity"]
    assert (quantity.get("comparator", ""), str(quantity["value"])) == (comparator, number)


@pytest.mark.parametrize(
    "text", ["1,5", "high", "1 000", "1e5", "5 mg", "12345678901234567890" * 2]
)
def test_h46_what_is_no_number_is_text(text: str) -> None:
    """With an issue; a decimal comma is read only where the profile says so."""
    memory = Memory()
    plan = changes_of(read(oru(f"NM|2-1^X^LN||{text}||||||F")), Profile())
    assert "nm-not-numeric" in {issue.code for issue in plan.issues}
    memory.take(oru(f"NM|2-1^X^LN||{text}||||||F"))
    assert memory.one("Observation")["valueString"] == text


def test_h46_a_decimal_comma_by_profile() -> None:
    """``decimal_comma`` reads it."""
    assert (
        str(_one("NM|2-1^X^LN||1,5||||||F", decimal_comma=True)["valueQuantity"]["value"]) == "1.5"
    )


def test_h47_isolates_and_repeated_pairs_are_all_kept() -> None:
    """OBX-4 tells isolates apart, the order tells rows apart that share it as well."""
    memory = Memory()
    rows = [
        "ST|6-1^Organism^LN|1|E. coli",
        "ST|6-1^Organism^LN|2|Staph",
        "ST|6-1^Organism^LN|2|Strep",
    ]
    plan = memory.take(oru(*(f"{row}||||||F" for row in rows)))
    assert len(memory.all("Observation")) == len(memory.one("DiagnosticReport")["result"]) == 3
    report = changes_of(read(oru(*(f"{row}||||||F" for row in rows))), Profile())
    assert "obx-ambiguous" in {issue.code for issue in report.issues}
    assert plan.held == ""
    memory.take(oru(*(f"{row}||||||F" for row in rows), sent="20240106120000+0000"))
    assert len(memory.all("Observation")) == 3


def test_h47_a_result_belongs_to_the_nearest_order_before_it() -> None:
    """After SPM, TQ1, NTE and Z segments as well; before any OBR it is the patient's."""
    memory = Memory()
    memory.take(
        message(
            "ORU^R01",
            pid(),
            "OBX|1|NM|8302-2^Height^LN||180||||||F",
            "ORC|RE|P1|F1",
            "OBR|1|P1|F1|1^A^L||||||||||||||||||||LAB|F",
            "NTE|1||about the report",
            "TQ1|1",
            "SPM|1|S1||SER^Serum^HL70487",
            "ZZZ|1|x",
            "OBX|1|NM|2-1^X^LN||1||||||F",
            "NTE|1||about the result",
            "NTE|2||second",
        )
    )
    (report,) = memory.all("DiagnosticReport")
    (linked,) = report["result"]
    result = memory.resources["Observation", linked["reference"].partition("/")[2]]
    assert [note["text"] for note in result["note"]] == ["about the result", "second"]
    assert result["specimen"]["reference"].startswith("Specimen/")
    assert len(memory.all("Observation")) == 2
    assert "about the report" in str(report["extension"])


@pytest.mark.parametrize(
    ("unit", "code", "shown"),
    [
        ("mg/dL", "mg/dL", "mg/dL"),
        ("mg/dl", None, "mg/dl"),
        ("10*3/uL^k/uL^UCUM", "10*3/uL", "k/uL"),
        ("foo^Foo^L", None, "Foo"),
        ("^pieces", None, "pieces"),
    ],
)
def test_h48_units(unit: str, code: str | None, shown: str) -> None:
    """A code without its system would be invalid: a unit that is not UCUM is text."""
    quantity = _one(f"NM|2-1^X^LN||1|{unit}|||||F")["valueQuantity"]
    assert (quantity.get("code"), quantity["unit"]) == (code, shown)
    assert ("system" in quantity) is (code is not None)


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("1.0-5.0", "1.0", "5.0"), ("1 to 5", "1", "5"), ("1 - 5", "1", "5"), ("<5", None, "5"),
        ("<=5", None, "5"), ("≤5", None, "5"), (">5", "5", None), ("≥ 5", "5", None),
        ("-5-5", "-5", "5"), ("negative", None, None), ("up to 5", None, None), ("5-1", None, None),
    ],
)  # fmt: skip
def test_h48_reference_ranges(text: str, low: str | None, high: str | None) -> None:
    """The text always as sent, limits where it is a plain range."""
    (found,) = _one(f"NM|2-1^X^LN||1||{text}||||F")["referenceRange"]
    assert found["text"] == text
    limits = [str(found[name]["value"]) if name in found else None for name in ("low", "high")]
    assert limits == [low, high]


@pytest.mark.parametrize(
    "text",
    [
        "1" * 20_000,
        "1." * 20_000,
        "1 " * 20_000 + "x",
        "1" + " " * 20_000 + "-x",
        "<" + "1" * 20_000,
    ],
)
def test_h48_a_range_that_is_none_is_read_in_no_time(text: str) -> None:
    """Digits without end are no limit: each is looked at once."""
    began = perf_counter()
    (found,) = _one(f"NM|2-1^X^LN||1||{text}||||F")["referenceRange"]

    assert perf_counter() - began < 0.5  # 10 s where every way to read it is tried
    assert found == {"text": text}


def test_h48_interpretations() -> None:
    """Known flags in FHIR's system, local ones with their own text, all of them."""
    known, local = _one("NM|2-1^X^LN||1|||H~9Q^very odd^L|||F")["interpretation"]
    assert known["coding"][0]["system"].endswith("v3-ObservationInterpretation")
    assert known["coding"][0]["code"] == "H"
    assert local["text"] == "very odd"
    assert not local["coding"][0]["system"].endswith("ObservationInterpretation")


def test_h49_a_result_without_a_question_is_kept() -> None:
    """OBX-3 empty: the report's name."""
    assert _one("NM|||5||||||F")["code"]["text"] == "CMP"


def test_h50_one_report_for_each_obr_and_partial_reports_grow() -> None:
    """Three OBR with one test are three; a second message adds to the first one's results."""
    memory = Memory()
    lines = []
    for n in range(3):
        lines += [f"OBR|{n}|P1|F1|1^A^L||||||||||||||||||||LAB|P", f"OBX|1|NM|{n}-9^X^LN||1||||||F"]
    memory.take(message("ORU^R01", pid(), *lines))
    assert len(memory.all("DiagnosticReport")) == len(memory.all("ServiceRequest")) == 3
    memory = Memory()
    memory.take(oru("NM|2-1^X^LN||1||||||F"))
    memory.take(oru("NM|3-9^Y^LN||1||||||F", sent="20240106120000+0000"))
    assert len(memory.one("DiagnosticReport")["result"]) == 2


_PDF = base64.b64encode(b"%PDF-1.4 test").decode()


@pytest.mark.parametrize(
    ("value", "type", "media", "data"),
    [
        (f"^application^pdf^Base64^{_PDF}", "ED", "application/pdf", b"%PDF-1.4 test"),
        (f"^AP^PDF^Base64^{_PDF}", "ED", "application/pdf", b"%PDF-1.4 test"),
        ("^TEXT^RTF^A^{\\E\\rtf}", "ED", "application/rtf", b"{\\rtf}"),
        ("^image^png^Hex^89504E47", "ED", "image/png", b"\x89PNG"),
    ],
)
def test_h52_attachments_come_back_as_they_were(
    value: str, type: str, media: str, data: bytes
) -> None:
    """Decoded strictly, encoded anew; also in the report."""
    memory = Memory()
    memory.take(oru(f"{type}|2-1^X^LN||{value}||||||F"))
    (form,) = memory.one("DiagnosticReport")["presentedForm"]
    assert (form["contentType"], base64.b64decode(form["data"])) == (media, data)
    assert memory.one("Observation")["extension"][0]["valueAttachment"] == form


def test_h52_broken_data_is_an_issue_and_a_pointer_is_never_followed() -> None:
    """RP becomes a url."""
    report = changes_of(read(oru("ED|2-1^X^LN||^AP^PDF^Base64^###||||||F")), Profile())
    assert "attachment-invalid" in {issue.code for issue in report.issues}
    found = _one("RP|2-1^X^LN||http://pacs/1^PACS^IM^JPEG||||||F")
    assert found["extension"][0]["valueAttachment"]["url"] == "http://pacs/1"


def test_h53_a_text_report_is_readable_in_one_piece() -> None:
    """Forty lines: forty Observations, or one with ``join``; the lines are kept."""
    lines = [f"TX|11-1^Report^LN||line {n}||||||F" for n in range(40)]
    memory = Memory()
    memory.take(oru(*lines))
    (form,) = memory.one("DiagnosticReport")["presentedForm"]
    text = base64.b64decode(form["data"]).decode()
    assert text == "\n".join(f"line {n}" for n in range(40))
    joined = Memory(Profile(text_report="join"))
    joined.take(oru(*lines))
    assert joined.one("Observation")["valueString"] == text


def test_h45_a_susceptibility_is_a_member_of_its_isolate() -> None:
    """OBR-26 and OBR-29 name the parent result."""
    memory = Memory()
    second = "OBR|2|P1|F2|29576-6^Susceptibility^LN" + "|" * 21 + "F|6-1&Organism&LN^1|||P1^F1"
    memory.take(
        message(
            "ORU^R01",
            pid(),
            "OBR|1|P1|F1|6-1^Culture^LN" + "|" * 21 + "F",
            "OBX|1|ST|6-1^Organism^LN|1|E. coli||||||F",
            second,
            "OBX|1|ST|20-8^Ampicillin^LN||4|||S|||F",
        )
    )
    organism, drug = memory.all("Observation")
    assert organism["hasMember"] == [{"reference": f"Observation/{drug['id']}"}]


def test_who_is_in_the_directory_is_referred_to() -> None:
    """Known by identifier once: a literal reference; otherwise identifier and name."""
    memory = Memory()
    memory.resources["Practitioner", "dr"] = {
        "resourceType": "Practitioner",
        "id": "dr",
        "identifier": [{"system": "urn:oid:1.2.3", "value": "77"}],
    }
    memory.take(oru("NM|2-1^X^LN||1||||||F|||||77^Grey^^^^^^^A&1.2.3&ISO~88^Else"))
    known, other = memory.one("Observation")["performer"]
    assert known["reference"] == "Practitioner/dr"
    assert "reference" not in other
    assert other["display"] == "Else"
