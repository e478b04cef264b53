"""https://hl7.org/fhir/R4/downloads.html

The official examples are valid, except those of the table, whose faults are their own. The package
with all 5,306 is read from FHIR_TEST_R4_PACKAGE, a folder or a .tgz, when it is set.
"""

import gzip
import os
import tarfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from fhir_server.r4.json import decode
from fhir_server.validation.explain import Explainer
from fhir_server.validation.structure import Schemas, StructureValidator

PACKAGE = os.environ.get("FHIR_TEST_R4_PACKAGE", "")

# type/id -> (expression, why the example is not valid)
REFUSED = {
    "DeviceMetric/example": ("parent.reference", "DeviceDefinition, but only Device is allowed"),
    "DeviceUseStatement/example": ("reasonReference[0].reference", "Procedure is not allowed"),
    "MedicationRequest/medrx0301": (
        "dispenseRequest.performer.reference",
        "Practitioner, but only Organization is allowed",
    ),
    "Observation/clinical-gender": ("performer[0].reference", "Encounter cannot perform"),
    "Questionnaire/qs1": ("item[0].item[0]", "items without the linkId that is 1..1"),
    # Only in the complete package.
    "ImplementationGuide/fhir": ("", "neither name nor status, both 1..1"),
    "ImplementationGuide/ig-r4": ("", "neither name nor status, both 1..1"),
    "SearchParameter/questionnaireresponse-extensions-QuestionnaireResponse-item-subject": (
        "id",
        "an id of 67 characters, where 64 are allowed",
    ),
    **{
        f"SearchParameter/{type.lower()}-extensions-{type}-{name}": ("", "no base, which is 1..*")
        for type in ("CodeSystem", "ValueSet")
        for name in ("author", "effective", "end", "keyword", "workflow")
    },
}


def name_of(resource: dict[str, Any]) -> str:
    """Return ``type/id``."""
    return f"{resource['resourceType']}/{resource.get('id', '')}"


def package() -> Iterator[dict[str, Any]]:
    """Yield the resources of the package that the environment names."""
    path = Path(PACKAGE)
    for text in _texts(path):
        resource = decode(text)
        if "resourceType" in resource:
            yield resource


def _texts(path: Path) -> Iterator[bytes]:
    if path.is_dir():
        yield from (file.read_bytes() for file in sorted(path.rglob("*.json")))
        return
    with tarfile.open(path) as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.endswith(".json") else None
            if file is not None:
                yield file.read()


def check(validator: StructureValidator, resource: dict[str, Any]) -> None:
    """Fail unless ``resource`` is valid or refused for the reason that the table gives."""
    issues = validator.issues(resource)
    refused = REFUSED.get(name_of(resource))
    if refused is None:
        assert issues == (), name_of(resource)
    else:
        place = f"{resource['resourceType']}.{refused[0]}".rstrip(".")
        assert issues[0].expression == place, name_of(resource)


def test_the_instance_examples_are_valid(
    validator: StructureValidator, examples: tuple[dict[str, Any], ...]
) -> None:
    """Of the 702 instance examples only those of the table are refused, each for its reason."""
    for resource in examples:
        check(validator, resource)


@pytest.mark.skipif(not PACKAGE, reason="FHIR_TEST_R4_PACKAGE names no package.")
def test_the_whole_package_is_valid(validator: StructureValidator) -> None:
    """Of the complete package only those of the table are refused, each for its reason."""
    found = 0
    for resource in package():
        check(validator, resource)
        found += 1

    assert found > 5000


def test_synthetic_patients_are_valid(validator: StructureValidator, synthea: list[Path]) -> None:
    """Bundles with references to urn:uuid and extensions of US Core are valid."""
    for file in synthea[:12]:
        assert validator.issues(decode(gzip.decompress(file.read_bytes()))) == (), file.name


def test_both_paths_agree_on_the_examples(
    schemas: Schemas, explainer: Explainer, examples: tuple[dict[str, Any], ...]
) -> None:
    """What the schema passes the walker does not refuse, and few valid ones need the walker."""
    passed = {name_of(one) for one in examples if schemas.passes(one)}
    valid = {name_of(one) for one in examples if next(explainer.issues(one), None) is None}

    assert passed <= valid
    assert len(passed) > 0.97 * len(valid)


def nodes(value: Any, path: str) -> Iterator[tuple[Any, Any, str]]:
    """Yield ``(container, key, FHIRPath)`` of everything below ``value``, in document order."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        below = f"{path}.{key}" if isinstance(value, dict) else f"{path}[{key}]"
        yield value, key, below
        if isinstance(item, dict | list):
            yield from nodes(item, below)


def _wrapped(item: Any) -> Any:
    return item[0] if isinstance(item, list) else [item]


# What becomes of a value so that it cannot be valid, whatever it was.
FAULTS = {
    "null": lambda item: None,
    "empty array": lambda item: [],
    "empty object": lambda item: {},
    "empty string": lambda item: "",
    "control character": lambda item: "\x00",
    "array where there was none": _wrapped,
    "unknown member": lambda item: (
        {**item, "unknownMember": 1} if isinstance(item, dict) else {"unknownMember": 1}
    ),
    "string for something else": lambda item: 0 if isinstance(item, str) else "a b",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_anywhere_in_an_example_is_refused(
    fault: str, schemas: Schemas, explainer: Explainer, examples: tuple[dict[str, Any], ...]
) -> None:
    """Any value of an example, replaced by what cannot be there, is refused by both paths."""
    for resource in examples[::5]:
        if name_of(resource) in REFUSED:
            continue
        below = list(nodes(resource, resource["resourceType"]))
        chosen = int(sha256(f"{fault} {name_of(resource)}".encode()).hexdigest(), 16) % len(below)
        container, key, path = below[chosen]
        before = container[key]
        container[key] = FAULTS[fault](before)
        try:
            issue = next(explainer.issues(resource), None)
            assert issue is not None, f"{path} = {container[key]!r}"
            assert not schemas.passes(resource), path
        finally:
            container[key] = before
