"""References among the entries of a transaction -> references to what the entries become. Pure.

https://hl7.org/fhir/R4/http.html#trules and https://hl7.org/fhir/R4/bundle.html#references
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import re2 as re

from fhir_server.interactions.entries import Entry
from fhir_server.messages import Resource
from fhir_server.outcome import FhirError
from fhir_server.patch.bounds import Bounds
from fhir_server.patch.formats import with_references
from fhir_server.r4.links import Links, Replacements

CONDITIONAL = re.compile(r"([A-Z][A-Za-z]+)\?(.+)")
_ABSOLUTE = re.compile(r"(https?://.+)/([A-Z][A-Za-z]+)/([A-Za-z0-9\-\.]{1,64})")
_RELATIVE = re.compile(r"[A-Z][A-Za-z]+/[A-Za-z0-9\-\.]{1,64}")
_VERSION = "/_history/"
# The largest that the settings allow; the patch is judged by the settings themselves.
_BOUNDS_MAX = Bounds(operations_max=0, bytes_max=7_340_032, depth_max=140)
_NARRATIVE_LINK = re.compile(r"""((?:href|src)\s*=\s*)("[^"]*"|'[^']*')""")


def rewritten(
    entry: Entry, places: Mapping[str, str], created: frozenset[str], links: Links
) -> Entry:
    """Return ``entry`` with every link to another entry rewritten, and with the conditional
    references that were met.

    ``places`` maps fullUrl to ``Type/id``; ``created`` are those places that the bundle creates.
    """
    body = entry.request.body
    if not isinstance(body, dict):
        return entry
    found = _ABSOLUTE.fullmatch(entry.full_url) if entry.full_url.startswith("http") else None
    rewriter = _Rewriter(places, created, found.group(1) if found else "")
    by = Replacements(rewriter.reference, rewriter.link, rewriter.narrative)
    if entry.request.interaction == "patch" and body.get("resourceType") == "Binary":
        new = _patch_rewritten(body, rewriter)
    else:
        new = links.replaced(body, by)
    if new is body and not rewriter.conditional:
        return entry
    request = replace(entry.request, body=new)
    conditional = frozenset(rewriter.conditional)
    return Entry(entry.index, entry.method, entry.full_url, request, conditional)


def _patch_rewritten(binary: Resource, rewriter: "_Rewriter") -> Resource:
    """Return the patch in ``binary`` with its references rewritten."""
    try:
        return with_references(binary, _BOUNDS_MAX, rewriter.reference)
    except FhirError:
        return binary  # whoever reads the patch refuses it with its reason


@dataclass(frozen=True, slots=True)
class _Rewriter:
    """Rewrites the links of one entry; ``root`` is the base URL that its fullUrl has, if any."""

    places: Mapping[str, str]
    created: frozenset[str]
    root: str
    conditional: set[str] = field(default_factory=set)

    def reference(self, value: str) -> str:
        if "?" in value and value not in self.places and CONDITIONAL.fullmatch(value):
            self.conditional.add(value)
            return value
        return self.link(value, self.root)

    def link(self, value: str, root: str = "") -> str:
        """Return what ``value`` is called here; a fragment stays behind it, and so does a version.

        A reference relative to the entry's own root means the entry with that root.
        """
        found = self.places.get(value)
        if found is not None:
            return found
        if not root and "#" not in value and _VERSION not in value:
            return value  # nearly all: the systems of codes
        whole, hash, fragment = value.partition("#")
        plain, history, _ = whole.partition(_VERSION)
        found = self.places.get(plain)
        if found is None and root and _RELATIVE.fullmatch(plain):
            found = self.places.get(f"{root}/{plain}")
        if found is None:
            return value
        # A version that the bundle writes has the number 1 if it is created; what number an
        # update gets is not known yet, and the reference then is to the resource.
        version = f"{_VERSION}1" if history and found in self.created else ""
        return f"{found}{version}{hash}{fragment}"

    def narrative(self, div: str) -> str:
        if not self.places or ("href" not in div and "src" not in div):
            return div

        def replaced(match: Any) -> str:
            quoted = match.group(2)
            return f"{match.group(1)}{quoted[0]}{self.link(quoted[1:-1])}{quoted[0]}"

        return str(_NARRATIVE_LINK.sub(replaced, div))
