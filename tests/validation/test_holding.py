"""The quick look at invariants before a write says nothing else than the judgement does."""

import gzip
from pathlib import Path
from typing import Any

import pytest

from fhir_server.r4.json import decode
from fhir_server.validation.holding import SURELY
from fhir_server.validation.profiles import ProfileValidator
from fhir_server.validation.running import WHOLE, ProfileOptions
from tests.validation.test_profiles import INHERITED

OPTIONS = ProfileOptions(meta_profiles=False, codes=False, vital_signs=False)
PATIENT: dict[str, Any] = {"resourceType": "Patient", "active": True}
OBSERVATION: dict[str, Any] = {
    "resourceType": "Observation",
    "status": "final",
    "code": {"coding": [{"system": "http://example.org", "code": "a"}]},
}
CARE_PLAN: dict[str, Any] = {
    "resourceType": "CarePlan",
    "status": "active",
    "intent": "plan",
    "subject": {"reference": "Patient/a"},
}
PERIOD = {"start": "2026-02-01", "end": "2026-01-01"}
BROKEN: dict[str, dict[str, Any]] = {
    **INHERITED,
    "obs-6": {**OBSERVATION, "valueString": "x", "dataAbsentReason": {"text": "unknown"}},
    "obs-7": {
        **OBSERVATION,
        "valueString": "x",
        "component": [{"code": OBSERVATION["code"], "valueString": "x"}],
    },
    "obs-3": {**OBSERVATION, "referenceRange": [{"appliesTo": [{"text": "x"}]}]},
    "pat-1": {**PATIENT, "contact": [{"gender": "male"}]},
    "cpt-2": {**PATIENT, "telecom": [{"value": "1"}]},
    "att-1": {**PATIENT, "photo": [{"data": "AA=="}]},
    "per-1": {**PATIENT, "identifier": [{"value": "1", "period": PERIOD}]},
    "cpl-3": {
        **CARE_PLAN,
        "activity": [
            {"detail": {"status": "in-progress"}, "reference": {"reference": "Task/a"}},
        ],
    },
    "org-1": {"resourceType": "Organization", "active": True},
    "ref-1": {**PATIENT, "managingOrganization": {"reference": "#none"}},
    "an extension's": {
        **PATIENT,
        "extension": [{"url": "http://example.org/e", "valueQuantity": {"value": 1, "code": "a"}}],
    },
    "a contained one's": {
        **PATIENT,
        "managingOrganization": {"reference": "#a"},
        "contained": [{"resourceType": "Organization", "id": "a", "active": True}],
    },
}


def is_broken(profiles: ProfileValidator, resource: dict[str, Any]) -> bool:
    """Whether the judgement finds an invariant that is broken, narrative aside."""
    return any(
        one.code == "invariant" and one.severity == "error" and "(txt-" not in one.diagnostics
        for one in profiles.judge(resource, options=OPTIONS).issues
    )


@pytest.mark.parametrize("key", BROKEN)
def test_what_is_broken_is_seen(key: str, profiles: ProfileValidator) -> None:
    """Each invariant that is told apart without FHIRPath is among them."""
    assert BROKEN.keys() >= SURELY.keys()
    assert not profiles.holds(BROKEN[key], WHOLE)
    assert is_broken(profiles, BROKEN[key]) or key == "ref-1"  # as structure


@pytest.mark.parametrize("resource", [OBSERVATION, PATIENT, CARE_PLAN])
def test_what_holds(resource: dict[str, Any], profiles: ProfileValidator) -> None:
    """Nothing has to be explained of most resources."""
    assert profiles.holds(resource, WHOLE)


def test_official_examples(
    profiles: ProfileValidator, examples: tuple[dict[str, Any], ...]
) -> None:
    """None is taken to hold that is broken, and none of them is broken."""
    assert [one["id"] for one in examples if is_broken(profiles, one)] == []


def test_synthetic_patients(profiles: ProfileValidator, synthea: list[Path]) -> None:
    """The quick look is enough for all of them."""
    entries = decode(gzip.decompress(synthea[0].read_bytes()))["entry"]
    assert all(profiles.holds(one["resource"], WHOLE) for one in entries)
