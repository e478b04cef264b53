"""RFC 6585, section 4; design/security.md, section 6: how often somebody may ask."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from fhir_server.outcome import FhirError
from fhir_server.security.rates import LOGIN, TOKENS, Buckets, Rate, Rates, network_of


def test_a_burst_and_then_the_rate() -> None:
    """What may come at once comes at once; then one for each part of a second."""
    buckets = Buckets(Rate(per_s=2, burst=5))

    assert [buckets.wait_s("a", 0.0) for _ in range(6)] == [0, 0, 0, 0, 0, 0.5]
    assert [buckets.wait_s("a", 0.5) for _ in range(2)] == [0, 0.5]
    assert buckets.wait_s("b", 0.5) == 0


@given(times=some.lists(some.floats(min_value=0, max_value=100), max_size=300))
def test_nobody_gets_more(times: list[float]) -> None:
    """In any span of time at most the burst and the rate times the span."""
    buckets = Buckets(Rate(per_s=3, burst=4))
    taken = [time for time in sorted(times) if not buckets.wait_s("a", time)]
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            assert last - first + 1 <= 4 + 3 * (taken[last] - taken[first]) + 1e-6


def test_a_clock_that_goes_back_gives_nothing() -> None:
    """Whatever the clock says."""
    buckets = Buckets(Rate(per_s=1, burst=1))
    assert buckets.wait_s("a", 10.0) == 0
    assert buckets.wait_s("a", 0.0) == 1


def test_the_refusal_says_when_to_come_again() -> None:
    """429 with ``Retry-After`` in whole seconds."""
    buckets = Buckets(Rate(per_s=0.1, burst=1))
    buckets.check("a", 0.0)
    with pytest.raises(FhirError) as refused:
        buckets.check("a", 1.0)
    assert refused.value.status == 429
    assert refused.value.headers == (("Retry-After", "9"),)


def test_as_much_is_kept_as_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who ask most lately are remembered."""
    monkeypatch.setattr("fhir_server.security.rates._KEPT_MAX", 3)
    buckets = Buckets(Rate(per_s=0.1, burst=1))
    for key in "abcd":
        assert buckets.wait_s(key, 0.0) == 0
    assert buckets.wait_s("d", 0.0) > 0
    assert buckets.wait_s("a", 0.0) == 0


def test_sign_in_and_tokens_have_rates_of_their_own() -> None:
    """Ten a minute for a network, sixty a minute for a client."""
    rates = Rates(Buckets(Rate(200, 400)))
    assert sum(not rates.logins.wait_s("n", 0.0) for _ in range(50)) == 10
    assert sum(not rates.logins.wait_s("n", 60.0) for _ in range(50)) == 10
    assert sum(not rates.tokens.wait_s("c", 0.0) for _ in range(100)) == 60
    assert (LOGIN.per_s * 60, TOKENS.per_s * 60) == (10, 60)


NETWORKS = [
    ("10.1.2.3", "10.1.2.255", True),
    ("10.1.2.3", "10.1.3.3", False),
    ("2001:db8::1", "2001:db8:0:ff::1", True),
    ("2001:db8::1", "2001:db8:0:100::1", False),
    ("::ffff:10.1.2.3", "10.1.2.4", True),
    ("fe80::1%eth0", "fe80::2", True),
    ("", "unix", True),
]


@pytest.mark.parametrize(("one", "other", "same"), NETWORKS)
def test_neighbours_are_counted_together(one: str, other: str, same: bool) -> None:
    """A /24, and a /56."""
    assert (network_of(one) == network_of(other)) is same
