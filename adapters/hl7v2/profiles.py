"""Profiles of senders as JSON: checked on writing, made into :class:`Profile`.

design/hl7v2.md, section 18. Unknown members are refused; all but ``name`` and ``match`` may be left
out.
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from adapters.hl7v2.identity import IdentityRules
from adapters.hl7v2.senders import Profile
from fhir_server.outcome import FhirError, Issue, invalid_value, nearest, shown

# Members of the JSON that are no fields of Profile by themselves.
_GROUPS = {"identity": None, "keys": ("obx21_is_key", "pid18_is_visit", "filler_reuse")}
_SERVER = (
    "server_zone",
    "charset_fallback",
    "code_tables",
    "obx21_is_key",
    "pid18_is_visit",
    "filler_reuse",
)
_LISTS = ("match", "snapshots", "before", "rows")
_OBJECTS = ("peers", "principal", "accept", "authorities", "code_maps", "ack", "events")
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "unknown_patient": ("create", "hold"),
    "conflict": ("first", "hold"),
    "suspect": ("warn", "hold"),
    "anonymous": ("refuse", "create"),
    "filler_reuse": ("hold", "new", "move"),
    "unmapped_code": ("keep", "hold"),
    "directory": ("refer", "create"),
    "text_report": ("keep", "join"),
    "next_of_kin": ("contact", "RelatedPerson"),
}


def checked(profile: Mapping[str, Any]) -> None:
    """Raise what is wrong with ``profile``: ``value`` issues, all of them together."""
    issues: list[Issue] = []
    known = {one.name for one in fields(Profile)} - set(_SERVER) | set(_GROUPS)
    issues += _unknown(profile, known, "")
    if not isinstance(profile.get("name"), str) or not profile.get("name"):
        issues.append(Issue("required", "A profile needs a name.", "name"))
    match = profile.get("match")
    if not isinstance(match, list) or not match or not all(isinstance(m, dict) for m in match):
        text = "A profile needs match, a list of objects with application and facility."
        issues.append(Issue("required", text, "match"))
    else:
        for one in match:
            issues += _unknown(one, {"application", "facility"}, "match.")
    usual = Profile()
    for name, value in profile.items():
        if name in _GROUPS:
            issues += _group(name, value)
        elif name in known:
            issues += _kind(name, value, getattr(usual, name))
    if issues:
        raise FhirError(*issues)


def _unknown(given: Mapping[str, Any], known: set[str], place: str) -> list[Issue]:
    return [
        Issue(
            "value", f"A profile has no member {shown(name)}.{nearest(name, known)}", place + name
        )
        for name in given
        if name not in known
    ]


def _group(name: str, value: Any) -> list[Issue]:
    if not isinstance(value, dict):
        return [Issue("value", f"{name} is to be an object.", name)]
    usual: Any = IdentityRules() if name == "identity" else Profile()
    known = (
        {one.name for one in fields(IdentityRules)}
        if name == "identity"
        else set(_GROUPS[name] or ())
    )
    issues = _unknown(value, known, f"{name}.")
    for member, one in value.items():
        if member in known:
            issues += _kind(member, one, getattr(usual, member))
    return issues


def _kind(name: str, value: Any, usual: Any) -> list[Issue]:
    """Return what is wrong with one member, whose default is ``usual``."""
    if name in _CHOICES and value not in _CHOICES[name]:
        error = invalid_value(name, value, " or ".join(_CHOICES[name]), name)
        return list(error.issues)
    if name in _OBJECTS:
        fits, wanted = isinstance(value, dict), "an object"
    elif isinstance(usual, tuple):
        fits, wanted = isinstance(value, list), "a list"
    elif isinstance(usual, bool):
        fits, wanted = isinstance(value, bool), "true or false"
    elif isinstance(usual, int):
        fits, wanted = type(value) is int and value >= 0, "a whole number"
    else:
        fits, wanted = isinstance(value, str), "a string"
    return [] if fits else list(invalid_value(name, value, wanted, name).issues)


def profile_from(given: Mapping[str, Any], settings: Any) -> Profile:
    """Return the profile that ``given``, which was checked, states; the rest by ``settings``."""
    identity = given.get("identity", {})
    members: dict[str, Any] = {
        name: tuple(value) if name in _LISTS else value
        for name, value in given.items()
        if name not in _GROUPS
    }
    rules: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in identity.items()}
    return replace(
        Profile(server_zone=settings.hl7_time_zone, charset_fallback=settings.hl7_charset_fallback),
        **members,
        **given.get("keys", {}),
        identity=IdentityRules(**rules),
    )
