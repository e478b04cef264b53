"""design/cds.md, section 9: other knowledge bases over HTTP, good and bad ones."""

import json
from typing import Any

import httpx

from fhir_server.features.cds.chart import Question
from fhir_server.features.cds.drug import KINDS, Drug, Patient
from fhir_server.features.cds.http_provider import HttpProvider
from fhir_server.features.cds.knowledge import Knowledge
from fhir_server.features.cds.provider import asked_all
from fhir_server.remote.knowledge import FAILURES_MAX, KnowledgeBase, KnowledgeUnanswered

ASKED = Question(
    (Drug("MedicationRequest/secret-1", "ibuprofen", {"5640": None}),),
    (Drug("MedicationRequest/secret-2", "metformin", {"6809": None}),),
    (),
    Patient(),
)
FINDING = {
    "kind": "interaction",
    "severity": "high",
    "orders": ["d0"],
    "others": ["d1"],
    "title": "ibuprofen with metformin",
}


class Answers:
    """A knowledge base at the edge: what it was asked, and what it answers."""

    def __init__(self, status: int, body: Any) -> None:
        self.status, self.body = status, body
        self.asked: list[bytes] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.content)
        return httpx.Response(self.status, json=self.body)


async def screened(answers: Answers, knowledge: Knowledge, times: int = 1) -> Any:
    """Return what is found with a knowledge base that answers so."""
    async with httpx.AsyncClient(transport=httpx.MockTransport(answers)) as http:
        base = KnowledgeBase("https://kb.example.org", http)
        severities = {"high": "contraindicated"}
        provider = HttpProvider("KB", KINDS, severities, base, (KnowledgeUnanswered,), 5.0)
        found = None
        for _ in range(times):
            found = await asked_all(ASKED, KINDS, knowledge, [provider], 5.0)
        return found


async def test_its_findings_stand_beside_ours(knowledge: Knowledge) -> None:
    """Its words are mapped, and nothing that identifies a person or resource is sent."""
    answers = Answers(200, {"findings": [FINDING]})
    found = await screened(answers, knowledge, times=2)

    assert [(one.title, one.severity) for one in found.findings if one.source == "KB"] == [
        ("ibuprofen with metformin", "contraindicated")
    ]
    assert b"secret" not in answers.asked[0]
    assert len(answers.asked) == 1, "the same question is not asked again"


async def test_failures_are_said(knowledge: Knowledge) -> None:
    """An error, another shape, an order that was not asked about: never silence."""
    strange = {**FINDING, "orders": ["d1"], "others": ["d0"]}
    for answers in (
        Answers(500, {}),
        Answers(200, []),
        Answers(200, {"findings": [{"kind": "x"}]}),
        Answers(200, {"findings": [strange]}),
    ):
        found = await screened(answers, knowledge)
        assert "provider-failed" in {one.reason for one in found.not_checked}, json.dumps(
            answers.body
        )


async def test_it_is_left_alone_while_it_fails(knowledge: Knowledge) -> None:
    """After some failures it is not asked for a while."""
    answers = Answers(503, {})
    await screened(answers, knowledge, times=FAILURES_MAX + 3)

    assert len(answers.asked) == FAILURES_MAX
