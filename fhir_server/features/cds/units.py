"""What is taken at one time -> mg of an ingredient. Nothing is guessed: an unknown unit is none.

https://ucum.org/ucum; exact, so that 0.5 g, 500 mg and 500000 ug are one amount.
"""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from fhir_server.features.cds.drug import Strength
from fhir_server.features.cds.elements import number, text

_MASS = {
    "kg": Fraction(10**6),
    "g": Fraction(1000),
    "gram": Fraction(1000),
    "grams": Fraction(1000),
    "mg": Fraction(1),
    "milligram": Fraction(1),
    "milligrams": Fraction(1),
    **dict.fromkeys(("ug", "mcg", "µg", "μg", "microgram", "micrograms"), Fraction(1, 1000)),
    "ng": Fraction(1, 10**6),
}
_VOLUME = {"mL": Fraction(1), "ml": Fraction(1), "L": Fraction(1000), "l": Fraction(1000)}
_COUNTED = frozenset(
    "{tbl} {tablet} {cap} {capsule} {pill} {puff} {actuat} {dose} {unit} 1 tablet tablets tab tabs "
    "tbl capsule capsules cap caps pill pills puff puffs actuation actuations".split()
)
_EQUIVALENT = {
    **dict.fromkeys(("[iU]", "[IU]", "iU", "IU", "iu", "unt", "[USP'U]", "unit", "units"), "[iU]"),
    **dict.fromkeys(("meq", "mEq"), "meq"),
    "mmol": "mmol",
}
_HOURS = {
    "s": Fraction(1, 3600),
    "min": Fraction(1, 60),
    "h": Fraction(1),
    "d": Fraction(24),
    "wk": Fraction(168),
    "mo": Fraction(720),
    "a": Fraction(8760),
}


def hours(value: Fraction | None, unit: str) -> Fraction | None:
    """Return a length of time in hours; ``unit`` is UCUM's, ``mo`` being 30 days."""
    if value is None or unit not in _HOURS or value <= 0:
        return None
    return value * _HOURS[unit]


def unit_of(quantity: Mapping[str, Any]) -> str:
    """Return the unit of a Quantity: its code, else its text."""
    return text(quantity, "code") or text(quantity, "unit").strip()


def mass(value: Fraction, unit: str) -> Fraction | None:
    """Return ``value`` of a unit of mass in mg, or ``None`` for another unit."""
    factor = _MASS.get(unit) or _MASS.get(unit.lower())
    return None if factor is None else value * factor


def administered(
    quantity: Mapping[str, Any],
    strength: Strength | None,
    equivalents: Mapping[str, Fraction],
    *,
    is_alone: bool,
) -> Fraction | None:
    """Return how many mg of an ingredient a Quantity of a drug holds, or ``None``.

    ``strength`` is that of the ingredient in the drug. ``equivalents`` are units -> how many of
    them a mg is. A mass is that of the ingredient only where it ``is_alone``.
    """
    value, unit = number(quantity, "value"), unit_of(quantity)
    if value is None or value < 0 or _is_unsure(quantity):
        return None
    if (found := mass(value, unit)) is not None:
        return found if is_alone else None
    if unit in _EQUIVALENT:
        return _converted(value, _EQUIVALENT[unit], equivalents)
    if strength is None:
        return None
    if unit in _VOLUME and strength.per == "mL":
        return _converted(value * _VOLUME[unit] * strength.amount, strength.unit, equivalents)
    if is_counted(unit) and strength.per == "":
        return _converted(value * strength.amount, strength.unit, equivalents)
    return None


def is_counted(unit: str) -> bool:
    """Whether ``unit`` counts things such as tablets."""
    return unit in _COUNTED or unit.lower() in _COUNTED


def _is_unsure(quantity: Mapping[str, Any]) -> bool:
    """Whether people read another amount than machines: ``g`` shown for the code ``mg``."""
    shown, code = text(quantity, "unit").strip(), text(quantity, "code")
    if text(quantity, "comparator").startswith(">"):
        return True
    if not shown or not code:
        return False
    kinds = (_kind(shown), _kind(code))
    is_per = ("/" in shown) != ("/" in code) and _kind(shown.partition("/")[0]) is not None
    return is_per or (None not in kinds and kinds[0] != kinds[1])


def _kind(unit: str) -> tuple[str, Fraction] | None:
    """Return what a unit measures, and how much of it, if it is known."""
    if (found := mass(Fraction(1), unit)) is not None:
        return "mass", found
    if unit in _VOLUME:
        return "volume", _VOLUME[unit]
    return ("count", Fraction(1)) if is_counted(unit) else None


def _converted(value: Fraction, unit: str, equivalents: Mapping[str, Fraction]) -> Fraction | None:
    if unit == "mg":
        return value
    return value / equivalents[unit] if equivalents.get(unit) else None
