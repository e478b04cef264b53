"""Bundles: fullUrl and id, what documents and messages begin with, references between entries.

https://hl7.org/fhir/R4/bundle.html, https://hl7.org/fhir/R4/documents.html,
https://hl7.org/fhir/R4/messaging.html
"""

from collections.abc import Iterator
from typing import Any

from fhir_server.outcome import shown
from fhir_server.validation.entries import Entries, rest_parts
from fhir_server.validation.members import list_of
from fhir_server.validation.running import Item, Run

_FIRST = {"document": "Composition", "message": "MessageHeader"}
_SINGLE_LINKS = ("self", "first", "last", "next", "prev", "previous")
# What of the first resource must be in the bundle: documents.html#content, messageheader.html.
_INSIDE = {
    "Composition": ("subject", "encounter", "author", "attester", "custodian", "event", "section"),
    "MessageHeader": ("focus",),
}


def bundle_check(run: Run, item: Item) -> None:
    """Judge ``item``, a Bundle, as a whole."""
    bundle = item.value
    entries = [
        (index, one) for index, one in enumerate(list_of(bundle, "entry")) if isinstance(one, dict)
    ]
    _links(run, item)
    for index, entry in entries:
        _entry(run, item, index, entry, bundle.get("type"))
    _unique(run, item, entries)
    first = _FIRST.get(str(bundle.get("type")))
    if first is None:
        return
    resource = entries[0][1].get("resource") if entries else None
    if not isinstance(resource, dict) or resource.get("resourceType") != first:
        key = "bdl-11" if first == "Composition" else "bdl-12"
        text = f"The first entry of a {bundle['type']} is a {first} ({key})."
        run.add("invariant", text, item, below="entry[0]" if entries else "")
        return
    found = item.scope.entries = item.scope.entries or Entries(bundle)
    _resolves(run, item, found, entries, first)
    if bundle.get("type") == "document":
        _reachable(run, item, found, entries)


def _links(run: Run, item: Item) -> None:
    seen: set[str] = set()
    for index, link in enumerate(list_of(item.value, "link")):
        relation = link.get("relation") if isinstance(link, dict) else None
        if isinstance(relation, str) and relation in _SINGLE_LINKS:
            if relation in seen:
                text = f"The link {relation} is here more than once; expected one at most."
                run.add("value", text, item, below=f"link[{index}]")
            seen.add(relation)


def _entry(run: Run, item: Item, index: int, entry: dict[str, Any], type: Any) -> None:
    full_url, resource = entry.get("fullUrl"), entry.get("resource")
    place = f"entry[{index}].fullUrl"
    if isinstance(resource, dict):
        _mode(run, item, index, entry, resource)
    if not isinstance(full_url, str) or not full_url:
        return
    if ":" not in full_url:
        text = f"The fullUrl is {shown(full_url)}; expected an absolute URL or a URN."
        run.add("value", text, item, below=place)
        return
    parts = rest_parts(full_url)
    if parts is None or not isinstance(resource, dict):
        return
    _, pointed, id, _ = parts
    if pointed not in run.definitions.types:
        return
    found = f"{resource.get('resourceType')}/{resource.get('id')}"
    if "id" not in resource:
        # What is to be created has no id yet, whatever its fullUrl looks like.
        if type not in ("transaction", "batch"):
            text = (
                f"The fullUrl {shown(full_url)} is that of {pointed}/{id}; the resource has no id."
            )
            run.add("value", text, item, below=place)
    elif found != f"{pointed}/{id}":
        text = f"The fullUrl {shown(full_url)} is that of {pointed}/{id}; the resource is {found}."
        run.add("value", text, item, below=place)


def _mode(
    run: Run, item: Item, index: int, entry: dict[str, Any], resource: dict[str, Any]
) -> None:
    search = entry.get("search")
    mode = search.get("mode") if isinstance(search, dict) else None
    is_outcome = resource.get("resourceType") == "OperationOutcome"
    if mode == "outcome" and not is_outcome:
        text = "The mode of the entry is outcome; expected an OperationOutcome as its resource."
        run.add("value", text, item, below=f"entry[{index}].resource")


def _unique(run: Run, item: Item, entries: list[tuple[int, dict[str, Any]]]) -> None:
    if item.value.get("type") == "history":
        return
    seen: dict[tuple[str, Any], int] = {}
    for index, entry in entries:
        full_url, resource = entry.get("fullUrl"), entry.get("resource")
        if not isinstance(full_url, str):
            continue
        meta = resource.get("meta") if isinstance(resource, dict) else None
        version = meta.get("versionId") if isinstance(meta, dict) else None
        key = (full_url, version if isinstance(version, str) else "")
        if key in seen:
            text = f"The fullUrl {shown(full_url)} is that of entry {seen[key]} too (bdl-7)."
            run.add("invariant", text, item, below=f"entry[{index}].fullUrl")
        seen.setdefault(key, index)


def _resolves(
    run: Run, item: Item, found: Entries, entries: list[tuple[int, dict[str, Any]]], first: str
) -> None:
    """Everything that the first resource refers to is in the bundle."""
    index, entry = entries[0]
    resource, full_url = entry["resource"], str(entry.get("fullUrl", ""))
    for name in _INSIDE[first]:
        for path, reference in references_of(resource.get(name), name):
            if reference.startswith("#") or found.find(reference, full_url) is not None:
                continue
            near = found.named(reference)
            hint = (
                f" Entry {near[2]} has this type and id, but its fullUrl is another one."
                if near
                else ""
            )
            text = (
                f"{shown(reference)} is not in the bundle; a {first} refers to what is there.{hint}"
            )
            run.add("not-found", text, item, below=f"entry[{index}].resource.{path}")


def _reachable(
    run: Run, item: Item, found: Entries, entries: list[tuple[int, dict[str, Any]]]
) -> None:
    """Each entry of a document is linked to the Composition, in one direction or the other."""
    links: dict[int, set[int]] = {}
    for index, entry in entries:
        full_url = str(entry.get("fullUrl", ""))
        for _, reference in references_of(entry.get("resource"), ""):
            target = found.find(reference, full_url)
            if target is not None:
                links.setdefault(index, set()).add(target[2])
                links.setdefault(target[2], set()).add(index)
    reached, rest = {entries[0][0]}, [entries[0][0]]
    while rest:
        for index in links.get(rest.pop(), ()):
            if index not in reached:
                reached.add(index)
                rest.append(index)
    for index, entry in entries:
        if index not in reached and isinstance(entry.get("resource"), dict):
            text = "This entry is not linked with the Composition, by no chain of references."
            run.add("business-rule", text, item, below=f"entry[{index}]")


def references_of(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield ``(path, reference)`` of all literal references in ``value``, contained ones too."""
    rest = [(path, value)]
    while rest:
        where, one = rest.pop()
        if isinstance(one, dict):
            reference = one.get("reference")
            if isinstance(reference, str) and reference:
                yield where, reference
            rest.extend(
                (f"{where}.{name}" if where else name, inner)
                for name, inner in reversed(one.items())
                if isinstance(inner, dict | list)
            )
        elif isinstance(one, list):
            rest.extend(
                (f"{where}[{index}]", inner) for index, inner in reversed(list(enumerate(one)))
            )
