"""https://hl7.org/fhir/R4/search.html#total"""

from dataclasses import replace
from typing import Any

import pytest

from fhir_server.app import Server
from fhir_server.search.chain import Join, Link, Selection
from fhir_server.search.plan import Plan
from fhir_server.store import totals
from fhir_server.store.changes import Change
from tests.store.test_search import NOW

COUNT = 60


@pytest.fixture
async def filled(server: Server) -> Server:
    """The server with sixty patients, a third of them active, one more deleted."""
    changes = [
        Change("update", "Patient", f"p{n}", {"resourceType": "Patient", "active": n % 3 == 0})
        for n in range(COUNT)
    ]
    await server.context.store.write(changes, NOW)
    await server.context.store.write(
        [Change("update", "Patient", "gone", {"resourceType": "Patient"})], NOW
    )
    await server.context.store.write([Change("delete", "Patient", "gone")], NOW)
    return server


def plan(server: Server, **members: Any) -> Plan:
    """Return the search for a page of five with an estimated total."""
    return replace(Plan("Patient", {}, (), 5, "estimate", "", (), None, ""), **members)


def active(server: Server) -> dict[str, Any]:
    """Return the filter of active patients."""
    field = server.context.parameters.of("Patient")["active"].field
    return {field: {"$regex": "^true"}}


JOIN = Join(Link("keys.patient", True, False), True, (Selection("Observation", {}),))


async def test_an_estimate_is_exact_while_it_is_small(filled: Server) -> None:
    """Filters and links are heeded; without any the collection's own size is taken."""
    store = filled.context.store
    found = {
        "filter": await store.search(plan(filled, filter=active(filled))),
        "links": await store.search(plan(filled, joins=(JOIN,))),
        "nothing": await store.search(plan(filled)),
    }

    assert {name: page.total for name, page in found.items()} == {
        "filter": COUNT // 3,
        "links": 0,
        "nothing": COUNT + 1,
    }


async def test_an_estimate_stops_counting(filled: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over its bound it is judged from a sample, and is the bound at least; an accurate total is
    never an estimate."""
    monkeypatch.setattr(totals, "COUNTED_MAX", 10)
    monkeypatch.setattr(totals, "_SAMPLE", 30)
    monkeypatch.setattr(totals, "_SAMPLED_SHARE_MAX", 1)
    store = filled.context.store
    wanted = plan(filled, filter=active(filled))
    estimates = {(await store.search(wanted)).total for _ in range(20)}

    assert all(one is not None and 10 <= one <= COUNT for one in estimates)
    assert len(estimates) > 1, "a sample differs from time to time"
    accurate = await store.search(replace(wanted, total="accurate"))
    assert accurate.total == COUNT // 3


async def test_an_estimate_in_a_transaction(
    filled: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a transaction cannot ask of the database is counted, up to the bound."""
    monkeypatch.setattr(totals, "COUNTED_MAX", 10)

    async def work(store: Any) -> list[int | None]:
        plans = (plan(filled), plan(filled, filter=active(filled)))
        return [(await store.search(one)).total for one in plans]

    store = filled.context.store
    assert await store.in_transaction(work, ["Observation"]) == [10, 10]
