"""https://hl7.org/fhir/R4/auditevent.html: the record of this server, read and searched."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

import pytest

from fhir_server.app import Server, opened
from fhir_server.dispatch import answer
from fhir_server.messages import Request, Response
from fhir_server.r4.json import decode
from fhir_server.security.audit import Row
from fhir_server.security.chain import Key
from fhir_server.security.plan import AccessPlan, Rights
from fhir_server.security.principal import DEMO, Principal
from fhir_server.settings import Settings
from fhir_server.store.audit import Audit
from tests.conftest import drop

BASE = "http://fhir.example.org/fhir"
ANNA = Principal("demo", "anna", fhir_user="Practitioner/7", address="10.0.0.7", request_id="r1")
PATIENT = {"resourceType": "Patient", "id": "p1", "name": [{"family": "Khan"}]}
WRITTEN = {
    "resourceType": "AuditEvent",
    "type": {"system": "http://example.org", "code": "mine"},
    "action": "R",
    "recorded": "2020-01-01T00:00:00Z",
    "outcome": "0",
    "agent": [{"who": {"reference": "Practitioner/7"}, "requestor": True}],
    "source": {"observer": {"display": "a phone"}},
    "entity": [{"what": {"reference": "Patient/p1"}}],
}
REFUSED = (
    *("update", "patch", "delete", "$meta-add", "$meta-delete", "$expunge"),
    *("conditional-update", "conditional-patch", "conditional-delete"),
)


async def ask(
    server: Server, did: str, type: str = "", id: str = "", by: Principal = ANNA, **said: Any
) -> Response:
    """Ask the front door."""
    context = replace(server.context, principal=by)
    return await answer(server.registry, Request(did, type, id, base_url=BASE, **said), context)


async def searched(server: Server, **parameters: str) -> dict[str, Any]:
    """Return the Bundle of a search of AuditEvent."""
    given = tuple(
        (name.replace("__", ":").replace("_n", "-n"), one) for name, one in parameters.items()
    )
    response = await ask(server, "search-type", "AuditEvent", parameters=given)
    assert response.status == 200, response.body
    found: dict[str, Any] = decode(response.body)
    return found


def ids(bundle: dict[str, Any]) -> list[str]:
    """Return the ids of what was found."""
    return [one["resource"]["id"] for one in bundle.get("entry", ())]


class _Silent(Audit):
    """Records nothing."""

    def add(self, row: Row) -> None:
        pass


@pytest.fixture(scope="module")
async def recorded(mongodb_uri: str) -> AsyncIterator[Server]:
    """A server that was asked five things, and was given an AuditEvent. What it is asked from then
    on it does not record, so that the tests leave it as it is."""
    settings = Settings.model_validate({"mongodb_database": f"test-{uuid4().hex[:12]}"})
    async with opened(settings, mongodb_uri) as server:
        await _asked_before(server)
        silent = _Silent(server.database, Key(b""), server.context.new_id, 1)
        store = replace(server.context.store, audit=silent)
        yield replace(server, context=replace(server.context, store=store))
        await drop(server.database)


async def _asked_before(server: Server) -> None:
    await ask(server, "create", "AuditEvent", body=WRITTEN)
    await ask(server, "update", "Patient", "p1", body=PATIENT)
    await ask(server, "read", "Patient", "p1")
    await ask(server, "read", "Patient", "p2", by=replace(ANNA, name="ben", fhir_user=""))
    await ask(server, "search-type", "Patient", parameters=(("name", "Khan"),))
    await ask(server, "$meta", "Patient", "p1")
    audit = server.context.store.audit
    assert audit is not None
    await audit.flushed()


# what is asked -> how many are found of the six rows, and of the client's one
SEARCHES: dict[str, tuple[dict[str, str], int]] = {
    "everything": ({}, 7),
    "by patient": ({"patient": "p1"}, 6),
    "by patient, as reference": ({"patient": "Patient/p1"}, 6),
    "by patient, another": ({"patient": "p3"}, 0),
    "by agent": ({"agent": "Practitioner/7"}, 6),
    "by agent's identifier": ({"agent__identifier": "ben"}, 1),
    "by entity": ({"entity": "Patient/p2"}, 1),
    "by entity's bare id": ({"entity": "p2"}, 1),
    "by action": ({"action": "R"}, 3),
    "by actions": ({"action": "C,U"}, 2),
    "by outcome": ({"outcome": "4"}, 1),
    "by type": ({"type": "rest"}, 6),
    "by type of a client": ({"type": "http://example.org|mine"}, 1),
    "by subtype": ({"subtype": "read"}, 2),
    "by subtype with system": ({"subtype": "http://hl7.org/fhir/restful-interaction|update"}, 1),
    "by subtype of another system": ({"subtype": "http://example.org|update"}, 0),
    "operations": ({"subtype": "operation"}, 1),
    "by address": ({"address": "10.0"}, 6),
    "by site": ({"site": BASE}, 6),
    "by date": ({"date": "lt2021"}, 1),
    "by dates": ({"date": "ge2021"}, 6),
    "by several": ({"patient": "p1", "action": "R", "date": "ge2021"}, 1),
    "by what rows do not have": ({"source": "Device/1"}, 0),
    "by what would be a pattern": ({"address": ".*"}, 0),
}


@pytest.mark.parametrize(("parameters", "count"), SEARCHES.values(), ids=SEARCHES)
async def test_the_record_is_searched(
    recorded: Server, parameters: dict[str, str], count: int
) -> None:
    """Each parameter finds rows by what their AuditEvents say, and those of clients as ever."""
    found = await searched(recorded, **parameters)

    assert len(ids(found)) == count == found["total"]


async def test_pages_lead_through_everything_once_in_the_order_of_time(recorded: Server) -> None:
    """Newest first; with _sort=date oldest first."""
    whole = ids(await searched(recorded, date="lt2999", _sort="date"))
    for order in ("date", "-date"):
        seen: list[str] = []
        bundle = await searched(recorded, date="lt2999", _sort=order, _count="2")
        while True:
            seen += ids(bundle)
            links = {one["relation"]: one["url"] for one in bundle["link"]}
            if "next" not in links or len(seen) > 40:
                break
            query = tuple(parse_qsl(urlsplit(links["next"]).query))
            response = await ask(recorded, "search-type", "AuditEvent", parameters=query)
            bundle = decode(response.body)
        assert seen == (whole if order == "date" else whole[::-1])


async def test_a_row_is_read_as_an_audit_event(recorded: Server) -> None:
    """read and vread; it has one version, and says what it is."""
    [id] = ids(await searched(recorded, entity="Patient/p2"))
    response = await ask(recorded, "read", "AuditEvent", id)
    event = decode(response.body)

    assert (response.status, response.version) == (200, 1)
    assert (event["action"], event["outcome"], event["id"]) == ("R", "4", id)
    assert (await ask(recorded, "vread", "AuditEvent", id, version="1")).body == response.body
    assert (await ask(recorded, "vread", "AuditEvent", id, version="2")).status == 404
    assert (await ask(recorded, "read", "AuditEvent", f"{id[:-1]}f")).status == 404
    assert recorded.context.validate(event) == ()


@pytest.mark.parametrize("interaction", REFUSED)
async def test_nobody_changes_or_deletes_what_is_recorded(
    recorded: Server, interaction: str
) -> None:
    """Neither a row nor an AuditEvent of a client; alone, and in a bundle."""
    every = ids(await searched(recorded))
    settings = recorded.context.settings.model_copy(update={"expunge": True})
    server = replace(recorded, context=replace(recorded.context, settings=settings))
    for id in (every[0], every[-1]):
        given = "" if interaction.startswith("conditional") else id
        body = {**WRITTEN, "id": id, "action": "E"}
        response = await ask(server, interaction, "AuditEvent", given, body=body)
        assert response.status == 405
    assert set(every) <= set(ids(await searched(recorded, _count="100")))


async def test_one_is_loaded_under_its_own_id_once(recorded: Server) -> None:
    """A PUT under a new id creates it; the same again changes nothing; another is refused."""
    event = {**WRITTEN, "id": "loaded", "recorded": "2019-01-01T00:00:00Z"}
    statuses = [
        (await ask(recorded, "update", "AuditEvent", "loaded", body=body)).status
        for body in (event, event, {**event, "action": "E"})
    ]
    row = f"{recorded.context.new_id()}.00000000.0000"
    refused = await ask(recorded, "update", "AuditEvent", row, body={**event, "id": row})
    await recorded.database["AuditEvent"].delete_one({"_id": "loaded"})

    assert statuses == [201, 200, 405]
    assert refused.status == 405


@pytest.mark.parametrize("type", ["transaction", "batch"])
async def test_no_bundle_changes_what_is_recorded(recorded: Server, type: str) -> None:
    """Its entries are judged as if they had come alone."""
    *_, id = ids(await searched(recorded))
    entry = {"request": {"method": "DELETE", "url": f"AuditEvent/{id}"}}
    body = {"resourceType": "Bundle", "type": type, "entry": [entry]}
    response = await ask(recorded, "transaction", body=body)

    assert response.status == 405 or b'"405 ' in response.body
    assert (await ask(recorded, "read", "AuditEvent", id)).status == 200


@pytest.mark.parametrize(
    ("parameters", "status"),
    [
        ((("altids", "1"),), 400),
        ((("patient:missing", "true"),), 400),
        ((("_sort", "agent"),), 400),
        ((("date", "soon"),), 400),
        ((("_cursor", "AAAA"),), 400),
        ((("agent.name", "x"),), 400),
    ],
)
async def test_what_is_not_served_is_refused(
    recorded: Server, parameters: tuple[tuple[str, str], ...], status: int
) -> None:
    """With a sentence, not by finding too much."""
    response = await ask(recorded, "search-type", "AuditEvent", parameters=parameters)

    assert response.status == status


async def test_rows_are_shown_to_whom_everything_of_them_is_open(recorded: Server) -> None:
    """A condition on AuditEvent is about what rows do not have: it opens none."""
    *_, mine = ids(await searched(recorded))
    rows = [one for one in ids(await searched(recorded)) if one != mine]
    within = {"compartments": "Patient/p1"}
    for predicate, roles, sees in (
        ({}, (), True),
        (within, (), False),
        (within, ("administrator",), True),
    ):
        rights = Rights({("AuditEvent", "r"): predicate, ("AuditEvent", "s"): predicate}, roles)
        plan = AccessPlan({"AuditEvent": predicate}, {})
        store = recorded.context.store.narrowed(plan)
        context = replace(recorded.context, store=store, rights=rights, principal=DEMO)
        read = await answer(recorded.registry, Request("read", "AuditEvent", rows[0]), context)
        found = await answer(recorded.registry, Request("search-type", "AuditEvent"), context)
        assert (read.status == 200) is sees
        assert (rows[0] in ids(decode(found.body))) is sees


async def test_the_capability_statement_says_so(recorded: Server) -> None:
    """No update, patch or delete, and the parameters that are served."""
    statement, _ = recorded.context.capabilities(BASE)
    [found] = [
        one for one in decode(statement)["rest"][0]["resource"] if one["type"] == "AuditEvent"
    ]

    assert {one["code"] for one in found["interaction"]} == {
        *("read", "vread", "create", "search-type", "history-instance", "history-type")
    }
    assert {one["name"] for one in found["searchParam"]} >= {"date", "patient", "agent", "entity"}
    assert "searchInclude" not in found
    assert (found["updateCreate"], found["conditionalDelete"]) == (False, "not-supported")
    assert {one["name"] for one in found["operation"]}.isdisjoint({"meta-add", "expunge"})


async def test_the_system_cannot_be_expunged_of_it(recorded: Server) -> None:
    """$expunge of everything leaves AuditEvents."""
    context = recorded.context
    settings = context.settings.model_copy(update={"expunge": True})
    body = {
        "resourceType": "Parameters",
        "parameter": [{"name": "expungeEverything", "valueBoolean": True}],
    }
    asked = replace(context, settings=settings, principal=DEMO)
    await answer(recorded.registry, Request("$expunge", body=body), asked)

    assert len(ids(await searched(recorded, date="lt2021"))) == 1


async def test_nobody_records_in_the_name_of_this_server(server: Server) -> None:
    """An AuditEvent of a client says who observed; that it was this server, none may say, in
    whatever way it is written. Who loads a record may."""
    context = replace(server.context, access=_to_write)
    server = replace(server, context=context)
    writer = Principal("client", "phone")
    named: list[dict[str, Any]] = [
        {"observer": {"identifier": {"value": BASE}}},
        {"observer": {"identifier": {"value": f"{BASE}/"}}},
        {"observer": {"reference": BASE}},
        {"observer": {"display": "a phone"}, "site": BASE},
    ]
    for source in named:
        body = {**WRITTEN, "source": source}
        entry = {"resource": body, "request": {"method": "POST", "url": "AuditEvent"}}
        bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}
        once = await ask(
            server, "create", "AuditEvent", by=writer, body=body, if_none_exist="action=C"
        )
        together = await ask(server, "transaction", by=writer, body=bundle)
        assert (await ask(server, "create", "AuditEvent", by=writer, body=body)).status == 403
        assert (once.status, together.status) == (403, 403)
    assert (await ask(server, "create", "AuditEvent", by=writer, body=WRITTEN)).status == 201
    body = {**WRITTEN, "source": named[0]}
    assert (await ask(server, "create", "AuditEvent", body=body)).status == 201


async def _to_write(principal: Principal, context: Any) -> Rights:
    return Rights({("AuditEvent", letter): {} for letter in "cs"})
