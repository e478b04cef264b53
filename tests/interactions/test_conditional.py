"""https://hl7.org/fhir/R4/http.html#ccreate, #cond-update and the conditional delete"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fhir_server.app import Server, opened
from fhir_server.dispatch import answer
from fhir_server.messages import Request, Resource, Response
from fhir_server.settings import Settings
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
)

SYSTEM = "http://a.org"
CRITERIA = (("identifier", f"{SYSTEM}|1"),)
TEXT = f"identifier={SYSTEM}|1"


def known(value: str = "1", **members: Any) -> Resource:
    """Return a Patient with an identifier; ``id`` is one of the members, if at all."""
    return {
        "resourceType": "Patient",
        "identifier": [{"system": SYSTEM, "value": value}],
        **members,
    }


def create(resource: Resource, text: str = TEXT, **members: Any) -> Request:
    """Return the conditional create of ``resource``."""
    type = resource["resourceType"]
    return Request("create", type, body=resource, if_none_exist=text, base_url=BASE, **members)


def update(resource: Resource, *parameters: tuple[str, str], **members: Any) -> Request:
    """Return the conditional update with ``resource``."""
    asked = parameters or CRITERIA
    return Request(
        "conditional-update", "Patient", body=resource, parameters=asked, base_url=BASE, **members
    )


def delete(*parameters: tuple[str, str], **members: Any) -> Request:
    """Return the conditional delete."""
    asked = parameters or CRITERIA
    return Request("conditional-delete", "Patient", parameters=asked, base_url=BASE, **members)


def patch(*parameters: tuple[str, str], **members: Any) -> Request:
    """Return the conditional patch that adds a gender."""
    asked = parameters or CRITERIA
    values = {"type": "add", "path": "Patient", "name": "gender", "value": "male"}
    parts = [
        {"name": name, "valueCode" if name in ("type", "value") else "valueString": value}
        for name, value in values.items()
    ]
    body = {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": parts}]}
    return Request(
        "conditional-patch", "Patient", body=body, parameters=asked, base_url=BASE, **members
    )


async def count(fhir: Fhir, *parameters: tuple[str, str]) -> int:
    """Return how many patients there are."""
    asked = (*parameters, ("_summary", "count"))
    response = await fhir(Request("search-type", "Patient", parameters=asked, base_url=BASE))
    total: int = json_of(response)["total"]
    return total


def id_of(response: Response) -> str:
    """Return the id that the answer names."""
    return response.location.split("/")[1]


@pytest.fixture
async def other(server: Server, settings: Settings, mongodb_uri: str) -> AsyncIterator[Fhir]:
    """The front door of a second server process on the database of ``server``."""
    async with opened(settings, mongodb_uri) as second:

        async def ask(request: Request) -> Response:
            return await answer(second.registry, request, second.context)

        yield ask


# Request -> status by how many match: none, one, two.
TABLE: dict[str, tuple[Request, tuple[int, int, int]]] = {
    "create": (create(known()), (201, 200, 412)),
    "create of another id": (create(known(id="z")), (201, 200, 412)),
    "update": (update(known(gender="male")), (201, 200, 412)),
    "update with a new id": (update(known(id="z")), (201, 400, 412)),
    "update with the id that matches": (update(known(id="a", gender="male")), (201, 200, 412)),
    "patch": (patch(), (404, 200, 412)),
    "patch of another version": (patch(if_match=frozenset({"7"})), (404, 412, 412)),
    "delete": (delete(), (204, 204, 412)),
}


@pytest.mark.parametrize("there", [0, 1, 2])
@pytest.mark.parametrize("name", TABLE)
async def test_none_one_and_several(fhir: Fhir, name: str, there: int) -> None:
    """The table of http.html, with what is there afterwards."""
    for id in ("a", "b")[:there]:
        await fhir(put(known(id=id)))
    request, expected = TABLE[name]
    response = await fhir(request)
    assert response.status == expected[there], response.body
    after = await count(fhir)
    made = {201: 1, 204: -min(there, 1)}.get(response.status, 0)
    assert after == there + made
    if there == 2:
        assert issues_of(response) == [("multiple-matches", "")]
    if name == "patch" and there == 1:
        assert (await read(fhir, "Patient/a"))["gender"] == "male"


async def test_a_create_that_finds_something_says_what(fhir: Fhir) -> None:
    """200, the place and version of what is there, and its body; nothing is written."""
    await fhir(put(known(id="a", gender="female")))
    response = await fhir(create(known(gender="male")))
    assert (response.status, response.location, response.version) == (
        *(200, "Patient/a/_history/1", 1),
    )
    assert json_of(response)["gender"] == "female"
    assert len(await versions(fhir, "Patient/a")) == 1


async def test_a_conditional_update_writes_the_next_version(fhir: Fhir) -> None:
    """Of what matches, with the id that it has; the same content again writes nothing."""
    await fhir(put(known(id="a")))
    response = await fhir(update(known(gender="male")))
    assert (response.status, response.location) == (200, "Patient/a/_history/2")
    assert (await read(fhir, "Patient/a"))["gender"] == "male"
    assert (await fhir(update(known(gender="male")))).version == 2


async def test_if_match_counts_as_well(fhir: Fhir) -> None:
    """A conditional update of one version only."""
    await fhir(put(known(id="a")))
    stale = await fhir(update(known(gender="male"), if_match=frozenset({"7"})))
    assert stale.status == 412
    fresh = await fhir(update(known(gender="male"), if_match=frozenset({"1"})))
    assert fresh.status == 200


@pytest.mark.parametrize("make", [update, delete], ids=["update", "delete"])
async def test_if_match_of_what_is_not_there(fhir: Fhir, make: Any) -> None:
    """RFC 9110, 13.1.1: nothing has that version; nothing is created in its place."""
    arguments = (known(),) if make is update else ()
    response = await fhir(make(*arguments, if_match=frozenset({"3"})))
    assert (response.status, issues_of(response)) == (412, [("conflict", "")])
    assert await count(fhir) == 0


@pytest.mark.parametrize(
    "parameters",
    [(("_contained", "both"),), (("_query", "x"),), (("_type", "Patient"),), (("_page", "x"),)],
    ids=str,
)
async def test_criteria_that_would_match_everything(
    fhir: Fhir, parameters: tuple[tuple[str, str], ...]
) -> None:
    """Parameters about the form of an answer are no criteria: nothing is deleted by them."""
    await fhir(put(known(id="a")))
    assert (await fhir(delete(*parameters))).status == 400
    assert await count(fhir) == 1


async def test_one_number_in_two_systems_is_two_people(fhir: Fhir) -> None:
    """Entries with different criteria are performed both, however much these have in common."""
    entries = [
        entry(
            "POST",
            "Patient",
            patient("x", identifier=[{"system": system, "value": "1"}]),
            ifNoneExist=f"identifier={system}|1",
        )
        for system in ("urn:a", "urn:b")
    ]
    response = await fhir(bundle(*entries))
    assert statuses(response) == ["201", "201"], response.body


async def test_an_id_that_is_taken_is_not_overwritten(fhir: Fhir) -> None:
    """Nothing matches, but the id of the body is that of somebody else."""
    await fhir(put(patient("z", gender="female")))
    response = await fhir(update(known(id="z")))
    assert (response.status, issues_of(response)) == (409, [("conflict", "")])
    assert "identifier" not in await read(fhir, "Patient/z")


@pytest.mark.parametrize(
    ("parameters", "status"),
    [
        ((), 400),
        ((("identifier", ""),), 400),
        ((("nonsense", "1"),), 400),
        ((("_count", "1"), ("identifier", "1")), 400),
        ((("_include", "*"), ("identifier", "1")), 400),
        ((("birthdate", "yesterday"),), 400),
    ],
    ids=str,
)
@pytest.mark.parametrize("interaction", ["create", "conditional-update", "conditional-delete"])
async def test_criteria_that_say_nothing_are_refused(
    fhir: Fhir, interaction: str, parameters: tuple[tuple[str, str], ...], status: int
) -> None:
    """Also where the client asks for lenient handling: nothing is written, nothing deleted."""
    await fhir(put(known(id="a")))
    request = Request(
        interaction,
        "Patient",
        body=None if "delete" in interaction else known(),
        parameters=() if interaction == "create" else parameters,
        if_none_exist="&".join(f"{n}={v}" for n, v in parameters)
        if interaction == "create"
        else None,
        prefer={"handling": "lenient"},
        base_url=BASE,
    )
    response = await fhir(request)
    assert response.status == status
    assert await count(fhir) == 1


async def test_what_is_wrong_with_the_body_is_said_first(fhir: Fhir) -> None:
    """An invalid resource is refused also where it would not have been written."""
    await fhir(put(known(id="a")))
    assert (await fhir(create(known(gendre="x")))).status == 400


async def test_several_are_deleted_where_the_setting_allows_it(
    settings: Settings, mongodb_uri: str
) -> None:
    """All or none: above the limit nothing is deleted."""
    several = settings.model_copy(update={"conditional_delete_max": 3})
    async with opened(several, mongodb_uri) as server:

        async def ask(request: Request) -> Response:
            return await answer(server.registry, request, server.context)

        for number in range(4):
            await ask(put(known(id=f"p{number}")))
        refused = await ask(delete())
        assert (refused.status, issues_of(refused)) == (412, [("too-costly", "")])
        assert await count(ask) == 4
        await ask(Request("delete", "Patient", "p3", base_url=BASE))
        assert (await ask(delete())).status == 204
        assert await count(ask) == 0
        statement = json_of(await ask(Request("capabilities", base_url=BASE)))
        assert statement["rest"][0]["resource"][0]["conditionalDelete"] == "multiple"


@pytest.mark.parametrize("how", ["create", "update"])
async def test_of_many_at_once_one_creates(fhir: Fhir, other: Fhir, how: str) -> None:
    """32 at once, half of them through another process, in rounds with other criteria each."""
    for round in range(10):
        value = f"{how}-{round}"
        text = f"identifier={SYSTEM}|{value}"
        make = (
            create(known(value), text)
            if how == "create"
            else update(known(value), ("identifier", f"{SYSTEM}|{value}"))
        )
        doors = (fhir, other)
        answers = await asyncio.gather(*(doors[n % 2](make) for n in range(32)))
        told = sorted(one.status for one in answers)
        assert told == [*([200] * 31), 201], told
        assert len({id_of(one) for one in answers}) == 1
    assert await count(fhir) == 10


async def test_criteria_of_one_identifier_meet(fhir: Fhir) -> None:
    """With and without the system, with and without more: it is the same identifier."""
    texts = (TEXT, "identifier=1", f"{TEXT}&active:missing=true", "?identifier=1")
    answers = await asyncio.gather(
        *(fhir(create(known(), texts[number % 4])) for number in range(24))
    )
    assert sorted(one.status for one in answers) == [*([200] * 23), 201]


async def test_bundles_at_once_create_one(fhir: Fhir, other: Fhir) -> None:
    """16 transactions that each create the same patient and an observation of theirs."""
    observation = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"text": "x"},
        "subject": {"reference": "urn:uuid:4f1c5d3e-0000-4000-8000-000000000001"},
    }
    asked = bundle(
        entry(
            "POST",
            "Patient",
            known(),
            "urn:uuid:4f1c5d3e-0000-4000-8000-000000000001",
            ifNoneExist=TEXT,
        ),
        entry("POST", "Observation", observation),
    )
    answers = await asyncio.gather(*((fhir, other)[n % 2](asked) for n in range(16)))
    assert [one.status for one in answers] == [200] * 16
    assert await count(fhir) == 1
    assert sorted(statuses(one)[0] for one in answers) == [*(["200"] * 15), "201"]
    [patient_place] = {places(one)[0] for one in answers}
    for one in answers:
        written = await read(fhir, places(one)[1])
        assert written["subject"]["reference"] == patient_place


async def test_entries_by_criteria(fhir: Fhir) -> None:
    """PUT and DELETE by criteria in a transaction; references follow what was found."""
    await fhir(put(known(id="a")))
    await fhir(put(known("2", id="b")))
    full_url = "urn:uuid:4f1c5d3e-0000-4000-8000-000000000002"
    response = await fhir(
        bundle(
            entry("PUT", f"Patient?{TEXT}", known(gender="male"), full_url),
            entry("DELETE", f"Patient?identifier={SYSTEM}|2"),
            entry("DELETE", f"Patient?identifier={SYSTEM}|3"),
            entry("PUT", f"Patient?identifier={SYSTEM}|4", known("4")),
            entry(
                "POST",
                "Observation",
                {
                    "resourceType": "Observation",
                    "status": "final",
                    "code": {"text": "x"},
                    "subject": {"reference": full_url},
                },
            ),
        )
    )
    assert response.status == 200, response.body
    assert statuses(response) == ["200", "204", "204", "201", "201"]
    observation = json_of(response)["entry"][4]["response"]["location"]
    place = observation.removeprefix(f"{BASE}/").partition("/_history/")[0]
    assert (await read(fhir, place))["subject"]["reference"] == "Patient/a"
    assert await count(fhir) == 2


async def test_a_patch_by_criteria_in_a_transaction(fhir: Fhir) -> None:
    """It is made with the rest; of nothing it ends the transaction."""
    await fhir(put(known(id="a")))
    body = patch().body
    response = await fhir(bundle(entry("PATCH", f"Patient?{TEXT}", body)))
    assert statuses(response) == ["200"], response.body
    assert (await read(fhir, "Patient/a"))["gender"] == "male"
    nobody = await fhir(bundle(entry("PATCH", "Patient?identifier=7", body)))
    assert (nobody.status, issues_of(nobody)) == (404, [("not-found", "Bundle.entry[0]")])


async def test_two_entries_that_match_the_same_are_refused(fhir: Fhir) -> None:
    """http.html#trules: identities are compared once they are resolved."""
    await fhir(put(known(id="a")))
    response = await fhir(
        bundle(
            entry("PUT", f"Patient?{TEXT}", known(gender="male")),
            entry("PUT", "Patient/a", known(id="a", gender="female")),
        )
    )
    assert (response.status, issues_of(response)) == (400, [("duplicate", "Bundle.entry[1]")])
    assert len(await versions(fhir, "Patient/a")) == 1


async def test_an_entry_that_matches_several_ends_the_transaction(fhir: Fhir) -> None:
    """And it is named; nothing of the others is there."""
    await fhir(put(known(id="a")))
    await fhir(put(known(id="b")))
    response = await fhir(
        bundle(
            entry("PUT", "Patient/c", patient("c")),
            entry("POST", "Patient", known(), ifNoneExist=TEXT),
        )
    )
    assert (response.status, issues_of(response)) == (
        *(412, [("multiple-matches", "Bundle.entry[1]")]),
    )
    assert await count(fhir) == 2


async def test_in_a_batch_each_stands_for_itself(fhir: Fhir) -> None:
    """32 entries of one batch with the same criteria make one resource."""
    entries = [entry("POST", "Patient", known(), ifNoneExist=TEXT) for _ in range(32)]
    response = await fhir(bundle(*entries, type="batch"))
    assert sorted(statuses(response)) == [*(["200"] * 31), "201"]
    assert await count(fhir) == 1


async def test_two_entries_of_a_transaction_that_would_create_the_same(fhir: Fhir) -> None:
    """They are looked up before either is written: both would create, and so both are refused."""
    response = await fhir(
        bundle(
            entry("POST", "Patient", known(), ifNoneExist=TEXT),
            entry("POST", "Patient", known(), ifNoneExist=TEXT),
        )
    )
    assert (response.status, issues_of(response)) == (400, [("duplicate", "Bundle.entry[1]")])
    assert await count(fhir) == 0
