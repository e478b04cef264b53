"""ARCHITECTURE.md, section 16.1: what is stored."""

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from bson import Decimal128
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fhir_server.app import Server
from fhir_server.messages import Request
from fhir_server.outcome import FhirError
from fhir_server.r4.json import decode, encode
from fhir_server.search.index import Indexed
from fhir_server.store import documents
from fhir_server.store.changes import Change
from tests.conftest import Fhir
from tests.validation.test_examples import REFUSED, name_of

NOW = datetime(2024, 2, 29, 12, 0, 0, 123456, tzinfo=UTC)
NOTHING = Indexed({}, (), ())


def as_text(value: Any) -> Any:
    """Return ``value`` with every number as its kind and digits, however it is stored."""
    match value:
        case dict():
            return {name: as_text(member) for name, member in value.items()}
        case list():
            return [as_text(one) for one in value]
        case Decimal128():
            return value.to_decimal().as_tuple()
        case Decimal():
            return value.as_tuple()
        case bool() | None | str():
            return value
        case int():
            return Decimal(value).as_tuple()
    raise AssertionError(f"{type(value)} does not come from JSON")


def test_times_are_whole_milliseconds_in_utc() -> None:
    """An instant has three digits and a Z, whatever the zone and the microseconds were."""
    moment = documents.next_moment(NOW, None)
    elsewhere = NOW.astimezone(tz=None)

    assert documents.instant(moment) == "2024-02-29T12:00:00.123Z"
    assert documents.next_moment(elsewhere, None) == moment


# Previous version's time -> the time of the next one.
MOMENTS = {
    "long ago": (NOW - timedelta(days=1), "2024-02-29T12:00:00.123Z"),
    "the same millisecond": (NOW.replace(microsecond=123000), "2024-02-29T12:00:00.124Z"),
    "later": (NOW + timedelta(seconds=1, microseconds=-456), "2024-02-29T12:00:01.124Z"),
}


@pytest.mark.parametrize(("previous", "expected"), MOMENTS.values(), ids=MOMENTS)
def test_a_version_is_later_than_the_one_before(previous: datetime, expected: str) -> None:
    """The time of a version is now, but a millisecond after the version before at least."""
    assert documents.instant(documents.next_moment(NOW, previous)) == expected


def test_a_resource_is_stamped_and_otherwise_the_same() -> None:
    """Id, version and time are ours; other members of meta and everything else are kept."""
    sent = {
        "active": True,
        "meta": {"versionId": "7", "tag": [{"code": "x"}], "lastUpdated": "1999"},
        "resourceType": "Patient",
        "id": "other",
    }
    before = json.dumps(sent)
    got = documents.stamped(sent, "p", 3, NOW)

    assert got == {
        "resourceType": "Patient",
        "id": "p",
        "meta": {
            "versionId": "3",
            "tag": [{"code": "x"}],
            "lastUpdated": "2024-02-29T12:00:00.123Z",
        },
        "active": True,
    }
    assert list(got)[:3] == ["resourceType", "id", "meta"]
    assert json.dumps(sent) == before


def test_a_resource_over_the_limit_is_refused() -> None:
    """At the limit it is stored; one byte more is ``too-long``, before MongoDB sees it."""
    resource = documents.stamped({"resourceType": "Patient"}, "p", 1, NOW)
    size = len(encode(resource))
    documents.document(resource, NOTHING, interaction="create", bytes_max=size)

    with pytest.raises(FhirError) as refused:
        documents.document(resource, NOTHING, interaction="create", bytes_max=size - 1)

    assert refused.value.status == 413


async def test_the_largest_resource_fits_into_a_document(server: Server, fhir: Fhir) -> None:
    """A resource at the default limit is stored, natively and as text, and served again."""
    limit = server.context.settings.resource_bytes_max
    part = {"text": "x" * 1000}
    count = (limit - 2000) // (len(encode(part)) + 1)
    resource: dict[str, Any] = {"resourceType": "Basic", "id": "b", "code": {"text": "x"}}
    resource["extension"] = [
        {"url": "http://a.org/x", "valueAnnotation": part}
        for _ in range(count * 2 // 3 * 95 // 100)
    ]
    written = await fhir(Request("update", "Basic", "b", body=resource))

    assert written.status == 201
    assert len(written.body) > limit // 2
    assert (await fhir(Request("read", "Basic", "b"))).body == written.body


async def test_native_form_and_bytes_agree_on_every_example(server: Server, shared: Path) -> None:
    """What aggregations read and what clients get is one resource, digit for digit."""
    file = shared / "examples/examples-702.ndjson.gz"
    examples = [decode(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    valid = [one for one in examples if name_of(one) not in REFUSED]
    store = server.context.store
    for start in range(0, len(valid), 100):
        await store.write(
            [Change("update", r["resourceType"], r["id"], r) for r in valid[start : start + 100]],
            NOW,
        )
    seen = 0
    for type in {one["resourceType"] for one in valid}:
        for document in await server.database[type].find().to_list():
            resource = document["resource"]
            assert as_text(resource) == as_text(decode(document["json"])), document["_id"]
            assert resource["id"] == document["_id"]
            assert resource["meta"]["versionId"] == str(document["version"])
            assert resource["meta"]["lastUpdated"] == documents.instant(document["last_updated"])
            seen += 1

    assert seen == len(valid)


DIGITS = st.from_regex(r"\A-?(0|[1-9][0-9]{0,15})(\.[0-9]{1,16})?([eE][+-]?[0-9]{1,3})?\Z")


@hypothesis_settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(DIGITS, min_size=1, max_size=20))
async def test_decimals_keep_their_digits(
    the_server: Callable[[], Server], texts: list[str]
) -> None:
    """Any number a client can write comes back as the same text, and is that number natively."""
    server = the_server()
    members = ",".join(f'{{"url":"http://a.org/x","valueDecimal":{text}}}' for text in texts)
    body = f'{{"resourceType":"Basic","id":"b","code":{{"text":"x"}},"extension":[{members}]}}'
    resource = decode(body.encode())
    [stored] = await server.context.store.write([Change("update", "Basic", "b", resource)], NOW)
    document = await server.database["Basic"].find_one({"_id": "b"})
    assert document is not None
    native = [one["valueDecimal"] for one in document["resource"]["extension"]]
    served = json.loads(stored.json, parse_float=str, parse_int=str)["extension"]

    assert [one["valueDecimal"] for one in served] == texts
    assert [Decimal(str(one)).as_tuple() for one in native] == [
        Decimal(text).as_tuple() for text in texts
    ]


async def test_what_stands_beside_a_resource(server: Server) -> None:
    """A document has exactly the fields of the table; so has a historical one, and a tombstone."""
    store = server.context.store
    resource = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"text": "x"},
        "subject": {"reference": "Patient/1"},
        "meta": {"security": [{"system": "http://a.org", "code": "R"}]},
    }
    await store.write([Change("update", "Observation", "o", resource)], NOW)
    current = await server.database["Observation"].find_one({"_id": "o"})
    await store.write([Change("delete", "Observation", "o")], NOW)
    gone = await server.database["Observation"].find_one({"_id": "o"})
    [earlier] = await server.database["Observation_history"].find().to_list()
    assert current is not None
    assert gone is not None

    assert set(current) == {
        *("_id", "version", "last_updated", "interaction", "resource", "json"),
        *("keys", "compartments", "labels"),
    }
    assert current["compartments"] == gone["compartments"] == ["Patient/1"]
    assert current["labels"] == gone["labels"] == ["http://a.org|R"]
    assert gone["deleted"] is True
    assert not {"resource", "json", "keys"} & set(gone)
    assert earlier["_id"] == {"id": "o", "version": 1}
    assert earlier["until"] == gone["last_updated"]
    assert earlier["json"] == current["json"]
    assert not {"resource", "keys"} & set(earlier)


# Filter -> whether a deletion, which has no keys, can meet it.
MET_BY_A_DELETION: list[tuple[dict[str, Any], bool]] = [
    ({}, True),
    ({"_id": "a"}, True),
    ({"compartments": "Patient/1"}, True),
    ({"keys.code": "a"}, False),
    ({"keys.code": None}, True),
    ({"keys.code": {"$in": ["a"]}}, False),
    ({"keys.code": {"$in": ["a", None]}}, True),
    ({"keys.code": {"$exists": True}}, False),
    ({"keys.code": {"$exists": False}}, True),
    ({"keys.code": {"$not": {"$gt": "a"}}}, True),
    ({"keys.code": {"$elemMatch": {"$gte": "a"}}}, False),
    ({"$nor": [{"keys.code": "a"}]}, True),
    ({"$or": [{"keys.code": "a"}, {"_id": "b"}]}, True),
    ({"$or": [{"keys.code": "a"}, {"keys.date.l": {"$gt": NOW}}]}, False),
    ({"$and": [{"_id": "a"}, {"keys.code": "a"}]}, False),
    ({"_id": "a", "$and": [{"$nor": [{"keys.code": "a"}]}]}, True),
]


@pytest.mark.parametrize(("filter", "met"), MET_BY_A_DELETION)
def test_what_a_deletion_can_meet_says_that_it_wants_none(
    filter: dict[str, Any], met: bool
) -> None:
    """The condition is there where it is needed; elsewhere it would have every match looked at."""
    found = documents.of_present(filter)

    assert (documents.PRESENT in (found, *found.get("$and", ()))) is met
    assert found == filter or met
