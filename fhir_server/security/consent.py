"""A Consent -> the rule that is kept of it in ``denials``: who is denied what, until when. Pure.

https://hl7.org/fhir/R4/consent.html; how it is read is in SPEC_CHOICES.md. What a rule cannot say
is noted as ``unjudged``: a denial then denies more, and a permission permits nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import msgspec

from fhir_server.outcome import FhirError
from fhir_server.r4.dates import EARLIEST, LATEST, DateRange, date_range
from fhir_server.r4.references import target
from fhir_server.security.consent_codes import (
    ACT_REASON,
    CONSENT_SCOPE,
    OWN_ROLES,
    RECIPIENTS,
    REFUSING,
    RESOURCE_TYPES,
    STAFF_ROLES,
)

EVERYBODY = "*"
"""Whom a row touches whose denial nobody in particular is named in."""

# Consents to be treated, and what is to be done at the end of life: they are not about data.
_OTHER_SCOPES = frozenset(((CONSENT_SCOPE, "treatment"), (CONSENT_SCOPE, "adr")))
_RESEARCH = (CONSENT_SCOPE, "research")
_PERSONS = ("Practitioner", "PractitionerRole", "Organization", "RelatedPerson", "Patient")
_RULES_MAX, _DEPTH_MAX = 200, 10

Code = tuple[str, str]
"""``(system, code)``; a missing system is ``""``."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who a rule is about: ``who`` is such as ``Practitioner/1``, ``""`` where that is not said in
    a way that can be judged. ``roles`` are those that staff must have. ``asks`` says that the role
    means whoever asks, not an author or custodian."""

    who: str
    roles: tuple[Code, ...] = ()
    asks: bool = True


@dataclass(frozen=True, slots=True)
class Rule:
    """A provision. ``type`` is ``deny``, ``permit``, or ``""`` for what only frames its ``rules``.

    An empty member is no constraint. ``types`` are resource types; ``data`` are ``Type/id``;
    ``unjudged`` says that there is a constraint which is not here.
    """

    type: str = ""
    actors: tuple[Actor, ...] = ()
    actions: tuple[Code, ...] = ()
    labels: tuple[Code, ...] = ()
    purposes: tuple[Code, ...] = ()
    types: tuple[str, ...] = ()
    codes: tuple[Code, ...] = ()
    data: tuple[str, ...] = ()
    period: tuple[datetime, datetime] | None = None
    data_period: tuple[datetime, datetime] | None = None
    unjudged: bool = False
    rules: tuple["Rule", ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """What is kept of a Consent that denies something.

    ``patient`` is ``Patient/1``. ``touches`` are those who are denied something, or
    :data:`EVERYBODY`; ``exempt`` are those who are not unless they are named: the patient, and who
    gave the Consent for the patient. It holds from ``begins`` until ``ends``, UTC. ``rule`` is a
    :class:`Rule` as JSON.
    """

    consent: str
    patient: str
    touches: tuple[str, ...]
    exempt: tuple[str, ...]
    begins: datetime
    ends: datetime
    rule: bytes


def rule_in(row_rule: bytes) -> Rule:
    """Return the rule of a row."""
    return msgspec.json.decode(row_rule, type=Rule)


def row_of(consent: Mapping[str, Any], base_urls: Sequence[str] = ()) -> Row | None:
    """Return the row of ``consent``; ``None`` for one that denies nobody anything. Does not fail
    for an invalid resource."""
    patient = _place(consent.get("patient"), base_urls)
    scope = _codes([consent.get("scope")])
    if consent.get("status") != "active" or not patient.startswith("Patient/"):
        return None
    if not _OTHER_SCOPES.isdisjoint(scope):
        return None
    provision = _dict(consent.get("provision"))
    rule = _whole(consent, provision, base_urls)
    if _RESEARCH in scope and not provision.get("purpose"):
        rule = Rule(purposes=((ACT_REASON, "HRESCH"),), rules=(rule,))
    touches = _touched(rule, frozenset())
    if not touches:
        return None
    begins, ends = _period(provision.get("period")) or (EARLIEST, LATEST)
    given = (_place(one, base_urls) for one in _list(consent.get("performer")))
    exempt = {patient, *(one for one in given if one.startswith("RelatedPerson/"))}
    return Row(
        *(str(consent.get("id", "")), patient, tuple(sorted(touches)), tuple(sorted(exempt))),
        *(begins, ends, msgspec.json.encode(rule)),
    )


def _whole(
    consent: Mapping[str, Any], provision: Mapping[str, Any], base_urls: Sequence[str]
) -> Rule:
    """Return the rule of the Consent as a whole: its policy, and the provision as an exception."""
    refusing = not REFUSING.isdisjoint(_codes([consent.get("policyRule")]))
    if consent.get("modifierExtension") or consent.get("implicitRules"):
        return Rule("deny")
    if _size(provision) > _RULES_MAX:
        return Rule("deny")
    root = _rule({**provision, "period": None}, base_urls)
    if not provision.get("type"):
        # Not permitted in the root, says R4, and its examples mean an exception to the policy.
        denies = not refusing and not root.rules and root != Rule(root.type)
        root = replace(root, type="deny" if denies else "")
    return Rule("deny", rules=(root,)) if refusing else root


def _size(provision: Mapping[str, Any], depth: int = 0) -> int:
    if depth > _DEPTH_MAX:
        return _RULES_MAX + 1
    inner = [one for one in _list(provision.get("provision")) if isinstance(one, dict)]
    return 1 + sum(_size(one, depth + 1) for one in inner)


def _rule(provision: Mapping[str, Any], base_urls: Sequence[str]) -> Rule:
    """Return the rule of a provision. One that does not say what it does denies."""
    type = "permit" if provision.get("type") == "permit" else "deny"
    rules = tuple(_rule(_dict(one), base_urls) for one in _list(provision.get("provision")))
    if provision.get("modifierExtension"):
        return Rule(type, unjudged=True, rules=rules)
    kinds = _codings(_list(provision.get("class")))
    types = tuple(code for system, code in kinds if system == RESOURCE_TYPES)
    codes, coded = _read_codes(provision.get("code"))
    labels = _codings(_list(provision.get("securityLabel")))
    purposes = _codings(_list(provision.get("purpose")))
    data, named = _read_data(provision.get("data"), base_urls)
    period, data_period = _period(provision.get("period")), _period(provision.get("dataPeriod"))
    judged = (
        len(types) == len(_list(provision.get("class"))),
        coded,
        named,
        len(labels) == len(_list(provision.get("securityLabel"))) and all(map(all, labels)),
        bool(period) == bool(provision.get("period")),
        bool(data_period) == bool(provision.get("dataPeriod")),
        len(purposes) == len(_list(provision.get("purpose"))),
        all(_codes([one]) for one in _list(provision.get("action"))),
    )
    return Rule(
        type,
        actors=tuple(_actor(_dict(one), base_urls) for one in _list(provision.get("actor"))),
        actions=_codes(_list(provision.get("action"))) if judged[7] else (),
        labels=labels if judged[3] else (),
        purposes=purposes if judged[6] else (),
        types=types if judged[0] else (),
        codes=codes if coded else (),
        data=data if named else (),
        period=period,
        data_period=data_period,
        unjudged=not all(judged),
        rules=rules,
    )


def _read_codes(codes: Any) -> tuple[tuple[Code, ...], bool]:
    """Return the codes of ``Consent.provision.code``, and whether each concept has one."""
    concepts = _list(codes)
    return _codes(concepts), all(_codes([one]) for one in concepts)


def _read_data(data: Any, base_urls: Sequence[str]) -> tuple[tuple[str, ...], bool]:
    """Return the instances that are named, and whether that is all: what is related to them, or
    depends on them, or is by the same author, is not found by a predicate."""
    rows = [_dict(one) for one in _list(data)]
    places = tuple(_place(one.get("reference"), base_urls) for one in rows)
    return places, all(places) and all(one.get("meaning") == "instance" for one in rows)


def _actor(actor: Mapping[str, Any], base_urls: Sequence[str]) -> Actor:
    place = _place(actor.get("reference"), base_urls)
    who = place if place.partition("/")[0] in _PERSONS else ""
    roles = _codes([actor.get("role")])
    staff = tuple(one for one in roles if one[0] in (STAFF_ROLES, OWN_ROLES))
    return Actor(who, staff, asks=bool(staff) or not RECIPIENTS.isdisjoint(roles))


def _touched(rule: Rule, framed: frozenset[str]) -> frozenset[str]:
    """Return who is denied something by ``rule``, inside of what touches ``framed`` only; nobody
    in particular is empty."""
    names = frozenset(one.who if one.asks and one.who else EVERYBODY for one in rule.actors)
    if names and EVERYBODY not in names:
        framed = names
    found: set[str] = set()
    if rule.type == "deny":
        found |= framed or {EVERYBODY}
    for one in rule.rules:
        found |= _touched(one, framed)
    return frozenset(found)


def _place(reference: Any, base_urls: Sequence[str]) -> str:
    """Return ``Type/id`` of a reference to a resource here, else ``""``."""
    text = _dict(reference).get("reference")
    found = target(text, base_urls) if isinstance(text, str) else None
    return f"{found.type}/{found.id}" if found and found.id else ""


def _period(period: Any) -> DateRange | None:
    """Return the time that a Period covers; ``None`` for what is none."""
    if not isinstance(period, dict) or not ("start" in period or "end" in period):
        return None
    try:
        begins = date_range(period["start"])[0] if "start" in period else EARLIEST
        ends = date_range(period["end"])[1] if "end" in period else LATEST
    except (FhirError, TypeError):
        return None
    return begins, ends


def _codes(concepts: Sequence[Any]) -> tuple[Code, ...]:
    return tuple(
        one for concept in concepts for one in _codings(_list(_dict(concept).get("coding")))
    )


def _codings(codings: Sequence[Any]) -> tuple[Code, ...]:
    return tuple(_read(codings))


def _read(codings: Sequence[Any]) -> Iterator[Code]:
    for one in codings:
        coding = _dict(one)
        system, code = coding.get("system", ""), coding.get("code")
        if isinstance(code, str) and isinstance(system, str):
            yield system, code


def _dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
