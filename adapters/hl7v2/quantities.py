"""Numbers, units and ranges of v2 to Quantity, Range, Ratio and referenceRange.

HL7 v2.5.1, 2.A (NM, SN, NR, CQ, MO) and 7.4.2.7; design/hl7v2.md, section 14. Digits are kept as
sent; nothing that is no number becomes one.
"""

import re
from decimal import Decimal
from functools import lru_cache
from typing import Any

from adapters.hl7v2.codes import concept_text
from adapters.hl7v2.message import Segment, Value
from adapters.hl7v2.scene import Scene
from adapters.hl7v2.vocabulary import is_common_ucum, system_of

Json = dict[str, Any]

UCUM = "http://unitsofmeasure.org"
DIGITS_MAX = 34
_NUMBER = re.compile(r"(<=|>=|<|>|≤|≥)?\s*([+-]?)(\d*)(?:(\.)(\d*))?", re.ASCII)
_PLAIN = re.compile(r"(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
_COMPARATORS = {"≤": "<=", "≥": ">="}
# One way only to read each digit: what is no number must not be tried in every way.
_N = r"\s*([+-]?(?:\d+(?:\.\d+)?|\.\d+))\s*"
_RANGE_CHARACTERS_MAX = 200
_BETWEEN = re.compile(_N + r"(?:-|–|to|\.\.)" + _N, re.I | re.ASCII)
_LIMIT = re.compile(r"\s*(<=|>=|<|>|≤|≥)" + _N, re.ASCII)


def number_of(text: str, *, comma: bool = False) -> tuple[str, Decimal] | None:
    """Return comparator and number of an NM; None if it is none.

    Leading zeros, a leading plus and a trailing point go, ``.8`` is ``0.8``; other digits stay.

    >>> number_of("007.20"), number_of("<=.8"), number_of("1,5")
    (('', Decimal('7.20')), ('<=', Decimal('0.8')), None)
    """
    text = text.strip()
    if _PLAIN.fullmatch(text) and len(text) <= DIGITS_MAX:
        return "", Decimal(text)
    found = _NUMBER.fullmatch(text.replace(",", ".") if comma else text)
    if not found:
        return None
    comparator, sign, whole, _, fraction = found.groups()
    if not whole and not fraction:
        return None
    whole = whole.lstrip("0") or "0"
    written = f"{'-' if sign == '-' else ''}{whole}{'.' + fraction if fraction else ''}"
    if len(whole) + len(fraction or "") > DIGITS_MAX:
        return None
    comparator = comparator or ""
    return _COMPARATORS.get(comparator, comparator), Decimal(written)


def decimal_of(text: str) -> Decimal | None:
    """Return a plain number; None if it is none."""
    found = number_of(text)
    return found[1] if found and not found[0] else None


def unit_of(value: Value | None, scene: Scene) -> Json:
    """Return the unit of a Quantity: coded where it is UCUM, else as text. {} for none."""
    if value is None:
        return {}
    key = (unit_of, value.raw)
    if key not in scene.memo:
        scene.memo[key] = _unit(value, scene)
    return scene.memo[key]  # type: ignore[no-any-return]


def _unit(value: Value, scene: Scene) -> Json:
    code = value[1]
    shown = value[2] or code or value[9]
    for first in (1, 4):
        named = value[first + 2]
        sent = value[first]
        if not sent:
            continue
        is_ucum = bool(named) and system_of(named, scene.sender) == UCUM
        if (is_ucum and " " not in sent) or is_common_ucum(sent):
            return {"unit": shown or sent, "system": UCUM, "code": sent}
    shown = shown or concept_text(value)
    return {"unit": shown} if shown else {}


def quantity(number: Decimal, unit: Json, comparator: str = "") -> Json:
    """Return a Quantity."""
    made: Json = {"value": number}
    if comparator:
        made["comparator"] = comparator
    made.update(unit)
    return made


def structured(value: Value, unit: Json) -> tuple[str, Any]:
    """Return SN as the type of the value and the value: Quantity, Range, Ratio, else text."""
    comparator, left, separator, right = value[1], value[2], value[3], value[4]
    first, second = decimal_of(left), decimal_of(right)
    comparator = _COMPARATORS.get(comparator, "" if comparator == "=" else comparator)
    known = comparator in ("", "<", "<=", ">", ">=")
    if first is not None:
        if known and not separator and not right:
            return "Quantity", quantity(first, unit, comparator)
        if separator == "+" and not right and not comparator:
            return "Quantity", quantity(first, unit, ">=")
        if second is not None and not (known and comparator):
            if separator == "-" and first <= second:
                return "Range", {"low": quantity(first, unit), "high": quantity(second, unit)}
            if separator in (":", "/"):
                return "Ratio", {
                    "numerator": quantity(first, unit),
                    "denominator": quantity(second, unit),
                }
    said = " ".join(part for part in (value[1], left, separator, right) if part)
    return "String", f"{said} {unit['unit']}" if unit else said


def number_range(value: Value, unit: Json) -> Json | None:
    """Return NR as a Range."""
    made = {}
    for place, text in (("low", value[1]), ("high", value[2])):
        number = decimal_of(text)
        if number is not None:
            made[place] = quantity(number, unit)
    return made or None


def composite(value: Value, scene: Scene) -> Json | None:
    """Return CQ as a Quantity."""
    found = number_of(value[1])
    if not found:
        return None
    unit = unit_of(value.subs(2), scene) if len(value.parts) > 1 else {}
    return quantity(found[1], unit, found[0])


def money(value: Value, scene: Scene) -> Json | None:
    """Return CP or MO as Money."""
    amount = value.subs(1) if value.sub(1, 2) else value
    number = decimal_of(value.sub(1, 1))
    if number is None:
        scene.note("number-invalid", "A number is expected.")
        return None
    made: Json = {"value": number}
    currency = amount[2].upper() if amount is not value else value[2].upper()
    if re.fullmatch(r"[A-Z]{3}", currency):
        made["currency"] = currency
    return made


def reference_range(obx: Segment, unit: Json) -> Json | None:
    """Return OBX-7: the text as sent, and its limits where it is a plain range."""
    values = obx.values(7)
    text = " ".join(value.text.strip() for value in values).strip()
    if not text:
        return None
    made: Json = {}
    for place, limit in _limits(text) if len(text) <= _RANGE_CHARACTERS_MAX else ():
        made[place] = quantity(limit, unit)
    made["text"] = text
    return made


@lru_cache(maxsize=1024)
def _limits(text: str) -> tuple[tuple[str, Decimal], ...]:
    if between := _BETWEEN.fullmatch(text):
        low, high = decimal_of(between.group(1)), decimal_of(between.group(2))
        if low is not None and high is not None and low <= high:
            return (("low", low), ("high", high))
    elif limit := _LIMIT.fullmatch(text):
        number = decimal_of(limit.group(2))
        if number is not None:
            return (("high" if limit.group(1)[0] in "<≤" else "low", number),)
    return ()
