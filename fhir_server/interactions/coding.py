"""Whether codes are in value sets and code systems: the answers to the questions of pure cores.

https://hl7.org/fhir/R4/terminology-service.html#validation

Many questions are answered together: each value set is expanded once, and kept, and all concepts
of large systems are read at once.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from fhir_server.context import Context
from fhir_server.interactions.elsewhere import asked_elsewhere
from fhir_server.interactions.terms import Selected, System, Terms, hierarchy_of, plain_concept
from fhir_server.outcome import shown
from fhir_server.r4.expansion import Shelved, Unexpandable
from fhir_server.r4.questions import Coded, CodeInSystem, CodeInValueSet, Question
from fhir_server.r4.selections import NONE, Codes, Every, holds, untold
from fhir_server.terminology import judging
from fhir_server.terminology.judging import Asked, Concept

Place = tuple[str, str]
"""``(canonical of a system, code)``"""
_PART = ("fragment", "example")


async def answered(
    questions: Iterable[Question], context: Context
) -> Mapping[CodeInValueSet | CodeInSystem, Coded]:
    """Return what is said of the codes that ``questions`` are about; others are passed over.

    ``result`` is ``None`` where the value set or the system is not here. A wrong display makes it
    false, with the right one in ``display``; a code that is not there has none.
    """
    coded = [one for one in questions if isinstance(one, CodeInValueSet | CodeInSystem)]
    return await told(coded, await Terms.of(context))


async def told(
    questions: Collection[CodeInValueSet | CodeInSystem],
    terms: Terms,
    *,
    abstract: bool = False,
    language: str = "",
) -> dict[CodeInValueSet | CodeInSystem, Coded]:
    """Like :func:`answered`, with what a request brings along. ``abstract`` lets pass codes that
    only group others."""
    selections = await _selections(questions, terms)
    places: dict[Any, list[tuple[str, Codes]]] = {}
    for one in questions:
        found = _places(one, selections)
        if not isinstance(found, Coded):
            places[one] = found
    names = {name for found in places.values() for name, _ in found}
    systems = {name: await terms.system(name) for name in names}
    concepts = await _concepts(
        [(name, one.code) for one, found in places.items() for name, _ in found], systems, terms
    )
    answers: dict[CodeInValueSet | CodeInSystem, Coded] = {}
    for one in questions:
        if one not in places:
            reason = _places(one, selections)
            assert isinstance(reason, Coded)
            answers[one] = reason
            continue
        where = one.value_set if isinstance(one, CodeInValueSet) else one.system
        asked = Asked(where, one.system, one.code, one.display, abstract, language)
        said = selections[one.value_set] if isinstance(one, CodeInValueSet) else None
        own = said.concepts if isinstance(said, Selected) else {}
        answers[one] = _answer(asked, places[one], systems, concepts, own)
    open = [one for one, answer in answers.items() if answer.result is None]
    return answers | await asked_elsewhere(open, terms)


async def _selections(
    questions: Collection[CodeInValueSet | CodeInSystem], terms: Terms
) -> dict[str, Selected | str]:
    """Return what each value set takes, or why that is not known."""
    found: dict[str, Selected | str] = {}
    for name in {one.value_set for one in questions if isinstance(one, CodeInValueSet)}:
        try:
            found[name] = await terms.selected(name)
        except Unexpandable as error:
            found[name] = str(error)
    return found


def _places(
    question: CodeInValueSet | CodeInSystem, selections: Mapping[str, Selected | str]
) -> list[tuple[str, Codes]] | Coded:
    """Return the systems that the code may be one of, with the codes that would do of each."""
    if isinstance(question, CodeInSystem):
        if not question.system:
            return judging.untold("no system is named")
        return [(_versioned(question.system, question.version), Every())]
    selected = selections[question.value_set]
    if isinstance(selected, str):
        return judging.untold(selected)
    found = []
    for system, codes in selected.selection.items():
        if question.system in ("", system):
            versions = selected.versions.get(system, ())
            if question.version and versions and question.version not in versions:
                few = ", ".join(sorted(versions))
                text = f"{shown(question.code)} is said to be of version {shown(question.version)}"
                return Coded(False, f"{text} of {shown(system)}; the value set takes {few}.")
            if question.version:
                found.append((_versioned(system, question.version), codes))
            else:
                found += [(name, codes) for name in selected.canonicals(system)]
    return found


def _versioned(system: str, version: str) -> str:
    return f"{system}|{version}" if version else system


async def _concepts(
    wanted: Collection[Place], systems: Mapping[str, System | None], terms: Terms
) -> dict[Place, Concept]:
    """Return the concepts there are of ``wanted``, those of large systems in one read."""
    found: dict[Place, Concept] = {}
    shelved: dict[tuple[int, str], Place] = {}
    for name, code in wanted:
        system = systems[name]
        if isinstance(system, Shelved) and system.shelf is not None:
            shelved[system.shelf.number, code] = name, code
        elif system is not None and (one := plain_concept(system, code)) is not None:
            found[name, code] = one
    if shelved:
        read = await terms.context.store.concepts.read(shelved)
        found |= {shelved[place]: concept for place, concept in read.items()}
    return found


def _answer(
    asked: Asked,
    places: list[tuple[str, Codes]],
    systems: Mapping[str, System | None],
    concepts: Mapping[Place, Concept],
    own: Mapping[Place, Concept],
) -> Coded:
    """Return what is said of a code that may be in any of ``places``. ``own`` is what the value set
    itself says of the codes that it lists."""
    reason, known = "", NONE
    for name, codes in places:
        system, concept = systems[name], concepts.get((name, asked.code))
        listed = own.get((name.partition("|")[0], asked.code), {})
        if concept is None and system is None and codes != Every():
            concept = {"code": asked.code}  # a list may name codes of a system that is not here
        if concept is None:
            reason = _unknown(name, system, codes) or reason
            known |= _nearby(system, codes)
        elif (inside := holds(codes, concept)) is True:
            return judging.judged(asked, concept, judging.all_displays(listed))
        else:
            reason = untold(codes) if inside is None else reason
            known |= _listed(codes)
    if reason:
        return judging.untold(reason)
    return judging.absent(asked, known)


def _unknown(name: str, system: System | None, codes: Codes) -> str:
    """Return why a code that was not found in ``system`` may be one of ``codes`` all the same."""
    if system is None:
        return f"the code system {name} is not here"
    if system.get("content") in _PART:
        return f"of the code system {name} not all is here"
    return ""


def _listed(codes: Codes) -> frozenset[str]:
    return codes if isinstance(codes, frozenset) else NONE


def _nearby(system: System | None, codes: Codes) -> frozenset[str]:
    """Return codes among which one may be that was meant."""
    hierarchy = hierarchy_of(system) if system is not None and codes == Every() else None
    return hierarchy.codes if hierarchy is not None else _listed(codes)
