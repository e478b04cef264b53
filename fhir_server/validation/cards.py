"""Requests and responses of CDS Hooks, which are JSON beside FHIR, with resources inside.

https://cds-hooks.hl7.org/2.0/#http-request_1, https://cds-hooks.hl7.org/2.0/#cds-service-response
"""

from collections.abc import Iterator, Mapping
from typing import Any

import re2

from fhir_server.outcome import Issue, nearest, shown
from fhir_server.validation.members import objects_of

_UUID = re2.compile(r"(?i)[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SUMMARY_MAX = 140

# Member -> (JSON kind, whether it must be there).
_Members = Mapping[str, tuple[type, bool]]
_REQUEST: _Members = {
    "hook": (str, True),
    "hookInstance": (str, True),
    "fhirServer": (str, False),
    "fhirAuthorization": (dict, False),
    "context": (dict, True),
    "prefetch": (dict, False),
    "extension": (dict, False),
}
_RESPONSE: _Members = {
    "cards": (list, True),
    "systemActions": (list, False),
    "extension": (dict, False),
}
_CARD: _Members = {
    "uuid": (str, False),
    "summary": (str, True),
    "detail": (str, False),
    "indicator": (str, True),
    "source": (dict, True),
    "suggestions": (list, False),
    "selectionBehavior": (str, False),
    "overrideReasons": (list, False),
    "links": (list, False),
    "extension": (dict, False),
}
_SOURCE: _Members = {
    "label": (str, True),
    "url": (str, False),
    "icon": (str, False),
    "topic": (dict, False),
}
_LINK: _Members = {
    "label": (str, True),
    "url": (str, True),
    "type": (str, False),
    "appContext": (str, False),
}
_SUGGESTION: _Members = {
    "label": (str, True),
    "uuid": (str, False),
    "isRecommended": (bool, False),
    "actions": (list, False),
}
_INDICATORS = ("info", "warning", "critical")
_CONTEXTS: Mapping[str, tuple[str, ...]] = {
    "patient-view": ("userId", "patientId"),
    "order-select": ("userId", "patientId", "selections", "draftOrders"),
    "order-sign": ("userId", "patientId", "draftOrders"),
    "encounter-start": ("userId", "patientId", "encounterId"),
    "encounter-discharge": ("userId", "patientId", "encounterId"),
    "appointment-book": ("userId", "patientId", "appointments"),
}
_KINDS = {str: "a string", dict: "an object", list: "an array", bool: "true or false"}


def is_cds_hooks(value: Any) -> bool:
    """Return whether ``value`` is a request or a response of CDS Hooks, right or wrong."""
    return (
        isinstance(value, dict)
        and "resourceType" not in value
        and ("cards" in value or {"hook", "hookInstance"} <= value.keys())
    )


def cds_hooks_issues(value: dict[str, Any]) -> Iterator[Issue]:
    """Yield what is wrong with a request or response, resources inside aside."""
    if "cards" in value:
        name = "CDSHooksResponse"
        yield from _members(value, _RESPONSE, name)
        for index, card in objects_of(value, "cards"):
            yield from _card(card, f"{name}.cards[{index}]")
    else:
        yield from _members(value, _REQUEST, "CDSHooksRequest")
        yield from _request(value)


def resources_of(value: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the resources of a request's prefetch with their paths."""
    prefetch = value.get("prefetch")
    for key, one in prefetch.items() if isinstance(prefetch, dict) else ():
        if one is not None:
            yield f"CDSHooksRequest.prefetch.{key}", one


def _members(value: dict[str, Any], members: _Members, path: str) -> Iterator[Issue]:
    for name, one in value.items():
        known = members.get(name)
        if known is None:
            if name != "extension":
                hint = nearest(name, members)
                yield Issue("structure", f"{shown(name)} is no member of this.{hint}", path)
        elif not isinstance(one, known[0]):
            text = f"{name} is of another kind; expected {_KINDS[known[0]]}."
            yield Issue("structure", text, f"{path}.{name}")
    for name, (_, is_required) in members.items():
        if is_required and name not in value:
            yield Issue("required", f"{name} is missing; CDS Hooks requires it.", path)


def _request(value: dict[str, Any]) -> Iterator[Issue]:
    path = "CDSHooksRequest"
    instance, context = value.get("hookInstance"), value.get("context")
    if isinstance(instance, str) and not _UUID.fullmatch(instance):
        text = f"hookInstance is {shown(instance)}; expected a UUID."
        yield Issue("value", text, f"{path}.hookInstance")
    hook = value.get("hook")
    for name in _CONTEXTS.get(hook, ()) if isinstance(hook, str) else ():
        if isinstance(context, dict) and name not in context:
            text = f"{name} is missing; the context of {hook} requires it."
            yield Issue("required", text, f"{path}.context")
    for place, one in resources_of(value):
        if not isinstance(one, dict) or "resourceType" not in one:
            yield Issue("structure", "This has no resourceType; expected a resource.", place)


def _card(card: dict[str, Any], path: str) -> Iterator[Issue]:
    yield from _members(card, _CARD, path)
    summary, indicator = card.get("summary"), card.get("indicator")
    if isinstance(summary, str) and len(summary) > _SUMMARY_MAX:
        text = f"summary has {len(summary)} characters; expected fewer than {_SUMMARY_MAX}."
        yield Issue("value", text, f"{path}.summary", "warning")
    if isinstance(indicator, str) and indicator not in _INDICATORS:
        text = f"indicator is {shown(indicator)}; expected one of {', '.join(_INDICATORS)}."
        yield Issue("value", text, f"{path}.indicator")
    if isinstance(card.get("source"), dict):
        yield from _members(card["source"], _SOURCE, f"{path}.source")
    for index, link in objects_of(card, "links"):
        place = f"{path}.links[{index}]"
        yield from _members(link, _LINK, place)
        if "type" not in link:
            text = "type is missing; CDS Hooks requires absolute or smart."
            yield Issue("required", text, place, "warning")
        if link.get("type") not in ("absolute", "smart", None):
            text = f"type is {shown(link['type'])}; expected absolute or smart."
            yield Issue("value", text, f"{place}.type")
        if "appContext" in link and link.get("type") != "smart":
            text = "appContext is for links of the type smart only."
            yield Issue("value", text, f"{place}.appContext")
    for index, suggestion in objects_of(card, "suggestions"):
        yield from _members(suggestion, _SUGGESTION, f"{path}.suggestions[{index}]")
