"""design/hl7v2.md, sections 16 to 18: codes, unmapped fields, sender profiles (H65 to H67)."""

from typing import Any

import pytest

from adapters.hl7v2.codetables import CodeTable
from adapters.hl7v2.message import read
from adapters.hl7v2.messages import changes_of
from adapters.hl7v2.rules import faults, prepared
from adapters.hl7v2.senders import Profile, ProfileFault, chosen, profile_of
from tests.adapters.memory import Memory
from tests.adapters.texts import message, oru, pid

_PROFILE: dict[str, Any] = {
    "name": "acme-lab",
    "match": [{"application": "ACME", "facility": "*"}],
    "zone": "Asia/Dhaka",
    "authorities": {"ACME": "https://acme.example/mrn"},
    "identity": {"order": ["NI", "MR"], "unknown_patient": "create", "conflict": "hold"},
    "keys": {"obx21_is_key": False, "filler_reuse": "move"},
    "snapshots": ["AL1"],
    "before": [{"do": "default", "field": "PID-3.4", "value": "ACME"}],
    "rows": [{"field": "ZPD-3", "to": "Patient.extension[https://a.example]", "as": "string"}],
}


def test_a_profile_is_read() -> None:
    """Members of identity and keys included."""
    profile = profile_of(_PROFILE, server_zone="UTC")
    assert (profile.filler_reuse, profile.identity.conflict) == ("move", "hold")
    assert profile.identity.order == ("NI", "MR")
    assert faults(profile) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"colour": "red"}, "colour"),
        ({"name": ""}, "name"),
        ({"match": "ACME"}, "match"),
        ({"us_core": "yes"}, "us_core"),
        ({"identity": {"conflict": "merge"}}, "identity.conflict"),
        ({"identity": {"guess": True}}, "identity.guess"),
        ({"keys": {"filler_reuse": "guess"}}, "keys.filler_reuse"),
        ({"directory": "guess"}, "directory"),
        ({"snapshots": ["ZZZ"]}, "snapshots"),
        ({"rows": [{"field": "ZPD-3"}]}, "rows"),
        ({"control_id_days": True}, "control_id_days"),
    ],
)
def test_h67_unknown_members_and_unfit_values_are_refused(
    change: dict[str, Any], word: str
) -> None:
    """Each is named."""
    with pytest.raises(ProfileFault) as refusal:
        profile_of({**_PROFILE, **change})
    assert word in str(refusal.value)


@pytest.mark.parametrize(
    "rule",
    [
        {"do": "guess"},
        {"do": "set", "field": "PID-3"},
        {"do": "set", "field": "PID", "value": "1"},
        {"do": "move", "from": "PID-2", "to": "nowhere"},
        {"do": "replace", "field": "PID-3", "pattern": "(", "with": ""},
        {"do": "drop", "segment": "ZZZ", "field": "PID-3"},
    ],
)
def test_h67_a_rule_that_cannot_run_is_named(rule: dict[str, Any]) -> None:
    """And does nothing where it is run all the same."""
    profile = Profile(before=(rule,))
    assert len(faults(profile)) == 1
    text = read(message("ADT^A08", pid()))
    if rule["do"] != "drop":
        fields = [one.fields for one in prepared(text, profile).segments]
        assert [one[:4] for one in fields] == [one.fields[:4] for one in text.segments]


@pytest.mark.parametrize(
    ("rule", "pid_line"),
    [
        ({"do": "move", "from": "PID-2", "to": "PID-3"}, "PID|1||A~B^^^X|c | d ^e"),
        ({"do": "move", "from": "PID-2", "to": "PID-6"}, "PID|1||A~B^^^X|c | d ^e|9"),
        ({"do": "copy", "from": "PID-2", "to": "PID-6"}, "PID|1|9|A~B^^^X|c | d ^e|9"),
        ({"do": "set", "field": "PID-4", "value": "a|b"}, "PID|1|9|A~B^^^X|a\\F\\b| d ^e"),
        ({"do": "default", "field": "PID-3.4", "value": "ME"}, "PID|1|9|A^^^ME~B^^^X|c | d ^e"),
        ({"do": "default", "field": "PID-3.4.2", "value": "1"}, "PID|1|9|A^^^&1~B^^^X&1|c | d ^e"),
        ({"do": "drop", "field": "PID-4"}, "PID|1|9|A~B^^^X|| d ^e"),
        ({"do": "drop", "segment": "PID"}, ""),
        ({"do": "rename", "segment": "PID", "to": "ZID"}, "ZID|1|9|A~B^^^X|c | d ^e"),
        ({"do": "trim", "field": "PID-5.1"}, "PID|1|9|A~B^^^X|c |d^e"),
        ({"do": "upper", "field": "PID-4"}, "PID|1|9|A~B^^^X|C | d ^e"),
        ({"do": "replace", "field": "PID-3.1", "pattern": "[AB]", "with": "1"},
         "PID|1|9|1~1^^^X|c | d ^e"),
        ({"do": "translate", "field": "PID-3.1", "map": "M"}, "PID|1|9|alpha~B^^^X|c | d ^e"),
    ],
)  # fmt: skip
def test_h67_every_verb(rule: dict[str, Any], pid_line: str) -> None:
    """On every repetition; the message itself stays as it was sent."""
    if rule == {"do": "move", "from": "PID-2", "to": "PID-3"}:
        pid_line = "PID|1||A~B^^^X|c | d ^e"  # PID-3 says something: it stays
    profile = Profile(before=(rule,), translations={"M": {"A": "alpha"}})
    sent = read(message("ADT^A08", "PID|1|9|A~B^^^X|c | d ^e"))
    lines = ["|".join(one.fields).rstrip("|") for one in prepared(sent, profile).segments[1:]]
    assert lines == ([pid_line] if pid_line else [])
    assert "|".join(sent.segments[1].fields) == "PID|1|9|A~B^^^X|c | d ^e"


def test_h67_a_rule_may_hold_for_a_type_only() -> None:
    """``when``."""
    rule = {"do": "set", "field": "PID-4", "value": "x", "when": {"type": "ORU^R01"}}
    profile = Profile(before=(rule,))
    assert prepared(read(oru()), profile).text("PID", 4) == "x"
    assert prepared(read(message("ADT^A08", pid())), profile).text("PID", 4) == ""


@pytest.mark.parametrize(
    ("application", "facility", "name"),
    [
        ("ACME", "H1", "both"), ("ACME", "H2", "application"), ("ACMX", "H1", "prefix"),
        ("X", "H9", "facility"), ("X", "Y", "any"),
    ],
)  # fmt: skip
def test_the_most_exact_profile_is_chosen(application: str, facility: str, name: str) -> None:
    """Wildcards are allowed."""
    matches = {
        "any": {}, "both": {"application": "ACME", "facility": "H1"},
        "application": {"application": "ACME"}, "prefix": {"application": "AC*"},
        "facility": {"application": "*", "facility": "*9"},
    }  # fmt: skip
    profiles = [Profile(name=key, match=(match,)) for key, match in matches.items()]
    found = chosen(profiles, application, facility)
    assert found is not None
    assert found.name == name


def test_h65_the_senders_map_comes_first_and_its_own_code_stays() -> None:
    """A code without a target is counted."""
    loinc = {"system": "http://loinc.org", "code": "2160-0"}
    profile = Profile(code_tables={"OBX-3": CodeTable({("", "CREA"): loinc})})
    memory = Memory(profile)
    text = oru("NM|CREA^Creatinine^L||1||||||F", "NM|UREA^Urea^L||1||||||F")
    memory.take(text)
    codings = memory.all("Observation")[0]["code"]["coding"]
    assert [one["code"] for one in codings] == ["2160-0", "CREA"]
    report = changes_of(read(text), profile)
    assert {key[2]: count for key, count in report.codes.items() if key[0] == "OBX-3"} == {
        "UREA": 1
    }


def test_h66_fields_that_nobody_reads_are_counted() -> None:
    """Z segments field by field; what is left out for a reason is not."""
    text = message("ADT^A08", pid(rest="|DOE") + "|" * 20 + "x", "ZPD|1|a||b", "ZPD|2|c")
    found = changes_of(read(text), Profile()).unmapped
    assert found == {"PID-27": 1, "ZPD-1": 2, "ZPD-2": 2, "ZPD-4": 1} or found["ZPD-2"] == 2
    assert "PID-1" not in found


def test_h66_a_row_of_the_profile_maps_a_z_field() -> None:
    """And it is not counted any more."""
    row = {"field": "ZPD-2", "to": "Patient.extension[https://a.example]", "as": "string"}
    memory = Memory(Profile(rows=(row,)))
    text = message("ADT^A08", pid(), "ZPD|1|blue")
    memory.take(text)
    assert memory.one("Patient")["extension"] == [
        {"url": "https://a.example", "valueString": "blue"}
    ]
    assert "ZPD-2" not in changes_of(read(text), memory.profile).unmapped
