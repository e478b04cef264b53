"""Which value set or code system a terminology operation is about, and which codes.

https://hl7.org/fhir/R4/terminology-service.html
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fhir_server.context import Context
from fhir_server.interactions.defining import decoded
from fhir_server.interactions.terms import System, Terms
from fhir_server.messages import Request, Resource
from fhir_server.operations.asked import RESOURCES, Given
from fhir_server.outcome import FhirError, Issue, deleted, not_found, shown
from fhir_server.terminology.judging import INLINE

NO_DATE = "definitions are not kept by date; name a version instead"
SYSTEM_VERSIONS = ("system-version", "force-system-version", "check-system-version")
_TERMS = ("CodeSystem", "ValueSet", "ConceptMap")


@dataclass(frozen=True, slots=True)
class Coded:
    """One code that is asked about."""

    system: str
    code: str
    version: str = ""
    display: str = ""


def required(given: Given, text: str) -> FhirError:
    """Return the refusal of a request that lacks something."""
    return FhirError(Issue("required", f"{given.name} needs {text}."))


def brought(given: Given, *inline: Resource | None) -> list[Resource]:
    """Return the definitions that came along. Raises ``value`` for what is no terminology."""
    found = [named(one) for one in inline if one is not None]
    for one in given.many(RESOURCES):
        if one.get("resourceType") not in _TERMS or "url" not in one:
            text = f"A {RESOURCES} is a {', '.join(_TERMS[:2])} or {_TERMS[2]} with a url."
            raise FhirError(Issue("value", text))
        found.append(one)
    return found


def named(resource: Resource) -> Resource:
    """Return ``resource`` with a url, for one without."""
    return resource if "url" in resource else {**resource, "url": INLINE}


def canonical(url: str, version: str) -> str:
    """Return ``url|version``, or the url alone."""
    return f"{url}|{version}" if version and "|" not in url else url


async def instance(request: Request, context: Context) -> Resource:
    """Return the resource that an operation was called on: a stored one, or one of a package.

    Raises ``not-found`` and ``deleted``.
    """
    # Terminology is for whoever is signed in, by its id as by its url.
    stored = await context.store.as_server.read(request.type, request.id)
    if stored is not None and stored.deleted:
        raise deleted(request.type, request.id, stored.version)
    if stored is not None:
        return await decoded(stored, context)
    name = f"{request.type}/{request.id}"
    loaded = context.definitions.artifact(request.type, name)
    if loaded is None:
        raise not_found(request.type, request.id)
    return dict(loaded)


async def value_set(terms: Terms, name: str) -> Any:
    """Return the ValueSet ``name``. Raises ``not-found``."""
    found = await terms.artifact("ValueSet", name)
    if found is None:
        raise FhirError(Issue("not-found", f"The value set {shown(name, most=200)} is not here."))
    return found


async def code_system(terms: Terms, name: str) -> System:
    """Return the code system ``name``. Raises ``not-found`` where its codes are not here."""
    found = await terms.system(name)
    if found is None:
        here = await terms.artifact("CodeSystem", name)
        why = "is here without its codes" if here else "is not here"
        text = f"The code system {shown(name, most=200)} {why}."
        raise FhirError(Issue("not-found", text))
    return found


def coding_of(coding: Resource) -> Coded:
    """Return the code of a Coding."""
    return Coded(
        *(coding.get(name, "") for name in ("system", "code", "version", "display")),
    )


def context_value_set(context: Context, name: str) -> str:
    """Return the value set that the element ``name`` is bound to, of a type that R4 defines.

    ``name`` is ``[StructureDefinition url]#[path]``, or the path alone. Raises ``not-found``.
    """
    path = name.rpartition("#")[2]
    for element in context.definitions.types.values():
        if path.partition(".")[0] == element.name:
            for one in element.elements.get(path.rpartition(".")[0], ()):
                if one.path in (path, f"{path}[x]") and one.binding:
                    return one.binding[1]
    text = f"The context {shown(name, most=200)} is no element here that is bound to a value set."
    raise FhirError(Issue("not-found", text))


def versions_of(given: Given) -> Callable[[str], str] | None:
    """Return what makes of the canonical of a code system the one that is to be used.

    https://hl7.org/fhir/R4/valueset-operation-expand.html: ``system-version`` where a value set
    says none, ``force-system-version`` in any case; ``check-system-version`` refuses another.
    """
    default, forced, checked = (
        {url: version for one in given.many(kind) for url, _, version in [one.partition("|")]}
        for kind in SYSTEM_VERSIONS
    )
    if not (default or forced or checked):
        return None

    def version_of(name: str) -> str:
        url, _, version = name.partition("|")
        version = forced.get(url) or version or checked.get(url) or default.get(url, "")
        if url in checked and version != checked[url]:
            text = f"{shown(url)} is used in version {shown(version)}, not {shown(checked[url])}."
            raise FhirError(Issue("business-rule", text))
        return canonical(url, version)

    return version_of
