"""Issues in the order of the document, and where in its text an expression is."""

from collections.abc import Sequence
from typing import Any

import re2

from fhir_server.outcome import Issue

_STEP = re2.compile(r"([^.\[\]]+)((?:\[[0-9]+\])?)")
_SEVERITIES = {"fatal": 0, "error": 0, "warning": 1, "information": 2}


def in_order(issues: Sequence[Issue], resource: Any) -> tuple[Issue, ...]:
    """Return ``issues`` without repetitions, by the place of each in ``resource``."""
    unique = list(dict.fromkeys(issues))
    if len(unique) < 2:
        return tuple(unique)
    return tuple(
        sorted(
            unique,
            key=lambda issue: (
                place_of(issue.expression, resource),
                _SEVERITIES.get(issue.severity, 3),
            ),
        )
    )


def steps_of_expression(expression: str) -> list[tuple[str, int | None]]:
    """Return the steps below the resource: ``[("name", 0), ("family", None)]``."""
    steps = []
    for name, index in _STEP.findall(expression)[1:]:
        steps.append((name, int(index[1:-1]) if index else None))
    return steps


def member_of(value: dict[str, Any], name: str) -> str | None:
    """Return the JSON member that has the element ``name``, whatever type a choice has there."""
    if name in value or f"_{name}" in value:
        return name if name in value else f"_{name}"
    for key in value:
        plain = key.removeprefix("_")
        if plain.startswith(name) and plain[len(name) : len(name) + 1].isupper():
            return key
    return None


def place_of(expression: str, resource: Any) -> tuple[int, ...]:
    """Return the place of an expression in a resource, to be compared with others."""
    place: list[int] = []
    value = resource
    for name, index in steps_of_expression(expression):
        if not isinstance(value, dict):
            break
        key = member_of(value, name)
        if key is None:
            place.append(len(value))
            break
        place.append(list(value).index(key))
        value = value[key]
        if index is not None:
            place.append(index)
            if not isinstance(value, list) or index >= len(value):
                break
            value = value[index]
    return tuple(place)
