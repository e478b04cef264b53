"""``_query``: searches that have a name.

https://hl7.org/fhir/R4/search.html#query

A named query stands for the searches in its row, all of which are met; other parameters narrow it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from fhir_server.outcome import FhirError, Issue, nearest, shown

QUERY = "_query"
_NOW = "{now}"


@dataclass(frozen=True, slots=True)
class NamedQuery:
    """What a name means for resources of ``type``.

    ``searches`` are names of parameters and their alternatives; ``{now}`` in one is the time.
    """

    name: str
    type: str
    documentation: str
    searches: tuple[tuple[str, tuple[str, ...]], ...]

    def parameters(self, now: datetime | None) -> Iterator[tuple[str, Sequence[str]]]:
        """Yield the parameters that it stands for at ``now`` (UTC)."""
        moment = f"{now or datetime.fromtimestamp(0, UTC):%Y-%m-%dT%H:%M:%SZ}"
        for name, values in self.searches:
            yield name, [value.replace(_NOW, moment) for value in values]


_QUERIES = (
    NamedQuery(
        "upcoming",
        "Appointment",
        "appointments from now on that are proposed, pending, booked or on the waiting list",
        (("status", ("proposed", "pending", "booked", "waitlist")), ("date", ("ge{now}",))),
    ),
    NamedQuery(
        "current",
        "Encounter",
        "encounters with a patient who is there or on leave",
        (("status", ("arrived", "triaged", "in-progress", "onleave")),),
    ),
    NamedQuery(
        "open",
        "Task",
        "tasks that somebody still has to do",
        (("status", ("requested", "received", "accepted", "ready", "in-progress", "on-hold")),),
    ),
)
QUERIES: Mapping[tuple[str, str], NamedQuery] = {(one.type, one.name): one for one in _QUERIES}
"""``(type, name)`` -> what is served; the CapabilityStatement lists the same table."""

DOCUMENTATION = "Named queries: " + "; ".join(
    f"{one.type}?_query={one.name} ({one.documentation})" for one in _QUERIES
)


def named_query(type: str, name: str) -> NamedQuery:
    """Return the query ``name`` of ``type``. Raises ``not-supported`` and names the nearest."""
    if found := QUERIES.get((type, name)):
        return found
    known = [other for owner, other in QUERIES if owner == type]
    near = nearest(name, known) or (f" It has {', '.join(known)}." if known else "")
    raise FhirError(Issue("not-supported", f"{type} has no named query {shown(name)}.{near}"))
