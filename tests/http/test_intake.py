"""design/security.md, section 5: how fast a body comes, how many are held, how much gzip holds."""

import asyncio
import gzip
from dataclasses import replace
from typing import Any

import pytest

from fhir_server.app import Server
from fhir_server.http import intake
from fhir_server.http.body import body_pieces
from fhir_server.http.intake import Bodies, Intake
from fhir_server.outcome import FhirError
from tests.http.conftest import application, exchange

GZIP = {b"content-encoding": b"gzip"}
MB = 1_048_576


def sender(*pieces: tuple[float, bytes], ends: bool = True) -> Any:
    """Return a ``receive`` to which each piece comes after so many seconds."""
    rest = [*pieces]

    async def receive() -> dict[str, Any]:
        if not rest:
            await asyncio.Event().wait()
        seconds, piece = rest.pop(0)
        await asyncio.sleep(seconds)
        return {"type": "http.request", "body": piece, "more_body": bool(rest) or not ends}

    return receive


async def taken(bodies: Bodies, receive: Any, headers: Any = None, most: int = 9 * MB) -> bytes:
    """Return the body that ``receive`` gives, given back at once."""
    one = Intake(receive, bodies)
    try:
        return await one.body(headers or {}, most, 60.0)
    finally:
        one.release()


SLOW = {
    "nothing at all": ([], False),
    "nothing any more": ([(0, b"x" * 10)], False),
    "a byte now and then": ([(0.05, b"x")] * 40, True),
}


@pytest.mark.parametrize(("pieces", "ends"), SLOW.values(), ids=SLOW)
async def test_who_is_too_slow_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, pieces: Any, ends: bool
) -> None:
    """408, a while after there was nothing; the clock is set to a fiftieth."""
    monkeypatch.setattr(intake, "QUIET_S", 0.1)
    bodies = Bodies()
    with pytest.raises(FhirError) as refused:
        await taken(bodies, sender(*pieces, ends=ends))
    assert (refused.value.status, bodies.held) == (408, 0)


async def test_who_is_slow_but_comes_on_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clinic's line: each kilobyte gives it another second."""
    monkeypatch.setattr(intake, "QUIET_S", 0.1)
    body = await taken(Bodies(), sender(*[(0.06, b"x" * 512)] * 6))
    assert len(body) == 6 * 512


async def test_all_bodies_together_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """503 with ``Retry-After`` for one too many; what is given back can be taken again."""
    bodies = Bodies(1000)
    first = Intake(sender((0, b"x" * 600)), bodies)
    assert len(await first.body({}, MB, 60.0)) == 600

    with pytest.raises(FhirError) as refused:
        await taken(bodies, sender((0, b"x" * 300), (0, b"x" * 300)))
    assert (refused.value.status, bodies.held) == (503, 600)
    assert refused.value.headers == (("Retry-After", "2"),)
    with pytest.raises(FhirError):
        await taken(bodies, sender((0, gzip.compress(b"x" * 600))), GZIP)

    first.release()
    assert bodies.held == 0
    assert len(await taken(bodies, sender((0, b"x" * 900)))) == 900


async def test_after_every_answer_nothing_is_held(empty: Server) -> None:
    """Whatever becomes of the request."""
    bodies = Bodies(10_000)
    inner = application(empty)
    site = replace(inner, facade=replace(inner.facade, bodies=bodies))
    headers = {"content-type": "application/fhir+json"}
    for target in ("Patient/$validate", "Patient", "Nothing", "Binary", "$none", "Patient/_search"):
        await exchange(site, "POST", target, headers, b'{"resourceType":"Patient","x":1}')
        assert bodies.held == 0
    answer = await exchange(site, "POST", "Patient", headers, b" " * 10_001)
    assert (answer.status_code, bodies.held) == (503, 0)


@pytest.mark.parametrize(("size", "fits"), [(MB, True), (8 * MB, False)])
async def test_gzip_holds_a_hundred_times_its_size_at_most(size: int, fits: bool) -> None:
    """413 for more; a megabyte is no bomb. Whole, and in pieces."""
    packed = gzip.compress(bytes(size))
    for way in (taken(Bodies(), sender((0, packed)), GZIP), pieces_of(packed)):
        if fits:
            assert len(await way) == size
            continue
        with pytest.raises(FhirError) as refused:
            await way
        assert refused.value.status == 413
        assert "100 times" in str(refused.value)


async def pieces_of(packed: bytes) -> bytes:
    """Return what comes of ``packed`` as pieces."""
    found = body_pieces(sender((0, packed)), GZIP, 100 * MB, 60.0)
    return b"".join([piece async for piece in found])


@pytest.mark.parametrize(("count", "status"), [(99, 200), (100, 431)])
async def test_headers_are_counted(empty: Server, count: int, status: int) -> None:
    """A hundred at most, the Host among them."""
    headers = {f"x-{number}": "a" for number in range(count)}
    answer = await exchange(application(empty), "GET", "metadata", headers)
    assert answer.status_code == status
