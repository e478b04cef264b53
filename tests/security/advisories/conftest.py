"""A server that checks where references lead, with the two patients on it."""

from collections.abc import Iterator

import pytest

from fhir_server.app import Server
from fhir_server.settings import Settings
from tests.conftest import Emptied
from tests.security.advisories.world import patient, stored


@pytest.fixture
def settings(emptied: Emptied) -> Iterator[Settings]:
    """Settings under which a reference has to lead to something."""
    with emptied.one() as name:
        yield Settings.model_validate({"mongodb_database": name, "reference_targets_checked": "*"})


@pytest.fixture
async def world(server: Server) -> Server:
    """A server with patients a and b."""
    await stored(server, patient("a"), patient("b"))
    return server
