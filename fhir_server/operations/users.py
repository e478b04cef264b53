"""``$users``, ``$user-add``, ``$user-change``, ``$user-password``, ``$user-second-factor``.

Users are no resources: what they may do is nothing that a client with a scope could write. For
administrators; passwords and recovery codes are shown once, in the answer that made them.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fhir_server.context import Context
from fhir_server.interactions.administering import (
    add,
    change,
    named,
    new_password,
    new_second_factor,
    split,
)
from fhir_server.interactions.parameters import known_only, value_of
from fhir_server.interactions.people import people_of
from fhir_server.messages import Request, Response
from fhir_server.operations.bodies import parameters_in, parameters_out
from fhir_server.outcome import FhirError, Issue
from fhir_server.registry import Operation
from fhir_server.store.users import LISTED_MAX, User

_DEFINITION = "urn:fhir-server:OperationDefinition:"
_USER = {
    "name": "valueString",
    "display": "valueString",
    "fhirUser": "valueReference",
    "patient": "valueReference",
}
_ROLE = "role"
_ROLES_MAX = 20

Given = Mapping[str, Any]


async def users(request: Request, context: Context) -> Response:
    """Return users, by name, from ``after`` on."""
    known_only(request, ("after",))
    found = await people_of(context).users.listed(value_of(request, "after"), LISTED_MAX)
    rows = [{"name": "user", "part": _parts(user)} for user in found]
    body = parameters_out(rows) if rows else b'{"resourceType":"Parameters"}'
    return Response(200, body)


async def user_add(request: Request, context: Context) -> Response:
    """Add a user, and return the password that was made for it."""
    given, roles = _given(request, context, {**_USER, "password": "valueString"})
    user = User(
        _needed(given, "name"),
        given.get("display", ""),
        roles or (),
        _reference(given, "fhirUser"),
        _reference(given, "patient").removeprefix("Patient/"),
    )
    made = await add(context, user, given.get("password", ""))
    return _answer(made.user, made.password, status=201)


async def user_change(request: Request, context: Context) -> Response:
    """Change what is said of a user; ``role`` says all of them. What was granted before ends."""
    given, roles = _given(request, context, {**_USER, "disabled": "valueBoolean"})
    fields: dict[str, Any] = {}
    if "display" in given:
        fields["display"] = given["display"]
    if "fhirUser" in given:
        fields["fhir_user"] = _reference(given, "fhirUser")
    if "patient" in given:
        fields["patient"] = _reference(given, "patient").removeprefix("Patient/")
    if "disabled" in given:
        fields["is_disabled"] = given["disabled"]
    if roles is not None:
        fields["roles"] = roles
    if not fields:
        user = await named(people_of(context), _needed(given, "name"))
    else:
        user = await change(context, _needed(given, "name"), **fields)
    return _answer(user)


async def user_password(request: Request, context: Context) -> Response:
    """Give a user another password, and return it if it was made."""
    given, _ = _given(request, context, {"name": "valueString", "password": "valueString"})
    made = await new_password(context, _needed(given, "name"), given.get("password", ""))
    return _answer(made.user, made.password)


async def user_second_factor(request: Request, context: Context) -> Response:
    """Have a user set up the second factor anew."""
    given, _ = _given(request, context, {"name": "valueString"})
    user = await new_second_factor(context, _needed(given, "name"))
    return _answer(replace(user, is_enrolled=False))


def _given(
    request: Request, context: Context, known: Mapping[str, str]
) -> tuple[Given, tuple[str, ...] | None]:
    """Return the parameters, and the roles: ``None`` where none is said, empty for ``""``."""
    known_only(request, ())
    body = request.body or {}
    listed = body.get("parameter") if body.get("resourceType") == "Parameters" else None
    parameters = listed if isinstance(listed, list) else []
    said = [one for one in parameters if isinstance(one, dict) and one.get("name") == _ROLE]
    if not said or "name" not in known or "display" not in known:
        return parameters_in(request, context, known), None
    roles = [one.get("valueCode", "") for one in said]
    if len(roles) > _ROLES_MAX or not all(isinstance(one, str) for one in roles):
        raise FhirError(Issue("value", "role is a valueCode, twenty at most."))
    rest = [one for one in parameters if one not in said]
    left: dict[str, Any] = {"resourceType": "Parameters"} | ({"parameter": rest} if rest else {})
    return parameters_in(replace(request, body=left), context, known), split(roles)


def _needed(given: Given, name: str) -> str:
    if name not in given:
        raise FhirError(Issue("required", f"{name} is missing.", "Parameters.parameter"))
    return str(given[name])


def _reference(given: Given, name: str) -> str:
    return str(given[name].get("reference", "")) if name in given else ""


def _answer(user: User, password: str = "", status: int = 200) -> Response:
    secret = [{"name": "password", "valueString": password}] if password else []
    return Response(status, parameters_out([*_parts(user), *secret]))


def _parts(user: User) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [
        {"name": "name", "valueString": user.name},
        {"name": "display", "valueString": user.display},
        *({"name": _ROLE, "valueCode": role} for role in user.roles),
        {"name": "disabled", "valueBoolean": user.is_disabled},
        {"name": "secondFactor", "valueBoolean": user.is_enrolled},
    ]
    if user.fhir_user:
        parts.append({"name": "fhirUser", "valueReference": {"reference": user.fhir_user}})
    if user.patient:
        reference = {"reference": f"Patient/{user.patient}"}
        parts.append({"name": "patient", "valueReference": reference})
    if user.is_demo:
        parts.append({"name": "demo", "valueBoolean": True})
    return parts


USERS = Operation("$users", _DEFINITION + "users", users)
ADD = Operation("$user-add", _DEFINITION + "user-add", user_add, affects_state=True)
CHANGE = Operation("$user-change", _DEFINITION + "user-change", user_change, affects_state=True)
PASSWORD = Operation(
    "$user-password", _DEFINITION + "user-password", user_password, affects_state=True
)
SECOND_FACTOR = Operation(
    "$user-second-factor",
    _DEFINITION + "user-second-factor",
    user_second_factor,
    affects_state=True,
)
