# https://ucum.org/ucum
"""Units of measure: what expressions mean, and conversion there and back."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.artifacts import artifacts_root
from fhir_server.r4.ucum import Units, load_units

UNITS = load_units(artifacts_root() / "terminology" / "ucum")

# value, unit, the same in the other unit, that unit
CONVERSIONS = """
1       g/dL            10              g/L
5.4     mg/dL           0.054           g/L
1       mg/L            1               ug/mL
1       ng/mL           1               ug/L
5.4     mmol/L          5400            umol/L
1       mmol/dL         10              mmol/L
1       meq/L           0.001           eq/L
1       mosm/kg         1               osm/t
70      kg              70000           g
1       [lb_av]         453.59237       g
1       [oz_av]         28.349523125    g
1       [stone_av]      6.35029318      kg
1       [gr]            64.79891        mg
1       [oz_tr]         31.1034768      g
1       [in_i]          2.54            cm
1       [ft_i]          30.48           cm
1       [yd_i]          0.9144          m
1       [mi_i]          1.609344        km
1       [nmi_i]         1852            m
1.75    m               175             cm
1       L               1               dm3
1       mL              1               cm3
1       l               1000            mL
1       [gal_us]        3.785411784     L
1       [foz_us]        29.5735295625   mL
1       [pt_br]         568.26125       mL
1       [tsp_us]        4.92892159375   mL
1       [tsp_m]         5               mL
20      [drp]           1               mL
120     mm[Hg]          15.99864        kPa
1       atm             760.002100178515  mm[Hg]
1       bar             100000          Pa
10      cm[H2O]         980.665         Pa
1       [psi]           6894.757293168361  Pa
37      Cel             310.15          K
37      Cel             98.6            [degF]
-40     Cel             -40             [degF]
0       [degRe]         0               Cel
60      /min            1               Hz
72      {beats}/min     72              1/min
1       h               3600            s
1       wk              168             h
1       a               12              mo
1       d               1440            min
4.5     10*9/L          4.5             10*3/uL
4.5     10*12/L         4.5             10*6/uL
1       U/L             16.6666666666666667  nkat/L
60      U               1               ukat
1       k[iU]/L         1               [iU]/mL
1       [IU]/L          1               m[iU]/mL
25      %               250             [ppth]
1       kcal            4.184           kJ
1       [Btu_IT]        1.05505585262   kJ
1       Ci              37              GBq
1       RAD             10              mGy
1       REM             0.01            Sv
180     deg             3.141592653589793238  rad
1       P               100             mPa.s
1       N               1               kg.m/s2
1       mg/kg/min       60              mg/(kg.h)
24      mg/(24.h)       1               mg/h
100     mL/min/{1.73_m2}  6             L/h
1       [wood'U]        79.99320        dyn.s/cm5
15      [Ch]            5               mm
""".strip().splitlines()


@pytest.mark.parametrize("line", CONVERSIONS)
def test_known_conversions(line: str) -> None:
    """What two units say of one quantity is the same number of base units."""
    value, unit, other_value, other_unit = line.split()
    one, other = UNITS.scale(unit), UNITS.scale(other_unit)

    assert one is not None
    assert other is not None
    assert one.base == other.base
    expected = one.canonical(Decimal(value))
    assert abs(other.canonical(Decimal(other_value)) - expected) <= abs(expected) * Decimal("1e-15")


DIFFERENT = (
    *(("mmol/L", "mg/dL"), ("mol", "g"), ("mol", "1"), ("meq/L", "mmol/L"), ("osm", "mol")),
    *(("[iU]/L", "U/L"), ("[iU]", "[arb'U]"), ("[iU]", "1"), ("[CFU]", "[PFU]"), ("[HPF]", "1")),
    *(("mg", "mL"), ("kg", "kg/m2"), ("Cel", "1"), ("rad", "1")),
)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different_things_have_different_bases(one: str, other: str) -> None:
    """No molar mass, no charge and no strength of an arbitrary unit is guessed."""
    left, right = UNITS.scale(one), UNITS.scale(other)

    assert left is not None
    assert right is not None
    assert left.base != right.base


NO_UNITS = (
    *(
        "",
        "mcg",
        "month",
        "Mg/DL",
        "mg/",
        "//m",
        "m..s",
        "m.",
        "(m",
        "m)",
        "()",
        "{",
        "m{a",
        "[in_i",
    ),
    *(
        "m--2",
        "2m",
        "0",
        "m100",
        "10*-",
        "km.Kg",
        "ppm",
        "dB",
        "[pH]",
        "Cel/min",
        "kCel",
        "k[in_i]",
    ),
    *("mg dL", "mg\n", "Y99.Y99", "(" * 9 + "m" + ")" * 9, "m." * 60 + "m", "\x00", "1/0"),
)


@pytest.mark.parametrize("code", NO_UNITS)
def test_what_is_not_converted(code: str) -> None:
    """What is no expression of UCUM, or a unit that is no multiple of another, has no scale."""
    assert UNITS.scale(code) is None


def test_every_unit_of_the_table_is_understood() -> None:
    """Each has a scale, but for logarithms and tangents."""
    without = {code for code in UNITS.codes if UNITS.scale(code) is None}

    assert len(UNITS.codes) > 300
    assert all(code[0] in "BN[%b" for code in without)
    assert len(without) == 18


CONVERTED = st.sampled_from([code for code in UNITS.codes if UNITS.scale(code)])
NUMBERS = st.decimals(-(10**9), 10**9, places=3)


@given(code=CONVERTED, value=NUMBERS)
def test_there_and_back(code: str, value: Decimal) -> None:
    """A value in base units, taken back, is the value, to 30 digits."""
    scale = UNITS.scale(code)
    assert scale is not None

    back = scale.written(scale.canonical(value))

    assert abs(back - value) <= (abs(value) + abs(scale.offset)) * Decimal("1e-30")


@given(code=CONVERTED, values=st.tuples(NUMBERS, NUMBERS))
def test_order_is_kept(code: str, values: tuple[Decimal, Decimal]) -> None:
    """The greater value in a unit is the greater in base units."""
    scale = UNITS.scale(code)
    assert scale is not None

    low, high = sorted(values)

    assert scale.canonical(low) <= scale.canonical(high)
    assert (scale.canonical(low) == scale.canonical(high)) is (low == high)


@given(st.text(max_size=120) | st.text("m[]{}().,/*^0123456789+-k ", max_size=120))
def test_any_text_is_a_unit_or_is_not(code: str) -> None:
    """No text makes the reader fail or take long."""
    UNITS.scale(code)


def test_without_a_table_nothing_is_converted(tmp_path) -> None:
    """A site that leaves the table out compares units as written."""
    assert load_units(tmp_path).codes == ()
    assert Units().scale("mg") is None
