"""Values of HTTP headers: entity tags, dates and preferences, which bundles carry too, and keys.

https://hl7.org/fhir/R4/http.html#concurrency
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import re2 as re

from fhir_server.outcome import FhirError, invalid_value
from fhir_server.r4.dates import date_range

# RFC 9110, 8.8.3. A tag without quotes is no tag, but clients send their version number so. Members
# of a list may be empty (5.6.1).
_TAG = re.compile(r'[\s,]*(?:(?:W/)?"([^"]*)"|(\*)|([A-Za-z0-9\-\.]{1,64}))\s*(?:,|$)')
_TAGS_CHARACTERS_MAX = 1000  # a dozen of the longest ids
_PREFERENCE = re.compile(r'\s*([A-Za-z\-]+)\s*(?:=\s*"?([A-Za-z0-9\-]+)"?\s*)?')
# A quoted string (RFC 9651, 3.3.3) or, as most clients send it, the key alone. A comma without
# quotes would be the mark of a header sent twice.
_KEY = re.compile(r'"((?:[ !#-\[\]-~]|\\[\\"]){1,510})"|([!#-+\--\[\]-~]{1,255})')
_REASON_CHARACTERS_MAX = 500
_KEY_CHARACTERS_MAX = 255


def entity_tags(text: str | None, header: str) -> frozenset[str] | None:
    """Return the version ids in an If-Match or If-None-Match, ``*`` for any, ``None`` if not sent.

    ``W/"3"``, ``"3"`` and ``3`` are the same. A tag that is none of ours is returned as it is, and
    matches nothing. Raises ``value`` for what are no tags.
    """
    if text is None:
        return None
    if len(text) > _TAGS_CHARACTERS_MAX:
        raise invalid_value(header, text, f"at most {_TAGS_CHARACTERS_MAX} characters of versions")
    tags: set[str] = set()
    place = 0
    while not tags or text[place:].strip(" \t,"):
        found = _TAG.match(text, place)
        if found is None:
            raise invalid_value(header, text, 'a version such as W/"3"')
        quoted, any_version, bare = found.groups()
        # A star in quotes is a tag like any other, not any version.
        tags.add(bare or any_version or ('"*"' if quoted == "*" else quoted))
        place = found.end()
    return frozenset(tags)


def http_date_or_instant(text: str | None) -> datetime | None:
    """Return the time that ``text`` names, or ``None`` for none and for what is no time.

    A header has an HTTP date, a bundle entry a FHIR instant. A date that cannot be read makes the
    header void (RFC 9110, 13.1.3).
    """
    if text is None:
        return None
    try:
        moment = date_range(text)[0] if text[:4].isdecimal() else parsedate_to_datetime(text)
    except (ValueError, OverflowError, TypeError, FhirError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def idempotency_key(text: str | None) -> str | None:
    """Return the key in an Idempotency-Key, ``None`` if not sent. ``"a"`` and ``a`` are the same.

    https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-idempotency-key-header

    Raises ``value`` for what is none: 1 to 255 printable characters of ASCII.
    """
    if text is None:
        return None
    found = _KEY.fullmatch(text.strip())
    quoted, bare = found.groups() if found else (None, None)
    key: str = bare or (quoted or "").replace('\\"', '"').replace("\\\\", "\\")
    if not 0 < len(key) <= _KEY_CHARACTERS_MAX:
        expected = f"1 to {_KEY_CHARACTERS_MAX} printable ASCII characters, in quotes or without"
        raise invalid_value("Idempotency-Key", text, expected)
    return key


def override_reason(text: str | None) -> str:
    """Return the reason in an X-Override-Reason, ``""`` if not sent. What is not ASCII is UTF-8.

    Raises ``value`` for an empty one, and for one that is longer than 500 characters.
    """
    if text is None:
        return ""
    found = text.encode("latin-1", "replace").decode("utf-8", "replace").strip()
    if not 0 < len(found) <= _REASON_CHARACTERS_MAX:
        expected = f"a reason of 1 to {_REASON_CHARACTERS_MAX} characters"
        raise invalid_value("X-Override-Reason", found, expected)
    return found


def preferences(text: str | None) -> Mapping[str, str]:
    """Return the ``name=value`` parts of a Prefer header, names in lower case (RFC 7240, 2).

    A name alone, such as ``respond-async``, has the value ``""``; what has another form is not
    ours.
    """
    if not text:
        return {}
    found = (_PREFERENCE.fullmatch(part) for part in text.replace(";", ",").split(","))
    return {match.group(1).lower(): match.group(2) or "" for match in found if match}
