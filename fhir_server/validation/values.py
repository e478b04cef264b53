"""Fixed values, patterns, and limits of values.

https://hl7.org/fhir/R4/elementdefinition.html#interpretation
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from fhir_server.outcome import FhirError, shown
from fhir_server.r4.dates import date_range
from fhir_server.validation.running import Check, Item, Run


def is_equal(value: Any, wanted: Any) -> bool:
    """Return whether two JSON values are the same, numbers by their value."""
    if isinstance(wanted, dict):
        return (
            isinstance(value, dict)
            and value.keys() == wanted.keys()
            and all(is_equal(value[name], one) for name, one in wanted.items())
        )
    if isinstance(wanted, list):
        return (
            isinstance(value, list)
            and len(value) == len(wanted)
            and all(is_equal(*pair) for pair in zip(value, wanted, strict=True))
        )
    return _is_same(value, wanted)


def has_pattern(value: Any, wanted: Any) -> bool:
    """Return whether ``value`` has all that the pattern ``wanted`` has, and perhaps more."""
    if isinstance(wanted, dict):
        return isinstance(value, dict) and all(
            name in value and has_pattern(value[name], one) for name, one in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(value, list) and all(
            any(has_pattern(one, part) for one in value) for part in wanted
        )
    return _is_same(value, wanted)


def _is_same(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, bool) or isinstance(value, bool):
        return value is wanted
    if isinstance(wanted, int | float | Decimal):
        return isinstance(value, int | float | Decimal) and Decimal(str(value)) == Decimal(
            str(wanted)
        )
    return bool(value == wanted)


def brief(wanted: Any) -> str:
    """Return a value for a message, as short as it can be understood."""
    if isinstance(wanted, dict):
        codings = wanted.get("coding")
        if isinstance(codings, list) and codings and isinstance(codings[0], dict):
            return " and ".join(brief(one) for one in codings[:3])
        if isinstance(wanted.get("code"), str):
            return f"{wanted.get('system', '')}#{wanted['code']}".lstrip("#")
        return shown(", ".join(f"{name} {brief(one)}" for name, one in list(wanted.items())[:4]))
    return shown(wanted)


def fixed_check(element: Mapping[str, Any], where: str) -> list[Check]:
    """Return the checks of ``fixed[x]`` and ``pattern[x]`` of an element."""
    checks: list[Check] = []
    for name, wanted in element.items():
        if name.startswith("fixed"):
            checks.append(_comparing(wanted, is_equal, "fixed at", where))
        elif name.startswith("pattern"):
            checks.append(_comparing(wanted, has_pattern, "expected to have", where))
    return checks


def _comparing(wanted: Any, is_right: Any, how: str, where: str) -> Check:
    def check(run: Run, item: Item) -> None:
        if not is_right(item.value, wanted):
            found = "has no value" if item.value is None else f"is {brief(item.value)}"
            text = f"{item.name} {found}; by {where} it is {how} {brief(wanted)}."
            run.add("value", text, item)

    return check


def limit_checks(element: Mapping[str, Any], where: str) -> list[Check]:
    """Return the checks of ``minValue[x]``, ``maxValue[x]`` and ``maxLength``."""
    checks: list[Check] = []
    for name, limit in element.items():
        if name.startswith(("minValue", "maxValue")):
            checks.append(_limiting(limit, name.startswith("min"), where))
        elif name == "maxLength" and isinstance(limit, int):
            checks.append(_length(limit, where))
    return checks


def _limiting(limit: Any, is_low: bool, where: str) -> Check:
    word = "least" if is_low else "most"

    def check(run: Run, item: Item) -> None:
        order = _order(item.value, limit)
        if order is not None and (order < 0 if is_low else order > 0):
            text = f"{item.name} is {brief(item.value)}; {where} wants at {word} {brief(limit)}."
            run.add("value", text, item)

    return check


def _order(value: Any, limit: Any) -> int | None:
    """Return -1, 0 or 1 as ``value`` is below, at or above ``limit``; ``None`` if neither."""
    if isinstance(limit, dict):  # a Quantity, comparable in the same unit only
        if not isinstance(value, dict) or value.get("code") != limit.get("code"):
            return None
        return _order(value.get("value"), limit.get("value"))
    if isinstance(value, bool) or isinstance(limit, bool):
        return None
    if isinstance(limit, int | float | Decimal):
        if not isinstance(value, int | float | Decimal):
            return None
        left, right = Decimal(str(value)), Decimal(str(limit))
        return (left > right) - (left < right)
    if isinstance(limit, str) and isinstance(value, str):
        try:
            (low, high), (from_, to) = date_range(value), date_range(limit)
        except FhirError:
            return None
        return 1 if low >= to else -1 if high <= from_ else 0
    return None


def _length(most: int, where: str) -> Check:
    def check(run: Run, item: Item) -> None:
        if isinstance(item.value, str) and len(item.value) > most:
            text = f"{item.name} has {len(item.value):,} characters; {where} allows {most:,}."
            run.add("too-long", text, item)

    return check
