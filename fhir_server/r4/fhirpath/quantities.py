"""Quantities: numbers with a unit of UCUM, of the calendar, or of no system that is known.

http://hl7.org/fhirpath/N1/#quantity, https://hl7.org/fhir/R4/fhirpath.html#quantity
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

from fhir_server.r4.fhirpath.arithmetic import EXACT
from fhir_server.r4.fhirpath.grammar import calendar_unit
from fhir_server.r4.ucum import Units

# Units of the calendar that always take as long as one of UCUM.
_DEFINITE = {"week": "wk", "day": "d", "hour": "h", "minute": "min", "second": "s"}
_DEFINITE["millisecond"] = "ms"
# Those that are about as long: equivalent, and never equal.
_ROUGHLY = {**_DEFINITE, "year": "a", "month": "mo"}
_CALENDAR = {code: word for word, code in _DEFINITE.items()}
_MONTHS = {"year": 12, "month": 1}
_TEXT = re.compile(r"([+-]?[0-9]+(?:\.[0-9]+)?)\s*(?:'([^']+)'|([a-z]+))?")
_NUMBER_DIGITS_MAX = 40


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number and its unit.

    ``unit`` is a code of UCUM (``1`` for none), or with ``calendar`` a word of the calendar, in the
    singular. With ``system`` it is a code of another system, or a text (``system`` is then ``?``):
    such a quantity is compared with those of the same unit only.
    """

    value: Decimal
    unit: str
    calendar: bool = False
    system: str = ""

    def __str__(self) -> str:
        if self.calendar:
            return f"{self.value:f} {self.unit}{'' if self.value == 1 else 's'}"
        return f"{self.value:f} '{self.unit}'"

    def like(self, value: Decimal) -> "Quantity":
        """Return a quantity of the same unit."""
        return Quantity(value, self.unit, self.calendar, self.system)


def quantity(value: Decimal, unit: str, *, calendar: bool) -> Quantity:
    """Return the quantity of a literal: ``1 'month'`` is of the calendar as ``1 month`` is."""
    word = calendar_unit(unit)
    return Quantity(value, word or unit, calendar or bool(word))


@lru_cache(maxsize=1024)
def parsed(text: str) -> Quantity | None:
    """Return the quantity that ``text`` writes (``4 days``, ``5.1 'mg'``, ``5``), or ``None``."""
    found = _TEXT.fullmatch(text) if len(text) <= 2 * _NUMBER_DIGITS_MAX else None
    if found is None:
        return None
    number, code, word = found.groups()
    if word and not calendar_unit(word):
        return None
    return quantity(Decimal(number), code or word or "1", calendar=bool(word))


def calendar_unit_of(amount: Quantity) -> str:
    """Return the word of the calendar that an amount of time has, or ``""``.

    ``'d'`` is a day. The year and the month of UCUM are no years and months of a calendar.
    """
    if amount.system:
        return ""
    return amount.unit if amount.calendar else _CALENDAR.get(amount.unit, "")


Canonical = tuple[str, Decimal]
"""A quantity in its base unit: what the unit is, and how many."""


def canonical(one: Quantity, units: Units, *, roughly: bool = False) -> Canonical:
    """Return ``one`` in its base unit: two of the same are compared by their numbers.

    ``roughly`` makes years and months of the calendar those of UCUM.
    """
    if one.system:
        return f"{one.system}|{one.unit}", one.value
    code = one.unit
    if one.calendar:
        if one.unit in _MONTHS and not roughly:
            return "calendar", EXACT.multiply(one.value, Decimal(_MONTHS[one.unit]))
        code = _ROUGHLY[one.unit]
    scale = units.scale(code)
    if scale is None:
        return f"'{code}'", one.value
    return scale.base, scale.canonical(one.value)


def product(left: Quantity, right: Quantity, units: Units, *, divided: bool) -> Quantity | None:
    """Return ``left`` times ``right``, or ``left`` by ``right``, in base units where needed."""
    if left.system or right.system or (divided and right.value == 0):
        return None
    if right.unit == "1":
        return left.like(_computed(left.value, right.value, divided))
    if left.unit == "1" and not divided:
        return right.like(_computed(left.value, right.value, divided))
    (one, first), (other, second) = canonical(left, units), canonical(right, units)
    if "calendar" in (one, other) or "'" in one + other:
        return None
    return Quantity(_computed(first, second, divided), _combined(one, other, divided))


def _computed(left: Decimal, right: Decimal, divided: bool) -> Decimal:
    return EXACT.divide(left, right) if divided else EXACT.multiply(left, right)


_FACTOR = re.compile(r"(.*?[^0-9\-])(-?[0-9]+)?")


def _combined(left: str, right: str, divided: bool) -> str:
    """Return the base unit of a product: ``m`` and ``m`` make ``m2``."""
    powers: dict[str, int] = {}
    for base, sign in ((left, 1), (right, -1 if divided else 1)):
        for factor in base.split(".") if base != "1" else ():
            found = _FACTOR.fullmatch(factor)
            assert found is not None  # a base unit is made of names and exponents
            powers[found[1]] = powers.get(found[1], 0) + sign * int(found[2] or 1)
    return (
        ".".join(f"{name}{'' if each == 1 else each}" for name, each in powers.items() if each)
        or "1"
    )
