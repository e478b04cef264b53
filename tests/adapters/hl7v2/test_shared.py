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
TYPES = (
    "AllergyIntolerance Appointment Condition Coverage DiagnosticReport DocumentReference "
    "Immunization MedicationRequest Observation Procedure ServiceRequest Specimen"
).split()
MUST = ["--min", "0.995", "--min-should", "0.92"]
LEAST = {"Patient": "1", "Encounter": "1"} | (dict.fromkeys(TYPES, "0.99") if ALL else {})

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900 if ALL else 120)]


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    """A server with the interface."""
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
    """The shares of H80; the test data says how they are counted. Twice: what the messages say of
    numbers that the checker leaves as they are must not make the second run another one."""
    types = [part for one in LEAST.items() for part in ("--min-type", "=".join(one))]
    for _ in range(2 if way == "mllp" else 1):
        checked(serving, shared, way, [*MUST, *types, *([] if ALL else PART)])


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
