"""The sample clinic, and users to try the server with: what ``serve --sample`` adds."""

from pathlib import Path

from fhir_server import load
from fhir_server.app import Server, opened
from fhir_server.artifacts import artifacts_root
from fhir_server.settings import Settings
from fhir_server.starting import base_of, console
from fhir_server.store import shared
from fhir_server.user_commands import demo_users

SAMPLE = Path("examples/dhaka-clinic")
_SAMPLE_LOAD = "sample_load"


async def add_sample(settings: Settings) -> None:
    """Load the sample clinic into a database that is empty; in development, make the users."""
    async with opened(settings, settings.mongodb_uri) as server:
        folder = artifacts_root(settings.artifacts) / SAMPLE
        if folder.is_dir() and await _lacks_sample(server):
            await _load_sample(server, folder, settings.body_bytes_max)
        if settings.mode == "development":
            await _make_demo_users(server, settings)


async def _make_demo_users(server: Server, settings: Settings) -> None:
    site = base_of(settings).removesuffix("/fhir")
    found = await demo_users(server, site)
    text = f"Demo users of this start, for {site}/auth/demo and {site}/auth/console:"
    console.print(text, soft_wrap=True)
    for user, password in found:
        console.print(f"  {user.name}  {password}  ({', '.join(user.roles)})", markup=False)


async def _lacks_sample(server: Server) -> bool:
    """Return whether nothing is there, or an earlier load of the sample was cut off."""
    cut_off = await shared.under_way(server.database, _SAMPLE_LOAD)
    return cut_off or not await server.context.store.indexes.existing()


async def _load_sample(server: Server, folder: Path, bytes_max: int) -> None:
    await shared.begin(server.database, _SAMPLE_LOAD)
    report = await load.load(
        load.files_of([folder]), server.perform, xml=server.xml, bytes_max=bytes_max
    )
    await shared.end(server.database, _SAMPLE_LOAD)
    console.print(f"Loaded the sample clinic: {report.written} resources.")
    for source, sentence in report.errors:
        console.print(f"{source}: {sentence}", markup=False, soft_wrap=True)
