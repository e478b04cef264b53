"""Sets of codes (``r4/selections.py``) -> filters over the documents of ``concepts.py``."""

from collections.abc import Sequence
from typing import Any

from fhir_server.r4.selections import (
    Active,
    Below,
    Both,
    Codes,
    Either,
    Every,
    Having,
    Shown,
    Untold,
    Without,
    key,
)

Filter = dict[str, Any]

_AFTER = "\x20"  # the first character above the separator of keys and ids
_NEVER: Filter = {"_id": {"$in": []}}
_LAST = "\U0010ffff"


def concept_id(shelf: int, code: str) -> str:
    """Return the ``_id`` of a concept's document."""
    return key(str(shelf), code)


def all_of(shelf: int) -> Filter:
    """Return the filter for all concepts of ``shelf``."""
    return {"_id": {"$gt": concept_id(shelf, ""), "$lt": f"{shelf}{_AFTER}"}}


def codes_filter(codes: Codes, shelf: int) -> Filter:
    """Return the filter for those concepts of ``shelf`` that are among ``codes``, once settled."""
    match codes:
        case frozenset():
            return {"_id": {"$in": sorted(concept_id(shelf, code) for code in codes)}}
        case Every():
            return {}
        case Active():
            return {"inactive": {"$ne": True}}
        case Below(code):
            return {"ancestors": code}
        case Having(property, values):
            return {"keys": _keys_filter(property, values)}
        case Shown(displays):
            return {"display": {"$in": list(displays)}}
        case Both(parts):
            return {"$and": [codes_filter(one, shelf) for one in parts]}
        case Either(parts):
            return {"$or": [codes_filter(one, shelf) for one in parts]}
        case Without(whole, part):
            return {"$and": [codes_filter(whole, shelf), {"$nor": [codes_filter(part, shelf)]}]}
        case Untold():
            return _NEVER
    raise AssertionError(f"{codes} is to be settled first")


def _keys_filter(property: str, values: Sequence[str] | None) -> Filter:
    if values is None:
        return {"$elemMatch": {"$gte": key(property, ""), "$lt": f"{property}{_AFTER}"}}
    return {"$in": [key(property, value) for value in values]}


def words_filter(words: Sequence[str]) -> Filter:
    """Return the filter for concepts with a word that begins so, for each of ``words``, folded."""
    spans = [{"words": {"$elemMatch": {"$gte": one, "$lt": one + _LAST}}} for one in words]
    return {"$and": spans} if len(spans) > 1 else spans[0] if spans else {}


def met_words_filter(words: Sequence[str]) -> Filter:
    """Return the same as :func:`words_filter`, in a form that no index is used for: an array has
    one range of an index only, and another word has given that."""
    found = words_filter(words)
    return {"$nor": [{"$nor": [found]}]} if found else {}
