"""https://datatracker.ietf.org/doc/html/draft-ietf-httpapi-idempotency-key-header"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fhir_server.app import Server, opened
from fhir_server.context import Context
from fhir_server.dispatch import answer
from fhir_server.interactions.idempotency import once
from fhir_server.messages import Request, Response
from fhir_server.settings import Settings
from fhir_server.store import answers, writer
from tests.conftest import Fhir
from tests.interactions.asking import (
    BASE,
    bundle,
    entry,
    issues_of,
    json_of,
    patient,
    places,
    put,
    read,
    statuses,
    versions,
    with_clock,
)

KEY = "8e03978e-40d5-43dd-bc93-6894a57f9324"


def create(key: str | None = KEY, **members: Any) -> Request:
    """Return the create of a Patient under ``key``; ``members`` are further elements."""
    body = {"resourceType": "Patient", **members}
    return Request("create", "Patient", body=body, base_url=BASE, idempotency_key=key)


def patch(name: str) -> Request:
    """Return the conditional patch that adds a name."""
    asked = (("identifier", "1"),)
    body = {
        "resourceType": "Parameters",
        "parameter": [
            {
                "name": "operation",
                "part": [
                    {"name": "type", "valueCode": "add"},
                    {"name": "path", "valueString": "Patient"},
                    {"name": "name", "valueString": "name"},
                    {"name": "value", "valueHumanName": {"text": name}},
                ],
            }
        ],
    }
    return Request("conditional-patch", "Patient", body=body, parameters=asked, base_url=BASE)


async def count(fhir: Fhir, type: str = "Patient") -> int:
    """Return how many resources of ``type`` there are."""
    asked = (("_summary", "count"),)
    total: int = json_of(await fhir(Request("search-type", type, parameters=asked)))["total"]
    return total


def told(response: Response) -> tuple[object, ...]:
    """Return what a client is told, but for the header that says that it is told again."""
    return (
        *(response.status, response.body, response.version),
        *(response.last_updated, response.location),
    )


def again(response: Response) -> bool:
    """Whether ``response`` says that it is the first answer once more."""
    return ("Idempotency-Replayed", "true") in response.headers


@pytest.fixture
async def other(server: Server, settings: Settings, mongodb_uri: str) -> AsyncIterator[Fhir]:
    """The front door of a second server process on the database of ``server``."""
    async with opened(settings, mongodb_uri) as second:

        async def ask(request: Request) -> Response:
            return await answer(second.registry, request, second.context)

        yield ask


KNOWN: dict[str, Any] = {"identifier": [{"value": "1"}]}
# What is asked where Patient/p is there, and the status of the answer.
WRITES: dict[str, tuple[Request, int]] = {
    "create": (create(), 201),
    "create, If-None-Exist finds none": (replace(create(), if_none_exist="identifier=2"), 201),
    "create, If-None-Exist finds one": (replace(create(), if_none_exist="identifier=1"), 200),
    "update": (put(patient(gender="male")), 200),
    "update of one version": (put(patient(gender="male"), if_match=frozenset({"1"})), 200),
    "update of a new id": (put(patient("new"), if_none_match=frozenset({"*"})), 201),
    "update that changes nothing": (put(patient(**KNOWN)), 200),
    "conditional update": (
        Request(
            "conditional-update",
            "Patient",
            body={"resourceType": "Patient", "active": True},
            parameters=(("identifier", "1"),),
        ),
        200,
    ),
    "patch": (replace(patch("x"), interaction="patch", id="p", parameters=()), 200),
    "conditional patch": (patch("x"), 200),
    "delete": (Request("delete", "Patient", "p"), 204),
    "delete of one version": (Request("delete", "Patient", "p", if_match=frozenset("1")), 204),
    "delete of nothing": (Request("delete", "Patient", "nobody"), 204),
    "conditional delete": (
        Request("conditional-delete", "Patient", parameters=(("identifier", "1"),)),
        204,
    ),
    "minimal": (replace(create(), prefer={"return": "minimal"}), 201),
    "transaction": (
        bundle(
            entry("POST", "Patient", {"resourceType": "Patient"}),
            entry("PUT", "Patient/p", patient(gender="male"), ifMatch='W/"1"'),
            entry("GET", "Patient?identifier=1"),
        ),
        200,
    ),
    "conditional transaction": (
        bundle(
            entry("POST", "Patient", {"resourceType": "Patient"}, ifNoneExist="identifier=2"),
            entry("DELETE", "Patient?identifier=1"),
        ),
        200,
    ),
}


@pytest.mark.parametrize("name", WRITES)
async def test_what_is_sent_again_is_answered_as_the_first(
    fhir: Fhir, other: Fhir, name: str
) -> None:
    """Also by another process; nothing is written a second time."""
    await fhir(put(patient(**KNOWN)))
    request, status = WRITES[name]
    request = replace(request, base_url=BASE, idempotency_key=KEY)
    first = await fhir(request)
    assert (first.status, again(first)) == (status, False), first.body
    before = await count(fhir), len(await versions(fhir, "Patient/p"))
    # What happens in between does not change what was answered.
    await fhir(put(patient(active=False)))
    for door in (fhir, other):
        second = await door(request)
        assert told(second) == told(first)
        assert again(second)
    await fhir(Request("delete", "Patient", "p"))
    after = await count(fhir), len(await versions(fhir, "Patient/p"))
    assert after[1] <= before[1] + 2
    assert after[0] <= before[0]


async def test_without_a_key_each_is_made(fhir: Fhir) -> None:
    """The control; and another key is another request."""
    for key in (None, None, "a", "b", "a"):
        assert (await fhir(create(key))).status == 201
    assert await count(fhir) == 4


OTHERS: dict[str, Request] = {
    "body": create(active=False),
    "type": replace(create(), type="Basic", body={"resourceType": "Basic", "code": {"text": "x"}}),
    "interaction": put(patient()),
    "precondition": replace(create(active=True), if_none_exist="identifier=1"),
    "parameters": Request("conditional-delete", "Patient", parameters=(("identifier", "1"),)),
    "bundle": bundle(entry("POST", "Patient", {"resourceType": "Patient", "active": True})),
    "batch": bundle(
        entry("POST", "Patient", {"resourceType": "Patient", "active": True}), type="batch"
    ),
}


@pytest.mark.parametrize("name", OTHERS)
async def test_another_request_with_the_key_is_refused(fhir: Fhir, name: str) -> None:
    """With 422, and nothing is written."""
    await fhir(create(active=True))
    response = await fhir(replace(OTHERS[name], idempotency_key=KEY))
    assert (response.status, issues_of(response)) == (422, [("business-rule", "")])
    assert "Idempotency-Key was used for another request" in response.body.decode()
    assert await count(fhir) == 1


async def test_the_same_said_in_another_way_is_the_same(fhir: Fhir) -> None:
    """The order of members, and how the answer is to look, are no other request."""
    first = await fhir(create(active=True, gender="male"))
    same = create(gender="male", active=True)
    second = await fhir(replace(same, prefer={"return": "minimal"}, base_url="http://b.org/fhir"))
    assert told(second) == told(first)


async def test_a_refusal_is_not_kept(fhir: Fhir) -> None:
    """What could not be done at first is done when it can be; and the key is free meanwhile."""
    request = put(patient(gender="male"), if_match=frozenset({"2"}), idempotency_key=KEY)
    assert (await fhir(request)).status == 412
    await fhir(put(patient()))
    await fhir(put(patient(active=True)))
    assert (await fhir(request)).status == 200
    assert (await fhir(create("other", gendre="x"))).status == 400
    assert (await fhir(create("other", gender="male"))).status == 201


@pytest.mark.parametrize("kind", ["create", "transaction"])
async def test_of_many_at_once_one_is_made(fhir: Fhir, other: Fhir, kind: str) -> None:
    """32 with one key, half of them through another process: all are told the same."""
    one = entry("POST", "Patient", {"resourceType": "Patient"})
    request = create() if kind == "create" else bundle(one, one, idempotency_key=KEY)
    responses = await asyncio.gather(*((fhir, other)[n % 2](request) for n in range(32)))
    assert len({told(one) for one in responses}) == 1
    assert sorted(map(again, responses)) == [False, *([True] * 31)]
    assert await count(fhir) == (1 if kind == "create" else 2)


async def test_many_keys_through_two_processes(fhir: Fhir, other: Fhir) -> None:
    """Forty creates, each asked for three times at once: each is made once, none is refused.

    They meet in groups of both processes: a key that the other has fails nobody beside it.
    """
    asked = [create(f"{KEY}-{n % 40}", language=f"x-{n % 40}") for n in range(120)]
    responses = await asyncio.gather(*((fhir, other)[n % 2](one) for n, one in enumerate(asked)))
    assert {one.status for one in responses} == {201}
    assert len({one.location for one in responses}) == 40
    assert [told(one) for one in responses[:40]] == [told(one) for one in responses[40:80]]
    assert sum(map(again, responses)) == 80
    assert await count(fhir) == 40


async def test_conditional_creates_with_keys_of_their_own(fhir: Fhir, other: Fhir) -> None:
    """Of 40 clients with one criterion one creates, the others find; each is told that again."""
    asked = [
        replace(create(f"{KEY}-{n}", **KNOWN), if_none_exist="identifier=1") for n in range(40)
    ]
    first = await asyncio.gather(*((fhir, other)[n % 2](one) for n, one in enumerate(asked)))
    second = [await (fhir, other)[n % 3 == 0](one) for n, one in enumerate(asked)]
    assert sorted(one.status for one in first) == [*[200] * 39, 201]
    assert [told(one) for one in second] == [told(one) for one in first]
    assert all(map(again, second))
    assert await count(fhir) == 1


async def test_a_refusal_over_what_the_first_wrote_is_not_told(fhir: Fhir) -> None:
    """The first attempt has replaced the version that the second names: it is answered as it was,
    and another request with the key is not."""
    await fhir(put(patient()))
    request = put(patient(active=True), if_match=frozenset("1"), idempotency_key=KEY)
    first = await fhir(request)
    assert (first.status, told(await fhir(request))) == (200, told(first))
    other = replace(request, body=patient(active=False))
    assert (await fhir(other)).status == 422
    assert (await fhir(replace(request, idempotency_key="another"))).status == 412


async def test_what_waits_too_long_is_told_to_come_again(
    server: Server, settings: Settings, mongodb_uri: str
) -> None:
    """A first that hangs holds the second up for a request's time, and no longer."""
    hurried = settings.model_copy(update={"request_timeout_s": 0.5})
    begun = asyncio.Event()
    go_on = asyncio.Event()
    context = server.context

    async def hangs(_: Context) -> Response:
        begun.set()
        await go_on.wait()
        return Response(201)

    async with opened(hurried, mongodb_uri) as second:
        first = asyncio.create_task(once(create(), context, ["Patient"], hangs))
        await begun.wait()
        response = await answer(second.registry, create(), second.context)
        go_on.set()
        assert (await first).status == 201
    assert (response.status, issues_of(response)) == (503, [("transient", "")])
    assert ("Retry-After", "1") in response.headers


async def test_a_key_is_free_again_when_its_time_is_over(server: Server) -> None:
    """Also before MongoDB has removed the old answer."""
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    first = await with_clock(server, lambda: noon)(create())
    late = noon + timedelta(hours=24, seconds=-1)
    assert told(await with_clock(server, lambda: late)(create())) == told(first)
    over = with_clock(server, lambda: noon + timedelta(hours=24))
    second = await over(create(active=True))
    assert (second.status, again(second)) == (201, False)
    assert told(await over(create(active=True))) == told(second)


async def test_old_answers_are_removed(server: Server) -> None:
    """By an index of MongoDB, when the time of each is over."""
    indexes = await server.database[answers.ANSWERS].index_information()
    [kept] = [one for one in indexes.values() if "expireAfterSeconds" in one]
    assert (kept["key"], kept["expireAfterSeconds"]) == ([("until", 1)], 0)


async def test_a_large_answer_is_kept_whole(
    server: Server, fhir: Fhir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In several documents where one does not hold it; the key itself is in none of them."""
    monkeypatch.setattr(answers, "_PART_BYTES", 2000)
    people = [
        entry(
            "PUT", f"Patient/p{n}", patient(f"p{n}", language="en", name=[{"text": "é" * (n + 1)}])
        )
        for n in range(400)
    ]
    request = bundle(*people, idempotency_key=KEY, prefer={"return": "representation"})
    first = await fhir(request)
    assert (first.status, len(first.body) > 200_000) == (200, True)
    found = await server.database[answers.ANSWERS].find().to_list()
    assert len(found) > 2
    assert not any(KEY in str(one) for one in found)
    assert told(await fhir(request)) == told(first)


async def test_a_batch_tells_what_it_did_and_does_the_rest(fhir: Fhir) -> None:
    """Each writing entry has been made or not; reads are made again."""
    request = bundle(
        entry("POST", "Patient", {"resourceType": "Patient"}),
        entry("POST", "Patient", {"resourceType": "Patient"}),
        entry("PUT", "Patient/p", patient(active=True), ifMatch='W/"1"'),
        entry("GET", "Patient?_summary=count"),
        type="batch",
        idempotency_key=KEY,
    )
    first = await fhir(request)
    assert statuses(first) == ["201", "201", "412", "200"]
    await fhir(put(patient()))
    second = await fhir(request)
    assert statuses(second) == ["201", "201", "200", "200"]
    assert json_of(second)["entry"][:2] == json_of(first)["entry"][:2]
    assert json_of(second)["entry"][3]["resource"]["total"] == 3
    assert await count(fhir) == 3
    body = request.body or {}
    shorter = replace(request, body={**body, "entry": body["entry"][:1]})
    assert (await fhir(shorter)).status == 422


@pytest.mark.parametrize("kind", ["alone", "conditional"])
async def test_an_answer_is_not_kept_for_what_is_not_written(
    server: Server, fhir: Fhir, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Where the answer cannot be kept, nothing was written: both or neither."""
    module, name = (writer, "keep_answers") if kind == "alone" else (answers, "keep_answer")
    request = create()
    if kind == "conditional":
        asked = (("identifier", "1"),)
        request = replace(request, interaction="conditional-update", parameters=asked)
    keep = getattr(module, name)

    async def fails(*arguments: Any) -> None:
        await keep(*arguments)
        raise RuntimeError

    monkeypatch.setattr(module, name, fails)
    with pytest.raises(RuntimeError):
        await fhir(request)
    assert await count(fhir) == 0
    assert await server.database[answers.ANSWERS].count_documents({}) == 0
    monkeypatch.setattr(module, name, keep)
    assert (await fhir(request)).status == 201


async def test_what_reads_needs_no_key(server: Server, fhir: Fhir) -> None:
    """It is not heeded there, and nothing is kept."""
    await fhir(put(patient()))
    for request in (
        Request("read", "Patient", "p"),
        Request("search-type", "Patient"),
        Request("capabilities", base_url=BASE),
    ):
        response = await fhir(replace(request, idempotency_key=KEY))
        assert (response.status, again(response)) == (200, False)
    assert await server.database[answers.ANSWERS].count_documents({}) == 0


async def test_an_operation_that_heeds_no_key_says_so(fhir: Fhir) -> None:
    """A client that relies on its key must not be left alone with that."""
    response = await fhir(Request("$reindex", idempotency_key=KEY))
    assert (response.status, issues_of(response)) == (400, [("not-supported", "")])


async def test_a_create_that_was_made_is_found(fhir: Fhir) -> None:
    """What the second answer names is there."""
    await fhir(bundle(entry("POST", "Patient", {"resourceType": "Patient"}), idempotency_key=KEY))
    second = await fhir(
        bundle(entry("POST", "Patient", {"resourceType": "Patient"}), idempotency_key=KEY)
    )
    [place] = places(second)
    assert (await read(fhir, place))["resourceType"] == "Patient"
