"""Scopes in words, for the person who is asked to grant them.

https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html
"""

import re2 as re

from fhir_server.security.scopes import scope_of

_VERBS = {"c": "add", "r": "read", "u": "change", "d": "delete", "s": "search"}
_ORDER = "rscud"
_TYPES = {
    "AllergyIntolerance": "allergies",
    "CarePlan": "care plans",
    "CareTeam": "care teams",
    "Condition": "diagnoses and problems",
    "DiagnosticReport": "reports",
    "DocumentReference": "documents",
    "Encounter": "visits",
    "Immunization": "vaccinations",
    "MedicationRequest": "prescriptions",
    "MedicationStatement": "medications",
    "Observation": "measurements and laboratory results",
    "Patient": "personal details",
    "Procedure": "procedures",
    "ServiceRequest": "orders",
}
_OF_CONTEXT = {
    "openid": "Know that it is you, and the same one as last time",
    "fhirUser": "Know who you are: your own entry in this system",
    "profile": "Know who you are: your own entry in this system",
    "launch": "Know what you were working on when you opened it",
    "launch/patient": "Know which patient is chosen",
    "launch/encounter": "Know which visit is chosen",
    "offline_access": "Stay connected when you have signed out, until you end it",
    "scheduling.override": "Give out times of the calendar again that are taken, with a reason",
    "online_access": "Stay connected as long as you are signed in",
}
_WORDS = re.compile(r"([a-z0-9])([A-Z])")


def words_of(scope: str, patient: str = "") -> str:
    """Return what ``scope`` lets an app do; ``patient`` is the name of who is chosen.

    >>> words_of("patient/Observation.rs?category=laboratory", "Rahima Begum")
    'Read and search measurements and laboratory results of Rahima Begum (category: laboratory)'
    >>> words_of("user/*.cruds")
    'Read, search, add, change and delete the whole record of everybody whom you may see yourself'
    """
    if scope in _OF_CONTEXT:
        return _OF_CONTEXT[scope]
    found = scope_of(scope)
    if found is None:
        return scope
    verbs = [_VERBS[letter] for letter in _ORDER if letter in found.letters]
    *others, last = verbs
    said = f"{', '.join(others)} and {last}" if others else last
    things = _things(found.type)
    if found.level == "patient":
        whose = f"of {patient or 'the chosen patient'}"
    else:
        whose = "of everybody whom you may see yourself"
    limits = "; ".join(f"{name}: {value.rpartition('|')[2]}" for name, value in found.parameters)
    text = f"{said} {things} {whose}" + (f" ({limits})" if limits else "")
    return text[0].upper() + text[1:]


def _things(type: str) -> str:
    if type == "*":
        return "the whole record"
    spaced = _WORDS.sub(r"\1 \2", type).lower()
    return _TYPES.get(type) or f"{spaced} entries"
