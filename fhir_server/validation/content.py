"""What the text of the specification asks of single types, beyond elements and invariants.

https://hl7.org/fhir/R4/questionnaire.html#enableWhen, https://hl7.org/fhir/R4/codesystem.html,
https://hl7.org/fhir/R4/valueset.html, https://hl7.org/fhir/R4/structuredefinition.html
"""

from collections.abc import Iterator, Mapping
from typing import Any

import re2

from fhir_server.outcome import nearest, shown
from fhir_server.r4.structures import TYPE_URL
from fhir_server.validation.members import objects_of
from fhir_server.validation.responses import response_check
from fhir_server.validation.running import PENDING, Check, Item, Run
from fhir_server.validation.snapshot import type_code

_VARIABLE = re2.compile(r"%([A-Za-z_][A-Za-z0-9_\-]*)")
_PARAMETER = "http://hl7.org/fhir/tools/StructureDefinition/valueset-parameter"
_CQF_EXPRESSION = TYPE_URL + "cqf-expression"
_ABSTRACT = ("Resource", "DomainResource", "Element", "BackboneElement")


def _text(value: Mapping[str, Any], name: str) -> str:
    found = value.get(name)
    return found if isinstance(found, str) else ""


# ------------------------------------------------------------------------------ canonical urls


def canonical_check(run: Run, item: Item) -> None:
    """The url of a conformance resource is absolute."""
    url = _text(item.value, "url")
    if not url:
        return
    if ":" not in url:
        text = f"The url is {shown(url)}; the canonical of a {item.type} is absolute."
        run.add("value", text, item, below="url")


# -------------------------------------------------------------------------------- code systems


def code_system_check(run: Run, item: Item) -> None:
    """Count, content and supplement of a CodeSystem agree; its codes are different."""
    value = item.value
    content = value.get("content")
    if "supplements" in value and content != "supplement":
        text = (
            f"The content is {shown(content)}; that of a CodeSystem that supplements is supplement."
        )
        run.add("invariant", text, item, below="content")
    seen: set[str] = set()
    count = 0
    for path, concept in _concepts(value):
        count += 1
        code = concept.get("code")
        if isinstance(code, str):
            if code in seen:
                text = f"The code {shown(code)} is here twice; expected different codes (csd-1)."
                run.add("invariant", text, item, below=f"{path}.code")
            seen.add(code)
    stated = value.get("count")
    if content == "complete" and isinstance(stated, int) and stated != count:
        text = f"The count is {stated}, the concepts are {count}; a complete CodeSystem has all."
        run.add("value", text, item, below="count")


def _concepts(value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    rest: list[tuple[str, Any]] = [("", value)]
    while rest:
        path, one = rest.pop()
        inner = [(f"{path}.concept[{i}]".lstrip("."), c) for i, c in objects_of(one, "concept")]
        yield from inner
        rest.extend(reversed(inner))


# ---------------------------------------------------------------------------------- value sets


def value_set_check(run: Run, item: Item) -> None:
    """Systems are absolute and no value sets; filters are of parameters that there are."""
    compose = item.value.get("compose")
    parameters = _parameters(item.value)
    for half in ("include", "exclude"):
        for index, part in objects_of(compose, half):
            path = f"compose.{half}[{index}]"
            _system(run, item, _text(part, "system"), path)
            for place, filter in objects_of(part, "filter"):
                _filter(run, item, filter, f"{path}.filter[{place}]", parameters)
                if _text(part, "system") == "http://snomed.info/sct":
                    _expression(run, item, filter, f"{path}.filter[{place}]")


def _system(run: Run, item: Item, system: str, path: str) -> None:
    if system and ":" not in system:
        text = f"The system is {shown(system)}; expected an absolute URI, even if it is contained."
        run.add("value", text, item, below=f"{path}.system")
    elif system and run.definitions.artifact("ValueSet", system):
        text = f"The system {shown(system)} is a value set; expected a code system, or valueSet."
        run.add("value", text, item, below=f"{path}.system")


def _parameters(value: dict[str, Any]) -> set[str]:
    names = set()
    for _, extension in objects_of(value, "extension"):
        if extension.get("url") == _PARAMETER:
            for _, part in objects_of(extension, "extension"):
                if part.get("url") == "name":
                    names.add(str(part.get("valueCode") or part.get("valueString")))
    return names


def _filter(run: Run, item: Item, filter: dict[str, Any], path: str, parameters: set[str]) -> None:
    for _, extension in objects_of(filter.get("_value"), "extension"):
        expression = extension.get("valueExpression")
        if extension.get("url") != _CQF_EXPRESSION or not isinstance(expression, dict):
            continue
        for name in _VARIABLE.findall(_text(expression, "expression")):
            if name not in parameters:
                text = f"The filter uses the parameter {shown(name)}, which the ValueSet has not."
                hint = nearest(name, parameters)
                run.add("value", text + hint, item, below=f"{path}.value")


_ECL_TOKEN = re2.compile(
    r"\s+|\|[^|]*\||\"[^\"]*\"|[0-9]{6,18}|\*|<<?!?|>>?!?|\^|!?=|[<>]=|[(){}\[\],.:#+\-]"
    r"|[A-Za-z][A-Za-z0-9_\-]*|[0-9.]+"
)
_ECL_UNITS = re2.compile(r"[0-9]{6,18}|\*")


def _expression(run: Run, item: Item, filter: dict[str, Any], path: str) -> None:
    """The expression of a constraint can be read: two concepts have something between them.

    http://snomed.org/ecl; the grammar as a whole is for a server that has SNOMED CT.
    """
    if filter.get("property") not in ("constraint", "expression"):
        return
    text, at, was_unit, depth = _text(filter, "value"), 0, False, 0
    while at < len(text):
        found = _ECL_TOKEN.match(text[at:])
        token = found.group(0) if found is not None else ""
        is_unit = bool(_ECL_UNITS.fullmatch(token))
        starts = is_unit or token.startswith(("<", "^")) or (token[:1] == ">" and token != ">=")
        if found is None or (was_unit and starts):
            run.add("value", f"{shown(text)} is no expression constraint.", item, below=path)
            return
        depth += token.count("(") - token.count(")")
        if token.strip() and not token.startswith("|"):
            was_unit = is_unit or token == ")"
        at += found.end()
    if depth:
        run.add("value", f"{shown(text)} has brackets without a partner.", item, below=path)


# ------------------------------------------------------------------------------- questionnaires


def questionnaire_check(run: Run, item: Item) -> None:
    """enableWhen refers to questions that there are, before or beside the item, not inside it."""
    questions: dict[str, str] = {}
    for path, one in _items(item.value):
        questions.setdefault(_text(one, "linkId"), path)
    for path, one in _items(item.value):
        for index, condition in objects_of(one, "enableWhen"):
            question = _text(condition, "question")
            where = f"{path}.enableWhen[{index}]"
            place = questions.get(question)
            if not question:
                continue
            if place is None:
                text = f"enableWhen refers to the question {shown(question)}, which is not here."
                run.add("business-rule", text + nearest(question, questions), item, below=where)
            elif place == path or place.startswith(f"{path}."):
                text = f"enableWhen refers to {shown(question)}, which is inside of this item."
                run.add("business-rule", text, item, below=path)


def _items(value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield all items, in document order, with their paths."""
    rest = [(f"item[{index}]", one) for index, one in objects_of(value, "item")][::-1]
    while rest:
        path, one = rest.pop()
        yield path, one
        rest.extend([(f"{path}.item[{i}]", inner) for i, inner in objects_of(one, "item")][::-1])


# ------------------------------------------------------------------------- capability statements


def capability_check(run: Run, item: Item) -> None:
    """A search parameter has the type that its definition has."""
    types = {one.url: one.type for one in run.definitions.search_parameters}
    for i, rest in objects_of(item.value, "rest"):
        for j, resource in objects_of(rest, "resource"):
            for k, parameter in objects_of(resource, "searchParam"):
                definition = _text(parameter, "definition").partition("|")[0]
                found, wanted = parameter.get("type"), types.get(definition)
                if wanted is not None and isinstance(found, str) and found != wanted:
                    text = f"{definition} is of the type {wanted}; the type here is {shown(found)}."
                    place = f"rest[{i}].resource[{j}].searchParam[{k}].type"
                    run.add("value", text, item, below=place)


def search_parameter_check(run: Run, item: Item) -> None:
    """A composite has two components or more."""
    if item.value.get("type") == "composite" and len(list(objects_of(item.value, "component"))) < 2:
        text = "A composite search parameter has two or more components."
        run.add("business-rule", text, item)


# ------------------------------------------------------------------------ structure definitions


def structure_check(run: Run, item: Item) -> None:
    """The differential fits its base, and the profiles of types are for these types."""
    value = item.value
    fault = run.rules.structure_fault(run, value)
    if fault:
        run.add("processing", f"No snapshot can be made. {fault}", item)
    for half in ("snapshot", "differential"):
        for index, element in objects_of(value.get(half), "element"):
            for place, type in objects_of(element, "type"):
                path = f"{half}.element[{index}].type[{place}]"
                _type_profiles(run, item, type, path)


def _type_profiles(run: Run, item: Item, type: dict[str, Any], path: str) -> None:
    code = type_code(type)
    profiles = type.get("profile")
    for index, url in enumerate(profiles if isinstance(profiles, list) else ()):
        structure = run.structure(url) if isinstance(url, str) else None
        if structure is None or structure is PENDING:
            continue
        if code and code not in (structure.get("type"), *_ABSTRACT):
            wanted = structure.get("type")
            text = f"The profile {shown(url, most=300)} is for {wanted}, not for {code}."
            run.add("value", text, item, below=f"{path}.profile[{index}]")


_CANONICAL = (
    *("ActivityDefinition", "CapabilityStatement", "ChargeItemDefinition", "CodeSystem"),
    *("CompartmentDefinition", "ConceptMap", "EffectEvidenceSynthesis", "EventDefinition"),
    *("Evidence", "EvidenceVariable", "ExampleScenario", "GraphDefinition"),
    *("ImplementationGuide", "Library", "Measure", "MessageDefinition", "NamingSystem"),
    *("OperationDefinition", "PlanDefinition", "Questionnaire", "ResearchDefinition"),
    *("ResearchElementDefinition", "RiskEvidenceSynthesis", "SearchParameter"),
    *("StructureDefinition", "StructureMap", "TerminologyCapabilities", "TestScript", "ValueSet"),
)
CONTENT: Mapping[str, tuple[Check, ...]] = {
    **dict.fromkeys(_CANONICAL, (canonical_check,)),
    "CodeSystem": (canonical_check, code_system_check),
    "ValueSet": (canonical_check, value_set_check),
    "Questionnaire": (canonical_check, questionnaire_check),
    "QuestionnaireResponse": (response_check,),
    "CapabilityStatement": (canonical_check, capability_check),
    "SearchParameter": (canonical_check, search_parameter_check),
    "StructureDefinition": (canonical_check, structure_check),
}
"""What is judged of a resource of a type as a whole."""
