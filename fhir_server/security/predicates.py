"""Whether a document meets a predicate, as MongoDB would judge it; for documents not yet written.

https://www.mongodb.com/docs/manual/reference/operator/query/; a property test holds this to the
verdict of MongoDB. An operator that is not known here is never guessed: a scope whose predicate has
one is not granted (:func:`is_known`), and to judge by it is a fault of ours.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

import re2 as re

from fhir_server.security.plan import Filter

_LOGICAL = ("$and", "$or", "$nor")
_MICROSECONDS = 1000  # MongoDB keeps milliseconds


class UnknownOperator(Exception):
    """A predicate has an operator that is not judged here; a fault of ours, never of a client."""


def allows(predicate: Filter, document: Mapping[str, Any]) -> bool:
    """Whether ``document`` meets ``predicate``."""
    return all(_condition(name, wanted, document) for name, wanted in predicate.items())


def is_known(predicate: Filter) -> bool:
    """Whether :func:`allows` can judge by ``predicate``."""
    return all(
        all(map(is_known, wanted)) if name in _LOGICAL else _is_judged(name, wanted)
        for name, wanted in predicate.items()
    )


def _is_judged(name: str, wanted: Any) -> bool:
    if name.startswith("$"):
        return False
    if not isinstance(wanted, Mapping):
        return _is_plain(wanted)
    return all(_is_known_operator(key, value) for key, value in wanted.items())


def _is_known_operator(name: str, wanted: Any) -> bool:
    if name == "$elemMatch":
        return (_is_of_values(wanted) and _is_judged("", wanted)) or is_known(wanted)
    if name == "$not":
        return isinstance(wanted, Mapping) and _is_judged("", wanted)
    if name in ("$in", "$nin"):
        return all(map(_is_plain, wanted))
    return name in _OPERATORS and _is_plain(wanted)


def _is_plain(value: Any) -> bool:
    """Whether ``value`` is a scalar. What equals ``null`` depends on what is missing where."""
    return isinstance(value, str | bool | int | float | Decimal | datetime)


def _is_of_values(wanted: Mapping[str, Any]) -> bool:
    """Whether ``wanted``, of ``$elemMatch``, is about the elements, not about their members."""
    return all(name.startswith("$") and name not in _LOGICAL for name in wanted)


def _condition(name: str, wanted: Any, document: Any) -> bool:
    if name == "$and":
        return all(allows(one, document) for one in wanted)
    if name == "$or":
        return any(allows(one, document) for one in wanted)
    if name == "$nor":
        return not any(allows(one, document) for one in wanted)
    if name.startswith("$"):
        raise UnknownOperator(name)
    return _holds(wanted, _leaves(document, name.split(".")))


def _holds(wanted: Any, leaves: list[Any]) -> bool:
    """Whether what stands at a path meets ``wanted``, a value or operators."""
    if isinstance(wanted, Mapping) and any(key.startswith("$") for key in wanted):
        return all(_operator(key, value, leaves) for key, value in wanted.items())
    return _equals(wanted, leaves)


def _leaves(element: Any, path: list[str]) -> list[Any]:
    """Return what stands at ``path``, through lists on the way; a list at its end as one."""
    if not path:
        return [element]
    if isinstance(element, list):
        return [
            found for one in element if isinstance(one, Mapping) for found in _leaves(one, path)
        ]
    if not isinstance(element, Mapping) or path[0] not in element:
        return []
    return _leaves(element[path[0]], path[1:])


def _values(leaves: list[Any]) -> Iterator[Any]:
    """Yield ``leaves``, each list both as such and by its items."""
    for leaf in leaves:
        yield leaf
        if isinstance(leaf, list):
            yield from leaf


def _comparable(value: Any) -> tuple[str, Any]:
    """Return the kind of ``value``, and what compares as it does; kinds do not compare."""
    if type(value) is str:  # as nearly all are
        return "str", value
    if isinstance(value, bool):
        return "boolean", value
    if isinstance(value, int | float | Decimal):
        return "number", value
    if isinstance(value, datetime):
        return "date", value.replace(microsecond=value.microsecond // _MICROSECONDS * _MICROSECONDS)
    to_decimal = getattr(value, "to_decimal", None)  # the driver's own, where it comes from there
    if to_decimal is not None:
        return "number", to_decimal()
    return type(value).__name__, value


def _equals(wanted: Any, leaves: list[Any]) -> bool:
    if wanted is None:
        return not leaves or any(one is None for one in _values(leaves))
    compared = _comparable(wanted)
    return any(_comparable(one) == compared for one in _values(leaves))


def _operator(name: str, wanted: Any, leaves: list[Any]) -> bool:
    judge = _OPERATORS.get(name)
    if judge is None:
        raise UnknownOperator(name)
    return judge(wanted, leaves)


def _compared(holds: Callable[[Any, Any], bool]) -> Callable[[Any, list[Any]], bool]:
    def judge(wanted: Any, leaves: list[Any]) -> bool:
        kind, bound = _comparable(wanted)
        found = map(_comparable, _values(leaves))
        return any(own == kind and holds(one, bound) for own, one in found)

    return judge


def _in(wanted: Iterable[Any], leaves: list[Any]) -> bool:
    found = [_comparable(one) for one in _values(leaves)]  # once: there may be many wanted
    return any(_equals(one, leaves) if one is None else _comparable(one) in found for one in wanted)


def _element(wanted: Any, leaves: list[Any]) -> bool:
    """A list inside a list is one element, whose own are not looked at."""
    items = [item for one in leaves if isinstance(one, list) for item in one]
    if _is_of_values(wanted):
        return any(_holds(wanted, [item]) for item in items if not isinstance(item, list))
    return any(isinstance(item, Mapping) and allows(wanted, item) for item in items)


def _matches(wanted: str, leaves: list[Any]) -> bool:
    found = (one for one in _values(leaves) if isinstance(one, str))
    return any(re.search(wanted, one) is not None for one in found)


_OPERATORS: Mapping[str, Callable[[Any, list[Any]], bool]] = {
    "$eq": _equals,
    "$ne": lambda wanted, leaves: not _equals(wanted, leaves),
    "$in": _in,
    "$nin": lambda wanted, leaves: not _in(wanted, leaves),
    "$exists": lambda wanted, leaves: bool(leaves) == bool(wanted),
    "$gt": _compared(lambda one, other: one > other),
    "$gte": _compared(lambda one, other: one >= other),
    "$lt": _compared(lambda one, other: one < other),
    "$lte": _compared(lambda one, other: one <= other),
    "$elemMatch": _element,
    "$not": lambda wanted, leaves: not _holds(wanted, leaves),
    "$regex": _matches,
}
