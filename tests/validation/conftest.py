"""What the tests of validation share: the definitions, and the corpora beside the project."""

import gzip
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from fhir_server.r4.definitions import Definitions, load_definitions
from fhir_server.r4.json import decode
from fhir_server.r4.structures import Structures
from fhir_server.validation.explain import Explainer
from fhir_server.validation.profiles import ProfileValidator
from fhir_server.validation.shapes import Shapes
from fhir_server.validation.structure import Schemas, StructureValidator

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
EXAMPLES = DATA / "examples" / "examples-702.ndjson.gz"


@cache
def _definitions() -> Definitions:
    return load_definitions(ROOT)


@cache
def _examples() -> tuple[dict[str, Any], ...]:
    return tuple(decode(line) for line in gzip.decompress(EXAMPLES.read_bytes()).splitlines())


@pytest.fixture(scope="session")
def definitions() -> Definitions:
    """Return the definitions of R4."""
    return _definitions()


@pytest.fixture(scope="session")
def validator() -> StructureValidator:
    """Return one validator, so that each type is compiled once."""
    return StructureValidator(_definitions())


@pytest.fixture(scope="session")
def profiles() -> ProfileValidator:
    """Return one validator by profiles, so that each profile is compiled once."""
    return ProfileValidator(_definitions(), Structures(ROOT))


@pytest.fixture(scope="session")
def schemas() -> Schemas:
    """Return the hot path alone."""
    return Schemas(Shapes(_definitions()))


@pytest.fixture(scope="session")
def explainer() -> Explainer:
    """Return the explaining path alone."""
    return Explainer(Shapes(_definitions()))


@pytest.fixture(scope="session")
def examples() -> tuple[dict[str, Any], ...]:
    """Return the 702 official instance examples; skip where they are absent."""
    if not EXAMPLES.exists():
        pytest.skip("The official examples are not beside the project (shared/data/examples).")
    return _examples()


@pytest.fixture(scope="session")
def synthea() -> list[Path]:
    """Return the files of synthetic patients; skip where they are absent."""
    files = sorted((DATA / "synthea").glob("*.json.gz"))
    if not files:
        pytest.skip("The synthetic patients are not beside the project (shared/data/synthea).")
    return files
