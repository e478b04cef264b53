"""Numbers: exact decimals within bounds, integers of 32 bits.

http://hl7.org/fhirpath/N1/#math-2: what overflows, and what is divided by zero, is empty.
"""

from decimal import ROUND_HALF_UP, Context, Decimal, DivisionByZero, InvalidOperation, Overflow

# A decimal of a resource has 34 digits at most and an exponent within 6144.
EXACT = Context(
    prec=38,
    rounding=ROUND_HALF_UP,
    Emin=-6200,
    Emax=6200,
    traps=[InvalidOperation, DivisionByZero, Overflow],
)
INTEGERS = range(-(2**31), 2**31)
Number = int | Decimal


def bounded(value: Number | None) -> list[Number]:
    """Return ``value`` in a list; an empty one for an integer that needs more than 32 bits."""
    if value is None or (type(value) is int and value not in INTEGERS):
        return []
    return [value]


def added(left: Number, right: Number) -> Number | None:
    """Return the sum; an integer of integers."""
    if type(left) is int and type(right) is int:
        return left + right
    return EXACT.add(Decimal(left), Decimal(right))


def subtracted(left: Number, right: Number) -> Number | None:
    """Return the difference; an integer of integers."""
    return added(left, -right if type(right) is int else EXACT.minus(Decimal(right)))


def multiplied(left: Number, right: Number) -> Number | None:
    """Return the product; an integer of integers."""
    if type(left) is int and type(right) is int:
        return left * right
    return EXACT.multiply(Decimal(left), Decimal(right))


def divided(left: Number, right: Number) -> Number | None:
    """Return the quotient, a decimal; ``None`` by zero."""
    return EXACT.divide(Decimal(left), Decimal(right)) if right else None


def quotient(left: Number, right: Number) -> Number | None:
    """Return how many whole times ``right`` is in ``left``; ``None`` by zero."""
    if not right:
        return None
    found = EXACT.divide(Decimal(left), Decimal(right))
    return int(found) if found.adjusted() < 12 else None


def remainder(left: Number, right: Number) -> Number | None:
    """Return what whole times ``right`` leave of ``left``, with the sign of ``left``."""
    if not right:
        return None
    found = EXACT.remainder(Decimal(left), Decimal(right))
    return int(found) if type(left) is int and type(right) is int else found
