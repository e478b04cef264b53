"""HL7 over HTTP; design/hl7v2.md, section 3: ``POST /hl7v2``, batches, files. Checks H6 and H7."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.hl7v2.ack import answered
from adapters.hl7v2.folder import Folder
from adapters.hl7v2.http import Endpoint
from adapters.hl7v2.inbox import UnavailableError
from fhir_server.http.authorize.bearer import invalid_token
from fhir_server.http.site import CONTEXT, IDENTIFY
from fhir_server.outcome import FhirError, Issue
from fhir_server.security.principal import DEMO, NOBODY, Principal
from fhir_server.security.scopes import scopes_of
from tests.adapters.hl7v2.conftest import OpenSite, Site, adt

MEDIA = "application/hl7-v2"


def client_of(site: Site, principal: Principal = DEMO) -> httpx.AsyncClient:
    """Return a client of the route, without a socket between, whose token is of ``principal``."""

    async def identify(headers: Any) -> Principal:
        if headers.get(b"authorization") == b"Bearer bad":
            raise invalid_token("The access token is not good, or no more.")
        return principal

    endpoint = Endpoint(site.interface.intake)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await endpoint(scope | {CONTEXT: site.server.context, IDENTIFY: identify}, receive, send)

    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://site")


@pytest.fixture
async def client(lasting_site: Site) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the site that all tests here share."""
    async with client_of(lasting_site) as client:
        yield client


async def posted(client: httpx.AsyncClient, body: bytes, media: str = MEDIA) -> httpx.Response:
    """Post ``body``."""
    return await client.post("/hl7v2", content=body, headers={"Content-Type": media})


LAB = Principal("client", "lab", "lab", scopes_of("system/*.rs"), ("backend",))
# who, token -> status
CALLERS = {
    "nobody": (NOBODY, "", 401),
    "a token that is not good": (LAB, "Bearer bad", 401),
    "a backend without the scope": (LAB, "Bearer good", 403),
    "a backend with it": (replace(LAB, others=("hl7v2/submit",)), "Bearer good", 200),
}


@pytest.mark.parametrize(("principal", "token", "status"), CALLERS.values(), ids=CALLERS)
async def test_h6_messages_come_from_whom_they_may(
    lasting_site: Site, principal: Principal, token: str, status: int
) -> None:
    """Without a token with the scope nothing of a message is read, and nothing kept."""
    async with client_of(lasting_site, principal) as client:
        headers = {"Content-Type": MEDIA} | ({"Authorization": token} if token else {})
        answer = await client.post("/hl7v2", content=adt("W0"), headers=headers)
    assert answer.status_code == status
    assert (b"MSA" in answer.content) is (status == 200)
    assert ("bearer" in answer.headers.get("www-authenticate", "").lower()) is (status != 200)


# body, media type -> status, MSA-1
STATUSES = {
    "taken": (adt("W1"), MEDIA, 200, "AA"),
    "er7": (adt("W2"), "application/hl7-v2+er7; charset=utf-8", 200, "AA"),
    "x-er7": (adt("W3"), "x-application/hl7-v2+er7", 200, "AA"),
    "refused": (adt("W4", m11="X"), MEDIA, 200, "AR"),
    "not applied": (adt("W5").partition(b"PID|")[0], MEDIA, 200, "AE"),
    "commit alone": (adt("W6", m15="AL", m16="NE"), MEDIA, 200, "CA"),
    "application before commit": (adt("W7", m15="AL", m16="AL"), MEDIA, 200, "AA"),
    "no answer": (adt("W8", m15="NE", m16="NE"), MEDIA, 204, ""),
    "no message": (b"hello", MEDIA, 400, "AR"),
    "nothing": (b"", MEDIA, 400, "AR"),
    "other media": (adt("W9"), "text/plain", 415, ""),
}


@pytest.mark.parametrize(("body", "media", "status", "code"), STATUSES.values(), ids=STATUSES)
async def test_h6_the_status_is_of_the_exchange_and_msa_1_of_the_message(
    client: httpx.AsyncClient, body: bytes, media: str, status: int, code: str
) -> None:
    """The table of section 3, one case each."""
    answer = await posted(client, body, media)

    assert (answer.status_code, answered(answer.content)[0]) == (status, code)


async def test_h6_other_methods_are_refused(client: httpx.AsyncClient) -> None:
    """With 405, and the one that is possible."""
    answer = await client.get("/hl7v2")

    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


async def test_h6_the_charset_parameter_loses_against_msh_18(site: Site) -> None:
    """And it counts where the message says nothing."""
    async with client_of(site) as client:
        declared = adt("L1", "P1", "Müller", m18="8859/1").decode().encode("latin-1")
        silent = adt("L2", "P2", "Łódź").decode().encode("iso8859-2")
        await posted(client, declared, f"{MEDIA}; charset=8859/2")
        await posted(client, silent, f"{MEDIA}; charset=8859/2")
    found = {one["name"][0]["family"] for one in await site.search("Patient")}

    assert found == {"Müller", "Łódź"}


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
async def test_h9_utf_16_and_32_are_read_by_their_mark(
    lasting_site: Site, client: httpx.AsyncClient, codec: str
) -> None:
    """One message and a batch; answered in the same, kept byte for byte; repeated, once."""
    number = f"U-{codec}"
    text = adt(number, number, "রহমান & Łódź").decode().replace(" & ", " \\T\\ ")
    single = await posted(client, f"\ufeff{text}".encode(codec))
    again = await posted(client, f"\ufeff{text}".encode(codec))
    both = "".join(adt(f"{number}-{n}", f"{number}-{n}", "Łódź").decode() for n in (1, 2))
    batch = await posted(client, f"\ufeffBHS|^~\\&\r{both}BTS|2\r".encode(codec))
    lines = batch.content.decode(codec[:6]).split("\r")
    [patient] = await lasting_site.search("Patient", identifier=number)
    [second] = await lasting_site.search("Patient", identifier=f"{number}-2")

    assert answered(single.content) == ("AA", number)
    assert single.content == again.content
    assert single.content[:2] in (b"\xff\xfe", b"\xfe\xff", b"\x00\x00")
    assert patient["name"][0]["family"] == "রহমান & Łódź"
    assert second["name"][0]["family"] == "Łódź"
    assert [one[:6] for one in lines if one.startswith("MSA")] == ["MSA|AA", "MSA|AA"]
    row = next(one for one in await lasting_site.rows() if one.get("control_id") == number)
    assert await lasting_site.binary(row["binary"]) == f"\ufeff{text}".encode(codec)


@pytest.mark.parametrize("cut", [1, 2, 3])
async def test_h9_what_is_not_what_its_mark_says_is_answered(
    client: httpx.AsyncClient, cut: int
) -> None:
    """AE 102 or 400, never a replacement character: half a pair, half a character."""
    text = f"\ufeff{adt(f'CUT{cut}', f'CUT{cut}', 'x').decode()}".encode("utf-16-le")
    answer = await posted(client, text[:-cut] + (b"\x00\xd8" if cut == 2 else b""))
    several = await posted(client, b"\xff\xfe\x00\x00" + b"\xff" * 64 + b"MSH|" * 8)

    assert answered(answer.content)[0] == "AE"
    assert several.status_code == 400


@pytest.mark.parametrize(
    "error", [UnavailableError(), FhirError(Issue("transient", "later"), status=503)]
)
async def test_h6_what_cannot_be_stored_is_503(error: Exception) -> None:
    """With Retry-After, whether or not the interface was open before the database went."""

    async def anybody(_headers: Any) -> Principal:
        return DEMO

    async def unavailable(context: Any) -> Any:
        raise error

    async def app(scope: Any, receive: Any, send: Any) -> None:
        beside = {CONTEXT: None, IDENTIFY: anybody}
        await Endpoint(unavailable)(scope | beside, receive, send)

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://site") as client:
        answer = await posted(client, adt("Z1"))

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


async def test_h73_a_batch_of_too_many_messages_is_413(open_site: OpenSite) -> None:
    """As many as are taken are taken; over MLLP the connection ends, and the sender repeats."""
    site = await open_site(hl7_batch_messages_max=3)
    async with client_of(site) as client:
        fits = await posted(client, batch(3))
        large = await posted(client, batch(4))
    peer = await site.peer()
    await peer.send(batch(4))

    assert (fits.status_code, large.status_code) == (200, 413)
    assert await peer.answer() == b""


async def test_h6_what_is_too_large_is_413(open_site: OpenSite) -> None:
    """A message above its limit, a batch above the limit of batches."""
    site = await open_site(hl7_message_bytes_max=2000, hl7_batch_bytes_max=10_000)
    async with client_of(site) as client:
        large = await posted(client, adt("L1") + b"NTE|1||" + b"x" * 3000)
        batch = await posted(client, b"BHS|^~\\&\r" + adt("L2") * 200)

    assert (large.status_code, batch.status_code) == (413, 413)


def batch(count: int, *, bad: int = -1, said: str = "", trailer: bool = True) -> bytes:
    """Return a batch of ``count`` messages of which one has no patient."""
    messages = [adt(f"B{n}", f"P{n}") for n in range(count)]
    if bad >= 0:
        messages[bad] = messages[bad].partition(b"PID|")[0]
    end = f"BTS|{said or count}\rFTS|1\r".encode() if trailer else b""
    return b"FHS|^~\\&\rBHS|^~\\&\r" + b"".join(messages) + end


BATCHES = {
    "right counts": (batch(5, bad=3), ""),
    "wrong count": (batch(5, bad=3, said="7"), "BTS-1"),
    "no trailer": (batch(5, bad=3, trailer=False), "BHS has no BTS."),
    "no header": (batch(5, bad=3).partition(b"BHS|^~\\&\r")[2], "BTS has no BHS."),
    "one after the other": (batch(5, bad=3).partition(b"BHS|^~\\&\r")[2].partition(b"BTS")[0], ""),
}


@pytest.mark.parametrize(("body", "warning"), BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("way", ["http", "frame", "file"])
async def test_h7_one_bad_message_does_not_cost_the_others(
    site: Site, tmp_path: Path, body: bytes, warning: str, way: str
) -> None:
    """By HTTP, in a frame and as a file: answers in order, the bad one named, warnings in BTS."""
    if way == "frame" and not body.startswith((b"FHS", b"BHS")):
        pytest.skip("without a header several messages in a frame are refused: H16")
    answer = await answer_to(body, way, site, tmp_path)
    lines = [line for line in answer.decode().split("\r") if line]
    codes = [tuple(line.split("|")[1:3]) for line in lines if line.startswith("MSA")]

    assert codes == [("AE" if n == 3 else "AA", f"B{n}") for n in range(5)]
    assert lines[0].startswith("BHS|")
    assert lines[-1].startswith("BTS|5|")
    assert warning in lines[-1]
    assert len(await site.search("Patient")) == 4


async def answer_to(body: bytes, way: str, site: Site, folder: Path) -> bytes:
    """Send ``body`` by that way; return what is answered."""
    if way == "http":
        async with client_of(site) as client:
            return (await posted(client, body)).content
    if way == "frame":
        peer = await site.peer()
        await peer.send(body)
        return await peer.answer()
    file = folder / "labs.hl7"
    file.write_bytes(body)
    assert not await Folder(folder, site.intake).take(file)
    assert (folder / "failed" / "labs.hl7").read_bytes() == body
    return (folder / "labs.hl7.ack").read_bytes()
