"""Change: what a message asks of one resource; and how it meets what is stored.

design/hl7v2.md, sections 8 and 9. A change speaks of *places*, each a path into the resource:

==========================  =================================================================
``gender``                  the element
``period.start``            an element of an element
``telecom[pid-13]``         the members of a list that have an id ``pid-13.1``, ``pid-13.2`` …
``extension[https://…]``    the member of a list that has this url (or, of codings, system)
``identifier[+]``           a union: members not yet there are added, none is taken away
``result[-]``               these members are taken away
==========================  =================================================================

A reference to a resource of the same message is a *handle*, ``change:3``, until its id is known.
"""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any

Json = dict[str, Any]

NAMESPACE = uuid.UUID("5c1dd4a8-6ff5-5d0b-9e83-4b5c5a2a7a02")
HANDLE = "\x01change:"  # no value of a message has control characters

_STEMS = {
    "deceased": "Boolean DateTime",
    "multipleBirth": "Boolean Integer",
    "value": "Quantity CodeableConcept String Boolean Integer Range Ratio SampledData Time "
    "DateTime Period",
    "effective": "DateTime Period Timing Instant",
    "onset": "DateTime Age Period Range String",
    "abatement": "DateTime Age Period Range String",
    "performed": "DateTime Period String Age Range",
    "occurrence": "DateTime Period Timing String",
    "medication": "CodeableConcept Reference",
    "collected": "DateTime Period",
}
# Element of a choice -> its other types: a resource has one of them.
CHOICES: Mapping[str, tuple[str, ...]] = {
    stem + one: tuple(stem + other for other in types.split() if other != one)
    for stem, types in _STEMS.items()
    for one in types.split()
}


class Mode(StrEnum):
    """How the fields of a message meet what is stored; section 8 has the table."""

    MERGE = "merge"
    REPLACE = "replace"
    FILL = "fill"


@dataclass(frozen=True, slots=True)
class Stamp:
    """The age of a statement: when it was *said*, when it was *sent*. FHIR dateTimes, or ""."""

    said: str = ""
    sent: str = ""


@dataclass(frozen=True, slots=True)
class Key:
    """How a resource is found again.

    ``identifiers`` (system, value): if a stored resource of the type carries one of them (and, if
    ``codes`` is not empty, one of these codes: ``system|code``, or a text), it is that one,
    whoever wrote it. Otherwise it is the one with the id that :func:`id_of` makes of ``scope`` and
    ``parts``; a part that is a handle stands for the id of that change's resource.
    ``open_of`` is the handle of a patient whose one unfinished Encounter is meant, if no other
    way finds one.
    A Patient has ``identifiers`` only; see ``identity.py``. Its id is drawn.
    """

    scope: str
    parts: tuple[str, ...]
    identifiers: tuple[tuple[str, str], ...] = ()
    codes: tuple[str, ...] = ()
    open_of: str = ""


# What is stored of a resource, the change -> the resource. For what the rows cannot say, such as
# the history of an encounter's status.
Merging = Callable[[Json, "Change", bool], None]


@dataclass(frozen=True, slots=True)
class Change:
    """What a message asks of one resource. Making it reads nothing.

    ``handle`` is unique in the message. ``key`` says how the resource is found, ``mode`` how
    ``set`` (place -> value) meets what is stored, ``remove`` the places whose field was ``""``,
    ``owned`` all places that the table speaks for. ``defaults`` are places that only a new
    resource needs. ``after`` are functions ``(resource, change, late)`` that finish the merged
    resource in place. ``source`` is ``OBX[3]``, for issues and for the operator. ``subject`` is
    the handle of the patient whose resource it is; "" for none.
    """

    type: str
    handle: str
    key: Key
    mode: Mode
    set: Mapping[str, Any]
    stamp: Stamp
    source: str
    remove: frozenset[str] = frozenset()
    owned: frozenset[str] = frozenset()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    after: tuple[Merging, ...] = ()
    subject: str = ""
    timeless: bool = False  # never late: merges and moves
    only_stored: bool = False  # it makes no new resource


@dataclass(frozen=True, slots=True)
class Instruction:
    """What a message asks beyond single resources (section 10, the table of merges).

    ==================  =======================================================================
    ``merge``           the Patients with one of ``prior`` are merged into ``target``
    ``renumber``        the person stays, found by an old number: ``prior`` are the new ones, and
                        if another Patient has them, the message is held
    ``link``, ``unlink``  ``Patient.link`` ``seealso`` between ``target`` and ``other``
    ``move``            what names ``prior`` (of ``type``) names ``target`` from now on
    ``rename``          the same for the resource of ``type``
    ``repatient``       the Encounter with ``prior``, and what names it, goes to ``target``
    ``hold``            a person must decide
    ``snapshot``        the message has the whole list of ``type`` of the patient ``target`` (in the
                        visit ``other``): entries of its sender that it does not name have ended
    ==================  =======================================================================

    ``target`` and ``other`` are handles of changes of this message.
    """

    kind: str
    source: str
    target: str = ""
    other: str = ""
    type: str = "Patient"
    prior: tuple[tuple[str, str], ...] = ()
    text: str = ""


def id_of(type: str, scope: str, parts: tuple[str, ...]) -> str:
    """Return the id of a new resource: two processes that make the same one make one document.

    >>> id_of("Observation", "urn:oid:1.2", ("F1", "2160-0"))
    '85625baf-12a8-5679-b6f1-a31e13324ee2'
    """
    return str(uuid.uuid5(NAMESPACE, "\x1f".join((type, scope, *parts))))


# --------------------------------------------------------------------------------------- merging


def merged(
    stored: Json | None,
    change: Change,
    origin: Stamp | None = None,
    places: Mapping[str, Any] | None = None,
) -> Json | None:
    """Return the resource as it is after ``change``; None if an older statement changes nothing.

    ``stored`` is None for a new resource; it is not changed, and the result shares with it and with
    ``change`` what is the same. ``origin`` is the stamp of the last
    statement that the stored resource has: if ``change`` is older, a MERGE change only fills gaps
    and a REPLACE change does nothing. ``places`` stand for ``change.set``: the same with handles
    replaced, see :func:`linked_places`.
    """
    setting = change.set if places is None else places
    late = stored is not None and not change.timeless and is_older(change.stamp, origin)
    mode = change.mode
    if late and mode is Mode.REPLACE:
        return None
    if late and mode is Mode.MERGE:
        mode = Mode.FILL
    resource: Json = dict(stored) if stored else {"resourceType": change.type}
    if mode is not Mode.FILL:
        gone = change.remove if mode is Mode.MERGE else change.owned | change.remove
        for place in gone:
            if place not in setting and stored:
                _take(resource, place)
    fill = mode is Mode.FILL
    for place, value in setting.items():
        if place.isalpha():  # most are one element: nothing to look at in a new resource
            if stored is None:
                resource[place] = value
                continue
            _settle(resource, place, setting, fill=fill)
        _put(resource, place, value, fill=fill)
    for place, value in change.defaults.items():
        _put(resource, place, value, fill=True)
    if change.after:
        resource = _copied(resource)
    for finish in change.after:
        finish(resource, change, late or (mode is Mode.FILL and stored is not None))
    return resource


def _settle(resource: Json, place: str, setting: Mapping[str, Any], *, fill: bool) -> None:
    """Take away what cannot stand beside what is set at ``place``: another choice of type, and
    the extensions of the primitive that was there."""
    if fill or place.endswith("]") or "." in place:
        return
    for other in CHOICES.get(place, ()):
        if other not in setting:
            resource.pop(other, None)
    if not place.startswith("_") and f"_{place}" not in setting:
        resource.pop(f"_{place}", None)


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copied(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_copied(member) for member in value]
    return value


def _put(resource: Json, place: str, value: Any, *, fill: bool) -> None:
    parent, name, part = _found(resource, place, make=True)
    if not part:
        taken = name in parent or any(other in parent for other in CHOICES.get(name, ()))
        if not fill or not taken:
            parent[name] = value
        return
    members: list[Any] = list(parent.get(name) or [])
    if part == "-":
        gone = {_sameness(member) for member in value}
        parent[name] = [member for member in members if _sameness(member) not in gone]
        if not parent[name]:
            del parent[name]
        return
    if part == "+":
        parent[name] = united(members, value if isinstance(value, list) else [value])
        return
    if fill and any(_owns(part, member) for member in members):
        return
    # They stay where they were: what comes out equal has to look so.
    kept: list[Any] = []
    at = len(members)
    for member in members:
        if not _owns(part, member):
            kept.append(member)
        elif at == len(members):
            at = len(kept)
    kept[at:at] = value if isinstance(value, list) else [value]
    parent[name] = kept


def _take(resource: Json, place: str) -> None:
    parent, name, part = _found(resource, place, make=False)
    if name not in parent or part in ("+", "-"):
        return
    if not part:
        del parent[name]
    else:
        kept = [member for member in parent[name] if not _owns(part, member)]
        if kept:
            parent[name] = kept
        else:
            del parent[name]
    if parent is not resource and not parent:
        _prune(resource)


def _prune(resource: Json) -> None:
    for name in [name for name, value in resource.items() if value == {}]:
        del resource[name]


@lru_cache(maxsize=4096)
def _parsed(place: str) -> tuple[str, tuple[str, ...], str, str]:
    """Return the first element of ``place``, the elements above the last, the last, the part."""
    path, _, part = place.partition("[")
    *above, name = path.split(".")
    return path.partition(".")[0], tuple(above), name, part[:-1]


def _found(resource: Json, place: str, *, make: bool) -> tuple[Json, str, str]:
    """Return the object that has the last element of ``place``, its name, and the part."""
    _, above, name, part = _parsed(place)
    parent = resource
    for step in above:
        inner = parent.get(step)
        inner = dict(inner) if isinstance(inner, dict) else {}
        if make or step in parent:
            parent[step] = inner
        parent = inner
    return parent, name, part


def _is_keyed(part: str) -> bool:
    """Return whether ``part`` names members by their url or system."""
    return ":" in part


def _owns(part: str, member: Any) -> bool:
    if not isinstance(member, dict):
        return False
    if _is_keyed(part):
        return part in (member.get("url"), member.get("system"))
    return str(member.get("id", "")).startswith(part + ".")


def united(members: list[Any], more: list[Any]) -> list[Any]:
    """Return ``members`` and those of ``more`` that are not among them yet.

    Two identifiers are the same by system and value, two references by their target: the first
    stays, and gets the elements that only the other has.
    """
    result = list(members)
    places = {_sameness(member): at for at, member in enumerate(result)}
    for member in more:
        key = _sameness(member)
        if key not in places:
            places[key] = len(result)
            result.append(member)
        elif isinstance(member, dict):
            result[places[key]] = {**member, **result[places[key]]}
    return result


def _sameness(member: Any) -> Any:
    if not isinstance(member, dict):
        return str(member)
    if "value" in member:
        return ("value", member.get("system", ""), str(member["value"]))
    if "reference" in member:
        return ("reference", member["reference"])
    return repr(member)


# Elements that may refer to a resource of the same message.
REFERRING = frozenset(
    "subject patient beneficiary subscriber encounter context basedOn replaces partOf specimen "
    "result request authorizingPrescription supportingInfo account diagnosis participant "
    "hasMember".split()
)


def linked_places(places: Mapping[str, Any], references: Mapping[str, str]) -> dict[str, Any]:
    """Return ``places`` with the handles replaced, in the places that may have one."""
    return {
        place: linked(value, references) if _parsed(place)[0] in REFERRING else value
        for place, value in places.items()
    }


def linked(value: Any, references: Mapping[str, str]) -> Any:
    """Return ``value`` with each handle that is a reference replaced by ``Type/id``.

    >>> linked({"subject": {"reference": "change:0"}}, {"change:0": "Patient/a"})
    {'subject': {'reference': 'Patient/a'}}
    """
    if isinstance(value, dict):
        return {
            name: references.get(member, member)
            if isinstance(member, str)
            else linked(member, references)
            for name, member in value.items()
        }
    if isinstance(value, list):
        return [linked(member, references) for member in value]
    return value


def known_in(value: Any, directory: Mapping[tuple[str, str, str], str]) -> Any:
    """Return ``value`` with a literal reference beside each logical one that is in ``directory``,
    which is (type, system, value) -> ``Type/id``."""
    if isinstance(value, list):
        return [known_in(member, directory) for member in value]
    if not isinstance(value, dict):
        return value
    identifier, type = value.get("identifier"), value.get("type")
    if isinstance(identifier, dict) and isinstance(type, str):
        key = (type, str(identifier.get("system", "")), str(identifier.get("value", "")))
        if key in directory:
            return {"reference": directory[key], **value}
    return {name: known_in(member, directory) for name, member in value.items()}


# ------------------------------------------------------------------------------------------- age


def is_older(stamp: Stamp, origin: Stamp | None) -> bool:
    """Return whether ``stamp`` is of a statement older than ``origin``.

    *Said* is compared if both have it, then *sent*, always at the coarser precision of the two.
    Equal is not older; what cannot be compared is not older.
    """
    if origin is None:
        return False
    for mine, theirs in ((stamp.said, origin.said), (stamp.sent, origin.sent)):
        if mine and theirs:
            order = _compared(mine, theirs)
            if order:
                return order < 0
    return False


def _compared(left: str, right: str) -> int:
    """Return -1, 0 or 1 for two FHIR dateTimes, at the precision of the coarser one."""
    if "T" in left and "T" in right:
        first, second = _instant(left), _instant(right)
        if first and second:
            if ("." in left) != ("." in right):
                first, second = first.replace(microsecond=0), second.replace(microsecond=0)
            return (first > second) - (first < second)
    length = min(len(left), len(right), 10)
    one, other = left[:length], right[:length]
    return (one > other) - (one < other)


def _instant(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
        # Without its zone: an aware time would be shifted once more when it is compared.
        return moment.replace(tzinfo=None) - (moment.utcoffset() or timedelta())
    except (ValueError, OverflowError):
        return None
