"""Too much, too often, too long, too young, or too much for these kidneys. Pure.

design/cds.md, section 5.4. Everything is compared in mg of an ingredient, exactly.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from fhir_server.features.cds.drug import (
    RANK,
    Drug,
    Finding,
    Intake,
    NotChecked,
    Patient,
    Screening,
)
from fhir_server.features.cds.knowledge import Knowledge
from fhir_server.features.cds.renal import ADULT_YEARS

_TOLERANCE = Fraction(11, 10)
_OLD_YEARS = 65
_OPIOIDS = "morphine-equivalents"

# Members of a row that say something only of an amount that is known.
_LIMITING = frozenset(
    "max_single max_daily max_weekly max_monthly max_daily_per_kg morphine_equivalent "
    "child elderly schedule".split()
)

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Point:
    """One thing that is wrong with a dose: how bad, its code of v3-ActCode, and a sentence.

    ``scale`` is by how much less would be right; ``None`` where no amount would be.
    """

    severity: str
    code: str
    text: str
    scale: Fraction | None = None


def dose_screening(
    ordered: Sequence[Drug], current: Sequence[Drug], patient: Patient, knowledge: Knowledge
) -> Screening:
    """Return what is wrong with the doses of ``ordered``, and what could not be judged.

    The same ingredient in several drugs that reach the body is added up, but not in what a draft
    replaces.
    """
    replaced = {id for drug in ordered for id in drug.replaces}
    taken = [*ordered, *(drug for drug in current if drug.id not in replaced)]
    findings: list[Finding] = []
    missing: list[NotChecked] = []
    for drug in ordered:
        for code in drug.ingredients:
            row = limit_row(drug, code, knowledge)
            if row is None:
                missing.append(NotChecked(drug.display, "no-limit", knowledge.display(code)))
                continue
            missing += _not_known(drug, code, row, taken)
            intake = drug.intakes.get(code)
            total = _total(code, drug, taken)
            points = [*_age_points(row, patient)]
            if intake is not None and total is not None:
                points += _points(row, intake, total, patient)
                missing += _hangs_on(drug, row, intake, total, patient)
            if points:
                found = _finding(drug, code, row, points, total, knowledge)
                findings.append(replace(found, scale=_scale(drug, row, intake, total, points)))
    findings += _opioids(ordered, taken, knowledge)
    return Screening(tuple(findings), tuple(dict.fromkeys(missing)))


def _scale(
    drug: Drug, row: Row, intake: Intake | None, total: Fraction | None, points: Sequence[_Point]
) -> Fraction | None:
    """Return by what the dose of ``drug`` is to be multiplied to be the most that is right.

    ``None`` where that is no matter of one amount: something else is wrong, other orders add to it,
    it hangs on the weight or on a level, or the drug has several ingredients.
    """
    if intake is None or intake.daily != total or len(drug.ingredients) != 1:
        return None
    if row.get("guided_by") or any(point.code == "DOSEHINDW" for point in points):
        return None
    scales = [point.scale for point in points if point.scale is not None]
    return min(scales) if len(scales) == len(points) and min(scales) > 0 else None


def limit_row(drug: Drug, code: str, knowledge: Knowledge) -> Row | None:
    """Return the limits of an ingredient by the route and release of ``drug``, if there are any.

    A route that is not known is the oral one, or the only one.
    """
    rows = knowledge.limits.get(code, ())
    routes = {row["route"] for row in rows}
    route = drug.route or ("oral" if "oral" in routes or len(routes) != 1 else next(iter(routes)))
    release = drug.release or "immediate"
    by_route = [row for row in rows if row["route"] == route]
    return next((row for row in by_route if row["form"] in ("any", release)), None)


def equivalents(code: str, knowledge: Knowledge) -> dict[str, Fraction]:
    """Return units -> how many of them a mg of the ingredient is."""
    return {
        one["unit"]: one["per_mg"]
        for row in knowledge.limits.get(code, ())
        for one in row.get("equivalents", ())
    }


def _total(code: str, drug: Drug, taken: Iterable[Drug]) -> Fraction | None:
    intake = drug.intakes.get(code)
    if intake is None or intake.daily is None:
        return None
    if not drug.is_systemic:
        return intake.daily
    amounts = [
        other.intakes[code].daily
        for other in taken
        if other.is_systemic and code in other.intakes and other.id != drug.id
    ]
    return intake.daily + sum((one for one in amounts if one is not None), Fraction(0))


def _not_known(drug: Drug, code: str, row: Row, taken: Iterable[Drug]) -> Iterator[NotChecked]:
    if _LIMITING.isdisjoint(row):
        return
    for other in taken:
        is_meant = other.id == drug.id or (code in other.ingredients and other.is_systemic)
        if is_meant and (other.uncomputed or code not in other.intakes):
            why = other.uncomputed or "the amount cannot be computed"
            yield NotChecked(other.display, "dose-not-computable", why)


def _age_points(row: Row, patient: Patient) -> Iterator[_Point]:
    years = patient.age_years
    if years is None:
        return
    below = row.get("contraindicated_below_years")
    if below is not None and years < below:
        yield _Point("contraindicated", "DOSEHINDA", f"Not below {_mg(below)} years.")
        return
    below = row.get("caution_below_years")
    if below is not None and years < below:
        yield _Point("moderate", "DOSEHINDA", f"With caution below {_mg(below)} years.")


def _points(row: Row, intake: Intake, total: Fraction, patient: Patient) -> Iterator[_Point]:
    is_loading = _is_loading(row, intake)
    yield from _amounts(row, intake, total, patient, is_loading)
    if row.get("schedule") == "weekly" and not intake.is_once and _is_daily(intake):
        yield _Point("contraindicated", "DOSEH", "A weekly drug is ordered every day.")
    yield from _renal(row, intake, total, patient, is_loading)
    if not is_loading:
        yield from _elderly(row, total, patient)
    most = row.get("max_days")
    if most is not None and intake.days is not None and intake.days > most:
        text = f"{_mg(intake.days)} days, where {_mg(most)} are the most."
        yield _Point("serious", "DOSEDURH", text)


def _is_daily(intake: Intake) -> bool:
    return intake.interval_h is not None and intake.interval_h <= 36


def _is_loading(row: Row, intake: Intake) -> bool:
    loading = row.get("loading")
    return bool(loading and intake.days is not None and intake.days <= loading["days"])


def _amounts(
    row: Row, intake: Intake, total: Fraction, patient: Patient, is_loading: bool
) -> Iterator[_Point]:
    single = row.get("max_single")
    if is_loading:
        single = max(single or 0, row["loading"]["max_daily"])
    if single is not None and intake.single is not None:
        yield from _above(intake.single, single, "in one dose", "DOSEH")
    elif intake.single is not None:
        total = max(total, intake.single)  # a day has at least one dose, whatever the mean is
    rare = _rare_limit(row, intake)
    if rare is not None:
        days, most, what = rare
        yield from _above(total * days, most, what, "DOSEH")
        return
    limit, code, what = _daily_limit(row, patient, is_loading)
    if limit is None:
        return
    yield from _above(total, limit, what, code)
    usual = row.get("usual_max_daily")
    if usual is not None and usual < total <= limit and not is_loading:
        text = f"{_mg(total)} mg a day; usually {_mg(usual)} mg are the most."
        yield _Point("moderate", "DOSEH", text, Fraction(1))


def _rare_limit(row: Row, intake: Intake) -> tuple[int, Fraction, str] | None:
    """Return days, limit and words where doses are farther apart than a day and a row says so."""
    apart = intake.interval_h
    if "max_weekly" in row and "max_daily" not in row:
        return 7, row["max_weekly"], "a week"
    if apart is None or apart <= 24 or intake.is_once:
        return None
    if "max_monthly" in row and apart >= 24 * 14:
        return 30, row["max_monthly"], "a month"
    if "max_weekly" in row:
        return 7, row["max_weekly"], "a week"
    return None


def _daily_limit(row: Row, patient: Patient, is_loading: bool) -> tuple[Fraction | None, str, str]:
    """Return the limit of a day for this patient, its code, and words for it."""
    limit: Fraction | None = row.get("max_daily")
    if is_loading:
        return row["loading"]["max_daily"], "DOSEH", "a day to begin with"
    weight = patient.weight_kg
    child = row.get("child")
    if child and _is_child(patient):
        per_kg = child.get("max_daily_per_kg")
        limits = [one for one in (child.get("max_daily"), limit) if one is not None][:1]
        if per_kg is not None and weight is not None:
            limits.append(per_kg * weight)
            return min(limits), "DOSEHINDW", f"a day at {_mg(weight)} kg"
        return (limit if weight is None else min(limits, default=None)), "DOSEHINDA", "a day"
    per_kg = row.get("max_daily_per_kg")
    if per_kg is not None and weight is not None:
        by_weight = per_kg * weight
        if limit is None or by_weight < limit:
            return by_weight, "DOSEHINDW", f"a day at {_mg(weight)} kg"
    return limit, "DOSEH", "a day"


def _is_child(patient: Patient) -> bool:
    return patient.age_years is not None and patient.age_years < ADULT_YEARS


def _above(amount: Fraction, limit: Fraction, what: str, code: str) -> Iterator[_Point]:
    text = f"{_mg(amount)} mg {what}, where {_mg(limit)} mg are the most."
    if amount > limit * _TOLERANCE:
        severity = "contraindicated" if amount >= 2 * limit else "serious"
        yield _Point(severity, code, text, limit / amount)


def _renal(
    row: Row, intake: Intake, total: Fraction, patient: Patient, is_loading: bool
) -> Iterator[_Point]:
    """To begin with it may be more; what is to be avoided is so from the first dose on."""
    clearance = patient.clearance if patient.clearance is not None else patient.egfr
    if clearance is None:
        return
    for step in row.get("renal", ()):
        if is_loading and not step.get("avoid"):
            continue
        if clearance < step["below_ml_min"] and _breaks(step, row, intake, total):
            below = _mg(step["below_ml_min"])
            text = (
                f"Renal function {_mg(clearance)} mL/min; below {below}: {_step_text(step, row)}."
            )
            limit = _step_limit(step, row)
            scale = limit / total if limit is not None else None
            yield _Point("serious", "DOSECOND", text, scale)
            return


def _breaks(step: Row, row: Row, intake: Intake, total: Fraction) -> bool:
    if step.get("avoid"):
        return True
    if "min_interval_hours" in step:
        apart = intake.interval_h
        return apart is not None and not intake.is_once and apart < step["min_interval_hours"]
    limit = _step_limit(step, row)
    return limit is not None and total > limit * _TOLERANCE


def _step_limit(step: Row, row: Row) -> Fraction | None:
    """Return the most a day by ``step``; ``None`` where it is no matter of an amount."""
    if "max_daily" in step:
        return Fraction(step["max_daily"])
    is_part = "factor" in step and "max_daily" in row
    return row["max_daily"] * step["factor"] if is_part else None


def _step_text(step: Row, row: Row) -> str:
    if step.get("avoid"):
        return "avoid"
    if "min_interval_hours" in step:
        return f"at least {_mg(step['min_interval_hours'])} hours between doses"
    limit = _step_limit(step, row)
    return f"{_mg(limit)} mg a day at most" if limit is not None else "less"


def _elderly(row: Row, total: Fraction, patient: Patient) -> Iterator[_Point]:
    elderly, years = row.get("elderly"), patient.age_years
    if elderly and years is not None and years >= elderly["from_years"]:
        most = elderly["max_daily"]
        if total > most * _TOLERANCE:
            severity = "serious" if total >= 2 * most else "moderate"
            text = f"{_mg(total)} mg a day; from {_mg(elderly['from_years'])} years {_mg(most)} mg."
            yield _Point(severity, "DOSEHINDA", text, most / total)


def _hangs_on(
    drug: Drug, row: Row, intake: Intake, total: Fraction, patient: Patient
) -> Iterator[NotChecked]:
    """Yield the values that are missing and would decide."""
    years = patient.age_years
    by_age = ("child", "elderly", "contraindicated_below_years", "caution_below_years")
    if years is None and any(name in row for name in by_age):
        yield NotChecked(drug.display, "value-missing", "age")
    by_weight = row.get("child", {}) if _is_child(patient) else row
    if patient.weight_kg is None and "max_daily_per_kg" in by_weight:
        yield NotChecked(drug.display, "value-missing", "weight")
    if _is_child(patient) and not row.keys() & {"child", "contraindicated_below_years"}:
        yield NotChecked(drug.display, "no-child-limit")
    if "max_days" in row and intake.days is None and not intake.is_once:
        yield NotChecked(drug.display, "value-missing", "how long it is taken")
    is_known = patient.clearance is not None or patient.egfr is not None
    if is_known or (years is not None and years < _OLD_YEARS):
        return
    if any(_breaks(step, row, intake, total) for step in row.get("renal", ())):
        yield NotChecked(drug.display, "value-missing", "creatinine")


def _finding(
    drug: Drug,
    code: str,
    row: Row,
    points: Sequence[_Point],
    total: Fraction | None,
    knowledge: Knowledge,
) -> Finding:
    worst = max(points, key=lambda point: RANK[point.severity])
    severity = worst.severity
    if row.get("guided_by") and RANK[severity] > RANK["moderate"]:
        severity = "moderate"
    judged = "" if total is None else f"Judged: {_mg(total)} mg a day of {knowledge.display(code)}"
    return Finding(
        kind="dose",
        severity=severity,
        orders=(drug.id,),
        others=(),
        title=f"{knowledge.display(code)}: dose",
        effect=worst.text.rstrip("."),
        mechanism=" ".join(dict.fromkeys(point.text for point in points)),
        management="Check the amount, its unit and the times.",
        rule=row["id"],
        code=worst.code,
        source=knowledge.label,
        reviewed=bool(row.get("verified")),
        judged=judged,
    )


def _opioids(
    ordered: Sequence[Drug], taken: Sequence[Drug], knowledge: Knowledge
) -> Iterator[Finding]:
    """The morphine equivalents of all opioids together, where a draft is one of them."""
    total = sum((_equivalent(drug, knowledge) for drug in taken), Fraction(0))
    drafts = [drug for drug in ordered if _equivalent(drug, knowledge)]
    if not drafts or total < knowledge.opioid_moderate:
        return
    severity = "serious" if total >= knowledge.opioid_serious else "moderate"
    text = f"{_mg(total)} mg morphine equivalents a day"
    yield Finding(
        kind="dose",
        severity=severity,
        orders=tuple(sorted(drug.id for drug in drafts)),
        others=tuple(
            sorted(one.id for one in taken if one not in drafts and _equivalent(one, knowledge))
        ),
        title="opioids: dose",
        effect=text,
        mechanism="The risk of overdose grows with the sum of all opioids.",
        management="Lower the dose, or offer naloxone.",
        rule=_OPIOIDS,
        code="DOSEH",
        source=knowledge.label,
    )


def _equivalent(drug: Drug, knowledge: Knowledge) -> Fraction:
    found = Fraction(0)
    for code, intake in drug.intakes.items():
        row = limit_row(drug, code, knowledge)
        if row and "morphine_equivalent" in row and intake.daily is not None:
            found += intake.daily * row["morphine_equivalent"]
    return found


def _mg(amount: Fraction) -> str:
    """Return an amount for people: up to four digits behind the point."""
    return f"{float(amount):,.4f}".rstrip("0").rstrip(".")
