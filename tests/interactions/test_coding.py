# https://hl7.org/fhir/R4/terminology-service.html#validation
"""Whether codes are in value sets and code systems, for validation and FHIRPath."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from fhir_server.app import Server, opened
from fhir_server.dispatch import answer
from fhir_server.interactions.coding import answered
from fhir_server.interactions.terms import Terms
from fhir_server.messages import Request, Response
from fhir_server.r4.questions import Coded, CodeInSystem, CodeInValueSet
from fhir_server.settings import Settings
from tests.conftest import Fhir, drop
from tests.terminology.systems import PLANTS, kept, loaded

SETS = "http://hl7.org/fhir/ValueSet/"
GENDER = "http://hl7.org/fhir/administrative-gender"
UCUM = "http://unitsofmeasure.org"

R4: list[tuple[CodeInValueSet | CodeInSystem, bool | None, str]] = [
    (CodeInValueSet(f"{SETS}administrative-gender", GENDER, "male"), True, ""),
    (CodeInValueSet(f"{SETS}administrative-gender", "", "male"), True, ""),
    (CodeInValueSet(f"{SETS}administrative-gender|4.0.1", "", "male"), True, ""),
    (CodeInValueSet(f"{SETS}administrative-gender|9", "", "male"), None, "is not here"),
    (CodeInValueSet(f"{SETS}administrative-gender", "", "mail"), False, "Did you mean male"),
    (CodeInValueSet(f"{SETS}administrative-gender", "http://other", "male"), False, "not in"),
    (CodeInValueSet(f"{SETS}administrative-gender", "", "male", "MALE "), True, ""),
    (CodeInValueSet(f"{SETS}administrative-gender", "", "male", "Femal"), False, "'Male'"),
    (CodeInValueSet(f"{SETS}ucum-units", UCUM, "mg/dL"), True, ""),
    (CodeInValueSet(f"{SETS}ucum-units", UCUM, "mg/dl/("), False, "not in"),
    (CodeInValueSet(f"{SETS}all-languages", "", "bn-BD"), True, ""),
    (CodeInValueSet(f"{SETS}mimetypes", "", "application/fhir+json"), True, ""),
    (CodeInValueSet(f"{SETS}mimetypes", "", "$where"), False, "not in"),
    (CodeInValueSet(f"{SETS}iso3166-1-2", "urn:iso:std:iso:3166", "BD"), True, ""),
    (CodeInValueSet("http://no.such/set", "", "a"), None, "is not here"),
    (CodeInValueSet(f"{SETS}condition-code", "http://snomed.info/sct", "1"), None, "is not here"),
    (CodeInSystem(GENDER, "other"), True, ""),
    (CodeInSystem(GENDER, "others"), False, "Did you mean other"),
    (CodeInSystem("http://snomed.info/sct", "1"), None, "is not here"),
    (CodeInSystem(UCUM, "[pH]"), True, ""),
    (CodeInSystem("", "a"), None, "no system"),
]


async def test_what_r4_defines(empty: Server) -> None:
    """The value sets of R4 are answered out of the box, all of them at once."""
    found = await answered([question for question, *_ in R4], empty.context)

    for question, result, words in R4:
        assert found[question].result is result, question
        assert words in found[question].message, question


async def test_a_stored_system_is_answered_as_it_is_now(server: Server, fhir: Fhir) -> None:
    """What is written, changed and deleted is answered at once."""
    question = CodeInSystem("http://x/s", "a")

    async def result() -> Any:
        return (await answered([question], server.context))[question].result

    assert await result() is None
    for concepts, expected in ([{"code": "a"}], True), ([{"code": "b"}], False):
        body = kept("CodeSystem", "s", content="complete", concept=concepts)
        assert (await fhir(Request("update", "CodeSystem", "s", body=body))).status < 300
        assert await result() is expected
    await fhir(Request("delete", "CodeSystem", "s"))
    assert await result() is None


async def test_another_write_has_nothing_decoded_again(server: Server, fhir: Fhir) -> None:
    """A version of a code system is decoded once; the next version is another."""

    async def written(id: str, code: str) -> Any:
        body = kept("CodeSystem", id, content="complete", concept=[{"code": code}])
        assert (await fhir(Request("update", "CodeSystem", id, body=body))).status < 300
        return await (await Terms.of(server.context)).system("http://x/s")

    first = await written("s", "a")
    assert await written("other", "a") is first
    changed = await written("s", "b")
    assert changed is not first
    assert set(changed.hierarchy.concepts) == {"b"}


async def test_another_process_hears_of_it(
    server: Server, fhir: Fhir, settings: Settings, mongodb_uri: str
) -> None:
    """What one process writes, another answers by when it has looked again, a second later."""
    question = CodeInSystem("http://x/s", "a")
    body = kept("CodeSystem", "s", content="complete", concept=[{"code": "a"}])
    async with opened(settings, mongodb_uri) as other:
        assert (await answered([question], other.context))[question].result is None
        await fhir(Request("update", "CodeSystem", "s", body=body))
        other.context.store.conformance._looked_at = float("-inf")  # a second has passed
        assert (await answered([question], other.context))[question].result is True


LARGE: list[tuple[dict[str, Any], str, bool | None]] = [
    ({"system": PLANTS}, "oak", True),
    ({"system": PLANTS}, "elm", False),
    ({"filter": [("concept", "is-a", "tree")]}, "oak", True),
    ({"filter": [("concept", "is-a", "tree")]}, "tree", True),
    ({"filter": [("concept", "descendent-of", "tree")]}, "tree", False),
    ({"filter": [("concept", "is-not-a", "tree")]}, "flower", True),
    ({"filter": [("concept", "generalizes", "oak")]}, "plant", True),
    ({"filter": [("concept", "generalizes", "oak")]}, "rose", False),
    ({"filter": [("colour", "=", "red")]}, "rose", True),
    ({"filter": [("colour", "=", "red")]}, "oak", False),
    ({"filter": [("colour", "exists", "false")]}, "oak", True),
    ({"filter": [("colour", "not-in", "red,blue")]}, "rose", False),
    ({"filter": [("child", "=", "oak")]}, "tree", True),
    ({"filter": [("child", "=", "oak")]}, "plant", False),
    ({"filter": [("display", "=", "Rose")]}, "rose", True),
    ({"filter": [("concept", "is-a", "plant"), ("colour", "=", "red")]}, "rose", True),
    ({"filter": [("concept", "is-a", "plant"), ("colour", "=", "red")]}, "oak", False),
    ({"filter": [("concept", "regex", ".*")]}, "oak", None),
    ({"concept": [{"code": "oak"}]}, "rose", False),
]


@pytest.fixture(scope="module")
async def plants(mongodb_uri: str) -> AsyncIterator[Server]:
    """One server with the plants for all cases."""
    named = Settings.model_validate({"mongodb_database": f"test-{uuid4().hex[:12]}"})
    async with opened(named, mongodb_uri) as server:

        async def ask(request: Request) -> Response:
            return await answer(server.registry, request, server.context)

        await loaded(server, ask)
        yield server
        await drop(server.database)


@pytest.mark.parametrize(("include", "code", "expected"), LARGE)
async def test_a_large_system(
    plants: Server, include: dict[str, Any], code: str, expected: bool | None
) -> None:
    """What is asked of a system in the database is answered concept by concept."""
    filters = [
        dict(zip(("property", "op", "value"), one, strict=True))
        for one in include.get("filter", ())
    ]
    part = {"system": PLANTS, **include, **({"filter": filters} if filters else {})}
    id = uuid4().hex
    put = Request("update", "ValueSet", id, body=kept("ValueSet", id, compose={"include": [part]}))
    assert (await answer(plants.registry, put, plants.context)).status == 201
    question = CodeInValueSet(f"http://x/{id}", PLANTS, code)

    assert (await answered([question], plants.context))[question].result is expected


async def test_a_shelf_is_seen_when_it_is_whole(server: Server, fhir: Fhir) -> None:
    """Until a loader has finished nobody sees a part; what it adds again replaces the rest."""
    question = CodeInSystem(PLANTS, "oak", "Oak")
    await loaded(server, fhir, finish=False)
    assert (await answered([question], server.context))[question].result is None

    again = await server.context.store.concepts.begin(PLANTS, "1")
    assert again.position == "line 5"
    await again.finish()
    assert (await answered([question], server.context))[question] == Coded(True, "", "Oak")

    other = await server.context.store.concepts.begin(PLANTS, "1")
    await other.add([{"code": "elm"}])
    await other.finish()
    assert (await answered([question], server.context))[question].result is False
