"""v2 datatypes to FHIR datatypes. Every converter is total: a value, or None and an issue.

HL7 v2.5.1, chapter 2.A; design/hl7v2.md, section 11. A converter takes one repetition and the
scene. What it cannot read becomes an issue of the scene; it never raises.
"""

import re
from collections.abc import Callable
from typing import Any
from uuid import UUID

from adapters.hl7v2.codes import code_text, usable
from adapters.hl7v2.message import Value
from adapters.hl7v2.remembering import remembered
from adapters.hl7v2.scene import Scene
from adapters.hl7v2.times import clock, is_unclear, moment
from adapters.hl7v2.vocabulary import V2_SYSTEM, Target, target, uri_part

Json = dict[str, Any]
Converter = Callable[[Value, Scene], Any]
ObjectConverter = Callable[[Value, Scene], Json | None]
ListConverter = Callable[[Value, Scene], list[Json] | None]

IDENTIFIER_TYPE = V2_SYSTEM + "0203"
_OID = re.compile(r"[0-2](\.(0|[1-9]\d*))+")


# ---------------------------------------------------------------------------------------- text


def text(value: Value, scene: Scene) -> str | None:
    """Return the first leaf."""
    return value[1] or None


def whole_text(value: Value, scene: Scene) -> str | None:
    """Return the whole repetition as text, delimiters and white space as sent."""
    return value.text if value.text.strip() else None


def readable(value: Value, scene: Scene) -> str | None:
    """Return everything the value says, joined by blanks."""
    return value.readable() or None


def yes_no(value: Value, scene: Scene) -> bool | None:
    """Return table 0136; anything but Y and N is nothing, and an issue."""
    said = value[1].upper()
    if said in ("Y", "N"):
        return said == "Y"
    scene.note("code-unknown", "Neither Y nor N stands here.")
    return None


def positive(value: Value, scene: Scene) -> int | None:
    """Return a positiveInt."""
    number = whole(value, scene)
    if number == 0:
        scene.note("number-invalid", "A whole number above 0 is expected.")
    return number or None


def whole(value: Value, scene: Scene) -> int | None:
    """Return an integer that is not negative."""
    said = value[1].removesuffix(".0").lstrip("+")
    if said.isascii() and said.isdecimal() and len(said) < 12 and int(said) < 2**31:
        return int(said)
    scene.note("number-invalid", "A whole number is expected.")
    return None


# --------------------------------------------------------------------------------------- times


def date_time(value: Value, scene: Scene) -> str | None:
    """Return DTM, TS or DT as a dateTime."""
    said = value[1]
    if not said:
        return None
    precision = value[2].upper() if len(value.parts) > 1 else ""
    made = moment(said, scene.zone, precision)
    if made is None:
        scene.note("date-invalid", "This is no date or time.")
    elif is_unclear(said, scene.zone):
        scene.note("time-unclear", "This hour comes twice, or not at all, where it was written.")
    return made


def date(value: Value, scene: Scene) -> str | None:
    """Return the date alone."""
    made = date_time(value, scene)
    return made[:10] if made else None


def instant(value: Value, scene: Scene) -> str | None:
    """Return an instant; a date without a time is none."""
    made = date_time(value, scene)
    return made if made and "T" in made else None


def time(value: Value, scene: Scene) -> str | None:
    """Return TM as a time."""
    made = clock(value[1])
    if made is None:
        scene.note("date-invalid", "This is no time of day.")
    return made


def has_time(value: Value, scene: Scene) -> str | None:
    """Return a dateTime only if it has a time."""
    made = moment(value[1], scene.zone)
    return made if made and "T" in made else None


def period(value: Value, scene: Scene) -> Json | None:
    """Return DR as a Period."""
    return span(date_time(value.subs(1), scene), date_time(value.subs(2), scene))


def span(start: str | None, end: str | None) -> Json | None:
    """Return a Period of what is known of it; an end before the start is left out."""
    if start and end:
        length = min(len(start), len(end), 10)
        if end[:length] < start[:length]:
            end = None
    found = {name: part for name, part in (("start", start), ("end", end)) if part}
    return found or None


# --------------------------------------------------------------------------------- identifiers


def authority(namespace: str, universal: str, kind: str, scene: Scene) -> str:
    """Return the system of an HD or of CX.4: see section 10, 1. "" only if nothing is said."""
    profile = scene.profile
    for name in (namespace, universal):
        if name and name in profile.authorities:
            return profile.authorities[name]
    if universal:
        made = _universal(universal, kind.upper())
        if made:
            return made
    if namespace or universal:
        return "urn:hl7v2:authority:" + uri_part(namespace or universal)
    return ""


@remembered(1024)
def _universal(universal: str, kind: str) -> str:
    if kind in ("ISO", "") and _OID.fullmatch(universal):
        return "urn:oid:" + universal
    if kind in ("UUID", "GUID"):
        try:
            return f"urn:uuid:{UUID(universal)}"
        except ValueError:
            return ""
    if kind in ("URI", "URL", "") and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s]+", universal):
        return universal
    return ""


def own_system(scene: Scene) -> str:
    """Return the system of a number without an authority: the profile's, else the sender's own."""
    default = scene.profile.default_authority
    if default:
        return scene.profile.authorities.get(default) or "urn:hl7v2:authority:" + uri_part(default)
    return scene.facility


def cx_system(value: Value, scene: Scene, component: int = 4) -> str:
    """Return the system of CX.4, XCN.9, XON.6."""
    said = authority(
        value.sub(component, 1), value.sub(component, 2), value.sub(component, 3), scene
    )
    return said or own_system(scene)


def cx(value: Value, scene: Scene) -> Json | None:
    """Return CX as an Identifier."""
    number = value[1]
    if not number or not usable(number, scene):
        return None
    made: Json = {"system": cx_system(value, scene), "value": number}
    if len(value.parts) > 4:
        if kind := value[5]:
            made["type"] = {"coding": [{"system": IDENTIFIER_TYPE, "code": code_text(kind)}]}
        if len(value.parts) > 6:
            valid = span(date_time(value.subs(7), scene), date_time(value.subs(8), scene))
            if valid:
                made["period"] = valid
    if len(value.parts) > 1 and (digit := value[2]):
        url = "http://hl7.org/fhir/StructureDefinition/identifier-checkDigit"
        made["extension"] = [{"url": url, "valueString": digit}]
    return made


def typed_cx(type: str, system: str = "") -> ObjectConverter:
    """Return a converter of CX or ST to an Identifier of a type of table 0203."""

    def convert(value: Value, scene: Scene) -> Json | None:
        made = cx(value, scene)
        if made:
            made["type"] = {"coding": [{"system": IDENTIFIER_TYPE, "code": type}]}
            if system and not value.sub(4, 1):
                made["system"] = system
        return made

    return convert


def ei_of(value: Value, scene: Scene, type: str = "") -> Json | None:
    """Return EI as an Identifier, of type PLAC or FILL if that is said."""
    number = value[1]
    if not number or not usable(number, scene):
        return None
    system = authority(value[2], value[3], value[4], scene) or own_system(scene)
    made: Json = {"system": system, "value": number}
    if type:
        made["type"] = {"coding": [{"system": IDENTIFIER_TYPE, "code": type}]}
    return made


def ei(type: str = "") -> ObjectConverter:
    """Return a converter of EI to an Identifier."""

    def convert(value: Value, scene: Scene) -> Json | None:
        return ei_of(value, scene, type)

    return convert


def eip(value: Value, scene: Scene) -> list[Json] | None:
    """Return EIP as its Identifiers: the placer's, the filler's."""
    made = [ei_of(value.subs(1), scene, "PLAC"), ei_of(value.subs(2), scene, "FILL")]
    return [one for one in made if one] or None


# --------------------------------------------------------------------------- names and addresses


def _name(parts: dict[str, str], value: Value, first: int) -> Json:
    """Return a HumanName; component ``first`` is the family name, the others follow it."""
    made: Json = {}
    if family := parts["family"]:
        made["family"] = family
    if given := [name for name in (parts["given"], parts["middle"]) if name]:
        made["given"] = given
    if prefix := value[first + 4]:
        made["prefix"] = [prefix]
    if suffix := [part for part in (value[first + 3], value[first + 5]) if part]:
        made["suffix"] = suffix
    return made


def human(value: Value, first: int) -> Json:
    """Return the parts of a HumanName; component ``first`` is the family name."""
    family = value.sub(first, 1) or value.whole(first)
    parts = {"family": family, "given": value[first + 1], "middle": value[first + 2]}
    return _name(parts, value, first)


def xpn(value: Value, scene: Scene) -> Json | None:
    """Return XPN as a HumanName; nothing but a type is no name."""
    made = human(value, 1)
    count = len(value.parts)
    if count > 13 and (degree := value[14]):
        made.setdefault("suffix", []).append(degree)
    if not made:
        return None
    if count > 6:
        if use := target("NameType", value[7]):
            made["use"] = use.code
        if count > 9:
            valid = span(date_time(value.subs(12), scene), date_time(value.subs(13), scene))
            valid = valid or period(value.subs(10), scene)
            if valid:
                made["period"] = valid
    return made


def name_text(value: Value, scene: Scene) -> str | None:
    """Return XPN as text."""
    made = human(value, 1)
    return shown(made) or None


def shown(name: Json) -> str:
    """Return a HumanName as one text."""
    words = [*name.get("prefix", ()), *name.get("given", ())]
    if "family" in name:
        words.append(name["family"])
    return " ".join([*words, *name.get("suffix", ())])


def xad(value: Value, scene: Scene) -> Json | None:
    """Return XAD as an Address."""
    street = value.sub(1, 1) or " ".join(
        part for part in (value.sub(1, 3), value.sub(1, 2)) if part
    )
    made: Json = {}
    if line := [part for part in (street, value[2], value[19]) if part]:
        made["line"] = line
    for place, component in _ADDRESS:
        if part := value[component]:
            made[place] = part
    if not made:
        return None
    if len(value.parts) > 6:
        said = value[7]
        if use := target("AddressType[Use]", said):
            made["use"] = use.code
        if kind := target("AddressType[Type]", said):
            made["type"] = kind.code
    if len(value.parts) > 11:
        valid = span(date_time(value.subs(13), scene), date_time(value.subs(14), scene))
        valid = valid or period(value.subs(12), scene)
        if valid:
            made["period"] = valid
    return made


_ADDRESS = (("city", 3), ("district", 9), ("state", 4), ("postalCode", 5), ("country", 6))


def xtn(use: str = "") -> ListConverter:
    """Return a converter of XTN to ContactPoints: a number, an address, or both."""

    def convert(value: Value, scene: Scene) -> list[Json] | None:
        return _contact_points(value, use) or None

    return convert


def _contact_points(value: Value, use: str) -> list[Json]:
    first, kind = value[1], value[3]
    email = value[4] or (first if "@" in first or kind in ("Internet", "X.400") else "")
    number = value[12] or _put_together(value) or (first if first and first != email else "")
    equipment = target("TelecommunicationEquipmentType", kind) if kind else None
    said = target("TelecommunicationUseCode", value[2]) if value[2] else None
    chosen = said.code if said else "" if value[2] in ("NET", "BPN") else use
    if equipment and equipment.code == "mobile":
        chosen = "mobile"
    rank = value[18]
    found = []
    for system, point in (("email", email), (_system_of_number(value, equipment), number)):
        if point:
            made: Json = {"system": system, "value": point}
            if chosen:
                made["use"] = chosen
            if rank.isdecimal() and int(rank[:9]) > 0:
                made["rank"] = int(rank[:9])
            found.append(made)
    return found


def _system_of_number(value: Value, equipment: Target | None) -> str:
    if value[2] == "BPN":
        return "pager"
    if equipment and equipment.code not in ("mobile", "email"):
        return equipment.code
    return "phone"


def _put_together(value: Value) -> str:
    """Return the number of XTN.5 to 8; "" without XTN.7."""
    if not value[7]:
        return ""
    country = value[5].lstrip("+")
    parts = [f"+{country}" if country else "", value[6], value[7]]
    extension = f"ext. {value[8]}" if value[8] else ""
    return " ".join(part for part in (*parts, extension) if part)
