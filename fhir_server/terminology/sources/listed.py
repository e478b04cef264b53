"""A CodeSystem resource with its concepts in it -> the same with its concepts beside it.

https://hl7.org/fhir/R4/codesystem.html#hierarchy
"""

from collections.abc import Iterator, Sequence

from fhir_server.terminology.sources.source import Concept, Resource, Source, checked, property_of

_APART_CONCEPTS = 5000
_ELSEWHERE = ("concept", "text", "id", "meta")


def is_large(resource: Resource) -> bool:
    """Whether the concepts of the CodeSystem ``resource`` are too many to be kept in it."""
    count = 0
    waiting = [resource.get("concept", ())]
    while waiting:
        for one in waiting.pop():
            count += 1
            waiting.append(one.get("concept", ()))
        if count > _APART_CONCEPTS:
            return True
    return False


def listed(resource: Resource) -> Source:
    """Return the CodeSystem ``resource`` as a source of its concepts."""
    rest = {name: value for name, value in resource.items() if name not in _ELSEWHERE}
    nested = resource.get("hierarchyMeaning", "is-a") == "is-a"
    what = str(resource.get("title") or resource.get("name") or resource.get("url"))
    return Source(rest, checked(_flat(resource.get("concept", ()), nested=nested), what))


def _flat(concepts: Sequence[Concept], *, nested: bool) -> Iterator[Concept]:
    waiting: list[tuple[Concept, str]] = [(one, "") for one in reversed(concepts)]
    while waiting:
        concept, above = waiting.pop()
        rest = {name: value for name, value in concept.items() if name != "concept"}
        if above and nested:
            parent = property_of("parent", valueCode=above)
            rest["property"] = [*rest.get("property", ()), parent]
        yield rest
        waiting += [(one, concept["code"]) for one in reversed(concept.get("concept", ()))]
