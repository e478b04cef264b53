"""https://www.mongodb.com/docs/manual/reference/operator/query/

What may be written is judged before it is written: by the verdict that MongoDB would give.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from bson import Decimal128

from fhir_server.app import Server
from fhir_server.interactions.access import constraint_of, is_possible
from fhir_server.r4.json import decode, encode
from fhir_server.search.index import index
from fhir_server.search.parameters import ParameterTable
from fhir_server.security.plan import Filter
from fhir_server.security.predicates import UnknownOperator, allows, is_known
from fhir_server.security.scopes import Scope, scope_of, scope_text
from fhir_server.store.client import Database
from fhir_server.store.documents import document, stamped
from tests.conformance.synthetic import Filled, resources

_COMPARED = ("gt", "lt", "ge", "le", "sa", "eb", "ne")
_NOW = datetime(2026, 1, 1, tzinfo=UTC)
# Of some 40,000; enough that each operator of each kind of parameter is among them.
_EVERY = 24
_AT_ONCE = 50


def _scope(type: str, *parameters: tuple[str, str]) -> Scope:
    return scope_of(scope_text("user", type, "cruds", parameters)) or pytest.fail(str(parameters))


def _asked(one: Filled) -> Iterator[tuple[str, str]]:
    """Yield parameters that a scope may have, about what ``one`` is filled with."""
    code, kind, value = one.definition["code"], one.definition["type"], one.value
    yield code, value
    yield f"{code}:missing", "true"
    if kind in ("token", "composite"):
        yield code, f"z{value}"
    if kind == "token":
        yield f"{code}:not", value
        yield code, f"{value.rpartition('|')[0] or 'urn:a'}|"
    if kind in ("date", "number", "quantity"):
        yield from ((code, f"{prefix}{value}") for prefix in _COMPARED)
    if kind == "string":
        yield f"{code}:contains", value[1:3] or value
        yield f"{code}:exact", value


def _documents(table: ParameterTable) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in resources():
        resource = decode(encode(one.resource))
        complete = stamped(resource, f"{len(found[resource['resourceType']])}", 1, _NOW)
        made = document(
            complete, index(complete, table), interaction="create", bytes_max=10_000_000
        )
        found[resource["resourceType"]].append(made)
    return found


@dataclass(frozen=True, slots=True)
class Judged:
    """Documents as they are before they are written, and as they come back."""

    database: Database
    new: list[dict[str, Any]]
    stored: list[dict[str, Any]]

    @classmethod
    async def of(cls, database: Database, documents: list[dict[str, Any]]) -> "Judged":
        """Write ``documents`` in the place of those before."""
        await database["judged"].delete_many({})
        await database["judged"].insert_many([{**one} for one in documents])
        return cls(database, documents, await database["judged"].find({}).to_list())

    async def differing(self, filters: Sequence[Filter]) -> list[tuple[Filter, set[str]]]:
        """Return on which documents MongoDB and we are not of one mind, by filter."""
        found = []
        for start in range(0, len(filters), _AT_ONCE):
            some = filters[start : start + _AT_ONCE]
            facets = {
                f"f{n}": [{"$match": one}, {"$project": {"_id": 1}}] for n, one in enumerate(some)
            }
            cursor = await self.database["judged"].aggregate([{"$facet": facets}])
            [answer] = await cursor.to_list()
            for n, one in enumerate(some):
                right = {row["_id"] for row in answer[f"f{n}"]}
                differing = self._judged(one, self.new) ^ right
                differing |= self._judged(one, self.stored) ^ right
                if differing:
                    found.append((one, differing))
        return found

    @staticmethod
    def _judged(filter: Filter, documents: list[dict[str, Any]]) -> set[str]:
        return {one["_id"] for one in documents if allows(filter, one)}


@pytest.mark.slow
async def test_the_verdict_on_each_search_parameter_is_that_of_mongodb(server: Server) -> None:
    """For scopes with each parameter, in many forms, new and stored documents are judged alike."""
    table = server.context.parameters
    made: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for one in resources():
        made[one.resource["resourceType"]].update(_asked(one))
    count = 0
    refused: set[tuple[str, str, str]] = set()
    for type, documents in _documents(table).items():
        judged = await Judged.of(server.database, documents)
        filters = []
        for pair in sorted(made[type])[:: _EVERY if type != "Observation" else 1]:
            filter = constraint_of(_scope(type, pair), table)
            if filter is None:
                refused.add((type, *pair))
            else:
                filters.append(filter)
        count += len(filters)
        assert await judged.differing(filters) == []
    assert count > 700
    assert [one for one in refused if not _is_refused_by_search(one, table)] == []


def _is_refused_by_search(asked: tuple[str, str, str], table: ParameterTable) -> bool:
    """Whether it is a place, or no search has such a value or modifier."""
    type, name, value = asked
    kind = table.of(type)[name.partition(":")[0]].type
    return kind == "special" or (kind, name[-8:]) == ("composite", ":missing") or value[-1] == "|"


_MOMENT = datetime(2026, 1, 1, 12, 0, 0, 123_456, tzinfo=UTC)
DOCUMENTS: list[dict[str, Any]] = [
    {"_id": "number", "a": 1},
    {"_id": "decimal", "a": Decimal("1.0")},
    {"_id": "decimal128", "a": Decimal128("2.50")},
    {"_id": "boolean", "a": True},
    {"_id": "text", "a": "1"},
    {"_id": "null", "a": None},
    {"_id": "missing"},
    {"_id": "empty", "a": []},
    {"_id": "list", "a": [1, "b", 5]},
    {"_id": "list of lists", "a": [[1, 2], [3]]},
    {"_id": "moment", "a": _MOMENT},
    {"_id": "objects", "a": [{"l": 1, "h": 2}, {"l": 5, "h": 9}]},
    {"_id": "object", "a": {"l": 1, "h": 9}},
    {"_id": "letters", "a": ["ä", "z", "\U0001f600", "a\nb"]},
]
FILTERS: list[Filter] = [
    {},
    {"_id": {"$in": []}},
    {"a": 1},
    {"a": True},
    {"a": "1"},
    {"a": _MOMENT},
    {"a": {"$gte": _MOMENT}},
    {"a": {"$gt": 0}},
    {"a": {"$gt": 1, "$lt": 5}},
    {"a": {"$gt": Decimal("2")}},
    {"a": {"$lte": 2.5}},
    {"a": {"$elemMatch": {"$gt": 1, "$lt": 5}}},
    {"a": {"$elemMatch": {"$gte": 1, "$lt": 5}}},
    {"a": {"$elemMatch": {"l": {"$gte": 1}, "h": {"$gt": 8}}}},
    {"a": {"$elemMatch": {"l": 1, "$or": [{"h": 2}, {"h": 3}]}}},
    {"a.l": {"$gte": 1}, "a.h": {"$gt": 8}},
    {"a": {"$ne": 1}},
    {"a": {"$nin": [1, "b", None]}},
    {"a": {"$nin": [1, "b"]}},
    {"a": {"$in": ["1", "b"]}},
    {"a": {"$exists": True}},
    {"a": {"$exists": False}},
    {"a.l": {"$exists": True}},
    {"a": {"$not": {"$gt": 1}}},
    {"a": {"$not": {"$elemMatch": {"$gte": "a", "$lt": "{"}}}},
    {"a": {"$regex": "^[^\x1f]*z"}},
    {"a": {"$regex": "^a[^x]b"}},
    {"a": {"$gte": "z", "$lt": "z\U0010ffff"}},
    {"a": {"$gt": "\uffff"}},
    {"$nor": [{"a": {"$gt": 1}}, {"a": "b"}]},
    {"$and": [{"a": 1}, {"$or": [{"a": "b"}, {"_id": "number"}]}]},
]


async def test_the_verdict_on_odd_values_is_that_of_mongodb(server: Server) -> None:
    """Kinds of values do not compare; lists are their items and themselves."""
    judged = await Judged.of(server.database, DOCUMENTS)

    assert await judged.differing(FILTERS) == []
    assert [one for one in FILTERS if not is_known(one)] == [{"a": {"$nin": [1, "b", None]}}]


UNKNOWN: list[Filter] = [
    {"$where": "1"},
    {"$expr": {"$eq": ["$a", 1]}},
    {"a": {"$geoWithin": {"$centerSphere": [[0, 0], 1]}}},
    {"a": {"$regex": "a", "$options": "i"}},
    {"a": {"$not": {"$size": 1}}},
    {"a": {"$elemMatch": {"b": {"$type": 2}}}},
    {"a": None},
    {"a": {"$in": [None]}},
    {"$and": [{"a": 1}, {"a": {"$mod": [2, 0]}}]},
]


@pytest.mark.parametrize("filter", UNKNOWN, ids=str)
def test_what_is_not_judged_is_not_known(filter: Filter) -> None:
    """A predicate of another make is not granted; if it came here, that would be a fault."""
    assert not is_known(filter)


def test_an_unknown_operator_is_no_verdict() -> None:
    """Neither yes nor no: in a negation, no would be yes."""
    with pytest.raises(UnknownOperator):
        allows({"$nor": [{"a": {"$size": 1}}]}, {"a": [1]})


# What cannot be a condition on one resource -> why.
IMPOSSIBLE = {
    ("Observation", "subject:Patient.name=x"): "a chain",
    ("Observation", "subject.name=x"): "a chain",
    ("Patient", "_has:Observation:patient:code=x"): "another resource",
    ("Observation", "_sort=date"): "the shape of a result",
    ("Observation", "_count=1"): "the shape of a result",
    ("Observation", "_include=Observation:subject"): "the shape of a result",
    ("Observation", "_id=a&_summary=true"): "the shape of a result",
    ("Observation", "code:in=http://loinc.org/vs"): "a value set",
    ("Observation", "date=ap2020-01-01"): "depends on now",
    ("Observation", "nonsense=x"): "unknown",
    ("Observation", "category="): "says nothing",
    ("Observation", "category=a&code="): "says nothing",
    ("Observation", "_text=x"): "words",
    ("Patient", "_list=1"): "another resource",
    ("Patient", "_query=match"): "named query",
    ("Patient", "_filter=name eq x"): "its own grammar",
    ("Location", "near=1|1"): "a place, which only the database judges",
    ("Nonsense", "_id=1"): "no type",
    ("*", "_id=1"): "every type",
}


@pytest.mark.parametrize(("type", "query"), IMPOSSIBLE, ids=str)
def test_what_cannot_be_a_condition_is_not_granted(empty: Server, type: str, query: str) -> None:
    """Chains, results, value sets and times that move are no conditions on one resource."""
    scope = scope_of(f"user/{type}.rs?{query.replace(' ', '%20')}")

    assert scope is not None
    assert not is_possible(scope, empty.context.parameters)


POSSIBLE = (
    (
        "Observation",
        "category=http://terminology.hl7.org/CodeSystem/observation-category|vital-signs",
    ),
    ("Observation", "code=a,b&status:not=cancelled"),
    ("Patient", "_security=R"),
    ("Patient", "_id=1,2"),
    ("Condition", "clinical-status:missing=true"),
    ("Encounter", "date=ge2020"),
)


@pytest.mark.parametrize(("type", "query"), POSSIBLE, ids=str)
def test_what_can_be_a_condition_may_be_granted(empty: Server, type: str, query: str) -> None:
    """What is said of one resource by itself is a condition."""
    scope = scope_of(f"user/{type}.rs?{query}")

    assert scope is not None
    assert is_possible(scope, empty.context.parameters)


def test_a_condition_is_met_by_nothing_that_was_deleted(empty: Server) -> None:
    """A deletion has no keys: a negation would show who is not there any more."""
    scope = scope_of("user/Observation.rs?status:not=final")
    assert scope is not None
    filter = constraint_of(scope, empty.context.parameters)

    assert filter is not None
    assert allows(filter, {"_id": "1", "keys": {"status": "cancelled\x1f"}})
    assert not allows(filter, {"_id": "1", "deleted": True})
