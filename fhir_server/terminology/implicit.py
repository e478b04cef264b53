"""Value sets that follow from the form of their url.

https://hl7.org/fhir/R4/snomedct.html#implicit, https://hl7.org/fhir/R4/loinc.html#implicit

=========================================  =====================================================
url                                        its codes
=========================================  =====================================================
``http://snomed.info/sct?fhir_vs``         all of SNOMED CT; also of an edition or version
``…?fhir_vs=isa/138875005``                the concept and what is below it
``…?fhir_vs=refset/733073007``             the members of the reference set
``…?fhir_vs=refset``                       the reference sets themselves
``…?fhir_vs=ecl/<<138875005``              what the expression constraint says (``r4/ecl.py``)
``http://loinc.org/vs``                    all of LOINC
``http://loinc.org/vs/LL715-4``            the answers of a list
``http://loinc.org/vs/LP14885-5``          what is below a part, in its hierarchy
``[system]?fhir_vs``                       all codes of any other code system
=========================================  =====================================================
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

SNOMED = "http://snomed.info/sct"
LOINC = "http://loinc.org"
_MARK = "?fhir_vs"
_REFSETS = "900000000000455006"  # |Reference set|
_LOINC_SETS = f"{LOINC}/vs"


def implicit_value_set(name: str) -> Mapping[str, Any] | None:
    """Return the value set that the url ``name`` stands for, or ``None``."""
    base, mark, said = name.partition(_MARK)
    if mark and (base == SNOMED or base.startswith(f"{SNOMED}/")):
        version = "" if base == SNOMED else base
        return _snomed(name, version, unquote(said.removeprefix("=")))
    if mark and base and not said:
        return all_of(name, base)
    if name == _LOINC_SETS:
        return all_of(name, LOINC)
    if name.startswith(f"{_LOINC_SETS}/"):
        code = name.removeprefix(f"{_LOINC_SETS}/")
        property = "LIST" if code.startswith("LL") else "ancestor"
        return _value_set(name, LOINC, "", _filter(property, "=", code))
    return None


def all_of(name: str, system: str) -> Mapping[str, Any]:
    """Return the value set ``name`` with all codes of ``system``."""
    url, _, version = system.partition("|")
    return _value_set(name, url, version)


def _snomed(name: str, version: str, said: str) -> Mapping[str, Any] | None:
    kind, _, value = said.partition("/")
    if not said:
        return _value_set(name, SNOMED, version)
    if said == "refset":
        return _value_set(name, SNOMED, version, _filter("concept", "descendent-of", _REFSETS))
    if not value or kind not in _SNOMED_FILTERS:
        return None
    return _value_set(name, SNOMED, version, _filter(*_SNOMED_FILTERS[kind], value))


_SNOMED_FILTERS = {
    "isa": ("concept", "is-a"),
    "refset": ("concept", "in"),
    "ecl": ("constraint", "="),
}


def _filter(property: str, operator: str, value: str) -> Mapping[str, str]:
    return {"property": property, "op": operator, "value": value}


def _value_set(
    name: str, system: str, version: str, filter: Mapping[str, str] | None = None
) -> Mapping[str, Any]:
    include: dict[str, Any] = {"system": system}
    if version:
        include["version"] = version
    if filter:
        include["filter"] = [filter]
    return {
        "resourceType": "ValueSet",
        "url": name,
        "status": "active",
        "compose": {"include": [include]},
    }
