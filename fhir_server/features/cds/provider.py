"""Other knowledge bases beside ours: what they have in common, and how answers become one.

design/cds.md, section 9. A pair that one calls harmless is not removed by it, and a failure is
never silence.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from fhir_server.features.cds.chart import Question
from fhir_server.features.cds.drug import RANK, Finding, NotChecked, Screening
from fhir_server.features.cds.knowledge import Knowledge
from fhir_server.features.cds.screen import ranked, screen


class Provider(Protocol):
    """Answers what speaks against the orders of a question."""

    @property
    def label(self) -> str:
        """What is shown as the source of a card."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of findings that it is asked for."""

    async def screen(self, question: Question, kinds: Sequence[str], timeout_s: float) -> Screening:
        """Return what it finds, within ``timeout_s``; raises ``ProviderFailed``."""


class ProviderFailed(Exception):
    """A knowledge base did not answer, or not as it should; the text says why."""


async def asked_all(
    question: Question,
    kinds: Sequence[str],
    knowledge: Knowledge,
    providers: Sequence[Provider],
    seconds: float,
    *,
    among_current: bool = False,
) -> Screening:
    """Return what our knowledge and all ``providers`` say, which are asked at once."""
    asking = [
        asyncio.ensure_future(_one(one, question, kinds, max(seconds, 0.001))) for one in providers
    ]
    try:
        ours = screen(question, knowledge, kinds, among_current=among_current)
        if not asking:
            return ours
        return merged([ours, *await asyncio.gather(*asking)])
    finally:
        for task in asking:
            task.cancel()


async def _one(
    provider: Provider, question: Question, kinds: Sequence[str], seconds: float
) -> Screening:
    meant = [kind for kind in kinds if kind in provider.kinds]
    if not meant:
        return Screening()
    try:
        return await provider.screen(question, meant, seconds)
    except ProviderFailed as error:
        return Screening(not_checked=(NotChecked(provider.label, "provider-failed", str(error)),))


def merged(screenings: Iterable[Screening]) -> Screening:
    """Return the highest severity per kind and resources, the text of the first that has it, and
    all sources."""
    found: dict[tuple[str, frozenset[str]], Finding] = {}
    doubled: list[Finding] = []
    missing: dict[NotChecked, None] = {}
    for number, screening in enumerate(screenings):
        missing.update(dict.fromkeys(screening.not_checked))
        for one in screening.findings:
            key = (one.kind, frozenset((*one.orders, *one.others)))
            other = found.get(key)
            if other is None:
                found[key] = one
            elif number == 0:
                doubled.append(one)  # two findings of our own about the same are two
            else:
                severity = max(other.severity, one.severity, key=RANK.__getitem__)
                sources = dict.fromkeys((*other.source.split("; "), one.source))
                found[key] = replace(other, severity=severity, source="; ".join(sources))
    return Screening(ranked([*found.values(), *doubled]), tuple(missing))
