"""``fhir-server serve``: settings that are safe, a MongoDB, and the parent of the workers."""

import asyncio
import sys
from collections.abc import Mapping
from typing import Annotated

import typer

from fhir_server.settings import LOOPBACK, Settings
from fhir_server.starting import (
    DataOption,
    base_of,
    cli,
    console,
    listed,
    read_settings,
    settings_file,
    settings_of,
    stop,
)
from fhir_server.store import embedded
from fhir_server.store.client import UnfitDatabaseError
from fhir_server.store.fitness import reasons_against
from fhir_server.workers import Parent

NAME = "serve"


@cli.command(name=NAME)
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (FHIR_HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on (FHIR_PORT).")] = None,
    data: DataOption = None,
    workers: Annotated[int | None, typer.Option(help="Processes (FHIR_WORKERS).")] = None,
    sample: Annotated[
        bool, typer.Option("--sample", help="Load the sample clinic into an empty database.")
    ] = False,
) -> None:
    """Start the server, with an embedded MongoDB unless FHIR_MONGODB_URI is set."""
    if sys.platform == "win32":
        stop("The server runs on Linux and macOS; on Windows, in WSL or in a container.")
    settings_of(host=host, port=port, data=data, workers=workers)
    embedded.allow_files()
    code = asyncio.run(_served(sample=sample))
    if code:
        raise typer.Exit(code)


async def _served(*, sample: bool) -> int:
    """Serve until told to end; return the exit code. An embedded MongoDB ends with it."""
    own: list[embedded.Embedded] = []

    async def read() -> tuple[Settings, Mapping[str, str]]:
        file = settings_file()
        wanted = read_settings(file)
        if unsafe := await _unsafe(wanted):
            raise ValueError(unsafe)
        return wanted, file

    async def uri_of(wanted: Settings) -> str:
        if not wanted.mongodb_uri and not own:
            own.append(await embedded.start(wanted.data, cache_mb=wanted.embedded_cache_mb))
        return wanted.mongodb_uri or own[0].uri

    def announce(settings: Settings) -> None:
        _announce(settings, is_embedded=bool(own))

    try:
        return await Parent(sample, read, uri_of, announce).run()
    except (OSError, ValueError, UnfitDatabaseError) as error:
        stop(str(error))
    finally:
        for one in own:
            await one.stop()


async def _unsafe(settings: Settings) -> str:
    """Return all that is to be changed where the server must not run as it is set; else nothing."""
    if settings.mode == "production":
        reasons = await reasons_against(settings)
        return listed(reasons) if reasons else ""
    if settings.host not in LOOPBACK:
        return (
            f"FHIR_HOST={settings.host} can be reached from other machines, and in development "
            "everybody who reaches the server reads and writes everything. Use 127.0.0.1, or "
            "FHIR_MODE=production (docs/security.md)."
        )
    return ""


def _announce(settings: Settings, *, is_embedded: bool) -> None:
    base = base_of(settings)
    site = base.removesuffix("/fhir")
    console.print(f"FHIR R4 at [bold]{base}[/bold]; start from {site}/", soft_wrap=True)
    if is_embedded:
        console.print(
            f"MongoDB is embedded, its files are in {settings.data.resolve()}. That is for trying "
            "out and for small sites: one machine, no copy. Set FHIR_MONGODB_URI for more.",
            soft_wrap=True,
        )
    if settings.mode == "development":
        console.print(
            "[bold]Development mode[/bold]: who sends no token is the demo user and may do "
            "everything. Keep it to data of nobody; FHIR_MODE=production is for patients.",
            soft_wrap=True,
        )
    console.print("Try:")
    for path in ("metadata", "Patient?name=rahima", "Observation?_sort=-date&_count=3"):
        console.print(f"  curl '{base}/{path}'", markup=False, soft_wrap=True)
    console.print("Stop it with Ctrl-C.")
