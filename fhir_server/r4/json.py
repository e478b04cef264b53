"""Text to resource and back, with every decimal kept digit for digit.

https://hl7.org/fhir/R4/json.html

The only module that turns JSON into resources or resources into JSON.
"""

import json
from collections import Counter
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec
import re2 as re

from fhir_server.outcome import FhirError, Issue, invalid_value

Json = dict[str, Any]

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# What BSON's Decimal128 holds exactly: 34 digits, exponents of -6176 to 6111.
DECIMAL_DIGITS_MAX = 34
_DECIMAL_EXPONENTS = range(-6176, 6112)
_BSON_INTEGERS = range(-(2**63), 2**63)
_INTEGER_CHARACTERS_MAX = 20
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


class WrittenDecimal(Decimal):
    """A decimal whose text is not the one that Python would write, such as ``1e2``.

    It is an ordinary :class:`Decimal` to whoever computes with it, and is encoded as ``text``.
    """

    text: str


def _decimal(text: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation as error:
        raise invalid_value("A number", text, "a decimal") from error
    _, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)  # JSON has neither NaN nor infinity
    if len(digits) > DECIMAL_DIGITS_MAX or exponent not in _DECIMAL_EXPONENTS:
        raise invalid_value(
            "A number", text, f"at most {DECIMAL_DIGITS_MAX} digits and an exponent within 6111"
        )
    return value if str(value) == text else _written(value, text)


def _written(value: Decimal, text: str) -> WrittenDecimal:
    written = WrittenDecimal(value)
    written.text = text
    return written


def _encode_other(value: Any) -> Any:
    if isinstance(value, WrittenDecimal):
        return msgspec.Raw(value.text.encode())
    raise TypeError(f"{type(value)} is no JSON value")


# ``-0`` is a decimal in FHIR, and an integer to JSON readers, which know no minus zero.
_MINUS_ZERO = re.compile(rb"[:\[,]\s*-0\s*[,\]}]")
_PERHAPS_MINUS_ZERO = re.compile(rb"-0\s*[,\]}]")  # looks at a third of the text


def _integer(text: str) -> int | Decimal:
    return _written(Decimal(text), text) if text == "-0" else int(text)


def _with_minus_zero(text: bytes) -> Json:
    resource: Json = json.loads(text, parse_float=_decimal, parse_int=_integer)
    return resource


_decoder = msgspec.json.Decoder(float_hook=_decimal)
_encoder = msgspec.json.Encoder(decimal_format="number", enc_hook=_encode_other)
_sorting_encoder = msgspec.json.Encoder(
    decimal_format="number", enc_hook=_encode_other, order="sorted"
)


def decode(text: bytes, *, depth_max: int = 100) -> Json:
    """Return the JSON object that ``text`` is.

    Numbers with a fraction or an exponent become :class:`Decimal`. ``depth_max`` is how deeply
    objects and arrays may be nested.

    Raises ``structure`` for what is no JSON object in UTF-8, has a duplicate member or is nested
    deeper; ``value`` for a number that cannot be kept exactly.
    """
    resource = decode_value(text, depth_max=depth_max)
    if not isinstance(resource, dict):
        raise FhirError(Issue("structure", "The body is JSON, but not a JSON object."))
    return resource


def decode_value(text: bytes, *, depth_max: int = 100) -> Any:
    """Return the JSON value that ``text`` is, of any kind; else like :func:`decode`."""
    try:
        value = _decoder.decode(text)
        if _PERHAPS_MINUS_ZERO.search(text) and _MINUS_ZERO.search(text):
            value = _with_minus_zero(text)
    except RecursionError as error:
        raise too_deep(depth_max) from error
    except UnicodeDecodeError as error:
        raise _malformed(f"it is not UTF-8: {error.reason} in a string") from error
    except msgspec.DecodeError as error:
        raise _malformed(_reason(text, error)) from error
    _check_depth_and_integers([value], depth_max + 1)
    _check_duplicates(text, value)
    return value


def decode_stored(text: bytes) -> Json:
    """Return the resource ``text``, which :func:`encode` has written: nothing is checked again."""
    if _MINUS_ZERO.search(text):
        return _with_minus_zero(text)
    resource: Json = _decoder.decode(text)
    return resource


def number(text: str) -> int | Decimal:
    """Return what :func:`decode` makes of the number ``text``.

    Raises ``value`` for what is no number of JSON, or one that cannot be kept exactly.
    """
    if not _NUMBER.fullmatch(text):
        raise invalid_value("A number", text, "digits such as 1, -1.50 or 1e3")
    if not text.lstrip("-").isdigit():
        return _decimal(text)
    if len(text) > _INTEGER_CHARACTERS_MAX or int(text) not in _BSON_INTEGERS:
        raise invalid_value("A number", text, "an integer of at most 64 bits")
    return _integer(text)


def encode(resource: Any) -> bytes:
    """Return ``resource`` as compact JSON in UTF-8, decimals as they were written."""
    return _encoder.encode(resource)


def canonical(resource: Any) -> bytes:
    """Return ``resource`` as JSON with sorted members: equal for resources that say the same."""
    return _sorting_encoder.encode(resource)


def pretty(text: bytes) -> bytes:
    """Return the JSON ``text`` with line breaks and two spaces of indentation."""
    return msgspec.json.format(text, indent=2)


def _malformed(reason: str) -> FhirError:
    return FhirError(Issue("structure", f"The body is not JSON: {reason}."))


def _reason(text: bytes, error: msgspec.DecodeError) -> str:
    """Return what is wrong with ``text`` and where: line and column if Python's reader says so."""
    if not text.strip():
        return "it is empty"
    if text.startswith(_BYTE_ORDER_MARK):
        return "it begins with a byte order mark, which JSON does not allow"
    try:
        json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as found:
        return f"{found.msg} at line {found.lineno}, column {found.colno}"
    except (ValueError, RecursionError):
        pass  # msgspec's own words are used for what Python reads or words differently
    return str(error).removeprefix("JSON is malformed: ")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")


def too_deep(limit: int) -> FhirError:
    """Return the refusal of a body that is nested deeper than ``limit``."""
    return FhirError(
        Issue("structure", f"The body is nested more than {limit} levels deep, which is the limit.")
    )


def _check_depth_and_integers(value: Any, depth_max: int) -> None:
    """Refuse what is nested too deeply, and integers that no FHIR type and no database can hold."""
    level: list[Any] = [value]
    for _ in range(depth_max):
        below: list[Any] = []
        for container in level:
            for value in container.values() if type(container) is dict else container:
                kind = type(value)
                if kind is dict or kind is list:
                    below.append(value)
                elif kind is int and value not in _BSON_INTEGERS:
                    raise invalid_value("A number", value, "an integer of at most 64 bits")
        if not below:
            return
        level = below
    raise too_deep(depth_max - 1)


def _check_duplicates(text: bytes, resource: Any) -> None:
    """Refuse a member name that stands twice in one object.

    The decoder keeps the last of two members, so the encoded resource then has fewer colons than
    the text: at least that of the dropped member. That is counted in a microsecond. Escapes can
    hide a colon, so a text with ``\\u`` is read again by a slower reader that sees every pair.
    """
    if b"\\u" not in text and text.count(b":") == encode(resource).count(b":"):
        return
    json.loads(text, object_pairs_hook=_unique, parse_float=str, parse_int=str)


def _unique(pairs: list[tuple[str, Any]]) -> Json:
    members = dict(pairs)
    if len(members) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise FhirError(
            Issue("structure", f"The member {twice[:80]!r} stands twice in one object of the body.")
        )
    return members
