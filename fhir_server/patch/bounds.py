"""What one patch may cost, and how a patch is refused.

https://hl7.org/fhir/R4/http.html#patch

A patch that no resource could make sense of is 400. One that does not fit the resource as it is now
is 422, and so is one whose ``test`` fails. One that is over a limit is 413.
"""

from dataclasses import dataclass
from typing import Any

from fhir_server.outcome import FhirError, Issue
from fhir_server.r4.json import encode

_TOO_MUCH = 413


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one patch may cost: operations, bytes that it copies within the resource, and levels of
    nesting of what it comes to."""

    operations_max: int
    bytes_max: int
    depth_max: int


def malformed(what: str, why: str, expression: str = "", code: str = "structure") -> FhirError:
    """Return the refusal of a patch that is none: ``what`` names the operation."""
    return FhirError(Issue(code, f"{what}: {why}", expression), status=400)


def inapplicable(what: str, why: str, expression: str = "") -> FhirError:
    """Return the refusal of a patch that does not fit the resource as it is now."""
    return FhirError(Issue("processing", f"{what}: {why} Nothing was changed.", expression))


def too_many(what: str, count: int, limit: int) -> FhirError:
    """Return the refusal of a patch with ``count`` of ``what`` (operations)."""
    text = f"The patch has {count:,} {what}; the limit is {limit:,}."
    return FhirError(Issue("too-costly", text), status=_TOO_MUCH)


def copied(value: Any) -> Any:
    """Return ``value`` with containers of its own; numbers and strings are shared.

    ``value`` is nested no deeper than what :func:`fhir_server.r4.json.decode` lets through.
    """
    if isinstance(value, dict):
        return {name: copied(one) for name, one in value.items()}
    return [copied(one) for one in value] if isinstance(value, list) else value


def check_depth(value: Any, bounds: Bounds) -> None:
    """Raise status 422 for what is nested too deeply; it walks level by level, not into itself."""
    level = [value]
    for _ in range(bounds.depth_max + 1):
        level = [
            below
            for one in level
            for below in (one.values() if isinstance(one, dict) else one)
            if isinstance(below, dict | list)
        ]
        if not level:
            return
    text = f"The patched resource would be nested more than {bounds.depth_max} levels deep."
    raise FhirError(Issue("processing", text))


class Copies:
    """Counts the bytes that a patch copies within a resource, so that doublings end early."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._left = bounds.bytes_max

    def copy(self, value: Any) -> Any:
        """Return a copy of ``value``; raises status 413 where all copies are too large together."""
        if isinstance(value, dict | list):
            check_depth(value, self._bounds)
        self._left -= len(encode(value))
        if self._left < 0:
            text = (
                f"The patch copies more than {self._bounds.bytes_max:,} bytes, which is the limit."
            )
            raise FhirError(Issue("too-costly", text), status=_TOO_MUCH)
        return copied(value)
