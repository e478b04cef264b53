"""How often somebody may ask: token buckets, by whoever is counted. The clock is the caller's.

https://www.rfc-editor.org/rfc/rfc6585#section-4; design/security.md, section 6. Each process counts
for itself: with several, a client may have as many times the rate.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address, ip_network

from fhir_server.outcome import FhirError, Issue
from fhir_server.security.principal import Principal

_KEPT_MAX = 100_000
"""The buckets that are kept; those not used for longest go first, and are then full again."""
_NETWORK = {4: 24, 6: 56}


@dataclass(frozen=True, slots=True)
class Rate:
    """``per_s`` in the long run, ``burst`` at once."""

    per_s: float
    burst: float


REQUESTS = Rate(200.0, 400)
"""Requests to the FHIR base, by user and client, where the settings do not say another rate."""
LOGIN = Rate(10 / 60, 10)
"""Tries to sign in that fail, by network (:func:`network_of`)."""
PASSWORDS = Rate(2.0, 60)
"""All tries to sign in, by network: each takes 0.15 s of a core."""
TOKENS = Rate(1.0, 60)
"""Requests to the token endpoint, by client."""


@dataclass(slots=True)
class Buckets:
    """What is left to each one who is counted under one ``rate``."""

    rate: Rate
    _left: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def wait_s(self, key: str, now: float) -> float:
        """Take one for ``key`` at ``now``, seconds of a clock that does not go back.

        Return 0 where there was one; else the seconds until there will be, and nothing is taken.
        """
        rate = self.rate
        left, when = self._left.get(key, (rate.burst, now))
        left = min(rate.burst, left + max(0.0, now - when) * rate.per_s)
        taken = left >= 1.0
        self._left[key] = (left - 1.0 if taken else left), now
        self._left.move_to_end(key)
        if len(self._left) > _KEPT_MAX:
            self._left.popitem(last=False)
        return 0.0 if taken else (1.0 - left) / rate.per_s

    def give_back(self, key: str) -> None:
        """Give ``key`` one back that was taken, and was not to be counted."""
        if key in self._left:
            left, when = self._left[key]
            self._left[key] = min(self.rate.burst, left + 1.0), when

    def check(self, key: str, now: float) -> None:
        """Take one for ``key``. Raises status 429 with ``Retry-After`` where there is none."""
        if wait := self.wait_s(key, now):
            raise throttled(wait)


@dataclass(frozen=True, slots=True)
class Rates:
    """All that is counted in one process."""

    requests: Buckets = field(default_factory=lambda: Buckets(REQUESTS))
    logins: Buckets = field(default_factory=lambda: Buckets(LOGIN))
    tokens: Buckets = field(default_factory=lambda: Buckets(TOKENS))
    passwords: Buckets = field(default_factory=lambda: Buckets(PASSWORDS))

    def admit(self, principal: Principal, address: str, now: float) -> None:
        """Count a request of ``principal``. Raises status 429 for one too many.

        Who is not known is counted with the network; a backend as it was registered, not here.
        """
        if principal.kind == "nobody":
            self.requests.check(f"nobody/{network_of(address)}", now)
        elif principal.kind == "user":
            self.requests.check(principal.key, now)


def throttled(wait_s: float) -> FhirError:
    """Return the refusal of who asks too often, and may again in ``wait_s``."""
    seconds = max(1, math.ceil(wait_s))
    text = f"This is asked too often; ask again in {seconds} s."
    return FhirError(Issue("throttled", text), headers=(("Retry-After", str(seconds)),))


def network_of(address: str) -> str:
    """Return the network that ``address`` is counted with: one household or site has that much.

    >>> network_of("192.0.2.77"), network_of("2001:db8:1:2ff::7"), network_of("::ffff:192.0.2.7")
    ('192.0.2.0/24', '2001:db8:1:200::/56', '192.0.2.0/24')

    What is no address is counted together.
    """
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return str(ip_network((found, _NETWORK[found.version]), strict=False))
