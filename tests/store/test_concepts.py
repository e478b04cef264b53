# https://hl7.org/fhir/R4/valueset-filter-operator.html
"""Concepts in the database: what is said of codes, there and in memory, is the same."""

from random import Random
from typing import Any

import pytest

from fhir_server.app import Server
from fhir_server.r4.expansion import Expander, Shelved
from fhir_server.r4.selections import Codes, Every, holds, settled
from fhir_server.r4.selections import asked as asked_codes
from fhir_server.store.concepts import ANCESTORS_MAX, Concepts, Shelf, Wanted
from tests.terminology.systems import a_concept

URL = "http://x/generated"
NUMBER = 60
_EVERY = Every()


def generated(chance: Random) -> list[dict[str, Any]]:
    """Return concepts with up to three parents, in circles now and then, and some properties."""
    found = []
    for number in range(NUMBER):
        parents = {f"c{chance.randrange(NUMBER)}" for _ in range(chance.randrange(3))}
        kind = {"kind": f"k{chance.randrange(4)}"} if chance.random() < 0.7 else {}
        concept = a_concept(f"c{number}", *sorted(parents - {f"c{number}"}), **kind)
        if chance.random() < 0.2:
            retired = {"code": "status", "valueCode": "retired"}
            concept.setdefault("property", []).append(retired)
        found.append(concept)
    return found


def a_filter(chance: Random) -> dict[str, str]:
    code = f"c{chance.randrange(NUMBER)}"
    kinds = [
        *(("concept", one, code) for one in ("is-a", "descendent-of", "is-not-a", "generalizes")),
        ("concept", "in", f"{code}, c1,c2"),
        ("concept", "not-in", f"{code},c1"),
        *(("kind", one, "k1") for one in ("=", "in", "not-in")),
        ("kind", "exists", chance.choice(["true", "false"])),
        ("parent", "=", code),
        ("child", "=", code),
        ("display", "=", code.title()),
    ]
    property, op, value = chance.choice(kinds)
    return {"property": property, "op": op, "value": value}


def a_value_set(chance: Random) -> dict[str, Any]:
    def parts(most: int) -> list[Any]:
        return [
            {"system": URL, "filter": [a_filter(chance) for _ in range(chance.randrange(1, 3))]}
            for _ in range(most)
        ]

    compose: dict[str, Any] = {"include": parts(chance.randrange(1, 3))}
    if chance.random() < 0.5:
        compose["exclude"] = parts(1)
    if chance.random() < 0.3:
        compose["inactive"] = False
    return {"compose": compose}


async def stored(concepts: Concepts, found: list[dict[str, Any]]) -> Shelf:
    loading = await concepts.begin(URL, "")
    await loading.add(found)
    return await loading.finish()


def selected(value_set: Any, system: Any) -> Codes:
    """Return what the value set takes of the system, in memory or as it was said."""
    kinds = {"ValueSet": {"v": value_set}, "CodeSystem": {URL: system}}
    return Expander(lambda type, name: kinds[type].get(name)).selection("v").get(URL, frozenset())


async def test_filters_are_the_same_everywhere(server: Server) -> None:
    """In memory, concept by concept, and as a filter of the database, for generated value sets."""
    chance = Random(11)
    concepts = server.context.store.concepts
    listed = generated(chance)
    shelf = await stored(concepts, listed)
    head = {"content": "complete", "property": [{"code": "kind"}], "url": URL}
    documents = await concepts.read([(shelf.number, one["code"]) for one in listed])
    for _ in range(150):
        value_set = a_value_set(chance)
        expected = selected(value_set, {**head, "concept": listed})
        shelved = Shelved(head)
        shelved.shelf = shelf
        said = selected(value_set, shelved)
        known = await concepts.read([(shelf.number, one) for one in asked_codes(said)])
        codes = settled(said, {code: one for (_, code), one in known.items()})
        one_by_one = {one["code"] for one in documents.values() if holds(codes, one)}
        wanted = Wanted(shelf, codes)
        page = await concepts.page(wanted, 0, NUMBER)
        assert expected == frozenset(one_by_one), value_set
        assert one_by_one == {one["code"] for one in page}, value_set
        assert await concepts.total(wanted) == len(page)
        assert [one["code"] for one in page] == sorted(one["code"] for one in page)


async def test_pages_and_words(server: Server) -> None:
    """Pages follow each other without gaps; words match by their beginning, rare and frequent."""
    concepts = server.context.store.concepts
    found = [
        {"code": f"{n:05}", "display": f"common {'rare' if n % 900 == 7 else 'other'} {n}"}
        for n in range(2700)
    ]
    shelf = await stored(concepts, found)
    everything = Wanted(shelf, _EVERY)
    walked: list[Any] = []
    while page := await concepts.page(everything, len(walked), 1000):
        walked += page
    assert [one["code"] for one in walked] == [one["code"] for one in found]
    assert len(await concepts.page(everything, 2690, 100)) == 10
    for words, expected in {
        ("comm",): 2700,
        ("comm", "rar"): 3,
        ("ra", "90"): 1,
        ("x",): 0,
    }.items():
        wanted = Wanted(shelf, _EVERY, words)
        assert await concepts.total(wanted) == expected
        assert len(await concepts.page(wanted, 0, 3000)) == expected


async def test_what_is_loaded_again_is_swept_away(server: Server) -> None:
    """A replaced shelf is not found any more, its number is not used again; too deep is refused."""
    concepts = server.context.store.concepts
    first = await stored(concepts, [a_concept("a")])
    second = await stored(concepts, [a_concept("b")])
    assert await concepts.shelf(URL, "") == second
    await concepts.remove(first.number)
    assert await server.database["concepts"].count_documents({}) == 1
    third = await concepts.begin(URL, "")
    assert third.number > second.number
    chain = [a_concept(f"d{n}", f"d{n + 1}") for n in range(ANCESTORS_MAX + 10)]
    await third.add(chain)
    with pytest.raises(ValueError, match="below more than 2,000"):
        await third.finish()
    assert await concepts.shelf(URL, "") == second
    await third.abandon()
