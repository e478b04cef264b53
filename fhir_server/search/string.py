r"""String parameters: names, addresses, descriptions.

https://hl7.org/fhir/R4/search.html#string

A key is ``folded text SEPARATOR original text``. One index then answers the default search (a range
of folded text), ``:exact`` (an equality) and ``:contains`` (a pattern on the folded half). Folding
takes away case, accents, punctuation and needless white space; see :func:`fold`. The words of a
family or given name after the first are kept in ``[code]:part``, so that either half of *Carreno
Quinones* and *Anne-Marie* finds it, and sorting and ``:exact`` do not see them.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping
from functools import lru_cache
from hashlib import sha256
from itertools import islice
from typing import Any

from fhir_server.outcome import FhirError, Issue, invalid_value
from fhir_server.search.escape import unescape
from fhir_server.search.keys import (
    AFTER,
    SEPARATOR,
    TEXT_MAX,
    Filter,
    on_element,
    regex_text,
    starting_with,
)

MODIFIERS = ("exact", "contains")
PARTS = ":part"
"""The suffix of the field that holds the later words of family names."""

# Combining marks that a search ignores: accents of Latin, Greek and Cyrillic, vowel points of
# Hebrew and Arabic (with hamza and madda over alef), the Arabic lengthening stroke, and invisible
# joiners. Marks of other scripts are letters to their readers: Bangla and Devanagari vowel signs,
# virama, nukta and the Japanese voicing mark stay.
_IGNORED = re.compile(
    "[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
    "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"
    "\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed"
    "\u00ad\u200b-\u200f\u2060\ufeff\ufe00-\ufe0f]+"
)
_ASCII_PUNCTUATION = str.maketrans("-", " ", "!\"#%&'()*,./:;?@[\\]_{}")
_DASH = "Pd"  # the category of hyphens and dashes
_WORD_BREAK = re.compile(r"[\s\-\u2010-\u2015]+")
_HYPHENS = re.compile(r"[\-\u2010-\u2015]+")
_PARTS_MAX = 10  # the longest family names in earnest have six words
_REMEMBERED_CHARACTERS_MAX = 100
_ADDRESS = ("text", "city", "district", "state", "postalCode", "country")


def fold(text: str) -> str:
    """Return ``text`` as the default search compares it.

    Names of codes are in thousands of resources: what is short is remembered.

    Compatibility forms are made one (NFKD, then NFC), case is folded, the marks of ``_IGNORED``
    and punctuation are dropped, white space and dashes are one space between words. Folding
    again changes nothing. A text of nothing else, such as ``-``, keeps its punctuation: it must
    stay findable without being a prefix of everything.
    """
    return _remembered(text) if len(text) <= _REMEMBERED_CHARACTERS_MAX else _folded(text)


def _folded(text: str) -> str:
    if text.isascii():
        lowered = text.lower()
        kept = " ".join(lowered.translate(_ASCII_PUNCTUATION).split())
        return kept or " ".join(lowered.split())
    folded = _IGNORED.sub("", _caseless(text))
    folded = unicodedata.normalize("NFC", folded)
    bare = "".join(_letter(sign) for sign in folded)
    return " ".join(bare.split()) or " ".join(folded.split())


_remembered = lru_cache(maxsize=4096)(_folded)


def _letter(sign: str) -> str:
    category = unicodedata.category(sign)
    return " " if category == _DASH else "" if category.startswith("P") else sign


def _caseless(text: str) -> str:
    # Twice: folding case can compose anew what was taken apart (Unicode, section 3.13, D146).
    for _ in range(2):
        text = unicodedata.normalize("NFKD", text).casefold()
    return unicodedata.normalize("NFKD", text)


def string_key(text: str) -> str:
    """Return the key of ``text``: its folded form and, to tell apart what folds alike, itself."""
    return f"{_beginning(text)}{SEPARATOR}{_original(text)}"


def _beginning(text: str) -> str:
    """Return what of the folded text is kept; what lies far behind it is not even read."""
    return fold(text[: 4 * TEXT_MAX])[:TEXT_MAX]


def _original(text: str) -> str:
    if len(text) <= TEXT_MAX:
        return text
    return "\x1e" + sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _text(text: Any) -> list[str]:
    return [string_key(text)]


def _texts(element: Any, names: tuple[str, ...], lists: tuple[str, ...]) -> list[str]:
    found = [element.get(name) for name in names]
    for name in lists:
        several = element.get(name)
        if type(several) is list:
            found += several
    return [string_key(text) for text in found if type(text) is str]


def _name(name: Any) -> list[str]:
    return _texts(name, ("text", "family"), ("given", "prefix", "suffix"))


def _address(address: Any) -> list[str]:
    return _texts(address, _ADDRESS, ("line",))


INDEXED: Mapping[str, Callable[[Any], list[Any]]] = {
    "HumanName": _name,
    "Address": _address,
    **dict.fromkeys(("string", "markdown", "code", "id"), _text),
}
"""FHIR type -> what is written for a value of it."""


def word_parts(name: Any) -> list[str]:
    """Return the keys of the later words of a family or given name, and of the whole without its
    hyphens; its beginning is found without them."""
    if type(name) is not str or name.isalpha():
        return []  # most names are one word
    starts = islice((found.end() for found in _WORD_BREAK.finditer(name)), _PARTS_MAX)
    folded = [_beginning(name[start:]) for start in starts]
    if _HYPHENS.search(name):
        folded.append(_beginning(_HYPHENS.sub("", name[: 4 * TEXT_MAX])))
    return [part + SEPARATOR for part in folded if part]


def name_parts(name: Any) -> list[str]:
    """Return the same keys of the family name and the given names in a HumanName."""
    given = name.get("given")
    several = given if type(given) is list else []
    return [key for one in (name.get("family"), *several) for key in word_parts(one)]


def compile_string(
    field: str, value: str, modifier: str = "", *, single: bool = False, parts: bool = False
) -> Filter:
    """Return the filter for one string value against the keys at ``field``.

    ``value`` is one alternative, its escapes still in place. ``parts`` says that the words of
    family names are kept beside the keys.

    Raises ``value`` for an empty text, ``too-costly`` for a folded text over ``TEXT_MAX``.
    """
    text = unescape(value)
    folded = fold(text)
    if not folded:
        raise invalid_value("A string", value, "at least one character to look for")
    if modifier == "exact":
        return {field: string_key(text)}
    if len(folded) > TEXT_MAX:
        raise FhirError(
            Issue("too-costly", f"A string to look for has at most {TEXT_MAX} characters.")
        )
    if modifier == "contains":
        # Every key has one SEPARATOR; what stands behind it is not folded.
        pattern = {"$regex": f"^[^{SEPARATOR}]*{regex_text(folded)}"}
        return {field: pattern}
    found = on_element(field, starting_with(folded), single)
    if not parts:
        return found
    return {"$or": [found, on_element(f"{field}{PARTS}", starting_with(folded), False)]}


def compile_equal(field: str, value: str, *, single: bool = False) -> Filter:
    """Return the filter for strings that fold to the same as ``value``."""
    folded = _asked(value)
    return on_element(field, {"$gte": folded + SEPARATOR, "$lt": folded + AFTER}, single)


def compile_ordered(field: str, value: str, operator: str, *, single: bool = False) -> Filter:
    """Return the filter for strings that are ``gt``, ``ge``, ``lt`` or ``le`` than ``value``."""
    folded = _asked(value)
    end = folded + AFTER  # beyond all keys of that text
    bounds = {
        "gt": ("$gte", end),
        "ge": ("$gte", folded),
        "lt": ("$lt", folded),
        "le": ("$lt", end),
    }
    compare, bound = bounds[operator]
    return on_element(field, {compare: bound}, single)


def compile_ending(field: str, value: str) -> Filter:
    """Return the filter for strings that end with ``value``; it looks at all keys."""
    return {field: {"$regex": f"^[^{SEPARATOR}]*{regex_text(_asked(value))}{SEPARATOR}"}}


def _asked(value: str) -> str:
    folded = fold(unescape(value))
    if not folded or len(folded) > TEXT_MAX:
        raise invalid_value("A string", value, f"between one and {TEXT_MAX} characters")
    return folded
