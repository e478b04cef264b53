"""Reads elements of resources that others sent: what has the wrong shape counts as absent. Pure."""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

EMPTY: Mapping[str, Any] = {}


def text(of: Any, name: str) -> str:
    """Return the text ``of[name]``, or ``""``."""
    found = of.get(name) if isinstance(of, dict) else None
    return found if isinstance(found, str) else ""


def part(of: Any, name: str) -> Mapping[str, Any]:
    """Return the object ``of[name]``, or an empty one."""
    found = of.get(name) if isinstance(of, dict) else None
    return found if isinstance(found, dict) else EMPTY


def parts(of: Any, name: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of the list ``of[name]``; one that stands alone is a list of it."""
    found = of.get(name) if isinstance(of, dict) else None
    for one in found if isinstance(found, list) else (found,):
        if isinstance(one, dict):
            yield one


def texts(of: Any, name: str) -> list[str]:
    """Return the texts of the list ``of[name]``."""
    found = of.get(name) if isinstance(of, dict) else None
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []


def number(of: Any, name: str) -> Fraction | None:
    """Return the number ``of[name]`` exactly, or ``None``; a number of absurd size is none."""
    found = of.get(name) if isinstance(of, dict) else None
    if isinstance(found, bool) or not isinstance(found, int | float | Decimal):
        return None
    if isinstance(found, Decimal) and not -30 < found.adjusted() < 30:
        return Fraction(0) if found == 0 else None
    if isinstance(found, int) and abs(found) > 10**30:
        return None
    return Fraction(str(found)) if isinstance(found, float) else Fraction(found)


def codings(concept: Any) -> Iterator[tuple[str, str, str]]:
    """Yield system, code and display of each coding of a CodeableConcept."""
    for coding in parts(concept, "coding"):
        yield text(coding, "system"), text(coding, "code"), text(coding, "display")


def codes(concept: Any) -> frozenset[str]:
    """Return the codes of a CodeableConcept, or a code that stands alone, in lower case."""
    if isinstance(concept, str):
        return frozenset((concept.lower(),))
    return frozenset(code.lower() for _, code, _ in codings(concept) if code)


def name_of(resource: Mapping[str, Any]) -> str:
    """Return ``Type/id`` of a resource."""
    return f"{text(resource, 'resourceType')}/{text(resource, 'id')}"


def reference(of: Any, name: str) -> str:
    """Return the reference ``of[name]``: ``Type/id`` of the end of it, or ``#id``."""
    found = text(part(of, name), "reference")
    if found.startswith(("#", "urn:")):
        return found
    return "/".join(found.partition("/_history/")[0].rsplit("/", 2)[-2:])


def full_urls(bundle: Any) -> dict[str, dict[str, Any]]:
    """Return the resources of a Bundle by their ``fullUrl`` that is a ``urn:``."""
    found = {}
    for entry in parts(bundle, "entry"):
        url, resource = text(entry, "fullUrl"), part(entry, "resource")
        if url.startswith("urn:") and resource:
            found[url] = dict(resource)
    return found


def unreadable(bundle: Any) -> list[str]:
    """Return what names the entries of a Bundle that hold no resource of a type."""
    listed = bundle.get("entry") if isinstance(bundle, dict) else None
    found = []
    for place, entry in enumerate(listed if isinstance(listed, list) else parts(bundle, "entry")):
        resource = part(entry, "resource")
        if not text(resource, "resourceType"):
            found.append(text(resource, "id") or text(entry, "fullUrl") or f"entry {place + 1}")
    return found


def entries(bundle: Any) -> Iterator[dict[str, Any]]:
    """Yield the resources of a Bundle, passing over what is none."""
    for entry in parts(bundle, "entry"):
        resource = entry.get("resource")
        if isinstance(resource, dict) and isinstance(resource.get("resourceType"), str):
            yield resource
