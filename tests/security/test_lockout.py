"""design/security.md, section 2.3 and check A12: what guessing comes to."""

import random
from collections import defaultdict
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.security.lockout import (
    is_attacked,
    kept_times,
    wait_after,
    wait_of_account,
    wait_of_network,
)
from fhir_server.security.rates import network_of

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR_S = 3600


class Door:
    """What the store keeps, in memory: counts of pairs, times of accounts."""

    def __init__(self) -> None:
        """Nobody has tried."""
        self.pairs: dict[tuple[int, int], tuple[int, datetime | None]] = {}
        self.times: dict[int, list[datetime]] = defaultdict(list)
        self.judged: dict[int, int] = defaultdict(int)

    def guess(self, account: int, network: int, now: datetime) -> bool:
        """Return whether a wrong guess is judged."""
        count, last = self.pairs.get((account, network), (0, None))
        times = self.times[account]
        if max(wait_of_network(count, last, now), wait_of_account(times, now)) > 0:
            return False
        self.pairs[account, network] = (count + 1, now)
        self.times[account] = kept_times(times, now)
        self.judged[account] += 1
        return True


def _of_a_pair() -> int:
    """Five at once, then after 30, 60, 120, 240, 480 s and each 900 s: as many as fit an hour."""
    found, at, wait = 5, 0, 30
    while at + wait <= HOUR_S:
        at, found = at + wait, found + 1
        wait = min(2 * wait, 900)
    return found


OF_AN_ACCOUNT = 100 + HOUR_S // 30
"""A hundred, then one in 30 s."""


@pytest.mark.parametrize(
    ("accounts", "networks"), [(100, 50), (1, 50), (100, 1), (10, 5), (1, 1), (3, 50)]
)
def test_guesses_of_an_hour(accounts: int, networks: int) -> None:
    """A12: of 10,000 guesses in an hour as many are judged as section 2.3 lets through, or fewer:
    spread over a hundred accounts and fifty networks, or on a few of them."""
    chance = random.Random(12)
    door = Door()
    for n in range(10_000):
        at = START + timedelta(seconds=n * HOUR_S / 10_000)
        door.guess(chance.randrange(accounts), chance.randrange(networks), at)

    assert _of_a_pair() == 12
    assert max(door.judged.values()) <= min(networks * _of_a_pair(), OF_AN_ACCOUNT)
    assert sum(door.judged.values()) <= min(
        10_000, accounts * min(networks * _of_a_pair(), OF_AN_ACCOUNT)
    )


def test_the_bound_is_met() -> None:
    """Whoever tries every second has exactly the guesses that the waiting times leave."""
    one = Door()
    for second in range(HOUR_S + 1):
        one.guess(0, 0, START + timedelta(seconds=second))
        one.guess(0, 0, START + timedelta(seconds=second))
    assert 10 <= one.judged[0] <= _of_a_pair()
    many = Door()
    for second in range(HOUR_S):
        for network in range(20):
            many.guess(0, network, START + timedelta(seconds=second))
    assert 200 <= many.judged[0] <= OF_AN_ACCOUNT


@given(st.integers(0, 10_000))
def test_waits_never_shrink(attempts: int) -> None:
    """More attempts wait as long or longer, a quarter of an hour at most."""
    assert wait_after(attempts) <= wait_after(attempts + 1) <= 900


@given(st.lists(st.integers(0, 7_200), max_size=250))
def test_an_attack_is_a_hundred_in_an_hour(seconds: list[int]) -> None:
    """Whatever comes when, an account is slowed while a hundred attempts are in the last hour."""
    times: list[datetime] = []
    for second in sorted(seconds):
        times = kept_times(times, START + timedelta(seconds=second))
    now = START + timedelta(seconds=7_200)
    assert is_attacked(times, now) == (sum(second > HOUR_S for second in seconds) >= 100)


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("192.0.2.1", "192.0.2.254", True),
        ("192.0.2.1", "192.0.3.1", False),
        ("192.0.2.1", "::ffff:192.0.2.77", True),
        ("2001:db8:0:100::1", "2001:db8:0:1ff:9::", True),
        ("2001:db8:0:100::1", "2001:db8:0:200::1", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("", "nonsense", True),
    ],
)
def test_networks(one: str, other: str, is_same: bool) -> None:
    """/24 of IPv4, however it is written, and /56 of IPv6."""
    assert (network_of(one) == network_of(other)) is is_same
