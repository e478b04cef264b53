"""Which Patient the identifiers of a message name.

design/hl7v2.md, section 10. Two Patients are never merged because a message mentioned both numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adapters.hl7v2.issues import Issue

Json = dict[str, Any]
Identifier = tuple[str, str]  # system, value

LINKS_MAX = 32


@dataclass(frozen=True, slots=True)
class IdentityRules:
    """A sender's rules; the values are those of the profile's member ``identity``."""

    order: tuple[str, ...] = ()
    unknown_patient: str = "create"  # create, hold
    conflict: str = "first"  # first, hold
    suspect: str = "warn"  # warn, hold
    anonymous: str = "refuse"  # refuse, create


@dataclass(frozen=True, slots=True)
class Decision:
    """The Patient that is meant, None for a new one; ``held`` says why a person must decide.

    ``foreign`` are the numbers of the message that only other Patients carry: they stay theirs.
    """

    patient: Json | None
    held: str = ""
    issues: tuple[Issue, ...] = ()
    foreign: frozenset[Identifier] = frozenset()


def survivors(found: Sequence[Json], patients: Mapping[str, Json]) -> tuple[list[Json], list[str]]:
    """Return where ``found`` lead to, each once, and the ids that must be known for that.

    An inactive Patient stands for where its ``replaced-by`` link leads, up to 32 links on.
    ``patients`` are those known by id.
    """
    led: dict[str, Json] = {}
    missing: list[str] = []
    for patient in found:
        current = patient
        for _ in range(LINKS_MAX):
            next_id = replaced_by(current)
            if not next_id:
                break
            if next_id not in patients:
                missing.append(next_id)
                break
            current = patients[next_id]
        led[str(current.get("id"))] = current
    return list(led.values()), missing


def replaced_by(patient: Json) -> str:
    """Return the id of the Patient that took the place of ``patient``; "" if none did."""
    if patient.get("active") is not False:
        return ""
    for link in patient.get("link", []):
        if link.get("type") == "replaced-by":
            return str(link.get("other", {}).get("reference", "")).rpartition("/")[2]
    return ""


def identified(
    identifiers: Sequence[Identifier],
    found: Mapping[Identifier, Sequence[Json]],
    said: Mapping[str, Any],
    rules: IdentityRules,
    where: str,
) -> Decision:
    """Return who is meant by ``identifiers``, which are in the order in which they decide.

    ``found`` are the Patients that carry each of them, links followed; ``said`` are the elements
    that the message gives the Patient.
    """
    patients: dict[str, Json] = {}
    for identifier in identifiers:
        for patient in found.get(identifier, ()):
            patients.setdefault(str(patient.get("id")), patient)
    if not patients:
        held = "No Patient has these numbers." if rules.unknown_patient == "hold" else ""
        return Decision(None, held)
    chosen = next(iter(patients.values()))
    chosen_id = str(chosen.get("id"))
    issues = []
    held = ""
    if len(patients) > 1:
        text = "The numbers belong to several Patients; the first number decides."
        issues.append(Issue("warning", "identity-conflict", where, text))
        held = text if rules.conflict == "hold" else ""
    if _is_suspect(chosen, said):
        text = "The Patient with this number has another birth date and another family name."
        issues.append(Issue("warning", "identity-suspect", where, text))
        held = held or (text if rules.suspect == "hold" else "")
    foreign = frozenset(
        identifier
        for identifier in identifiers
        if found.get(identifier) and chosen_id not in {str(o.get("id")) for o in found[identifier]}
    )
    return Decision(chosen, held, tuple(issues), foreign)


def _is_suspect(patient: Json, said: Mapping[str, Any]) -> bool:
    birth, names = said.get("birthDate"), said.get("name[pid-5]")
    stored = patient.get("birthDate")
    if not birth or not names or not stored or _same_date(str(birth), str(stored)):
        return False
    mine = {str(name.get("family", "")).casefold() for name in names} - {""}
    theirs = {str(name.get("family", "")).casefold() for name in patient.get("name", [])} - {""}
    return bool(mine) and bool(theirs) and not mine & theirs


def _same_date(left: str, right: str) -> bool:
    length = min(len(left), len(right))
    return left[:length] == right[:length]
