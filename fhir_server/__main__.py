"""The command line: serve, load, package, validate, user, client, token, audit, check, version."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, NoReturn

import typer
import uvicorn
from pydantic import ValidationError
from pydantic_settings import SettingsError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fhir_server import __version__, load, offline, vocabulary
from fhir_server.app import Server, configure_logging, offline_judge, opened
from fhir_server.artifacts import artifacts_root
from fhir_server.audit_commands import audit_cli
from fhir_server.client_commands import client_cli, token_command
from fhir_server.consent_commands import consents_command
from fhir_server.http.transport import transport_of
from fhir_server.messages import Request
from fhir_server.offline import as_json, lines_of, summary
from fhir_server.outcome import FhirError
from fhir_server.packages import in_order
from fhir_server.r4.packages import Package, read_package
from fhir_server.registry import UnknownFeatureError
from fhir_server.settings import LOOPBACK, Settings
from fhir_server.store import embedded, shared
from fhir_server.store.client import UnfitDatabaseError
from fhir_server.store.fitness import reasons_against
from fhir_server.terminology.sources.source import Unreadable
from fhir_server.user_commands import demo_users, user_cli

SAMPLE = Path("examples/dhaka-clinic")
_SAMPLE_LOAD = "sample_load"
_SHUTDOWN_S = 25
_LEFT_OUT_SHOWN = 20
# Features whose commands are of use without being on in a server: who sends needs none.
_SHIPPED = ("adapters.hl7v2",)

cli = typer.Typer(
    help="A FHIR R4 server on MongoDB.", no_args_is_help=True, pretty_exceptions_enable=False
)
package_cli = typer.Typer(help="FHIR packages: implementation guides.", no_args_is_help=True)
cli.add_typer(package_cli, name="package")
terminology_cli = typer.Typer(help="Code systems with many concepts.", no_args_is_help=True)
cli.add_typer(terminology_cli, name="terminology")
console = Console(stderr=True, highlight=False)

DataOption = Annotated[
    Path | None, typer.Option("--data", help="Folder of the embedded MongoDB (FHIR_DATA).")
]


def main() -> None:
    """Run the command that the command line names, one of ours or of a feature that is listed."""
    _mount_commands()
    cli()


def _mount_commands() -> None:
    """Add the commands of the features: a module ``commands`` with a ``cli`` and its ``NAME``."""
    try:
        features = Settings().features
    except (ValidationError, SettingsError):
        features = ()  # the command that needs them says what is wrong
    for feature in dict.fromkeys((*_SHIPPED, *features)):
        spec = find_spec(feature)
        if spec is None or spec.submodule_search_locations is None:
            continue  # not there, which the start names; or a single module
        if find_spec(f"{feature}.commands") is not None:
            commands = import_module(f"{feature}.commands")
            cli.add_typer(commands.cli, name=commands.NAME)


@cli.command()
def version() -> None:
    """Print the version."""
    print(f"fhir-server {__version__} (FHIR R4, 4.0.1)")


@cli.command()
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
    settings = _settings(host=host, port=port, data=data, workers=workers)
    _refuse_unsafe(settings)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # Python's own would cancel what runs, and a library may swallow that; leaving it may not.
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
    own = asyncio.run(_mongod(settings, guest=False))
    try:
        if own is not None:
            os.environ["FHIR_MONGODB_URI"] = own.uri
        settings = Settings()
        asyncio.run(_prepare(settings, sample=sample))
        _announce(settings, own)
        uvicorn.run(
            "fhir_server.app:application",
            factory=True,
            http="fhir_server.http.protocol:BoundedProtocol",
            host=settings.host,
            port=settings.port,
            workers=settings.workers if settings.workers > 1 else None,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_SHUTDOWN_S,
            **transport_of(settings),
        )
    except (UnfitDatabaseError, UnknownFeatureError) as error:
        _stop(str(error))
    except KeyboardInterrupt:
        pass  # Ctrl-C is how one stops it; uvicorn has ended what was under way
    finally:
        if own is not None:
            asyncio.run(own.stop())


@cli.command(name="load")
def load_command(
    paths: Annotated[list[Path], typer.Argument(help="Files or folders to load.")],
    data: DataOption = None,
) -> None:
    """Load Bundles, NDJSON and single resources, in JSON or XML; loading again changes nothing."""
    settings = _settings(data=data)
    try:
        files = load.files_of(paths)
    except FileNotFoundError as error:
        _stop(str(error))
    report = asyncio.run(_load(settings, files))
    for source, sentence in report.errors:
        console.print(f"[red]{source}[/red]: {sentence}", markup=True, soft_wrap=True)
    if report.errors:
        raise typer.Exit(1)


@package_cli.command(name="add")
def package_add(
    paths: Annotated[list[Path], typer.Argument(help="Packages: .tgz files or unpacked folders.")],
    without_dependencies: Annotated[
        bool, typer.Option("--without-dependencies", help="Go on where a dependency is not here.")
    ] = False,
    data: DataOption = None,
) -> None:
    """Add FHIR packages (implementation guides); nothing is fetched from anywhere."""
    settings = _settings(data=data)
    try:
        packages = in_order([read_package(path) for path in paths])
        asyncio.run(_add(settings, packages, without_dependencies=without_dependencies))
    except FhirError as error:
        _stop(str(error), 1)


async def _add(settings: Settings, given: list[Package], *, without_dependencies: bool) -> None:
    async with _standing_alone(settings) as server:
        for package in given:
            began = time.perf_counter()
            added = await server.installer.add(package, without_dependencies=without_dependencies)
            seconds = time.perf_counter() - began
            text = f"{added.resources} resources, {added.written} new, in {seconds:.1f} s."
            console.print(f"{added.key}: {text}", markup=False, soft_wrap=True)
            for sentence in added.left_out[:_LEFT_OUT_SHOWN]:
                console.print(f"  left out {sentence}", markup=False, soft_wrap=True)
            if len(added.left_out) > _LEFT_OUT_SHOWN:
                console.print(f"  left out: {len(added.left_out) - _LEFT_OUT_SHOWN} more")


@package_cli.command(name="list")
def package_list(data: DataOption = None) -> None:
    """List the packages that were added, and those on disk."""
    asyncio.run(_list(_settings(data=data)))


async def _list(settings: Settings) -> None:
    async with _standing_alone(settings, observing=True) as server:
        for one in await server.packages.all():
            left_out = f", {len(one.left_out)} left out" if one.left_out else ""
            print(f"{one.key}  {one.state}, {len(one.resources)} resources{left_out}")
        for name, versions in sorted(server.context.published.packages().items()):
            for version in versions:
                print(f"{name}#{version}  on disk")


@package_cli.command(name="remove")
def package_remove(
    key: Annotated[str, typer.Argument(help="The package as name#version.")],
    data: DataOption = None,
) -> None:
    """Delete what a package has stored; what was changed here since then stays."""

    async def remove(settings: Settings) -> int:
        async with _standing_alone(settings) as server:
            return await server.installer.remove(key)

    try:
        count = asyncio.run(remove(_settings(data=data)))
    except FhirError as error:
        _stop(str(error), 1)
    console.print(f"{key}: {count} resources deleted.", markup=False)


@cli.command()
def validate(
    paths: Annotated[list[Path], typer.Argument(help="Files or folders: JSON, NDJSON, XML.")],
    profile: Annotated[
        list[str] | None, typer.Option(help="Canonical of a profile to hold resources to.")
    ] = None,
    package: Annotated[
        list[Path] | None, typer.Option(help="A FHIR package with definitions: .tgz or folder.")
    ] = None,
    output: Annotated[str, typer.Option(help="text or json.")] = "text",
    jobs: Annotated[int, typer.Option(min=1, max=64, help="Processes.")] = os.cpu_count() or 1,
) -> None:
    """Judge files by R4, their profiles and those named; needs no database and no network."""
    settings = _settings()
    if output not in ("text", "json"):
        _stop(f"--output is {output!r}; expected text or json.")
    try:
        files = load.files_of(paths)
        offline.packages_of(package or ())
    except (FileNotFoundError, FhirError) as error:
        _stop(str(error))
    make = partial(offline_judge, artifacts=settings.artifacts)
    began = time.perf_counter()
    found = offline.findings(files, make, package or (), profile or (), jobs)
    kept = []
    for one in found:
        kept.append(one)
        if output == "text":
            for line in lines_of(one):
                print(line)
    if output == "json":
        print(as_json(kept))
    for line in summary(kept, time.perf_counter() - began):
        console.print(line, markup=False, soft_wrap=True)
    if not all(one.is_valid for one in kept):
        raise typer.Exit(1)


@terminology_cli.command(name="load")
def terminology_load(
    path: Annotated[Path, typer.Argument(help="A folder, a .zip, or a file .csv, .tsv, .json.")],
    url: Annotated[str, typer.Option(help="The url of the code system, for a table.")] = "",
    version: Annotated[str, typer.Option(help="Its version, where the files do not say it.")] = "",
    title: Annotated[str, typer.Option(help="Its title, for a table.")] = "",
    data: DataOption = None,
) -> None:
    """Load a code system: SNOMED CT (RF2), LOINC, a CodeSystem, or a table with a column code."""
    settings = _settings(data=data)
    described = vocabulary.Described(url, version, title)
    try:
        asyncio.run(_load_terminology(settings, path, described))
    except FileNotFoundError as error:
        _stop(str(error))
    except (Unreadable, FhirError) as error:
        _stop(str(error), 1)


async def _load_terminology(
    settings: Settings, path: Path, described: vocabulary.Described
) -> None:
    began = time.perf_counter()
    columns = (TextColumn("{task.description}"), TextColumn("{task.completed:,} concepts"))
    with vocabulary.files_at(path) as files, Progress(*columns, console=console) as progress:
        task = progress.add_task("Reading", total=None)
        async with _standing_alone(settings) as server:
            with vocabulary.source(files, described) as found:
                progress.update(task, description="Writing")
                count = await vocabulary.load_system(
                    found,
                    vocabulary.fingerprint(files),
                    server.context,
                    lambda done: progress.update(task, completed=done),
                )
    seconds = time.perf_counter() - began
    beside = f"{count:,} concepts" if count else "its concepts in its resource"
    text = f"{found.system}|{found.version}: {beside}, in {seconds:.1f} s."
    console.print(text, markup=False, soft_wrap=True)


@terminology_cli.command(name="list")
def terminology_list(data: DataOption = None) -> None:
    """List the code systems whose concepts were loaded."""

    async def shown(settings: Settings) -> None:
        async with _standing_alone(settings, observing=True) as server:
            for one in await server.context.store.concepts.shelves():
                print(f"{one.system}|{one.version}  {one.count:,} concepts")

    asyncio.run(shown(_settings(data=data)))


@terminology_cli.command(name="remove")
def terminology_remove(
    canonical: Annotated[str, typer.Argument(help="The code system as url|version.")],
    data: DataOption = None,
) -> None:
    """Remove a version of a code system that was loaded."""
    url, _, version = canonical.partition("|")

    async def remove(settings: Settings) -> bool:
        async with _standing_alone(settings) as server:
            return await vocabulary.remove_system(url, version, server.context)

    try:
        if not asyncio.run(remove(_settings(data=data))):
            _stop(f"{canonical} is not loaded.", 1)
    except FhirError as error:
        _stop(str(error), 1)
    console.print(f"{canonical}: removed.", markup=False)


@cli.command()
def check(
    data: DataOption = None,
    production: Annotated[
        bool, typer.Option("--production", help="Only say what keeps it from production.")
    ] = False,
) -> None:
    """Check settings, definitions, database and indexes, and print what would run."""
    settings = _settings(data=data)
    if production:
        if reasons := asyncio.run(reasons_against(settings)):
            _stop(_listed(reasons), 1)
        console.print("This is fit for production.")
        return
    asyncio.run(_check(settings))


def _settings(**given: object) -> Settings:
    """Return the settings; what the command line gives goes before the environment."""
    for name, value in given.items():
        if value is not None:
            os.environ[f"FHIR_{name.upper()}"] = str(value)
    try:
        settings = Settings()
    except ValidationError as error:
        lines = (
            f"FHIR_{'_'.join(map(str, one['loc'])).upper()}: {one['msg']}" for one in error.errors()
        )
        _stop("Settings that cannot be used:\n  " + "\n  ".join(lines))
    except SettingsError as error:  # it names the field in quotes, and no more than that
        field = str(error).partition('"')[2].partition('"')[0].upper()
        _stop(f'Settings that cannot be used:\n  FHIR_{field}: it is no JSON, such as ["a.b"]')
    configure_logging(settings.log_level)
    return settings


def _refuse_unsafe(settings: Settings) -> None:
    """End where the server must not run as it is set, and say all that is to be changed."""
    if settings.mode == "production":
        if reasons := asyncio.run(reasons_against(settings)):
            _stop(_listed(reasons))
    elif settings.host not in LOOPBACK:
        _stop(
            f"FHIR_HOST={settings.host} can be reached from other machines, and in development "
            "everybody who reaches the server reads and writes everything. Use 127.0.0.1, or "
            "FHIR_MODE=production (docs/security.md)."
        )


def _listed(reasons: tuple[str, ...]) -> str:
    return "This is not fit for production:\n  " + "\n  ".join(reasons)


def _stop(message: str, code: int = 2) -> NoReturn:
    console.print(message, markup=False, soft_wrap=True)
    raise typer.Exit(code)


async def _mongod(settings: Settings, *, guest: bool) -> embedded.Embedded | None:
    """Return the embedded mongod, started or adopted, or ``None`` where a URI is set."""
    if settings.mongodb_uri:
        return None
    try:
        return await embedded.start(settings.data, cache_mb=settings.embedded_cache_mb, guest=guest)
    except UnfitDatabaseError as error:
        _stop(str(error))


@asynccontextmanager
async def _standing_alone(settings: Settings, *, observing: bool = False) -> AsyncIterator[Server]:
    """Open the server for one command, on the embedded MongoDB if that is what is set."""
    own = await _mongod(settings, guest=True)
    try:
        uri = own.uri if own else settings.mongodb_uri
        async with opened(settings, uri, observing=observing) as server:
            yield server
    except (UnfitDatabaseError, UnknownFeatureError) as error:
        _stop(str(error))
    finally:
        if own is not None:
            await own.stop()


cli.add_typer(user_cli(_settings, _standing_alone, console), name="user")
cli.add_typer(client_cli(_settings, _standing_alone, console), name="client")
cli.command()(token_command(_settings, _standing_alone, console))
cli.command(name="consents")(consents_command(_settings, _standing_alone, console))
cli.add_typer(audit_cli(_settings, _standing_alone, console), name="audit")


async def _prepare(settings: Settings, *, sample: bool) -> None:
    """Open the server once before it serves: what is wrong is said here, by one process."""
    async with opened(settings, settings.mongodb_uri) as server:
        folder = artifacts_root(settings.artifacts) / SAMPLE
        if sample and folder.is_dir() and await _lacks_sample(server):
            await _load_sample(server, folder, settings.body_bytes_max)
        if sample and settings.mode == "development":
            await _make_demo_users(server, settings)


async def _make_demo_users(server: Server, settings: Settings) -> None:
    site = _base(settings).removesuffix("/fhir")
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


def _base(settings: Settings) -> str:
    return settings.base_url or f"http://{settings.host}:{settings.port}/fhir"


def _announce(settings: Settings, own: embedded.Embedded | None) -> None:
    base = _base(settings)
    site = base.removesuffix("/fhir")
    console.print(f"FHIR R4 at [bold]{base}[/bold]; start from {site}/", soft_wrap=True)
    if own is not None:
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


async def _load(settings: Settings, files: list[Path]) -> load.Report:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    async with _standing_alone(settings) as server:
        began = time.perf_counter()
        with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
            shown = progress.add_task("resources", total=None)
            report = await load.load(
                files,
                server.perform,
                xml=server.xml,
                bytes_max=settings.body_bytes_max,
                done=lambda count: progress.update(shown, advance=count),
            )
        seconds = time.perf_counter() - began
    console.print(
        f"{report.files} files, {report.resources} resources in {seconds:.1f} s "
        f"({report.resources / seconds:,.0f}/s); {report.written} new, "
        f"{len(report.errors)} errors.",
        soft_wrap=True,
    )
    return report


async def _check(settings: Settings) -> None:
    console.print("Settings other than the defaults:")
    for name in sorted(settings.model_fields_set):
        shown = "(set)" if name == "mongodb_uri" else getattr(settings, name)
        console.print(f"  FHIR_{name.upper()} = {shown}", markup=False)
    async with _standing_alone(settings, observing=True) as server:
        definitions, registry = server.context.definitions, server.registry
        console.print(
            f"Definitions: {len(definitions.resource_types)} resource types, "
            f"{len(definitions.search_parameters)} search parameters"
        )
        types = await server.context.store.indexes.existing()
        missing = await server.context.store.indexes.missing()
        console.print(f"Database: a replica set; {len(types)} resource types in use")
        console.print(f"Indexes missing: {', '.join(missing) or 'none'}")
        pending = server.context.store.keys.pending()
        console.print(f"Not searchable before they are indexed: {', '.join(pending) or 'none'}")
        for why in server.context.parameters.unusable.values():
            console.print(f"Not served: {why}", markup=False, soft_wrap=True)
        console.print(f"Interactions: {', '.join(registry.interactions)}", soft_wrap=True)
        console.print(f"Operations: {', '.join(registry.operation_names()) or 'none'}")
        console.print(f"Tasks: {', '.join(registry.tasks) or 'none'}")
        console.print(f"Routes: {', '.join(registry.routes) or 'none'}")
        response = await server.perform(Request("capabilities", base_url="http://localhost/fhir"))
        console.print(f"CapabilityStatement: {len(response.body):,} bytes")
    if missing:
        raise typer.Exit(1)


if __name__ == "__main__":
    main()
