"""Parameters that several interactions share: ``_summary``, ``_elements``, ``_count``.

https://hl7.org/fhir/R4/search.html#return
"""

from collections.abc import Collection
from dataclasses import dataclass

from fhir_server.messages import Content, Request
from fhir_server.outcome import FhirError, Issue, nearest, shown
from fhir_server.r4.definitions import Definitions
from fhir_server.r4.json import decode_stored, encode
from fhir_server.r4.subsets import element_names, subset, summary_word
from fhir_server.search.page import page_length


@dataclass(frozen=True, slots=True)
class Subset:
    """What part of each resource is wanted; everything, by default."""

    summary: str = ""
    elements: frozenset[str] = frozenset()

    def applied(self, json: bytes, definitions: Definitions) -> bytes:
        """Return the wanted part of the resource ``json``; the same bytes for all of it."""
        if self.is_all:
            return json
        part = subset(
            decode_stored(json), definitions, summary=self.summary, elements=self.elements
        )
        return encode(part)

    def content(self, kept: Content | None) -> Content | None:
        """Return what is ``kept`` beside the resource, where everything is wanted."""
        return kept if self.is_all else None

    @property
    def is_all(self) -> bool:
        """Whether everything is wanted."""
        return self.summary in ("", "false") and not self.elements


def subset_of(request: Request, types: Collection[str], definitions: Definitions) -> Subset:
    """Return what ``_summary`` and ``_elements`` ask for where no search is made, of ``types``.

    Raises ``value`` for another word, ``not-supported`` for an element that none of the types has
    and for ``_summary=count``; a lenient client gets everything instead.
    """
    summary, elements = value_of(request, "_summary"), value_of(request, "_elements")
    try:
        if summary and summary_word(summary) == "count":
            text = f"_summary=count counts what a search finds; {request.interaction} is none."
            raise FhirError(Issue("not-supported", text))
        names = element_names(elements, types, definitions) if elements.strip() else ()
    except FhirError as error:
        lenient = request.prefer.get("handling") == "lenient"
        if lenient and error.issues[0].code == "not-supported":
            return Subset()
        raise
    return Subset(summary, frozenset(names))


def value_of(request: Request, name: str) -> str:
    """Return the value of the parameter ``name``, or ``""``. Raises ``value`` if it is repeated."""
    values = [value for other, value in request.parameters if other == name]
    if len(values) > 1:
        raise FhirError(Issue("value", f"{name} is given {len(values)} times; once is possible."))
    return values[0] if values else ""


def count_of(request: Request, default: int, most: int) -> int:
    """Return the number of entries of a page, at most ``most``. Raises ``value`` for no number."""
    text = value_of(request, "_count")
    return page_length(text, most) if text else default


def known_only(request: Request, known: Collection[str]) -> None:
    """Refuse parameters that mean nothing here, unless the client prefers lenient handling."""
    if request.prefer.get("handling") == "lenient":
        return
    for name, _ in request.parameters:
        if name not in known:
            raise FhirError(
                Issue(
                    "not-supported",
                    f"The parameter {shown(name)} means nothing to {request.interaction}."
                    f"{nearest(name, known)}",
                )
            )
