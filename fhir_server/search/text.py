"""``_text`` and ``_content``: words of the narrative, and of the whole resource.

https://hl7.org/fhir/R4/search.html#content

The keys are distinct words, folded as strings are: those of the narrative in ``_text``, all
further ones in ``_content``, so that no word is there twice. What nobody reads is left out:
addresses, dates, references, data in base64.

=======================  ==================================================
``bone metastasis``      both words, wherever they stand
``bone AND liver``       the same; between marks of quotation as well
``bone OR liver``        one of them
``(a OR b) AND NOT c``   parentheses; NOT takes away
``metasta*``             words that begin so
=======================  ==================================================
"""

import html
import re
from itertools import islice
from typing import Any

from fhir_server.outcome import FhirError, invalid_value
from fhir_server.search.escape import unescape
from fhir_server.search.keys import Filter, on_element, starting_with
from fhir_server.search.string import fold

TEXT, CONTENT = "_text", "_content"

# Together some ten pages; a discharge summary has about 600 different words.
WORDS_MAX = 2000
_WORD_MAX = 64
_CHARACTERS_MAX = 200_000
_DEPTH_MAX = 10
_TERMS_MAX = 100

# White space and punctuation. Not the joiners of Bangla and Persian, which stand inside words.
_BREAK = re.compile(
    "[\\s\x00-\x2f:-@\\[-`{-\x7f\u00a0-\u00a9\u00ab-\u00b1\u00b4\u00b6-\u00b9\u00bb-\u00bf"
    "\u060c\u061b\u061f\u0964\u0965\u2000-\u200a\u2010-\u205f\u3000-\u303f]+"
)
# The same for a text of ASCII alone, in lower case: most texts are, and this takes a tenth.
_ASCII_WORDS = "".join(chr(code).lower() if chr(code).isalnum() else " " for code in range(128))
_TAG = re.compile(r"<[^<>]*>")
_LEFT_OUT = frozenset(
    ("resourceType", "id", "meta", "div", "system", "url", "reference", "data", "contentType")
)
_ADDRESSES = ("http://", "https://", "urn:")
_QUERY = re.compile(r"[()]|[^()\s]+")


def words(text: str) -> list[str]:
    """Return the words of ``text``, folded, in their order."""
    text = text[:_CHARACTERS_MAX]
    if text.isascii():
        found = text.translate(_ASCII_WORDS).split()
        return found if len(text) <= _WORD_MAX else [word[:_WORD_MAX] for word in found]
    folded = (fold(part)[:_WORD_MAX] for part in _BREAK.split(text))
    return [word for word in folded if word]


def text_keys(resource: dict[str, Any]) -> dict[str, list[str]]:
    """Return the words of ``resource``, by the field of ``keys`` that they are written to."""
    told = _told(resource)
    texts: list[str] = []
    _gather({name: value for name, value in resource.items() if name != TEXT[1:]}, texts)
    further: dict[str, None] = {}
    whole = "\n".join(texts)
    if whole.isascii() and len(whole) <= _CHARACTERS_MAX:
        further = dict.fromkeys(words(whole))
        texts = []
    for text in texts:
        further.update(dict.fromkeys(words(text)))
        if len(further) >= WORDS_MAX + len(told):
            break
    content = [word for word in further if word not in told] if told else list(further)
    found = {TEXT: list(told), CONTENT: content[:WORDS_MAX]}
    return {field: each for field, each in found.items() if each}


def _told(resource: dict[str, Any]) -> dict[str, None]:
    """Return the distinct words of the narrative, as many as are kept."""
    text = resource.get("text")
    div = text.get("div") if type(text) is dict else None
    if type(div) is not str:
        return {}
    narrative = _TAG.sub(" ", div[: 4 * _CHARACTERS_MAX])
    told = dict.fromkeys(words(html.unescape(narrative)))
    return told if len(told) <= WORDS_MAX else dict.fromkeys(islice(told, WORDS_MAX))


def _gather(value: Any, texts: list[str]) -> None:
    """Add to ``texts`` those at and below ``value`` that a person may look for."""
    if type(value) is dict:
        for name, below in value.items():
            if name in _LEFT_OUT:
                continue
            kind = type(below)
            if kind is str:
                # Most begin with another letter than a machine's: they are not looked at twice.
                if not ((first := below[:1]) in "hu" or first.isdigit()) or not _is_machine(below):
                    texts.append(below)
            elif kind is dict or kind is list:
                _gather(below, texts)
    elif type(value) is list:
        for item in value:
            _gather(item, texts)
    elif type(value) is str and not _is_machine(value):
        texts.append(value)


def _is_machine(text: str) -> bool:
    """Whether ``text`` is an address, or a date or time."""
    if text[:1].isdigit():
        return (
            text[:4].isdigit()
            and text[4:5] in ("", "-")
            and len(text) in (4, 7, 10, 20, 24, 25, 29)
        )
    return text.startswith(_ADDRESSES)


def compile_words(code: str, value: str) -> Filter:
    """Return the filter for one value of ``_text`` or ``_content``; escapes are still in place.

    Raises ``value`` for a value without words and for parentheses that do not pair.
    """
    return _Reader(code, unescape(value)).whole()


class _Reader:
    """Reads what is asked for, by recursive descent: OR of AND of words and parentheses."""

    def __init__(self, code: str, text: str) -> None:
        self._code, self._text = code, text
        terms = _QUERY.findall(text.replace('"', " "))
        self._terms = [term for term in terms if term in "()" or any(words(term))]
        self._at = 0

    def whole(self) -> Filter:
        """Return the filter of everything that was asked."""
        if len(self._terms) > _TERMS_MAX:
            raise self._wrong()
        found = self._either(0)
        if self._at < len(self._terms):
            raise self._wrong()
        return found

    def _wrong(self) -> FhirError:
        expected = f"up to {_TERMS_MAX} words with AND, OR, NOT and parentheses"
        return invalid_value(self._code, self._text, expected)

    def _next(self) -> str:
        return self._terms[self._at] if self._at < len(self._terms) else ""

    def _either(self, depth: int) -> Filter:
        found = [self._all(depth)]
        while self._next().upper() == "OR":
            self._at += 1
            found.append(self._all(depth))
        return found[0] if len(found) == 1 else {"$or": found}

    def _all(self, depth: int) -> Filter:
        found = [self._one(depth)]
        while (term := self._next()) and term != ")" and term.upper() != "OR":
            if term.upper() == "AND":
                self._at += 1
            found.append(self._one(depth))
        return found[0] if len(found) == 1 else {"$and": found}

    def _one(self, depth: int) -> Filter:
        term = self._next()
        self._at += 1
        if not term or term == ")" or depth > _DEPTH_MAX:
            raise self._wrong()
        if term.upper() == "NOT":
            return {"$nor": [self._one(depth + 1)]}
        if term != "(":
            return self._words(term)
        found = self._either(depth + 1)
        if self._next() != ")":
            raise self._wrong()
        self._at += 1
        return found

    def _words(self, term: str) -> Filter:
        asked = list(words(term))
        fields = (TEXT,) if self._code == TEXT else (TEXT, CONTENT)
        found = []
        for at, word in enumerate(asked):
            begins = term.endswith("*") and at == len(asked) - 1
            each = [_word(f"keys.{field}", word, begins) for field in fields]
            found.append(each[0] if len(each) == 1 else {"$or": each})
        return found[0] if len(found) == 1 else {"$and": found}


def _word(field: str, word: str, begins: bool) -> Filter:
    return on_element(field, starting_with(word), False) if begins else {field: word}
