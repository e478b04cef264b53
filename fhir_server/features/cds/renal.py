"""Renal function and body surface by the formulas of the design page. Pure.

Cockcroft-Gault for doses, CKD-EPI 2021 for rules, Schwartz below 18 years, Mosteller for surface.
"""

import math

ADULT_YEARS = 18
_MICROMOL = 88.4
_INCH = 2.54


def mg_dl(value: float, unit: str) -> float | None:
    """Return a creatinine in mg/dL; ``None`` for a unit other than mg/dL and umol/L."""
    if unit.lower() in ("mg/dl", "mg%"):
        return value
    if unit.lower() in ("umol/l", "µmol/l", "μmol/l"):
        return value / _MICROMOL
    return None


def cockcroft_gault(
    years: float, sex: str, weight_kg: float, height_cm: float | None, creatinine: float
) -> float:
    """Return the clearance in mL/min; for a sex that is not known, the smaller one."""
    return min(
        _cockcroft_gault(years, one, weight_kg, height_cm, creatinine) for one in _sexes(sex)
    )


def _cockcroft_gault(
    years: float, sex: str, weight: float, height: float | None, creatinine: float
) -> float:
    if height is not None:
        # Devine counts inches over 60; below that it is not made for, and stays at the base.
        ideal = (45.5 if sex == "female" else 50.0) + 2.3 * max(height / _INCH - 60, 0.0)
        if weight > 1.2 * ideal:
            weight = ideal + 0.4 * (weight - ideal)
        elif weight > ideal:
            weight = ideal
    factor = 0.85 if sex == "female" else 1.0
    return (140 - years) * weight * factor / (72 * creatinine)


def ckd_epi(years: float, sex: str, creatinine: float) -> float:
    """Return the eGFR in mL/min/1.73 m2 (2021); for a sex that is not known, the smaller one."""
    return min(_ckd_epi(years, one, creatinine) for one in _sexes(sex))


def _ckd_epi(years: float, sex: str, creatinine: float) -> float:
    is_female = sex == "female"
    ratio = creatinine / (0.7 if is_female else 0.9)
    alpha = -0.241 if is_female else -0.302
    found = 142 * min(ratio, 1.0) ** alpha * max(ratio, 1.0) ** -1.2 * 0.9938**years
    return float(found * (1.012 if is_female else 1.0))


def schwartz(height_cm: float, creatinine: float) -> float:
    """Return the eGFR of a child in mL/min/1.73 m2 by the bedside formula."""
    return 0.413 * height_cm / creatinine


def mosteller(height_cm: float, weight_kg: float) -> float:
    """Return the body surface in m2."""
    return math.sqrt(height_cm * weight_kg / 3600)


def _sexes(sex: str) -> tuple[str, ...]:
    return (sex,) if sex in ("female", "male") else ("female", "male")
