"""``CodeSystem/$lookup``: what is known of a code.

https://hl7.org/fhir/R4/codesystem-operation-lookup.html
"""

from collections.abc import Collection, Mapping
from typing import Any

from fhir_server.context import Context
from fhir_server.interactions.supplements import supplemented
from fhir_server.interactions.terms import System, Terms
from fhir_server.messages import Request, Response
from fhir_server.operations import named
from fhir_server.operations.asked import RESOURCES, Given, given
from fhir_server.operations.bodies import parameters_out
from fhir_server.operations.named import Coded, canonical, coding_of
from fhir_server.outcome import FhirError, Issue, nearest, shown
from fhir_server.r4.expansion import Listed
from fhir_server.r4.selections import Having, key
from fhir_server.registry import Operation
from fhir_server.store.concepts import Wanted
from fhir_server.terminology.described import EVERYTHING, described
from fhir_server.terminology.judging import Concept

_TABLE = {
    "code": "code",
    "system": "uri",
    "version": "string",
    "coding": "Coding",
    "displayLanguage": "code",
    "property": "code",
    "useSupplement": "canonical",
    RESOURCES: "Resource",
}
_UNSERVED = {"date": named.NO_DATE}
_CHILDREN_MAX = 1000
_NEAREST_AMONG_MAX = 5000


async def lookup(request: Request, context: Context) -> Response:
    """Return the display, designations and properties of a code.

    Raises ``required`` without a code and its system, ``not-found`` for a system or code that is
    not here.
    """
    asked = given(request, context, _TABLE, _UNSERVED)
    wanted = asked.many("property")
    one = code_of(asked)
    terms = await Terms.of(context, named.brought(asked))
    system = await named.code_system(terms, canonical(one.system, one.version))
    concept = (await terms.concepts(system, [one.code])).get(one.code)
    if concept is None:
        raise no_such_code(one, system)
    concept = await supplemented(concept, system, asked.many("useSupplement"), terms)
    kin = await _kin(concept, system, wanted, context)
    body = described(system, concept, kin, wanted, asked.text("displayLanguage"))
    return Response(200, parameters_out(body))


def code_of(asked: Given, suffix: str = "") -> Coded:
    """Return the code that is asked about: ``code`` and ``system``, or a ``coding``."""
    coding = asked.one(f"coding{suffix}")
    if coding is not None:
        found = coding_of(coding)
        if f"code{suffix}" in asked.values:
            raise named.required(asked, f"code{suffix} or coding{suffix}, not both")
    else:
        found = Coded(asked.text("system"), asked.text(f"code{suffix}"), asked.text("version"))
    if not found.system or not found.code:
        raise named.required(asked, f"code{suffix} and system, or coding{suffix} with both")
    return found


def no_such_code(one: Coded, system: System) -> FhirError:
    """Return that the system has no such code, and which one may have been meant."""
    hint = ""
    if isinstance(system, Listed) and len(system.hierarchy.codes) <= _NEAREST_AMONG_MAX:
        hint = nearest(one.code, sorted(system.hierarchy.codes))
    text = f"{shown(one.code)} is no code of {shown(one.system, most=200)}.{hint}"
    return FhirError(Issue("not-found", text))


async def _kin(
    concept: Concept, system: System, wanted: Collection[str], context: Context
) -> Mapping[str, Collection[str]]:
    """Return what is directly above ``concept``, and below where that is ``wanted``."""
    below = "child" in wanted or EVERYTHING in wanted
    code = concept["code"]
    if isinstance(system, Listed):
        hierarchy = system.hierarchy
        found = {"parent": sorted(hierarchy.parents(code))}
        return found | ({"child": sorted(hierarchy.values(code, "child"))} if below else {})
    prefix = key("parent", "")
    keys = (one for one in concept.get("keys", ()) if one.startswith(prefix))
    found = {"parent": [one.removeprefix(prefix) for one in keys]}
    if below and system.shelf is not None:
        children = Wanted(system.shelf, Having("parent", (code,)))
        page = await context.store.concepts.page(children, 0, _CHILDREN_MAX + 1)
        if len(page) > _CHILDREN_MAX:
            text = f"{shown(code)} has more than {_CHILDREN_MAX:,} children; ask without them."
            raise FhirError(Issue("too-costly", text), status=422)
        found["child"] = [one["code"] for one in page]
    return found


def _operation(name: str, handler: Any, **more: Any) -> Operation:
    definition = f"http://hl7.org/fhir/OperationDefinition/CodeSystem-{name}"
    known = {"needs": "signed-in", **more}
    return Operation(f"${name}", definition, handler, ("CodeSystem",), **known)


LOOKUP = _operation("lookup", lookup)
