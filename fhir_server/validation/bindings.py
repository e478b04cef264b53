"""Whether a code is one that a required binding allows.

https://hl7.org/fhir/R4/terminologies.html#required
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from fhir_server.outcome import Issue, nearest, shown
from fhir_server.r4.expansion import Code
from fhir_server.validation.shapes import Member

_LISTED_MAX = 12


def binding_fault(member: Member, value: Any, path: str) -> Iterator[Issue]:
    """Yield an issue if ``value``, of the right shape, has no code of the member's binding."""
    assert member.codes is not None
    check = _CHECKS.get(member.type)
    if check is None or check(value, member.codes):
        return
    codes = sorted({code for _, code in member.codes})
    few = ", ".join(codes) if len(codes) <= _LISTED_MAX else f"{len(codes)} codes"
    found = _found(value)
    # A code that is right and in the wrong system is not answered with itself.
    hint = nearest(found[0], codes) if found and found[0] not in codes else ""
    yield Issue(
        "code-invalid",
        f"{member.name} has {', '.join(map(shown, found)) or 'no code'}; its binding is required, "
        f"so expected is one of {few}{_systems(member)}.{hint}",
        path,
    )


@cache
def plain_codes(codes: frozenset[Code]) -> frozenset[str]:
    """Return the codes without their systems, as an element of type code has them."""
    return frozenset(code for _, code in codes)


def _is_code(value: Any, codes: frozenset[Code]) -> bool:
    return value in plain_codes(codes)


def _is_coding(value: Mapping[str, Any], codes: frozenset[Code]) -> bool:
    system, code = value.get("system"), value.get("code")
    return isinstance(system, str) and isinstance(code, str) and (system, code) in codes


def _is_concept(value: Mapping[str, Any], codes: frozenset[Code]) -> bool:
    """One of the codings must be from the value set; a concept of extensions only is no code."""
    codings = value.get("coding")
    if not isinstance(codings, list):
        return not codings and value.keys() <= {"id", "extension"}
    return any(_is_coding(coding, codes) for coding in codings if isinstance(coding, dict))


_CHECKS: Mapping[str, Callable[[Any, frozenset[Code]], bool]] = {
    "code": _is_code,
    "Coding": _is_coding,
    "Quantity": _is_coding,
    "CodeableConcept": _is_concept,
}


def _found(value: Any) -> list[str]:
    """Return the codes of ``value`` for a message."""
    if isinstance(value, str):
        return [value]
    codings = value.get("coding", [value])
    found = [one for one in codings if isinstance(one, dict)] if isinstance(codings, list) else []
    return [one["code"] for one in found if isinstance(one.get("code"), str)]


def _systems(member: Member) -> str:
    if member.type == "code" or not member.codes:
        return ""
    return f" of {' or '.join(sorted({system for system, _ in member.codes}))}"
