"""The sample clinic of examples/dhaka-clinic, as its README promises it."""

import json
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from fhir_server import load
from fhir_server.app import Server
from fhir_server.messages import Request
from fhir_server.sample import add_sample
from fhir_server.settings import Settings
from tests.conftest import ROOT, Fhir

CLINIC = ROOT / "examples" / "dhaka-clinic"
SIZE = 220


def commands(path: str) -> list[list[str]]:
    """The words of each curl command in the README at ``path``; a body over lines is left out."""
    text = (ROOT / path).read_text(encoding="utf-8").replace("\\\n", " ")
    return [
        shlex.split(line)
        for line in text.splitlines()
        if line.startswith("curl ") and line.count("'") % 2 == 0
    ]


def searches(path: str) -> Iterator[tuple[str, tuple[tuple[str, str], ...]]]:
    """Type and parameters of each search among the commands."""
    for words in commands(path):
        given = [word for option, word in pairwise(words) if option in GIVEN]
        url = urlsplit(next(word for word in words if word.startswith(("$B", "http"))))
        place = url.path.rpartition("$B/")[2].removeprefix("$BASE/")
        pairs = tuple(parse_qsl(url.query) + [tuple(word.split("=", 1)) for word in given])
        if pairs in SENT_BEFORE:
            continue
        if re.fullmatch("[A-Z][A-Za-z]+", place) and "-X" not in words:
            yield place, tuple((name, value) for name, value in pairs)


def added(path: str) -> list[Any]:
    """The search parameters that the README at ``path`` puts on the server."""
    text = (ROOT / path).read_text(encoding="utf-8")
    found = re.findall(r"""curl -X PUT "\$B/SearchParameter/.*?-d '(.*?)'""", text, re.DOTALL)
    return [json.loads(body) for body in found]


GIVEN = ("-d", "--data-urlencode")
# What a laboratory's message brings: tests/adapters/hl7v2/test_commands.py sends it and asks this.
SENT_BEFORE = {(("patient.identifier", "KC-2001"), ("code", "2345-7"))}


@pytest.fixture
async def clinic(server: Server) -> Server:
    """A server with the clinic loaded."""
    report = await load.load(
        load.files_of([CLINIC]), server.perform, xml=server.xml, bytes_max=2**24
    )
    assert (report.resources, report.written, report.errors) == (SIZE, SIZE, [])
    return server


async def test_it_is_loaded_once(clinic: Server) -> None:
    """Loading it again writes nothing."""
    report = await load.load(
        load.files_of([CLINIC]), clinic.perform, xml=clinic.xml, bytes_max=2**24
    )

    assert (report.resources, report.written, report.errors) == (SIZE, 0, [])


def test_every_reference_leads_somewhere() -> None:
    """No reference in the clinic is to something that is not in it."""
    bundle = json.loads((CLINIC / "clinic.json").read_text(encoding="utf-8"))
    there = {entry["request"]["url"] for entry in bundle["entry"]}
    found: set[str] = set()

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("reference"), str):
                found.add(value["reference"])
            for one in value.values():
                collect(one)
        elif isinstance(value, list):
            for one in value:
                collect(one)

    collect(bundle)

    assert len(there) == SIZE
    assert {one for one in found if not one.startswith("#")} <= there


@pytest.mark.parametrize("readme", ["README.md", "examples/dhaka-clinic/README.md"])
async def test_every_search_of_the_readme_finds_something(
    clinic: Server, fhir: Fhir, readme: str
) -> None:
    """What a newcomer types first has an answer with somebody in it."""
    asked = list(searches(readme))
    assert len(asked) >= 5
    for resource in added(readme):
        place = ("SearchParameter", resource["id"])
        assert (await fhir(Request("update", *place, body=resource))).status == 201
    while await clinic.context.reindex.step():
        pass
    for type, parameters in asked:
        response = await fhir(Request("search-type", type, parameters=parameters))
        assert response.status == 200, (type, parameters, response.body)
        assert json.loads(response.body).get("entry"), (type, parameters)


async def test_a_load_that_was_cut_off_is_done_again(
    mongodb_uri: str, settings: Settings, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``serve --sample`` after a kill has the whole clinic; after that nothing is loaded again."""
    settings = settings.model_copy(update={"mongodb_uri": mongodb_uri})
    whole = load.load

    async def killed(*_: Any, **__: Any) -> None:
        await server.context.store.indexes.ensure(["Patient"])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(load, "load", killed)
        with pytest.raises(KeyboardInterrupt):
            await add_sample(settings)
    assert load.load is whole
    await add_sample(settings)
    patients = server.database["Patient"]
    count = await patients.count_documents({})
    await patients.delete_many({})
    await add_sample(settings)

    assert count > 0
    assert await patients.count_documents({}) == 0
