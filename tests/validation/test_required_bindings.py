"""Every required binding of R4 is enforced: here, or by asking the terminology."""

from collections.abc import Iterator
from typing import Any

from fhir_server.r4.definitions import Definitions
from fhir_server.r4.questions import CodeInValueSet
from fhir_server.validation.profiles import ProfileValidator

WRONG = "no-such-code-at-all"
SYSTEM = "http://example.org/no-such-system"
_FORMS: dict[str, Any] = {
    "code": WRONG,
    "uri": f"urn:{WRONG}",
    "string": WRONG,
    "Coding": {"system": SYSTEM, "code": WRONG},
    "Quantity": {"value": 1, "system": SYSTEM, "code": WRONG},
    "CodeableConcept": {"coding": [{"system": SYSTEM, "code": WRONG}]},
}


def bound(definitions: Definitions) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield path, value set and a resource with a wrong code for each binding of a resource."""
    for type in definitions.types.values():
        if type.kind != "resource" or type.abstract:
            continue
        for elements in type.elements.values():
            for element in elements:
                if element.binding and element.binding[0] == "required" and element.max != 0:
                    for member, of in element.members():
                        value = _FORMS[of.code]
                        yield (
                            element.path,
                            element.binding[1],
                            placed(definitions, element.path, member, value),
                        )


def placed(definitions: Definitions, path: str, member: str, value: Any) -> dict[str, Any]:
    """Return a resource that has ``value`` at ``path``, and else nothing but what leads there."""
    type, *steps = path.split(".")
    resource: dict[str, Any] = {"resourceType": type}
    holder = resource
    at = type
    for step in steps[:-1]:
        element = one(definitions, type, at, step)
        at = element.content_reference or element.path
        inner: dict[str, Any] = {}
        holder[step] = [inner] if element.is_list else inner
        holder = inner
    holder[member] = [value] if one(definitions, type, at, steps[-1]).is_list else value
    return resource


def one(definitions: Definitions, type: str, at: str, name: str) -> Any:
    return next(
        one for one in definitions.types[type].elements[at] if one.name == name.removesuffix("[x]")
    )


def test_a_wrong_code_is_refused_or_asked_about(
    definitions: Definitions, profiles: ProfileValidator
) -> None:
    """For each required binding of each resource type."""
    counted, overlooked = 0, []
    for path, value_set, resource in bound(definitions):
        counted += 1
        found = profiles.judge(resource)
        is_refused = any(
            issue.code == "code-invalid" and issue.severity == "error" for issue in found.issues
        )
        is_asked = any(
            isinstance(question, CodeInValueSet)
            and question.value_set.partition("|")[0] == value_set
            for question in found.asked
        )
        if not is_refused and not is_asked:
            overlooked.append((path, value_set))
    assert counted > 300
    assert overlooked == []
