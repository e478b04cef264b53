"""``Authorization: Bearer`` -> who asks. https://www.rfc-editor.org/rfc/rfc6750

A verdict is remembered for a second at most, counted from before it was asked for: so soon a
revocation holds in every process. Refusals are not remembered, or strangers could fill the memory.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256

import re2 as re

from fhir_server.outcome import FhirError, Issue
from fhir_server.security.grants import Known
from fhir_server.security.principal import Principal
from fhir_server.security.rates import Buckets, Rate
from fhir_server.security.scopes import OF_BACKENDS, POWERS, scopes_of

REMEMBERED_S = 1.0
_REMEMBERED_MAX = 10_000
_TOKEN = re.compile(r"[A-Za-z0-9\-\._~\+/]+=*")
_CHARACTERS_MAX = 8_192


@dataclass(frozen=True, slots=True)
class Verdict:
    """Who a good token is of, and how many requests a second its client may make; 0 is any."""

    principal: Principal
    requests_a_second: int = 0


Judge = Callable[[str], Awaitable[Verdict | None]]
"""A token -> who it is of, ``None`` for one that is not good."""


@dataclass(slots=True)
class Bearer:
    """Says who asks. ``judge`` knows tokens, ``without`` is who asks without one."""

    judge: Judge
    without: Principal
    clock: Callable[[], float] = time.monotonic
    _remembered: dict[bytes, tuple[float, Verdict]] = field(default_factory=dict)
    _looking: dict[bytes, tuple[float, asyncio.Task[Verdict | None]]] = field(default_factory=dict)
    _limits: dict[int, Buckets] = field(default_factory=dict)

    async def __call__(self, headers: Mapping[bytes, bytes]) -> Principal:
        """Return who sent a request with ``headers``. Raises ``login`` (401) for a token that is
        not good, and for any other way of signing in; ``throttled`` (429) for a client that asks
        more often than it is registered for."""
        said = headers.get(b"authorization")
        if said is None:
            return self.without
        scheme, _, token = said.partition(b" ")
        if scheme.lower() != b"bearer":
            raise invalid_token("Send the token in the header Authorization: Bearer.")
        now = self.clock()
        name = sha256(token).digest()
        found = self._remembered.get(name)
        if found is not None and now < found[0]:
            verdict = found[1]
        else:
            self._remembered.pop(name, None)
            verdict = await self._judged(token.strip().decode("latin-1"), name, now)
        if verdict.requests_a_second:
            self._count(verdict, now)
        return verdict.principal

    def _count(self, verdict: Verdict, now: float) -> None:
        most = verdict.requests_a_second
        buckets = self._limits.setdefault(most, Buckets(Rate(most, 2 * most)))
        buckets.check(verdict.principal.client, now)

    async def _judged(self, token: str, name: bytes, now: float) -> Verdict:
        began, looking = self._looking.get(name, (now, None))
        if looking is None or now - began > REMEMBERED_S:
            began, looking = now, asyncio.create_task(self._looked_up(token))
            self._looking[name] = began, looking
            looking.add_done_callback(partial(self._looked, name))
        # All who ask while it is looked up share one look; who leaves ends it for nobody.
        verdict = await asyncio.shield(looking)
        if verdict is None:
            raise invalid_token("The access token is not good, or no more.")
        if len(self._remembered) >= _REMEMBERED_MAX:
            self._remembered = {key: one for key, one in self._remembered.items() if now < one[0]}
            if len(self._remembered) >= _REMEMBERED_MAX:
                self._remembered.clear()
        self._remembered[name] = (began + REMEMBERED_S, verdict)
        return verdict

    def _looked(self, name: bytes, looking: asyncio.Task[Verdict | None]) -> None:
        if self._looking.get(name, (0.0, None))[1] is looking:
            del self._looking[name]
        if not looking.cancelled():
            looking.exception()  # where all who asked have left, nobody else looks at it

    async def _looked_up(self, token: str) -> Verdict | None:
        is_one = len(token) <= _CHARACTERS_MAX and _TOKEN.fullmatch(token)
        return await self.judge(token) if is_one else None


def verdict_on(known: Known | None, audience: str) -> Verdict | None:
    """Return who has the token that is ``known``, if it is for ``audience``; ``""`` is any, where
    this server is called by several names."""
    if known is None or (audience and known.grant.audience != audience):
        return None
    return Verdict(principal_of(known), known.client.requests_a_second)


def principal_of(known: Known) -> Principal:
    """Return who has the token that is ``known``."""
    grant = known.grant
    is_user = bool(grant.user)
    context = {name: value for name, value in grant.context.items() if isinstance(value, str)}
    return Principal(
        "user" if is_user else "client",
        grant.user or known.client.id,
        known.client.id,
        scopes_of(" ".join(grant.scopes)),
        grant.roles if is_user else known.client.roles,
        grant.fhir_user,
        grant.patient,
        token=known.id,
        context=context | ({"encounter": grant.encounter} if grant.encounter else {}),
        others=tuple(one for one in grant.scopes if one in OF_BACKENDS | POWERS),
    )


def invalid_token(text: str) -> FhirError:
    """Return the refusal of a token. RFC 6750, section 3.1."""
    said = f'Bearer error="invalid_token", error_description="{text}"'
    return FhirError(Issue("login", text), headers=(("WWW-Authenticate", said),))
