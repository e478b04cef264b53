"""https://hl7.org/fhir/R4/search.html: ``_explain=true``, a parameter of this server.

How the database goes about a search, told in the answer.
"""

import json
from decimal import Decimal
from typing import Any

import pytest

from fhir_server.app import Server
from fhir_server.messages import Request
from fhir_server.settings import Settings
from fhir_server.store import joins
from tests.conftest import Fhir
from tests.interactions.asking import BASE, json_of, patient, put
from tests.interactions.test_search_system import asked


def _observation(number: int) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": f"o{number}",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": f"c{number % 2}"}]},
        "subject": {"reference": f"Patient/p{number % 3}"},
        "effectiveDateTime": f"2020-01-0{number % 9 + 1}",
        "valueQuantity": {"value": Decimal("5.4"), "unit": "mg"},
    }


@pytest.fixture
async def filled(fhir: Fhir) -> Fhir:
    """The front door of a server with three patients and twenty observations."""
    for number in range(3):
        await fhir(put(patient(f"p{number}", name=[{"family": f"Das{number}"}], active=True)))
    for number in range(20):
        await fhir(put(_observation(number)))
    return fhir


def steps(bundle: Any) -> list[dict[str, Any]]:
    """Return what the answer tells of each step."""
    [outcome] = [one for one in bundle["entry"] if one["search"]["mode"] == "outcome"]
    issues = outcome["resource"]["issue"]
    assert {one["severity"] for one in issues} == {"information"}
    return [json.loads(one["diagnostics"]) for one in issues]


def named(bundle: Any, step: str) -> list[dict[str, Any]]:
    """Return the steps of that name."""
    return [one for one in steps(bundle) if one["step"] == step]


async def test_the_steps_of_a_search(filled: Fhir) -> None:
    """The filter, the order, the index used, what was looked at, rows and milliseconds."""
    search = "Observation?patient=p1&code=c1&_sort=-date&_count=2&_explain=true&_total=accurate"
    status, bundle = await asked(filled, search)
    [plan] = named(bundle, "plan")
    [matches] = named(bundle, "matches")
    [total] = named(bundle, "total")

    assert status == 200
    assert plan["type"] == "Observation"
    assert plan["sort"] == ["-keys.date.l"]
    assert "keys.patient" in json.dumps(plan["filter"])
    assert matches["command"]["find"] == "Observation"
    assert matches["command"]["limit"] == matches["rows"] == 3
    assert matches["command"]["sort"] == {"keys.date.l": -1, "_id": 1}
    assert len(matches["indexes"]) == 1
    assert "keys.patient_1" in matches["indexes"][0]
    assert 3 <= matches["keysExamined"] <= 10
    assert 3 <= matches["documentsExamined"] <= 10
    assert matches["milliseconds"] > 0
    assert (total["rows"], bundle["total"]) == (1, 4)


async def test_the_same_answer_as_without(filled: Fhir) -> None:
    """Explained or not, the entries and the links lead to the same rows; self says it was asked."""
    for search in (
        "Observation?_count=3&_sort=code,-date",
        "Observation?patient.family=das1&_count=3",
        "Patient?_has:Observation:patient:code=c1&_include=*&_revinclude=Observation:patient",
        "?_type=Patient,Observation&_sort=-_lastUpdated&_count=4",
        "Observation?value-quantity=5.4,7&date=ge2019&_count=2",
    ):
        _, plain = await asked(filled, search)
        status, told = await asked(filled, f"{search}&_explain=true")
        assert status == 200, told
        matches = [one for one in told["entry"] if one["search"]["mode"] != "outcome"]
        assert matches == plain["entry"], search
        assert "_explain=true" in told["link"][0]["url"]
        next = [one["url"] for one in told["link"] if one["relation"] == "next"]
        for url in next:
            without = url.replace("_explain=true&", "")
            assert without != url
            status, page = await asked(filled, without)
            assert (status, "entry" in page) == (200, True)


async def test_the_steps_of_what_is_linked(filled: Fhir) -> None:
    """Chains, _has and each round of includes are steps; the plan says how they hang together."""
    search = "Observation?patient.family=das1&_include=Observation:patient"
    _, bundle = await asked(
        filled, f"{search}&_revinclude:iterate=Observation:patient&_explain=true"
    )
    [join] = named(bundle, "join")
    [plan] = named(bundle, "plan")

    assert (join["command"]["find"], join["rows"]) == ("Patient", 1)
    [along] = named(bundle, "include 1")
    assert (along["command"]["find"], along["rows"]) == ("Patient", 1)
    assert along["indexes"] == ["_id_"]
    assert plan["joins"][0]["field"] == "keys.patient"
    assert "keys.family" in json.dumps(plan["joins"][0]["refersTo"][0]["filter"])
    _, bundle = await asked(filled, "Patient?_has:Observation:patient:code=c1&_explain=true")
    assert "referredToBy" in named(bundle, "plan")[0]["joins"][0]
    assert named(bundle, "join")[0]["command"]["find"] == "Observation"


async def test_a_look_at_each_candidate_is_counted(filled: Fhir, monkeypatch: Any) -> None:
    """Where a chain is looked up for each candidate, what is read there counts as well."""
    for name in ("ONE_PAGE", "FEW", "MANY"):
        monkeypatch.setattr(joins, name, joins.Bounds(0, 0))
    _, bundle = await asked(filled, "Observation?patient.family=das1&_explain=true")
    [matches] = named(bundle, "matches")

    assert "$lookup" in json.dumps(matches["command"])
    assert matches["documentsExamined"] >= 20


async def test_the_steps_of_several_types(filled: Fhir) -> None:
    """One plan for each type, one step that orders each, one that reads what is shown."""
    search = "?_type=Patient,Observation&_sort=-_lastUpdated&_count=21&_explain=true"
    _, bundle = await asked(filled, search)

    assert [one["type"] for one in named(bundle, "plan")] == ["Observation", "Patient"]
    assert len(named(bundle, "order")) == len(named(bundle, "matches")) == 2
    assert named(bundle, "order")[0]["indexes"] == ["last_updated_-1__id_1"]


async def test_long_lists_are_shortened(filled: Fhir) -> None:
    """A list of hundreds of ids says how many more there are."""
    ids = ",".join(f"x{number}" for number in range(100))
    _, bundle = await asked(filled, f"Patient?_id=p1,{ids}&_explain=true")

    assert "… and 81 more" in json.dumps(steps(bundle), ensure_ascii=False)


def test_where_it_is_answered(server: Server) -> None:
    """In development, and in production where it is switched on."""
    assert server.context.settings.is_explaining
    for values in ({"mode": "production"}, {"search_explain": "off"}):
        assert not Settings.model_validate(values).is_explaining
    assert Settings.model_validate({"mode": "production", "search_explain": "on"}).is_explaining


@pytest.fixture
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    """Settings of a test that has ``off`` in its name switch explanations off."""
    off = {"search_explain": "off"} if request.node.name.endswith("_off") else {}
    return settings.model_copy(update=off)


async def test_it_is_refused_where_it_is_off(fhir: Fhir) -> None:
    """400 with the setting's name; under lenient handling a warning instead of it."""
    status, outcome = await asked(fhir, "Patient?_explain=true")
    assert status == 400
    assert "FHIR_SEARCH_EXPLAIN" in outcome["issue"][0]["diagnostics"]
    status, bundle = await asked(fhir, "Patient?_explain=true", "lenient")
    assert status == 200
    assert "FHIR_SEARCH_EXPLAIN" in bundle["entry"][0]["resource"]["issue"][0]["diagnostics"]


async def test_another_word_is_refused(fhir: Fhir) -> None:
    """It is true or false."""
    assert (await asked(fhir, "Patient?_explain=yes"))[0] == 400
    assert (await asked(fhir, "Patient?_explain=false"))[0] == 200


async def test_an_entry_of_a_transaction_is_answered_unexplained(filled: Fhir) -> None:
    """A transaction of the database cannot explain; the search is answered all the same."""
    entries = [{"request": {"method": "GET", "url": "Patient?_explain=true"}}]
    for type in ("transaction", "batch"):
        body = {"resourceType": "Bundle", "type": type, "entry": entries}
        answer = json_of(await filled(Request("transaction", body=body, base_url=BASE)))
        assert len(answer["entry"][0]["resource"]["entry"]) >= 3
