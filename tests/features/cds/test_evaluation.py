"""design/cds.md, section 15, A1 to A10: the bars that the knowledge is held to."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from fhir_server.features.cds.knowledge import Knowledge
from scripts.cds_eval import allergy_verdict, dose_verdict, lines, renal_faults, rows_of

CASES = Path(__file__).resolve().parents[2] / "cases" / "cds"
DOSES = json.loads((CASES / "dose-cases.json").read_text("utf-8"))
with (CASES / "allergy-cases.csv").open(encoding="utf-8", newline="") as file:
    ALLERGIES = list(csv.DictReader(file))


def test_the_bars_are_met(shared: Path, with_products: Knowledge) -> None:
    """High-priority pairs are all found, pairs that must be quiet are, and few pairs alert."""
    found = list(lines(shared / "cds", with_products))

    assert len(found) == 17
    assert [line.what for line in found if not line.is_met] == []


@pytest.mark.parametrize("row", ALLERGIES, ids=lambda row: f"{row['id']} {row['why']}")
def test_allergies(row: dict[str, str], knowledge: Knowledge) -> None:
    """An entry of the allergy list and an ordered drug: what is shown."""
    assert allergy_verdict(row, knowledge) == row["expected"]


@pytest.mark.parametrize("case", DOSES, ids=lambda case: case["id"])
def test_doses(case: dict[str, Any], with_products: Knowledge) -> None:
    """A dose and a patient: how severe, and how many mg a day were judged."""
    severity, daily = dose_verdict(case, with_products)

    assert severity == case["expect"]["severity"]
    if "daily_mg" in case["expect"]:
        assert daily is not None
        assert float(daily) == case["expect"]["daily_mg"]


def test_renal_formulas() -> None:
    """Cockcroft-Gault, CKD-EPI, Schwartz and Mosteller, to the digits given."""
    assert renal_faults(rows_of(CASES / "renal-cases.csv")) == []
