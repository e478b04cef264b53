"""Lists that a sender sends whole: what it does not name any more has ended.

design/hl7v2.md, section 8. A segment that is missing altogether says nothing; one whose code is
``""`` says that the list is empty.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from adapters.hl7v2.message import NULL, Segment
from adapters.hl7v2.senders import Profile

Json = dict[str, Any]

_TERMINOLOGY = "http://terminology.hl7.org/CodeSystem/"
_GONE = frozenset(("inactive", "resolved", "remission", "cancelled", "entered-in-error"))


def _clinical(type: str, code: str) -> Json:
    return {
        "clinicalStatus": {"coding": [{"system": f"{_TERMINOLOGY}{type}-clinical", "code": code}]}
    }


# Segment -> the type of its entries, the field that is "" in an empty list, and what is set in an
# entry that is in the list.
LISTS: Mapping[str, tuple[str, int, Json]] = {
    "AL1": ("AllergyIntolerance", 3, _clinical("allergyintolerance", "active")),
    "DG1": ("Condition", 3, _clinical("condition", "active")),
    "IN1": ("Coverage", 3, {"status": "active"}),
}
# Type -> what is set in an entry that is not in the list any more.
ENDED: Mapping[str, Json] = {
    "AllergyIntolerance": _clinical("allergyintolerance", "inactive"),
    "Condition": _clinical("condition", "resolved"),
    "Coverage": {"status": "cancelled"},
}


def entries(segments: Sequence[Segment], profile: Profile) -> list[Segment]:
    """Return ``segments`` of a list without one that only says that the list is empty."""
    kept = []
    for segment in segments:
        if segment.name in profile.snapshots:
            number = LISTS[segment.name][1]
            segment.read.add(number)
            if segment.raw(number).strip() == NULL:
                continue
        kept.append(segment)
    return kept


def present(name: str, profile: Profile) -> Json:
    """Return what is set in an entry because it is in the list of segments ``name``."""
    return LISTS[name][2] if name in profile.snapshots else {}


def is_current(entry: Mapping[str, Any], visit: str) -> bool:
    """Return whether an entry has not ended yet; a diagnosis, whether it is one of ``visit``
    (``Encounter/a``, or "" for those of none)."""
    codes = {str(entry.get("status", ""))}
    for name in ("clinicalStatus", "verificationStatus"):
        codes |= {str(one.get("code")) for one in entry.get(name, {}).get("coding", ())}
    if entry["resourceType"] == "Condition":
        categories = str(entry.get("category", ""))
        if "encounter-diagnosis" not in categories:
            return False
        if str(entry.get("encounter", {}).get("reference", "")) != visit:
            return False
    return not codes & _GONE
