"""Reference parameters: what a resource points at.

https://hl7.org/fhir/R4/search.html#reference

A key is ``Type/id`` without version and without our own base, or the absolute url, or the canonical
url (with its version as a second key). The version of a versioned reference is in
``[code]:version``, and ``Reference.identifier`` as a token in ``[code]:identifier``. A contained
resource has no key: it cannot be asked for from outside.

=================  ==================================================
modifier           what it does
=================  ==================================================
``:[type]``        the value is the id of a resource of that type
``:identifier``    the value is a token, compared with the identifier
``:below``         of a canonical, ``url|1.2``: also versions such as 1.2.3
``:below``         of a resource that has parts: it, its parts, and theirs
``:above``         of such a resource: it, what it is a part of, and so on
=================  ==================================================
"""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any

from fhir_server.outcome import invalid_value
from fhir_server.r4.references import Target, target
from fhir_server.search.escape import unescape
from fhir_server.search.keys import (
    NOTHING,
    TEXT_MAX,
    Filter,
    on_element,
    shortened,
    starting_with,
)
from fhir_server.search.token import INDEXED as TOKENS
from fhir_server.search.token import INDEXED_SYSTEMS
from fhir_server.search.uri import PREFIX_MAX, canonical_keys
from fhir_server.search.wanted import Kin, NotKnown, Wants

IDENTIFIER = ":identifier"
VERSION = ":version"
"""The suffixes of the fields that hold identifiers and versioned references."""

_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")


def indexed(base_urls: Sequence[str]) -> Mapping[str, Callable[[Any], list[Any]]]:
    """Return the table: FHIR type -> what is written for a value of it on this server."""

    bases = tuple(base_urls)

    def reference(element: Any) -> list[str]:
        text = element.get("reference")
        if type(text) is not str or text[:1] == "#":
            return []
        key = target(text, bases).key
        return [key if len(key) <= TEXT_MAX else shortened(key)]

    return {
        "Reference": reference,
        "Resource": _resource,
        **dict.fromkeys(("canonical", "uri"), canonical_keys),
    }


def _resource(resource: Any) -> list[str]:
    type_name, id = resource.get("resourceType"), resource.get("id")
    if type(type_name) is not str or type(id) is not str:
        return []
    return [shortened(f"{type_name}/{id}")]


def indexed_versions(base_urls: Sequence[str]) -> Callable[[Any], list[Any]]:
    """Return what is written to the field :data:`VERSION` for a Reference."""

    def versions(element: Any) -> list[str]:
        text = element.get("reference")
        if type(text) is not str or "/_history/" not in text:
            return []
        found = target(text, base_urls)
        return [_versioned(found)] if found.version else []

    return versions


def _versioned(found: Target) -> str:
    return shortened(f"{found.key}/_history/{found.version}")


def identifiers(element: Any) -> list[str]:
    """Return the token keys of a Reference's identifier."""
    identifier = element.get("identifier")
    return TOKENS["Identifier"](identifier) if type(identifier) is dict else []


def identifier_systems(element: Any) -> list[str]:
    """Return the systems of a Reference's identifier."""
    identifier = element.get("identifier")
    return INDEXED_SYSTEMS["Identifier"](identifier) if type(identifier) is dict else []


def compile_reference(
    field: str,
    value: str,
    type: str = "",
    *,
    targets: Sequence[str],
    base_urls: Sequence[str],
    narrower: Mapping[str, str] = MappingProxyType({}),
) -> Filter:
    """Return the filter for one reference value against the keys at ``field``.

    ``value`` is ``id``, ``Type/id``, an absolute url or a canonical, escapes still in place.
    ``type`` is the modifier ``:[type]``; ``targets`` are the types that a bare id can mean.
    ``narrower`` are the fields that have the references to one type.

    Raises ``value`` for an empty value, and for a type that contradicts ``type``.
    """
    text = unescape(value)
    found = target(text, base_urls)
    if not text or (type and found.id and found.type != type):
        expected = f"the id of a {type}" if type else "an id, Type/id or a url"
        raise invalid_value("A reference", value, expected)
    if found.version:
        return {f"{field}{VERSION}": _versioned(found)}
    if found.id and found.type in narrower:
        return {narrower[found.type]: shortened(found.key)}
    if found.id or not _ID.fullmatch(text):
        # A canonical is kept as it is written, even below our own base.
        keys = dict.fromkeys((shortened(found.key), shortened(text)))
    elif type:
        return {narrower.get(type, field): f"{type}/{text}"}
    else:
        keys = dict.fromkeys((*(f"{name}/{text}" for name in targets), text))
    return {field: next(iter(keys)) if len(keys) == 1 else {"$in": list(keys)}}


def compile_kin(
    field: str,
    value: str,
    modifier: str,
    *,
    hierarchies: Mapping[str, str],
    base_urls: Sequence[str],
    wants: Wants,
) -> Filter:
    """Return the filter for references to a resource or to what is ``above`` or ``below`` it.

    ``value`` is ``id`` or ``Type/id``, escapes still in place. ``hierarchies`` are the types that
    refer to themselves, with the field that does. Where the resources have to be looked up first,
    ``wants`` remembers it, and the filter finds nothing.

    Raises ``value`` for what is no resource of these types.
    """
    text = unescape(value)
    found = target(text, base_urls)
    types = (found.type,) if found.id else tuple(hierarchies)
    id = found.id or text
    if not _ID.fullmatch(id) or not set(types) <= hierarchies.keys():
        raise invalid_value("A reference", value, f"the id of a {' or '.join(hierarchies)}")
    keys: list[str] = []
    for type in types:
        with suppress(NotKnown):
            ids = wants.get(Kin(type, hierarchies[type], id, modifier == "above"))
            keys += [f"{type}/{one}" for one in ids]
    return {field: {"$in": keys}} if keys else NOTHING


def compile_below(field: str, value: str, *, single: bool = False) -> Filter:
    """Return the filter for canonicals of a url, or of a version and those that refine it.

    ``value`` is ``url`` or ``url|version``, escapes still in place.

    Raises ``value`` for an empty value and for one too long to be asked by its beginning.
    """
    text = unescape(value)
    url, bar, version = text.partition("|")
    if not url or (bar and not version) or len(text) > PREFIX_MAX:
        raise invalid_value("A canonical", value, f"url|version, at most {PREFIX_MAX} characters")
    if not bar:
        return {field: text}
    return {"$or": [{field: text}, on_element(field, starting_with(f"{text}."), single)]}
