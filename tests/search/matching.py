"""What MongoDB would answer: the filter operators that the search compiler uses, in memory.

https://www.mongodb.com/docs/manual/reference/operator/query/
"""

import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from fhir_server.search.index import index
from fhir_server.search.parameters import ParameterTable
from fhir_server.search.parse import Given, parse
from fhir_server.search.plan import plan
from fhir_server.search.wanted import Kin, Wanted

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)

_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "$gte": lambda value, bound: value >= bound,
    "$gt": lambda value, bound: value > bound,
    "$lte": lambda value, bound: value <= bound,
    "$lt": lambda value, bound: value < bound,
}


def document(resource: dict[str, Any], table: ParameterTable) -> dict[str, Any]:
    """Return the fields of a document that searches look at."""
    keys = index(resource, table).keys
    return {"_id": resource.get("id", "x"), "last_updated": NOW, "keys": keys}


def found_by(table: ParameterTable, resource: dict[str, Any], *parameters: tuple[str, str]) -> bool:
    """Return whether the search ``parameters`` finds ``resource`` where nothing else is stored."""
    known: dict[Wanted, Any] = {}
    while True:
        query = parse(
            resource["resourceType"], parameters, table, count_default=10, given=Given(NOW, known)
        )
        if not query.wanted:
            break
        known |= {one: [one.id] if isinstance(one, Kin) else None for one in query.wanted}
    return matches(plan(query, table).filter, document(resource, table))


def matches(filter: dict[str, Any], document: Any) -> bool:
    """Return whether ``document`` meets ``filter``."""
    return all(_meets(document, name, condition) for name, condition in filter.items())


def _meets(document: Any, name: str, condition: Any) -> bool:
    match name:
        case "$and":
            return all(matches(one, document) for one in condition)
        case "$or":
            return any(matches(one, document) for one in condition)
        case "$nor":
            return not any(matches(one, document) for one in condition)
    values = _values(document, name.split("."))
    if isinstance(condition, dict):
        return all(_holds(values, operator, bound) for operator, bound in condition.items())
    return condition in _with_items(values)


def _values(document: Any, steps: Sequence[str]) -> list[Any]:
    """Return what lies at the dotted path, through arrays on the way, as MongoDB does."""
    if not steps:
        return [document]
    if isinstance(document, list):
        return [value for item in document for value in _values(item, steps)]
    if not isinstance(document, dict) or steps[0] not in document:
        return []
    return _values(document[steps[0]], steps[1:])


def _with_items(values: list[Any]) -> list[Any]:
    return [*values, *(item for value in values if isinstance(value, list) for item in value)]


def _holds(values: list[Any], operator: str, bound: Any) -> bool:
    items = _with_items(values)
    match operator:
        case "$exists":
            return bool(values) is bound
        case "$in":
            return any(item in bound for item in items)
        case "$regex":
            return any(isinstance(item, str) and re.search(bound, item) for item in items)
        case "$geoWithin":
            return any(_is_near(item, *bound["$centerSphere"]) for item in items if item)
        case "$elemMatch":
            return any(
                _item_meets(item, bound)
                for value in values
                if isinstance(value, list)
                for item in value
            )
    compare = _COMPARISONS[operator]
    return any(type(item) is type(bound) and compare(item, bound) for item in items)


def _is_near(point: Any, centre: list[float], radians: float) -> bool:
    """Return whether a GeoJSON point is within ``radians`` of ``centre`` (haversine)."""
    longitude, latitude = map(math.radians, point["coordinates"])
    other_longitude, other_latitude = map(math.radians, centre)
    half = math.sin((latitude - other_latitude) / 2) ** 2 + math.cos(latitude) * math.cos(
        other_latitude
    ) * (math.sin((longitude - other_longitude) / 2) ** 2)
    return 2 * math.asin(min(1.0, math.sqrt(half))) <= radians


def _item_meets(item: Any, condition: dict[str, Any]) -> bool:
    if all(name in _COMPARISONS for name in condition):
        return all(_holds([item], name, bound) for name, bound in condition.items())
    return matches(condition, item)
