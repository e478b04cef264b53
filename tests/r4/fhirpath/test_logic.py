# http://hl7.org/fhirpath/N1/#boolean-logic
"""The tables of three values, each operator in each form in which it is compiled."""

from itertools import product

import pytest

from tests.r4.fhirpath.conftest import Evaluate

T, F, N = "true", "false", "{}"
# The results for the pairs TT TF TN FT FF FN NT NF NN.
TABLES = {
    "and": (T, F, N, F, F, F, N, F, N),
    "or": (T, T, T, T, F, N, T, N, N),
    "xor": (F, T, N, T, F, N, N, N, N),
    "implies": (T, F, N, T, T, T, T, N, N),
}
VALUES = {T: [True], F: [False], N: []}


@pytest.mark.parametrize("operator", TABLES)
def test_the_table(operator: str, evaluate: Evaluate) -> None:
    """As it is printed in the specification."""
    pairs = list(product((T, F, N), repeat=2))

    found = [evaluate(f"{left} {operator} {right}") for left, right in pairs]
    mixed = [evaluate(f"({left} {operator} {right}) xor false") for left, right in pairs]

    assert found == [VALUES[value] for value in TABLES[operator]]
    assert mixed == found


@pytest.mark.parametrize("operator", ["and", "or"])
def test_three_operands_are_two_and_one(operator: str, evaluate: Evaluate) -> None:
    """A chain is compiled as one, and means what its pairs mean."""
    for one, two, three in product((T, F, N), repeat=3):
        whole = evaluate(f"{one} {operator} {two} {operator} {three}")
        assert whole == evaluate(f"({one} {operator} {two}) {operator} {three}")


def test_one_thing_that_is_no_boolean_is_true(evaluate: Evaluate) -> None:
    """Singleton evaluation of collections (N1, 4.5)."""
    patient = {"resourceType": "Patient", "active": False, "birthDate": "2020"}

    assert evaluate("birthDate and true", patient) == [True]
    assert evaluate("active or false", patient) == [False]
    assert evaluate("0 and true") == [True]


def test_what_is_settled_is_not_looked_at(evaluate: Evaluate) -> None:
    """A fault in the second operand is then none."""
    assert evaluate("false and (1 | 2).single()") == [False]
    assert evaluate("true or (1 | 2).single()") == [True]
    assert evaluate("false implies (1 | 2).single()") == [True]
    assert evaluate("iif(true, 1, (1 | 2).single())") == [1]
