"""The shared messages over MLLP and HTTP, verified by FHIR search alone. Check H80.

By default a part of them is sent; ``FHIR_TEST_HL7_SHARED=all`` sends all, and every damaged file.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.serving import Serving
from tests.store.mongods import free_port

ALL = os.environ.get("FHIR_TEST_HL7_SHARED") == "all"
PART = ["--only", r"microsoft__(ADT-A0[134]|SIU|VXU|MDM|OML)|linuxforhealth.*1\b"]
MUST = ["--min", "0.99", "--min-should", "0.92"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900 if ALL else 120)]


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    """A server with the interface on an empty database: some numbers of the messages are the same
    in every run, and numbers of another patient hold a message."""
    serving = Serving(tmp_path, features='["adapters.hl7v2"]', mllp_port=free_port())
    try:
        serving.start()
        yield serving
    finally:
        serving.clean_up()


@pytest.mark.parametrize("way", ["mllp", "http"])
def test_h80_the_facts_of_the_shared_messages_are_there(
    serving: Serving, shared: Path, way: str
) -> None:
    """Of the facts on which guide and published bundles agree, 99 %; the test data says how."""
    checked(serving, shared, way, [*MUST, *([] if ALL else PART)])


@pytest.mark.skipif(not ALL, reason="sends all files; FHIR_TEST_HL7_SHARED=all")
def test_h80_every_file_is_answered(serving: Serving, shared: Path) -> None:
    """The damaged ones as well."""
    checked(serving, shared, "mllp", ["--every"])


def checked(serving: Serving, shared: Path, way: str, arguments: list[str]) -> None:
    """Run the checker of the shared data; its last lines are what a failure shows."""
    script = shared / "hl7v2" / "check_shared.py"
    if not script.is_file():
        pytest.skip("the HL7 v2 messages are not among the shared test data")
    port = serving._settings["mllp_port"]
    to = f"mllp://127.0.0.1:{port}" if way == "mllp" else f"{serving.site}/hl7v2"
    done = subprocess.run(
        [sys.executable, str(script), "--base", serving.base, "--send", to, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, "\n".join(done.stdout.splitlines()[-40:]) + done.stderr
