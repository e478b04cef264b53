"""A dose that is too high -> the same order with the most that is right. Pure.

design/cds.md, section 6. Suggested only where exactly one value is to be changed, to one that a
prescriber would write, and where the order is in order then: it is judged again.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

from fhir_server.features.cds.chart import Question
from fhir_server.features.cds.drug import RANK, Finding
from fhir_server.features.cds.elements import number, part, text
from fhir_server.features.cds.knowledge import Knowledge
from fhir_server.features.cds.resolve import resolve
from fhir_server.features.cds.screen import screen
from fhir_server.features.cds.units import is_counted, unit_of

Resource = Mapping[str, Any]
_DIGITS_MAX = 3
# Beside one of these the amount is not all there is, or it is said a second time.
_OTHERS = ("text", "patientInstruction", "maxDosePerPeriod", "maxDosePerAdministration")
_AMOUNTS = ("doseRange", "rateRatio", "rateRange", "rateQuantity")


@dataclass(frozen=True, slots=True)
class Change:
    """The whole ``order`` with one value changed, and the ``amount`` in words: ``500 mg``."""

    order: Resource
    amount: str


def dose_changes(
    findings: Iterable[Finding],
    asked: Question,
    drafts: Mapping[str, Resource],
    resources: Mapping[str, Resource],
    knowledge: Knowledge,
) -> dict[str, Change]:
    """Return the change that solves each of ``findings``, by the finding's key, where one does.

    ``drafts`` are the orders of ``asked`` as they came, and ``resources`` Medications, both by
    ``Type/id``.
    """
    found = {}
    for one in findings:
        if one.scale is None or len(one.orders) != 1 or RANK[one.severity] < RANK["serious"]:
            continue
        (id,) = one.orders
        change = changed(drafts[id], one.scale) if id in drafts else None
        if change is not None and _is_right(change, id, asked, resources, knowledge):
            found[one.key] = change
    return found


def changed(order: Resource, scale: Fraction) -> Change | None:
    """Return ``order`` with its one dose multiplied by ``scale``; ``None`` where there is not one
    dose, or what it comes to is no amount that is written: 1333.3 mg, a third of a tablet."""
    instructions = order.get("dosageInstruction")
    if not isinstance(instructions, list) or len(instructions) != 1:
        return None
    (instruction,) = instructions
    if not isinstance(instruction, dict) or any(name in instruction for name in _OTHERS):
        return None
    doses = instruction.get("doseAndRate")
    place = instruction
    if doses is not None:
        if not isinstance(doses, list) or len(doses) != 1 or "doseQuantity" in instruction:
            return None
        (place,) = doses
    if not isinstance(place, dict) or any(name in place for name in _AMOUNTS):
        return None
    quantity = part(place, "doseQuantity")
    value = _scaled(quantity, scale)
    if value is None:
        return None
    dose = {**place, "doseQuantity": {**quantity, "value": value}}
    whole = dose if doses is None else {**instruction, "doseAndRate": [dose]}
    unit = text(quantity, "unit") or text(quantity, "code").strip("{}")
    return Change({**order, "dosageInstruction": [whole]}, f"{value} {unit}")


def _scaled(quantity: Resource, scale: Fraction) -> int | Decimal | None:
    """Return the value of ``quantity`` times ``scale``, if it is whole, or has few digits."""
    value = number(quantity, "value")
    if value is None or not quantity.keys() <= {"value", "unit", "system", "code"}:
        return None
    found = value * scale
    if found <= 0:
        return None
    if found.denominator == 1 and len(str(found.numerator).rstrip("0")) <= _DIGITS_MAX:
        return int(found)
    if is_counted(unit_of(quantity)):
        return None  # tablets are not broken by us
    exact = Decimal(found.numerator) / Decimal(found.denominator)
    is_exact = Fraction(exact) == found and len(exact.normalize().as_tuple().digits) <= _DIGITS_MAX
    return exact.normalize() if is_exact and exact > Decimal("0.0001") else None


def _is_right(
    change: Change,
    id: str,
    asked: Question,
    resources: Mapping[str, Resource],
    knowledge: Knowledge,
) -> bool:
    """Whether the changed order has no serious finding about its dose, and all of it is known."""
    drug = resolve(change.order, resources, knowledge)
    ordered = tuple(drug if one.id == id else one for one in asked.ordered)
    found = screen(replace(asked, ordered=ordered), knowledge, ("dose",))
    is_loud = any(
        id in one.orders and RANK[one.severity] >= RANK["serious"] for one in found.findings
    )
    return not is_loud and all(one.subject != drug.display for one in found.not_checked)
