"""design/cds.md, sections 4, 5.4 and 7: silence means checked. What is odd is judged, or said."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.features.cds.chart import Counts, Question, question
from fhir_server.features.cds.drug import Screening
from fhir_server.features.cds.knowledge import Knowledge, load_knowledge
from fhir_server.features.cds.names import _one_edit
from fhir_server.features.cds.resolve import RXNORM, allergy, resolve
from fhir_server.features.cds.screen import screen
from tests.features.cds.conftest import ROOT

KNOWLEDGE = load_knowledge(ROOT / "terminology")
NOW = datetime(2026, 11, 20, tzinfo=UTC)
ADULT = {"resourceType": "Patient", "id": "p", "gender": "male", "birthDate": "1980-01-01"}
DAILY = {"repeat": {"frequency": 1, "period": 1, "periodUnit": "d"}}
RX = "http://www.nlm.nih.gov/research/umls/rxnorm"


def order(drug: Any, id: str = "1", **more: Any) -> dict[str, Any]:
    concept = {"text": drug} if isinstance(drug, str) else drug
    return {
        "resourceType": "MedicationRequest",
        "id": id,
        "status": "active",
        "intent": "order",
        "medicationCodeableConcept": concept,
        **more,
    }


def judged(
    knowledge: Knowledge, drafts: list[dict[str, Any]], *chart: dict[str, Any]
) -> tuple[Question, Screening]:
    """Return the question, and everything that is said about it."""
    asked, unknown = question(drafts, chart, {}, knowledge, NOW, counts=Counts(30, 365))
    found = screen(asked, knowledge)
    return asked, Screening(found.findings, (*unknown, *found.not_checked))


def names(knowledge: Knowledge, order: dict[str, Any]) -> set[str]:
    return {knowledge.display(code) for code in resolve(order, {}, knowledge).ingredients}


@pytest.mark.parametrize(
    ("drug", "known", "unknown"),
    [
        ("Warfarin + Foobarilium 5 mg tablet", {"warfarin"}, ("foobarilium",)),
        ("foobarilium/warfarin", {"warfarin"}, ("foobarilium",)),
        ("warfarin and foobarilium", {"warfarin"}, ("foobarilium",)),
        ("warfarin+aspirin", {"warfarin", "aspirin"}, ()),
        ("Aspirin 75 mg / clopidogrell 75 mg", {"aspirin", "clopidogrel"}, ()),
        ("Warfarin 5 mg oral tablet, once daily in the evening", {"warfarin"}, ()),
        ("penicillin V potassium", {"penicillin v"}, ()),
        ("Foobarilium", set(), ("Foobarilium",)),
    ],
)
def test_every_part_of_a_text_is_known_or_said(
    knowledge: Knowledge, drug: str, known: set[str], unknown: tuple[str, ...]
) -> None:
    """A combination of which one part is unknown is not taken for the other part alone."""
    found = resolve(order(drug), {}, knowledge)

    assert {knowledge.display(code) for code in found.ingredients} == known
    assert found.unresolved == unknown


def test_a_conflict_of_code_and_text_is_checked_both_ways(knowledge: Knowledge) -> None:
    """Also where the text is misspelt, and by the identifier that RxNorm has elsewhere."""
    for system in sorted(RXNORM):
        coding = [{"system": system, "code": "11289"}]
        found = resolve(order({"coding": coding, "text": "Sildenafill 50 mg"}), {}, knowledge)
        assert {knowledge.display(code) for code in found.ingredients} == {"warfarin", "sildenafil"}
        assert found.conflict


@pytest.mark.parametrize(
    ("ingredient", "unknown"),
    [
        ({"itemCodeableConcept": {"text": "Foobarilium"}}, ("Foobarilium",)),
        ({"itemReference": {"display": "Foobarilium"}}, ("Foobarilium",)),
        ({"itemReference": {"reference": "Substance/9"}}, ("Substance/9",)),
        ({}, ("an ingredient without a name",)),
        ({"isActive": False, "itemCodeableConcept": {"text": "Lactose"}}, ()),
        ({"itemReference": {"reference": "#s"}}, ()),
    ],
)
def test_every_ingredient_is_known_or_said(
    knowledge: Knowledge, ingredient: dict[str, Any], unknown: tuple[str, ...]
) -> None:
    """One ingredient that is known does not hide another."""
    medication = {
        "resourceType": "Medication",
        "id": "m",
        "ingredient": [{"itemCodeableConcept": {"text": "warfarin"}}, ingredient],
    }
    substance = {"resourceType": "Substance", "id": "s", "code": {"text": "aspirin"}}
    of = order("x", contained=[medication, substance], medicationReference={"reference": "#m"})
    del of["medicationCodeableConcept"]
    found = resolve(of, {}, knowledge)

    assert "warfarin" in names(knowledge, of)
    assert found.unresolved == unknown
    assert ("aspirin" in names(knowledge, of)) == (
        ingredient.get("itemReference", {}) == {"reference": "#s"}
    )


@pytest.mark.parametrize(
    ("words", "classes", "unknown"),
    [
        ("penicillin, aspirin", True, ()),
        ("Aspirin; sulfa", True, ()),
        ("sulfa, foobarilium and aspirin", True, ("foobarilium",)),
        ("aspirin, peanut", False, ()),
        ("aspirin, foobarilium", False, ("foobarilium",)),
    ],
)
def test_every_allergen_of_a_list_is_known_or_said(
    knowledge: Knowledge, words: str, classes: bool, unknown: tuple[str, ...]
) -> None:
    """A class does not hide the drug beside it, nor a drug the class."""
    found = allergy({"resourceType": "AllergyIntolerance", "code": {"text": words}}, knowledge)

    assert found is not None
    assert "aspirin" in {knowledge.display(code) for code in found.ingredients}
    assert bool(found.classes) == classes
    assert found.unresolved == unknown


@pytest.mark.parametrize(
    ("routes", "drug", "route"),
    [
        (["topical", "oral"], "diclofenac", "oral"),
        (["topical", "unheard of"], "diclofenac", ""),
        (["topical", "topical"], "diclofenac", "topical"),
        ([], "Miconazole 2% oral gel", "oral"),
        ([], "Diclofenac 1% gel", "topical"),
        ([], "Estradiol vaginal tablet", "vaginal"),
        ([], "Albuterol inhaler, oral inhalation", "inhaled"),
        (["oral inhalation"], "albuterol", "inhaled"),
    ],
)
def test_one_way_into_the_body_is_enough(
    knowledge: Knowledge, routes: list[str], drug: str, route: str
) -> None:
    """A drug is local only where every instruction is."""
    dosage = [{"route": {"text": one}} for one in routes]

    assert resolve(order(drug, dosageInstruction=dosage), {}, knowledge).route == route


def test_orders_without_an_id_are_orders(knowledge: Knowledge) -> None:
    """Two drafts that have no id, or the same, are two: twice the drug, and twice the dose."""
    quantity = {"doseQuantity": {"value": 3, "code": "g"}}
    dosage = [{"timing": DAILY, "doseAndRate": [quantity]}]
    one = order("paracetamol", dosageInstruction=dosage)
    nameless = [{k: v for k, v in one.items() if k != "id"}] * 2
    for other in (nameless[1], {**one, "note": [{"text": "x"}]}):
        found = judged(knowledge, [nameless[0], {**other, "authoredOn": "2026-11-20"}], ADULT)[1]
        kinds = {finding.kind for finding in found.findings}
        assert kinds == {"duplicate", "dose"}


def per_day(knowledge: Knowledge, *instructions: dict[str, Any]) -> Any:
    """Return what is taken of paracetamol in a day, in g, and why it is not known."""
    found = resolve(order("paracetamol", dosageInstruction=list(instructions)), {}, knowledge)
    daily = next((one.daily for one in found.intakes.values()), None)
    return None if daily is None else daily / 1000, bool(found.uncomputed)


def dose(repeat: dict[str, Any], value: Any = 1, unit: str = "g", **more: Any) -> dict[str, Any]:
    quantity = {"value": value, "code": unit, "unit": unit}
    return {"timing": {"repeat": repeat}, "doseAndRate": [{"doseQuantity": quantity}], **more}


DAY = {"period": 1, "periodUnit": "d"}


@pytest.mark.parametrize(
    ("instruction", "daily"),
    [
        (dose({**DAY, "when": ["MORN", "NOON", "EVE", "NIGHT"]}), 4),
        (dose({**DAY, "frequency": 1, "timeOfDay": ["08:00:00", "20:00:00"]}), 2),
        (dose({"frequency": 1, "period": 6, "periodUnit": "h", "timeOfDay": ["08:00:00"]}), 4),
        (dose({"when": ["AC"]}), 3),
        (dose({**DAY, "frequency": 1, "when": ["AC"]}), 1),
        (dose({**DAY, "frequency": 1, "frequencyMax": 6}), 6),
        (dose({"frequency": 1, "period": 4, "periodMax": 6, "periodUnit": "h"}), 6),
        (dose({**DAY, "frequency": 1}, asNeededBoolean=True), 1),
        (dose({"frequency": 14, "period": 1, "periodUnit": "wk", "dayOfWeek": ["mon"]}), 2),
        (
            dose({**DAY, "frequency": 4, "boundsDuration": {"value": 3, "code": "d"}}, 500, "mg"),
            2,
        ),
    ],
)
def test_times_of_a_day_are_counted_as_the_most(
    knowledge: Knowledge, instruction: dict[str, Any], daily: int
) -> None:
    """Where a timing says how often in several ways, the most counts."""
    assert per_day(knowledge, instruction) == (daily, False)


def test_code_and_structure_of_a_timing(knowledge: Knowledge) -> None:
    """A code that says more often than the structure counts."""
    said = dose({**DAY, "frequency": 1})
    said["timing"]["code"] = {"coding": [{"code": "QID"}]}

    assert per_day(knowledge, said) == (4, False)


def test_amounts_are_the_most_that_is_given(knowledge: Knowledge) -> None:
    """Several doses of one instruction, a range, a rate beside a dose."""
    two = dose({**DAY, "frequency": 2})
    two["doseAndRate"] += [{"doseQuantity": {"value": 3, "code": "g"}}]
    ranged = {**two, "doseAndRate": [{"doseRange": {"high": {"value": 2, "code": "g"}}}]}
    rate = {"rateQuantity": {"value": 1, "code": "g/h"}}
    beside = {**two, "doseAndRate": [{"doseQuantity": {"value": 1, "code": "g"}, **rate}]}
    alone = {**two, "doseAndRate": [rate]}

    assert per_day(knowledge, two) == (6, False)
    assert per_day(knowledge, ranged) == (4, False)
    assert per_day(knowledge, beside) == (2, False)
    assert per_day(knowledge, alone) == (24, False)


def test_steps_and_what_goes_beside_them(knowledge: Knowledge) -> None:
    """A taper counts at its largest step, with what is taken throughout; without it, added up."""
    taper = [
        dose({**DAY, "frequency": number}, sequence=place)
        for place, number in enumerate((4, 2, 1), start=1)
    ]

    assert per_day(knowledge, *taper) == (4, False)
    assert per_day(knowledge, *taper, dose({**DAY, "frequency": 1})) == (5, False)
    assert per_day(knowledge, dose(DAY), dose(DAY)) == (2, False)


@pytest.mark.parametrize(
    "instruction",
    [
        {"text": "1 g four times a day", "doseAndRate": dose({})["doseAndRate"]},
        dose({**DAY, "frequency": 1}, 20, "mg/kg"),
        dose({**DAY, "frequency": 1}, 500, "mg/m2"),
        dose({**DAY, "frequency": 1}, 500, "mg", doseAndRate=[]),
        dose({"frequency": 3}),
        dose({"count": 10}),
        dose({"boundsDuration": {"value": 3, "code": "d"}}),
        dose({}, asNeededBoolean=True),
        dose({**DAY, "frequency": 1}, "one"),
        dose({**DAY, "frequency": 1}, -1),
        dose({"frequency": 1, "period": 1}),
        dose({"event": ["2026-11-22"]}),
        {
            "timing": DAILY,
            "doseAndRate": [{"doseQuantity": {"value": 4, "unit": "g", "code": "mg"}}],
        },
        {
            "timing": DAILY,
            "doseAndRate": [{"doseQuantity": {"value": 9, "unit": "mg/kg", "code": "mg"}}],
        },
        {"timing": DAILY, "doseAndRate": [{"doseRange": {"low": {"value": 1, "code": "g"}}}]},
        {"timing": DAILY, "doseAndRate": [{"doseQuantity": {"value": 2, "code": "{tbl}"}}]},
        {
            "timing": DAILY,
            "doseAndRate": [{"doseQuantity": {"value": 1, "comparator": ">", "code": "g"}}],
        },
        {
            "timing": DAILY,
            "doseAndRate": [
                {"doseQuantity": {"value": 1, "code": "g"}},
                {"doseQuantity": {"value": 1}},
            ],
        },
    ],
)
def test_a_dose_that_cannot_be_computed_is_said(
    knowledge: Knowledge, instruction: dict[str, Any]
) -> None:
    """Per kg, per m², in words, without times, in units that differ: never taken for good."""
    found = judged(knowledge, [order("paracetamol", dosageInstruction=[instruction])], ADULT)[1]

    assert "dose-not-computable" in {one.reason for one in found.not_checked}


def test_more_instructions_than_are_read_are_said(knowledge: Knowledge) -> None:
    """A list that is cut is not taken for the whole."""
    many = [dose({**DAY, "frequency": 1}, 1, "mg") for _ in range(60)]

    assert per_day(knowledge, *many)[1]


def test_a_day_has_at_least_one_dose(knowledge: Knowledge) -> None:
    """A dose once a week, or capped by a maximum that cannot be, is not a seventh of it."""
    row = next(
        row
        for rows in knowledge.limits.values()
        for row in rows
        if "max_daily" in row
        and "max_weekly" not in row
        and "child" not in row
        and row["route"] == "oral"
    )
    amount = float(row["max_daily"] * 3)
    weekly = dose({"frequency": 1, "period": 1, "periodUnit": "wk"}, amount, "mg")
    found = judged(
        knowledge,
        [order(row["ingredient"]["display"], dosageInstruction=[weekly])],
        ADULT,
    )[1]

    assert [one.severity for one in found.findings if one.kind == "dose"] == ["contraindicated"]


def test_children_are_not_judged_as_adults_in_silence(knowledge: Knowledge) -> None:
    """Where a table has no limit for children, that is said."""
    child = {**ADULT, "birthDate": "2024-01-01"}
    usual = [dose({**DAY, "frequency": 1}, 5, "mg")]
    row = next(
        row
        for rows in knowledge.limits.values()
        for row in rows
        if not row.keys() & {"child", "contraindicated_below_years", "caution_below_years"}
        and row["route"] == "oral"
        and row.get("max_daily", 0) >= 10
    )
    drug = order(row["ingredient"]["display"], dosageInstruction=usual)

    for who, said in ((child, True), (ADULT, False)):
        found = judged(knowledge, [drug], who)[1]
        assert ("no-child-limit" in {one.reason for one in found.not_checked}) == said


LONG = st.sampled_from(sorted(n[0] for n in KNOWLEDGE.names.names if len(n) == 1 and len(n[0]) > 7))


@given(LONG, st.integers(0, 40), st.sampled_from("abcxyz"), st.sampled_from("drc"))
def test_one_edit_is_found_wherever_it_is(name: str, at: int, letter: str, edit: str) -> None:
    """A letter less, more, or another: what is one edit from one name only is that."""
    at = min(at, len(name) - 1)
    kept = "" if edit == "d" else letter + (name[at] if edit == "c" else "")
    word = name[:at] + kept + name[at + 1 :]
    near = {
        codes
        for (other, *more), codes in KNOWLEDGE.names.names.items()
        if not more and len(other) > 7 and _one_edit(word, other)
    }
    if (word,) in KNOWLEDGE.names.names or len(word) < 8 or not word.isalpha():
        return
    found, read_as, _ = KNOWLEDGE.names.in_text(word)

    assert set(found) == (set(*near) if len(near) == 1 else set())
    assert bool(read_as) == (len(near) == 1)


def test_a_long_text_of_nothing_is_read_soon(
    knowledge: Knowledge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unknown words are looked up by what an edit leaves of them, not against every name."""
    compared: list[str] = []

    def counted(word: str, name: str) -> bool:
        compared.append(name)
        return _one_edit(word, name)

    monkeypatch.setattr("fhir_server.features.cds.names._one_edit", counted)
    known = knowledge.names.in_text("acetaminophon")  # one edit: it is compared
    knowledge.names.in_text(" ".join(f"unknownium{number:03}abc" for number in range(60)))

    assert known[1] == "acetaminophen"
    assert 0 < len(compared) < 60
