"""Dosage instructions -> how much of each ingredient is taken, in mg. Pure.

https://hl7.org/fhir/R4/dosage.html, https://hl7.org/fhir/R4/datatypes.html#Timing

As needed counts at its maximum. Text is not read: no number is guessed.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from typing import Any

from fhir_server.features.cds.drug import Drug, Intake
from fhir_server.features.cds.elements import codes, number, part, parts, text
from fhir_server.features.cds.units import administered, hours, unit_of

# https://hl7.org/fhir/R4/valueset-timing-abbreviation.html -> doses a day
_CODES: dict[str, Fraction] = {
    **dict.fromkeys(("qd", "am", "pm", "bed", "q24h"), Fraction(1)),
    **dict.fromkeys(("bid", "q12h"), Fraction(2)),
    **dict.fromkeys(("tid", "q8h"), Fraction(3)),
    **dict.fromkeys(("qid", "q6h"), Fraction(4)),
    "q4h": Fraction(6),
    "q3h": Fraction(8),
    "q2h": Fraction(12),
    "q1h": Fraction(24),
    "qod": Fraction(1, 2),
    "wk": Fraction(1, 7),
    "mo": Fraction(1, 30),
}
_MEALS = frozenset(("C", "AC", "PC"))
"""https://hl7.org/fhir/R4/valueset-event-timing.html: at, before and after meals."""
_DAY = Fraction(24)
_WEEK = Fraction(7)
INSTRUCTIONS_MAX = 50

Amount = Callable[[Mapping[str, Any]], Fraction | None]


@dataclass(frozen=True, slots=True)
class _Step:
    """One instruction for one ingredient."""

    single: Fraction
    daily: Fraction
    per_day: Fraction
    days: Fraction | None
    is_once: bool


def intakes(
    order: Mapping[str, Any], drug: Drug, equivalents: Callable[[str], Mapping[str, Fraction]]
) -> tuple[dict[str, Intake], str]:
    """Return ingredient -> what ``order`` has the patient take of it, and why it is not known.

    ``equivalents`` are those of an ingredient. The reason is ``""`` where all is known; what could
    be computed is given all the same.
    """
    instructions = [*parts(order, "dosageInstruction"), *parts(order, "dosage")]
    if not instructions:
        return {}, "there is no dosage"
    supply = _supply_days(order)
    found: dict[str, Intake] = {}
    why = ""
    if len(instructions) > INSTRUCTIONS_MAX:
        why = f"there are more than {INSTRUCTIONS_MAX} dosage instructions"
    elif any(map(_in_words, instructions)):
        why = "how often is said in words only"
    for code, strength in drug.ingredients.items():
        known = equivalents(code)

        def amount(quantity: Mapping[str, Any], of: Any = strength, by: Any = known) -> Any:
            return administered(quantity, of, by, is_alone=len(drug.ingredients) == 1)

        groups: dict[Fraction | None, list[_Step]] = defaultdict(list)
        for instruction in instructions[:INSTRUCTIONS_MAX]:
            step = _step(instruction, amount, supply)
            if step is None:
                why = "the amount or the times of a dose cannot be computed"
            else:
                groups[number(instruction, "sequence")].append(step)
        if groups:
            found[code] = _together(groups.pop(None, []), [*groups.values()])
    return found, why


def _in_words(instruction: Mapping[str, Any]) -> bool:
    """Whether only its text says how often: one dose is judged, and no more is known."""
    words = text(instruction, "text") or text(instruction, "patientInstruction")
    return bool(words) and not part(instruction, "timing") and not _as_needed(instruction)


def _together(always: list[_Step], groups: Sequence[list[_Step]]) -> Intake:
    """Steps of one group are added; groups follow each other, and the largest counts.

    What is ``always`` taken is in no sequence: it goes beside each of them.
    """
    sums = [
        (
            sum((step.daily for step in group), Fraction(0)),
            sum((step.per_day for step in group), Fraction(0)),
            group,
        )
        for group in ([[*always, *one] for one in groups] or [always])
    ]
    daily, per_day, largest = max(sums, key=lambda one: one[0])
    lengths = [_length(group) for group in groups]
    if always and not groups:
        lengths = [_length(always)]
    days = None if None in lengths else sum((one for one in lengths if one), Fraction(0))
    if always and groups and days is not None:
        beside = _length(always)
        days = None if beside is None else max(days, beside)
    return Intake(
        single=max(step.single for _, _, group in sums for step in group),
        daily=daily,
        interval_h=_DAY / per_day if per_day else None,
        days=days,
        is_once=len(sums) == 1 and all(step.is_once for step in largest),
    )


def _length(group: Sequence[_Step]) -> Fraction | None:
    return max(_known(step.days for step in group), default=None)


def _known(values: Iterable[Fraction | None]) -> list[Fraction]:
    found = list(values)
    return [] if None in found else [one for one in found if one is not None]


def _step(instruction: Mapping[str, Any], amount: Amount, supply: Fraction | None) -> _Step | None:
    timing = part(instruction, "timing")
    repeat = part(timing, "repeat")
    days = _days(repeat)
    single = _single(instruction, amount)
    if single is None:
        rate = _hourly(instruction, amount)
        return None if rate is None else _Step(rate, rate * 24, Fraction(1), days, False)
    is_once = number(repeat, "count") == 1 and number(repeat, "period") is None
    per_day = _per_day(timing, repeat)
    if per_day is None and not timing and not _as_needed(instruction):
        is_once = True
    if is_once:
        return _Step(single, single, Fraction(1), Fraction(1), True)
    if per_day is None:
        return None
    daily = single * per_day
    cap = _cap(instruction, amount)
    return _Step(single, daily if cap is None else min(daily, cap), per_day, days or supply, False)


def _as_needed(instruction: Mapping[str, Any]) -> bool:
    return bool(instruction.get("asNeededBoolean") or instruction.get("asNeededCodeableConcept"))


def _single(instruction: Mapping[str, Any], amount: Amount) -> Fraction | None:
    """Return what is taken at one time, the most of what is given: as ordered, as calculated.

    An older FHIR has the dose beside the timing.
    """
    quantities = [
        quantity
        for place in (*parts(instruction, "doseAndRate"), instruction)
        for quantity in (part(place, "doseQuantity"), part(part(place, "doseRange"), "high"))
        if quantity
    ]
    found = [amount(one) for one in quantities]
    return max(_known(found), default=None)


def _hourly(instruction: Mapping[str, Any], amount: Amount) -> Fraction | None:
    """Return the mg of an hour that a rate such as ``100 mg/h`` gives."""
    for place in (*parts(instruction, "doseAndRate"), instruction):
        quantity = part(place, "rateQuantity")
        unit, slash, time = unit_of(quantity).partition("/")
        long = hours(Fraction(1), time)
        if quantity and slash and long:
            found = amount({"value": quantity.get("value"), "code": unit})
            return None if found is None else found / long
    return None


def _per_day(timing: Mapping[str, Any], repeat: Mapping[str, Any]) -> Fraction | None:
    """Return how many doses a day there are; less than one where they are farther apart.

    Where it is said in several ways that differ, the most counts.
    """
    days = repeat.get("dayOfWeek")
    weekdays = min(len(set(map(str, days))), 7) if isinstance(days, list) and days else 0
    share = weekdays / _WEEK if weekdays else Fraction(1)
    times = max(number(repeat, "frequency") or 0, number(repeat, "frequencyMax") or 0)
    period = hours(number(repeat, "period"), text(repeat, "periodUnit"))
    listed = _listed(repeat, is_counted=times > 0)
    coded = _coded(timing)
    if period is None:
        if listed or weekdays:
            return (listed or 1) * share
        return coded
    each = (times or Fraction(1)) * _DAY / period
    if weekdays and period > _DAY:
        return max(each, (listed or 1) * share)
    return max(each * share, listed * min(Fraction(1), _DAY / period) * share, coded or Fraction(0))


def _listed(repeat: Mapping[str, Any], *, is_counted: bool) -> Fraction:
    """Return how many times of a day are listed; meals are three where no frequency says more."""
    found = Fraction(0)
    for name in ("when", "timeOfDay"):
        listed = repeat.get(name)
        if isinstance(listed, list):
            meals = sum(one in _MEALS for one in listed if isinstance(one, str))
            found = max(found, Fraction(len(listed) + (0 if is_counted else 2 * meals)))
    return found


def _coded(timing: Mapping[str, Any]) -> Fraction | None:
    code = part(timing, "code")
    said = (*codes(code), text(code, "text").strip().lower())
    return max((_CODES[one] for one in said if one in _CODES), default=None)


def _cap(instruction: Mapping[str, Any], amount: Amount) -> Fraction | None:
    """Return what ``maxDosePerPeriod`` allows in a day."""
    found = None
    for ratio in parts(instruction, "maxDosePerPeriod"):
        most = amount(part(ratio, "numerator"))
        period = part(ratio, "denominator")
        long = hours(number(period, "value"), unit_of(period))
        if most and long:
            daily = most * _DAY / long
            found = daily if found is None else min(found, daily)
    return found


def _days(repeat: Mapping[str, Any]) -> Fraction | None:
    length = part(repeat, "boundsDuration")
    found = hours(number(length, "value"), unit_of(length))
    if found is None and (most := part(part(repeat, "boundsRange"), "high")):
        found = hours(number(most, "value"), unit_of(most))
    if found is not None:
        return found / _DAY
    bounds = part(repeat, "boundsPeriod")
    try:
        start = date.fromisoformat(text(bounds, "start")[:10])
        end = date.fromisoformat(text(bounds, "end")[:10])
    except ValueError:
        return None
    return Fraction((end - start).days + 1)


def _supply_days(order: Mapping[str, Any]) -> Fraction | None:
    supply = part(part(order, "dispenseRequest"), "expectedSupplyDuration")
    found = hours(number(supply, "value"), unit_of(supply))
    return None if found is None else found / _DAY
