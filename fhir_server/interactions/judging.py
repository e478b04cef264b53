"""Judging resources against profiles: what the judgement asks for is looked up, and it is repeated.

https://hl7.org/fhir/R4/validation.html

There are two ways in. :func:`judged` waits: ``$validate`` and what is said after a write use it.
:func:`check_profiles` does not: it is called wherever a write is judged, inside an attempt to write
as well, and raises :class:`Unanswered` where something is to be looked up first. ``dispatch`` then
looks it up and performs the request again; nothing was written by then.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fhir_server.context import Context
from fhir_server.interactions.coding import answered as codes_answered
from fhir_server.interactions.defining import definitions
from fhir_server.messages import Resource, Response
from fhir_server.outcome import FhirError, Issue
from fhir_server.r4.json import decode_stored, encode
from fhir_server.r4.questions import (
    Answers,
    Canonical,
    Coded,
    CodeInSystem,
    CodeInValueSet,
    Prepared,
    Question,
    Target,
    Unanswered,
)
from fhir_server.r4.references import target
from fhir_server.store.conformance import Memory
from fhir_server.validation.profiles import Judgement
from fhir_server.validation.running import WHOLE, Limits, ProfileOptions

ROUNDS_MAX = 16
"""How often a judgement may ask: a profile, what it derives from, its extensions, their codes."""
QUESTIONS_MAX = 20_000
"""What one request may have looked up."""
TIME_S = 20.0
"""Seconds after which a request is not judged again."""
_APART_BYTES = 65_536  # from here on a judgement does not hold up other requests
# What takes more, or has a profile to compile, is judged again in a thread.
_AT_ONCE = Limits(20_000, 0, 20_000, compiles=False)
# A write is judged inside the attempt to write, between other requests: whoever stored the
# profile, it takes tenths of a second at the most.
_WRITING = Limits(50_000, 30, 50_000, compiles=False)
_ANSWER_BYTES = 200
_NOT_YET = object()


@dataclass(frozen=True, slots=True)
class Wish:
    """What a resource is held to: ``profiles`` besides what it claims, and ``options``."""

    profiles: tuple[str, ...] = ()
    options: ProfileOptions = field(default_factory=ProfileOptions)


_INVARIANTS = Wish(options=ProfileOptions(meta_profiles=False, codes=False, vital_signs=False))
_TOLERATED = "(txt-2)."  # narrative that shows nothing harms nobody, and official examples have it
_NOTHING = Memory()


class Known(Mapping[Question, Any]):
    """The answers that a request has got, and behind them what this process remembers."""

    def __init__(self, answers: Answers, memory: Memory) -> None:
        self.answers = answers
        self._memory = memory

    def get(self, question: Question, default: Any = None) -> Any:
        """Return the answer to ``question``, or ``default``."""
        found = self.answers.get(question, _NOT_YET)
        return found if found is not _NOT_YET else self._memory.get(question, default)

    def __getitem__(self, question: Question) -> Any:
        found = self.get(question, _NOT_YET)
        if found is _NOT_YET:
            raise KeyError(question)
        return found

    def __contains__(self, question: object) -> bool:
        return self.get(question, _NOT_YET) is not _NOT_YET  # type: ignore[arg-type]

    def __bool__(self) -> bool:
        return True  # what is remembered is not counted

    def __iter__(self) -> Iterator[Question]:
        return iter(self.answers)

    def __len__(self) -> int:
        return len(self.answers)


async def known_of(context: Context) -> Known:
    """Return what is known now: the answers of this request and what this process remembers."""
    return Known(context.answers, await context.store.conformance.memory())


async def judged(resource: Resource, wish: Wish, context: Context) -> tuple[Issue, ...]:
    """Return what ``resource`` breaks, in the order of its elements; it is valid in structure.

    Raises ``too-costly`` where a judgement asks for more than one request may have looked up, or
    takes longer than it may.
    """
    end = time.monotonic() + TIME_S
    known = await known_of(context)
    count = 0
    for _ in range(ROUNDS_MAX):
        judgement = await _apart(resource, wish, known, context)
        open = frozenset(one for one in judgement.asked if one not in known)
        if not open:
            return tuple(judgement.issues)
        count += len(open)
        if count > QUESTIONS_MAX or time.monotonic() > end:
            break
        answers = {**known.answers, **await answered(open, context)}
        known = await known_of(replace(context, answers=answers))
    raise too_costly()


async def answered(questions: Iterable[Question], context: Context) -> dict[Question, Any]:
    """Return the answers to ``questions``: definitions, codes, and what local references lead to.

    Nothing outside of this server is asked.
    """
    questions = list(questions)
    canonicals = [one for one in questions if isinstance(one, Canonical)]
    found: dict[Question, Any] = dict((await definitions(canonicals, context)).items())
    codes = [one for one in questions if isinstance(one, CodeInValueSet | CodeInSystem)]
    if codes:
        memory = await context.store.conformance.memory()
        told = await codes_answered(codes, context)
        for one in codes:
            answer = told.get(one) or Coded(None, "Nobody here can tell")
            found[one] = memory.put(one, answer, _ANSWER_BYTES + sum(map(len, one)))
    if profiles := [one.url for one in questions if isinstance(one, Prepared)]:
        found |= await _prepared(profiles, context)
    targets = [one for one in questions if isinstance(one, Target)]
    resources = await asyncio.gather(*(_target(one, context) for one in targets))
    found |= dict(zip(targets, resources, strict=True))
    return found


async def _prepared(profiles: list[str], context: Context) -> dict[Question, Any]:
    """Have ``profiles`` compiled in a thread; return what that asked for."""
    found: dict[Question, Any] = {}
    for _ in range(ROUNDS_MAX):
        known = await known_of(replace(context, answers={**context.answers, **found}))
        asked = await asyncio.to_thread(context.profiles.prepare, profiles, known)
        open = [one for one in asked if one not in known]
        if not open:
            return found
        found |= await answered(open, context)
    raise too_costly()


async def judged_first(
    work: Callable[[Context], Awaitable[Response]], context: Context
) -> Response:
    """Return what ``work`` answers once what its judgements ask for is answered.

    It is begun again with the answers; it has written nothing as long as it asks.
    """
    end = time.monotonic() + TIME_S
    await context.store.conformance.memory()
    for _ in range(ROUNDS_MAX):
        try:
            return await work(context)
        except Unanswered as open:
            if len(context.answers) + len(open.questions) > QUESTIONS_MAX or time.monotonic() > end:
                break
            answers = {**context.answers, **await answered(open.questions, context)}
            context = replace(context, answers=answers)
    raise too_costly()


def check_profiles(resource: Resource, context: Context) -> None:
    """Refuse (422) a ``resource`` about to be written that breaks a profile it is held to here, or
    an invariant of R4 itself.

    Does nothing where the settings refuse nothing. Raises :class:`Unanswered`.
    """
    settings, type = context.settings, resource["resourceType"]
    if settings.validation and settings.mode_of(type) == "refuse":
        known = Known(context.answers, context.store.conformance.remembered)
        judgement = _judge(resource, wish_of(type, context), known, context, _WRITING)
        open: list[Question] = [one for one in judgement.asked if one not in known]
        if open or judgement.uncompiled:
            raise Unanswered([*open, *map(Prepared, judgement.uncompiled)])
        errors = [one for one in judgement.issues if one.severity in ("error", "fatal")]
        if errors:
            raise FhirError(*judgement.issues[: settings.issues_max], status=422)
    elif (
        settings.invariants and type != "Binary" and not context.profiles.holds(resource, _WRITING)
    ):
        # What would have to be looked up first is not: profiles and codes are not meant here.
        found = _judge(resource, _INVARIANTS, Known({}, _NOTHING), context, _WRITING).issues
        errors = [
            one
            for one in found
            if one.code == "invariant"
            and one.severity == "error"
            and not one.diagnostics.endswith(_TOLERATED)
        ]
        if errors:
            raise FhirError(*errors[: settings.issues_max], status=422)


async def remarks(resource: Resource, context: Context) -> tuple[Issue, ...]:
    """Return what is said of a ``resource`` that was written, where the setting warns.

    Errors are warnings then. That something cannot be judged is one as well: the write was made.
    """
    type = resource["resourceType"]
    if not context.settings.validation or context.settings.mode_of(type) != "warn":
        return ()
    try:
        issues = await judged(resource, wish_of(type, context), context)
    except FhirError as error:
        issues = error.issues
    issues = issues[: context.settings.issues_max]
    return tuple(
        replace(one, severity="warning") if one.severity in ("error", "fatal") else one
        for one in issues
    )


def wish_of(type: str, context: Context) -> Wish:
    """Return what a ``type`` is held to when it is written."""
    return Wish(context.settings.profiles.get(type, ()))


def too_costly() -> FhirError:
    """Return the refusal of a judgement that leads too far."""
    text = (
        f"The profiles of this resource lead to more than {QUESTIONS_MAX:,} other definitions and "
        f"codes, through more than {ROUNDS_MAX} levels, or take longer than {TIME_S:g} s."
    )
    return FhirError(Issue("too-costly", text), status=422)


async def _apart(resource: Resource, wish: Wish, known: Known, context: Context) -> Judgement:
    """Judge in a thread what would hold up other requests."""
    if len(encode(resource)) <= _APART_BYTES:
        found = _judge(resource, wish, known, context, _AT_ONCE)
        if not found.uncompiled and not found.is_cut:
            return found
    return await asyncio.to_thread(_judge, resource, wish, known, context, WHOLE)


def _judge(
    resource: Resource, wish: Wish, known: Known, context: Context, limits: Limits
) -> Judgement:
    options = wish.options
    return context.profiles.judge(resource, wish.profiles, known, options=options, limits=limits)


async def _target(question: Target, context: Context) -> Resource | None:
    found = target(question.reference, context.parameters.base_urls)
    if not found.id or found.type not in context.definitions.resource_types:
        return None
    stored = await context.store.read(found.type, found.id)
    if stored is None or stored.deleted:
        return None
    return decode_stored(stored.json)
