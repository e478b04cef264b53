"""design/hl7v2.md, section 3: ``fhir-server hl7 …``. Checks H8 and H81."""

import json
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from adapters.hl7v2 import commands
from tests.adapters.hl7v2.conftest import adt, oru
from tests.conftest import ROOT
from tests.faults.serving import Serving, command
from tests.store.mongods import free_port

FEATURES = '["adapters.hl7v2"]'
EXAMPLE = ROOT / "examples" / "hl7v2" / "lab-result.hl7"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server with the interface, as a process of its own."""
    folder = tmp_path_factory.mktemp("serving")
    serving = Serving(folder, features=FEATURES, mllp_port=free_port())
    try:
        serving.start()
        yield serving
    finally:
        serving.clean_up()


def hl7(serving: Serving, folder: Path, *arguments: str) -> tuple[int, list[str]]:
    """Run a command in this process; return its exit code and the lines that it printed.

    A process for each takes a second to start; :func:`as_a_process` has one.
    """
    with chdir(folder):
        done = CliRunner().invoke(commands.cli, ["--base", serving.base, *arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout.splitlines()


def as_a_process(serving: Serving, folder: Path, *arguments: str) -> tuple[int, list[str]]:
    """Run a command as a user does."""
    place = ("hl7", "--base", serving.base)
    done = command(*place, *arguments, folder=folder, features=FEATURES)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout.splitlines()


def to(serving: Serving) -> tuple[str, str]:
    """Return where to send."""
    return "--to", f"mllp://127.0.0.1:{serving._settings['mllp_port']}"


def test_h81_one_command_sends_a_message_and_one_search_finds_the_result(
    serving: Serving, tmp_path: Path
) -> None:
    """As README has it, over MLLP; and over HTTP the same message is a repetition."""
    code, lines = as_a_process(serving, tmp_path, "send", str(EXAMPLE), *to(serving))
    again = hl7(serving, tmp_path, "send", str(EXAMPLE), "--to", f"{serving.site}/hl7v2")
    url = f"{serving.base}/Observation?patient.identifier=KC-2001&code=2345-7"
    found = httpx.get(url, timeout=20).json()

    assert (code, lines) == (0, ["AA LAB-0001"]) == again
    [observation] = [one["resource"] for one in found["entry"]]
    assert observation["valueQuantity"]["code"] == "mmol/L"
    assert '"value":5.40' in httpx.get(url, timeout=20).text


def test_h8_exit_codes_and_one_line_for_each_answer(serving: Serving, tmp_path: Path) -> None:
    """0 all positive, 1 some negative, 2 no transport; folders, batches, standard input."""
    folder = tmp_path / "messages"
    folder.mkdir()
    (folder / "1.hl7").write_bytes(b"BHS|^~\\&\r" + adt("C1") + oru("C2") + b"BTS|2\r")
    (folder / "2.hl7").write_bytes(adt("C3").partition(b"PID|")[0])
    code, lines = hl7(serving, tmp_path, "send", str(folder), *to(serving))
    stopped = hl7(serving, tmp_path, "send", str(folder), "--to", "mllp://127.0.0.1:1")
    missing = hl7(serving, tmp_path, "send", str(tmp_path / "none"), *to(serving))

    assert code == 1
    assert [line.split()[:2] for line in lines] == [["AA", "C1"], ["AA", "C2"], ["AE", "C3"]]
    assert (stopped[0], missing[0]) == (2, 2)


def test_h8_a_folder_of_a_thousand_files_is_sent(serving: Serving, tmp_path: Path) -> None:
    """In the order of their names, one line for each; the same message again is a repetition."""
    files = tmp_path / "files"
    files.mkdir()
    for number in range(1000):
        (files / f"{number:04d}.hl7").write_bytes(adt(f"T{number % 10}", "T1"))
    code, lines = hl7(serving, tmp_path, "send", str(files), *to(serving))

    assert (code, lines) == (0, [f"AA T{number % 10}" for number in range(1000)])


def test_h8_replay_tells_counts_by_outcome(serving: Serving, tmp_path: Path) -> None:
    """Dry, and done: what is dead stays so, and says it by the exit code."""
    (tmp_path / "bad.hl7").write_bytes(adt("R1").partition(b"PID|")[0])
    hl7(serving, tmp_path, "send", str(tmp_path / "bad.hl7"), *to(serving))
    dry = hl7(serving, tmp_path, "replay", "--state", "dead", "--dry-run")
    done = hl7(serving, tmp_path, "replay", "--state", "dead")
    nothing = hl7(serving, tmp_path, "replay", "--state", "held")

    assert dry[0] == done[0] == 1
    assert dry[1][0].startswith("dead ")
    assert done[1][0].startswith("dead ")
    assert nothing == (0, ["no rows"])


def test_h8_convert_prints_the_bundle_of_each_message(serving: Serving, tmp_path: Path) -> None:
    """Without a server; a message that cannot be read ends with 1."""
    code, lines = hl7(serving, tmp_path, "convert", str(EXAMPLE))
    (tmp_path / "bad.hl7").write_bytes(adt("V1").partition(b"PID|")[0])
    bad = hl7(serving, tmp_path, "convert", str(tmp_path / "bad.hl7"))
    types = [one["resource"]["resourceType"] for one in json.loads(lines[0])["entry"]]

    assert (code, bad[0]) == (0, 1)
    assert types.count("Observation") == 2
    assert {"Patient", "DiagnosticReport"} <= set(types)


def test_h8_convert_asks_for_the_profile_of_a_sender(serving: Serving, tmp_path: Path) -> None:
    """Its rules are applied; a sender that is not there ends the command."""
    rules = [{"do": "set", "field": "PID-8", "value": "F"}]
    profile = {"name": "conv", "match": [{"application": "CONV"}], "before": rules}
    (tmp_path / "conv.json").write_text(json.dumps(profile))
    (tmp_path / "one.hl7").write_bytes(adt("CV1"))
    file = str(tmp_path / "one.hl7")
    assert hl7(serving, tmp_path, "senders", "set", "conv", str(tmp_path / "conv.json"))[0] == 0
    code, lines = hl7(serving, tmp_path, "convert", file, "--sender", "conv")

    assert code == 0
    assert '"gender":"female"' in "".join(lines)
    assert hl7(serving, tmp_path, "convert", file, "--sender", "nobody")[0] == 2


def test_h8_profiles_are_set_and_shown(serving: Serving, tmp_path: Path) -> None:
    """Checked, set, listed; a wrong one ends with 2."""
    profile = {"name": "acme", "match": [{"application": "ACME"}]}
    (tmp_path / "acme.json").write_text(json.dumps(profile))
    (tmp_path / "bad.json").write_text(json.dumps(profile | {"nmae": 1}))
    check = hl7(serving, tmp_path, "senders", "check", "acme.json")
    set = hl7(serving, tmp_path, "senders", "set", "acme", "acme.json")
    listed = hl7(serving, tmp_path, "senders", "list")
    shown = hl7(serving, tmp_path, "senders", "show", "acme")
    bad = hl7(serving, tmp_path, "senders", "check", "bad.json")

    assert (check, set[0], listed[0]) == ((0, ["ok"]), 0, 0)
    assert "acme 1" in listed[1]
    assert json.loads(shown[1][0]) == profile
    assert bad[0] == 2


def test_h8_strict_says_what_hl7apy_says(serving: Serving, tmp_path: Path) -> None:
    """One line for each message; without the extra it says how to get it."""
    code, lines = hl7(serving, tmp_path, "strict", str(EXAMPLE))

    assert len(lines) == 1
    assert code == (0 if lines[0].endswith(": ok") else 1)
