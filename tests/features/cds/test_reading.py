"""design/cds.md, section 3.2: what a client did not send is read, and at what cost."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from fhir_server.app import Server
from fhir_server.features.cds.prefetch import MEASURED, TEMPLATES, Fetched, fetched, wanted
from fhir_server.features.cds.reading import MEASURED_ROWS, Source, Unread, completed, read_chart
from fhir_server.features.cds.request import HookRequest, hook_request
from fhir_server.messages import Request
from fhir_server.store.keys import SERVER
from tests.conformance.cds_hooks.conftest import PATIENT, bundle, hook, order
from tests.examined import examining

BASE = "http://127.0.0.1:8080/fhir"
NEXT = [{"relation": "next", "url": f"{BASE}/Observation?page=2"}]


def observation(key: str, days: int, value: float = 1) -> dict[str, Any]:
    """Return what was measured of ``key`` so many days ago."""
    return {
        "resourceType": "Observation",
        "id": f"{key}-{days}",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": MEASURED[key]}]},
        "subject": {"reference": "Patient/p1"},
        "effectiveDateTime": (datetime.now(UTC) - timedelta(days=days)).date().isoformat(),
        "valueQuantity": {"value": value, "code": "kg"},
    }


class Asked:
    """A FHIR server of one patient with some observations: what it was asked, newest first."""

    def __init__(self, *observations: dict[str, Any]) -> None:
        self.paths: list[str] = []
        self.rows = sorted(observations, key=lambda one: one["effectiveDateTime"], reverse=True)

    async def get(self, path: str) -> dict[str, Any]:
        """Answer a read or a search."""
        self.paths.append(path)
        if not path.startswith("Observation?"):
            return bundle()
        meant = [one for one in self.rows if one["code"]["coding"][0]["code"] in path]
        found = bundle(*meant[:MEASURED_ROWS])
        return {**found, "link": NEXT} if len(meant) > MEASURED_ROWS else found

    @property
    def source(self) -> Source:
        """This server, as a source."""
        return Source(BASE, self.get)

    @property
    def searches(self) -> int:
        """How many searches of observations there were."""
        return sum(path.startswith("Observation?") for path in self.paths)


def asking() -> HookRequest:
    """Return a request that brings nothing."""
    return hook_request(hook(order("n", "naproxen", "draft")), "order-sign")


async def read(
    asked: Asked, known: dict[str, Fetched] | None = None, seconds: float = 10
) -> dict[str, Fetched]:
    """Return what is known after reading."""
    nothing = fetched({}, TEMPLATES)
    return await completed(
        nothing if known is None else known, asking(), asked.source, pages_max=5, seconds=seconds
    )


async def test_all_values_are_one_search() -> None:
    """Weight, height, creatinine and potassium of a visit: one search, and the newest of each."""
    asked = Asked(*(observation(key, day) for key in MEASURED for day in (1, 30)))
    found = await read(asked)

    assert asked.searches == 1
    assert {key: found[key].resources[0]["id"] for key in MEASURED} == {
        key: f"{key}-1" for key in MEASURED
    }


async def test_a_rare_value_is_found_behind_frequent_ones() -> None:
    """A height of last year, with potassium every day since: a second search, without potassium."""
    daily = [observation("potassium", day) for day in range(1, 200)]
    asked = Asked(*daily, observation("height", 300), observation("creatinine", 301))
    found = await read(asked)

    assert asked.searches == 2
    assert found["height"].resources[0]["id"] == "height-300"
    assert found["creatinine"].resources[0]["id"] == "creatinine-301"
    assert found["potassium"].resources[0]["id"] == "potassium-1"
    assert found["weight"].state == "empty"


async def test_another_unit_of_the_same_is_not_sought() -> None:
    """A creatinine in mg/dL is newer than any in µmol/L that is not beside it: no search for it."""
    rows = [observation(key, day) for key in MEASURED for day in range(1, 50)]
    asked = Asked(*(row for row in rows if not row["id"].startswith("creatinineMolar")))
    found = await read(asked)

    assert asked.searches == 1
    assert found["creatinineMolar"].state == "empty"


async def test_every_value_is_found_however_many_there_are() -> None:
    """The worst case, each measured more often than the next: as many searches as values."""
    ages = {key: place * 100 for place, key in enumerate(MEASURED)}
    asked = Asked(
        *(observation(key, first + day) for key, first in ages.items() for day in range(1, 60))
    )
    found = await read(asked)

    assert asked.searches <= len(MEASURED)
    assert {found[key].state for key in ("weight", "height", "potassium")} == {"data"}
    assert found["creatinine"].state == "data"


async def test_the_next_page_of_a_value_is_not_followed() -> None:
    """``_count=1`` has a next page, of older values: what the client sent is enough."""
    asked = Asked(observation("weight", 5))
    newest = {**bundle(observation("weight", 1)), "link": NEXT}
    sent = {**dict.fromkeys(TEMPLATES), "weight": newest}
    known = fetched(sent, TEMPLATES)
    found = await read(asked, known)

    assert asked.paths == []
    assert found["weight"].resources[0]["id"] == "weight-1"


async def test_what_cannot_be_read_stays_unknown() -> None:
    """A server that refuses: nothing is known, and nothing is taken for empty."""

    async def refuses(path: str) -> dict[str, Any]:
        raise Unread(path)

    known = fetched({}, TEMPLATES)
    found = await completed(known, asking(), Source(BASE, refuses), pages_max=5, seconds=10)

    assert wanted(found) == wanted(known)


async def test_the_chart_is_read_in_a_row() -> None:
    """For a write: one after the other, values included."""
    asked = Asked(observation("weight", 1))
    found = await read_chart(asked.source, "p1", 5)

    assert [path.partition("?")[0] for path in asked.paths] == [
        *("Patient/p1", "MedicationRequest", "MedicationStatement", "AllergyIntolerance"),
        "Observation",
    ]
    assert found["weight"].state == "data"


def others(count: int) -> list[dict[str, Any]]:
    """Return other patients, each with a drug, an allergy and a weight."""
    found = []
    for n in range(count):
        subject = {"reference": f"Patient/other{n}"}
        found += [
            {"resourceType": "Patient", "id": f"other{n}"},
            {**order(f"x{n}", "aspirin"), "subject": subject},
            {
                "resourceType": "AllergyIntolerance",
                "id": f"x{n}",
                "patient": subject,
                "code": {"text": "Penicillin"},
            },
            {**observation("weight", n + 1), "id": f"x{n}", "subject": subject},
        ]
    return found


@pytest.mark.parametrize(("months", "patients"), [(1, 0), (40, 60)])
async def test_what_a_call_costs_does_not_grow(
    hooks: httpx.AsyncClient, server: Server, months: int, patients: int
) -> None:
    """Five commands, however much was measured and however many other patients there are, and at
    most a page of what was measured is looked at."""
    rows = [
        observation(key, 30 * n + 1, 4)
        for key in ("weight", "height", "creatinine", "potassium")
        for n in range(months)
    ]
    drugs = [order(f"m{n}", name) for n, name in enumerate(("warfarin", "metformin", "digoxin"))]
    stored = [PATIENT, *drugs, *rows, *others(patients)]
    await asyncio.gather(
        *(
            server.perform(Request("update", one["resourceType"], one["id"], body=one))
            for one in stored
        )
    )
    body = hook(order("n", "naproxen", "draft"), fhirServer=BASE)
    path = "/cds-services/drug-safety-sign"
    first = await hooks.post(path, json=body)
    await server.registry.routes["/cds-services"].recorder.written()
    async with examining(server.database) as looked:
        again = await hooks.post(path, json=body)
        await server.registry.routes["/cds-services"].recorder.written()

    assert [card["summary"] for card in first.json()["cards"]] == [
        card["summary"] for card in again.json()["cards"]
    ]
    assert "naproxen with warfarin" in again.text
    # The heartbeat of the server belongs to no call.
    found = [one["command"].get("find") for one in looked.commands]
    reading = [one for one in found if one not in (None, SERVER)]
    assert len(reading) <= 5
    assert looked.documents <= 1 + len(drugs) + MEASURED_ROWS + 4
