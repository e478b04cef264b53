"""The commands ``fhir-server client`` and ``fhir-server token``: apps, backends, a token for curl.

design/security.md, section 2.1, and docs/security.md. Clients are administered through the front
door, by the operations that administrators have over HTTP. A token needs access to the database.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Annotated, Any, NoReturn, Protocol

import typer
from rich.console import Console

from fhir_server.context import Context
from fhir_server.interactions.recording import note
from fhir_server.messages import Request, Response
from fhir_server.outcome import FhirError
from fhir_server.r4.json import decode
from fhir_server.security.audit import Row
from fhir_server.security.grants import Client, Grant
from fhir_server.security.principal import SERVER
from fhir_server.security.registration import is_scope, words
from fhir_server.security.scopes import scopes_of
from fhir_server.settings import Settings

_DataOption = Annotated[
    Path | None, typer.Option("--data", help="Folder of the embedded MongoDB (FHIR_DATA).")
]
_Id = Annotated[str, typer.Argument(help="The client_id.")]
_Many = list[str] | None
_DEVELOPER = Client("developer", "Tokens of the command line")
_SECONDS_MAX = 86_400
_MORE = {
    "name": "String",
    "backend": "Boolean",
    "role": "Code",
    "launchUri": "Uri",
    "origin": "Uri",
    "algorithm": "Code",
    "requestsASecond": "Integer",
}


class Opened(Protocol):
    """The open server, as far as these commands know it."""

    @property
    def context(self) -> Context:
        """What handlers are given."""

    async def perform(self, request: Request) -> Response:
        """Pass ``request`` through the front door."""


Open = Callable[..., AbstractAsyncContextManager[Opened]]
SettingsOf = Callable[..., Settings]


def client_cli(settings: SettingsOf, open: Open, console: Console) -> typer.Typer:
    """Return the commands. ``settings`` and ``open`` are those of the command line."""
    cli = typer.Typer(help="Apps and backends that may ask for tokens.", no_args_is_help=True)

    def asked(name: str, given: Iterable[Mapping[str, Any]], data: Path | None) -> list[Any]:
        parameters = [*given]
        body = {"resourceType": "Parameters", "parameter": parameters} if parameters else None
        request = Request(name, body=body)
        try:
            return asyncio.run(_performed(settings(data=data), open, request))
        except FhirError as error:
            _stop(console, str(error))

    @cli.command()
    def add(
        id: _Id,
        kind: Annotated[
            str, typer.Option(help="public, confidential-symmetric or confidential-asymmetric.")
        ] = "",
        scope: Annotated[_Many, typer.Option(help="What it may be granted at most.")] = None,
        redirect_uri: Annotated[_Many, typer.Option(help="Where users are sent back to.")] = None,
        keys: Annotated[str, typer.Option(help="Its public keys: a file, or their URL.")] = "",
        also: Annotated[
            _Many,
            typer.Option(
                "--with",
                help="name=…, backend=true, role=…, launchUri=…, origin=…, algorithm=RS384, "
                "requestsASecond=….",
            ),
        ] = None,
        data: _DataOption = None,
    ) -> None:
        """Register an app or a backend, and print its secret, where it has one."""
        given = [
            *_texts("id", [id]),
            *_texts("kind", [kind or ("confidential-asymmetric" if keys else "public")], "Code"),
            *_texts("redirectUri", redirect_uri or (), "Uri"),
            *_texts("scope", scope or ()),
            *_keys(keys, console),
            *(_named(one, console) for one in also or ()),
        ]
        _print(asked("$client-add", given, data))

    @cli.command(name="list")
    def list_command(data: _DataOption = None) -> None:
        """List the clients."""
        for one in asked("$client-list", (), data):
            said = {part["name"]: _value(part) for part in one["part"]}
            typer.echo(f"{said['id']}  {said['kind']}  {said['name']}")

    @cli.command()
    def show(id: _Id, data: _DataOption = None) -> None:
        """Show all that is registered of a client."""
        _print(asked("$client-list", _texts("id", [id]), data))

    @cli.command()
    def remove(id: _Id, data: _DataOption = None) -> None:
        """Remove a client; its tokens end with it."""
        _print(asked("$client-remove", _texts("id", [id]), data))

    @cli.command(name="rotate-secret")
    def rotate_secret(id: _Id, data: _DataOption = None) -> None:
        """Print another secret; the one before is no good from then on."""
        _print(asked("$client-rotate-secret", _texts("id", [id]), data))

    return cli


def token_command(settings: SettingsOf, open: Open, console: Console) -> Callable[..., None]:
    """Return the command that prints an access token."""

    def token(
        scope: Annotated[str, typer.Argument(help="Such as 'patient/*.rs' or 'system/*.cruds'.")],
        patient: Annotated[str, typer.Option(help="Id of the patient in context.")] = "",
        user: Annotated[str, typer.Option(help="Whose, such as Practitioner/1.")] = "",
        role: Annotated[_Many, typer.Option(help="What that user is here.")] = None,
        seconds: Annotated[int, typer.Option(help="How long it is good.")] = 3600,
        data: _DataOption = None,
    ) -> None:
        """Print an access token: curl -H "Authorization: Bearer $(fhir-server token …)" …"""
        chosen = settings(data=data)
        asked = words([scope])
        wrong = [one for one in asked if not is_scope(one)]
        if wrong or not asked:
            _stop(console, f"{', '.join(wrong) or 'Nothing'} is no scope.")
        levels = {one.level for one in scopes_of(" ".join(asked))}
        if "patient" in levels and not patient:
            _stop(console, "Scopes of patient/ need a --patient.")
        if "system" in levels and (len(levels) > 1 or user):
            _stop(console, "Scopes of system/ are a backend's: no user, no other scopes.")
        if not 0 < seconds <= _SECONDS_MAX:
            _stop(console, f"A token is good for 1 to {_SECONDS_MAX:,} seconds.")
        grant = Grant(
            _DEVELOPER.id,
            _audience(chosen),
            asked,
            user="" if "system" in levels else _name(user or f"Patient/{patient}"),
            fhir_user=user or (f"Patient/{patient}" if patient else ""),
            roles=tuple(role or ()),
            patient=patient,
        )
        typer.echo(asyncio.run(_given(chosen, open, grant, seconds)))

    return token


def _name(fhir_user: str) -> str:
    """Return the name of the user: a slash is between the parts of keys."""
    return f"{_DEVELOPER.id}.{fhir_user.replace('/', '.')}"


async def _given(settings: Settings, open: Open, grant: Grant, seconds: int) -> str:
    async with open(settings) as server:
        accounts = server.context.accounts
        await accounts.clients.add(_DEVELOPER)  # where it is there already, it stays as it is
        given = await accounts.give(grant, seconds)
        about = (f"Patient/{grant.patient}",) if grant.patient else ()
        said = " ".join(grant.scopes)
        row = Row(server.context.now(), "token", SERVER, concerns=about, query=said)
        await note(server.context, row)
        return given.access


async def _performed(settings: Settings, open: Open, request: Request) -> list[Any]:
    async with open(settings) as server:
        answer = await server.perform(request)
    found: list[Any] = decode(answer.body).get("parameter", [])
    return found


def _audience(settings: Settings) -> str:
    return settings.base_url.rstrip("/") or f"http://{settings.host}:{settings.port}/fhir"


def _texts(name: str, values: Iterable[str], type: str = "String") -> list[dict[str, Any]]:
    return [{"name": name, f"value{type}": value} for value in values if value]


def _keys(keys: str, console: Console) -> list[dict[str, Any]]:
    if keys.startswith(("https://", "http://")):
        return _texts("jwksUri", [keys], "Uri")
    try:
        return _texts("jwks", [Path(keys).read_text("utf-8")] if keys else ())
    except (OSError, ValueError):
        _stop(console, f"{keys} cannot be read.")


def _named(text: str, console: Console) -> dict[str, Any]:
    """Return the parameter that ``role=backend`` says."""
    name, _, said = text.partition("=")
    type = _MORE.get(name)
    if type is None or not said:
        _stop(console, f"{text} is none of {', '.join(_MORE)}, as name=value.")
    value: Any = said
    if type == "Boolean":
        value = said == "true"
    elif type == "Integer":
        value = int(said) if said.isdecimal() else -1
    return {"name": name, f"value{type}": value}


def _value(part: Mapping[str, Any]) -> Any:
    return next(value for name, value in part.items() if name.startswith("value"))


def _print(parameters: Iterable[Mapping[str, Any]]) -> None:
    for one in parameters:
        for part in one.get("part", [one]):
            typer.echo(f"{part['name']}: {_value(part)}")


def _stop(console: Console, text: str) -> NoReturn:
    console.print(text, markup=False, soft_wrap=True)
    raise typer.Exit(2)
