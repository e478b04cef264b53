"""A server that checks where references lead, with the two patients on it."""

from uuid import uuid4

import pytest

from fhir_server.app import Server
from fhir_server.settings import Settings
from tests.security.advisories.world import patient, stored


@pytest.fixture
def settings() -> Settings:
    """Settings under which a reference has to lead to something."""
    name = f"test-{uuid4().hex[:12]}"
    return Settings.model_validate({"mongodb_database": name, "reference_targets_checked": "*"})


@pytest.fixture
async def world(server: Server) -> Server:
    """A server with patients a and b."""
    await stored(server, patient("a"), patient("b"))
    return server
