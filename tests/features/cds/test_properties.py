"""design/cds.md, section 15, A17: what holds for every chart."""

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from fhir_server.features.cds.chart import Question
from fhir_server.features.cds.drug import RANK, Allergy, Drug, Finding, Patient
from fhir_server.features.cds.knowledge import Knowledge, load_knowledge
from fhir_server.features.cds.resolve import resolve
from fhir_server.features.cds.screen import screen

ROOT = Path(__file__).resolve().parents[3]
KNOWLEDGE = load_knowledge(ROOT / "terminology")
# What most rules are about, so that findings are not rare.
BUSY = sorted({code for pair in KNOWLEDGE.pairs for code in pair})[::6]

codes = st.sampled_from(BUSY)
routes = st.sampled_from(("", "oral", "topical", "parenteral", "inhaled"))
drugs = st.lists(
    st.builds(lambda code, route: (code, route), codes, routes), min_size=1, max_size=5
)
patients = st.builds(
    Patient,
    age_days=st.none() | st.integers(1, 36000),
    potassium=st.none() | st.fractions(2, 7),
    clearance=st.none() | st.fractions(5, 150),
)


def as_drugs(prefix: str, chosen: list[tuple[str, str]]) -> tuple[Drug, ...]:
    return tuple(
        Drug(f"MedicationRequest/{prefix}{place}", KNOWLEDGE.display(code), {code: None}, route)
        for place, (code, route) in enumerate(chosen)
    )


def keyed(findings: tuple[Finding, ...]) -> dict[tuple[str, frozenset[str], str], int]:
    """Findings by what they are about -> how severe."""
    return {
        (
            one.kind,
            frozenset((*one.orders, *one.others)),
            one.rule if one.kind == "dose" else "",
        ): RANK[one.severity]
        for one in findings
    }


@given(codes, codes, routes, routes, patients)
@limits(max_examples=1000)
def test_a_pair_is_symmetric(one: str, other: str, by: str, by_other: str, who: Patient) -> None:
    """Whether A is ordered to B or B to A, the finding is as severe and rests on the same rule."""
    a, b = (
        Drug("MedicationRequest/a", "a", {one: None}, by),
        Drug("MedicationRequest/b", "b", {other: None}, by_other),
    )
    kinds = ("interaction", "duplicate")  # a dose is that of the order
    there = screen(Question((a,), (b,), (), who), KNOWLEDGE, kinds).findings
    back = screen(Question((b,), (a,), (), who), KNOWLEDGE, kinds).findings

    assert [(f.kind, f.severity, f.rule) for f in there] == [
        (f.kind, f.severity, f.rule) for f in back
    ]


@given(drugs, drugs, patients)
@limits(max_examples=1000)
def test_every_finding_is_about_an_order(
    ordered: list[tuple[str, str]], current: list[tuple[str, str]], who: Patient
) -> None:
    """What only active drugs do to each other is not said when something else is ordered."""
    asked = Question(as_drugs("n", ordered), as_drugs("c", current), (), who)
    ids = {drug.id for drug in asked.ordered}

    assert all(set(one.orders) & ids for one in screen(asked, KNOWLEDGE).findings)
    assert screen(replace(asked, ordered=()), KNOWLEDGE).findings == ()


@given(drugs, drugs, codes, patients)
@limits(max_examples=1000)
def test_another_drug_removes_nothing(
    ordered: list[tuple[str, str]], current: list[tuple[str, str]], more: str, who: Patient
) -> None:
    """A further drug never lowers or removes a finding; groups may name it as well."""
    asked = Question(as_drugs("n", ordered), as_drugs("c", current), (), who)
    extra = Drug("MedicationRequest/zz", "more", {more: None})
    before = screen(asked, KNOWLEDGE).findings
    after = screen(replace(asked, current=(*asked.current, extra)), KNOWLEDGE).findings
    there = keyed(after)

    for key, rank in keyed(before).items():
        grown = (key[0], key[1] | {extra.id}, key[2])
        assert max(there.get(key, -1), there.get(grown, -1)) >= rank


@given(drugs, drugs, patients, st.randoms())
@limits(max_examples=1000)
def test_the_order_of_what_is_given_changes_nothing(
    ordered: list[tuple[str, str]], current: list[tuple[str, str]], who: Patient, random: object
) -> None:
    """Drafts and active drugs in any order: the same findings in the same order."""
    first, second = list(as_drugs("n", ordered)), list(as_drugs("c", current))
    asked = screen(Question(tuple(first), tuple(second), (), who), KNOWLEDGE)
    random.shuffle(first)  # type: ignore[attr-defined]
    random.shuffle(second)  # type: ignore[attr-defined]

    assert screen(Question(tuple(first), tuple(second), (), who), KNOWLEDGE) == asked


LIMITED = sorted(
    code for code, rows in KNOWLEDGE.limits.items() if any(r["route"] == "oral" for r in rows)
)
UNITS = {"g": Fraction(1, 1000), "mg": Fraction(1), "ug": Fraction(1000), "mcg": Fraction(1000)}


@given(
    st.sampled_from(LIMITED),
    st.integers(1, 4_000_000).map(lambda thousandths: Fraction(thousandths, 1000)),
    st.integers(1, 6),
    st.sampled_from(sorted(UNITS)),
    patients,
)
@limits(max_examples=1000)
def test_the_unit_changes_no_verdict(
    code: str, amount: Fraction, times: int, unit: str, who: Patient
) -> None:
    """An amount in g, mg or ug is the same amount."""
    verdicts = []
    for name in ("mg", unit):
        value = amount * UNITS[name]
        order = {
            "resourceType": "MedicationRequest",
            "id": "n",
            "medicationCodeableConcept": {"text": KNOWLEDGE.display(code)},
            "dosageInstruction": [
                {
                    "timing": {"repeat": {"frequency": times, "period": 1, "periodUnit": "d"}},
                    "doseAndRate": [{"doseQuantity": {"value": decimal(value), "code": name}}],
                }
            ],
        }
        drug = replace(resolve(order, {}, KNOWLEDGE), ingredients={code: None}, route="oral")
        verdicts.append(screen(Question((drug,), (), (), who), KNOWLEDGE, ("dose",)))

    assert verdicts[0] == verdicts[1]


APART = sorted(
    (row["ingredient"]["display"], row["route"])
    for rows in KNOWLEDGE.limits.values()
    for row in rows
    if any("min_interval_hours" in step for step in row.get("renal", ()))
)


@pytest.mark.parametrize(("name", "route"), APART)
def test_doses_too_near_for_the_kidneys(name: str, route: str) -> None:
    """What says how far apart doses are has no right amount: a finding, and no dose to change to.

    Such a row was taken for one that says an amount once, and the call failed.
    """
    order = {
        "resourceType": "MedicationRequest",
        "id": "n",
        "medicationCodeableConcept": {"text": name},
        "dosageInstruction": [
            {
                "timing": {"repeat": {"frequency": 4, "period": 1, "periodUnit": "d"}},
                "doseAndRate": [{"doseQuantity": {"value": Decimal("0.001"), "code": "mg"}}],
            }
        ],
    }
    drug = replace(resolve(order, {}, KNOWLEDGE), route=route)
    who = Patient(age_days=15_000, clearance=Fraction(10))
    (found,) = screen(Question((drug,), (), (), who), KNOWLEDGE, ("dose",)).findings

    assert RANK[found.severity] >= RANK["moderate"]  # no more where a level guides
    assert "hours between doses" in found.mechanism
    assert found.scale is None


def decimal(value: Fraction) -> object:
    """A fraction as the JSON reader gives it."""
    return Decimal(value.numerator) / Decimal(value.denominator)


NAMES = (
    *("code", "coding", "text", "medicationCodeableConcept", "dosageInstruction", "timing"),
    *("repeat", "doseAndRate", "doseQuantity", "value", "ingredient", "x"),
)
leaves: st.SearchStrategy[object] = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=8)
)
anythings: st.SearchStrategy[object] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(anythings)
@limits(max_examples=1000)
def test_any_json_is_read(anything: object) -> None:
    """An order of any shape gives a drug or says that it is not known; nothing fails."""
    order = {"resourceType": "MedicationRequest", "id": "n", "medicationCodeableConcept": anything}
    drug = resolve(order, {}, KNOWLEDGE)
    if isinstance(anything, dict):
        resolve({**order, **anything}, {}, KNOWLEDGE)

    assert drug.ingredients or drug.unresolved


def test_a_severe_reaction_is_never_less(knowledge: Knowledge) -> None:
    """A severe reaction raises what an allergy says, a side effect lowers it."""
    ranks = {}
    for word in ("nausea", "", "anaphylaxis"):
        entry = Allergy(
            "AllergyIntolerance/a", "x", frozenset(("723",)), reactions=(word,) if word else ()
        )
        drug = Drug("MedicationRequest/n", "cephalexin", {"2231": None})
        found = screen(Question((drug,), (), (entry,), Patient()), knowledge, ("allergy",)).findings
        ranks[word] = RANK[found[0].severity] if found else -1

    assert ranks["nausea"] < ranks[""] < ranks["anaphylaxis"]
