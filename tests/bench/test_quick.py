"""What ``make bench-quick`` says of what it measured; that it measures is seen when it runs."""

from collections.abc import Iterable, Mapping

import pytest

from tests.bench import quick
from tests.bench.quick import Cost

KNOWN = dict.fromkeys(quick.WORKLOADS, 10.0)


class Measuring:
    """Says what each workload costs: 10, and ``more`` what those in it cost in each turn. The
    ``others`` are as busy in each."""

    def __init__(self, more: Mapping[str, list[float]], others: float = 0.1) -> None:
        """Begin with no turn."""
        self._more, self._others = more, others
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, names: Iterable[str]) -> dict[str, Cost]:
        """Measure ``names`` once."""
        self.asked.append(tuple(names))
        turn = len(self.asked) - 1
        return {
            name: Cost(self._more[name][turn] if name in self._more else 10.0, self._others)
            for name in self.asked[-1]
        }


def test_what_costs_half_as_much_again_is_slower() -> None:
    """More than that is, exactly that is not; what is not known yet never is."""
    costs = {"read": 15.1, "create": 15.0, "new": 1000.0}
    found = {name: Cost(cost, 0.0) for name, cost in costs.items()}

    assert quick.slower(found, KNOWN) == {
        "read": "read costs 15.1 bare answers, 10.0 before: 1.51 times as much."
    }


def test_what_seems_slower_is_measured_again() -> None:
    """A busy moment is no change: only what seemed slower is measured again, until it is not."""
    turn = Measuring({"read": [30.0, 20.0, 16.0, 12.0], "create": [20.0, 10.0]})

    found = quick.least(turn, KNOWN)

    assert turn.asked == [quick.WORKLOADS, quick.WORKLOADS, ("read",), ("read",)]
    assert (found["read"].bare, found["create"].bare) == (12.0, 10.0)
    assert quick.slower(found, KNOWN) == {}


def test_what_costs_the_database_more_is_slower() -> None:
    """A search that lost its index costs MongoDB, not the server."""
    line = f"read{quick.MONGODB}"
    known = {**KNOWN, line: 4.0}
    costs = {line: [8.0, 8.0, 5.0]}
    asked: list[tuple[str, ...]] = []

    def turn(names: Iterable[str]) -> dict[str, Cost]:
        asked.append(tuple(names))
        return {line: Cost(costs[line][len(asked) - 1], 0.1)}

    found = quick.least(turn, known)
    assert asked == [quick.WORKLOADS, quick.WORKLOADS, ("read",)]
    assert not quick.slower(found, known)
    assert list(quick.slower({line: Cost(6.1, 0.1)}, known)) == [line]


def test_what_is_slower_each_time_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is measured so many times, and the command says which it is and ends with 1."""
    turn = Measuring({"read": [16.0] * (quick.TURNS + quick.AGAIN)})
    monkeypatch.setattr(quick, "known", lambda: KNOWN)
    monkeypatch.setattr(quick, "measured", lambda known: quick.least(turn, known))

    assert quick.main() == 1
    assert len(turn.asked) == quick.TURNS + quick.AGAIN
    assert capsys.readouterr().out.endswith(
        "read costs 16.0 bare answers, 10.0 before: 1.60 times as much.\n"
    )


def test_on_a_busy_machine_only_much_more_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was slower beside others each time is said; one quiet turn is enough to fail, and so is
    three times as much."""
    often = [16.0] * (quick.TURNS + quick.AGAIN)
    monkeypatch.setattr(quick, "known", lambda: KNOWN)
    busy = quick.least(Measuring({"read": often}, 2 * quick.BUSY_CORES), KNOWN)
    quiet = {"read": Cost(20.0, 0.1).least(busy["read"])}

    monkeypatch.setattr(quick, "measured", lambda known: busy)
    assert quick.main() == 0
    assert capsys.readouterr().out.endswith("1.60 times as much. Others were busy each time.\n")
    monkeypatch.setattr(quick, "measured", lambda known: quiet)
    assert quick.main() == 1
    much = {"read": Cost(31.0, 2 * quick.BUSY_CORES)}
    monkeypatch.setattr(quick, "measured", lambda known: much)
    assert quick.main() == 1


def test_what_is_as_fast_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command ends with 0, after as many turns as there are at least."""
    turn = Measuring({})
    monkeypatch.setattr(quick, "known", lambda: KNOWN)
    monkeypatch.setattr(quick, "measured", lambda known: quick.least(turn, known))

    assert quick.main() == 0
    assert len(turn.asked) == quick.TURNS


def test_every_workload_has_a_known_cost() -> None:
    """One that had none would be held to nothing."""
    known = quick.known()
    assert set(quick.WORKLOADS) <= set(known)
    assert {name for name in known if name.endswith(quick.MONGODB)}
