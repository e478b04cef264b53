"""design/cds.md, section 15, A9: usual doses are quiet, ten times them are not.

There is no list of usual doses with a source that this project may ship. What is held here is the
way from an order to a verdict, with the table's own amounts; ``make cds-eval`` measures a list of
the site's, ``usual-doses.csv`` in the folder of the sets.
"""

from fractions import Fraction
from pathlib import Path

from fhir_server.features.cds.knowledge import Knowledge
from scripts.cds_eval import dose_of, lines, usual_doses

LOUD = ("warning", "critical")
# Rows whose verdict is another one by design: capped where a level guides, or judged by the week.
_APART = ("guided_by", "schedule", "max_weekly", "max_monthly", "loading", "morphine_equivalent")


def usual(knowledge: Knowledge) -> dict[str, Fraction]:
    """Return drug -> the largest usual amount of a day by mouth, as our table has it."""
    found = {}
    for code, rows in knowledge.limits.items():
        for row in rows:
            is_plain = row["route"] == "oral" and row["form"] == "any" and row["unit"] == "mg"
            most = row.get("usual_max_daily", row.get("max_daily"))
            if is_plain and most is not None and not any(name in row for name in _APART):
                found[knowledge.display(code)] = most
    return found


def test_usual_amounts_are_quiet_and_ten_times_them_alert(knowledge: Knowledge) -> None:
    """What the table calls usual shows no dose card at all, ten times it a warning or worse."""
    amounts = usual(knowledge)
    shown = {name: dose_of(name, amount, knowledge) for name, amount in amounts.items()}
    tenfold = {name: dose_of(name, 10 * amount, knowledge) for name, amount in amounts.items()}

    assert len(amounts) >= 100
    # A child's limits and the like are not met here: nothing is known of the person.
    assert {name: what for name, what in shown.items() if what} == {}
    assert {name: what for name, what in tenfold.items() if what not in LOUD} == {}


def test_a_sites_list_is_measured(knowledge: Knowledge, tmp_path: Path) -> None:
    """A row is name, mg and source; a drug without a limit is left out of the count."""
    folder = tmp_path / "dev"
    folder.mkdir()
    rows = ("name,mg,source", "metformin,2000,a label", "metformin 500 mg,2000,b", "Nonsense,1,c")
    (folder / "usual-doses.csv").write_text("\n".join(rows), "utf-8")
    found = usual_doses(folder / "usual-doses.csv", knowledge)
    said = {line.what: (line.found, line.is_met) for line in lines(tmp_path, knowledge)}

    assert set(found) == {"metformin", "metformin 500 mg"}
    assert all(quiet == "" and ten in LOUD for quiet, ten in found.values())
    assert said["A9 usual doses quiet"] == ("2 of 2 (100.00%)", True)
    assert said["A9 ten times them alert"] == ("2 of 2 (100.00%)", True)
