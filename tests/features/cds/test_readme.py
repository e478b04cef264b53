"""What README shows to newcomers about drug safety."""

import json
import re
from pathlib import Path

from fhir_server.app import Server
from tests.features.cds.conftest import client_of

ROOT = Path(__file__).resolve().parents[3]


async def test_the_curl_of_the_readme_gets_a_critical_card(server: Server) -> None:
    """One command, copied from README, shows a critical card; nothing else is needed for it."""
    text = (ROOT / "README.md").read_text("utf-8")
    found = re.search(r"/cds-services/(\S+) -H .*? -d '(\{.*?)'\n", text, re.DOTALL)
    assert found is not None
    async with client_of(server) as hooks:
        response = await hooks.post(f"/cds-services/{found[1]}", json=json.loads(found[2]))

    (first, *_) = response.json()["cards"]
    assert first["indicator"] == "critical"
    assert first["summary"].startswith("sildenafil with isosorbide")
    assert "not reviewed by a pharmacist" in first["detail"]
