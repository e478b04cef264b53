"""design/cds.md, section 8: what the tables promise."""

import json
import shutil
from pathlib import Path

import pytest

from fhir_server.features.cds.drug import RANK, Drug, Patient
from fhir_server.features.cds.drug_interaction import interaction_findings
from fhir_server.features.cds.knowledge import Knowledge, load_knowledge
from fhir_server.features.cds.schema import KnowledgeError

ROOT = Path(__file__).resolve().parents[3]


def copied(to: Path, file: str, old: str, new: str) -> Path:
    """Return a folder with the knowledge in which ``old`` of ``file`` is ``new``."""
    folder = to / "cds-knowledge"
    shutil.copytree(ROOT / "terminology" / "cds-knowledge", folder)
    path = folder / file
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")
    return to


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("interactions.json", '"severity": "moderate"', '"severity": "bad"', "abacavir-riociguat"),
        ("interactions.json", '"id": "abiraterone-2d6"', '"id": "abacavir-riociguat"', "twice"),
        ("interactions.json", '{"class": "arb"}', '{"class": "arbs"}', "no class arbs"),
        ("dose-limits.json", '"display": "acarbose"', '"display": "x"', "ingredients.csv"),
        ("duplicate-therapy.json", '"max": 1', '"max": "one"', "duplicate-therapy.json"),
    ],
)
def test_a_fault_in_a_table_is_refused_and_named(
    tmp_path: Path, file: str, old: str, new: str, said: str
) -> None:
    """A table that its schema or its references do not allow names the row."""
    with pytest.raises(KnowledgeError, match=said):
        load_knowledge(copied(tmp_path, file, old, new))


def test_every_rule_wins_a_pair(knowledge: Knowledge) -> None:
    """No rule is hidden behind others: each one is the answer for at least one pair."""
    winners = set()
    for pair, rows in knowledge.pairs.items():
        best = max(RANK[rule.severity] for rule, _ in rows)
        equal = [rule for rule, _ in rows if RANK[rule.severity] == best]
        winners.add(min(equal, key=lambda rule: (rule.width, rule.id)).id)
        assert pair[0] < pair[1]

    assert set(knowledge.rules) - winners == set()


def test_every_class_is_used_and_exceptions_are_members() -> None:
    """A class that nothing names is a mistake, and so is an exception of no member."""
    folder = ROOT / "terminology" / "cds-knowledge"
    text = "".join(
        (folder / f"{name}.json").read_text("utf-8")
        for name in ("interactions", "cross-reactivity", "duplicate-therapy", "non-interruptive")
    )
    names = [
        path.stem.removeprefix("ValueSet-drugclass-")
        for path in (folder / "drug-classes").iterdir()
    ]

    assert [name for name in names if f'"{name}"' not in text] == []


def test_usual_limits_are_within_the_limits(knowledge: Knowledge) -> None:
    """What is usual does not exceed what is the most."""
    rows = [row for rows in knowledge.limits.values() for row in rows]
    wrong = [
        row["id"] for row in rows if row.get("usual_max_daily", 0) > row.get("max_daily", 10**9)
    ]

    assert wrong == []


def test_nothing_claims_a_review(knowledge: Knowledge) -> None:
    """No rule carries a review yet, and the label that is shown says so."""
    folder = ROOT / "terminology" / "cds-knowledge"
    doses = json.loads((folder / "dose-limits.json").read_text("utf-8"))["limits"]

    assert [rule.id for rule in knowledge.rules.values() if rule.reviewed] == []
    assert [row["id"] for row in doses if row["verified"]] == []
    assert "not reviewed by a pharmacist" in knowledge.label


def test_a_rule_names_its_routes(knowledge: Knowledge) -> None:
    """A gel does not interact like a tablet."""
    tablet = Drug("MedicationRequest/1", "diclofenac", {"3355": None}, route="oral")
    gel = Drug("MedicationRequest/1", "diclofenac gel", {"3355": None}, route="topical")
    warfarin = Drug("MedicationRequest/2", "warfarin", {"11289": None}, route="oral")

    assert interaction_findings([tablet], [warfarin], Patient(), knowledge)
    assert interaction_findings([gel], [warfarin], Patient(), knowledge) == []
