"""The verdicts of the reference validator on R4 instances: whether each is valid."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from fhir_server.outcome import FhirError, Issue
from fhir_server.r4.definitions import Definitions
from fhir_server.r4.json import decode
from fhir_server.r4.xml import Xml
from fhir_server.validation.profiles import ProfileValidator
from fhir_server.validation.running import ProfileOptions
from tests.validation.asking import judged
from tests.validation.conftest import DATA

CASES = DATA / "validator" / "cases.json"
AGREEMENT_MIN = 0.95
SECONDS_MAX = 1.0
# The reference validator refuses what it has no definition of, markup, and examples' addresses.
STRICT = ProfileOptions(unknown_extensions="error", markup="error", examples="error")
# Why we say something else of these.
DISAGREEMENTS = {
    "parameters-reference-bad": "Parameters are no Bundle: their references may lead anywhere",
    "cvx": "the display is wrong; CVX is not among the code systems that come with R4",
    "ips-nz-pj": "the displays are wrong; LOINC is loaded by the site that has its licence",
    "json-comments-1-yes": "comments are no JSON (RFC 8259); the reference reads them on demand",
    "contained-resource-bad-id-ignore": "an id has 64 characters at most, also inside",
}

pytestmark = pytest.mark.skipif(not CASES.exists(), reason="needs ../shared/data/validator")


def cases() -> list[dict[str, Any]]:
    """Return the cases, none where the shared data are absent."""
    return json.loads(CASES.read_bytes())["cases"] if CASES.exists() else []


def issues_of(file: Path, xml: Xml, validator: ProfileValidator) -> list[Issue]:
    """Return all issues of a file, those of reading it included."""
    data = file.read_bytes()
    parts = [line for line in data.splitlines() if line] if file.suffix == ".ndjson" else [data]
    issues: list[Issue] = []
    for part in parts:
        try:
            resource = xml.decode(part) if file.suffix == ".xml" else decode(part)
        except FhirError as error:
            issues += error.issues
            continue
        issues += judged(validator, resource, {}, options=STRICT).issues
    return issues


def test_verdicts(definitions: Definitions, profiles: ProfileValidator) -> None:
    """At least 95 % agree, the others are known, none crashes and none takes a second."""
    xml = Xml(definitions)
    differ, slow = set(), {}
    for case in cases():
        start = time.perf_counter()
        issues = issues_of(CASES.parent / case["file"], xml, profiles)
        seconds = time.perf_counter() - start
        is_refused = any(issue.severity in ("error", "fatal") for issue in issues)
        if is_refused is not bool(case["expect_errors"] or case["expect_fatal"]):
            differ.add(case["name"])
        if seconds > SECONDS_MAX:
            slow[case["name"]] = seconds
    assert slow == {}
    assert differ <= DISAGREEMENTS.keys()
    assert len(differ) <= (1 - AGREEMENT_MIN) * len(cases())


def test_the_same_issues_in_the_same_order(
    definitions: Definitions, profiles: ProfileValidator
) -> None:
    """A second look says the same."""
    xml = Xml(definitions)
    for case in cases()[::5]:
        file = CASES.parent / case["file"]
        assert issues_of(file, xml, profiles) == issues_of(file, xml, profiles)
