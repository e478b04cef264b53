"""Functions of strings.

http://hl7.org/fhirpath/N1/#string-manipulation. Patterns are RE2: no pattern takes more than linear
time. ``matches()`` looks for the pattern anywhere in the string.
"""

import base64
import binascii
import html
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import re2

from fhir_server.outcome import shown
from fhir_server.r4.fhirpath.environment import (
    CHARACTERS_MAX,
    State,
    checked_length,
    integer,
    string,
)
from fhir_server.r4.fhirpath.faults import FhirPathError, TooCostly
from fhir_server.r4.fhirpath.functions.function import Function, Run
from fhir_server.r4.fhirpath.model import Value, system

_PATTERN_CHARACTERS_MAX = 2000
_MATCH_STEPS = 20  # what one match that is replaced costs
_PATTERN_BYTES_MAX = 2**18  # what RE2 may take for one; 256 of them are kept
_PATTERN_STEPS = 100  # what a pattern costs when an environment first has it, and its instructions
_REFUSED_STEPS = 10_000  # RE2 unrolls repetitions before it finds that there are too many
_SEARCHED = 64  # characters times instructions that RE2 looks at in a microsecond, at the worst


def _of_texts(name: str, call: Callable[..., Any], arguments: int) -> Run:
    """Return the function of strings; nothing comes of nothing."""

    def run(items: list[Value], given: list[list[Value]], state: State) -> list[Value]:
        texts = [string(one, name) for one in (items, *given)]
        if None in texts:
            return []
        found = call(*texts)
        state.spend(1 + len(texts[0] or "") // 8)
        return checked_length(found, state) if type(found) is str else [found]

    assert arguments >= 0
    return run


@lru_cache(maxsize=256)
def _pattern(text: str) -> Any:
    if len(text) > _PATTERN_CHARACTERS_MAX:
        raise FhirPathError(f"A pattern has {_PATTERN_CHARACTERS_MAX} characters at most")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _PATTERN_BYTES_MAX
    try:
        return re2.compile("(?s)" + text, options)
    except re2.error as error:
        raise FhirPathError(f"{shown(text)} is no pattern of RE2: {error}") from error


def _weighed(pattern: str, state: State) -> Any:
    """Return ``pattern``, compiled, having counted what that costs."""
    kept = state.environment.memo
    found = kept.get(("pattern", pattern))
    if found is None:
        state.spend(_PATTERN_STEPS)
        try:
            found = kept["pattern", pattern] = _pattern(pattern)
        except FhirPathError:
            state.spend(_REFUSED_STEPS)
            raise
        state.spend(found.programsize)
    return found


def _search_steps(pattern: Any, characters: int) -> int:
    """Return what a search costs: RE2 is linear in the text and in what a repetition unrolls to."""
    return int(characters * pattern.programsize // _SEARCHED)


def _of_pattern(name: str, method: str) -> Run:
    """Return the function that tells whether a pattern is found in a string, by ``method``."""

    def run(items: list[Value], given: list[list[Value]], state: State) -> list[Value]:
        text, pattern = (string(one, name) for one in (items, *given))
        if text is None or pattern is None:
            return []
        made = _weighed(pattern, state)
        state.spend(1 + _search_steps(made, len(text)))
        return [getattr(made, method)(text) is not None]

    return run


def _replace(text: str, pattern: str, substitution: str) -> str:
    count = text.count(pattern)
    if len(text) + count * (len(substitution) - len(pattern)) > CHARACTERS_MAX:
        raise _too_long()
    return text.replace(pattern, substitution)


def _replace_matches(items: list[Value], given: list[list[Value]], state: State) -> list[Value]:
    """An empty pattern replaces nothing; ``$1`` is the first group."""
    text, pattern, substitution = (string(one, "replaceMatches()") for one in (items, *given))
    if text is None or pattern is None or substitution is None:
        return []
    parts: list[str] = []
    length, at = 0, 0
    made = _weighed(pattern, state)
    state.spend(_search_steps(made, len(text)))
    for found in made.finditer(text) if pattern else ():
        # Looking for the next one may lead to the end of the text again.
        state.spend(_MATCH_STEPS + _search_steps(made, len(text) - found.end()))
        written = _substituted(substitution, found)
        length += found.start() - at + len(written)
        if length > CHARACTERS_MAX:
            raise _too_long()
        parts += [text[at : found.start()], written]
        at = found.end()
    return checked_length("".join((*parts, text[at:])), state)


def _substituted(substitution: str, found: Any) -> str:
    if "$" not in substitution:
        return substitution
    parts = substitution.split("$")
    written = [parts[0]]
    for part in parts[1:]:
        number = part[:1]
        if number.isdigit() and int(number) <= found.re.groups:
            written += [found.group(int(number)) or "", part[1:]]
        else:
            written.append("$" + part)
    return "".join(written)


def _too_long() -> TooCostly:
    return TooCostly(f"The expression makes a string of more than {CHARACTERS_MAX:,} characters.")


def _substring(items: list[Value], given: list[list[Value]], state: State) -> list[Value]:
    text, start = string(items, "substring()"), integer(given[0], "substring()")
    if text is None or start is None or not 0 <= start < len(text):
        return []
    length = integer(given[1], "substring()") if len(given) > 1 else None
    return [text[start:] if length is None else text[start : start + max(length, 0)]]


def _to_chars(items: list[Value], given: list[list[Value]], state: State) -> list[Value]:
    text = string(items, "toChars()") or ""
    state.spend(len(text))
    return list(text)


def _split(items: list[Value], given: list[list[Value]], state: State) -> list[Value]:
    text, separator = string(items, "split()"), string(given[0], "split()")
    if text is None:
        return []
    found: list[Value] = list(text.split(separator) if separator else text)
    state.spend(len(found))
    return found


def _join(items: list[Value], given: list[list[Value]], state: State) -> list[Value]:
    separator = (string(given[0], "join()") if given else None) or ""
    texts = [system(one) for one in items]
    if not all(type(one) is str for one in texts):
        raise FhirPathError("join() takes strings")
    if not texts:
        return []
    if sum(map(len, texts)) + len(separator) * len(texts) > CHARACTERS_MAX:
        raise _too_long()
    return checked_length(separator.join(texts), state)


_ENCODE: Mapping[str, Callable[[bytes], bytes]] = {
    "base64": base64.b64encode,
    "urlbase64": base64.urlsafe_b64encode,
    "hex": binascii.hexlify,
}
_DECODE: Mapping[str, Callable[[str], bytes]] = {
    "base64": lambda text: base64.b64decode(text, validate=True),
    "urlbase64": base64.urlsafe_b64decode,
    "hex": binascii.unhexlify,
}


def _encode(items: list[Value], given: list[list[Value]], state: State) -> list[Value]:
    text, form = string(items, "encode()"), string(given[0], "encode()")
    if text is None or form is None or form not in _ENCODE:
        return []
    return checked_length(_ENCODE[form](text.encode("utf-8", "replace")).decode(), state)


def _decode(items: list[Value], given: list[list[Value]], state: State) -> list[Value]:
    text, form = string(items, "decode()"), string(given[0], "decode()")
    if text is None or form is None or form not in _DECODE:
        return []
    try:
        return checked_length(_DECODE[form](text).decode(), state)
    except ValueError:
        return []


_ESCAPE: Mapping[str, Callable[[str], str]] = {
    "html": lambda text: html.escape(text, quote=True),
    "json": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
}


def _json_unescaped(text: str) -> str:
    inner = text.replace('\\"', '"').replace('"', '\\"')
    try:
        found = json.loads(f'"{inner}"')
    except ValueError:
        return text
    return str(found)


_UNESCAPE: Mapping[str, Callable[[str], str]] = {"html": html.unescape, "json": _json_unescaped}


def _escaping(name: str, table: Mapping[str, Callable[[str], str]]) -> Function:
    def run(items: list[Value], given: list[list[Value]], state: State) -> list[Value]:
        text, form = string(items, name), string(given[0], name)
        if text is None or form is None or form not in table:
            return []
        return checked_length(table[form](text), state)

    return Function(1, 1, run=run)


def _function(name: str, arguments: int, call: Callable[..., Any]) -> Function:
    return Function(arguments, arguments, run=_of_texts(f"{name}()", call, arguments))


FUNCTIONS: Mapping[str, Function] = {
    "indexOf": _function("indexOf", 1, str.find),
    "lastIndexOf": _function("lastIndexOf", 1, str.rfind),
    "substring": Function(1, 2, run=_substring),
    "startsWith": _function("startsWith", 1, str.startswith),
    "endsWith": _function("endsWith", 1, str.endswith),
    "contains": _function("contains", 1, str.__contains__),
    "upper": _function("upper", 0, str.upper),
    "lower": _function("lower", 0, str.lower),
    "trim": _function("trim", 0, str.strip),
    "length": _function("length", 0, len),
    "matches": Function(1, 1, run=_of_pattern("matches()", "search")),
    "matchesFull": Function(1, 1, run=_of_pattern("matchesFull()", "fullmatch")),
    "replace": _function("replace", 2, _replace),
    "replaceMatches": Function(2, 2, run=_replace_matches),
    "toChars": Function(0, 0, run=_to_chars),
    "split": Function(1, 1, run=_split),
    "join": Function(0, 1, run=_join),
    "encode": Function(1, 1, run=_encode),
    "decode": Function(1, 1, run=_decode),
    "escape": _escaping("escape()", _ESCAPE),
    "unescape": _escaping("unescape()", _UNESCAPE),
}
