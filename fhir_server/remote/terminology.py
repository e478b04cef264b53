"""The terminology servers behind this one: for a code system each, as the settings name them."""

import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Hashable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from fhir_server.messages import Parameters, Resource
from fhir_server.remote.client import Remote, client

KEPT_S = 3600.0
"""How long an answer is kept: code systems change a few times a year."""
_KEPT_MAX = 20_000


@dataclass(slots=True)
class TerminologyServers:
    """The server for each code system, and what they have said within the last hour."""

    remotes: Mapping[str, Remote]
    clock: Callable[[], float] = time.monotonic
    _kept: OrderedDict[Hashable, tuple[float, Any]] = field(default_factory=OrderedDict)

    async def call(
        self, system: str, path: str, parameters: Parameters = (), body: Resource | None = None
    ) -> Resource:
        """Ask the server for ``system``. Raises what :meth:`Remote.call` does."""
        return await self.remotes[system].call(path, parameters, body)

    def kept(self, question: Hashable) -> Any:
        """Return the answer to ``question`` that is kept, or ``None``."""
        when, answer = self._kept.get(question, (float("-inf"), None))
        return answer if self.clock() - when < KEPT_S else None

    def keep(self, question: Hashable, answer: Any) -> Any:
        """Keep ``answer`` and return it."""
        self._kept[question] = self.clock(), answer
        self._kept.move_to_end(question)
        if len(self._kept) > _KEPT_MAX:
            self._kept.popitem(last=False)
        return answer


@asynccontextmanager
async def terminology_servers(
    bases: Mapping[str, str], seconds: float
) -> AsyncIterator[TerminologyServers]:
    """Open the servers: code system -> base URL."""
    if not bases:
        yield TerminologyServers({})
        return
    async with client(bases.values()) as http:
        servers = {base: Remote(base, seconds, http) for base in set(bases.values())}
        yield TerminologyServers({system: servers[base] for system, base in bases.items()})
