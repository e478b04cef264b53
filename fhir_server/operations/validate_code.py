"""``$validate-code`` of code systems and value sets.

https://hl7.org/fhir/R4/codesystem-operation-validate-code.html,
https://hl7.org/fhir/R4/valueset-operation-validate-code.html
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fhir_server.context import Context
from fhir_server.interactions.coding import told
from fhir_server.interactions.terms import Terms
from fhir_server.messages import Request, Response
from fhir_server.operations import named
from fhir_server.operations.asked import RESOURCES, Given, given
from fhir_server.operations.bodies import parameters_out
from fhir_server.operations.named import Coded, canonical, coding_of
from fhir_server.outcome import FhirError, Issue
from fhir_server.r4 import questions
from fhir_server.r4.questions import CodeInSystem, CodeInValueSet
from fhir_server.registry import Operation

_CODES = {
    **dict.fromkeys(("code", "display", "version", "displayLanguage"), "string"),
    "coding": "Coding",
    "codeableConcept": "CodeableConcept",
    "abstract": "boolean",
    RESOURCES: "Resource",
}
_OF_SYSTEM = {"url": "uri", "codeSystem": "Resource CodeSystem", **_CODES}
_OF_VALUE_SET = {
    "url": "uri",
    "context": "uri",
    "valueSet": "Resource ValueSet",
    "valueSetVersion": "string",
    "system": "uri",
    "systemVersion": "string",
    **_CODES,
    **dict.fromkeys(
        ("system-version", "check-system-version", "force-system-version"), "canonical"
    ),
}
_UNSERVED = {"date": named.NO_DATE}
_CODINGS_MAX = 100
_PARTS = ("system", "code", "version", "display")


async def of_system(request: Request, context: Context) -> Response:
    """Say whether a code is one of a code system.

    Raises ``required`` without a code system or a code, ``not-found`` where the system is not here.
    """
    asked = given(request, context, _OF_SYSTEM, _UNSERVED)
    inline = asked.one("codeSystem")
    if request.id:
        inline = await named.instance(request, context)
    terms = await Terms.of(context, named.brought(asked, inline))
    codes = _codes(asked, "")
    url = named.named(inline)["url"] if inline else asked.text("url")
    if not url:
        url = codes[0].system if len(codes) == 1 else ""
    if not url:
        raise named.required(asked, "url, codeSystem, or a coding with a system")
    version = asked.text("version")
    head = await named.code_system(terms, canonical(url, version))
    listed = [
        CodeInSystem(url, one.code, one.display, version or one.version)
        if one.system in ("", url)
        else CodeInSystem(one.system, one.code)
        for one in codes
    ]
    right = [one for one in listed if one.system == url]
    if not right:
        text = f"The code is of another system than {head.get('url', url)}."
        return _answer([questions.Coded(False, text)])
    found = await told(right, terms, **_how(asked))
    return _answer([found[one] for one in right])


async def of_value_set(request: Request, context: Context) -> Response:
    """Say whether a code is in a value set.

    Raises ``required`` without a value set or a code, ``not-found`` where the value set is not
    here.
    """
    asked = given(request, context, _OF_VALUE_SET, _UNSERVED)
    name, inline = await which_value_set(request, context, asked)
    terms = await Terms.of(context, named.brought(asked, inline), named.versions_of(asked))
    await named.value_set(terms, name)
    codes = _codes(asked, asked.text("system"))
    if "code" in asked.values and not codes[0].system and "context" not in asked.values:
        raise named.required(asked, "the system of the code, or a context")
    version = asked.text("systemVersion") or asked.text("version")
    listed = [
        CodeInValueSet(name, one.system, one.code, one.display, version or one.version)
        for one in codes
    ]
    found = await told(listed, terms, **_how(asked))
    return _answer([found[one] for one in listed])


async def which_value_set(request: Request, context: Context, asked: Given) -> tuple[str, Any]:
    """Return the name of the value set that a request is about, and the one it brings along.

    Raises ``required`` where it names none, ``value`` where it names several.
    """
    ways = [name for name in ("url", "valueSet", "context") if name in asked.values]
    if len(ways) + bool(request.id) > 1:
        text = f"{asked.name} is about one value set: its id, url, valueSet, or context."
        raise FhirError(Issue("value", text))
    inline = asked.one("valueSet")
    if request.id:
        await named.instance(request, context)
        return f"{request.type}/{request.id}", None  # by its id, to be remembered by it
    if inline is not None:
        return named.named(inline)["url"], inline
    if "context" in asked.values:
        return named.context_value_set(context, asked.text("context")), None
    if not (url := asked.text("url")):
        raise named.required(asked, "a url, a valueSet, or a context")
    return canonical(url, asked.text("valueSetVersion")), None


def _codes(asked: Given, system: str) -> list[Coded]:
    """Return the codes that are asked about: there is one of the three ways to say it."""
    ways = [name for name in ("code", "coding", "codeableConcept") if name in asked.values]
    if len(ways) != 1:
        raise named.required(asked, "one of code, coding and codeableConcept")
    if ways[0] == "code":
        return [Coded(system, asked.text("code"), "", asked.text("display"))]
    if ways[0] == "coding":
        one = coding_of(asked.one("coding"))
        return [replace(one, display=asked.text("display") or one.display)]
    codings: Sequence[Any] = asked.one("codeableConcept").get("coding", ())
    if not 0 < len(codings) <= _CODINGS_MAX:
        raise named.required(asked, f"1 to {_CODINGS_MAX} codings in the codeableConcept")
    return [coding_of(one) for one in codings]


def _how(asked: Given) -> dict[str, Any]:
    return {
        "abstract": bool(asked.one("abstract", False)),
        "language": asked.text("displayLanguage"),
    }


def _answer(found: Sequence[questions.Coded]) -> Response:
    """Return that it is right where one coding is; else all that is wrong."""
    best = next((one for one in found if one.result), None)
    messages = [one.message for one in ([best] if best else found) if one.message]
    shown = best or found[0]
    parameters: list[dict[str, Any]] = [{"name": "result", "valueBoolean": best is not None}]
    if messages:
        parameters.append({"name": "message", "valueString": " ".join(dict.fromkeys(messages))})
    if shown.display:
        parameters.append({"name": "display", "valueString": shown.display})
    return Response(200, parameters_out(parameters))


_DEFINITION = "http://hl7.org/fhir/OperationDefinition/"
OF_SYSTEM = Operation(
    *("$validate-code", f"{_DEFINITION}CodeSystem-validate-code", of_system, ("CodeSystem",)),
    instance=True,
    needs="signed-in",
)
OF_VALUE_SET = Operation(
    *("$validate-code", f"{_DEFINITION}ValueSet-validate-code", of_value_set, ("ValueSet",)),
    instance=True,
    needs="signed-in",
)
