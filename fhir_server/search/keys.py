"""The text of index keys: separators, lengths, ranges of text, and filters on ranges.

Whatever is longer than :data:`TEXT_MAX` is cut, and a hash of the whole takes the place of the
rest: equal texts have equal keys, and different texts have different ones. Both halves of a
parameter use the same functions, so they agree.
"""

from collections.abc import Mapping
from hashlib import sha256
from math import ceil
from typing import Any

Filter = dict[str, Any]
"""A MongoDB filter. What came from the client is in it as a scalar value, never as a key."""

# What the keys of each kind of parameter look like, as a number. Whoever changes what is written
# raises it: servers then write the keys of stored resources anew (`digests.py`).
FORMS = {
    "token": "2",
    "string": "2",
    "date": "3",  # long ranges have one more member
    "number": "1",
    "quantity": "1",
    "uri": "1",
    "reference": "1",
    "composite": "1",
    "special": "1",
    "compartments": "1",
    "places": "1",  # what some types belong to besides (r4/compartments.py)
    "shared": "1",  # those of a Provenance, which are those of its targets
    "words": "2",
    "contained": "1",
}

NOTHING: Filter = {"_id": {"$in": []}}
"""What nothing meets."""

SEPARATOR = "\x1f"  # below every character that FHIR allows in a code, a uri or a line of text
AFTER = "\x20"  # the first character above SEPARATOR: the end of a range over what follows it
LAST = "\U0010ffff"  # above every character that a text can go on with

# Characters of one text in a key. Long enough for any code or address in earnest, short enough
# that a key stays in one page of the index.
TEXT_MAX = 1000
_KEPT = 400
_HASHED = "\x1e"

# Every character that a regular expression could take for more than itself.
_ESCAPES = {ord(sign): f"\\{sign}" for sign in r"\.^$*+?{}[]()|/-#&~<>=!:,@%;'\"` "}


def shortened(text: str) -> str:
    """Return ``text``, or its beginning and its hash if it is over :data:`TEXT_MAX`."""
    if len(text) <= TEXT_MAX:
        return text
    digest = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{text[:_KEPT]}{_HASHED}{digest}"


def starting_with(prefix: str) -> Filter:
    """Return the condition that a text begins with ``prefix``, as a range of an index."""
    return {"$gte": prefix, "$lt": prefix + LAST}


def beginning(prefix: str, *, ignoring_case: bool = False) -> Filter:
    """Return the condition that a text begins with ``prefix``, which is taken as it is."""
    options = {"$options": "i"} if ignoring_case else {}
    return {"$regex": f"^{regex_text(prefix)}", **options}


def regex_text(text: str) -> str:
    """Return the regular expression that matches ``text`` and nothing else."""
    return text.translate(_ESCAPES).replace("\x00", "\\x00")


def on_element(field: str, condition: Filter, single: bool) -> Filter:
    """Return the filter that one element of ``field`` (or its only value) meets ``condition``.

    ``$elemMatch`` keeps both bounds of a range on one element of the array.
    """
    return {field: condition if single else {"$elemMatch": condition}}


def on_range(field: str, conditions: Mapping[str, Any], single: bool) -> Filter:
    """Return the filter that one range at ``field`` meets ``conditions`` on its members.

    ``conditions`` is such as ``{"l": {"$gte": 1}, "h": {"$lt": 2}}``; ``$or`` may be among them.
    A range that stands alone is asked by dotted names: a compound index has no more than one
    array, and this is none.
    """
    if not single:
        return {field: {"$elemMatch": dict(conditions)}}
    return {
        **{
            f"{field}.{member}": condition
            for member, condition in conditions.items()
            if member != "$or"
        },
        **(
            {"$or": [on_range(field, branch, True) for branch in conditions["$or"]]}
            if "$or" in conditions
            else {}
        ),
    }


def any_of(filters: list[Filter]) -> Filter:
    """Return the filter that is met where one of ``filters`` is, equalities as one ``$in``."""
    equal: dict[str, list[Any]] = {}
    others: list[Filter] = []
    for one in filters:
        field, value = next(iter(one.items()))
        if len(one) == 1 and isinstance(value, str):
            equal.setdefault(field, []).append(value)
        elif len(one) == 1 and isinstance(value, dict) and "$in" in value:
            equal.setdefault(field, []).extend(value["$in"])
        else:
            others.append(one)
    joined: list[Filter] = [
        {field: values[0] if len(values) == 1 else {"$in": list(dict.fromkeys(values))}}
        for field, values in equal.items()
    ]
    branches = joined + others
    return branches[0] if len(branches) == 1 else {"$or": branches}


# A pattern is held against every key of an index, one value of many is a point in it. Measured on
# 100,000 documents: 20 ms for a pattern, 4 µs for a point at most.
_PATTERN_WEIGHT = 40
_POINTS_WEIGHT = 0.25


def conditions_in(filter: Any) -> int:
    """Return how many values ``filter`` compares with, in comparisons with a single value."""
    return ceil(_weight(filter))


def _weight(filter: Any) -> float:
    if isinstance(filter, list):
        return sum(map(_weight, filter))
    if not isinstance(filter, dict):
        return 1
    return sum(
        _PATTERN_WEIGHT
        if name == "$regex"
        else max(1, len(below) * _POINTS_WEIGHT)
        if name == "$in"
        else _weight(below)
        for name, below in filter.items()
    )
