"""https://hl7.org/fhir/R4/security.html; each check names where its weakness was seen."""

import pytest

from fhir_server.app import Server
from tests.security.advisories import checks
from tests.security.advisories.world import Check

CHECKS = [
    one
    for name, one in vars(checks).items()
    if getattr(one, "__module__", "") == checks.__name__ and not name.startswith("_")
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_what_leaked_elsewhere_does_not_here(world: Server, check: Check) -> None:
    """What was found in another server is not found in this one."""
    await check(world)
