"""What the terminology service can do, as a TerminologyCapabilities.

https://hl7.org/fhir/R4/terminologycapabilities.html
"""

from collections.abc import Iterable, Mapping
from typing import Any

from fhir_server import __version__

System = tuple[str, str]
"""``(url, version)`` of a code system; the version may be ``""``."""

_EXPANSION_PARAMETERS: Mapping[str, str] = {
    "filter": "Words; each must begin a word of a display or designation.",
    "offset": "With count: a page, flat.",
    "count": "At most FHIR_EXPANSION_CODES_MAX.",
    "includeDesignations": "",
    "designation": "Languages, and uses as system|code.",
    "includeDefinition": "",
    "activeOnly": "",
    "excludeNested": "",
    "excludeNotForUI": "Abstract codes are left out.",
    "excludePostCoordinated": "There are no post-coordinated codes here.",
    "displayLanguage": "",
    "exclude-system": "",
    "system-version": "",
    "check-system-version": "",
    "force-system-version": "",
    "useSupplement": "",
    "tx-resource": "",
}


def terminology_capabilities(systems: Iterable[System], base_url: str, date: str) -> dict[str, Any]:
    """Return the resource. ``systems`` are those whose codes are here, ``date`` when it was made.

    Of several versions of a system the first is the one that is meant without a version.
    """
    versions: dict[str, list[str]] = {}
    for url, version in systems:
        known = versions.setdefault(url, [])
        if version not in known:
            known.append(version)
    return {
        "resourceType": "TerminologyCapabilities",
        "status": "active",
        "date": date,
        "kind": "instance",
        "software": {"name": "FHIR Server", "version": __version__},
        "implementation": {"description": "FHIR R4 on MongoDB", "url": base_url},
        "lockedDate": False,
        "codeSystem": [_system(url, found) for url, found in sorted(versions.items())],
        "expansion": {
            "hierarchical": True,
            "paging": True,
            "incomplete": False,
            "parameter": [
                {"name": name, **({"documentation": text} if text else {})}
                for name, text in _EXPANSION_PARAMETERS.items()
            ],
            "textFilter": "Case and accents say nothing; words match by their beginning.",
        },
        "codeSearch": "all",
        "validateCode": {"translations": True},
        "translation": {"needsMap": True},
        "closure": {"translation": False},
    }


def _system(url: str, versions: list[str]) -> dict[str, Any]:
    named = [one for one in versions if one]
    found: dict[str, Any] = {"uri": url}
    if named:
        found["version"] = [
            {"code": one, "isDefault": place == 0, "compositional": False}
            for place, one in enumerate(named)
        ]
    return {**found, "subsumption": True}
