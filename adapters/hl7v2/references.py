"""v2 datatypes that name people, organizations and places, to logical references.

HL7 v2.5.1, 2.A (XCN, NDL, XON, PL, HD); design/hl7v2.md, section 11: identifier and display, no
new resource. Where the directory knows the identifier, the plan makes the reference literal.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from adapters.hl7v2.codes import code_text, concept_text, usable
from adapters.hl7v2.datatypes import (
    IDENTIFIER_TYPE,
    authority,
    cx_system,
    ei_of,
    human,
    own_system,
    shown,
)
from adapters.hl7v2.message import Value
from adapters.hl7v2.scene import Scene
from adapters.hl7v2.vocabulary import system_of

Json = dict[str, Any]


_Made = TypeVar("_Made", bound=Callable[[Value, Scene], Json | None])


def _remembered(convert: _Made) -> _Made:
    """Have ``convert`` make each value of a message once."""

    @wraps(convert)
    def remembering(value: Value, scene: Scene) -> Json | None:
        key = (convert, value.raw)
        memo = scene.memo
        if key not in memo:
            memo[key] = convert(value, scene)
        return memo[key]  # type: ignore[no-any-return]

    return cast(_Made, remembering)


def _logical(
    type: str, identifier: Json | None, display: str, scene: Scene, name: Any = None
) -> Json | None:
    made: Json = {}
    if identifier:
        made["type"] = type
        made["identifier"] = identifier
        if "value" in identifier:
            named = (type, str(identifier.get("system", "")), str(identifier["value"]))
            said = {"identifier": [identifier], **({"name": name} if name else {})}
            if named not in scene.directory or "name" not in scene.directory[named]:
                scene.directory[named] = said
    if display:
        made["display"] = display
    return made or None


@_remembered
def xcn(value: Value, scene: Scene) -> Json | None:
    """Return XCN as a logical reference to a Practitioner."""
    number = value[1]
    identifier: Json | None = None
    if number and usable(number, scene):
        identifier = {"system": cx_system(value, scene, 9), "value": number}
        if len(value.parts) > 12 and (kind := value[13]):
            identifier["type"] = {"coding": [{"system": IDENTIFIER_TYPE, "code": code_text(kind)}]}
    name = human(value, 2)
    return _logical("Practitioner", identifier, shown(name), scene, [name] if name else None)


def ndl(value: Value, scene: Scene) -> Json | None:
    """Return NDL, whose first component is a CNN, as a logical reference to a Practitioner."""
    inner = value.subs(1)
    number = inner[1]
    identifier: Json | None = None
    if number and usable(number, scene):
        system = authority(inner[9], inner[10], inner[11], scene) or own_system(scene)
        identifier = {"system": system, "value": number}
    name = human(inner, 2)
    return _logical("Practitioner", identifier, shown(name), scene, [name] if name else None)


@_remembered
def xon(value: Value, scene: Scene) -> Json | None:
    """Return XON as a logical reference to an Organization."""
    number = value[10] or value[3]
    identifier: Json | None = None
    if number and usable(number, scene):
        identifier = {"system": cx_system(value, scene, 6), "value": number}
    return _logical("Organization", identifier, value[1], scene, value[1])


@_remembered
def cwe_organization(value: Value, scene: Scene) -> Json | None:
    """Return a CWE that names an Organization, such as a manufacturer."""
    number = value[1]
    identifier: Json | None = None
    if number and usable(number, scene):
        system = system_of(value[3], scene.sender) or own_system(scene)
        identifier = {"system": system, "value": number}
    name = concept_text(value)
    return _logical("Organization", identifier, name or number, scene, name)


@_remembered
def pl(value: Value, scene: Scene) -> Json | None:
    """Return PL as a logical reference to a Location: point of care, room, bed, facility …"""
    parts = [value.whole(n) for n in (1, 2, 3)]
    parts += [value.sub(4, 1), value.whole(7), value.whole(8)]
    display = " ".join(part for part in parts if part) or value.whole(9)
    number = value.subs(10) if len(value.parts) > 9 else None
    identifier = ei_of(number, scene) if number else None
    return _logical("Location", identifier, display, scene, display)


def hd(value: Value, scene: Scene) -> Json | None:
    """Return HD as a logical reference to an Organization."""
    if not value[1] and not value[2]:
        return None
    system = authority(value[1], value[2], value[3], scene)
    return _logical("Organization", {"system": system}, value[1] or value[2], scene)


def displayed(reference: Json | None) -> str:
    """Return what a logical reference shows."""
    return str((reference or {}).get("display", ""))
