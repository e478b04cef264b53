"""Published guides: their examples and their own profiles are valid."""

from pathlib import Path

import pytest

from fhir_server.r4.definitions import Definitions
from fhir_server.validation.profiles import ProfileValidator
from tests.validation.asking import judged, package
from tests.validation.conftest import DATA

GUIDES = {
    "US Core 6.1.0": DATA / "us-core" / "us_core_610.tgz",
    "IPS 2.0.0": DATA / "ips" / "hl7.fhir.uv.ips-2.0.0.tgz",
    "BD-Core": DATA / "bd-core",
}


def present(name: str) -> Path:
    """Return the path of a guide; skip where it is absent."""
    if not GUIDES[name].exists():
        pytest.skip("needs ../shared/data")
    return GUIDES[name]


@pytest.mark.parametrize("name", GUIDES)
def test_its_profiles_are_valid(name: str, profiles: ProfileValidator) -> None:
    """Each StructureDefinition is one, by all that R4 and its own invariants say."""
    structures, _ = package(present(name))
    for structure in structures.values():
        found = judged(profiles, structure, structures)
        assert [one for one in found.issues if one.severity == "error"] == [], structure["id"]


def test_examples_of_ips_are_valid(profiles: ProfileValidator, definitions: Definitions) -> None:
    """Documents with their sections, sliced by the profiles of what they refer to."""
    structures, examples = package(present("IPS 2.0.0"))
    known = [one for one in examples.values() if one["resourceType"] in definitions.types]
    assert len(known) > 40
    for example in known:
        found = judged(profiles, example, structures)
        assert [one for one in found.issues if one.severity == "error"] == []
