"""How long somebody has to wait who guesses passwords. design/security.md, section 2.3.

Attempts are counted per account *and* network, so that a stranger cannot lock an owner out: five
are free, then the next has to wait 30 s, and twice as long after each, up to 15 min. An account
with a hundred attempts in an hour is under attack from many networks: then one attempt in 30 s is
judged on it, wherever it comes from, and its owner is told; but for networks from which the owner
has signed in within a day, or a stranger could keep the owner out by asking every 30 s.

An attempt is counted before its password is looked at: of a hundred that come at once, five are
judged. One that succeeds takes its count back. What is here is arithmetic; ``store/users.py``
keeps the numbers. A network is that of ``rates.network_of``: /24, /56.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

FREE = 5
"""Attempts of one network on one account that nobody waits for."""
WAIT_S = 30
WAIT_S_MAX = 900
FORGOTTEN = timedelta(hours=24)
"""So long after its last attempt a network begins anew."""
WINDOW = timedelta(hours=1)
ATTEMPTS_MAX = 100
"""Attempts on one account in :data:`WINDOW`, from all networks, before all of them are slowed."""


def wait_after(attempts: int) -> int:
    """Return the seconds that have to pass after the last of ``attempts`` before the next.

    >>> [wait_after(n) for n in (0, 4, 5, 6, 7, 9, 10, 11, 10_000)]
    [0, 0, 30, 60, 120, 480, 900, 900, 900]
    """
    if attempts < FREE:
        return 0
    return min(WAIT_S << min(attempts - FREE, 10), WAIT_S_MAX)


def wait_of_network(attempts: int, last: datetime | None, now: datetime) -> float:
    """Return the seconds that a network still has to wait at an account; 0 is go ahead."""
    if last is None or now - last >= FORGOTTEN:
        return 0.0
    return max(0.0, wait_after(attempts) - (now - last).total_seconds())


def wait_of_account(times: Sequence[datetime], now: datetime) -> float:
    """Return the seconds that everybody has to wait at an account. ``times`` are those of the last
    attempts on it, oldest first."""
    if not is_attacked(times, now):
        return 0.0
    return max(0.0, WAIT_S - (now - times[-1]).total_seconds())


def is_attacked(times: Sequence[datetime], now: datetime) -> bool:
    """Whether there were so many attempts in the last hour that all of them are slowed."""
    recent = [one for one in times[-ATTEMPTS_MAX:] if now - one < WINDOW]
    return len(recent) >= ATTEMPTS_MAX


def kept_times(times: Sequence[datetime], now: datetime) -> list[datetime]:
    """Return ``times`` with an attempt of ``now``, as many as are ever looked at."""
    return [*times, now][-ATTEMPTS_MAX:]
