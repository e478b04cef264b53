"""Values of HTTP headers that bundles carry as well: entity tags, dates, preferences.

https://hl7.org/fhir/R4/http.html#concurrency
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import re2 as re

from fhir_server.outcome import invalid_value
from fhir_server.r4.dates import date_range

_TAG = re.compile(r'(?:W/)?"([A-Za-z0-9\-\.]{1,64})"|\*|([A-Za-z0-9\-\.]{1,64})')
_PREFERENCE = re.compile(r'\s*([A-Za-z\-]+)\s*=\s*"?([A-Za-z0-9\-]+)"?\s*')


def entity_tags(text: str | None, header: str) -> frozenset[str] | None:
    """Return the version ids in an If-Match or If-None-Match, ``*`` for any, ``None`` if not sent.

    ``W/"3"``, ``"3"`` and, since clients send it, ``3`` are the same. Raises ``value``.
    """
    if text is None:
        return None
    tags = set()
    for part in text.split(","):
        found = _TAG.fullmatch(part.strip())
        if found is None:
            raise invalid_value(header, text, 'a version such as W/"3"')
        tags.add(found.group(1) or found.group(2) or "*")
    return frozenset(tags)


def http_date_or_instant(text: str | None) -> datetime | None:
    """Return the time that ``text`` names, or ``None`` for none and for what is no time.

    A header has an HTTP date, a bundle entry a FHIR instant. A date that cannot be read makes the
    header void (RFC 9110, 13.1.3).
    """
    if text is None:
        return None
    if text[:4].isdecimal():
        return date_range(text)[0]
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def preferences(text: str | None) -> Mapping[str, str]:
    """Return the ``name=value`` parts of a Prefer header; what has another form is not ours."""
    found = (_PREFERENCE.fullmatch(part) for part in (text or "").replace(";", ",").split(","))
    return {match.group(1): match.group(2) for match in found if match}
