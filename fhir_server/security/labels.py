"""The security labels that a role must list before it sees what they stand on.

https://hl7.org/fhir/R4/security-labels.html. Other labels (what to do with data, where it may go)
hide nothing. What is written beside a resource is ``system|code`` of ``meta.security``.
"""

from collections.abc import Collection
from functools import lru_cache

from fhir_server.security.plan import Filter

RESTRICTED = frozenset(("R", "V"))
"""The codes of confidentiality above ``normal``: restricted, very restricted."""

# http://terminology.hl7.org/ValueSet/v3-InformationSensitivityPolicy
SENSITIVE = frozenset(
    (
        *("ETH", "ETHUD", "GDIS", "HIV", "MST", "OPIOIDUD", "PREGNANT", "SCA", "SDV", "SEX", "SPI"),
        *("BH", "COGN", "DVD", "EMOTDIS", "MH", "PSY", "PSYTHPN", "SUD", "STD", "TBOO", "VIO"),
        *("IDS", "SICKLE", "ADOL", "CEL", "DIA", "DRGIS", "EMP", "PDS", "PHY", "PRS"),
        *("DEMO", "DOB", "GENDER", "LIVARG", "MARST", "RACE", "REL", "B", "EMPL", "LOCIS", "SSP"),
    )
)
"""The codes that say what makes information sensitive."""

CONTROLLED = RESTRICTED | SENSITIVE

# Whoever writes a label in an old way, or without a system, means the same.
_CONFIDENTIALITY = (
    "http://terminology.hl7.org/CodeSystem/v3-Confidentiality",
    "http://hl7.org/fhir/v3/Confidentiality",
    "urn:oid:2.16.840.1.113883.5.25",
    "",
)
_ACT_CODE = (
    "http://terminology.hl7.org/CodeSystem/v3-ActCode",
    "http://hl7.org/fhir/v3/ActCode",
    "urn:oid:2.16.840.1.113883.5.4",
    "",
)


@lru_cache(maxsize=64)
def hidden(shown: frozenset[str]) -> tuple[str, ...]:
    """Return the labels, as they are written beside a resource, that hide it from whoever may see
    the codes ``shown`` of :data:`CONTROLLED` and no others."""
    codes = sorted(CONTROLLED - shown)
    return tuple(
        f"{system}|{code}"
        for code in codes
        for system in (_CONFIDENTIALITY if code in RESTRICTED else _ACT_CODE)
    )


def without_hidden(shown: Collection[str]) -> Filter:
    """Return the predicate of what has no label but those ``shown``, or ones that hide nothing."""
    labels = hidden(frozenset(shown))
    return {"labels": {"$nin": [*labels]}} if labels else {}
