"""What supplements add to concepts. https://hl7.org/fhir/R4/codesystem.html#supplements"""

from collections.abc import Iterable, Mapping, Sequence

from fhir_server.interactions.terms import System, Terms
from fhir_server.outcome import FhirError, Issue, shown
from fhir_server.r4.expansion import Listed
from fhir_server.terminology.judging import Concept

_SUPPLEMENT = "supplement"


async def supplements(names: Iterable[str], terms: Terms) -> list[Listed]:
    """Return the supplements ``names``, canonicals. Raises ``not-found`` for what is none."""
    found = []
    for name in dict.fromkeys(names):
        one = await terms.artifact("CodeSystem", name)
        if not isinstance(one, Listed) or one.get("content") != _SUPPLEMENT:
            text = f"The supplement {shown(name, most=200)} is not here."
            raise FhirError(Issue("not-found", text))
        found.append(one)
    return found


async def supplemented(
    concept: Concept, system: System, names: Sequence[str], terms: Terms
) -> Concept:
    """Return ``concept`` of ``system`` with what the supplements ``names`` say of it."""
    return added(concept, system, await supplements(names, terms)) if names else concept


def added(concept: Concept, system: Mapping[str, object], more: Iterable[Listed]) -> Concept:
    """Return ``concept`` with the designations and properties that ``more`` has for it."""
    for one in more:
        url, _, version = str(one.get("supplements", "")).partition("|")
        extra = one.hierarchy.concepts.get(concept["code"])
        if extra and url == system.get("url") and version in ("", system.get("version")):
            lists = {
                name: [*concept.get(name, ()), *extra.get(name, ())]
                for name in ("designation", "property")
                if extra.get(name)
            }
            concept = {**concept, **lists}
    return concept
