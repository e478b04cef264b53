"""design/scheduling.md, section 7: who calls whom, and what a queue tells."""

from dataclasses import replace

from fhir_server.app import Server
from fhir_server.store.queues import QUEUES
from tests.features.scheduling.queues import BARE, Desk, reference
from tests.security.principals import user

STAFF = user("fatema", roles=("front-desk",), fhir_user="Practitioner/fatema")
PATIENT = user("amina", roles=("patient",), fhir_user="Patient/amina")
ANALYST = user("ana", roles=("analyst",), fhir_user="Practitioner/ana")


async def test_staff_call_and_others_see_numbers(desk: Desk, place: str) -> None:
    """The front desk does everything; a patient sees numbers alone, and calls nobody."""
    staff, patient = replace(desk, principal=STAFF), replace(desk, principal=PATIENT)
    await desk.put("Patient", "amina")
    one = (await staff("$issue-token", place, patient=reference("Patient/amina")))["encounter"]
    on = f"Encounter/{one['id']}"
    for who in (patient, replace(desk, principal=ANALYST)):
        assert (await who("$issue-token", place, **BARE)).status == 403
        assert (await who.call(place)).status == 403
        assert (await who("$board-link", place)).status == 403
        assert (await who("$finish", on)).status == 403
    assert (await staff.call(place)).status == 200
    [seen] = (await staff("$queue", place)).all("entry")
    assert seen["encounter"] == {"reference": on}
    told = await patient("$queue", place)
    [seen] = told.all("entry")
    assert seen.keys() == {"token", "state", "counter"}
    assert told.all("today") == []
    assert (await staff("$recall", on)).status == 200
    assert (await staff("$finish", on)).status == 200
    nobody = replace(desk, principal=user("x"))
    assert (await nobody("$queue", place)).status == 403


async def test_a_hidden_visit_is_left_to_others(desk: Desk, place: str) -> None:
    """Who may not see a visit calls the next one that it sees, and is told of no Encounter."""
    staff = replace(desk, principal=STAFF)
    hidden, seen = await desk.take(place), await desk.take(place)
    secret = [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "PSY"}]
    found = await desk.read(hidden)
    meta = {**found["meta"], "security": secret}
    await desk.put("Encounter", found["id"], **{**found, "meta": meta})
    assert (await staff.read(hidden))["resourceType"] == "OperationOutcome"
    shown = (await staff("$queue", place)).all("entry")
    assert ["encounter" in one for one in shown] == [False, True]
    assert (await staff.call(place))["encounter"]["id"] == seen.partition("/")[2]
    told = await staff.call(place)
    assert (told.status, hidden.partition("/")[2] in str(told.body)) == (404, False)
    assert (await staff("$finish", hidden)).status == 404
    assert (await desk.call(place))["token"] == "CARD-001"


async def test_no_name_is_in_a_queue(desk: Desk, two: list[Server], place: str) -> None:
    """What boards are made of has no name and no reason for the visit."""
    await desk.put("Patient", "named", name=[{"family": "Rahman", "given": ["Amina"]}])
    await desk("$issue-token", place, patient=reference("Patient/named"))
    rows = await two[0].database[QUEUES].find({"patient": "named"}).to_list()
    assert len(rows) == 1
    assert "Rahman" not in str(rows)
