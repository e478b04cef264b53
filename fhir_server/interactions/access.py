"""What a principal may do: role and scopes, then what Consent takes away.

design/security.md, section 3.1. The pure parts are in ``fhir_server/security/``. What follows from
the principal alone is computed once; what the database says is a second old at most, and looked up
once for all who ask at the same time.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Generic, TypeVar

from fhir_server.context import Context
from fhir_server.interactions.consenting import opened, subtracted
from fhir_server.interactions.relationship import patients_of
from fhir_server.outcome import FhirError
from fhir_server.search.parameters import ParameterTable
from fhir_server.search.parse import Given, SearchQuery, parse
from fhir_server.search.plan import plan
from fhir_server.security.plan import Filter, Rights, both
from fhir_server.security.predicates import is_known
from fhir_server.security.principal import Principal
from fhir_server.security.rights import Known, rights
from fhir_server.security.scopes import EVERY_TYPE, Scope

_KEPT_MAX = 500  # principals of one process; each is some 700 pairs of types and letters
_FRESH_S = 1.0
# Parameters of every resource that are about the resource itself.
_OF_THE_RESOURCE = ("_id", "_lastUpdated", "_profile", "_security", "_source", "_tag")
# A constraint that means another thing tomorrow than today is none.
_TODAY, _TOMORROW = datetime(2000, 1, 1, tzinfo=UTC), datetime(2001, 1, 1, tzinfo=UTC)
_PRESENT: Filter = {"keys": {"$exists": True}}  # a deletion has no keys, and would meet a negation

T = TypeVar("T")


@dataclass(slots=True)
class Joined(Generic[T]):
    """What was looked up in the last second, or is being looked up: by key, one look for all."""

    _looks: dict[Hashable, tuple[float, "asyncio.Task[T]"]] = field(default_factory=dict)

    async def get(self, key: Hashable, look: Callable[[], Awaitable[T]]) -> T:
        """Return what ``look`` returns, or what it returned a second ago at most."""
        now = time.monotonic()
        began, task = self._looks.get(key, (0.0, None))
        if task is None or now - began > _FRESH_S or _is_lost(task):
            self._looks = {k: one for k, one in self._looks.items() if now - one[0] <= _FRESH_S}
            task = asyncio.ensure_future(look())
            self._looks[key] = (now, task)
        return await asyncio.shield(task)  # whoever gives up does not end it for the others


def _is_lost(task: "asyncio.Task[T]") -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


@dataclass(slots=True)
class AccessRights:
    """Says what principals may do; one for each process."""

    _table: ParameterTable | None = None
    _kept: dict[Hashable, Rights] = field(default_factory=dict)
    _related: Joined[frozenset[str]] = field(default_factory=Joined)

    async def __call__(self, principal: Principal, context: Context) -> Rights:
        """Return all that ``principal`` may do, as of a second ago at most."""
        demanding = context.settings.care_relationship
        related: frozenset[str] = frozenset()
        if demanding and not set(demanding).isdisjoint(principal.roles):
            who = principal.fhir_user
            related = await self._related.get(who, partial(patients_of, who, context))
            related |= {f"Patient/{one}" for one in await opened(principal, context)}
        found = self._fixed(principal, related, context)
        return await subtracted(found, principal, context)

    def _fixed(self, principal: Principal, related: frozenset[str], context: Context) -> Rights:
        """Return what follows from the principal, by the search parameters as they are now."""
        if self._table is not context.parameters:
            self._table = context.parameters
            self._kept.clear()
        one = principal
        key = (one.key, one.scopes, one.roles, one.fhir_user, one.purpose, related)
        kept = self._kept.get(key)
        if kept is None:
            kept = rights(principal, known(principal, related, context))
            if len(self._kept) >= _KEPT_MAX:
                self._kept.clear()
            self._kept[key] = kept
        return kept


def known(principal: Principal, related: frozenset[str], context: Context) -> Known:
    """Return what the rights of ``principal`` are computed from."""
    constraints = {
        scope.text: constraint
        for scope in principal.scopes
        if scope.parameters and (constraint := constraint_of(scope, context.parameters)) is not None
    }
    return Known(
        context.definitions.resource_types,
        frozenset(context.parameters.compartment_types("Patient")),
        constraints,
        frozenset(context.settings.care_relationship),
        related,
    )


def is_possible(scope: Scope, table: ParameterTable) -> bool:
    """Whether ``scope`` may be granted at all: there is the type, and its parameters are a
    condition on one resource. A condition on every type would be on what most of them lack."""
    if scope.type != EVERY_TYPE and scope.type not in table.types:
        return False
    return not scope.parameters or constraint_of(scope, table) is not None


def constraint_of(scope: Scope, table: ParameterTable) -> Filter | None:
    """Return the predicate of a resource of the scope's type that meets its parameters; ``None``
    where they are no condition on one resource: then nothing is granted by the scope.

    What a search by the same parameters finds, that may be accessed. Not possible are parameters
    that need another resource (chains, ``_has``, value sets), the shape of a result, times that
    depend on now, and what is not yet indexed.
    """
    if scope.type == EVERY_TYPE or scope.type not in table.types:
        return None
    try:
        found, later = (_parsed(scope, table, moment) for moment in (_TODAY, _TOMORROW))
        filter = plan(found, table).filter if _is_condition(found, scope) else None
        if filter is None or filter != plan(later, table).filter or not is_known(filter):
            return None
    except FhirError:
        return None
    return both(filter, _PRESENT)


def _parsed(scope: Scope, table: ParameterTable, now: datetime) -> SearchQuery:
    return parse(scope.type, scope.parameters, table, count_default=1, given=Given(now))


def _is_condition(query: SearchQuery, scope: Scope) -> bool:
    """Whether all parameters of ``scope``, as ``query`` reads them, are about single resources,
    each by itself. One without a value is no search, and would be no condition."""
    names = {name.partition(":")[0] for name, _ in scope.parameters}
    others = {name for name in names if name.startswith("_")} - {*_OF_THE_RESOURCE}
    is_complete = len(query.filters) == len(query.understood) == len(scope.parameters)
    return is_complete and not (others or query.joins or query.wanted)
