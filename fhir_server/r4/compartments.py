"""What a resource belongs to besides the compartments of R4, by what it says itself. Pure.

https://hl7.org/fhir/R4/compartmentdefinition.html

R4 leaves out of the patient compartment some types that hold what is a patient's; those get the
patient's compartment here as well. They are in no member list, so no search of a compartment finds
them: what is written for them is for access alone.

=================  ============================================================
type               whose
=================  ============================================================
Device             ``patient``
Task               ``for``
Binary             ``securityContext``, where that is a patient
Bundle             of a document, the subject of its Composition
Communication      ``party:`` and each of ``sender`` and ``recipient``
=================  ============================================================
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fhir_server.r4.references import target

PARTY = "party:"
"""Begins what is written for the sender and the recipients of a message: ``party:Patient/1``. The
compartments of R4 have the subject as well, who is not always one of them."""

Resource = Mapping[str, Any]
Bases = tuple[str, ...]

_PATIENT = "Patient/"


def places(resource: Resource, base_urls: Bases) -> Iterator[str]:
    """Yield what ``resource`` belongs to beside its compartments, such as ``Patient/1``.

    ``base_urls`` are those of this server. What cannot be read belongs to nobody.
    """
    own = _PLACES.get(resource["resourceType"])
    if own is not None:
        yield from own(resource, base_urls)


def _key(reference: Any, base_urls: Bases) -> str:
    """Return ``Type/id`` of a Reference to a resource of this server, else ``""``."""
    text = reference.get("reference") if isinstance(reference, dict) else None
    if not isinstance(text, str) or text.startswith("#"):
        return ""
    found = target(text, base_urls)
    return found.key if found.id else ""


def _patients(reference: Any, base_urls: Bases) -> Iterator[str]:
    if (key := _key(reference, base_urls)).startswith(_PATIENT):
        yield key


def _device(resource: Resource, base_urls: Bases) -> Iterator[str]:
    return _patients(resource.get("patient"), base_urls)


def _task(resource: Resource, base_urls: Bases) -> Iterator[str]:
    return _patients(resource.get("for"), base_urls)


def _binary(resource: Resource, base_urls: Bases) -> Iterator[str]:
    return _patients(resource.get("securityContext"), base_urls)


def _bundle(resource: Resource, base_urls: Bases) -> Iterator[str]:
    """https://hl7.org/fhir/R4/bundle.html#references: a relative reference in an entry whose
    fullUrl is that of another server means a resource there."""
    entries = resource.get("entry")
    first = entries[0] if isinstance(entries, list) and entries else None
    composition = first.get("resource") if isinstance(first, dict) else None
    if resource.get("type") != "document" or not isinstance(composition, dict):
        return
    full_url = first.get("fullUrl") if isinstance(first, dict) else None
    subject = composition.get("subject")
    text = subject.get("reference") if isinstance(subject, dict) else None
    if isinstance(text, str) and ":" not in text and _is_elsewhere(full_url, base_urls):
        return
    if composition.get("resourceType") == "Composition":
        yield from _patients(subject, base_urls)


def _is_elsewhere(full_url: Any, base_urls: Bases) -> bool:
    """Whether ``full_url`` is a resource of another server; one that is no address says nothing."""
    if not isinstance(full_url, str) or "://" not in full_url:
        return False
    return not any(full_url.startswith(f"{base}/") for base in base_urls)


def _communication(resource: Resource, base_urls: Bases) -> Iterator[str]:
    recipients = resource.get("recipient")
    for one in (resource.get("sender"), *(recipients if isinstance(recipients, list) else ())):
        if key := _key(one, base_urls):
            yield f"{PARTY}{key}"


_PLACES: Mapping[str, Callable[[Resource, Bases], Iterator[str]]] = {
    "Device": _device,
    "Task": _task,
    "Binary": _binary,
    "Bundle": _bundle,
    "Communication": _communication,
}
BESIDE = frozenset(_PLACES)
"""The types of which something is written that the compartments of R4 do not say."""
