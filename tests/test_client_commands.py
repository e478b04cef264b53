"""docs/security.md, "Apps and tokens": the commands of the README."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
import typer
from pymongo import MongoClient
from rich.console import Console
from typer.testing import CliRunner

from fhir_server.app import Server, opened
from fhir_server.client_commands import client_cli, token_command
from fhir_server.security.grants import hashed
from fhir_server.settings import Settings


@pytest.fixture
def chosen(mongodb_uri: str) -> Iterator[Settings]:
    """Settings with a database of the test's own, which is dropped afterwards."""
    name = f"test-{uuid4().hex[:12]}"
    yield Settings.model_validate({"mongodb_database": name})
    with MongoClient[dict[str, Any]](mongodb_uri) as client:
        client.drop_database(name)


@pytest.fixture
def cli(chosen: Settings, mongodb_uri: str) -> typer.Typer:
    """The commands, on that database."""

    def settings(**_: object) -> Settings:
        return chosen

    @asynccontextmanager
    async def open(settings: Settings) -> AsyncIterator[Server]:
        async with opened(settings, mongodb_uri) as server:
            yield server

    console = Console()
    made = typer.Typer()
    made.add_typer(client_cli(settings, open, console), name="client")
    made.command()(token_command(settings, open, console))
    return made


def _said(cli: typer.Typer, *words: str, code: int = 0) -> str:
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == code, result.output
    return result.output


def test_a_client_and_a_token(cli: typer.Typer, chosen: Settings, mongodb_uri: str) -> None:
    """A client is added with its secret printed once; a token is printed and known by its hash."""
    kind = ("--kind", "confidential-symmetric", "--scope", "introspect")
    added = _said(
        cli, *("client", "add", "lab", *kind, "--with", "backend=true", "--with", "role=backend")
    )
    assert "secret: " in added
    assert _said(cli, "client", "list") == "lab  confidential-symmetric  lab\n"
    assert "secret" not in _said(cli, "client", "show", "lab").replace("confidential-symmetric", "")
    token = _said(cli, "token", "patient/*.rs", "--patient", "p1").strip()
    with MongoClient[dict[str, Any]](mongodb_uri) as client:
        database = client[chosen.mongodb_database]
        assert database["oauth_tokens"].find_one({"_id": hashed(token)}) is not None
        [grant] = database["oauth_grants"].find()
    assert (grant["patient"], grant["scopes"]) == ("p1", ["patient/*.rs"])


@pytest.mark.parametrize(
    "words",
    [
        ("token", "patient/*.rs"),
        ("token", "everything"),
        ("token", ""),
        ("token", "system/*.rs", "--user", "Practitioner/1"),
        ("token", "system/*.rs user/*.rs"),
        ("token", "user/*.rs", "--user", "Practitioner/1", "--seconds", "100000000"),
        ("client", "add", "x", "--with", "colour=red"),
        ("client", "add", "x", "--keys", "/nowhere"),
    ],
)
def test_what_is_refused_at_once(cli: typer.Typer, words: tuple[str, ...]) -> None:
    """What cannot be meant is said before anything is opened."""
    _said(cli, *words, code=2)
