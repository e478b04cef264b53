"""Units of measure: UCUM expressions, and quantities in the same unit to compare them.

https://ucum.org/ucum, case sensitive.

=======================  =====================================================
``mg/dL``, ``mL/min/kg`` terms with ``.`` and ``/``, from left to right
``10*9/L``, ``m2``       exponents; ``10*`` and ``10^`` are the number ten
``/min``                 a division with nothing before it
``kg/(24.h)``            parentheses and whole numbers
``{beats}/min``          annotations say nothing to a conversion
``Cel``, ``[degF]``      temperatures, with their offset, where they stand alone
``k[iU]/L``              arbitrary units, comparable with themselves only
=======================  =====================================================

The units are data, in ``terminology/ucum/units.csv``; its SOURCE.md says what the columns are.
"""

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from pathlib import Path

SYSTEM = "http://unitsofmeasure.org"

# The longest unit of the official lists has 36 characters. All of these bound the work that a unit
# of a client can ask for.
_CODE_MAX = 100
_DEPTH_MAX = 8
_EXPONENT_DIGITS_MAX = 2
_FACTOR_BITS_MAX = 2000
_KNOWN_MAX = 4096

_TOKEN = re.compile(r"[./()]|\{[^{}]*\}|(?:\[[^\[\]]*\]|[^\[\]{}()./\s])+")
_SYMBOL = re.compile(r"(.*[^0-9+\-])?([+\-]?[0-9]+)?", re.DOTALL)
_ANNOTATION = re.compile(r"\{[^{}]*\}")

# Sums and products are exact within these digits; keys keep what Decimal128 has.
_EXACT = Context(prec=400, Emin=-99_999, Emax=99_999)
_KEPT = Context(prec=34, rounding=ROUND_HALF_EVEN, Emin=-99_999, Emax=99_999)


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """How quantities of one unit become quantities of ``base``, such as ``g.m-3``.

    A value is ``(value + offset) * numerator / denominator`` there.
    """

    base: str
    numerator: Decimal
    denominator: Decimal
    offset: Decimal

    def canonical(self, value: Decimal) -> Decimal:
        """Return ``value`` in the base unit, with 34 digits; the same for all equal quantities."""
        moved = _EXACT.add(value, self.offset) if self.offset else value
        if self.denominator == 1:
            return _KEPT.multiply(moved, self.numerator)
        return _KEPT.divide(_EXACT.multiply(moved, self.numerator), self.denominator)

    def written(self, value: Decimal) -> Decimal:
        """Return ``value``, which is in the base unit, in this one: the way back."""
        found = _EXACT.divide(_EXACT.multiply(value, self.denominator), self.numerator)
        return _KEPT.subtract(found, self.offset)


@dataclass(frozen=True, slots=True)
class _Measure:
    """A number of base units, each with its exponent."""

    factor: Fraction
    dimensions: Mapping[str, int] = field(default_factory=dict)

    def times(self, other: "_Measure", sign: int = 1) -> "_Measure":
        dimensions = dict(self.dimensions)
        for name, exponent in other.dimensions.items():
            dimensions[name] = dimensions.get(name, 0) + sign * exponent
        factor = self.factor * other.factor if sign > 0 else self.factor / other.factor
        if max(factor.numerator.bit_length(), factor.denominator.bit_length()) > _FACTOR_BITS_MAX:
            raise ValueError("the unit is too large or too small")
        return _Measure(factor, {name: each for name, each in dimensions.items() if each})

    def power(self, exponent: int) -> "_Measure":
        found = _Measure(Fraction(1))
        for _ in range(abs(exponent)):
            found = found.times(self, 1 if exponent > 0 else -1)
        return found

    def base(self) -> str:
        names = sorted(self.dimensions.items())
        return ".".join(f"{name}{'' if each == 1 else each}" for name, each in names) or "1"


@dataclass(frozen=True, slots=True)
class _Row:
    """One row of the table."""

    kind: str
    metric: bool
    value: str
    unit: str


class Units:
    """The units of a table, and the scales of expressions made of them."""

    def __init__(self, rows: Iterable[Mapping[str, str]] = ()) -> None:
        self._rows: dict[str, _Row] = {}
        self._prefixes: dict[str, Fraction] = {}
        for row in rows:
            if row["kind"] == "prefix":
                self._prefixes[row["code"]] = Fraction(row["value"])
            else:
                self._rows[row["code"]] = _Row(
                    row["kind"], row["metric"] == "yes", row["value"], row["unit"]
                )
        self._atoms: dict[str, _Measure] = {}
        self._scales: dict[str, Scale | None] = {}

    @property
    def codes(self) -> tuple[str, ...]:
        """The units of the table, without prefixes."""
        return tuple(self._rows)

    def scale(self, code: str) -> Scale | None:
        """Return how quantities of ``code`` are compared with those of other units.

        ``None`` for what is no UCUM expression, and for units that are not converted.
        """
        if code not in self._scales:
            if len(self._scales) >= _KNOWN_MAX:  # clients invent units; they are not all kept
                self._scales.clear()
            try:
                self._scales[code] = self._scale(code)
            except ValueError:
                self._scales[code] = None
        return self._scales[code]

    def has(self, code: str) -> bool:
        """Whether ``code`` is a UCUM expression, be it converted or not."""
        if self.scale(code) is not None:
            return True
        try:
            return bool(code) and len(code) <= _CODE_MAX and bool(_Names(self, code).whole())
        except ValueError:
            return False

    def _knows(self, symbol: str) -> bool:
        """Whether ``symbol`` is a unit of the table, or a prefix and a metric unit."""
        if symbol in self._rows:
            return True
        return any(
            symbol[:length] in self._prefixes
            and symbol[length:] in self._rows
            and self._rows[symbol[length:]].metric
            for length in (1, 2)
        )

    def _scale(self, code: str) -> Scale:
        if not code or len(code) > _CODE_MAX:
            raise ValueError("a unit has between one and a hundred characters")
        offset = Decimal(0)
        row = self._rows.get(_ANNOTATION.sub("", code))
        if row and row.kind == "offset":
            offset, code = Decimal(row.value), row.unit
        measure = _Reader(self, code).whole()
        return Scale(
            measure.base(),
            Decimal(measure.factor.numerator),
            Decimal(measure.factor.denominator),
            offset,
        )

    def _measure(self, symbol: str) -> _Measure:
        """Return what a symbol means: a unit of the table, or a prefix and a metric unit."""
        if symbol not in self._rows:
            for length in (1, 2):
                factor, row = self._prefixes.get(symbol[:length]), self._rows.get(symbol[length:])
                if factor is not None and row and row.metric:
                    return _Measure(factor).times(self._atom(symbol[length:]))
            raise ValueError(f"{symbol} is no unit")
        return self._atom(symbol)

    def _atom(self, symbol: str) -> _Measure:
        row = self._rows[symbol]
        if row.kind in ("base", "arbitrary"):
            return _Measure(Fraction(1), {symbol: 1})
        if row.kind != "unit":
            raise ValueError(f"{symbol} is not converted as a part of a unit")
        if symbol not in self._atoms:
            found = _Reader(self, row.unit).whole()
            self._atoms[symbol] = _Measure(Fraction(row.value)).times(found)
        return self._atoms[symbol]


class _Reader:
    """Reads one expression, by recursive descent."""

    def __init__(self, units: Units, text: str) -> None:
        self._units = units
        self._tokens = _TOKEN.findall(text)
        self._at = 0
        if "".join(self._tokens) != text:
            raise ValueError(f"{text} is no unit")

    def whole(self) -> _Measure:
        """Return what the expression means, all of it."""
        found = _Measure(Fraction(1))
        if self._next() != "/":
            found = self._component(0)
        found = self._rest(found, 0)
        if self._next():
            raise ValueError("a unit goes on behind its end")
        return found

    def _next(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _rest(self, found: _Measure, depth: int) -> _Measure:
        while self._next() in (".", "/"):
            sign = 1 if self._next() == "." else -1
            self._at += 1
            found = found.times(self._component(depth), sign)
        return found

    def _component(self, depth: int) -> _Measure:
        token = self._next()
        self._at += 1
        if token == "(" and depth < _DEPTH_MAX:
            found = self._rest(self._component(depth + 1), depth + 1)
            if self._next() != ")":
                raise ValueError("a parenthesis is not closed")
            self._at += 1
        elif token.startswith("{"):
            return _Measure(Fraction(1))
        else:
            found = self._simple(token)
        if self._next().startswith("{"):
            self._at += 1
        return found

    def _simple(self, token: str) -> _Measure:
        read = _SYMBOL.fullmatch(token)
        if read is None or not token or token in "./()":
            raise ValueError(f"{token} is no unit")
        symbol, number = read.groups()
        if symbol is None:
            if not number.isdigit() or int(number) == 0:
                raise ValueError("a factor is a whole number")
            return _Measure(Fraction(int(number)))
        if number is None:
            return self._units._measure(symbol)
        if len(number.lstrip("+-")) > _EXPONENT_DIGITS_MAX:
            raise ValueError("an exponent has two digits at most")
        return self._units._measure(symbol).power(int(number))


class _Names(_Reader):
    """Reads an expression for its form and names, without computing with it."""

    def _simple(self, token: str) -> _Measure:
        read = _SYMBOL.fullmatch(token)
        if read is None or not token or token in "./()":
            raise ValueError(f"{token} is no unit")
        if read[1] is not None and not self._units._knows(read[1]):
            raise ValueError(f"{read[1]} is no unit")
        return _Measure(Fraction(1))


def load_units(folder: Path) -> Units:
    """Read ``units.csv`` in ``folder``; without it, no unit is converted."""
    table = folder / "units.csv"
    if not table.is_file():
        return Units()
    with table.open(encoding="utf-8", newline="") as lines:
        return Units(csv.DictReader(lines))
