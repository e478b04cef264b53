"""The rules of a sender's profile that run on a message before it is mapped; and its own rows.

design/hl7v2.md, sections 17 and 18. They are data: each names a verb and the places it is about.

=============  ================================  ==================================================
``do``         members                           what happens
=============  ================================  ==================================================
``move``       ``from``, ``to``                  the value goes, if ``to`` says nothing
``copy``       ``from``, ``to``                  the same, and ``from`` stays
``set``        ``field``, ``value``              the value becomes that one
``default``    ``field``, ``value``              it does where nothing is said
``drop``       ``segment`` or ``field``          it goes
``rename``     ``segment``, ``to``               the segment gets another name
``trim``       ``field``                         blanks around it go
``upper``      ``field``                         in capitals
``replace``    ``field``, ``pattern``, ``with``  RE2, every match
``translate``  ``field``, ``map``                by a ConceptMap; a code without a target stays
=============  ================================  ==================================================

A field is ``PID-3`` or, in every repetition, ``PID-3.4`` or ``PID-3.4.1``. ``when`` may name
a type, ``ORU`` or ``ORU^R01``.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import re2

from adapters.hl7v2.codes import cwe
from adapters.hl7v2.datatypes import cx, date, date_time, readable, text, whole
from adapters.hl7v2.draft import Draft
from adapters.hl7v2.message import NULL, Delimiters, Message, Segment, escaped, plain
from adapters.hl7v2.senders import Profile

Edit = Callable[[str], str]
_PLACE = re2.compile(
    r"([A-Z][A-Z0-9]{2})-([1-9][0-9]{0,2})(?:\.([1-9][0-9]?))?(?:\.([1-9][0-9]?))?"
)


@dataclass(frozen=True, slots=True)
class Place:
    """A field, or a component or subcomponent in each of its repetitions; 0 for the whole."""

    segment: str
    field: int
    component: int = 0
    subcomponent: int = 0


def place_of(written: str) -> Place | None:
    """Return the place that is written so; None if it is none.

    >>> place_of("PID-3.4")
    Place(segment='PID', field=3, component=4, subcomponent=0)
    """
    found = _PLACE.fullmatch(written)
    if not found:
        return None
    segment, *numbers = found.groups()
    field, component, subcomponent = (int(number or 0) for number in numbers)
    return Place(segment, field, component, subcomponent)


# --------------------------------------------------------------------------------------- running


def prepared(message: Message, profile: Profile) -> Message:
    """Return ``message`` after the rules of ``before``, in their order. ``message`` stays as it is.

    A rule that :func:`faults` would name does nothing.
    """
    if not profile.before:
        return message
    segments = [
        Segment(list(segment.fields), segment.delimiters, segment.number)
        for segment in message.segments
    ]
    for rule in applicable(message, profile):
        segments = _VERBS[rule["do"]](segments, rule, profile)
    return replace(message, segments=tuple(segments))


def applicable(message: Message, profile: Profile) -> list[Mapping[str, Any]]:
    """Return the rules of ``before`` that are for ``message``, in their order."""
    return [
        rule for rule in profile.before if _holds(rule.get("when"), message) and not _fault(rule, 0)
    ]


def _holds(when: Any, message: Message) -> bool:
    wanted = when.get("type", "") if isinstance(when, Mapping) else ""
    return wanted in ("", message.type, f"{message.type}^{message.event}")


def _edited(segments: list[Segment], written: Any, edit: Edit) -> list[Segment]:
    place = place_of(str(written))
    for segment in segments:
        if place and segment.name == place.segment:
            _edit(segment, place, edit)
    return segments


def _edit(segment: Segment, place: Place, edit: Edit) -> None:
    fields, delimiters = segment.fields, segment.delimiters
    fields.extend([""] * (place.field + 1 - len(fields)))
    if not place.component:
        fields[place.field] = edit(fields[place.field])
        return
    mark = delimiters.repetition
    parts = fields[place.field].split(mark) if mark else [fields[place.field]]
    fields[place.field] = mark.join(_edited_part(part, place, edit, delimiters) for part in parts)


def _edited_part(text: str, place: Place, edit: Edit, delimiters: Delimiters) -> str:
    components = text.split(delimiters.component) if delimiters.component else [text]
    components.extend([""] * (place.component - len(components)))
    leaf = components[place.component - 1]
    if place.subcomponent:
        leaves = leaf.split(delimiters.subcomponent) if delimiters.subcomponent else [leaf]
        leaves.extend([""] * (place.subcomponent - len(leaves)))
        leaves[place.subcomponent - 1] = edit(leaves[place.subcomponent - 1])
        leaf = delimiters.subcomponent.join(leaves)
    else:
        leaf = edit(leaf)
    components[place.component - 1] = leaf
    return delimiters.component.join(components)


_Rule = Mapping[str, Any]


def _carry(segments: list[Segment], rule: _Rule, *, away: bool) -> list[Segment]:
    source, target = place_of(str(rule.get("from"))), place_of(str(rule.get("to")))
    if source is None or target is None:
        return segments
    for segment in segments:
        if segment.name != source.segment:
            continue
        found: list[str] = []
        _edit(segment, source, lambda leaf, found=found: found.append(leaf) or leaf)  # type: ignore[misc]
        value = next((leaf for leaf in found if leaf and leaf != NULL), "")
        if not value:
            continue
        goal = segment if target.segment == segment.name else _first(segments, target.segment)
        if goal is not None:
            _edit(goal, target, lambda leaf, value=value: leaf or value)  # type: ignore[misc]
            if away:
                _edit(segment, source, lambda leaf: "")
    return segments


def _first(segments: list[Segment], name: str) -> Segment | None:
    return next((segment for segment in segments if segment.name == name), None)


def _move(segments: list[Segment], rule: _Rule, profile: Profile) -> list[Segment]:
    return _carry(segments, rule, away=True)


def _copy(segments: list[Segment], rule: _Rule, profile: Profile) -> list[Segment]:
    return _carry(segments, rule, away=False)


def _set(segments: list[Segment], rule: _Rule, profile: Profile) -> list[Segment]:
    value = escaped(str(rule.get("value", "")), segments[0].delimiters)
    return _edited(segments, rule.get("field"), lambda leaf: value)


def _default(segments: list[Segment], rule: _Rule, profile: Profile) -> list[Segment]:
    value = escaped(str(rule.get("value", "")), segments[0].delimiters)
    return _edited(segments, rule.get("field"), lambda leaf: leaf if leaf.strip() else value)


def _drop(segments: list[Segment], rule: _Rule, profile: Profile) -> list[Segment]:
    if "segment" in rule:
        name = rule["segment"]
        return [one for one in segments if one.name != name or one.name == "MSH"]
    return _edited(segments, rule.get("field"), lambda leaf: "")


def _rename(segments: list[Segment], rule: _Rule, profile: Profile) -> list[Segment]:
    name, new = rule.get("segment"), str(rule.get("to"))
    return [
        Segment([new, *one.fields[1:]], one.delimiters, one.number)
        if one.name == name and one.name != "MSH"
        else one
        for one in segments
    ]


def _trim(segments: list[Segment], rule: _Rule, profile: Profile) -> list[Segment]:
    return _edited(segments, rule.get("field"), str.strip)


def _upper(segments: list[Segment], rule: _Rule, profile: Profile) -> list[Segment]:
    return _edited(segments, rule.get("field"), str.upper)


def _replace(segments: list[Segment], rule: _Rule, profile: Profile) -> list[Segment]:
    try:
        pattern = re2.compile(str(rule.get("pattern")))
    except re2.error:
        return segments
    written = escaped(str(rule.get("with", "")), segments[0].delimiters)
    return _edited(segments, rule.get("field"), lambda leaf: pattern.sub(lambda _: written, leaf))


def _translate(segments: list[Segment], rule: _Rule, profile: Profile) -> list[Segment]:
    table = profile.translations.get(str(rule.get("map")), {})
    delimiters = segments[0].delimiters

    def edit(leaf: str) -> str:
        found = table.get(plain(leaf, delimiters))
        return escaped(found, delimiters) if found is not None else leaf

    return _edited(segments, rule.get("field"), edit)


_VERBS: dict[str, Callable[[list[Segment], _Rule, Profile], list[Segment]]] = {
    "move": _move, "copy": _copy, "set": _set, "default": _default, "drop": _drop,
    "rename": _rename, "trim": _trim, "upper": _upper, "replace": _replace,
    "translate": _translate,
}  # fmt: skip
# Verb -> the members that it needs; those in capitals are places.
_MEMBERS: dict[str, tuple[set[str], ...]] = {
    "move": ({"from", "to"},), "copy": ({"from", "to"},), "set": ({"field", "value"},),
    "default": ({"field", "value"},), "drop": ({"segment"}, {"field"}),
    "rename": ({"segment", "to"},), "trim": ({"field"},), "upper": ({"field"},),
    "replace": ({"field", "pattern", "with"},), "translate": ({"field", "map"},),
}  # fmt: skip


def faults(profile: Profile) -> list[str]:
    """Return what is wrong with the rules and rows of a profile, one sentence for each."""
    found = [_fault(rule, number) for number, rule in enumerate(profile.before, 1)]
    for number, row in enumerate(profile.rows, 1):
        if place_of(row["field"]) is None or row["as"] not in CONVERTERS or not _goal(row["to"]):
            found.append(f"Row {number} names no field, no converter or no element.")
    return [fault for fault in found if fault]


def _fault(rule: _Rule, number: int) -> str:
    verb = rule.get("do")
    if verb not in _VERBS:
        return f"Rule {number} has no verb of {', '.join(_VERBS)}."
    members = rule.keys() - {"do", "when"}
    if members not in _MEMBERS[verb]:
        return f"Rule {number} ({verb}) has other members than it needs."
    places = [rule[name] for name in ("field", "from") if name in rule]
    if verb in ("move", "copy"):
        places.append(rule["to"])
    if any(place_of(str(place)) is None for place in places):
        return f"Rule {number} ({verb}) names a field that is none, such as PID-3 or PID-3.4."
    if verb == "replace":
        try:
            re2.compile(str(rule["pattern"]))
        except re2.error:
            return f"Rule {number} has a pattern that is none."
    return ""


# ------------------------------------------------------------------------------------------- rows

# Name in a row -> converter, and the type of an extension's value.
CONVERTERS: Mapping[str, tuple[Callable[..., Any], str]] = {
    "string": (readable, "valueString"),
    "code": (text, "valueCode"),
    "concept": (cwe, "valueCodeableConcept"),
    "identifier": (cx, "valueIdentifier"),
    "date": (date, "valueDate"),
    "dateTime": (date_time, "valueDateTime"),
    "integer": (whole, "valueInteger"),
}
_GOAL = re2.compile(r"([A-Z][A-Za-z]+)\.([a-z][A-Za-z]*)(?:\[(\S+)\])?")


def _goal(written: str) -> tuple[str, str, str] | None:
    found = _GOAL.fullmatch(written)
    return (found.group(1), found.group(2), found.group(3) or "") if found else None


def add_rows(draft: Draft, rows: Iterable[Mapping[str, str]]) -> None:
    """Add what a profile's own rows say: to the last resource of the type before the segment."""
    at = {id(segment): n for n, segment in enumerate(draft.message.segments)}
    where = {segment.where: at[id(segment)] for segment in draft.message.segments}
    for row in rows:
        place, goal, chosen = place_of(row["field"]), _goal(row["to"]), CONVERTERS.get(row["as"])
        if place is None or goal is None or chosen is None:
            continue
        for segment in draft.message.all(place.segment):
            value = segment.value(place.field)
            if value is None:
                continue
            draft.scene.at(segment, place.field)
            if place.component:
                value = value.subs(place.component)
            made = chosen[0](value, draft.scene)
            before = next(
                (
                    n
                    for n in reversed(range(len(draft.changes)))
                    if draft.changes[n].type == goal[0]
                    and where.get(draft.changes[n].source, 0) <= at[id(segment)]
                ),
                None,
            )
            if made is not None and before is not None:
                _put(draft, before, goal, made, chosen[1])


def _put(draft: Draft, at: int, goal: tuple[str, str, str], made: Any, value: str) -> None:
    change = draft.changes[at]
    _, element, url = goal
    if element == "extension":
        places = {f"extension[{url}]": [{"url": url, value: made}]}
    elif element == "identifier":
        places = {"identifier[+]": [*change.set.get("identifier[+]", []), made]}
    else:
        places = {element: made}
    draft.changes[at] = replace(change, set={**change.set, **places})
