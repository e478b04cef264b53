"""Judging by profiles: milliseconds a resource after warm-up, and what a package costs at first.

Run by ``make bench ARGS="-k validation"``. One thread, one core; the answers to what is asked are
at hand, so that the figures are those of the judgement alone.
"""

import gzip
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest

from fhir_server.r4.definitions import load_definitions
from fhir_server.r4.json import decode
from fhir_server.r4.questions import Question
from fhir_server.r4.structures import Structures
from fhir_server.validation.profiles import ProfileValidator
from tests.validation.asking import judged, package
from tests.validation.conftest import DATA, ROOT

US_CORE = DATA / "us-core" / "us_core_610.tgz"
SYNTHEA = DATA / "synthea"
BASE = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-"
ENTRIES = 500
PROFILES = {
    "Patient": "patient",
    "Encounter": "encounter",
    "Condition": "condition-encounter-diagnosis",
    "Observation": "observation-lab",
    "Procedure": "procedure",
    "Immunization": "immunization",
    "MedicationRequest": "medicationrequest",
    "DiagnosticReport": "diagnosticreport-lab",
    "CarePlan": "careplan",
    "CareTeam": "careteam",
    "Organization": "organization",
    "Practitioner": "practitioner",
    "AllergyIntolerance": "allergyintolerance",
}

pytestmark = pytest.mark.skipif(not US_CORE.exists(), reason="needs ../shared/data/us-core")


def milliseconds(run: Callable[[], Any], repeat: int) -> float:
    """Return the median of ``repeat`` runs."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times)


def synthea_bundle() -> dict[str, Any]:
    """Return a transaction of 500 entries that name US Core's profiles."""
    entries: list[Any] = []
    for file in sorted(SYNTHEA.glob("*.json.gz")):
        entries += decode(gzip.decompress(file.read_bytes()))["entry"]
        if len(entries) >= ENTRIES:
            break
    for entry in entries[:ENTRIES]:
        name = PROFILES.get(entry["resource"]["resourceType"])
        if name:
            entry["resource"]["meta"] = {"profile": [BASE + name]}
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries[:ENTRIES]}


def test_validation_speed(capsys: pytest.CaptureFixture[str]) -> None:
    """Print the figures; an Observation takes less than a few milliseconds anywhere."""
    start = time.perf_counter()
    structures, examples = package(US_CORE)
    read = (time.perf_counter() - start) * 1000
    profiles = ProfileValidator(load_definitions(ROOT), Structures(ROOT))
    known: dict[Question, Any] = {}
    figures: dict[str, float] = {"read the package": read}

    observation = examples["Observation-blood-pressure.json"]
    start = time.perf_counter()
    judged(profiles, observation, structures, known=known)
    figures["first Observation, profiles compiled"] = (time.perf_counter() - start) * 1000
    figures["US Core Observation (blood pressure)"] = milliseconds(
        lambda: profiles.judge(observation, (), known), 300
    )
    if any(SYNTHEA.glob("*.json.gz")):
        bundle = synthea_bundle()
        judged(profiles, bundle, structures, known=known)
        whole = milliseconds(lambda: profiles.judge(bundle, (), known), 5)
        figures["Synthea bundle of 500 entries"] = whole
        figures["a resource of it"] = whole / len(bundle["entry"])
    with capsys.disabled():
        print("\n" + json.dumps({name: round(one, 3) for name, one in figures.items()}, indent=1))
    assert figures["US Core Observation (blood pressure)"] < 50
