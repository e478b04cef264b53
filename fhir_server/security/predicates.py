"""Whether a document meets a predicate, as MongoDB would judge it; for documents not yet written.

https://www.mongodb.com/docs/manual/reference/operator/query/; a property test holds this to the
verdict of MongoDB. An operator that is not known here matches nothing: access is never guessed.
"""

from collections.abc import Callable, Mapping
from typing import Any

import re2 as re

from fhir_server.security.plan import Filter


def allows(predicate: Filter, document: Mapping[str, Any]) -> bool:
    """Whether ``document`` meets ``predicate``."""
    return all(_condition(name, wanted, document) for name, wanted in predicate.items())


def _condition(name: str, wanted: Any, document: Any) -> bool:
    if name == "$and":
        return all(allows(one, document) for one in wanted)
    if name == "$or":
        return any(allows(one, document) for one in wanted)
    if name == "$nor":
        return not any(allows(one, document) for one in wanted)
    if name.startswith("$"):
        raise UnknownOperator(name)
    values = _values(document, name.split("."))
    if isinstance(wanted, Mapping) and any(key.startswith("$") for key in wanted):
        return all(_operator(key, value, values, wanted) for key, value in wanted.items())
    return _equals(wanted, values)


class UnknownOperator(Exception):
    """A predicate has an operator that is not judged here; a fault of ours, never of a client."""


def _values(element: Any, path: list[str]) -> list[Any]:
    """Return what stands at ``path``: each value, and each list both as such and by its items."""
    if not path:
        return [element, *(element if isinstance(element, list) else ())]
    if isinstance(element, list):
        return [
            found for one in element if isinstance(one, Mapping) for found in _values(one, path)
        ]
    if not isinstance(element, Mapping) or path[0] not in element:
        return []
    return _values(element[path[0]], path[1:])


def _equals(wanted: Any, values: list[Any]) -> bool:
    return wanted in values or (wanted is None and not values)


def _operator(name: str, wanted: Any, values: list[Any], beside: Mapping[str, Any]) -> bool:
    judge = _OPERATORS.get(name)
    if judge is None:
        raise UnknownOperator(name)
    return judge(wanted, values)


def _compared(holds: Callable[[Any, Any], bool]) -> Callable[[Any, list[Any]], bool]:
    def judge(wanted: Any, values: list[Any]) -> bool:
        return any(type(one) is type(wanted) and holds(one, wanted) for one in values)

    return judge


def _element(wanted: Any, values: list[Any]) -> bool:
    items = [item for one in values if isinstance(one, list) for item in one]
    if any(name.startswith("$") and name not in _LOGICAL for name in wanted):
        return any(
            all(_operator(name, value, [item], wanted) for name, value in wanted.items())
            for item in items
        )
    return any(isinstance(item, Mapping) and allows(wanted, item) for item in items)


_LOGICAL = ("$and", "$or", "$nor")


def _negated(wanted: Any, values: list[Any]) -> bool:
    return not all(_operator(key, value, values, wanted) for key, value in wanted.items())


_OPERATORS: Mapping[str, Callable[[Any, list[Any]], bool]] = {
    "$eq": _equals,
    "$ne": lambda wanted, values: not _equals(wanted, values),
    "$in": lambda wanted, values: any(_equals(one, values) for one in wanted),
    "$nin": lambda wanted, values: not any(_equals(one, values) for one in wanted),
    "$exists": lambda wanted, values: bool(values) == bool(wanted),
    "$gt": _compared(lambda one, other: one > other),
    "$gte": _compared(lambda one, other: one >= other),
    "$lt": _compared(lambda one, other: one < other),
    "$lte": _compared(lambda one, other: one <= other),
    "$elemMatch": _element,
    "$not": _negated,
    "$regex": lambda wanted, values: any(
        isinstance(one, str) and re.search(wanted, one) is not None for one in values
    ),
}
