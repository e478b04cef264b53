"""Uri parameters: addresses compared character by character.

https://hl7.org/fhir/R4/search.html#uri

A key is the uri. Of a canonical with a version, ``url|version``, the bare url is a key as well.

=================  ================================================
modifier           what it does
=================  ================================================
``:below``         the value asked for begins the uri
``:above``         the uri begins the value asked for
=================  ================================================
"""

from collections.abc import Callable, Mapping
from typing import Any

from fhir_server.outcome import invalid_value
from fhir_server.search.escape import unescape
from fhir_server.search.keys import Filter, on_element, regex_text, shortened, starting_with

MODIFIERS = ("above", "below")
# A prefix that :func:`shortened` cuts off would not be found by its beginning.
PREFIX_MAX = 400


def _uri(text: Any) -> list[str]:
    return [shortened(text)]


def canonical_keys(text: Any) -> list[str]:
    """Return the url, and the url with its version if it has one."""
    url, bar, _ = text.partition("|")
    return [shortened(url), shortened(text)] if bar else [shortened(text)]


INDEXED: Mapping[str, Callable[[Any], list[Any]]] = {
    **dict.fromkeys(("uri", "url", "oid", "uuid"), _uri),
    "canonical": canonical_keys,
}
"""FHIR type -> what is written for a value of it."""


def compile_uri(field: str, value: str, modifier: str = "", *, single: bool = False) -> Filter:
    """Return the filter for one uri value against ``field``; escapes are still in place.

    Raises ``value`` for an empty uri, for ``:above`` and ``:below`` of a urn, and for one that is
    too long to be asked by its beginning.
    """
    uri = unescape(value)
    if not uri:
        raise invalid_value("A uri", value, "an absolute or relative uri")
    if not modifier:
        return {field: shortened(uri)}
    if uri.startswith("urn:"):
        raise invalid_value("A uri", value, f"a url: :{modifier} does not apply to urns")
    if len(uri) > PREFIX_MAX:
        raise invalid_value("A uri", value, f"at most {PREFIX_MAX} characters with :{modifier}")
    if modifier == "above":
        return {field: {"$in": [uri[:end] for end in range(1, len(uri) + 1)]}}
    return on_element(field, starting_with(uri), single)


def compile_in_uri(field: str, value: str, *, at_end: bool) -> Filter:
    """Return the filter for uris that contain ``value``, or end with it; it looks at all keys."""
    uri = unescape(value)
    if not uri or len(uri) > PREFIX_MAX:
        raise invalid_value("A uri", value, f"between one and {PREFIX_MAX} characters")
    return {field: {"$regex": regex_text(uri) + ("$" if at_end else "")}}
