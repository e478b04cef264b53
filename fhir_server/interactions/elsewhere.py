"""What nobody here can tell of a code, asked of the terminology server that a setting names for it.

Only codes, displays and value sets go out: nothing of a patient.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from fhir_server.interactions.terms import Terms
from fhir_server.r4.questions import Coded, CodeInSystem, CodeInValueSet
from fhir_server.remote.client import Refused, Unanswered
from fhir_server.terminology.elsewhere import asked_of, coded_from, path_of, system_of

QUESTIONS_MAX = 200
"""The questions of one request that are passed on."""

Question = CodeInSystem | CodeInValueSet


async def asked_elsewhere(questions: Collection[Question], terms: Terms) -> dict[Question, Coded]:
    """Return what other servers say of those of ``questions`` for which there is one."""
    remotes = terms.context.terminology.remotes
    if not remotes or not questions:
        return {}
    systems = {one: await _system(one, terms, remotes) for one in questions}
    wanted = [(one, system) for one, system in systems.items() if system][:QUESTIONS_MAX]
    answers = await asyncio.gather(*(_asked(one, system, terms) for one, system in wanted))
    return {one: answer for (one, _), answer in zip(wanted, answers, strict=True)}


async def _system(question: Question, terms: Terms, remotes: Iterable[str]) -> str:
    """Return the code system whose server can answer ``question``, or ``""``."""
    if question.system:
        return system_of(question.system, remotes)
    assert isinstance(question, CodeInValueSet)
    if found := system_of(question.value_set, remotes):
        return found
    value_set = await terms.artifact("ValueSet", question.value_set) or {}
    parts = value_set.get("compose", {}).get("include", ())
    named = {system_of(part.get("system", ""), remotes) for part in parts}
    # A code without a system could be one of several: nobody is asked who knows but a part.
    return named.pop() if len(named) == 1 else ""


async def _asked(question: Question, system: str, terms: Terms) -> Coded:
    servers = terms.context.terminology
    if terms.is_common and (kept := servers.kept(question)) is not None:
        return kept  # type: ignore[no-any-return]
    value_set: Mapping[str, Any] | None = None
    if isinstance(question, CodeInValueSet):
        if not question.system:
            question = question._replace(system=system)
        if not system_of(question.value_set, (system,)):
            value_set = await terms.artifact("ValueSet", question.value_set)
    body = asked_of(question, value_set)
    try:
        answer = coded_from(await servers.call(system, path_of(question), body=body))
    except (Refused, Unanswered) as error:
        return Coded(None, f"The terminology server for {system} cannot tell: {error}.")
    return servers.keep(question, answer) if terms.is_common else answer
