"""The logic of three values: true, false and ``None`` for what is not known.

http://hl7.org/fhirpath/N1/#boolean-logic. What is settled by the first operand is not asked of the
second.
"""

from collections.abc import Callable, Mapping, Sequence

from fhir_server.r4.fhirpath.environment import State, Truth
from fhir_server.r4.fhirpath.model import Value

Second = Callable[[], bool | None]


def conjunction(first: bool | None, second: Second) -> bool | None:
    """``and``"""
    if first is False:
        return False
    other = second()
    return other if first or other is False else None


def disjunction(first: bool | None, second: Second) -> bool | None:
    """``or``"""
    if first:
        return True
    other = second()
    return other if first is False or other else None


def exclusion(first: bool | None, second: Second) -> bool | None:
    """``xor``"""
    other = second()
    return None if first is None or other is None else first is not other


def implication(first: bool | None, second: Second) -> bool | None:
    """``implies``"""
    if first is False:
        return True
    other = second()
    return other if first or other else None


LOGIC: Mapping[str, Callable[[bool | None, Second], bool | None]] = {
    "and": conjunction,
    "or": disjunction,
    "xor": exclusion,
    "implies": implication,
}


def all_of(tests: Sequence[Truth]) -> Truth:
    """Return ``a and b and c``."""

    def test(this: list[Value], state: State) -> bool | None:
        found: bool | None = True
        for one in tests:
            state.left -= 1
            value = one(this, state)
            if value is False:
                return False
            if value is None:
                found = None
        return found

    return test


def any_of(tests: Sequence[Truth]) -> Truth:
    """Return ``a or b or c``."""

    def test(this: list[Value], state: State) -> bool | None:
        found: bool | None = False
        for one in tests:
            state.left -= 1
            value = one(this, state)
            if value:
                return True
            if value is None:
                found = None
        return found

    return test


def folded(first: Truth, rest: Sequence[tuple[str, Truth]]) -> Truth:
    """Return ``a or b xor c``, from left to right."""
    chain = [(LOGIC[name], test) for name, test in rest]

    def test(this: list[Value], state: State) -> bool | None:
        found = first(this, state)
        for combine, one in chain:
            state.left -= 1
            found = combine(found, lambda one=one: one(this, state))  # type: ignore[misc]
        return found

    return test
