"""design/hl7v2.md, section 10: who is who, merges (H32, H34 to H38)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.hl7v2.identity import IdentityRules
from adapters.hl7v2.issues import MessageFault
from adapters.hl7v2.senders import Profile
from tests.adapters.memory import Memory
from tests.adapters.texts import message, oru, pid


def _a08(patient: str, sent: str = "20240105120000+0000") -> str:
    return message("ADT^A08", "EVN|A08", patient, sent=sent)


def _a40(new: str, *priors: str, event: str = "A40", authority: str = "HOSP") -> str:
    groups = [part for old in priors for part in (pid(new), f"MRG|{old}^^^{authority}^MR")]
    return message(f"ADT^{event}", f"EVN|{event}", *groups)


def _rules(**rules: str) -> Memory:
    return Memory(Profile(identity=IdentityRules(**rules)))  # type: ignore[arg-type]


def test_h32_the_same_number_under_two_authorities_is_two_people() -> None:
    """And two numbers of one person are one."""
    memory = Memory()
    memory.take(_a08(pid("1", authority="A")))
    memory.take(_a08(pid("1", authority="B")))
    assert len(memory.all("Patient")) == 2
    memory.take(_a08("PID|1||1^^^A^MR~9^^^C^NI||DOE"))
    memory.take(_a08("PID|1||9^^^C^NI||DOE"))
    assert len(memory.all("Patient")) == 2


def test_h32_a_number_without_authority_is_the_senders_own() -> None:
    """Its system is the facility's."""
    memory = Memory()
    memory.take(_a08("PID|1||77||DOE"))
    assert memory.one("Patient")["identifier"][0]["system"] == "urn:hl7v2:facility:HOSP"


@pytest.mark.parametrize(
    ("authority", "system"),
    [
        ("A&1.2.3&ISO", "urn:oid:1.2.3"),
        ("A&1.2.x&ISO", "urn:hl7v2:authority:A"),
        (
            "&C3D2A1B0-0000-4000-8000-00000000000A&UUID",
            "urn:uuid:c3d2a1b0-0000-4000-8000-00000000000a",
        ),
        ("&http://a.example&URI", "http://a.example"),
        ("ACME LAB", "urn:hl7v2:authority:ACME%20LAB"),
        ("KNOWN", "https://known.example"),
    ],
)
def test_the_system_of_an_authority(authority: str, system: str) -> None:
    """The profile's table, then the kind of the universal id, then the name."""
    memory = Memory(Profile(authorities={"KNOWN": "https://known.example"}))
    memory.take(_a08(pid("1", authority=authority)))
    assert memory.one("Patient")["identifier"][0]["system"] == system


def test_numbers_that_name_no_person_do_not_identify() -> None:
    """An account number in PID-3 is kept, but finds nobody."""
    memory = Memory()
    memory.take(_a08("PID|1||1^^^A^MR~5^^^A^AN||DOE"))
    memory.take(_a08("PID|1||2^^^A^MR~5^^^A^AN||ROE"))
    assert len(memory.all("Patient")) == 2


@pytest.mark.parametrize("conflict", ["first", "hold"])
def test_h34_two_patients_are_never_merged_by_a_mention(conflict: str) -> None:
    """The first number decides; the identifiers of the other are not moved."""
    memory = _rules(conflict=conflict)
    memory.take(_a08(pid("1")))
    memory.take(_a08(pid("2")))
    plan = memory.take(_a08("PID|1||2^^^HOSP^MR~1^^^HOSP^MR||DOE^J||19800203"))
    assert len([one for one in memory.all("Patient") if one["active"]]) == 2
    assert "identity-conflict" in {issue.code for issue in plan.issues}
    assert bool(plan.held) is (conflict == "hold")
    numbers = [[one["value"] for one in patient["identifier"]] for patient in memory.all("Patient")]
    assert numbers == [["1"], ["2"]]
    memory.take(oru("NM|1-8^X^LN||1||||||F", number="1"))
    assert memory.one("Observation")["subject"] == {"reference": "Patient/p1"}


@given(st.lists(st.lists(st.sampled_from("123456"), min_size=1, max_size=3), max_size=12))
def test_h34_whatever_numbers_come_together_nobody_is_merged(mentions: list[list[str]]) -> None:
    """A model: the first number that somebody has decides; a number that somebody has stays
    theirs, one that nobody has becomes that of who is meant."""
    memory = Memory()
    model: dict[str, str] = {}
    for n, mentioned in enumerate(mentions):
        repetitions = "~".join(f"{one}^^^HOSP^MR" for one in mentioned)
        memory.take(_a08(f"PID|1||{repetitions}||DOE", f"20240105{n:02}0000+0000"))
        known = [model[one] for one in mentioned if one in model]
        meant = known[0] if known else f"p{n + 1}"
        model = {**dict.fromkeys(mentioned, meant), **model}
    found = {id["value"]: one["id"] for one in memory.all("Patient") for id in one["identifier"]}
    carried = sum(len(one["identifier"]) for one in memory.all("Patient"))
    assert found == model
    assert carried == len(model)
    assert all(one["active"] for one in memory.all("Patient"))


@pytest.mark.parametrize("suspect", ["warn", "hold"])
def test_h34_another_name_and_birth_date_is_suspect(suspect: str) -> None:
    """Both must differ."""
    memory = _rules(suspect=suspect)
    memory.take(_a08(pid("1")))
    assert not memory.take(_a08(pid(rest="|ROE^J||19800203"), "20240105120001+0000")).issues
    plan = memory.take(_a08(pid(rest="|POE^J||19990101"), "20240105120002+0000"))
    assert "identity-suspect" in {issue.code for issue in plan.issues}
    assert bool(plan.held) is (suspect == "hold")


def test_h34_an_unknown_patient_may_be_held() -> None:
    """With ``unknown_patient: hold`` nobody is created."""
    memory = _rules(unknown_patient="hold")
    assert memory.take(_a08(pid("1"))).held
    assert not memory.resources


def test_h34_a_patient_without_number_is_refused_or_anonymous() -> None:
    """Code 101; with ``anonymous: create`` a Patient of that message alone."""
    with pytest.raises(MessageFault) as refusal:
        Memory().take(_a08("PID|1||||DOE"))
    assert refusal.value.error_code == 101
    memory = _rules(anonymous="create")
    memory.take(_a08("PID|1||||DOE"))
    assert memory.one("Patient")["name"][0]["family"] == "DOE"


def test_a_message_without_patient_is_refused() -> None:
    """Code 100."""
    with pytest.raises(MessageFault) as refusal:
        Memory().take(message("ORU^R01", "OBR|1||F1|1^A^L"))
    assert refusal.value.error_code == 100


@pytest.mark.parametrize("event", ["A40", "A39", "A34", "A30", "A18", "A36"])
def test_h35_a_merge_leaves_one_active_survivor(event: str) -> None:
    """With the prior numbers as old ones; results under either number are the survivor's."""
    memory = Memory()
    memory.take(oru("NM|1-8^X^LN||1||||||F", number="2"))
    memory.take(_a08(pid("1")))
    memory.take(_a40("1", "2", event=event))
    active = [one for one in memory.all("Patient") if one["active"]]
    assert len(active) == 1
    uses = {one["value"]: one.get("use") for one in active[0]["identifier"]}
    assert uses == {"1": None, "2": "old"}
    memory.take(oru("NM|2-6^Y^LN||2||||||F", number="2", sent="20240105130000+0000"))
    subjects = {one["subject"]["reference"] for one in memory.all("Observation")}
    assert subjects == {f"Patient/{active[0]['id']}"}


def test_h36_several_groups_repeated_and_unknown() -> None:
    """Each group counts; a repetition changes nothing; an unknown prior is only noted."""
    memory = Memory()
    for number in ("1", "2", "3"):
        memory.take(_a08(pid(number)))
    plan = memory.take(_a40("1", "2", "3", "4"))
    assert [merge.kind for merge in plan.merges] == ["merge", "merge"]
    again = memory.take(_a40("1", "2", "3", "4"))
    assert again.merges == ()
    assert len([one for one in memory.all("Patient") if one["active"]]) == 1
    assert "4" in {one["value"] for one in memory.all("Patient")[0]["identifier"]}


def test_h36_a_chain_of_merges_is_followed() -> None:
    """Five merges, one after the other: the first number still lands on the last."""
    memory = Memory()
    for number in "123456":
        memory.take(_a08(pid(number)))
    for number in "12345":
        memory.take(_a40(str(int(number) + 1), number))
    memory.take(oru("NM|1-8^X^LN||1||||||F", number="1"))
    survivor = next(one for one in memory.all("Patient") if one["active"])
    assert memory.one("Observation")["subject"]["reference"] == f"Patient/{survivor['id']}"


def test_h36_a_merge_reversed_revives_nobody() -> None:
    """Both numbers now name one Patient: the numbers change their use."""
    memory = Memory()
    memory.take(_a08(pid("1")))
    memory.take(_a08(pid("2")))
    memory.take(_a40("1", "2"))
    plan = memory.take(_a40("2", "1"))
    assert plan.merges == ()
    assert len([one for one in memory.all("Patient") if one["active"]]) == 1


@pytest.mark.parametrize("event", ["A47", "A46", "A48"])
def test_h37_a_changed_number_keeps_the_person(event: str) -> None:
    """The old number is old; if the new one names somebody else, the message is held."""
    memory = Memory()
    memory.take(_a08(pid("1")))
    memory.take(_a40("2", "1", event=event))
    uses = {one["value"]: one.get("use") for one in memory.one("Patient")["identifier"]}
    assert uses == {"1": "old", "2": None}
    memory.take(_a08(pid("3")))
    assert memory.take(_a40("3", "2", event=event)).held


def test_h37_identifiers_that_move_are_held() -> None:
    """A43: which data follow is a decision."""
    memory = Memory()
    memory.take(_a08(pid("1")))
    assert memory.take(_a40("1", "2", event="A43")).held


def test_h37_patients_are_linked_and_unlinked() -> None:
    """A24, A37: instructions about both, no merge."""
    text = message("ADT^{}", "EVN|{}", pid("1"), "PV1|1", pid("2"), "PV1|1")
    memory = Memory()
    assert [one.kind for one in memory.take(text.replace("{}", "A24")).merges] == ["link"]
    assert [one.kind for one in memory.take(text.replace("{}", "A37")).merges] == ["unlink"]
    assert len(memory.all("Patient")) == 2


def test_h37_visits_are_renamed_merged_and_moved() -> None:
    """A50 finds the visit by its old number; A42 and A45 say what goes where."""
    memory = Memory()
    memory.take(message("ADT^A01", "EVN|A01", pid("1"), "PV1|1|I|W1||||||||||||||||V1^^^HOSP"))
    renamed = message(
        "ADT^A50", "EVN|A50", pid("1"), "MRG|||||V1^^^HOSP", "PV1|1|I|W1||||||||||||||||V2^^^HOSP"
    )
    memory.take(renamed)
    uses = {one["value"]: one.get("use") for one in memory.one("Encounter")["identifier"]}
    assert uses == {"V1": "old", "V2": None}
    moved = message("ADT^A45", "EVN|A45", pid("2"), "MRG|||||V2^^^HOSP", "PV1|1|I")
    assert [one.kind for one in memory.take(moved).merges] == ["repatient"]


@pytest.mark.parametrize("reuse", ["hold", "new", "move"])
def test_h51_a_filler_number_of_another_patient(reuse: str) -> None:
    """Held, and nothing changes; ``new`` makes all of it anew; ``move`` takes all of it along.
    Never does what one patient has refer to what another has."""
    memory = Memory(Profile(filler_reuse=reuse))
    spm = "SPM|1|S1^T1||SER"
    memory.take(oru("NM|1-8^X^LN||1||||||F", spm, number="1").replace("OBX|2|SPM", "SPM"))
    before = dict(memory.resources)
    second = oru("NM|1-8^X^LN||2||||||F", spm, number="2", sent="20240106120000+0000")
    plan = memory.take(second.replace("OBX|2|SPM", "SPM"))
    assert "number-of-another-patient" in {one.code for one in plan.issues} or reuse == "new"
    assert (bool(plan.held), plan.condition) == (reuse == "hold", "205" if plan.held else "204")
    if reuse == "hold":
        assert memory.resources == before
        return
    owners = {"new": ["Patient/p1", "Patient/p2"], "move": ["Patient/p2"]}[reuse]
    of = {f"{type}/{id}": one["subject"]["reference"]
          for (type, id), one in memory.resources.items() if "subject" in one}  # fmt: skip
    for type in ("ServiceRequest", "Specimen", "DiagnosticReport", "Observation"):
        found = memory.all(type)
        assert [one["subject"]["reference"] for one in found] == owners, type
        for one in found:
            named = [*one.get("basedOn", []), *one.get("result", [])]
            assert {of[ref["reference"]] for ref in named} <= {one["subject"]["reference"]}


def test_h51_what_is_merged_is_the_same_patient() -> None:
    """A correction under the number that was merged is no other patient's."""
    memory = Memory()
    memory.take(oru("NM|1-8^X^LN||1||||||F", number="2"))
    memory.take(_a08(pid("1")))
    memory.take(_a40("1", "2"))
    for number in ("1", "2"):
        plan = memory.take(oru("NM|1-8^X^LN||2||||||C", number=number, sent="20240106120000+0000"))
        assert not plan.held
    assert len(memory.all("Observation")) == 1
