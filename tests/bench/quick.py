"""``make bench-quick``: whether something became much slower, in less than three minutes.

What a request costs the server and what it costs MongoDB in processor time is held against what an
answer costs a server that does nothing, in the same run: that ratio says the same on a slow and a
busy machine, where seconds do not. It fails where one is more than half as much again as
``quick.json`` says, which is a third less for the same time. ``make bench-quick ARGS=--write``
writes that file anew, after a change that is meant to be.

Where much else runs, the caches of the processor are others', and a ratio can double. So what seems
slower is measured again, and fails if it is slower each time; where others were busy each time, it
fails from three times as much on, and below that it is said.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.bench.targets import Measured, Target, http_alone, ours

_KNOWN = Path(__file__).with_name("quick.json")
PATIENTS = 200
SECONDS = 1.0
TURNS = 2
AGAIN = 4
MORE = 1.5
MUCH_MORE = 3.0  # whatever others do
BUSY_CORES = 0.25  # of others meanwhile; the driver's own start is some 0.1
WORKLOADS = (
    *("read", "vread", "create", "update, If-Match", "identifier", "patient, 50 rows"),
    *("patient + 10 codes + date, sorted, 50 rows", "_include of patient and encounter"),
    # What is written after its answers is spent when nobody is measured: the bare ones come next.
    *("chained identifier", "metadata", "transaction of 250"),
)

MONGODB = ", MongoDB"
"""What ends the name of a line that says what a workload costs the database."""
_LEAST = 3.0  # bare answers; what costs the database less is its own housekeeping
# Sixteen at once of what takes long would each be too late where others are busy.
CONNECTIONS = {"transaction of 250": 2}


@dataclass(frozen=True, slots=True)
class Cost:
    """What a line says: a cost in bare answers; ``others`` are the cores that were busy meanwhile
    with something else."""

    bare: float
    others: float

    def least(self, other: "Cost | None") -> "Cost":
        """Return the least of both of them."""
        if other is None:
            return self
        return Cost(min(self.bare, other.bare), min(self.others, other.others))


Turn = Callable[[Iterable[str]], Mapping[str, Cost]]
"""Measures each of the workloads once: a line for the server, by its name, and one for MongoDB."""


def known() -> dict[str, float]:
    """Return what each workload cost when it was written down."""
    found: dict[str, float] = json.loads(_KNOWN.read_text())
    return found


def least(turn: Turn, was: Mapping[str, float]) -> dict[str, Cost]:
    """Return the least that each line said in some turns, and in more where it seems slower
    than it ``was``."""
    found: dict[str, Cost] = {}
    for number in range(TURNS + AGAIN):
        again = dict.fromkeys(one.removesuffix(MONGODB) for one in slower(found, was))
        names = WORKLOADS if number < TURNS else tuple(again)
        if not names:
            break
        found |= {name: cost.least(found.get(name)) for name, cost in turn(names).items()}
    return found


def measured(was: Mapping[str, float]) -> dict[str, Cost]:
    """Return what each workload costs the server, in answers of a server that does nothing."""
    with (
        tempfile.TemporaryDirectory() as folder,
        http_alone() as http,
        ours(Path(folder), PATIENTS) as target,
    ):

        def turn(names: Iterable[str]) -> dict[str, Cost]:
            before = _run(http, "read")
            runs = {name: _run(target, name) for name in names}
            bare = min(one.per_1000(one.server) for one in (before, _run(http, "read")))
            lines = {
                name + what: Cost(run.per_1000(spent) / bare, run.others)
                for name, run in runs.items()
                for what, spent in (("", run.server), (MONGODB, run.mongod))
            }
            return {name: cost for name, cost in lines.items() if cost.bare >= _LEAST}

        return least(turn, was)


def _run(target: Target, name: str) -> Measured:
    run = target.run(name, CONNECTIONS.get(name, 16), SECONDS)
    assert not run.outcome.errors, (name, run.outcome.errors)
    assert run.outcome.answers, name
    return run


def slower(found: Mapping[str, Cost], was: Mapping[str, float]) -> dict[str, str]:
    """Return a sentence for each workload that costs more than half as much again.

    >>> slower({"read": Cost(3.1, 0.0), "new": Cost(9.0, 0.0)}, {"read": 2.0})
    {'read': 'read costs 3.1 bare answers, 2.0 before: 1.55 times as much.'}
    """
    return {
        name: f"{name} costs {cost.bare:.1f} bare answers, {was[name]:.1f} before: "
        f"{cost.bare / was[name]:.2f} times as much."
        for name, cost in found.items()
        if name in was and cost.bare > MORE * was[name]
    }


def main(*arguments: str) -> int:
    """Measure, print a table, and return 1 where something became slower."""
    if sys.platform != "linux":
        print("Processor time is read as Linux tells it: nothing is measured here.")
        return 0
    if "--write" in arguments:
        made = {name: round(one.bare, 1) for name, one in measured({}).items()}
        _KNOWN.write_text(json.dumps(made, indent=1) + "\n")
        return 0
    was = known()
    found = measured(was)
    print("| processor time of | bare answers | before | ratio |\n| --- | ---: | ---: | ---: |")
    for name, cost in found.items():
        before = was.get(name)
        ratio = f"{before:.1f} | {cost.bare / before:.2f}" if before else "– | –"
        print(f"| {name} | {cost.bare:.1f} | {ratio} |")
    wrong = slower(found, was)
    for name, sentence in wrong.items():
        busy = " Others were busy each time." if found[name].others > BUSY_CORES else ""
        print(sentence + busy)
    return 1 if any(_counts(found[name], was[name]) for name in wrong) else 0


def _counts(cost: Cost, was: float) -> bool:
    return cost.others <= BUSY_CORES or cost.bare > MUCH_MORE * was


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
