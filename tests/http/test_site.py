"""https://hl7.org/fhir/R4/http.html#general

What is there beside the FHIR base: the start page, liveness, readiness.
"""

import httpx
import pytest

from fhir_server.app import Server
from tests.http.conftest import HOST


async def test_the_start_page_says_what_runs(http: httpx.AsyncClient) -> None:
    """A plain page that links metadata, docs and a first search."""
    answer = await http.get(f"http://{HOST}/")

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    for link in ("fhir/metadata", "fhir/Patient", "docs"):
        assert f'href="{link}' in answer.text


async def test_it_says_that_it_lives_and_is_ready(http: httpx.AsyncClient) -> None:
    """``/live`` and ``/ready`` answer in JSON, and say no more than that."""
    for path, word in (("live", "live"), ("ready", "ready")):
        answer = await http.get(f"http://{HOST}/{path}")
        assert (answer.status_code, answer.json()) == (200, {"status": word})


@pytest.mark.parametrize("path", ["/fhirx", "/fhir2/metadata", "/Fhir/metadata", "/nothing"])
async def test_what_is_beside_the_base_is_not_fhir(http: httpx.AsyncClient, path: str) -> None:
    """Only what is below ``/fhir`` is the FHIR base."""
    assert (await http.get(f"http://{HOST}{path}")).status_code == 404


async def test_the_base_itself_is_fhir(http: httpx.AsyncClient, server: Server) -> None:
    """With and without a slash at the end, it takes a Bundle."""
    for path in ("/fhir", "/fhir/"):
        body = {"resourceType": "Bundle", "type": "batch"}
        answer = await http.post(f"http://{HOST}{path}", json=body)
        assert (answer.status_code, answer.json()["type"]) == (200, "batch-response")
