"""The commands beside ``serve``: load, package, validate, user, client, token, audit, check, …"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fhir_server import __version__, load, offline, vocabulary
from fhir_server.app import Server, offline_judge, opened
from fhir_server.audit_commands import audit_cli
from fhir_server.client_commands import client_cli, token_command
from fhir_server.consent_commands import consents_command
from fhir_server.load_apart import Ended, load_apart
from fhir_server.messages import Request
from fhir_server.offline import as_json, lines_of, summary
from fhir_server.outcome import FhirError
from fhir_server.packages import in_order
from fhir_server.r4.packages import Package, read_package
from fhir_server.registry import UnknownFeatureError
from fhir_server.settings import Settings
from fhir_server.starting import (
    DataOption,
    cli,
    console,
    listed,
    settings_of,
    stop,
)
from fhir_server.store import deferral, embedded
from fhir_server.store.client import UnfitDatabaseError
from fhir_server.store.fitness import reasons_against
from fhir_server.terminology.sources.source import Unreadable
from fhir_server.user_commands import user_cli

_LEFT_OUT_SHOWN = 20
_MUCH_BYTES = 20_000_000  # some 10,000 resources: a process takes two seconds to begin
# Features whose commands are of use without being on in a server: who sends needs none.
_SHIPPED = ("adapters.hl7v2",)

package_cli = typer.Typer(help="FHIR packages: implementation guides.", no_args_is_help=True)
cli.add_typer(package_cli, name="package")
terminology_cli = typer.Typer(help="Code systems with many concepts.", no_args_is_help=True)
cli.add_typer(terminology_cli, name="terminology")


def mount(wanted: str = "") -> None:
    """Add the commands of the features: a module ``commands`` with a ``cli`` and its ``NAME``.

    To import them takes half a second, which nobody waits for who has ``wanted`` one of ours.
    """
    if wanted in _own_commands():
        return
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


def _own_commands() -> set[str]:
    """Return the names of ours; one that is given none has that of its function."""
    commands = {
        one.name or getattr(one.callback, "__name__", "") for one in cli.registered_commands
    }
    return commands | {str(one.name) for one in cli.registered_groups}


@cli.command()
def version() -> None:
    """Print the version."""
    print(f"fhir-server {__version__} (FHIR R4, 4.0.1)")


@cli.command(name="load")
def load_command(
    paths: Annotated[list[Path], typer.Argument(help="Files or folders to load.")],
    data: DataOption = None,
    processes: Annotated[
        int, typer.Option(min=0, max=64, help="Processes that load; 0: as many as there are cores.")
    ] = 0,
    defer_indexes: Annotated[
        bool,
        typer.Option("--defer-indexes", help="Make indexes at the end; for an empty database."),
    ] = False,
) -> None:
    """Load Bundles, NDJSON and single resources, in JSON or XML; loading again changes nothing."""
    settings = settings_of(data=data)
    try:
        files = load.files_of(paths)
    except FileNotFoundError as error:
        stop(str(error))
    try:
        processes = processes or _processes(files)
        report = asyncio.run(_load(settings, files, processes, deferring=defer_indexes))
    except Ended as error:
        stop(str(error))
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
    settings = settings_of(data=data)
    try:
        packages = in_order([read_package(path) for path in paths])
        asyncio.run(_add(settings, packages, without_dependencies=without_dependencies))
    except FhirError as error:
        stop(str(error), 1)


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
    asyncio.run(_list(settings_of(data=data)))


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
        count = asyncio.run(remove(settings_of(data=data)))
    except FhirError as error:
        stop(str(error), 1)
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
    settings = settings_of()
    if output not in ("text", "json"):
        stop(f"--output is {output!r}; expected text or json.")
    try:
        files = load.files_of(paths)
        offline.packages_of(package or ())
    except (FileNotFoundError, FhirError) as error:
        stop(str(error))
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
    settings = settings_of(data=data)
    described = vocabulary.Described(url, version, title)
    try:
        asyncio.run(_load_terminology(settings, path, described))
    except FileNotFoundError as error:
        stop(str(error))
    except (Unreadable, FhirError) as error:
        stop(str(error), 1)


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

    asyncio.run(shown(settings_of(data=data)))


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
        if not asyncio.run(remove(settings_of(data=data))):
            stop(f"{canonical} is not loaded.", 1)
    except FhirError as error:
        stop(str(error), 1)
    console.print(f"{canonical}: removed.", markup=False)


@cli.command()
def check(
    data: DataOption = None,
    production: Annotated[
        bool, typer.Option("--production", help="Only say what keeps it from production.")
    ] = False,
) -> None:
    """Check settings, definitions, database and indexes, and print what would run."""
    settings = settings_of(data=data)
    if production:
        if reasons := asyncio.run(reasons_against(settings)):
            stop(listed(reasons), 1)
        console.print("This is fit for production.")
        return
    asyncio.run(_check(settings))


async def _mongod(settings: Settings) -> embedded.Embedded | None:
    """Return the embedded mongod, its owner or a guest; ``None`` where a URI is set."""
    if settings.mongodb_uri:
        return None
    try:
        return await embedded.start(settings.data, cache_mb=settings.embedded_cache_mb, guest=True)
    except UnfitDatabaseError as error:
        stop(str(error))


@asynccontextmanager
async def _standing_alone(settings: Settings, *, observing: bool = False) -> AsyncIterator[Server]:
    """Open the server for one command, on the embedded MongoDB if that is what is set."""
    async with _found(settings) as uri, opened(settings, uri, observing=observing) as server:
        yield server


@asynccontextmanager
async def _found(settings: Settings) -> AsyncIterator[str]:
    """Give the URI of the MongoDB for one command, of the embedded one if that is what is set."""
    own = await _mongod(settings)
    try:
        yield own.uri if own else settings.mongodb_uri
    except (UnfitDatabaseError, UnknownFeatureError) as error:
        stop(str(error))
    finally:
        if own is not None:
            await own.stop()


cli.add_typer(user_cli(settings_of, _standing_alone, console), name="user")
cli.add_typer(client_cli(settings_of, _standing_alone, console), name="client")
cli.command()(token_command(settings_of, _standing_alone, console))
cli.command(name="consents")(consents_command(settings_of, _standing_alone, console))
cli.add_typer(audit_cli(settings_of, _standing_alone, console), name="audit")


def _processes(files: Sequence[Path]) -> int:
    """Return how many processes load ``files``: a few are done before a process has started."""
    is_much = sum(one.stat().st_size for one in files) > _MUCH_BYTES
    return (os.cpu_count() or 1) if is_much else 1


async def _load(
    settings: Settings, files: list[Path], processes: int, *, deferring: bool
) -> load.Report:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    async with _found(settings) as uri, opened(settings, uri) as server:
        began = time.perf_counter()
        store = server.context.store
        if deferring:
            await deferral.begin(store.keys, store.indexes)
        with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
            shown = progress.add_task("resources", total=None)

            def done(count: int) -> None:
                progress.update(shown, advance=count)

            if processes > 1:
                report = await load_apart(
                    files, settings, uri, processes, done, deferring=deferring
                )
            else:
                most = settings.body_bytes_max
                report = await load.load(
                    files, server.perform, xml=server.xml, bytes_max=most, done=done
                )
            if deferring:
                progress.update(shown, description="indexes")
                await deferral.end(store.keys, store.indexes)
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
