"""design/hl7v2.md, sections 8, 10, 16 and 18: what a sender's profile changes (H43, H65, H67)."""

from typing import Any

import pytest

from adapters.hl7v2.codetables import CodeTable, code_table, renaming
from adapters.hl7v2.message import read
from adapters.hl7v2.messages import changes_of
from adapters.hl7v2.senders import Profile, ProfileFault, profile_of
from fhir_server.artifacts import artifacts_root
from fhir_server.r4.definitions import load_definitions
from fhir_server.validation.structure import StructureValidator
from tests.adapters.memory import Memory
from tests.adapters.texts import adt, message, oru, pid, visit

LOINC = {"system": "http://loinc.org", "code": "2160-0", "display": "Creatinine"}
LATER, LAST = "20240106120000+0000", "20240107120000+0000"


def _map(*targets: dict[str, Any], source: str = "") -> dict[str, Any]:
    group = {"source": source, "target": "http://loinc.org"}
    return {"group": [{**group, "element": [{"code": "CREA", "target": list(targets)}]}]}


def _valid(memory: Memory) -> bool:
    validator = StructureValidator(load_definitions(artifacts_root()))
    return not [one for r in memory.resources.values() for one in validator.issues(r)]


# ----------------------------------------------------------------------------------------- codes


@pytest.mark.parametrize(
    ("target", "is_taken"),
    [
        ({"code": "2160-0", "equivalence": "equivalent"}, True),
        ({"code": "2160-0", "equivalence": "wider"}, True),
        ({"code": "2160-0", "equivalence": "narrower"}, False),
        ({"code": "2160-0", "equivalence": "inexact"}, False),
        ({"equivalence": "unmatched"}, False),
        ({"code": "2160-0", "equivalence": "equal", "dependsOn": [{"value": "x"}]}, False),
    ],
)
def test_h65_a_target_that_says_more_than_the_code_is_not_written(
    target: dict[str, Any], is_taken: bool
) -> None:
    """Nor one that depends on what else is known."""
    table = code_table(_map(target, source="urn:a"))
    assert (table.image("urn:a", "CREA") is not None) is is_taken
    assert table.image("urn:b", "CREA") is None
    assert bool(renaming(_map(target))) is is_taken


def test_h65_a_map_that_comes_later_changes_the_resource_not_its_key() -> None:
    """The same Observation, with the mapped code before the sender's own; and back again."""
    text = oru("NM|CREA^Creatinine^L||1||||||F")
    memory = Memory()
    memory.take(text)
    memory.profile = Profile(code_tables={"OBX-3": CodeTable({("", "CREA"): LOINC})})
    memory.take(text)
    codes = [one["code"] for one in memory.one("Observation")["code"]["coding"]]
    memory.profile = Profile()
    memory.take(text)
    assert codes == ["2160-0", "CREA"]
    assert [one["code"] for one in memory.one("Observation")["code"]["coding"]] == ["CREA"]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ("CREA^Creatinine^L^2160-0^Creatinine^LN", ["2160-0", "CREA"]),
        ("2160-0^Creatinine^LN^CREA^Creatinine^L", ["2160-0", "CREA"]),
        ("UREA^Urea^L^CREA^Creatinine^L", ["2160-0", "UREA", "CREA"]),
        ("718-7^Hemoglobin^LN", ["718-7"]),
    ],
)
def test_h65_no_code_stands_twice(sent: str, expected: list[str]) -> None:
    """What is coded in the system of the images needs none, and is not counted."""
    profile = Profile(code_tables={"OBX-3": CodeTable({("", "CREA"): LOINC})}, unmapped_code="hold")
    memory = Memory(profile)
    assert not memory.take(oru(f"NM|{sent}||1||||||F")).held
    assert [one["code"] for one in memory.one("Observation")["code"]["coding"]] == expected
    assert not [
        key for key in changes_of(read(oru(f"NM|{sent}||1")), profile).codes if key[2] == ""
    ]


@pytest.mark.parametrize("unmapped_code", ["keep", "hold"])
def test_h65_a_code_without_a_target_is_counted_and_holds_on_wish(unmapped_code: str) -> None:
    """In fields that have a map; others hold nothing."""
    profile = Profile(
        code_tables={"OBX-3": CodeTable({("", "CREA"): LOINC})}, unmapped_code=unmapped_code
    )
    text = oru("NM|CREA^Creatinine^L||1||||||F", "NM|UREA^Urea^L||1||||||F")
    memory = Memory(profile)
    held = memory.take(text).held
    counted = changes_of(read(text), profile).codes
    assert held == ("A code of OBX[2]-3 has no target in the map of its sender." if held else "")
    assert bool(held) is (unmapped_code == "hold")
    assert {key: n for key, n in counted.items() if key[0] == "OBX-3"} == {
        ("OBX-3", "urn:hl7v2:codes:LAB:L", "UREA"): 1
    }


def test_h65_a_required_code_by_the_senders_map() -> None:
    """To a code of the v2 table, or to FHIR's own."""
    for code in ("F", "female"):
        table = CodeTable({("", "2"): {"system": "urn:x", "code": code}})
        memory = Memory(Profile(code_tables={"PID-8": table}))
        memory.take(message("ADT^A08", pid(rest="|DOE||1980|2")))
        assert memory.one("Patient")["gender"] == "female"
        assert "_gender" not in memory.one("Patient")


# ------------------------------------------------------------------------------------- snapshots


def _status(resource: dict[str, Any]) -> str:
    clinical = resource.get("clinicalStatus")
    return str(clinical["coding"][0]["code"] if clinical else resource["status"])


@pytest.mark.parametrize(
    ("type", "both", "one", "none", "statuses"),
    [
        ("AllergyIntolerance", ("AL1|1||A^a^L", "AL1|2||B^b^L"), "AL1|1||A^a^L", 'AL1|1||""',
         ("active", "inactive")),
        ("Condition", ("DG1|1||A^a^L", "DG1|2||B^b^L"), "DG1|1||A^a^L", 'DG1|1||""',
         ("active", "resolved")),
        ("Coverage", ("IN1|1|P|A|X", "IN1|2|P|B|Y"), "IN1|1|P|A|X", 'IN1|1|""|""',
         ("active", "cancelled")),
    ],
)  # fmt: skip
def test_h43_what_a_snapshot_does_not_name_has_ended(
    type: str, both: tuple[str, str], one: str, none: str, statuses: tuple[str, str]
) -> None:
    """Named again it is there again; a list that is missing says nothing; an empty one all."""
    here, gone = statuses
    memory = Memory(Profile(snapshots=(both[0][:3],)))

    def after(*segments: str, said: str) -> list[str]:
        memory.take(adt("A08", *segments, said=said, pv1=visit()))
        return [_status(one) for one in memory.all(type)]

    assert after(*both, said="20240105") == [here, here]
    assert after(one, said="20240106") == [here, gone]
    assert after(said="20240107") == [here, gone]
    assert after(*both, said="20240108") == [here, here]
    assert after(one, said="20240107") == [here, here], "a late list ends nothing"
    assert after(none, said="20240109") == [gone, gone]
    assert _valid(memory)


def test_h43_a_snapshot_ends_only_what_its_sender_made_of_it() -> None:
    """Not what a client or another sender said, another patient's, a problem, or what is wrong."""
    memory = Memory(Profile(snapshots=("AL1", "DG1")))
    segments = ("AL1|1||A^a^L", "DG1|1||D^d^L", "PRB|AD||P^p^L")
    memory.take(adt("A08", *segments, pv1=visit()))
    (allergy,) = memory.all("AllergyIntolerance")
    other = {**allergy, "id": "client", "meta": {"source": "urn:hl7v2:LABORATORY:1"}}
    memory.resources["AllergyIntolerance", "client"] = other
    memory.take(adt("A08", "DG1|1||E^e^L", said=LATER, pv1=visit(number="V2")))
    assert [_status(one) for one in memory.all("Condition")] == ["active"] * 3
    memory.take(adt("A08", "AL1|1||B^b^L", "DG1|1||F^f^L", said=LAST, pv1=visit()))
    assert [_status(one) for one in memory.all("AllergyIntolerance")] == [
        "inactive", "active", "active",
    ]  # fmt: skip
    ended = {one["code"]["text"]: _status(one) for one in memory.all("Condition")}
    assert ended == {"d": "resolved", "p": "active", "e": "active", "f": "active"}


def test_h43_without_the_profile_a_missing_entry_deletes_nothing() -> None:
    """And nothing but ADT is a snapshot."""
    memory = Memory()
    memory.take(adt("A08", "AL1|1||A^a^L"))
    memory.take(adt("A08", "AL1|1||B^b^L", said=LATER))
    memory.profile = Profile(snapshots=("AL1",))
    memory.take(message("VXU^V04", pid(), "AL1|1||C^c^L", sent=LAST))
    assert [_status(one) for one in memory.all("AllergyIntolerance")] == ["active"] * 3


# -------------------------------------------------------------------- relatives and the directory


def test_h43_relatives_are_resources_on_wish() -> None:
    """Found again by their number, else by relationship and name; the Patient has no contact."""
    memory = Memory(Profile(next_of_kin="RelatedPerson"))
    mother = "NK1|1|ROE^MARY|MTH^Mother^HL70063|1 High St|(555)1||||||||||F|19500101"
    father = "NK1|2|DOE^JOHN|FTH|||" + "|" * 27 + "77^^^HOSP^PI"
    memory.take(adt("A08", mother, father))
    again = (father.replace("NK1|2|DOE", "NK1|1|DO"), mother.replace("NK1|1", "NK1|2"))
    memory.take(adt("A08", again[0], again[1].replace("(555)1", "(555)2"), said=LATER))
    first, second = memory.all("RelatedPerson")
    patient = memory.one("Patient")
    assert "contact" not in patient
    assert first["patient"] == second["patient"] == {"reference": f"Patient/{patient['id']}"}
    assert first["relationship"][0]["coding"][0]["code"] == "MTH"
    assert (first["gender"], first["birthDate"]) == ("female", "1950-01-01")
    assert [one["value"] for one in first["telecom"]] == ["(555)2"]
    assert (second["identifier"][0]["value"], second["name"][0]["family"]) == ("77", "DO")
    assert _valid(memory)


def test_the_directory_is_referred_to_or_made() -> None:
    """Made once, with number and name; who has no number, or two entries, is named only."""
    doctor = "17^HOUSE^GREGORY^^^^^^NPI"
    segments = (f"PV1|1|I|||||{doctor}~^NOBODY||||||||||||V1", f"PD1|||CLINIC^^77|{doctor}")
    memory = Memory()
    memory.take(adt("A08", *segments))
    assert not memory.all("Practitioner")
    memory = Memory(Profile(directory="create"))
    memory.take(adt("A08", *segments))
    memory.take(adt("A08", *segments, said=LATER))
    practitioner, organization = memory.one("Practitioner"), memory.one("Organization")
    assert practitioner["name"][0]["family"] == "HOUSE"
    assert practitioner["identifier"][0]["value"] == "17"
    assert (organization["name"], organization["identifier"][0]["value"]) == ("CLINIC", "77")
    place = f"Practitioner/{practitioner['id']}"
    named = [one["individual"] for one in memory.one("Encounter")["participant"]]
    assert [one.get("reference") for one in named] == [place, None]
    assert place in [one.get("reference") for one in memory.one("Patient")["generalPractitioner"]]
    memory.resources["Practitioner", "twin"] = {**practitioner, "id": "twin"}
    memory.take(adt("A08", *segments, said=LAST))
    assert len(memory.all("Practitioner")) == 2
    assert _valid(memory)


@pytest.mark.parametrize(
    ("race", "ethnicity", "expected"),
    [
        ("2106-3^White^HL70005~1002-5", "N^Not^HL70189",
         (["ombCategory 2106-3", "ombCategory 1002-5", "text White, 1002-5"],
          ["ombCategory 2186-5", "text Not"])),
        ("2036-2^Filipino^CDCREC", "H~2137-8^Spaniard^CDCREC",
         (["detailed 2036-2", "text Filipino"],
          ["ombCategory 2135-2", "detailed 2137-8", "text H, Spaniard"])),
        ("W^White^L", "U", (["text White"], ["ombCategory UNK", "text U"])),
    ],
)  # fmt: skip
def test_race_and_ethnicity_of_us_senders(
    race: str, ethnicity: str, expected: tuple[list[str], list[str]]
) -> None:
    """Categories of the OMB, other codes of the CDC as details, anything else as text."""
    fields = ["PID", "1", "", "1^^^HOSP^MR", *[""] * 6, race, *[""] * 11, ethnicity]
    memory = Memory(Profile(us_core=True))
    memory.take(message("ADT^A08", "|".join(fields)))
    found = {one["url"].rpartition("-")[2]: one for one in memory.one("Patient")["extension"]}
    for name, wanted in zip(("race", "ethnicity"), expected, strict=True):
        said = [
            f"{part['url']} {part.get('valueString') or part['valueCoding']['code']}"
            for part in found[name]["extension"]
        ]
        assert said == wanted


@pytest.mark.parametrize(
    ("member", "fit", "unfit"),
    [
        ("expected_every", ["PT2H", "P1D", "P1DT30M", ""], ["2 hours", "P", "PT", "-PT1H", 7]),
        ("code_maps", [{"OBX-3": "ConceptMap/a"}],
         [{"OBX-3": "a"}, {"OBX": "ConceptMap/a"}, {"OBX-3": "ConceptMap/a?b"}, ["x"]]),
    ],
)  # fmt: skip
def test_h67_members_that_are_more_than_a_text(
    member: str, fit: list[Any], unfit: list[Any]
) -> None:
    """They are kept, or named as unfit."""
    own = {"name": "a", "match": [{}]}
    for value in fit:
        assert getattr(profile_of({**own, member: value}), member) == value
    for value in unfit:
        with pytest.raises(ProfileFault, match=member):
            profile_of({**own, member: value})
