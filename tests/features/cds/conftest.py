"""The knowledge, as it is shipped and with a site's look-up tables."""

from pathlib import Path

import pytest

from fhir_server.features.cds.knowledge import Knowledge, load_knowledge

ROOT = Path(__file__).resolve().parents[3]
CASES = ROOT / "tests" / "cases" / "cds"


@pytest.fixture(scope="session")
def knowledge() -> Knowledge:
    """The knowledge as it is shipped: no table of products."""
    return load_knowledge(ROOT / "terminology")


@pytest.fixture(scope="session")
def with_products(shared: Path) -> Knowledge:
    """The knowledge with RxNorm's products, which are not part of this repository."""
    return load_knowledge(ROOT / "terminology", shared / "cds" / "lookup")
