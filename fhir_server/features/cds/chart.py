"""A patient's chart, as resources, -> what is current of it, for the checks. Pure.

design/cds.md, section 3.2: only current data count.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from fractions import Fraction
from typing import Any

from fhir_server.features.cds.drug import Allergy, Drug, NotChecked, Patient
from fhir_server.features.cds.drug_allergy import with_history
from fhir_server.features.cds.elements import codes, name_of, number, part, text
from fhir_server.features.cds.knowledge import Knowledge
from fhir_server.features.cds.renal import ADULT_YEARS, ckd_epi, cockcroft_gault, mg_dl, schwartz
from fhir_server.features.cds.resolve import allergy, resolve
from fhir_server.features.cds.units import mass, unit_of

Resource = Mapping[str, Any]
_ORDERS = frozenset(("MedicationRequest", "MedicationStatement"))
_USABLE = frozenset(("final", "amended", "corrected"))
_YOUNG_YEARS = 12
# A status that nobody knows hides no drug: only these say that it is not taken, or not yet.
_NOT_ORDERED = frozenset(("cancelled", "completed", "entered-in-error", "stopped"))
_NOT_CURRENT = {
    "MedicationRequest": _NOT_ORDERED | {"draft", "unknown"},
    "MedicationStatement": _NOT_ORDERED | {"on-hold", "not-taken", "unknown"},
}
_STOPPED = _NOT_ORDERED - {"completed"}


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: drafts, what else is taken, allergies, and the patient. No identifier."""

    ordered: tuple[Drug, ...]
    current: tuple[Drug, ...]
    allergies: tuple[Allergy, ...]
    patient: Patient


@dataclass(frozen=True, slots=True)
class Counts:
    """What of a chart counts: drugs until so many days after their supply, results so many days.

    Where drafts are ``is_stored``, as active orders, what they say to replace is taken still,
    unless it is the same drug: what is stopped is not in the chart.
    """

    grace_days: int
    creatinine_days: int
    is_stored: bool = False


def is_current(order: Resource, today: date, grace_days: int) -> bool:
    """Whether an order or statement says that its drug is taken now."""
    status, type = text(order, "status"), text(order, "resourceType")
    if type not in _NOT_CURRENT or status.strip().lower() in _NOT_CURRENT[type]:
        return False
    if type == "MedicationStatement":
        return True
    if order.get("doNotPerform") is True:
        return False
    if text(order, "intent") in ("proposal", "plan", "option"):
        return False
    return not _ended(order, today, grace_days)


def _ended(order: Resource, today: date, grace_days: int) -> bool:
    """Whether the supply ended long ago, where that can be computed."""
    supply = part(part(order, "dispenseRequest"), "expectedSupplyDuration")
    value = number(supply, "value")
    begun = _day(text(order, "authoredOn"))
    if value is None or begun is None or unit_of(supply) != "d":
        return False
    repeats = number(part(order, "dispenseRequest"), "numberOfRepeatsAllowed") or Fraction(0)
    days = value * (repeats + 1)
    if not 0 < days < 36_500:
        return False
    return (today - begun).days > int(days) + grace_days


def is_current_allergy(entry: Resource) -> bool:
    """Whether an entry of the allergy list counts; one without a status does."""
    if text(entry, "resourceType") != "AllergyIntolerance":
        return False
    if codes(entry.get("verificationStatus")) & {"refuted", "entered-in-error"}:
        return False
    return not codes(entry.get("clinicalStatus")) & {"inactive", "resolved"}


def question(
    drafts: Iterable[Resource],
    chart: Iterable[Resource],
    resources: Mapping[str, Resource],
    knowledge: Knowledge,
    now: datetime,
    *,
    counts: Counts,
) -> tuple[Question, tuple[NotChecked, ...]]:
    """Return what is to be checked, and what of the chart could not be read.

    ``drafts`` are orders of the request; ``chart`` everything that is known of the patient;
    ``resources`` Medications by ``Type/id``.
    """
    today = now.date()
    everything = list(chart)
    given = [one for one in drafts if one.get("doNotPerform") is not True]
    meant = [one for one in given if text(one, "status") not in _STOPPED]
    ordered = _distinct([resolve(one, resources, knowledge) for one in meant])
    # What a draft stops is neither ordered nor taken any longer.
    ids = {drug.id for drug in ordered} | {name_of(one) for one in given if text(one, "id")}
    current = _distinct(
        [
            resolve(one, resources, knowledge)
            for one in everything
            if text(one, "resourceType") in _ORDERS
            and is_current(one, today, counts.grace_days)
            and name_of(one) not in ids
        ],
        "current",
    )
    if counts.is_stored:
        by_id = {drug.id: drug for drug in (*ordered, *current)}
        ordered = [_renewing(drug, by_id) for drug in ordered]
        current = [_renewing(drug, by_id) for drug in current]
    replaced = {id for drug in ordered for id in drug.replaces}
    entries = [
        (entry, allergy(entry, knowledge)) for entry in everything if is_current_allergy(entry)
    ]
    allergies = [
        replace(one, given_since=with_history(one, current))
        for _, one in entries
        if one is not None
    ]
    found = Question(
        tuple(ordered),
        tuple(drug for drug in current if drug.id not in replaced),
        tuple(allergies),
        patient(everything, now, counts.creatinine_days),
    )
    return found, tuple(dict.fromkeys(_unread(found, knowledge)))


def _distinct(drugs: Iterable[Drug], name: str = "draft") -> list[Drug]:
    """Return ``drugs`` with ids of their own: two orders without one are two."""
    found: dict[str, Drug] = {}
    for drug in drugs:
        if found.get(drug.id) == drug:
            continue  # the same order, listed twice
        type, _, id = drug.id.partition("/")
        is_own = bool(id) and drug.id not in found
        own = drug.id if is_own else f"{type}/#{name}{len(found) + 1}"
        found[own] = drug if is_own else replace(drug, id=own)
    return list(found.values())


def _renewing(drug: Drug, others: Mapping[str, Drug]) -> Drug:
    """Return ``drug``, which replaces no other drug that is taken."""
    kept = (
        id
        for id in drug.replaces
        if id not in others or not drug.ingredients.keys().isdisjoint(others[id].ingredients)
    )
    return replace(drug, replaces=frozenset(kept))


def _unread(asked: Question, knowledge: Knowledge) -> Iterable[NotChecked]:
    for drug in (*asked.ordered, *asked.current):
        for name in drug.unresolved:
            yield NotChecked(name, "unknown-drug")
        if drug.conflict:
            yield NotChecked(drug.conflict, "code-text-conflict", "both were checked")
    for drug in asked.ordered:
        for code in drug.ingredients:
            if not knowledge.covers(code):
                yield NotChecked(drug.display, "not-covered", knowledge.display(code))
    for entry in asked.allergies:
        for name in entry.unresolved:
            yield NotChecked(name, "unknown-allergen")


def patient(chart: Iterable[Resource], now: datetime, creatinine_days: int) -> Patient:
    """Return age, sex, weight, height, renal function and potassium as the chart has them."""
    resources = list(chart)
    person = next((one for one in resources if text(one, "resourceType") == "Patient"), {})
    observed = _by_code(resources)
    born = _day(text(person, "birthDate"))
    days = (now.date() - born).days if born and born <= now.date() else None
    years = None if days is None else days / 365.25
    sex = text(person, "gender")
    weight_days = 90 if years is not None and years < _YOUNG_YEARS else 365
    weight = _measured(observed.get("29463-7", ()), now, weight_days, _kilograms)
    height = _measured(observed.get("8302-2", ()), now, 36_500, _centimetres)
    creatinine = min(
        (
            _observed(observed.get("2160-0", ()), now, creatinine_days, _creatinine),
            _observed(observed.get("14682-9", ()), now, creatinine_days, _creatinine),
        ),
        key=lambda one: -one[0],
    )[1]
    potassium = _measured(observed.get("2823-3", ()), now, creatinine_days, _potassium)
    clearance = egfr = None
    if years is not None and creatinine is not None and creatinine > 0:
        tall = None if height is None else float(height)
        if years >= ADULT_YEARS:
            egfr = ckd_epi(years, sex, float(creatinine))
            if weight is not None:
                clearance = cockcroft_gault(years, sex, float(weight), tall, float(creatinine))
        elif tall is not None:
            egfr = schwartz(tall, float(creatinine))
    return Patient(days, sex, weight, height, _whole(clearance), _whole(egfr), potassium)


def _whole(value: float | None) -> Fraction | None:
    return None if value is None else Fraction(round(value * 10), 10)


def _by_code(resources: Iterable[Resource]) -> dict[str, list[Resource]]:
    """Return the Observations that count, by each of their codes."""
    found: dict[str, list[Resource]] = {}
    for one in resources:
        if text(one, "resourceType") == "Observation" and text(one, "status") in _USABLE:
            for code in codes(one.get("code")):
                found.setdefault(code, []).append(one)
    return found


def _measured(
    observations: Iterable[Resource], now: datetime, days: int, read: Any
) -> Fraction | None:
    return _observed(observations, now, days, read)[1]


def _observed(
    observations: Iterable[Resource], now: datetime, days: int, read: Any
) -> tuple[int, Fraction | None]:
    """Return how new the newest usable value is, and the value."""
    best: tuple[int, Fraction | None] = (-1, None)
    for one in observations:
        when = _day(text(one, "effectiveDateTime") or text(one, "issued"))
        value = read(part(one, "valueQuantity"))
        if value is None or value <= 0:
            continue
        if when is None or not 0 <= (now.date() - when).days <= days:
            continue
        best = max(best, (when.toordinal(), value), key=lambda found: found[0])
    return best


def _kilograms(quantity: Resource) -> Fraction | None:
    value, unit = number(quantity, "value"), unit_of(quantity)
    if value is None:
        return None
    if unit in ("[lb_av]", "lb", "lbs"):
        return value * Fraction(45359237, 10**8)
    found = mass(value, unit)
    return None if found is None else found / 10**6


def _centimetres(quantity: Resource) -> Fraction | None:
    value = number(quantity, "value")
    factor = {"cm": Fraction(1), "m": Fraction(100), "[in_i]": Fraction(254, 100)}
    unit = unit_of(quantity)
    return value * factor[unit] if value is not None and unit in factor else None


def _creatinine(quantity: Resource) -> Fraction | None:
    value = number(quantity, "value")
    found = None if value is None else mg_dl(float(value), unit_of(quantity))
    return None if found is None else Fraction(str(round(found, 4)))


def _potassium(quantity: Resource) -> Fraction | None:
    is_known = unit_of(quantity).lower() in ("mmol/l", "meq/l")
    return number(quantity, "value") if is_known else None


def _day(said: str) -> date | None:
    """Return the day of a FHIR date; its first where only a year or a month is given."""
    padded = said[:10]
    if len(said) == 4:
        padded = f"{said}-01-01"
    elif len(said) == 7:
        padded = f"{said}-01"
    try:
        return date.fromisoformat(padded)
    except ValueError:
        return None


def medications(resources: Iterable[Resource]) -> dict[str, Resource]:
    """Return the Medications among ``resources`` by ``Type/id``."""
    return {name_of(one): one for one in resources if text(one, "resourceType") == "Medication"}
