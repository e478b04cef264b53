"""What the value of each primitive type may be.

https://hl7.org/fhir/R4/datatypes.html#primitive

The patterns are those of the specification, made stricter where its text is: days that the
calendar has, no control characters, base64 with its padding at the end. They say ``[ \\t\\r\\n]``
where the specification says ``\\s``, which means more than that to some engines, and hold for the
whole value. RE2 and the regular expressions of Rust, both linear, read them alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Any

import re2

STRING_CHARACTERS_MAX = 1024 * 1024  # datatypes.html#string

_YEAR = "(?:[0-9](?:[0-9](?:[0-9][1-9]|[1-9]0)|[1-9]00)|[1-9]000)"
_LEAP_YEAR = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_DAY = (
    "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    "|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
_FULL_DATE = f"(?:{_YEAR}-{_DAY}|{_LEAP_YEAR}-02-29)"
_PARTIAL_DATE = f"{_YEAR}(?:-(?:0[1-9]|1[0-2]))?"
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:\.[0-9]+)?"
_ZONE = r"(?:Z|[+-](?:(?:0[0-9]|1[0-3]):[0-5][0-9]|14:00))"
_BLANK = r"[ \t\r\n]*"
_DIGIT64 = "[0-9a-zA-Z+/]"
_NO_SPACE = r"[^\x00-\x20]"
_TEXT = r"[^\x00-\x08\x0b\x0c\x0e-\x1f]+"
_HEX = "[0-9a-f]"


def _not_beginning(words: list[str]) -> str:
    """Return the pattern of text without spaces that begins with none of ``words``.

    The linear engines have no lookahead, so it goes letter by letter.
    """
    letters = sorted({word[0] for word in words})
    branches = [f"[^\\x00-\\x20{''.join(letters)}]{_NO_SPACE}*"]
    for letter in letters:
        rest = [word[1:] for word in words if word[0] == letter]
        if "" not in rest:
            branches.append(f"{letter}(?:{_not_beginning(rest)})?")
    return "|".join(branches)


@dataclass(frozen=True, slots=True)
class Primitive:
    """What a primitive's JSON value is: its kind, and the pattern or the range it lies in.

    ``expected`` completes the sentence *expected …*.
    """

    kind: str
    expected: str
    pattern: str = ""
    low: int | None = None
    high: int | None = None
    length_max: int | None = None


def _text(expected: str, pattern: str, length_max: int | None = None) -> Primitive:
    return Primitive("string", expected, pattern, length_max=length_max)


_INTEGER_MAX = 2**31 - 1
_STRING = _text("text of at least one character, without control characters", _TEXT)
# An OID or UUID is a URI with urn: before it only: https://hl7.org/fhir/R4/datatypes.html#uri
_URI = _text(
    "a URI without spaces, such as https://example.org/x, urn:oid:1.2.3 or urn:uuid:…",
    f"(?:{_not_beginning(['oid:', 'uuid:'])})",
)

PRIMITIVES: Mapping[str, Primitive] = {
    "boolean": Primitive("boolean", "true or false, without quotes"),
    "integer": Primitive("integer", "an integer of 32 bits", low=-(2**31), high=_INTEGER_MAX),
    "unsignedInt": Primitive(
        "integer", f"an integer from 0 to {_INTEGER_MAX}", low=0, high=_INTEGER_MAX
    ),
    "positiveInt": Primitive(
        "integer", f"an integer from 1 to {_INTEGER_MAX}", low=1, high=_INTEGER_MAX
    ),
    "decimal": Primitive("number", "a number, without quotes"),
    "string": Primitive(
        "string", _STRING.expected, _STRING.pattern, length_max=STRING_CHARACTERS_MAX
    ),
    "markdown": _STRING,
    "xhtml": _STRING,  # the rest of its rules is in narrative.py
    "id": _text(
        "1 to 64 of the letters A-Z and a-z, digits, hyphens and dots", r"[A-Za-z0-9\-\.]{1,64}"
    ),
    "element id": _text("text without spaces", f"{_NO_SPACE}+"),
    "code": _text(
        "a code: no blank at either end, and no two in a row",
        f"{_NO_SPACE}+(?:[ \\t\\r\\n]{_NO_SPACE}+)*",
    ),
    "uri": _URI,
    "url": _URI,
    "canonical": _URI,
    "oid": _text(
        "urn:oid: and an OID, such as urn:oid:1.2.3", r"urn:oid:[0-2](?:\.(?:0|[1-9][0-9]*))+"
    ),
    "uuid": _text(
        "urn:uuid: and a UUID in lower case",
        f"urn:uuid:{_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}",
    ),
    "date": _text(
        "YYYY, YYYY-MM or YYYY-MM-DD, a day of the calendar", f"(?:{_FULL_DATE}|{_PARTIAL_DATE})"
    ),
    "dateTime": _text(
        "YYYY, YYYY-MM, YYYY-MM-DD or YYYY-MM-DDThh:mm:ss with Z or an offset such as +06:00, "
        "a day of the calendar",
        f"(?:{_FULL_DATE}(?:T{_TIME}{_ZONE})?|{_PARTIAL_DATE})",
    ),
    "instant": _text(
        "YYYY-MM-DDThh:mm:ss with Z or an offset such as +06:00, a day of the calendar",
        f"{_FULL_DATE}T{_TIME}{_ZONE}",
    ),
    "time": _text("hh:mm:ss, without an offset", _TIME),
    "base64Binary": _text(
        "base64: groups of four of A-Z, a-z, 0-9, + and /, = only at the end",
        f"(?:{_BLANK}{_DIGIT64}{{4}})*{_BLANK}"
        f"(?:{_DIGIT64}{{4}}|{_DIGIT64}{{3}}=|{_DIGIT64}{{2}}==){_BLANK}",
    ),
}

_KINDS = {"boolean": (bool,), "integer": (int,), "number": (int, Decimal, float), "string": (str,)}


@cache
def _compiled(pattern: str) -> Any:
    return re2.compile(pattern)


def is_kind(value: object, primitive: Primitive) -> bool:
    """Return whether the JSON kind of ``value`` is the primitive's; a boolean is no number."""
    return isinstance(value, _KINDS[primitive.kind]) and (
        primitive.kind == "boolean" or not isinstance(value, bool)
    )


def is_value(value: Any, primitive: Primitive) -> bool:
    """Return whether ``value``, already of the right kind, is one that the type allows."""
    if primitive.kind == "integer":
        return bool(primitive.low <= value <= primitive.high)
    if primitive.kind == "number":
        return value.is_finite() if isinstance(value, Decimal) else value - value == 0
    if primitive.kind != "string":
        return True
    if primitive.length_max is not None and len(value) > primitive.length_max:
        return False
    try:
        return _compiled(primitive.pattern).fullmatch(value) is not None
    except UnicodeEncodeError:  # half of a surrogate pair is no character
        return False
