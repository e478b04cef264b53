"""Coded v2 datatypes to Coding, CodeableConcept and code.

HL7 v2.5.1, 2.A (CWE, CE, CNE, CF, IS, ID); design/hl7v2.md, sections 11 and 16. Converters are
total, as those of ``datatypes.py``.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from adapters.hl7v2.message import Value
from adapters.hl7v2.scene import Scene
from adapters.hl7v2.vocabulary import V2_SYSTEM, system_of, target

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
        key = (one.get("system", ""), one["code"])
        to = table.get(key) or table.get(("", one["code"]))
        if to:
            return [dict(to), *found]
    for one in found[:1]:
        scene.codes[scene.field, one.get("system", ""), one["code"]] += 1
    return found


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
            rest = [
                one
                for one in sent
                if both and (one["code"], one.get("system")) != (first["code"], first.get("system"))
            ]
            sent = [first, *rest]
        elif map and value[1]:
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
        image = target(map, said)
        if image:
            return image.code
        scene.note("code-unknown", "This code has no image in FHIR.")
        scene.codes[scene.field, V2_SYSTEM + table if table else "", said] += 1
        if not otherwise:
            return None
        return Primitive(otherwise, (alternate(value, scene, table),))

    return convert


def alternate(value: Value, scene: Scene, table: str = "") -> Json:
    """Return the extension that keeps a code which FHIR's required binding does not take."""
    kept = concept_of(value, scene, codings(value, scene, table)) or {
        "text": value.readable() or "unknown"
    }
    return {"url": ALTERNATE_CODES, "valueCodeableConcept": kept}
