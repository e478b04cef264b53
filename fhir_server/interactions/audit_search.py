"""The search parameters of AuditEvent, for rows of the audit record: values -> filters.

https://hl7.org/fhir/R4/auditevent.html#search and ``security/audit.py``, which has the members of a
row. No modifier but ``agent:identifier`` and ``agent-name:exact``; a parameter that is about what
rows do not have finds none of them. AuditEvents that clients have written are searched as anything
else is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from fhir_server.outcome import FhirError, Issue, nearest, shown
from fhir_server.r4.references import target
from fhir_server.search.date import compile_instant
from fhir_server.search.escape import split, unescape
from fhir_server.search.keys import Filter, beginning, starting_with
from fhir_server.security.audit_events import KINDS, PERFORMERS, kind_of
from fhir_server.security.plan import NOTHING, both, either

_KINDS_OF_AGENT = ("user", "client", "demo", "server", "nobody")
_STATUS = {"0": {"$lt": 400}, "4": {"$gte": 400, "$lt": 500}, "8": {"$gte": 500}}


@dataclass(frozen=True, slots=True)
class About:
    """What values are read against: what this server is called, its site, the time."""

    base_urls: Sequence[str]
    site: str
    now: datetime


def rows_filter(parameters: Sequence[tuple[str, str]], about: About) -> Filter:
    """Return the filter of the rows that meet all ``parameters``, escapes of values in place.

    Raises ``not-supported`` for a parameter or modifier that is not served here, ``value`` for a
    value that it cannot have.
    """
    found: list[Filter] = []
    for name, value in parameters:
        if not value:
            continue
        filter_of = _PARAMETERS.get(name)
        if filter_of is None:
            raise _unknown(name)
        alternatives = [filter_of(one, about) for one in dict.fromkeys(split(value, ","))]
        found.append(_any(alternatives))
    return both(*found)


def _any(alternatives: Sequence[Filter]) -> Filter:
    found = alternatives[0]
    for one in alternatives[1:]:
        found = either(found, one)
    return found


def _unknown(name: str) -> FhirError:
    text = f"AuditEvent is not searched by {shown(name)} here.{nearest(name, _PARAMETERS)}"
    return FhirError(Issue("not-supported", text))


def _date(value: str, about: About) -> Filter:
    return compile_instant("at", value, about.now)


def _referred(value: str, about: About) -> tuple[str, str]:
    """Return type and id of a reference; the type is ``""`` of a bare id, the id of another's."""
    text = unescape(value)
    found = target(text, about.base_urls)
    if found.id:
        return found.type, found.id
    return ("", text) if "/" not in text else ("?", text)


def _patient(value: str, about: About) -> Filter:
    type, id = _referred(value, about)
    if type not in ("", "Patient"):
        return NOTHING
    return {"$or": [{"patients": id}, {"agents": f"Patient/{id}"}]}


def _agent(value: str, about: About) -> Filter:
    type, id = _referred(value, about)
    types = PERFORMERS if type == "" else (type,)
    return {"agents": {"$in": [unescape(value), *(f"{one}/{id}" for one in types)]}}


def _identified(value: str, about: About) -> Filter:
    name = unescape(value).rpartition("|")[2]
    return {"agents": {"$in": [name, *(f"{kind}/{name}" for kind in _KINDS_OF_AGENT)]}}


def _named(value: str, about: About) -> Filter:
    return {"agents": beginning(f"user/{unescape(value)}", ignoring_case=True)}


def _named_exactly(value: str, about: About) -> Filter:
    return {"agents": f"user/{unescape(value)}"}


def _entity(value: str, about: About) -> Filter:
    type, id = _referred(value, about)
    thing: Filter = {"id": id} | ({"type": type} if type else {})
    return {"$or": [thing, {"patients": id}]} if type in ("", "Patient") else thing


def _code(value: str, systems: Sequence[str] = ()) -> str | None:
    """Return the code of a token; ``None`` where its system is none of ``systems``."""
    system, bar, code = unescape(value).rpartition("|")
    return code if not bar or not systems or system in systems else None


def _action(value: str, about: About) -> Filter:
    return {"action": _code(value) or ""}


def _outcome(value: str, about: About) -> Filter:
    condition = _STATUS.get(_code(value) or "")
    return {"status": condition} if condition else NOTHING


def _done(position: str, value: str, about: About) -> Filter:
    """Return the filter of what was done, by what an AuditEvent calls it."""
    system, bar, code = unescape(value).rpartition("|")
    said = {did: getattr(kind, position) for did, kind in KINDS.items()}
    found = [
        did
        for did, one in said.items()
        if one is not None and one[1] == code and (not bar or one[0] == system)
    ]
    wanted: Filter = {"did": {"$in": found}}
    other = getattr(kind_of("$"), position)
    if other[1] == code and (not bar or other[0] == system):
        # Operations, and for the type what was none of ours as well.
        rest: Filter = {"did": {"$nin": list(KINDS)}} if position == "type" else _OPERATIONS
        return {"$or": [wanted, rest]}
    return wanted if found else NOTHING


_OPERATIONS: Filter = {"did": starting_with("$")}


def _site(value: str, about: About) -> Filter:
    return {} if _code(value) == about.site else NOTHING


def _address(value: str, about: About) -> Filter:
    return {"address": beginning(unescape(value))}


def _id(value: str, about: About) -> Filter:
    return {"_id": unescape(value)}


def _none(value: str, about: About) -> Filter:
    return NOTHING


def _there(members: Mapping[str, Sequence[str]], value: str, about: About) -> Filter:
    """Return the filter of the rows that have one of the members which a code stands for."""
    names = members.get(_code(value) or "", ())
    found = [{name: {"$exists": True}} for name in names]
    return {"$or": found} if found else NOTHING


_ENTITY_TYPES = {"1": ("patients",), "2": ("id", "query"), "XrequestId": ("request",)}
_ENTITY_ROLES = {"1": ("patients",), "4": ("id",), "24": ("query",)}

_PARAMETERS: Mapping[str, Callable[[str, About], Filter]] = {
    "_id": _id,
    "_lastUpdated": _date,
    "action": _action,
    "address": _address,
    "agent": _agent,
    "agent:identifier": _identified,
    "agent-name": _named,
    "agent-name:exact": _named_exactly,
    "date": _date,
    "entity": _entity,
    "outcome": _outcome,
    "patient": _patient,
    "entity-role": partial(_there, _ENTITY_ROLES),
    "entity-type": partial(_there, _ENTITY_TYPES),
    "policy": _none,
    "site": _site,
    "source": _none,
    "subtype": partial(_done, "subtype"),
    "type": partial(_done, "type"),
    **dict.fromkeys(("altid", "agent-role", "entity-name"), _none),
    **dict.fromkeys(("_profile", "_security", "_source", "_tag"), _none),
}

SEARCHED = tuple(dict.fromkeys(name.partition(":")[0] for name in _PARAMETERS))
"""The codes of the parameters that are served for AuditEvent."""
