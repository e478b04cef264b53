"""``$validate``: whether a resource could be stored, and whether it is what its profiles demand.

https://hl7.org/fhir/R4/resource-operation-validate.html

The resource comes as the body, or in Parameters beside ``profile`` and ``mode``; without one, on an
instance, the stored one is meant. Whatever is wrong with it, the answer is 200 and an
OperationOutcome: the operation itself has succeeded.
"""

from dataclasses import dataclass, replace
from typing import Any

from fhir_server.context import Context
from fhir_server.interactions.bodies import issues_of
from fhir_server.interactions.judging import Wish, judged
from fhir_server.interactions.parameters import known_only
from fhir_server.messages import Request, Resource, Response
from fhir_server.outcome import FhirError, Issue, invalid_value, nearest, operation_outcome, shown
from fhir_server.r4.json import decode_stored, encode
from fhir_server.r4.positions import positions
from fhir_server.registry import EVERY_TYPE, Operation

_MODES = ("create", "update", "delete", "profile")
_ON_INSTANCES = ("update", "delete")
_VALUES = {
    "mode": ("valueCode", "valueString"),
    "profile": ("valueUri", "valueCanonical", "valueUrl", "valueString"),
}
_PROFILES_MAX = 20
_LINE = "http://hl7.org/fhir/StructureDefinition/operationoutcome-issue-line"
_COLUMN = "http://hl7.org/fhir/StructureDefinition/operationoutcome-issue-col"


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a request asks for. ``inside`` are the steps to the resource in the body."""

    resource: Resource | None
    mode: str = ""
    profiles: tuple[str, ...] = ()
    inside: str = ""


async def validate(request: Request, context: Context) -> Response:
    """Return what is wrong with a resource, and that all is well where nothing is.

    Raises ``value`` and ``structure`` for parameters that cannot be, ``required`` without a
    resource, ``not-found`` and ``deleted`` where a stored one is meant that is not there.
    """
    asked = _asked(request)
    _check_mode(asked, request)
    if asked.mode == "delete":
        issues = await _deletable(request, context)
    else:
        resource = asked.resource
        if resource is None:
            resource = await _stored(request, context)
        issues = await _issues(resource, asked, request, context)
    return Response(200, encode(_outcome(issues, asked, request)))


async def _issues(
    resource: Resource, asked: _Asked, request: Request, context: Context
) -> list[Issue]:
    """Return what is wrong, first of all whether it is what the request says."""
    issues = list(_placed(resource, asked, request))
    found = await judged(resource, Wish(asked.profiles), context)
    issues += found
    if not any(one.severity in ("error", "fatal") for one in found):
        issues += issues_of(resource, context)  # why this server could not do what it asks for
        if asked.mode in ("create", "update"):
            issues += await _storable(resource, request, context)
    return issues[: context.settings.issues_max]


def _placed(resource: Resource, asked: _Asked, request: Request) -> list[Issue]:
    """Return what does not fit the place of the call: another type, another id."""
    type, id = resource.get("resourceType"), resource.get("id")
    if type != request.type:
        text = f"The resource is a {shown(type)}; this is {request.type}/$validate."
        return [Issue("invalid", text, "resourceType")]
    if asked.mode == "update" and id != request.id:
        text = f"The id is {shown(id)}; an update of {request.type}/{request.id} needs that id."
        return [Issue("value", text, f"{type}.id")]
    return []


async def _storable(resource: Resource, request: Request, context: Context) -> tuple[Issue, ...]:
    """Return why the store would refuse the resource: its size, a reference to nothing."""
    try:
        await context.store.check_storable(resource, request.id)
    except FhirError as error:
        return error.issues
    return ()


async def _deletable(request: Request, context: Context) -> list[Issue]:
    await _stored(request, context)
    try:
        await context.store.check_deletable(request.type, request.id)
    except FhirError as error:
        return list(error.issues)
    return []


async def _stored(request: Request, context: Context) -> Resource:
    if not request.id:
        text = "$validate needs the resource: as the body, or as the parameter resource."
        raise FhirError(Issue("required", text))
    reading = Request("read", request.type, request.id, base_url=request.base_url)
    return decode_stored((await context.perform(reading, context)).body)


def _check_mode(asked: _Asked, request: Request) -> None:
    if asked.mode and asked.mode not in _MODES:
        near = nearest(asked.mode, _MODES)
        raise invalid_value("mode", asked.mode, f"one of {', '.join(_MODES)}.{near}".rstrip("."))
    if asked.mode in _ON_INSTANCES and not request.id:
        text = f"mode={asked.mode} is about one resource; call {request.type}/[id]/$validate."
        raise FhirError(Issue("value", text))
    if asked.mode == "profile" and not asked.profiles:
        raise FhirError(Issue("required", "mode=profile needs the parameter profile."))


def _asked(request: Request) -> _Asked:
    known_only(request, ("mode", "profile"))
    given: dict[str, list[str]] = {"mode": [], "profile": []}
    for name, value in request.parameters:
        given[name].append(value)
    asked = _Asked(request.body)
    if _is_call(request):
        asked = _of_parameters(request, given)
    if len(given["mode"]) > 1 or len(given["profile"]) > _PROFILES_MAX:
        text = f"mode is given once at most, profile {_PROFILES_MAX} times."
        raise FhirError(Issue("value", text))
    profiles = tuple(dict.fromkeys(filter(None, given["profile"])))
    return replace(asked, mode="".join(given["mode"]), profiles=profiles)


def _is_call(request: Request) -> bool:
    """Whether the body holds parameters of the operation; a Parameters may be what is judged."""
    body = request.body
    if body is None or body.get("resourceType") != "Parameters":
        return False
    if request.type != "Parameters":
        return True
    members = body.get("parameter")
    return isinstance(members, list) and any(
        isinstance(one, dict) and one.get("name") in ("resource", *_VALUES) for one in members
    )


def _of_parameters(request: Request, given: dict[str, list[str]]) -> _Asked:
    """Read the body; the resource in it may be as wrong as it likes."""
    members = (request.body or {}).get("parameter", [])
    if not isinstance(members, list) or not all(isinstance(one, dict) for one in members):
        raise FhirError(Issue("structure", "It is a list of objects.", "Parameters.parameter"))
    resource, inside = None, ""
    for number, one in enumerate(members):
        name, place = one.get("name"), f"Parameters.parameter[{number}]"
        if name == "resource":
            if resource is not None or not isinstance(one.get("resource"), dict):
                raise FhirError(Issue("value", "resource is given once, as a resource.", place))
            resource, inside = one["resource"], f"parameter[{number}].resource"
        elif name in _VALUES:
            given[name].append(_text(one, name, place))
        else:
            near = nearest(str(name), ("resource", *_VALUES))
            text = f"$validate has no parameter {shown(name)}.{near}"
            raise FhirError(Issue("value", text, place))
    return _Asked(resource, inside=inside)


def _text(parameter: dict[str, Any], name: str, place: str) -> str:
    for member in _VALUES[name]:
        if isinstance(parameter.get(member), str):
            return str(parameter[member])
    raise FhirError(Issue("value", f"{name} is to have a {_VALUES[name][0]}.", place))


def _outcome(issues: list[Issue], asked: _Asked, request: Request) -> Resource:
    """Return the OperationOutcome, with line and column of what stands in the body."""
    if not issues:
        text = "All OK: nothing is wrong."
        return operation_outcome([Issue("informational", text, severity="information")])
    outcome = operation_outcome(issues)
    if not request.text or (asked.resource is None):
        return outcome
    is_xml = request.text.lstrip()[:1] == b"<"
    expressions = {one.expression for one in issues if one.expression}
    found = positions(request.text, expressions, inside=asked.inside, is_xml=is_xml)
    for issue, rendered in zip(issues, outcome["issue"], strict=True):
        if place := found.get(issue.expression):
            rendered["extension"] = [
                {"url": _LINE, "valueInteger": place[0]},
                {"url": _COLUMN, "valueInteger": place[1]},
            ]
    return outcome


VALIDATE = Operation(
    "$validate",
    "http://hl7.org/fhir/OperationDefinition/Resource-validate",
    validate,
    on=(EVERY_TYPE,),
    instance=True,
    needs="signed-in",
)
