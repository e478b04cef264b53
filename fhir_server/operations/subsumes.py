"""``CodeSystem/$subsumes``: whether one code is a kind of another.

https://hl7.org/fhir/R4/codesystem-operation-subsumes.html
"""

from fhir_server.context import Context
from fhir_server.interactions.terms import Terms
from fhir_server.messages import Request, Response
from fhir_server.operations import named
from fhir_server.operations.asked import RESOURCES, Given, given
from fhir_server.operations.bodies import parameters_out
from fhir_server.operations.lookup import code_of, no_such_code
from fhir_server.operations.named import Coded, canonical
from fhir_server.outcome import FhirError, Issue, shown
from fhir_server.r4.expansion import Listed, Shelved
from fhir_server.registry import Operation

_TABLE = {
    "codeA": "code",
    "codeB": "code",
    "system": "uri",
    "version": "string",
    "codingA": "Coding",
    "codingB": "Coding",
    RESOURCES: "Resource",
}


async def subsumes(request: Request, context: Context) -> Response:
    """Return ``equivalent``, ``subsumes``, ``subsumed-by`` or ``not-subsumed``.

    Raises ``required`` without two codes of one system, ``not-found`` for what is not here.
    """
    asked = given(request, context, _TABLE)
    inline = await named.instance(request, context) if request.id else None
    if inline is not None and "system" not in asked.values and "codeA" in asked.values:
        asked = Given(asked.name, {**asked.values, "system": [named.named(inline)["url"]]})
    one, other = code_of(asked, "A"), code_of(asked, "B")
    if one.system != other.system or (one.version and other.version not in ("", one.version)):
        raise FhirError(Issue("value", "Codes are compared within one version of one system."))
    terms = await Terms.of(context, named.brought(asked, inline))
    outcome = await _outcome(one, other, terms)
    return Response(200, parameters_out([{"name": "outcome", "valueCode": outcome}]))


async def _outcome(one: Coded, other: Coded, terms: Terms) -> str:
    system = await named.code_system(terms, canonical(one.system, one.version or other.version))
    found = await terms.concepts(system, {one.code, other.code})
    for each in (one, other):
        if each.code not in found:
            raise no_such_code(each, system)
    if found[one.code]["code"] == found[other.code]["code"]:
        return "equivalent"
    if isinstance(system, Shelved) and system.shelf is None:
        text = f"The codes of {shown(one.system)} have no hierarchy here."
        raise FhirError(Issue("not-supported", text))

    def is_below(low: Coded, high: Coded) -> bool:
        code, above = found[low.code]["code"], found[high.code]["code"]
        if isinstance(system, Listed):
            return above in (system.hierarchy.above(code) or ())
        return above in found[low.code]["ancestors"]

    if is_below(other, one):
        return "subsumes"
    return "subsumed-by" if is_below(one, other) else "not-subsumed"


SUBSUMES = Operation(
    "$subsumes",
    "http://hl7.org/fhir/OperationDefinition/CodeSystem-subsumes",
    subsumes,
    ("CodeSystem",),
    instance=True,
    needs="signed-in",
)
