"""Questions about codes for another terminology server, and its answers.

https://hl7.org/fhir/R4/valueset-operation-validate-code.html
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fhir_server.r4.questions import Coded, CodeInSystem, CodeInValueSet

Resource = dict[str, Any]

_NOT_SENT = ("text", "meta", "id", "contact", "useContext")
_MESSAGE_MAX = 500


def path_of(question: CodeInSystem | CodeInValueSet) -> str:
    """Return the operation that answers ``question``, below the base."""
    type = "ValueSet" if isinstance(question, CodeInValueSet) else "CodeSystem"
    return f"{type}/$validate-code"


def asked_of(
    question: CodeInSystem | CodeInValueSet, value_set: Mapping[str, Any] | None
) -> Resource:
    """Return the Parameters that ask ``question``, with ``value_set`` if its definition is ours."""
    coding = {"system": question.system, "version": question.version, "code": question.code}
    coding |= {"display": question.display}
    parameters: list[Resource] = []
    if isinstance(question, CodeInSystem):
        parameters.append({"name": "url", "valueUri": question.system})
    elif value_set is not None:
        sent = {name: value for name, value in value_set.items() if name not in _NOT_SENT}
        parameters.append({"name": "valueSet", "resource": sent})
    else:
        url, _, version = question.value_set.partition("|")
        parameters.append({"name": "url", "valueUri": url})
        if version:
            parameters.append({"name": "valueSetVersion", "valueString": version})
    said = {name: value for name, value in coding.items() if value}
    parameters.append({"name": "coding", "valueCoding": said})
    return {"resourceType": "Parameters", "parameter": parameters}


def coded_from(parameters: Mapping[str, Any]) -> Coded:
    """Return what the answer says. What is no answer to the question leaves it open."""
    said = {
        one.get("name"): value
        for one in parameters.get("parameter", ())
        for name, value in one.items()
        if name.startswith("value")
    }
    result = said.get("result")
    if not isinstance(result, bool):
        return Coded(None, "The other terminology server did not say whether the code is right.")
    texts = {name: said.get(name, "") for name in ("message", "display")}
    message, display = (
        text[:_MESSAGE_MAX] if isinstance(text, str) else "" for text in texts.values()
    )
    return Coded(result, message, display)


def system_of(name: str, systems: Iterable[str]) -> str:
    """Return which of ``systems`` the url ``name`` belongs to: itself, a version of it, or a value
    set that follows from it (``http://snomed.info/sct?fhir_vs``, ``http://loinc.org/vs``)."""
    for system in systems:
        if name == system or name.startswith((f"{system}|", f"{system}?", f"{system}/")):
            return system
    return ""


def systems_in(value: Any, systems: Iterable[str]) -> Iterator[str]:
    """Yield those of ``systems`` that something in ``value``, JSON, names."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            if found := system_of(one, systems):
                yield found
        elif isinstance(one, Mapping):
            waiting += one.values()
        elif isinstance(one, list | tuple):
            waiting += one
