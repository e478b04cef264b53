"""https://hl7.org/fhir/R4/search.html#sort and https://hl7.org/fhir/R4/http.html#paging

Walking a search by pages of any size, in any order, gives each match once; missing values are last.
"""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from itertools import groupby, pairwise
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from fhir_server.app import Server
from fhir_server.messages import Request
from fhir_server.search.date import compile_date
from fhir_server.search.plan import Plan
from fhir_server.search.sort import sort_keys
from fhir_server.store.changes import Change
from fhir_server.store.documents import Stored
from fhir_server.store.search import Page
from tests.conftest import Fhir
from tests.interactions.asking import BASE, json_of

NOW = datetime(2024, 2, 29, 12, 0, tzinfo=UTC)
COUNT = 41
CHANCE = random.Random(7)


def _patient(number: int) -> dict[str, Any]:
    resource: dict[str, Any] = {"resourceType": "Patient", "id": f"p{number:02}"}
    families = CHANCE.sample(["Ahmed", "begum", "Çelik", "Das", "Ērglis"], CHANCE.randint(0, 3))
    if families:
        resource["name"] = [{"family": family} for family in families]
    if CHANCE.random() < 0.7:
        resource["birthDate"] = CHANCE.choice(["1970", "1970-01", "1970-01-01", "1999-12-31"])
    if CHANCE.random() < 0.5:
        resource["gender"] = CHANCE.choice(["male", "female", "other"])
    if CHANCE.random() < 0.5:
        resource["generalPractitioner"] = [{"reference": f"Practitioner/{CHANCE.randint(1, 3)}"}]
    return resource


def _observation(number: int) -> dict[str, Any]:
    resource: dict[str, Any] = {
        "resourceType": "Observation",
        "id": f"o{number:02}",
        "status": "final",
        "code": {"text": "x"},
    }
    if CHANCE.random() < 0.7:
        value = CHANCE.choice(["1.0", "1.00", "-3", "1e2", "0.1", "99999999999999999999.5"])
        resource["valueQuantity"] = {"value": Decimal(value), "code": "mg"}
    if CHANCE.random() < 0.7:
        resource["effectiveDateTime"] = CHANCE.choice(
            ["2020", "2020-05-05T05:05:05.123Z", "2019-01"]
        )
    return resource


RESOURCES = [make(number) for number in range(COUNT) for make in (_patient, _observation)]
# Type, _sort -> the value of a resource that it is ordered by, where that is easily said.
SORTS: dict[str, tuple[str, ...]] = {
    "Patient": (
        *("_id", "-_id", "_lastUpdated", "-_lastUpdated", "birthdate", "-birthdate"),
        *("family", "-family", "gender", "-gender", "general-practitioner", "-active"),
        *("birthdate,-family", "-gender,birthdate,_id", "family,-_lastUpdated", "name"),
        *("deceased", "-death-date", "gender,-birthdate,family,general-practitioner"),
    ),
    "Observation": (
        "value-quantity",
        "-value-quantity",
        "date",
        "-date",
        "code,-date",
        "-combo-value-quantity",
    ),
}
CASES = [(type, sort) for type, sorts in SORTS.items() for sort in sorts]


def plan(server: Server, type: str, sort: str, count: int) -> Plan:
    """Return the search for everything of ``type`` in the order of ``sort``."""
    keys = sort_keys(sort.split(",") if sort else [], server.context.parameters.of(type))
    return Plan(type, {}, keys, count, "none", "", (), None, "")


async def walked(server: Server, first: Plan) -> list[str]:
    """Return the ids of all pages, in their order."""
    ids: list[str] = []
    wanted = first
    for _ in range(200):
        page = await server.context.store.search(wanted)
        assert len(page.entries) <= wanted.count
        ids += [one.id for one in page.entries]
        if page.after is None:
            return ids
        assert page.entries
        wanted = replace(wanted, after=page.after)
    raise AssertionError("the pages do not end")


@pytest.fixture
async def filled(server: Server) -> Server:
    """The server with the resources, written in three different milliseconds."""
    for start in range(0, len(RESOURCES), 30):
        changes = [
            Change("update", one["resourceType"], one["id"], one)
            for one in RESOURCES[start : start + 30]
        ]
        await server.context.store.write(changes, NOW.replace(microsecond=start * 1000))
    await server.context.store.write(
        [Change("update", "Patient", "gone", {"resourceType": "Patient"})], NOW
    )
    await server.context.store.write([Change("delete", "Patient", "gone")], NOW)
    return server


async def test_any_order_and_any_page_size_give_each_match_once(filled: Server) -> None:
    """Every _sort gives the same ids in the same order on pages of 1, 3, 7 and all."""
    for type, sort in CASES:
        whole = await walked(filled, plan(filled, type, sort, 1000))
        assert sorted(whole) == sorted(r["id"] for r in RESOURCES if r["resourceType"] == type), (
            sort
        )
        for count in (1, 3, 7):
            assert await walked(filled, plan(filled, type, sort, count)) == whole, (sort, count)


async def pages_of(server: Server, first: Plan) -> tuple[list[list[str]], Plan]:
    """Return the ids of each page, and the plan of the last page."""
    found, wanted = [], first
    while True:
        page = await server.context.store.search(wanted)
        found.append([one.id for one in page.entries])
        if page.after is None:
            return found, wanted
        wanted = replace(wanted, after=page.after)


async def back_from(server: Server, last: Plan) -> list[list[str]]:
    """Return the ids of each page before that of ``last``, walking to the first."""
    found: list[list[str]] = []
    page = await server.context.store.search(last)
    while page.before is not None:
        wanted = replace(last, after=None, until=page.before, backward=True)
        page = await server.context.store.search(wanted)
        assert 0 < len(page.entries) <= last.count
        assert page.after == wanted.until
        found.append([one.id for one in page.entries])
        assert len(found) < 200, "the pages do not end"
    return found


async def test_the_way_back_shows_the_same_pages(filled: Server) -> None:
    """From the last page to the first, in every order: what was shown on the way there."""
    for type, sort in CASES:
        for count in (1, 4, 9):
            there, last = await pages_of(filled, plan(filled, type, sort, count))
            assert await back_from(filled, last) == there[-2::-1], (sort, count)


async def test_the_way_back_by_pages_that_are_cut_for_their_size(
    filled: Server,
) -> None:
    """Pages that end early for their bytes miss and repeat nothing, there and back."""
    store = replace(filled.context.store, page_bytes_max=700)
    small = replace(filled, context=replace(filled.context, store=store))
    for sort in ("_id", "-birthdate", "family", "gender,-birthdate"):
        there, last = await pages_of(small, plan(small, "Patient", sort, 30))
        ids = [id for page in there for id in page]
        back = [id for page in await back_from(small, last) for id in reversed(page)]
        assert 5 < len(there) < COUNT
        assert sorted(ids) == sorted(one["id"] for one in RESOURCES if one["id"][0] == "p")
        assert back == ids[: len(back)][::-1], sort
        assert len(back) == len(ids) - len(there[-1])


async def test_a_page_costs_the_same_however_far_on_it_is(server: Server) -> None:
    """There and back, a page looks at its own rows and not at those before it."""
    changes = [
        Change("update", "Observation", f"n{n:04}", {
            "resourceType": "Observation", "status": "final", "code": {"text": "x"},
            "effectiveDateTime": f"2020-01-{n * 7 % 31 + 1:02}T{n % 24:02}:{n % 60:02}:00Z",
            "subject": {"reference": f"Patient/{n % 2}"},
        })
        for n in range(1500)
    ]  # fmt: skip
    await server.context.store.write(changes, NOW)
    for sort in ("-date", "date", "-_lastUpdated", "_id"):
        of_one = {"keys.patient": {"$in": ["Patient/1", "Group/1"]}}
        wanted = replace(plan(server, "Observation", sort, 50), filter=of_one, explain=True)
        last = wanted
        page = await server.context.store.search(wanted)
        while page.after is not None:
            last, wanted = wanted, replace(wanted, after=page.after)
            page = await server.context.store.search(wanted)
        assert page.before is not None
        back = await server.context.store.search(
            replace(wanted, after=None, until=page.before, backward=True)
        )
        for one in (await server.context.store.search(last), back):
            steps = [json.loads(text) for text in one.explained]
            examined = sum(step.get("keysExamined", 0) for step in steps)
            assert len(one.entries) == 50
            assert examined <= 150, (sort, steps)


async def test_walking_while_others_write(filled: Server) -> None:
    """What nobody changes is on one page of each walk, there and back, whatever others write."""
    store = filled.context.store
    kept = {one["id"] for one in RESOURCES if one["id"][0] == "p"}
    turn = 0

    async def disturbed(wanted: Plan) -> Page[Stored]:
        """A page, before which a resource comes and another goes."""
        nonlocal turn
        turn += 1
        new = {"resourceType": "Patient", "birthDate": CHANCE.choice(["1970", "1985", "2001"])}
        await store.write([Change("update", "Patient", f"n{turn:03}", new)], NOW)
        if turn > 3:
            await store.write([Change("delete", "Patient", f"n{turn - 3:03}")], NOW)
        return await store.search(wanted)

    for sort in ("_id", "birthdate", "-birthdate", "-_lastUpdated", "gender,birthdate"):
        first = plan(filled, "Patient", sort, 6)
        there, back = [], []
        wanted, page = first, await disturbed(first)
        there += [one.id for one in page.entries]
        while page.after is not None:
            wanted = replace(first, after=page.after)
            page = await disturbed(wanted)
            there += [one.id for one in page.entries]
        last = [one.id for one in page.entries]
        while page.before is not None:
            page = await disturbed(replace(first, until=page.before, backward=True))
            back += [one.id for one in page.entries]
        assert sorted(kept & set(there)) == sorted(id for id in there if id in kept), sort
        assert kept <= set(there), sort
        seen = [id for id in back if id in kept]
        assert sorted(seen) == sorted(kept - set(last)), sort


async def test_pages_of_a_range_of_dates(filled: Server) -> None:
    """The alternatives of a range, short dates and long, give each match once, in order."""
    for value in (
        "ge2019-01-10",
        "ge2020-05-05",
        "gt2019-06",
        "le2020-05-05",
        "ne2019-01",
        "ap2020",
    ):
        filter = compile_date("keys.date", value, single=True, ordered=True)
        by_id = await walked(filled, replace(plan(filled, "Observation", "", 7), filter=filter))
        assert 0 < len(by_id) < COUNT, value
        for sort in ("date", "-date"):
            first = replace(plan(filled, "Observation", sort, 1000), filter=filter)
            whole = await walked(filled, first)
            assert sorted(whole) == by_id, (value, sort)
            for count in (1, 3):
                assert await walked(filled, replace(first, count=count)) == whole, (value, sort)


async def test_what_began_before_is_looked_for_behind_the_rest(filled: Server) -> None:
    """Newest first, a page that what begins in the range fills asks for nothing else; one that it
    does not fill goes on with what began before. The other way it is all merged."""
    filter = compile_date("keys.date", "ge2020-05-05", single=True, ordered=True)
    begun = [one for one in RESOURCES if one.get("effectiveDateTime") == "2020-05-05T05:05:05.123Z"]
    before = [one for one in RESOURCES if one.get("effectiveDateTime") == "2020"]
    for sort, count, commands in (
        *(("-date", len(begun) - 1, 1), ("-date", len(begun), 2), ("-date", 100, 2)),
        ("date", 100, 2),  # the second for what has no date
    ):
        wanted = replace(plan(filled, "Observation", sort, count), filter=filter, explain=True)
        page = await filled.context.store.search(wanted)
        steps = [json.loads(text) for text in page.explained]
        assert sum("command" in step for step in steps) == commands, (sort, count)
        assert len(page.entries) == min(count, len(begun) + len(before))


def _families(resource: dict[str, Any]) -> list[str]:
    plain = str.maketrans("çē", "ce")
    return [n["family"].lower().translate(plain) for n in resource.get("name", ())]


def _birth(resource: dict[str, Any]) -> list[str]:
    return [(resource["birthDate"] + "-01-01")[:10]] if "birthDate" in resource else []


def _value(resource: dict[str, Any]) -> list[Decimal]:
    return [resource["valueQuantity"]["value"]] if "valueQuantity" in resource else []


ORDERED: dict[str, tuple[str, Callable[[dict[str, Any]], list[Any]], bool]] = {
    "family": ("Patient", _families, False),
    "-family": ("Patient", _families, True),
    "birthdate": ("Patient", _birth, False),
    "-birthdate": ("Patient", _birth, True),
    "value-quantity": ("Observation", _value, False),
    "-value-quantity": ("Observation", _value, True),
}


async def test_values_rise_or_fall_and_missing_ones_are_last(filled: Server) -> None:
    """The least value of several counts on the way up, the greatest on the way down."""
    by_id = {one["id"]: one for one in RESOURCES}
    for sort, (type, values_of, descending) in ORDERED.items():
        ids = await walked(filled, plan(filled, type, sort, 5))
        pick = max if descending else min
        values = [pick(values_of(by_id[id])) if values_of(by_id[id]) else None for id in ids]
        there = [value for value in values if value is not None]
        # Quantities are ordered by the lower bound of what their digits leave open: 1.0 is 0.95 on.
        slack = Decimal("0.5") if type == "Observation" else None

        assert None not in values[: len(there)], sort
        for one, other in pairwise(reversed(there) if descending else there):
            assert one <= (other if slack is None else other + slack), (sort, there)


async def test_ties_are_ordered_by_id(filled: Server) -> None:
    """Among equal values the id decides, up or down, so that pages are the same each time."""
    by_id = {one["id"]: one for one in RESOURCES}
    for sort in ("gender", "-gender"):
        ids = await walked(filled, plan(filled, "Patient", sort, 4))
        groups = [list(group) for _, group in groupby(ids, lambda id: by_id[id].get("gender"))]

        assert len(groups) == 4
        assert all(group in (sorted(group), sorted(group)[::-1]) for group in groups)


async def test_a_deletion_between_pages_moves_nothing(filled: Server) -> None:
    """A page begins behind the last key, whether or not that resource is still there."""
    first = plan(filled, "Patient", "birthdate", 10)
    page = await filled.context.store.search(first)
    shown = [one.id for one in page.entries]
    await filled.context.store.write([Change("delete", "Patient", shown[-1])], NOW)
    rest = await walked(filled, replace(first, after=page.after))

    assert sorted(shown + rest) == sorted(
        r["id"] for r in RESOURCES if r["resourceType"] == "Patient"
    )


async def test_links_lead_through_all_pages(filled: Server, fhir: Fhir) -> None:
    """The next links of a sorted search give each match once, over the front door."""
    parameters: tuple[tuple[str, str], ...] = (("_sort", "-family,birthdate"), ("_count", "6"))
    ids: list[str] = []
    for _ in range(20):
        request = Request("search-type", "Patient", parameters=parameters, base_url=BASE)
        page = json_of(await fhir(request))
        ids += [one["resource"]["id"] for one in page.get("entry", ())]
        links = {link["relation"]: link["url"] for link in page["link"]}
        if "next" not in links:
            break
        parameters = tuple(parse_qsl(urlsplit(links["next"]).query))

    assert len(ids) == len(set(ids)) == COUNT


async def test_links_lead_back_to_the_first_page(filled: Server, fhir: Fhir) -> None:
    """From the last page ``previous`` leads to the first, which has none; ``first`` leads there at
    once. A link that was changed is refused."""

    async def asked(parameters: Any) -> tuple[list[str], dict[str, str]]:
        page = json_of(
            await fhir(
                Request("search-type", "Patient", parameters=tuple(parameters), base_url=BASE)
            )
        )
        ids = [one["resource"]["id"] for one in page.get("entry", ())]
        return ids, {link["relation"]: link["url"] for link in page["link"]}

    start = [("_sort", "-family,birthdate"), ("_count", "6")]
    ids, links = await asked(start)
    assert "previous" not in links
    there = [ids]
    while "next" in links:
        ids, links = await asked(parse_qsl(urlsplit(links["next"]).query))
        there.append(ids)
    assert (await asked(parse_qsl(urlsplit(links["first"]).query)))[0] == there[0]
    back, previous = [ids], [("", "")]
    while "previous" in links:
        previous = parse_qsl(urlsplit(links["previous"]).query)
        ids, links = await asked(previous)
        back.append(ids)
        assert (await asked(parse_qsl(urlsplit(links["next"]).query)))[0] == back[-2]
    assert back == there[::-1]

    name, text = previous[-1]
    changed = (*previous[:-1], (name, ("B" if text[0] == "A" else "A") + text[1:]))
    answer = await fhir(Request("search-type", "Patient", parameters=changed, base_url=BASE))
    assert answer.status == 400


async def test_totals(filled: Server) -> None:
    """An accurate total counts what is there, without deletions; a last page alone knows it too."""
    store = filled.context.store
    first = plan(filled, "Patient", "", 5)

    assert (await store.search(replace(first, total="accurate"))).total == COUNT
    assert (await store.search(first)).total is None
    assert (await store.search(replace(first, count=100))).total == COUNT
    nothing = await store.search(replace(first, count=0, total="accurate"))
    assert (nothing.entries, nothing.total) == ((), COUNT)
