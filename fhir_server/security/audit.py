"""The audit record: who did what, to what, when, with what outcome. Section 4 of the design page.

A :class:`Row` is what is written for one request or event; ``audit_events.py`` makes an AuditEvent
of it when it is read, and ``chain.py`` ties rows to each other. As a document a row has these
members, without those that are empty:

==========  ========================================  ==========  ================================
``_id``     its place in the chain                    ``type``    of the resource, if any
``at``      UTC, millisecond                          ``id``      of it; ``version`` of it
``did``     an interaction, operation or event        ``patients``  ids of patients concerned
``agents``  ``user/anna``, ``client/app``,            ``query``   as it was sent, within bounds
            ``Practitioner/1``: who, through what,    ``status``  HTTP
            as whom                                   ``issue``   the first issue's code
``action``  ``C``, ``R``, ``U``, ``D``, ``E``         ``purpose``  ``TREAT``, ``BTG``
``token``   what names the token                      ``request``  X-Request-Id
``address``  where the request came from              ``entry``   place in the bundle
``reason``  why a rule was overridden
==========  ========================================  ==========  ================================
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import re2 as re

from fhir_server.messages import NO_ENTRY
from fhir_server.security.principal import Principal

Document = dict[str, Any]

QUERY_CHARACTERS_MAX = 4000
"""Of a query; what is longer is cut, and ends with an ellipsis."""

PATIENTS_MAX = 5000
"""Patients that one row names: a page, with all that came along. More need several rows."""

EVENTS = ("login", "logout", "token", "consent", "break-glass", "export")
"""What is recorded beside interactions and operations: a sign-in and its end, a token that was
issued or refused, a decision by consent, an emergency access that was opened, data handed out."""

_ACTIONS = {
    "create": "C",
    "update": "U",
    "patch": "U",
    "delete": "D",
    "conditional-update": "U",
    "conditional-patch": "U",
    "conditional-delete": "D",
    "read": "R",
    "vread": "R",
    "export": "R",
}
_EXECUTED = "E"
# What is refused in an address, and was sent there all the same. RFC 6750, section 2.3.
_SECRET = re.compile(
    r"(?i)\b((?:access_token|refresh_token|id_token|client_secret|client_assertion|password)=)"
    r"[^&\s]+"
)
_PATIENT = "Patient/"


@dataclass(frozen=True, slots=True)
class Row:
    """One record.

    ``did`` is an interaction in the specification's word, an operation with its dollar sign, or one
    of :data:`EVENTS`. ``by`` is who asked. ``concerns`` are references; those to patients are kept.
    ``entry`` is the place in the bundle, ``NO_ENTRY`` for none. ``reason`` is why a rule was not to
    hold.
    """

    at: datetime
    did: str
    by: Principal
    type: str = ""
    id: str = ""
    version: int = 0
    concerns: Iterable[str] = ()
    query: str = ""
    status: int = 200
    issue: str = ""
    purpose: str = ""
    entry: int = NO_ENTRY
    reason: str = ""

    @property
    def patients(self) -> list[str]:
        """The ids of the patients concerned, each once, in their order."""
        own = (f"{_PATIENT}{self.id}",) if self.type == "Patient" and self.id else ()
        found = dict.fromkeys(
            one[len(_PATIENT) :] for one in (*own, *self.concerns) if one.startswith(_PATIENT)
        )
        return list(found)[:PATIENTS_MAX]


@dataclass(frozen=True, slots=True)
class Draft:
    """What is known of a row before it is known what came of the request.

    ``also`` is a row that is to be written together with it.
    """

    at: datetime
    by: Principal
    query: str = ""
    entry: int = NO_ENTRY
    also: Row | None = None

    def row(self, did: str, type: str = "", id: str = "", **said: Any) -> Row:
        """Return the row of what came of it; ``said`` are other members of :class:`Row`."""
        said.setdefault("query", self.query)
        return Row(self.at, did, self.by, type, id, entry=self.entry, **said)


def row_document(row: Row) -> Document:
    """Return ``row`` as it is stored, without its place."""
    by, at = row.by, row.at
    query = _SECRET.sub(r"\1…", row.query) if "=" in row.query else row.query
    if len(query) > QUERY_CHARACTERS_MAX:
        query = query[: QUERY_CHARACTERS_MAX - 1] + "…"
    said = {
        "at": at.astimezone(UTC).replace(microsecond=at.microsecond // 1000 * 1000),
        "did": row.did,
        "action": _ACTIONS.get(row.did, _EXECUTED),
        "agents": _agents(by),
        "token": by.token,
        "address": by.address,
        "type": row.type,
        "id": row.id,
        "version": row.version,
        "patients": row.patients,
        "query": query,
        "status": row.status,
        "issue": row.issue,
        "purpose": row.purpose or by.purpose,
        "request": by.request_id,
        "reason": row.reason,
    }
    kept = {name: value for name, value in said.items() if value}
    if row.entry != NO_ENTRY:
        kept["entry"] = row.entry
    return kept


def _agents(by: Principal) -> list[str]:
    """Return who asked, and through what: the kind and name first."""
    named = [f"{by.kind}/{by.name}"]
    if by.client:
        named.append(f"client/{by.client}")
    if by.fhir_user:
        named.append(by.fhir_user)
    return named


def who(document: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """Return kind, name, client and FHIR reference of who asked, of a row as it is stored."""
    first, *others = document["agents"]
    kind, _, name = first.partition("/")
    client = next((one[len("client/") :] for one in others if one.startswith("client/")), "")
    user = next((one for one in others if not one.startswith("client/")), "")
    return kind, name, client, user
