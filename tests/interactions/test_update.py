"""https://hl7.org/fhir/R4/http.html#update

With https://hl7.org/fhir/R4/http.html#concurrency: no update is lost, however requests interleave.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from fhir_server.app import Server
from fhir_server.messages import Request
from tests.conftest import Fhir
from tests.interactions.asking import (
    issues_of,
    json_of,
    patient,
    put,
    read,
    tags,
    versions,
    with_clock,
)

NOON = datetime(2024, 2, 29, 12, 0, 0, 123456, tzinfo=UTC)

# State before (versions written, last one a deletion or not), header, status.
# RFC 9110, 13.1.1 and 13.1.2: `*` is any current representation.
PRECONDITIONS = {
    "no header creates": ("missing", {}, 201),
    "no header replaces": ("at 2", {}, 200),
    "no header revives": ("deleted at 2", {}, 201),
    "If-Match of the current version": ("at 2", {"if_match": frozenset({"2"})}, 200),
    "If-Match of several, one current": ("at 2", {"if_match": frozenset({"1", "2"})}, 200),
    "If-Match of an earlier version": ("at 2", {"if_match": frozenset({"1"})}, 412),
    "If-Match of a later version": ("at 2", {"if_match": frozenset({"3"})}, 412),
    "If-Match of a word": ("at 2", {"if_match": frozenset({"abc"})}, 412),
    "If-Match of nothing": ("at 2", {"if_match": frozenset()}, 412),
    "If-Match with zeros in front": ("at 2", {"if_match": frozenset({"02"})}, 412),
    "If-Match * where there is one": ("at 2", {"if_match": frozenset({"*"})}, 200),
    "If-Match * where there is none": ("missing", {"if_match": frozenset({"*"})}, 412),
    "If-Match * after a deletion": ("deleted at 2", {"if_match": frozenset({"*"})}, 412),
    "If-Match of a version where there is none": ("missing", {"if_match": frozenset({"1"})}, 412),
    "If-Match 0 where there is none": ("missing", {"if_match": frozenset({"0"})}, 412),
    "If-Match before the deletion": ("deleted at 2", {"if_match": frozenset({"1"})}, 412),
    "If-None-Match * where there is none": ("missing", {"if_none_match": frozenset({"*"})}, 201),
    "If-None-Match * where there is one": ("at 2", {"if_none_match": frozenset({"*"})}, 412),
    "If-None-Match * after a deletion": ("deleted at 2", {"if_none_match": frozenset({"*"})}, 201),
    "If-None-Match of the current one": ("at 2", {"if_none_match": frozenset({"2"})}, 412),
    "If-None-Match of an earlier one": ("at 2", {"if_none_match": frozenset({"1"})}, 200),
}


async def _prepare(fhir: Fhir, state: str) -> None:
    if state != "missing":
        await fhir(put(patient(gender="male")))
    if state == "at 2":
        await fhir(put(patient(gender="female")))
    if state == "deleted at 2":
        await fhir(Request("delete", "Patient", "p"))


@pytest.mark.parametrize(("state", "headers", "status"), PRECONDITIONS.values(), ids=PRECONDITIONS)
async def test_preconditions(
    fhir: Fhir, state: str, headers: dict[str, frozenset[str]], status: int
) -> None:
    """A precondition that does not hold is 412 and nothing is written; one that holds is obeyed."""
    await _prepare(fhir, state)
    before = {"missing": 0, "at 2": 2, "deleted at 2": 2}[state]

    response = await fhir(put(patient(active=True), **headers))

    assert response.status == status
    after = before + (status < 400)
    if after:
        assert tags(await versions(fhir, "Patient/p")) == list(range(after, 0, -1))
    else:
        assert (await fhir(Request("read", "Patient", "p"))).status == 404
    if status == 412:
        assert issues_of(response)[0][0] == "conflict"


# What the body is -> where the issue points.
REFUSED = {
    "no body": (None, ""),
    "another type": ({"resourceType": "Basic", "id": "p"}, "resourceType"),
    "no type": ({"id": "p"}, "resourceType"),
    "another id": ({"resourceType": "Patient", "id": "q"}, "Patient.id"),
    "no id": ({"resourceType": "Patient"}, "Patient.id"),
    "an id that is a number": ({"resourceType": "Patient", "id": 1}, "Patient.id"),
}


@pytest.mark.parametrize(("body", "expression"), REFUSED.values(), ids=REFUSED)
async def test_a_body_that_does_not_fit_the_url(
    fhir: Fhir, body: dict[str, object] | None, expression: str
) -> None:
    """The answer is 400 with the place, and nothing is written (http.html#update)."""
    response = await fhir(Request("update", "Patient", "p", body=body))

    assert response.status == 400
    assert issues_of(response)[0][1] == expression
    assert (await fhir(Request("read", "Patient", "p"))).status == 404


async def test_of_concurrent_updates_of_one_version_exactly_one_wins(fhir: Fhir) -> None:
    """If-Match makes lost updates impossible, however 64 requests interleave."""
    await fhir(put(patient()))
    answers = await asyncio.gather(
        *(
            fhir(put(patient(name=[{"family": f"N{n}"}]), if_match=frozenset({"1"})))
            for n in range(64)
        )
    )

    assert sorted(answer.status for answer in answers) == [200] + [412] * 63
    [winner] = [n for n, answer in enumerate(answers) if answer.status == 200]
    assert (await read(fhir, "Patient/p"))["name"] == [{"family": f"N{winner}"}]
    assert tags(await versions(fhir, "Patient/p")) == [2, 1]


async def test_of_concurrent_blind_updates_none_is_lost(fhir: Fhir) -> None:
    """64 updates without a precondition make 64 versions, each with its own content."""
    answers = await asyncio.gather(
        *(fhir(put(patient(name=[{"family": f"N{n}"}]))) for n in range(64))
    )
    history = await versions(fhir, "Patient/p")
    written = {answer.version: json_of(answer)["name"] for answer in answers}

    assert sorted(answer.status for answer in answers) == [200] * 63 + [201]
    assert tags(history) == list(range(64, 0, -1))
    assert {int(e["resource"]["meta"]["versionId"]): e["resource"]["name"] for e in history} == (
        written
    )
    assert len({name[0]["family"] for name in written.values()}) == 64
    assert [e["resource"] for e in history if e["resource"]["meta"]["versionId"] == "64"] == [
        await read(fhir, "Patient/p")
    ]


@pytest.mark.parametrize(
    ("headers", "losers"),
    [({}, 200), ({"if_none_match": frozenset({"*"})}, 412)],
    ids=["blind", "If-None-Match: *"],
)
async def test_of_concurrent_creations_of_one_id_one_creates(
    fhir: Fhir, headers: dict[str, frozenset[str]], losers: int
) -> None:
    """Of 32 PUTs of a new id one answers 201; the others replace it or are refused."""
    answers = await asyncio.gather(
        *(fhir(put(patient(name=[{"family": f"N{n}"}]), **headers)) for n in range(32))
    )

    assert sorted(answer.status for answer in answers) == sorted([201] + [losers] * 31)
    count = 32 if losers == 200 else 1
    assert tags(await versions(fhir, "Patient/p")) == list(range(count, 0, -1))


async def test_a_counter_under_contention_counts_right(fhir: Fhir) -> None:
    """Read, change, write with If-Match, again after a 412: no step of 8 × 4 is lost."""
    await fhir(put(patient(multipleBirthInteger=0)))

    async def step() -> None:
        while True:
            now = await fhir(Request("read", "Patient", "p"))
            count = json_of(now)["multipleBirthInteger"] + 1
            wanted = frozenset({str(now.version)})
            done = await fhir(put(patient(multipleBirthInteger=count), if_match=wanted))
            if done.status == 200:
                return
            assert done.status == 412

    async def steps() -> None:
        for _ in range(4):
            await step()

    await asyncio.gather(*(steps() for _ in range(8)))

    assert (await read(fhir, "Patient/p"))["multipleBirthInteger"] == 32


UNCHANGED = {
    "the same": lambda r: r,
    "members in another order": lambda r: dict(reversed(list(r.items()))),
    "inner members in another order": lambda r: {
        **r,
        "name": [dict(reversed(r["name"][0].items()))],
    },
    "an old version and time": lambda r: {
        **r,
        "meta": {**r["meta"], "versionId": "77", "lastUpdated": "2001-01-01T00:00:00Z"},
    },
}


@pytest.mark.parametrize("edit", UNCHANGED.values(), ids=UNCHANGED)
async def test_an_update_that_changes_nothing_makes_no_version(fhir: Fhir, edit) -> None:
    """The answer is 200 with the version that is there (ARCHITECTURE.md, section 16.3)."""
    resource = patient(
        meta={"tag": [{"system": "http://example.org", "code": "a"}]},
        name=[{"family": "Rahman", "given": ["Ayesha", "K"]}],
    )
    first = await fhir(put(resource))

    again = await fhir(put(edit(resource)))

    assert (again.status, again.version, again.last_updated) == (200, 1, first.last_updated)
    assert again.body == first.body
    assert tags(await versions(fhir, "Patient/p")) == [1]


CHANGED = {
    "a list in another order": lambda r: {**r, "name": [{"family": "R", "given": ["K", "A"]}]},
    "a digit more": lambda r: {
        **r,
        "extension": [{**r["extension"][0], "valueDecimal": Decimal("1.00")}],
    },
    "a tag": lambda r: {**r, "meta": {"tag": [{"code": "a"}]}},
    "an element less": lambda r: {k: v for k, v in r.items() if k != "extension"},
}


@pytest.mark.parametrize("edit", CHANGED.values(), ids=CHANGED)
async def test_the_least_change_makes_a_version(fhir: Fhir, edit) -> None:
    """Order of lists, digits of decimals and tags are content."""
    resource = patient(
        name=[{"family": "R", "given": ["A", "K"]}],
        extension=[{"url": "http://example.org/x", "valueDecimal": Decimal("1.0")}],
    )
    await fhir(put(resource))

    assert (await fhir(put(edit(resource)))).version == 2


CLOCKS = {
    "stands still": [NOON] * 6,
    "goes back": [NOON - timedelta(hours=n) for n in range(6)],
    "goes back and forth": [NOON + timedelta(seconds=n) for n in (0, -5, 1, -1, 1, 1)],
    "is in another zone": [(NOON + timedelta(seconds=n)).astimezone(tz=None) for n in range(6)],
    "goes by microseconds": [NOON + timedelta(microseconds=n) for n in range(6)],
}


@pytest.mark.parametrize("moments", CLOCKS.values(), ids=CLOCKS)
async def test_versions_and_times_rise_whatever_the_clock_does(
    server: Server, moments: list[datetime]
) -> None:
    """versionId and lastUpdated rise strictly, in updates, deletions and revivals."""
    now = moments[0]
    fhir = with_clock(server, lambda: now)
    for step, now in enumerate(moments):  # noqa: B007 -- the clock reads it
        await fhir(
            Request("delete", "Patient", "p")
            if step in (2, 4)
            else put(patient(multipleBirthInteger=step))
        )
    history = await versions(fhir, "Patient/p")
    times = [datetime.fromisoformat(one["response"]["lastModified"]) for one in history]

    assert tags(history) == [6, 5, 4, 3, 2, 1]
    assert times == sorted(set(times), reverse=True)
    assert times[-1] == moments[0].replace(microsecond=moments[0].microsecond // 1000 * 1000)
    for one, time in zip(history, times, strict=True):
        if "resource" in one:
            assert datetime.fromisoformat(one["resource"]["meta"]["lastUpdated"]) == time


@pytest.mark.parametrize(
    ("wish", "kind"),
    [("minimal", ""), ("representation", "Patient"), ("OperationOutcome", "OperationOutcome")],
)
async def test_the_answer_is_as_the_client_prefers(fhir: Fhir, wish: str, kind: str) -> None:
    """Prefer: return=… decides the body and nothing else (http.html#return)."""
    response = await fhir(put(patient(), prefer={"return": wish}))

    assert (response.status, response.version) == (201, 1)
    assert response.location == "Patient/p/_history/1"
    assert (json_of(response)["resourceType"] if response.body else "") == kind
