"""The commands ``fhir-server audit``: verify the record, export it, drop what is old.

Section 4 of the design page and docs/security.md.
"""

import asyncio
import json
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import IO, Annotated, Any, Protocol

import typer
from rich.console import Console

from fhir_server.context import Context
from fhir_server.interactions.auditing import drop_old
from fhir_server.outcome import FhirError
from fhir_server.r4.dates import date_range
from fhir_server.r4.json import encode
from fhir_server.security.audit_events import audit_event
from fhir_server.security.chain import Key
from fhir_server.settings import Settings
from fhir_server.store.audit_chain import Verification
from fhir_server.store.audit_rows import rows_between
from fhir_server.store.client import Database

_FAULTS_SHOWN = 100
_DataOption = Annotated[
    Path | None, typer.Option("--data", help="Folder of the embedded MongoDB (FHIR_DATA).")
]


class Opened(Protocol):
    """The open server, as far as these commands know it."""

    @property
    def context(self) -> Context:
        """What handlers are given."""

    @property
    def database(self) -> Database:
        """Where everything is."""

    @property
    def audit_keys(self) -> dict[str, Key]:
        """The keys that blocks and heads may be signed with, by name."""


Open = Callable[..., AbstractAsyncContextManager[Opened]]


def audit_cli(settings: Callable[..., Settings], open: Open, console: Console) -> typer.Typer:
    """Return the commands. ``settings`` and ``open`` are those of the command line."""
    cli = typer.Typer(help="The audit record.", no_args_is_help=True)

    @cli.command()
    def verify(
        heads: Annotated[
            list[Path] | None,
            typer.Option(help="Signed heads that were kept outside: FHIR_AUDIT_HEADS, or a log."),
        ] = None,
        data: _DataOption = None,
    ) -> None:
        """Check every record, block and chain, and the signed heads; exit code 1 for a fault."""
        outside = [one for path in heads or () for one in read_heads(path)]
        summary, is_whole = asyncio.run(_verified(settings(data=data), open, outside))
        console.print(summary, markup=False, soft_wrap=True)
        if not is_whole:
            raise typer.Exit(1)

    @cli.command()
    def export(
        since: Annotated[str, typer.Option(help="From this date or instant on.")] = "",
        until: Annotated[str, typer.Option(help="Up to the end of this date or instant.")] = "",
        out: Annotated[Path | None, typer.Option(help="File; else standard output.")] = None,
        data: _DataOption = None,
    ) -> None:
        """Write the records as AuditEvents, one a line (NDJSON), in the order of time."""
        try:
            low = date_range(since, "--since")[0] if since else None
            high = date_range(until, "--until")[1] if until else None
        except FhirError as error:
            console.print(str(error), markup=False)
            raise typer.Exit(2) from None
        given = settings(data=data)
        with nullcontext(sys.stdout.buffer) if out is None else out.open("wb") as file:
            asyncio.run(_exported(given, open, (low, high), file))

    @cli.command()
    def drop(data: _DataOption = None) -> None:
        """Drop now what is older than FHIR_AUDIT_DAYS; the server does so once a day."""
        gone = asyncio.run(_dropped(settings(data=data), open))
        console.print(f"{gone:,} records dropped.", markup=False)

    return cli


async def _verified(given: Settings, open: Open, outside: list[dict[str, Any]]) -> tuple[str, bool]:
    """Say which faults there are; return a sentence about all, and whether there are none."""
    count = 0
    async with open(given, observing=True) as server:
        look = Verification(server.database, server.audit_keys, outside)
        async for fault in look.faults():
            count += 1
            if count <= _FAULTS_SHOWN:
                typer.echo(f"{fault.name}  {fault.place}  {fault.text}")
    text = (
        f"{look.rows:,} records in {look.blocks:,} blocks of {look.chains:,} chains; heads signed "
        f"last: {look.signed_at or 'never'}; faults: {count:,}."
    )
    return text, count == 0


async def _exported(
    given: Settings, open: Open, bounds: tuple[datetime | None, datetime | None], file: IO[bytes]
) -> None:
    base = given.base_url or f"http://{given.host}:{given.port}/fhir"
    async with open(given, observing=True) as server:
        async for row in rows_between(server.database, *bounds):
            file.write(encode(audit_event(row, base)) + b"\n")


async def _dropped(given: Settings, open: Open) -> int:
    async with open(given) as server:
        return await drop_old(server.context)


def read_heads(path: Path) -> list[dict[str, Any]]:
    """Return the signed heads in ``path``: lines of the file of heads, or of a server's log."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        begin = line.find('{"_id"')
        if begin < 0:
            continue
        try:
            one, _ = json.JSONDecoder().raw_decode(line[begin:])
        except ValueError:
            continue  # a line that was cut off; what it said is not known
        if isinstance(one, dict) and "mac" in one:
            found.append(one)
    return found
