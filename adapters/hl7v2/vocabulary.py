"""The vocabulary of v2: what a code of a v2 table is in FHIR, and which system a name means.

HL7 tables 0396 and those of the guide's maps; design/hl7v2.md, section 16. The data lie in
``terminology/hl7v2/`` and are read when they are first asked for.
"""

import csv
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from adapters.hl7v2.remembering import remembered
from fhir_server.artifacts import artifacts_root

V2_SYSTEM = "http://terminology.hl7.org/CodeSystem/v2-"
LOCAL_SYSTEM = "urn:hl7v2:codes:"
_NUMBER = re.compile(r"(?:HL7|v2-?|L-?HL7)?-?(\d{4})", re.I)


@dataclass(frozen=True, slots=True)
class Target:
    """What a v2 code is in FHIR."""

    code: str
    system: str
    display: str


@cache
def _folder() -> Path:
    return artifacts_root() / "terminology" / "hl7v2"


def _rows(name: str) -> Iterator[dict[str, str]]:
    with (_folder() / name).open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


@cache
def _maps() -> Mapping[str, Mapping[str, Target]]:
    found: dict[str, dict[str, Target]] = {}
    for line in (_folder() / "ConceptMap.ndjson").read_text(encoding="utf-8").splitlines():
        concept_map = json.loads(line)
        codes = found.setdefault(concept_map["title"], {})
        for group in concept_map.get("group", []):
            for element in group["element"]:
                target = element["target"][0]
                made = Target(target["code"], group.get("target", ""), target.get("display", ""))
                codes.setdefault(element["code"], made)
    for row in _rows("additions.csv"):
        made = Target(row["code"], row["system"], row["display"])
        found.setdefault(row["map"], {})[row["v2"]] = made
    for codes in found.values():
        for code in list(codes):
            codes.setdefault(code.casefold(), codes[code])
    return found


def target(map: str, code: str) -> Target | None:
    """Return what ``code`` is by the guide's map of that name; None if it has no image.

    A code in other letters than the table's counts as the table's.

    >>> target("AdministrativeSex", "F").code
    'female'
    """
    codes = _maps().get(map, {})
    return codes.get(code) or codes.get(code.casefold())


def led_to(map: str, code: str) -> Target | None:
    """Return the image ``code`` itself, if any code leads to it by the guide's map of that name.

    >>> led_to("AdministrativeSex", "female").code, led_to("AdministrativeSex", "F")
    ('female', None)
    """
    return next((one for one in _maps().get(map, {}).values() if one.code == code), None)


@cache
def _systems() -> Mapping[str, str]:
    return {row["name"]: row["system"] for row in _rows("coding-systems.csv")}


@remembered(4096)
def source(map: str, code: str, system: str = "") -> str:
    """Return the first v2 code that is ``code`` by the guide's map of that name; "" for none.

    ``system`` narrows it to images in that system.

    >>> source("AdministrativeSex", "female"), source("AdministrativeSex", "none")
    ('F', '')
    """
    for said, image in _maps().get(map, {}).items():
        if image.code == code and (not system or not image.system or image.system == system):
            return said
    return ""


@remembered(4096)
def name_of(system: str) -> str:
    """Return what :func:`system_of` reads as ``system``: a name of table 0396, else the uri.

    >>> name_of("http://loinc.org"), name_of("http://terminology.hl7.org/CodeSystem/v2-0078")
    ('LN', 'HL70078')
    """
    for name, known in _systems().items():
        if known == system:
            return name
    if system.startswith(V2_SYSTEM) and system.removeprefix(V2_SYSTEM).isdecimal():
        return f"HL7{system.removeprefix(V2_SYSTEM)}"
    is_uri = system.startswith(("http://", "https://", "urn:")) and " " not in system
    return system if is_uri else ""


@remembered(4096)
def system_of(name: str, sender: str, table: str = "") -> str:
    """Return the uri of the coding system that a sender calls ``name``.

    ``table`` is the number of the table that codes without a name are of; "" for none: then
    there is no system. A name that is no known one is the sender's own.

    >>> system_of("LN", "acme"), system_of("99LAB", "acme")
    ('http://loinc.org', 'urn:hl7v2:codes:acme:99LAB')
    >>> system_of("HL70064", "acme")
    'http://terminology.hl7.org/CodeSystem/v2-0064'
    """
    if not name:
        return V2_SYSTEM + table if table else ""
    known = _systems().get(name) or _systems().get(name.upper())
    if known:
        return known
    if name.startswith(("http://", "https://", "urn:")) and " " not in name:
        return name
    if number := _NUMBER.fullmatch(name):
        return V2_SYSTEM + number.group(1)
    if re.fullmatch(r"[012](\.(0|[1-9]\d*)){2,}", name):
        return "urn:oid:" + name
    if name.upper().startswith("ISO+"):
        return LOCAL_SYSTEM + "ISO+"
    return f"{LOCAL_SYSTEM}{_uri_part(sender)}:{_uri_part(name)}"


@remembered(4096)
def _uri_part(text: str) -> str:
    """Return ``text`` as it can stand in a uri: blanks and signs are escaped."""
    return "".join(
        character if character.isalnum() or character in "-._~+*" else f"%{ord(character):02X}"
        for character in text.strip()
    )


def uri_part(text: str) -> str:
    """Return ``text`` as it can stand in a uri."""
    return _uri_part(text)


@cache
def _ucum() -> frozenset[str]:
    return frozenset(row["code"] for row in _rows("ucum-common.csv"))


def is_common_ucum(code: str) -> bool:
    """Return whether ``code`` is, letter for letter, one of the common codes of UCUM."""
    return code in _ucum()
