"""The commands ``fhir-server user``, and the demo users of development.

They go through the front door, as the operations ``$user-add`` and its like (operations/users.py),
so what they do is judged and recorded like anybody's.
"""

import asyncio
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn, Protocol

import typer
from rich.console import Console

from fhir_server.context import Context
from fhir_server.interactions.administering import add, named, split
from fhir_server.interactions.people import people_of
from fhir_server.messages import Request, Response
from fhir_server.outcome import FhirError
from fhir_server.r4.json import decode_stored
from fhir_server.security.grants import Client
from fhir_server.security.second_factor import seed_text, uri
from fhir_server.settings import Settings
from fhir_server.store.users import User

_DataOption = Annotated[
    Path | None, typer.Option("--data", help="Folder of the embedded MongoDB (FHIR_DATA).")
]
_Name = Annotated[str, typer.Argument(help="What is typed to sign in.")]
_Role = Annotated[
    list[str] | None,
    typer.Option("--role", help="physician, nurse, front-desk, front-desk-lead, billing, lab, …"),
]
_FhirUser = Annotated[
    str | None, typer.Option("--fhir-user", help="The resource the user is: Practitioner/1.")
]
_Patient = Annotated[str | None, typer.Option("--patient", help="The id of the Patient it is.")]
_Ask = Annotated[
    bool, typer.Option("--ask", help="Ask for the password; else one is made and printed once.")
]
_DEMO = (
    ("doctor", "physician", "Practitioner", "dr-farhana-haque"),
    ("desk", "front-desk", "Practitioner", "mizanur-rahman"),
    ("admin", "administrator", "", ""),
    ("rahima", "patient", "Patient", "rahima-khatun"),
)
_DEMO_SCOPES = (
    *("openid", "fhirUser", "launch", "launch/patient", "launch/encounter"),
    *("offline_access", "online_access", "patient/*.cruds", "user/*.cruds"),
)
DEMO_APP = "demo-app"


class Opened(Protocol):
    """The open server, as far as these commands know it."""

    @property
    def context(self) -> Context:
        """What handlers are given."""

    async def perform(self, request: Request) -> Response:
        """Pass a request through the front door."""


Open = Callable[..., AbstractAsyncContextManager[Opened]]


@dataclass(frozen=True, slots=True)
class _Line:
    """The command line: where it finds the server, and where it writes."""

    settings: Callable[..., Settings]
    open: Open
    console: Console

    def called(self, data: Path | None, operation: str, **given: Any) -> dict[str, list[Any]]:
        """Return what ``operation`` answers, by name. Ends with its refusal."""
        settings = self.settings(data=data)

        async def call() -> Response:
            body = {"resourceType": "Parameters", "parameter": list(_parameters(given))}
            async with self.open(settings) as server:
                return await server.perform(Request(operation, body=body))

        try:
            return _values(decode_stored(asyncio.run(call()).body).get("parameter", []))
        except FhirError as error:
            self.stop(" ".join(one.diagnostics for one in error.issues))

    def stop(self, text: str) -> NoReturn:
        """Say why, and end."""
        self.console.print(text, markup=False, soft_wrap=True)
        raise typer.Exit(1)

    def password(self, *, ask: bool) -> str | None:
        """Return the password that is typed, twice the same; or that of a pipe."""
        if not ask:
            return None
        if not sys.stdin.isatty():
            return sys.stdin.readline().rstrip("\n")
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))


def user_cli(settings: Callable[..., Settings], open: Open, console: Console) -> typer.Typer:
    """Return the commands. ``settings`` and ``open`` are those of the command line."""
    cli = typer.Typer(help="The people who may sign in.", no_args_is_help=True)
    line = _Line(settings, open, console)
    _add_making(cli, line)
    _add_changing(cli, line)
    return cli


def _add_making(cli: typer.Typer, line: _Line) -> None:
    @cli.command(name="add")
    def add_user(
        name: _Name,
        role: _Role = None,
        display: Annotated[str | None, typer.Option(help="What the user is called.")] = None,
        fhir_user: _FhirUser = None,
        patient: _Patient = None,
        ask: _Ask = False,
        data: _DataOption = None,
    ) -> None:
        """Add somebody; the password is printed once."""
        said = _about(role, display, fhir_user, patient)
        password = line.password(ask=ask)
        _shown(line.called(data, "$user-add", name=name, password=password, **said))

    @cli.command()
    def password(name: _Name, ask: _Ask = False, data: _DataOption = None) -> None:
        """Give a user another password; sessions and apps of the user end."""
        typed = line.password(ask=ask)
        _shown(line.called(data, "$user-password", name=name, password=typed))

    @cli.command(name="list")
    def list_users(data: _DataOption = None) -> None:
        """List who may sign in."""
        for part in line.called(data, "$users").get("user", ()):
            _shown(_values(part))

    @cli.command()
    def totp(
        name: _Name,
        give: Annotated[
            bool, typer.Option("--give", help="Make one here, and print it to be handed over.")
        ] = False,
        data: _DataOption = None,
    ) -> None:
        """Have a user set up the second factor anew at the next sign-in."""
        _shown(line.called(data, "$user-second-factor", name=name))
        if not give:
            return
        configured = line.settings(data=data)

        async def made() -> tuple[bytes, tuple[str, ...]]:
            async with line.open(configured) as server:
                people = people_of(server.context)
                return await people.give_second_factor(await named(people, name))

        seed, codes = asyncio.run(made())
        typer.echo(f"key: {seed_text(seed)}\nlink: {uri(seed, name, 'FHIR Server')}")
        typer.echo("\n  ".join(("on paper, once each:", *codes)))


def _add_changing(cli: typer.Typer, line: _Line) -> None:
    @cli.command()
    def disable(name: _Name, data: _DataOption = None) -> None:
        """Let a user sign in no more; sessions and apps of the user end at once."""
        _shown(line.called(data, "$user-change", name=name, disabled=True))

    @cli.command()
    def enable(name: _Name, data: _DataOption = None) -> None:
        """Let a user sign in again, also one who has to wait after wrong attempts."""
        _shown(line.called(data, "$user-change", name=name, disabled=False))

    @cli.command()
    def roles(
        name: _Name,
        role: Annotated[list[str] | None, typer.Argument(help="All roles; none takes all.")] = None,
        data: _DataOption = None,
    ) -> None:
        """Say what a user is here; what was granted with the old roles ends."""
        _shown(line.called(data, "$user-change", name=name, role=role or [""]))

    @cli.command()
    def change(
        name: _Name,
        display: Annotated[str | None, typer.Option(help="What the user is called.")] = None,
        fhir_user: _FhirUser = None,
        patient: _Patient = None,
        data: _DataOption = None,
    ) -> None:
        """Say anew who a user is."""
        said = _about(None, display, fhir_user, patient)
        _shown(line.called(data, "$user-change", name=name, **said))


def _about(
    role: list[str] | None, display: str | None, fhir_user: str | None, patient: str | None
) -> dict[str, Any]:
    return {
        "role": role,
        "display": display,
        "fhirUser": fhir_user,
        "patient": patient and f"Patient/{patient.removeprefix('Patient/')}",
    }


def _parameters(given: dict[str, Any]) -> Any:
    for name, value in given.items():
        if name == "role":
            yield from ({"name": name, "valueCode": one} for one in value or ())
        elif name in ("fhirUser", "patient") and value is not None:
            yield {"name": name, "valueReference": {"reference": value}}
        elif isinstance(value, bool):
            yield {"name": name, "valueBoolean": value}
        elif value is not None:
            yield {"name": name, "valueString": value}


def _values(parameters: list[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for one in parameters:
        value = next((one[key] for key in one if key != "name"), "")
        shown = value["reference"] if isinstance(value, dict) else value
        found.setdefault(one["name"], []).append(shown)
    return found


def _shown(user: dict[str, list[Any]]) -> None:
    def said(name: str) -> str:
        return ", ".join(str(one) for one in user.get(name, ()))

    notes = [
        *(("disabled",) if True in user.get("disabled", ()) else ()),
        *(("second factor",) if True in user.get("secondFactor", ()) else ()),
        *(("demo",) if True in user.get("demo", ()) else ()),
    ]
    told = (said("name"), said("display"), said("role") or "no role", said("fhirUser"))
    typer.echo("  ".join(one for one in (*told, said("patient"), ", ".join(notes)) if one))
    if password := said("password"):
        typer.echo(f"password: {password}")


async def demo_users(server: Opened, site: str) -> list[tuple[User, str]]:
    """Make the demo users of this start anew, those whose resources are there, and the demo app.

    Return each with the password that was made. Development alone: no second factor.
    """
    context, people = server.context, people_of(server.context)
    await people.users.remove_demo()
    found = []
    for name, role, type, id in _DEMO:
        is_patient = role == "patient"
        user = User(
            *(name, f"{name.title()} (demo)", split([role]), f"{type}/{id}" if type else ""),
            *(id if is_patient else "", False, True),
        )
        try:
            made = await add(context, user)
        except FhirError:
            continue  # without the sample clinic, or somebody real has the name
        await people.sessions.end_all(name)
        await people.attempts.forget(name)
        found.append((made.user, made.password))
    await _demo_app(context, site)
    return found


async def _demo_app(context: Context, site: str) -> None:
    """Register the app for trying out: a page of this server shows what an app would get."""
    others = (site.replace("127.0.0.1", "localhost"), site.replace("localhost", "127.0.0.1"))
    back = tuple(dict.fromkeys(f"{one}/auth/demo" for one in (site, *others)))
    client = Client(
        *(DEMO_APP, "Demo app", "public", back),
        launch_uri=back[0],
        scopes=_DEMO_SCOPES,
    )
    await context.accounts.clients.remove(DEMO_APP)
    await context.accounts.clients.add(client)
