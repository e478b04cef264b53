"""Coded v2 datatypes to Coding, CodeableConcept and code.

HL7 v2.5.1, 2.A (CWE, CE, CNE, CF, IS, ID); design/hl7v2.md, sections 11 and 16. Converters are
total, as those of ``datatypes.py``.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from adapters.hl7v2.codetables import Image
from adapters.hl7v2.message import Value
from adapters.hl7v2.scene import Scene
from adapters.hl7v2.vocabulary import V2_SYSTEM, Target, led_to, system_of, target

Json = dict[str, Any]
Converter = Callable[[Value, Scene], Any]
ObjectConverter = Callable[[Value, Scene], Json | None]

ALTERNATE_CODES = "http://hl7.org/fhir/StructureDefinition/alternate-codes"
VALUE_CHARACTERS_MAX = 1000
# Codes repeat from message to message: what was made of the last ones is kept.
REMEMBERED_MAX = 200
REMEMBERED_COUNT_MAX = 4096
_REMEMBERED: dict[tuple[Any, ...], list[Json]] = {}
_BLANKS = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Primitive:
    """A primitive value and what is beside it: the extensions of ``_element``."""

    value: Any
    extension: tuple[Json, ...]


def usable(text: str, scene: Scene) -> bool:
    """Return whether ``text`` may be an identifier or code: one of usual length."""
    if len(text) <= VALUE_CHARACTERS_MAX:
        return True
    scene.note("value-too-long", f"More than {VALUE_CHARACTERS_MAX} characters: left out.")
    return False


def code_text(text: str) -> str:
    """Return ``text`` as FHIR's code allows it: single blanks inside."""
    return _BLANKS.sub(" ", text)


def coding(code: str, display: str, system: str, version: str = "") -> Json:
    """Return a Coding of what is said."""
    made: Json = {}
    if system:
        made["system"] = system
    if version:
        made["version"] = version
    if code:
        made["code"] = code_text(code)
    if display:
        made["display"] = display
    return made


def codings(value: Value, scene: Scene, table: str = "") -> list[Json]:
    """Return the triplets 1 to 3, 4 to 6 and 10 to 12, in that order, each once.

    ``table`` is the number of the v2 table that codes without a system's name are of.
    """
    tables = scene.profile.code_tables
    if len(value.raw) > REMEMBERED_MAX:
        found = _codings(value, scene, table)
    else:
        key = (value.raw, value.delimiters, scene.sender, table)
        remembered = _REMEMBERED.get(key)
        if remembered is None:
            if len(_REMEMBERED) >= REMEMBERED_COUNT_MAX:
                _REMEMBERED.clear()
            remembered = _REMEMBERED[key] = _codings(value, scene, table)
        found = remembered
    if tables and scene.field in tables:
        return _mapped(found, scene)
    return found


def _codings(value: Value, scene: Scene, table: str) -> list[Json]:
    found: list[Json] = []
    count = len(value.parts)
    for first, version in ((1, 7), (4, 8), (10, 13)):
        if first > count:
            break
        code = value[first]
        if not code or not usable(code, scene):
            continue
        system = system_of(value[first + 2], scene.sender, table if first == 1 else "")
        made = coding(code, value[first + 1], system, value[version] if version <= count else "")
        if not any(
            one["code"] == made["code"] and one.get("system") == made.get("system") for one in found
        ):
            found.append(made)
    return found


def _mapped(found: list[Json], scene: Scene) -> list[Json]:
    """Put the sender's own mapping first; count codes that have none."""
    table = scene.profile.code_tables[scene.field]
    for one in found:
        image = table.image(one.get("system", ""), one["code"])
        if image and _is(found[0], image):
            return found
        if image:
            return [Image(image), *(other for other in found if not _is(other, image))]
    if not found or any(one.get("system") in table.systems for one in found):
        return found
    scene.codes[scene.field, found[0].get("system", ""), found[0]["code"]] += 1
    if scene.profile.unmapped_code == "hold":
        scene.held = f"A code of {scene.where} has no target in the map of its sender."
    return found


def _is(coding: Json, image: Mapping[str, Any]) -> bool:
    return (coding.get("system"), coding["code"]) == (image.get("system"), image["code"])


def concept_text(value: Value) -> str:
    """Return the text of a CWE: the original text, else that of the first or second code."""
    return value[9] or value[2] or value[5]


def cwe(value: Value, scene: Scene) -> Json | None:
    """Return CWE, CE, CNE or IS as a CodeableConcept."""
    return concept_of(value, scene, codings(value, scene))


def concept_of(value: Value, scene: Scene, found: list[Json]) -> Json | None:
    """Return a CodeableConcept of ``found`` with the text of ``value``."""
    made: Json = {}
    if found:
        made["coding"] = found
    if said := concept_text(value):
        made["text"] = said
    return made or None


def concept(map: str = "", table: str = "", *, both: bool = True) -> ObjectConverter:
    """Return a converter to a CodeableConcept: the image in the guide's map first, then as sent.

    ``both`` false leaves out the code as sent where it has an image.
    """

    def convert(value: Value, scene: Scene) -> Json | None:
        sent = codings(value, scene, table)
        image = target(map, value[1]) if map and value[1] else None
        if image:
            first = coding(image.code, image.display, image.system)
            own = [one for one in sent if isinstance(one, Image)]
            rest = [one for one in sent[len(own) :] if both and not _is(one, first)]
            sent = [*own, *([] if own and _is(own[0], first) else [first]), *rest]
        elif map and value[1] and scene.field not in scene.profile.code_tables:
            scene.codes[scene.field, V2_SYSTEM + table if table else "", value[1]] += 1
        return concept_of(value, scene, sent)

    return convert


def code(map: str, otherwise: str = "", table: str = "") -> Converter:
    """Return a converter to a code of a required binding.

    A code without an image gives ``otherwise``, with the code as sent in the extension
    alternate-codes; without ``otherwise`` it gives nothing. Either is an issue.
    """

    def convert(value: Value, scene: Scene) -> Any:
        said = value[1]
        if not said:
            return None
        image = _own_target(map, value, scene, table) or target(map, said)
        if image:
            return image.code
        scene.note("code-unknown", "This code has no image in FHIR.")
        scene.codes[scene.field, V2_SYSTEM + table if table else "", said] += 1
        if not otherwise:
            return None
        return Primitive(otherwise, (alternate(value, scene, table),))

    return convert


def _own_target(map: str, value: Value, scene: Scene, table: str) -> Target | None:
    """Return what the sender's own map makes of a code, where the guide's map leads there."""
    own = scene.profile.code_tables.get(scene.field)
    for one in codings(value, scene, table) if own else ():
        if isinstance(one, Image):
            return target(map, one["code"]) or led_to(map, one["code"])
    return None


def alternate(value: Value, scene: Scene, table: str = "") -> Json:
    """Return the extension that keeps a code which FHIR's required binding does not take."""
    kept = concept_of(value, scene, codings(value, scene, table)) or {
        "text": value.readable() or "unknown"
    }
    return {"url": ALTERNATE_CODES, "valueCodeableConcept": kept}
