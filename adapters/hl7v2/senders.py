"""Sender profiles: what one sender means by its messages. Checked on writing.

design/hl7v2.md, section 18; not to be confused with FHIR profiles.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from adapters.hl7v2.codetables import CodeTable
from adapters.hl7v2.identity import IdentityRules
from adapters.hl7v2.permissions import accept_fault, ack_fault, peers_fault, principal_fault


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """The rules of one sender; the defaults are those of a sender without a profile.

    ``code_tables`` is what the ConceptMaps of ``code_maps`` say, looked up: field -> table.
    ``translations`` are the maps of ``translate`` rules.
    ``server_zone`` and ``charset_fallback`` are settings of the server, kept here so that the pure
    functions get them.
    """

    name: str = ""
    match: tuple[Mapping[str, str], ...] = ()
    peers: Mapping[str, Any] = field(default_factory=dict)
    principal: Mapping[str, Any] = field(default_factory=dict)
    accept: Mapping[str, Any] = field(default_factory=dict)
    zone: str = ""
    charset: str = ""
    charset_strict: bool = False
    decimal_comma: bool = False
    authorities: Mapping[str, str] = field(default_factory=dict)
    default_authority: str = ""
    identity: IdentityRules = field(default_factory=IdentityRules)
    obx21_is_key: bool = False
    pid18_is_visit: bool = False
    filler_reuse: str = "hold"
    snapshots: tuple[str, ...] = ()
    hold_after_dead: bool = False
    control_id_days: int = 0
    directory: str = "refer"
    code_maps: Mapping[str, str] = field(default_factory=dict)
    unmapped_code: str = "keep"
    ack: Mapping[str, Any] = field(default_factory=dict)
    before: tuple[Mapping[str, Any], ...] = ()
    events: Mapping[str, str] = field(default_factory=dict)
    rows: tuple[Mapping[str, str], ...] = ()
    text_report: str = "keep"
    next_of_kin: str = "contact"
    us_core: bool = False
    expected_every: str = ""
    translations: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    code_tables: Mapping[str, CodeTable] = field(default_factory=dict)
    server_zone: str = "UTC"
    charset_fallback: str = "windows-1252"


class ProfileFault(ValueError):
    """What is wrong with a profile: one sentence for each fault."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__(" ".join(faults))
        self.faults = tuple(faults)


# Member -> what it must be. The members of ``identity`` and ``keys`` are members of Profile.
_TEXTS = ("name", "zone", "charset", "default_authority")
_FLAGS = ("charset_strict", "decimal_comma", "hold_after_dead", "us_core")
_OBJECTS = ("authorities", "events")
# Member -> what says what is wrong with it.
_CHECKED: Mapping[str, Callable[[Any], str]] = {
    "peers": peers_fault,
    "principal": principal_fault,
    "accept": accept_fault,
    "ack": ack_fault,
}
_CHOICES = {
    "directory": ("refer", "create"),
    "unmapped_code": ("keep", "hold"),
    "text_report": ("keep", "join"),
    "next_of_kin": ("contact", "RelatedPerson"),
}
_IDENTITY = {
    "unknown_patient": ("create", "hold"),
    "conflict": ("first", "hold"),
    "suspect": ("warn", "hold"),
    "anonymous": ("refuse", "create"),
}
_KEYS: dict[str, tuple[Any, ...]] = {
    "obx21_is_key": (True, False),
    "pid18_is_visit": (True, False),
    "filler_reuse": ("hold", "new", "move"),
}
_SNAPSHOTS = ("AL1", "DG1", "IN1")  # those of snapshots.py
_ROW_MEMBERS = {"field", "to", "as"}
_FIELD = re.compile(r"[A-Z][A-Z0-9]{2}-[1-9][0-9]{0,2}")
_CONCEPT_MAP = re.compile(r"ConceptMap/[A-Za-z0-9.-]{1,64}")
_LENGTH_OF_TIME = re.compile(r"P(?=.)(\d{1,4}D)?(T(?=.)(\d{1,4}H)?(\d{1,4}M)?(\d{1,6}S)?)?")


def profile_of(document: Mapping[str, Any], **settings: Any) -> Profile:
    """Return the profile that ``document`` describes; ``settings`` are those of the server.

    Raises :class:`ProfileFault` that names every unknown member and every unfit value.
    """
    faults: list[str] = []
    given: dict[str, Any] = {}
    for member, value in document.items():
        fault = _take(member, value, given)
        if fault:
            faults.append(fault)
    for required in ("name", "match"):
        if not document.get(required):
            faults.append(f"A profile needs '{required}'.")
    if faults:
        raise ProfileFault(faults)
    return Profile(**given, **settings)


def _take(member: str, value: Any, given: dict[str, Any]) -> str:
    """Put a member of a profile into ``given``; return what is wrong with it, or ""."""
    if member in _TEXTS:
        given[member] = value
        return "" if isinstance(value, str) else f"'{member}' must be a text."
    if member in _FLAGS:
        given[member] = value
        return "" if isinstance(value, bool) else f"'{member}' must be true or false."
    if member in _OBJECTS:
        given[member] = value
        return "" if isinstance(value, Mapping) else f"'{member}' must be an object."
    if member in _CHECKED:
        given[member] = value
        return _CHECKED[member](value)
    if member in _CHOICES:
        given[member] = value
        return _choice(member, value, _CHOICES[member])
    taker = _TAKERS.get(member)
    return taker(value, given) if taker else f"'{member}' is no member of a profile."


def _choice(member: str, value: Any, choices: tuple[Any, ...]) -> str:
    if value in choices:
        return ""
    words = ", ".join(str(choice).lower() for choice in choices)
    return f"'{member}' must be one of {words}."


def _identity(value: Any, given: dict[str, Any]) -> str:
    if not isinstance(value, Mapping):
        return "'identity' must be an object."
    for member, chosen in value.items():
        if member == "order":
            if not _is_texts(chosen):
                return "'identity.order' must be a list of identifier types."
        elif member not in _IDENTITY:
            return f"'identity.{member}' is no member of a profile."
        elif fault := _choice(f"identity.{member}", chosen, _IDENTITY[member]):
            return fault
    order = tuple(value.get("order", ()))
    given["identity"] = IdentityRules(**{**dict(value), "order": order})
    return ""


def _keys(value: Any, given: dict[str, Any]) -> str:
    if not isinstance(value, Mapping):
        return "'keys' must be an object."
    for member, chosen in value.items():
        if member not in _KEYS:
            return f"'keys.{member}' is no member of a profile."
        if fault := _choice(f"keys.{member}", chosen, _KEYS[member]):
            return fault
        given[member] = chosen
    return ""


def _match(value: Any, given: dict[str, Any]) -> str:
    fits = isinstance(value, list) and all(
        isinstance(one, Mapping)
        and one.keys() <= {"application", "facility"}
        and all(isinstance(text, str) for text in one.values())
        for one in value
    )
    given["match"] = tuple(value) if fits else ()
    return "" if fits else "'match' must be a list of objects with application and facility."


def _snapshots(value: Any, given: dict[str, Any]) -> str:
    fits = _is_texts(value) and set(value) <= set(_SNAPSHOTS)
    given["snapshots"] = tuple(value) if fits else ()
    return "" if fits else f"'snapshots' must be a list of {', '.join(_SNAPSHOTS)}."


def _days(value: Any, given: dict[str, Any]) -> str:
    fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 36_500
    given["control_id_days"] = value
    return "" if fits else "'control_id_days' must be a number of days."


def _code_maps(value: Any, given: dict[str, Any]) -> str:
    fits = isinstance(value, Mapping) and all(
        _FIELD.fullmatch(str(place)) and isinstance(map, str) and _CONCEPT_MAP.fullmatch(map)
        for place, map in value.items()
    )
    given["code_maps"] = value if fits else {}
    return "" if fits else "'code_maps' must name fields (OBX-3), each with its ConceptMap/id."


def _expected_every(value: Any, given: dict[str, Any]) -> str:
    fits = isinstance(value, str) and (not value or _LENGTH_OF_TIME.fullmatch(value))
    given["expected_every"] = value
    return "" if fits else "'expected_every' must be a length of time, such as PT2H or P1D."


def _before(value: Any, given: dict[str, Any]) -> str:
    fits = isinstance(value, list) and all(isinstance(one, Mapping) for one in value)
    given["before"] = tuple(value) if fits else ()
    return "" if fits else "'before' must be a list of rules."


def _rows(value: Any, given: dict[str, Any]) -> str:
    fits = isinstance(value, list) and all(
        isinstance(one, Mapping) and one.keys() == _ROW_MEMBERS for one in value
    )
    given["rows"] = tuple(value) if fits else ()
    return "" if fits else "'rows' must be a list of objects with field, to and as."


def _is_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)


_TAKERS: Mapping[str, Callable[[Any, dict[str, Any]], str]] = {
    "identity": _identity,
    "keys": _keys,
    "match": _match,
    "snapshots": _snapshots,
    "control_id_days": _days,
    "code_maps": _code_maps,
    "expected_every": _expected_every,
    "before": _before,
    "rows": _rows,
}


def chosen(profiles: Iterable[Profile], application: str, facility: str) -> Profile | None:
    """Return the profile of a sender (MSH-3, MSH-4): of those that match, the most exact one.

    ``*`` in a match stands for any text; a member that is missing, too.
    """
    best: tuple[int, Profile] | None = None
    for profile in profiles:
        for rule in profile.match:
            exactness = 0
            for said, wanted in ((application, "application"), (facility, "facility")):
                pattern = rule.get(wanted, "*")
                if not fits(said, pattern):
                    exactness = -1
                    break
                exactness += 1000 if "*" not in pattern else len(pattern) - pattern.count("*")
            if exactness >= 0 and (best is None or exactness > best[0]):
                best = (exactness, profile)
    return best[1] if best else None


def fits(text: str, pattern: str) -> bool:
    """Return whether ``text`` is of ``pattern``, whose only sign is ``*``. Linear in both."""
    first, *rest = pattern.split("*")
    if not rest:
        return text == pattern
    if not text.startswith(first):
        return False
    *middle, last = rest
    at = len(first)
    for part in middle:
        found = text.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return len(text) - at >= len(last) and text.endswith(last)


def is_receiver(receivers: Iterable[Mapping[str, str]], application: str, facility: str) -> bool:
    """Return whether MSH-5 and MSH-6 are one of the receivers that a profile lists."""
    return any(
        fits(application, one.get("application", "*")) and fits(facility, one.get("facility", "*"))
        for one in receivers
    )
