"""Measures the drug safety knowledge on the development sets: ``make cds-eval``.

design/cds.md, section 15. The sets of pairs are not part of this repository; the folder is the
argument, ``../shared/data/cds`` by default. What is not there is left out of the table.
"""

import csv
import gzip
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import Any

from fhir_server.features.cds.chart import Question
from fhir_server.features.cds.dose import dose_screening
from fhir_server.features.cds.drug import Allergy, Drug, Patient, higher
from fhir_server.features.cds.drug_allergy import allergy_findings
from fhir_server.features.cds.drug_interaction import interaction_findings
from fhir_server.features.cds.knowledge import Knowledge, load_knowledge
from fhir_server.features.cds.renal import ckd_epi, cockcroft_gault, mosteller, schwartz
from fhir_server.features.cds.resolve import allergy, resolve

ROOT = Path(__file__).resolve().parent.parent
INDICATORS = {"contraindicated": "critical", "serious": "warning", "moderate": "info"}
"""Severity -> what a card shows; minor is not shown."""
_NOW = datetime(2026, 11, 22, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table: what was measured, the bar, what was found, whether it is met."""

    what: str
    bar: str
    found: str
    is_met: bool


def indicator_of(x: str, y: str, knowledge: Knowledge) -> str:
    """Return what a card about two ingredients shows, or ``""``; the patient is not known."""
    drugs = [
        Drug("MedicationRequest/a", "a", {x: None}),
        Drug("MedicationRequest/b", "b", {y: None}),
    ]
    found = interaction_findings(drugs[:1], drugs[1:], Patient(), knowledge)
    return INDICATORS.get(found[0].severity, "") if found else ""


def counted(rows: Iterable[tuple[str, str]], knowledge: Knowledge) -> Counter[str]:
    """Return how many pairs of ``rows`` show what."""
    return Counter(indicator_of(x, y, knowledge) for x, y in rows)


def allergy_verdict(row: Mapping[str, str], knowledge: Knowledge) -> str:
    """Return what a card shows for a row of ``allergy-cases.csv``: ``none``, ``not-checked``."""
    entry = entry_of(row)
    if row["status"] in ("refuted", "entered-in-error", "inactive"):
        return "none"
    found = allergy(entry, knowledge)
    if found is None:
        return "none"
    if found.unresolved:
        return "not-checked"
    if row["given_since"] == "yes":
        found = _given(found)
    drug = Drug("MedicationRequest/a", row["ordered"], {row["ordered_code"]: None})
    findings = allergy_findings([drug], [found], knowledge)
    return (INDICATORS.get(findings[0].severity) or "none") if findings else "none"


def _given(found: Allergy) -> Allergy:
    values = {name: getattr(found, name) for name in Allergy.__slots__}
    return Allergy(**{**values, "given_since": found.ingredients})


def entry_of(row: Mapping[str, str]) -> dict[str, Any]:
    """Return the AllergyIntolerance that a row describes."""
    concept: dict[str, Any] = {"text": row["allergen"]}
    if row["allergen_codes"]:
        system = "http://www.nlm.nih.gov/research/umls/rxnorm"
        concept["coding"] = [
            {"system": system, "code": code} for code in row["allergen_codes"].split()
        ]
    entry: dict[str, Any] = {
        "resourceType": "AllergyIntolerance",
        "id": row["id"],
        "code": concept,
        "type": row["type"],
    }
    if row["criticality"]:
        entry["criticality"] = row["criticality"]
    if row["reaction"]:
        entry["reaction"] = [{"manifestation": [{"text": row["reaction"]}]}]
    if row["status"] == "unconfirmed":
        entry["verificationStatus"] = {"coding": [{"code": "unconfirmed"}]}
    return entry


def dose_verdict(case: Mapping[str, Any], knowledge: Knowledge) -> tuple[str, Fraction | None]:
    """Return the severity for a case of ``dose-cases.json``, and the mg a day that were judged."""
    person = case["patient"]
    asked = Question(
        (_order("draft", case, knowledge),),
        tuple(_order(f"other{n}", one, knowledge) for n, one in enumerate(case.get("others", ()))),
        (),
        Patient(
            age_days=int(person["age_years"] * 365.25) + 1,
            sex=person["sex"],
            weight_kg=Fraction(str(person["weight_kg"])) if "weight_kg" in person else None,
            clearance=Fraction(str(person["crcl"])) if "crcl" in person else None,
            egfr=Fraction(str(person["egfr"])) if "egfr" in person else None,
        ),
    )
    found = dose_screening(asked.ordered, asked.current, asked.patient, knowledge)
    severity = ""
    for finding in found.findings:
        severity = higher(severity, finding.severity)
    if not severity:
        severity = (
            "not-checked" if found.not_checked or not asked.ordered[0].ingredients else "none"
        )
    code = case["expect"].get("ingredient", "")
    taken = [
        drug.intakes[code].daily
        for drug in (*asked.ordered, *asked.current)
        if code in drug.intakes
    ]
    return severity, sum((one for one in taken if one is not None), Fraction(0)) if taken else None


def _order(id: str, case: Mapping[str, Any], knowledge: Knowledge) -> Drug:
    order = {
        "resourceType": "MedicationRequest",
        "id": id,
        "medicationCodeableConcept": case["medication"],
        "dosageInstruction": case["dosageInstruction"],
    }
    return resolve(order, {}, knowledge)


def dose_of(name: str, mg: Fraction, knowledge: Knowledge) -> str:
    """Return what a card shows for so many mg a day of a drug, in ten doses by mouth, for a person
    of whom nothing is known; ``""`` for nothing, ``no-limit`` where there is none to compare with.
    Ten, so that it is the amount of a day that is judged, and exactly, not that of one dose.
    """
    each = {"value": Decimal(mg.numerator) / Decimal(mg.denominator) / 10, "code": "mg"}
    timing = {"repeat": {"frequency": 10, "period": 1, "periodUnit": "d"}}
    route = {"text": "oral"}
    case = {
        "medication": {"text": name},
        "dosageInstruction": [
            {"timing": timing, "route": route, "doseAndRate": [{"doseQuantity": each}]}
        ],
    }
    drug = _order("draft", case, knowledge)
    found = dose_screening([drug], [], Patient(), knowledge)
    if any(one.reason in ("no-limit", "dose-not-computable") for one in found.not_checked):
        return "no-limit"
    severity = ""
    for finding in found.findings:
        severity = higher(severity, finding.severity)
    return (INDICATORS.get(severity) or "") if drug.ingredients else "no-limit"


def usual_doses(path: Path, knowledge: Knowledge) -> dict[str, tuple[str, str]]:
    """Return drug -> what its usual daily dose shows, and what ten times it shows.

    A row is ``name,mg,source``. Drugs without a limit in our tables are left out: nothing is said
    about their doses.
    """
    found = {}
    for row in rows_of(path):
        amount = Fraction(row["mg"])
        usual = dose_of(row["name"], amount, knowledge)
        if usual != "no-limit":
            found[row["name"]] = usual, dose_of(row["name"], 10 * amount, knowledge)
    return found


def codings_of(folder: Path) -> dict[str, Mapping[str, Any]]:
    """Return the distinct medications of the orders in a folder of gzipped Bundles."""
    found: dict[str, Mapping[str, Any]] = {}
    for path in sorted(folder.glob("*.json.gz")):
        for entry in json.loads(gzip.decompress(path.read_bytes()))["entry"]:
            resource = entry["resource"]
            concept = resource.get("medicationCodeableConcept")
            if resource["resourceType"] == "MedicationRequest" and concept:
                found[json.dumps(concept, sort_keys=True)] = resource
    return found


def unresolved(orders: Iterable[Mapping[str, Any]], knowledge: Knowledge) -> list[tuple[str, bool]]:
    """Return the orders whose drug is not known, by what they say, and whether that is reported."""
    drugs = [resolve(order, {}, knowledge) for order in orders]
    return [(drug.display, bool(drug.unresolved)) for drug in drugs if not drug.ingredients]


def renal_faults(rows: Iterable[Mapping[str, str]]) -> list[str]:
    """Return the ids of the rows of ``renal-cases.csv`` that a formula does not meet."""
    return [row["id"] for row in rows if not _renal_fits(row)]


def _renal_fits(row: Mapping[str, str]) -> bool:
    years, weight, height = (float(row[n]) for n in ("age_years", "weight_kg", "height_cm"))
    creatinine = float(row["creatinine_mg_dl"])
    computed = {
        "cockcroft_gault_ml_min": cockcroft_gault(years, row["sex"], weight, height, creatinine),
        "ckd_epi_2021": ckd_epi(years, row["sex"], creatinine),
        "schwartz": schwartz(height, creatinine),
    }
    fits = all(round(computed[n], 1) == float(row[n]) for n in computed if row[n])
    return fits and round(mosteller(height, weight), 2) == float(row["mosteller_m2"])


def rows_of(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file, or nothing where it is not there."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def pairs_of(path: Path, first: str = "code_a", second: str = "code_b") -> list[tuple[str, str]]:
    """Return the pairs of codes that a CSV file lists."""
    return [(row[first], row[second]) for row in rows_of(path)]


def lines(folder: Path, knowledge: Knowledge) -> Iterator[Line]:
    """Yield the lines of the table, for the sets that are in ``folder``."""
    dev = folder / "dev"
    if rows := pairs_of(
        folder / "lists" / "onc-high-priority.csv", "object_code", "precipitant_code"
    ):
        found = counted(rows, knowledge)
        loud = found["critical"] + found["warning"]
        yield Line(
            "A1 high-priority pairs, warning or critical",
            "all",
            f"{loud} of {len(rows)}",
            loud == len(rows),
        )
    if rows := pairs_of(dev / "ddi-must-be-critical.csv"):
        yield from _at_least("A2 must be critical", rows, knowledge, 0.95, critical=0.80)
    if rows := pairs_of(dev / "ddi-must-be-warning.csv"):
        yield from _at_least("A3 must be a warning", rows, knowledge, 0.70, shown=0.90)
    if rows := pairs_of(dev / "ddi-must-not-alert.csv"):
        shown = len(rows) - counted(rows, knowledge)[""]
        yield _at_most("A4 must not alert, any card", shown, len(rows), 0.002)
    if rows := pairs_of(dev / "ddi-silent.csv"):
        found = counted(rows, knowledge)
        yield _at_most(
            "A5 silent, warning or critical", found["critical"] + found["warning"], len(rows), 0
        )
        yield _at_most("A5 silent, info", found["info"], len(rows), 0.01)
    clean = [
        (row["code_a"], row["code_b"])
        for row in rows_of(dev / "ddi-must-not-interrupt.csv")
        if row["status"] == "clean"
    ]
    if clean:
        found = counted(clean, knowledge)
        yield _at_most(
            "A6 must not interrupt, clean rows", found["critical"] + found["warning"], len(clean), 0
        )
    if common := [row["code"] for row in rows_of(dev / "common-drugs.csv")]:
        pairs = [*combinations(common, 2)]
        found = counted(pairs, knowledge)
        for name, most in (("critical", 0.005), ("warning", 0.03), ("info", 0.05)):
            yield _at_most(f"A7 pairs of common drugs, {name}", found[name], len(pairs), most)
    yield from _cases(dev, knowledge)


def _cases(dev: Path, knowledge: Knowledge) -> Iterator[Line]:
    yield from _doses(dev, knowledge)
    if rows := rows_of(dev / "allergy-cases.csv"):
        wrong = [row["id"] for row in rows if allergy_verdict(row, knowledge) != row["expected"]]
        yield _all("A8 allergy cases", len(rows), wrong)
    if (path := dev / "dose-cases.json").is_file():
        cases = json.loads(path.read_text("utf-8"))
        wrong = [
            case["id"]
            for case in cases
            if dose_verdict(case, knowledge)[0] != case["expect"]["severity"]
        ]
        yield _all("A10 dose cases", len(cases), wrong)
    if rows := rows_of(dev / "renal-cases.csv"):
        yield _all("A10 renal cases", len(rows), renal_faults(rows))
    if orders := codings_of(dev.parent.parent / "synthea"):
        lost = unresolved(orders.values(), knowledge)
        share = _share(len(orders) - len(lost), len(orders))
        yield Line("A12 codings resolved", "97%", share, len(lost) <= 0.03 * len(orders))
        told = [name for name, is_reported in lost if not is_reported]
        yield _all("A12 unresolved ones reported", len(lost), told)


def _doses(dev: Path, knowledge: Knowledge) -> Iterator[Line]:
    """The site's own list of usual doses, each with its source; there is none with this project."""
    found = usual_doses(dev / "usual-doses.csv", knowledge)
    if found:
        total = len(found)
        quiet = sum(usual == "" for usual, _ in found.values())
        loud = sum(ten in ("warning", "critical") for _, ten in found.values())
        yield Line("A9 usual doses quiet", "99%", _share(quiet, total), quiet >= 0.99 * total)
        yield Line("A9 ten times them alert", "98%", _share(loud, total), loud >= 0.98 * total)


def _all(what: str, total: int, wrong: list[str]) -> Line:
    named = f" ({', '.join(wrong[:10])})" if wrong else ""
    return Line(what, "all", f"{total - len(wrong)} of {total}{named}", not wrong)


def _at_least(
    what: str,
    rows: list[tuple[str, str]],
    knowledge: Knowledge,
    loud_min: float,
    *,
    critical: float = 0,
    shown: float = 0,
) -> Iterator[Line]:
    found = counted(rows, knowledge)
    total = len(rows)
    loud = found["critical"] + found["warning"]
    yield Line(
        f"{what}, warning or critical",
        f"{loud_min:.0%}",
        _share(loud, total),
        loud >= loud_min * total,
    )
    if critical:
        yield Line(
            f"{what}, critical",
            f"{critical:.0%}",
            _share(found["critical"], total),
            found["critical"] >= critical * total,
        )
    if shown:
        any_card = total - found[""]
        yield Line(
            f"{what}, any card", f"{shown:.0%}", _share(any_card, total), any_card >= shown * total
        )


def _at_most(what: str, count: int, total: int, most: float) -> Line:
    return Line(what, f"at most {most:.1%}", _share(count, total), count <= most * total)


def _share(count: int, total: int) -> str:
    return f"{count:,} of {total:,} ({count / total:.2%})"


def main() -> None:
    """Print the table; exit with 1 where a bar is missed."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT.parent / "shared" / "data" / "cds"
    lookup = folder / "lookup"
    knowledge = load_knowledge(ROOT / "terminology", lookup if lookup.is_dir() else None)
    found = list(lines(folder, knowledge))
    if not found:
        print(f"There is no evaluation set in {folder}.")
        return
    print(f"Knowledge {knowledge.version}, draft: no pharmacist has reviewed it.\n")
    print("| what | bar | found | |\n| --- | ---: | ---: | --- |")
    for line in found:
        print(f"| {line.what} | {line.bar} | {line.found} | {'met' if line.is_met else 'MISSED'} |")
    sys.exit(0 if all(line.is_met for line in found) else 1)


if __name__ == "__main__":
    main()
