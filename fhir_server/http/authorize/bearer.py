"""``Authorization: Bearer`` -> who asks. https://www.rfc-editor.org/rfc/rfc6750

A verdict is remembered for a second at most, counted from before it was asked for: so soon a
revocation holds in every process. Refusals are not remembered, or strangers could fill the memory.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

import re2 as re

from fhir_server.outcome import FhirError, Issue
from fhir_server.security.grants import Known
from fhir_server.security.principal import Principal
from fhir_server.security.scopes import scopes_of

REMEMBERED_S = 1.0
_REMEMBERED_MAX = 10_000
_TOKEN = re.compile(r"[A-Za-z0-9\-\._~\+/]+=*")
_CHARACTERS_MAX = 8_192

Judge = Callable[[str], Awaitable[Principal | None]]
"""A token -> who it is of, ``None`` for one that is not good."""


@dataclass(slots=True)
class Bearer:
    """Says who asks. ``judge`` knows tokens, ``without`` is who asks without one."""

    judge: Judge
    without: Principal
    clock: Callable[[], float] = time.monotonic
    _remembered: dict[bytes, tuple[float, Principal]] = field(default_factory=dict)

    async def __call__(self, headers: Mapping[bytes, bytes]) -> Principal:
        """Return who sent a request with ``headers``. Raises ``login`` (401) for a token that is
        not good, and for any other way of signing in."""
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
            return found[1]
        self._remembered.pop(name, None)
        return await self._judged(token.strip().decode("latin-1"), name, now)

    async def _judged(self, token: str, name: bytes, now: float) -> Principal:
        is_one = len(token) <= _CHARACTERS_MAX and _TOKEN.fullmatch(token)
        principal = await self.judge(token) if is_one else None
        if principal is None:
            raise invalid_token("The access token is not good, or no more.")
        if len(self._remembered) >= _REMEMBERED_MAX:
            self._remembered = {key: one for key, one in self._remembered.items() if now < one[0]}
            if len(self._remembered) >= _REMEMBERED_MAX:
                self._remembered.clear()
        self._remembered[name] = (now + REMEMBERED_S, principal)
        return principal


def principal_of(known: Known, audience: str) -> Principal | None:
    """Return who has the token that is ``known``, if it is for ``audience``; ``""`` is any, where
    this server is called by several names."""
    grant = known.grant
    if audience and grant.audience != audience:
        return None
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
    )


def invalid_token(text: str) -> FhirError:
    """Return the refusal of a token. RFC 6750, section 3.1."""
    said = f'Bearer error="invalid_token", error_description="{text}"'
    return FhirError(Issue("login", text), headers=(("WWW-Authenticate", said),))
