"""The entries of a bundle: which one a reference between them leads to.

https://hl7.org/fhir/R4/bundle.html#references
"""

from typing import Any

import re2

# A RESTful url: a base, then type and id, perhaps a version.
_REST = re2.compile(
    r"((?:https?|ftp|file)://.*/)?([A-Z][A-Za-z]+)/([A-Za-z0-9\-.]{1,64})(?:/_history/([^/#?]+))?"
)
Found = tuple[dict[str, Any], str, int]


def rest_parts(url: str) -> tuple[str, str, str, str] | None:
    """Return base, type, id and version of a RESTful url; ``None`` of any other.

    >>> rest_parts("http://example.org/fhir/Patient/1")
    ('http://example.org/fhir/', 'Patient', '1', '')
    """
    found = _REST.fullmatch(url)
    if found is None:
        return None
    base, type, id, version = found.groups()
    return base or "", type, id, version or ""


class Entries:
    """The resources of a bundle's entries, by fullUrl."""

    def __init__(self, bundle: dict[str, Any]) -> None:
        entries = bundle.get("entry")
        self.type = bundle.get("type")
        self._by_url: dict[str, list[Found]] = {}
        self._by_name: dict[str, list[Found]] = {}
        for place, entry in enumerate(entries if isinstance(entries, list) else ()):
            resource = entry.get("resource") if isinstance(entry, dict) else None
            if not isinstance(resource, dict):
                continue
            full_url = entry.get("fullUrl")
            full_url = full_url if isinstance(full_url, str) else ""
            found = (resource, full_url, place)
            if full_url:
                self._by_url.setdefault(full_url, []).append(found)
            name = f"{resource.get('resourceType')}/{resource.get('id')}"
            self._by_name.setdefault(name, []).append(found)

    def find(self, reference: str, full_url: str) -> Found | None:
        """Return resource, fullUrl and place of the entry that ``reference`` leads to.

        ``full_url`` is that of the entry which has the reference: a relative one is relative to it.
        """
        found = self.candidates(reference, full_url)
        return found[0] if found else None

    def candidates(self, reference: str, full_url: str) -> list[Found]:
        """Return all entries that ``reference`` may lead to."""
        text = reference.partition("#")[0]
        parts = rest_parts(text)
        version = parts[3] if parts else ""
        if parts and version:
            text = text[: -len(f"/_history/{version}")]
        if parts and not parts[0]:
            source = rest_parts(full_url)
            if source and source[0]:
                found = self._by_url.get(source[0] + text, [])
            else:
                named = self._by_name.get(text, [])
                found = [one for one in named if not full_url or not one[1]]
        else:
            found = self._by_url.get(text, [])
        if version and len(found) > 1:
            found = [one for one in found if _version(one[0]) == version] or found
        return found

    def named(self, reference: str) -> Found | None:
        """Return the entry whose resource has type and id of a relative reference."""
        found = self._by_name.get(reference.partition("/_history/")[0])
        return found[0] if found else None


def _version(resource: dict[str, Any]) -> Any:
    meta = resource.get("meta")
    return meta.get("versionId") if isinstance(meta, dict) else None
