"""Numbers as the range that their significant digits leave open.

https://hl7.org/fhir/R4/search.html#number
"""

import re
from decimal import Context, Decimal

from fhir_server.outcome import invalid_value

# Decimal128 keeps 34 digits, and the half unit behind the last one needs one of them.
DIGITS_MAX = 33
EXPONENT_MAX = 6000

_FORM = re.compile(r"[+-]?([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]{1,5}))?")
_HALF = Decimal("0.5")
_CONTEXT = Context(prec=DIGITS_MAX + 1, Emin=-6143, Emax=6144)


def number(text: str) -> Decimal:
    """Return the number that ``text`` writes, digits kept.

    Raises ``value`` for what is no number, has more than :data:`DIGITS_MAX` digits or an exponent
    beyond :data:`EXPONENT_MAX`.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise invalid_value("A number", text, "a number such as 5, -0.4 or 5.40e-3")
    whole, fraction, exponent = found.groups()
    digits = len(whole.lstrip("0") + (fraction or ""))
    if digits > DIGITS_MAX or abs(int(exponent or 0)) > EXPONENT_MAX:
        raise invalid_value(
            "A number", text, f"at most {DIGITS_MAX} digits and an exponent within {EXPONENT_MAX}"
        )
    return Decimal(text)


def implicit_range(text: str) -> tuple[Decimal, Decimal]:
    """Return ``[low, high)``: the number that ``text`` writes, give or take half its last digit.

    ``100`` is ``[99.5, 100.5)`` and ``5.40e-3`` is ``[0.005395, 0.005405)``. A single digit with
    an exponent counts as two digits, as the specification's example has it: ``1e2`` is
    ``[95, 105)``.

    Raises ``value`` as :func:`number` does.
    """
    value = number(text)
    _, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)  # _FORM has neither NaN nor infinity
    if len(digits) == 1 and "e" in text.lower() and "." not in text:
        exponent -= 1
    half = _HALF.scaleb(exponent, _CONTEXT)
    return _CONTEXT.subtract(value, half), _CONTEXT.add(value, half)
