"""What every command begins with: settings that can be used, a database, words for who waits."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from pydantic import ValidationError
from pydantic_settings import DotEnvSettingsSource, SettingsError
from rich.console import Console

from fhir_server.logs import configure_logging
from fhir_server.settings import Settings

cli = typer.Typer(
    help="A FHIR R4 server on MongoDB.", no_args_is_help=True, pretty_exceptions_enable=False
)
console = Console(stderr=True, highlight=False)

DataOption = Annotated[
    Path | None, typer.Option("--data", help="Folder of the embedded MongoDB (FHIR_DATA).")
]


@cli.callback()
def _all() -> None:
    """Do nothing: it is here so that a command is named even where only one is known."""


def settings_of(**given: object) -> Settings:
    """Return the settings; what the command line gives goes before the environment.

    Ends with code 2 where they cannot be used, and names each one.
    """
    for name, value in given.items():
        if value is not None:
            os.environ[f"FHIR_{name.upper()}"] = str(value)
    try:
        settings = read_settings()
    except ValueError as error:
        stop(str(error))
    configure_logging(settings.log_level)
    return settings


def settings_file() -> dict[str, str]:
    """Return what ``.env`` says of ours now: name of the variable -> text. Raises ``ValueError``
    where it cannot be read."""
    try:
        said = DotEnvSettingsSource(Settings).env_vars
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f".env cannot be read: {error}") from error
    return {
        name.upper(): value
        for name, value in said.items()
        if value is not None and name.upper().startswith("FHIR_")
    }


def read_settings(file: Mapping[str, str] | None = None) -> Settings:
    """Return the settings by the environment, and beneath it what ``file`` says, a moment of
    ``.env``; by default this one. Raises ``ValueError`` that names what is wrong."""
    known = {name.upper() for name in os.environ}
    said = settings_file() if file is None else file
    beneath = {name: value for name, value in said.items() if name not in known}
    os.environ.update(beneath)
    try:
        return Settings(_env_file=None)  # type: ignore[call-arg]  # which the plugin does not know
    except ValidationError as error:
        lines = (
            f"FHIR_{'_'.join(map(str, one['loc'])).upper()}: {one['msg']}" for one in error.errors()
        )
        raise ValueError("Settings that cannot be used:\n  " + "\n  ".join(lines)) from None
    except SettingsError as error:  # it names the field in quotes, and no more than that
        field = str(error).partition('"')[2].partition('"')[0].upper()
        text = f'Settings that cannot be used:\n  FHIR_{field}: it is no JSON, such as ["a.b"]'
        raise ValueError(text) from None
    finally:
        for name in beneath:
            os.environ.pop(name, None)


def listed(reasons: tuple[str, ...]) -> str:
    """Return why this cannot be run in production."""
    return "This is not fit for production:\n  " + "\n  ".join(reasons)


def stop(message: str, code: int = 2) -> NoReturn:
    """End the command with ``message``."""
    console.print(message, markup=False, soft_wrap=True)
    raise typer.Exit(code)


def base_of(settings: Settings) -> str:
    """Return the FHIR base as one calls it from this machine."""
    return settings.base_url or f"http://{settings.host}:{settings.port}/fhir"
