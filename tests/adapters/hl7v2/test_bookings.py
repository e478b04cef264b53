"""design/scheduling.md, section 4: a message books by the same rule as everybody else."""

import pytest

from adapters.hl7v2.ack import answered
from fhir_server.messages import Request
from fhir_server.outcome import FhirError
from tests.adapters.hl7v2.conftest import Site, adt


def siu(control: str, number: str, start: str, event: str = "S12") -> bytes:
    """Return a message about half an hour of one patient, from ``start`` on in Dhaka."""
    head, _, pid = adt(control, "P1", type=f"SIU^{event}").decode().partition("\rEVN")
    start = f"20360102{start}00+0600"
    sch = f"SCH|{number}||||||ROUTINE^Routine||30|min^minutes|^^30^{start}|||||||||||||"
    ais = f"AIS|1|A|CONS^Consultation^L|{start}|||30|min"
    pid = pid.partition("\r")[2].rstrip("\r")
    return f"{head}\r{sch}\r{pid}\rRGS|1|A\r{ais}\r".encode()


async def test_h57_a_time_that_is_taken_is_refused(site: Site) -> None:
    """The sender is told what is taken and the message is kept; others are refused by what a
    message has booked; what it cancels is free again."""
    peer = await site.peer()
    assert await peer.ask(siu("1", "A1", "0900")) == "AA"
    [booked] = await site.search("Appointment")
    again = Request("create", "Appointment", body=booked)
    await peer.send(siu("2", "A2", "0910"))
    refused = await peer.answer()

    assert answered(refused)[0] == "AE"
    assert b"is taken in the time that begins 2036-01-02T03:10Z" in refused
    kept = await site.server.database["inbox"].find({"state": "dead"}).to_list()
    assert [one["code"] for one in kept[0]["issues"][-2:]] == ["conflict", "not-found"]
    with pytest.raises(FhirError, match="is taken"):
        await site.server.perform(again)
    assert await peer.ask(siu("3", "A1", "0900", "S15")) == "AA"
    assert await peer.ask(siu("4", "A3", "0910")) == "AA"
