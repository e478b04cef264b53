"""What a server does that forgets the predicate in one place: each must be seen by two worlds.

A mutant is a row of the table in section 3.2 of design/security.md, what is forgotten, and requests
that show it. Without the mutant they are answered alike.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any, NamedTuple

import pytest

from fhir_server.interactions.admitting import as_server
from fhir_server.interactions.matching import matches
from fhir_server.messages import Response
from fhir_server.outcome import FhirError, Issue
from fhir_server.security.principal import SERVER, Principal
from fhir_server.store import (
    access,
    changes,
    distinct,
    fetch,
    joins,
    kin,
    resources,
    versions,
)
from fhir_server.store import search as searching
from fhir_server.store.access import Visible, VisibleCollection
from fhir_server.store.changes import Judge
from fhir_server.store.fetch import Fetch
from fhir_server.store.includes import Gathering
from fhir_server.store.integrity import Integrity
from fhir_server.store.joins import Bounds, Joins
from fhir_server.store.versions import Sight
from tests.security.two_worlds.calls import CLAIMED, bundle, observation, sent
from tests.security.two_worlds.worlds import Call

Patch = pytest.MonkeyPatch

# The package has functions of these names.
asking, conditional, search_type, transaction = (
    import_module(f"fhir_server.interactions.{name}")
    for name in ("asking", "conditional", "search_type", "transaction")
)


class Mutant(NamedTuple):
    """A row of the table, what is forgotten, and the requests that show it."""

    row: str
    apply: Callable[[Patch], None]
    calls: Sequence[Call]


def _get(path: str, query: str = "", asker: str = "broad") -> Call:
    return Call("", "GET", path, query, asker=asker)


def _whole(database: Any) -> Any:
    return database.whole if isinstance(database, Visible) else database


def read_by_id(patch: Patch) -> None:
    one = Fetch.one
    patch.setattr(Fetch, "one", lambda self, type, id, plan=None: one(self, type, id))


def deletion(patch: Patch) -> None:
    def or_deleted(predicate: Any, filter: Any) -> Any:
        return access.among({"$or": [predicate, {"deleted": True}]} if predicate else {}, filter)

    patch.setattr(fetch, "among", or_deleted)


def deletion_by_keys(patch: Patch) -> None:
    patch.setattr(Sight, "shows", lambda self, version: True)


def version_itself(patch: Patch) -> None:
    patch.setattr(versions, "of_version", lambda predicate: {})


def current_version(patch: Patch) -> None:
    current = versions._current
    patch.setattr(versions, "_current", lambda type, stages: current(type, stages[1:]))


def all_versions(patch: Patch) -> None:
    patch.setattr(
        access, "Versions", lambda whole, type, sight: VisibleCollection(_All(whole), "_", {})
    )


class _All(Visible):
    def __init__(self, whole: Any) -> None:
        object.__setattr__(self, "whole", {"_": whole})


def found(patch: Patch) -> None:
    patch.setattr(
        VisibleCollection,
        "find",
        lambda self, filter=None, *args, **more: self._whole.find(filter or {}, *args, **more),
    )


def counted(patch: Patch) -> None:
    async def count(self: VisibleCollection, filter: Any, **options: Any) -> int:
        return int(await self._whole.count_documents(filter, **options))

    patch.setattr(VisibleCollection, "count_documents", count)


def estimated(patch: Patch) -> None:
    async def estimate(self: VisibleCollection) -> int:
        return int(await self._whole.estimated_document_count())

    patch.setattr(VisibleCollection, "estimated_document_count", estimate)


def computed(patch: Patch) -> None:
    async def aggregate(self: VisibleCollection, pipeline: Any, **options: Any) -> Any:
        return await self._whole.aggregate(list(pipeline), **options)

    patch.setattr(VisibleCollection, "aggregate", aggregate)


def chain_listed(patch: Patch) -> None:
    made = Joins.__init__

    def begin(self: Joins, database: Any, *more: Any) -> None:
        made(self, _whole(database), *more)

    patch.setattr(Joins, "__init__", begin)
    for name in ("ONE_PAGE", "FEW"):
        patch.setattr(joins, name, joins.MANY)


def chain_looked_up(patch: Patch) -> None:
    for name in ("ONE_PAGE", "FEW", "MANY"):
        patch.setattr(joins, name, Bounds(0, 0))
    patch.setattr(joins, "CANDIDATES_FEW", 0)
    patch.setattr(Visible, "stage", lambda self, stage: stage)


def listed(patch: Patch) -> None:
    patch.setattr(asking, "CONFORMANCE", frozenset(("List",)))


def above(patch: Patch) -> None:
    patch.setattr(resources, "kin", lambda database, *more: kin.kin(_whole(database), *more))


def along(patch: Patch) -> None:
    def gathering(database: Any, *more: Any) -> Gathering:
        return Gathering(_whole(database), *more)

    patch.setattr(searching, "Gathering", gathering)


def matched(patch: Patch) -> None:
    async def match(criteria: Any, context: Any, most: int = 1) -> Any:
        return await matches(criteria, as_server(context), most)

    patch.setattr(conditional, "matches", match)


def in_transaction(patch: Patch) -> None:
    inside = resources.ResourceStore.in_transaction
    patch.setattr(
        resources.ResourceStore,
        "in_transaction",
        lambda self, *args, **more: inside(self.as_server, *args, **more),
    )


def referred_to(patch: Patch) -> None:
    there = Integrity._there

    async def anybodys(
        self: Integrity, type: Any, ids: Any, owed: Any, _: Any, session: Any
    ) -> Any:
        return await there(self, type, ids, owed, None, session)

    patch.setattr(Integrity, "_there", anybodys)


def judged(patch: Patch) -> None:
    patch.setattr(changes, "allows", lambda predicate, document: True)


def chosen_id(patch: Patch) -> None:
    kept = Judge.judged

    def judge(self: Judge, change: Any, before: Any, *more: Any) -> Any:
        if before is None and change.interaction == "update":
            return kept(self, replace(change, access=None), before, *more)
        return kept(self, change, before, *more)

    patch.setattr(Judge, "judged", judge)


def claim_told(patch: Patch) -> None:
    seen = resources.ResourceStore.seen_claims

    async def told(self: Any, names: Sequence[str]) -> Any:
        found = await seen(self, names)
        if any(found.values()):
            raise FhirError(Issue("conflict", "Somebody has created it."))
        return found

    patch.setattr(resources.ResourceStore, "seen_claims", told)


def entry(patch: Patch) -> None:
    async def read(one: Any, context: Any) -> Response:
        whole = replace(context, principal=SERVER, store=context.store.as_server)
        response: Response = await context.perform(one.request, whole)
        return response

    patch.setattr(transaction, "_read", read)


def key_of_all(patch: Patch) -> None:
    patch.setattr(Principal, "key", property(lambda self: ""))


def explained(patch: Patch) -> None:
    patch.setattr(search_type, "may_explain", lambda context: True)
    patch.setattr(resources.ResourceStore, "explains", property(lambda self: True))
    patch.setattr(access, "_OPEN", frozenset((*access._OPEN, "command")))


def in_use(patch: Patch) -> None:
    patch.setattr(
        resources, "distinct", lambda database, *more: distinct.distinct(_whole(database), *more)
    )


def validated(patch: Patch) -> None:
    check = Integrity.check_one
    patch.setattr(
        Integrity, "check_one", lambda self, type, id, body, plan: check(self, type, id, body, None)
    )


_B = {"derivedFrom": [{"reference": "Observation/observation-b"}]}
_JSON_PATCH = {"content-type": "application/json-patch+json"}
_SUBJECT = {"reference": "Patient/b"}
_KEY = {"idempotency-key": '"one-key"'}
_AMEND = [{"op": "replace", "path": "/status", "value": "amended"}]

MUTANTS: Mapping[str, Mutant] = {
    "read by id": Mutant("by id", read_by_id, [_get("Observation/observation-b")]),
    "deletion": Mutant("versions", deletion, [_get("Condition/gone-b")]),
    "keys of a deletion": Mutant(
        "versions", deletion_by_keys, [_get("Condition/gone-b", asker="by-keys")]
    ),
    "keys of a version": Mutant(
        "versions",
        deletion_by_keys,
        [_get("Observation/moved/_history/1", asker="by-keys")],
    ),
    "version itself": Mutant("versions", version_itself, [_get("Observation/moved/_history/1")]),
    "current version": Mutant("versions", current_version, [_get("Observation/_history")]),
    "history of all": Mutant("versions", all_versions, [_get("_history", "_count=200")]),
    "history of a type": Mutant("versions", all_versions, [_get("Observation/_history")]),
    "included version": Mutant(
        "included",
        version_itself,
        [_get("Observation", "_id=refers&_include=Observation:derived-from")],
    ),
    "matches": Mutant("search", found, [_get("Observation", "code=shared")]),
    "accurate total": Mutant(
        "search", counted, [_get("Observation", "code=shared&_summary=count")]
    ),
    "total of a type": Mutant("search", counted, [_get("Observation", "_total=accurate")]),
    "estimated total": Mutant("search", estimated, [_get("Observation", "_total=estimate")]),
    "sorted by two keys": Mutant("search", computed, [_get("Observation", "_sort=code,date")]),
    "contained": Mutant(
        "search",
        found,
        [_get("Patient", "_contained=true&family=Inner")],
    ),
    "several types": Mutant("search", found, [_get("", "_type=Observation,Patient&_sort=_id")]),
    "compartment": Mutant("search", found, [_get("Patient/b/Observation")]),
    "chain": Mutant(
        "linked",
        chain_listed,
        [_get("Observation", "_id=refers&derived-from:Observation.code=only-b")],
    ),
    "chain, looked up": Mutant(
        "linked",
        chain_looked_up,
        [_get("Observation", "_id=refers-b&derived-from:Observation.code=shared")],
    ),
    "_has": Mutant(
        "linked",
        chain_listed,
        [_get("Practitioner", "_has:Encounter:practitioner:identifier=mrn-b")],
    ),
    "_has, looked up": Mutant(
        "linked",
        chain_looked_up,
        [_get("Practitioner", "_has:Encounter:practitioner:status=shared")],
    ),
    "_filter": Mutant(
        "linked",
        chain_listed,
        [_get("Observation", "_filter=derived-from:Observation.code%20eq%20only-b")],
    ),
    "_list": Mutant("linked", listed, [_get("Observation", "_list=list-b")]),
    "hierarchy": Mutant("linked", above, [_get("Location", "partof:below=Location/shared")]),
    "_include": Mutant(
        "included", along, [_get("Observation", "_id=refers&_include=Observation:derived-from")]
    ),
    "_revinclude": Mutant(
        "included", along, [_get("Practitioner", "_revinclude=Encounter:practitioner")]
    ),
    "If-None-Exist": Mutant(
        "conditional",
        matched,
        [sent("POST", "Observation", observation(), {"if-none-exist": "identifier=mrn-b"})],
    ),
    "conditional patch": Mutant(
        "conditional",
        matched,
        [sent("PATCH", "Observation?identifier=mrn-b", _AMEND, _JSON_PATCH)],
    ),
    "update in a transaction": Mutant(
        "writes",
        in_transaction,
        [
            sent(
                "POST",
                "",
                bundle(
                    "transaction",
                    [
                        ("PUT", "Observation/observation-b", observation(id="observation-b")),
                        ("GET", "Patient/a", None),
                    ],
                ),
            )
        ],
    ),
    "reference": Mutant(
        "references", referred_to, [sent("POST", "Observation", observation(**_B))]
    ),
    "reference, validated": Mutant(
        "references",
        validated,
        [sent("POST", "Observation/$validate?mode=create", observation(**_B))],
    ),
    "patch": Mutant(
        "writes", judged, [sent("PATCH", "Observation/observation-b", _AMEND, _JSON_PATCH)]
    ),
    "update": Mutant(
        "writes",
        judged,
        [sent("PUT", "Observation/observation-b", observation(id="observation-b"))],
    ),
    "If-Match": Mutant(
        "writes",
        judged,
        [sent("DELETE", "Observation/observation-b", None, {"if-match": 'W/"1"'})],
    ),
    "id": Mutant(
        "ids",
        chosen_id,
        [sent("PUT", "Observation/observation-b", observation(id="observation-b"))],
    ),
    "claim": Mutant("claims", claim_told, [sent("POST", "Observation", observation(), CLAIMED)]),
    "entry of a batch": Mutant(
        "bundles",
        entry,
        [sent("POST", "", bundle("batch", [("GET", "Observation/observation-b", None)]))],
    ),
    "entry of a transaction": Mutant(
        "bundles",
        entry,
        [sent("POST", "", bundle("transaction", [("GET", "Observation?_sort=_id", None)]))],
    ),
    "key": Mutant(
        "keys",
        key_of_all,
        [
            sent("POST", "Observation", observation(subject=_SUBJECT), _KEY, "other"),
            sent("POST", "Observation", observation(), _KEY),
        ],
    ),
    "explanation": Mutant("operations", explained, [_get("Observation", "_explain=true")]),
    "tags in use": Mutant("operations", in_use, [_get("Location/$meta")]),
}
