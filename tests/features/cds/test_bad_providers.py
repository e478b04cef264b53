"""design/cds.md, section 15, A16: a knowledge base that fails, hangs, lies, or answers late.

Whatever it does: our own cards, one card that says what could not be checked, and in time.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import settings as limits

from fhir_server.app import Server
from fhir_server.features.cds.drug import KINDS, Screening
from fhir_server.features.cds.http_provider import HttpProvider
from fhir_server.features.cds.provider import ProviderFailed
from fhir_server.features.cds.request import hook_request
from fhir_server.features.cds.services import SERVICES, Answer, DrugSafety, answered
from fhir_server.remote.knowledge import BYTES_MAX, KnowledgeBase, KnowledgeUnanswered
from tests.conformance.cds_hooks.conftest import full, naproxen
from tests.features.cds.test_answers import anythings
from tests.features.cds.test_provider import ASKED

TIMEOUT_S = 0.15
DEADLINE_MS = 300
BUSY_S = 5.0
"""What a busy machine may take on top."""
LABEL = "KB"
SIGN = next(kind for kind in SERVICES if kind.hook == "order-sign")
Behaviour = Callable[[httpx.Request], Coroutine[None, None, httpx.Response]]

ABOUT = {"kind": "interaction", "severity": "high", "orders": ["d0"], "others": ["d1"]}
FINDING = {**ABOUT, "title": "a finding of theirs"}


def saying(status: int = 200, **body: Any) -> Behaviour:
    """Answer with what an ``httpx.Response`` is made of."""

    async def behave(_: httpx.Request) -> httpx.Response:
        return httpx.Response(status, **body)

    return behave


async def hangs(_: httpx.Request) -> httpx.Response:
    await asyncio.Event().wait()
    raise AssertionError


async def late(_: httpx.Request) -> httpx.Response:
    await asyncio.sleep(TIMEOUT_S * 2)
    return httpx.Response(200, json={"findings": [FINDING]})


async def drips(_: httpx.Request) -> httpx.Response:
    async def pieces() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0.01)
            yield b" "

    return httpx.Response(200, content=pieces())


async def refuses(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("nobody listens", request=request)


BAD: dict[str, Behaviour] = {
    "fails": saying(500, json={"findings": []}),
    "is not there": saying(404),
    "wants something else": saying(401, json={"findings": []}),
    "leads elsewhere": saying(302, headers={"Location": "http://169.254.169.254/"}),
    "cannot be reached": refuses,
    "hangs": hangs,
    "is late": late,
    "drips": drips,
    "says too much": saying(content=b" " * (BYTES_MAX + 1)),
    "speaks HTML": saying(text="<html>"),
    "says nothing": saying(content=b""),
    "says null": saying(json=None),
    "says a list": saying(json=[FINDING]),
    "has no findings": saying(json={"cards": []}),
    "has findings of another shape": saying(json={"findings": {"0": FINDING}}),
    "has a finding that is none": saying(json={"findings": [None]}),
    "speaks of another order": saying(json={"findings": [{**FINDING, "orders": ["d9"]}]}),
    "calls a current drug an order": saying(json={"findings": [{**FINDING, "orders": ["d1"]}]}),
    "has a kind of its own": saying(json={"findings": [{**FINDING, "kind": "mood"}]}),
}


async def signed(server: Server, *behaviours: Behaviour) -> tuple[Answer, float]:
    """Return the answer with knowledge bases that behave so, and the seconds that it took."""
    settings = server.context.settings.model_copy(update={"cds_deadline_ms": DEADLINE_MS})
    context = replace(server.context, settings=settings)
    safety = DrugSafety()
    await safety.knowledge(context)
    async with httpx.AsyncClient(transport=httpx.MockTransport(_one_by_url(behaviours))) as http:
        safety.providers = [
            HttpProvider(
                f"{LABEL}{n}",
                KINDS,
                {"high": "contraindicated"},
                KnowledgeBase(f"https://kb{n}.example.org", http),
                (KnowledgeUnanswered,),
                TIMEOUT_S,
            )
            for n in range(len(behaviours))
        ]
        began = time.monotonic()
        request = hook_request(full(naproxen()), "order-sign")
        answer = await answered(safety, SIGN, request, None, context)
        return answer, time.monotonic() - began


def _one_by_url(behaviours: tuple[Behaviour, ...]) -> Behaviour:
    async def behave(request: httpx.Request) -> httpx.Response:
        return await behaviours[int(request.url.host.removeprefix("kb")[0])](request)

    return behave


@pytest.mark.parametrize("what", BAD)
async def test_whatever_it_does(empty: Server, what: str) -> None:
    """Our cards, one that names it as not checked, as a warning, within the deadline."""
    answer, took = await signed(empty, BAD[what])
    said = [card.json for card in answer.cards]
    lost = [card for card in said if card["source"]["topic"]["code"] == "not-checked"]

    assert "naproxen with warfarin" in said[0]["summary"]
    assert len(lost) == 1
    assert lost[0]["indicator"] == "warning"
    assert f"{LABEL}0: the knowledge base did not answer" in lost[0]["detail"]
    assert "a finding of theirs" not in str(said)
    assert took < DEADLINE_MS / 1000 + BUSY_S


async def test_a_good_one_beside_bad_ones(empty: Server) -> None:
    """All are asked at once, and what one of them finds is shown."""
    answer, took = await signed(empty, hangs, saying(json={"findings": [FINDING]}), refuses)
    said = [card.json for card in answer.cards]

    # Of the pair that both know, ours says the words and theirs how severe it is.
    assert said[0]["indicator"] == "critical"
    assert f"{LABEL}1" in said[0]["source"]["label"]
    assert "naproxen with warfarin" in said[0]["summary"]
    assert f"{LABEL}0" in said[-1]["detail"]
    assert f"{LABEL}2" in said[-1]["detail"]
    assert took < DEADLINE_MS / 1000 + BUSY_S


class Says:
    """A knowledge base at the edge that answers with any JSON."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    async def post(self, path: str, body: Any, timeout_s: float) -> Any:
        """Return the answer."""
        return self.answer


@given(anythings, anythings)
@limits(max_examples=1000)
async def test_any_json_is_findings_or_a_failure(whole: Any, one: Any) -> None:
    """Whatever it says is read, or is a failure that is said; nothing else."""
    for answer in (
        whole,
        {"findings": [one], "notChecked": whole},
        {"findings": [{**FINDING}, one]},
    ):
        provider = HttpProvider(LABEL, KINDS, {}, Says(answer), (KnowledgeUnanswered,), 1.0)
        try:
            found = await provider.screen(ASKED, KINDS, 1.0)
        except ProviderFailed:
            continue
        assert isinstance(found, Screening)
        assert all(finding.severity == "serious" for finding in found.findings)
