"""The codes that Consents are written with: what lies above what, and what they say of an actor.

http://terminology.hl7.org/CodeSystem/v3-ActCode, v3-ActReason, v3-Confidentiality,
v3-ParticipationType; https://hl7.org/fhir/R4/security-labels.html
"""

from collections.abc import Iterable, Mapping

ACT_CODE = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
ACT_REASON = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
CONFIDENTIALITY = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality"
CONSENT_ACTION = "http://terminology.hl7.org/CodeSystem/consentaction"
CONSENT_SCOPE = "http://terminology.hl7.org/CodeSystem/consentscope"
RESOURCE_TYPES = "http://hl7.org/fhir/resource-types"
STAFF_ROLES = "http://terminology.hl7.org/CodeSystem/practitioner-role"
OWN_ROLES = "urn:fhir-server:role"
"""The system of the roles that users have here."""
_PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
_EXTRA_ROLES = "http://terminology.hl7.org/CodeSystem/extra-security-role-type"
_ROLE_CODE = "http://terminology.hl7.org/CodeSystem/v3-RoleCode"

IN_FHIR = {"physician": "doctor", "nurse": "nurse", "pharmacist": "pharmacist"}
"""Role of a user here -> the code that FHIR has for it in :data:`STAFF_ROLES`."""

REFUSING = frozenset((ACT_CODE, code) for code in ("OPTOUT", "OPTOUTE", "NOCONSENT"))
"""Policies by which nothing is shown but what a provision permits."""

RECIPIENTS = frozenset(
    (
        *((_PARTICIPATION, code) for code in ("PRCP", "IRCP", "TRC", "NOT", "REFT")),
        *((_ROLE_CODE, code) for code in ("GRANTEE", "DELEGATEE")),
        (_EXTRA_ROLES, "humanuser"),
    )
)
"""Roles of an actor that say: this is who asks. Authors and custodians are not."""

LEVELS = ("U", "L", "M", "N", "R", "V")
"""The codes of confidentiality, lowest first; what has none is as ``N``."""

# Above -> directly below, as v3-ActCode has them (sensitivity).
_SENSITIVITY = {
    "SPI": "BH MH PSY PSYTHPN SUD",
    "BH": "COGN DVD EMOTDIS MH PSY PSYTHPN SUD",
    "MH": "PSY PSYTHPN",
    "PSY": "PSYTHPN",
    "ETH": "SUD",
    "SUD": "ETHUD OPIOIDUD",
    "SEX": "STD MST SDV",
    "SDV": "MST",
    "STD": "HIV",
    "VIO": "SDV MST",
    "GDIS": "SCA SICKLE",
    "SCA": "SICKLE",
    "SICKLE": "SCA",
    "DEMO": "DOB GENDER LIVARG MARST RACE REL",
}
# The same of purposes (v3-ActReason).
_PURPOSES = {
    "HOPERAT": (
        "CAREMGT DONAT FRAUD GOV HACCRED HCOMPL HDECD HDIRECT HDM HLEGAL HOUTCOMS HPRGRP HQUALIMP "
        "HSYSADMIN LABELING METAMGT MEMADMIN MILCDM PATADMIN PATSFTY PERFMSR RECORDMGT SYSDEV "
        "HTEST TRAIN"
    ),
    "HPAYMT": "CLMATTCH COVAUTH COVERAGE ELIGDTRM ELIGVER ENROLLM MILDCRG REMITADV",
    "HRESCH": "BIORCH CLINTRCH CLINTRCHNPC CLINTRCHPC PRECLINTRCH DSRCH POARCH TRANSRCH",
    "CLINTRCH": "CLINTRCHNPC CLINTRCHPC PRECLINTRCH",
    "PATRQT": "FAMRQT PWATRNY SUPNWK",
    "PUBHLTH": "DISASTER THREAT",
    "TREAT": "CLINTRL COC ETREAT BTG ERTREAT POPHLTH",
    "ETREAT": "BTG ERTREAT",
}
KNOWN_PURPOSES = frozenset(
    (*_PURPOSES, "HMARKT", *(code for below in _PURPOSES.values() for code in below.split()))
)


def sensitivities(code: str) -> frozenset[str]:
    """Return the sensitivity ``code`` and its kinds, ours among them where care is the better part:
    v3-ActCode has HIV beside STD, and whoever hides the one means the other.

    >>> sorted(sensitivities("SUD"))
    ['ETHUD', 'OPIOIDUD', 'SUD']
    """
    return _below(_SENSITIVITY, (code,))


def purposes(code: str) -> frozenset[str]:
    """Return the purpose ``code`` and its kinds."""
    return _below(_PURPOSES, (code,))


def _below(table: Mapping[str, str], codes: Iterable[str]) -> frozenset[str]:
    found: set[str] = set()
    waiting = list(codes)
    while waiting:
        code = waiting.pop()
        if code not in found:
            found.add(code)
            waiting += table.get(code, "").split()
    return frozenset(found)
