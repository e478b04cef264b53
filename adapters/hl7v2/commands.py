"""``fhir-server hl7 …``: send, replay, convert, strict, senders.

design/hl7v2.md, section 3. ``convert`` and ``strict`` need no server; ``replay`` and ``senders``
ask a running one. Exit codes: 0 all well, 1 some negative, 2 no transport or no such thing.
"""

import asyncio
import os
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import httpx
import typer

from adapters.hl7v2.ack import answered, header_of
from adapters.hl7v2.apply import unmapped_of
from adapters.hl7v2.issues import MessageFault
from adapters.hl7v2.plan import Known, planned, wanted
from adapters.hl7v2.reading import Arrival, Item, Readers
from adapters.hl7v2.senders import Profile, profile_of
from adapters.hl7v2.sending import Sender, TransportError, messages_of
from adapters.hl7v2.strict import verdict
from fhir_server.r4.json import decode, encode

NAME = "hl7"
_TIMEOUT_S = 60.0
_chosen: dict[str, str] = {}  # what the options before the command say
_WELL, _NEGATIVE, _BROKEN = 0, 1, 2

cli = typer.Typer(help="HL7 v2: send, replay, convert, check.", no_args_is_help=True)
senders_cli = typer.Typer(help="Profiles of senders.", no_args_is_help=True)
cli.add_typer(senders_cli, name="senders")

Files = Annotated[list[Path], typer.Argument(help="Files or folders; - is standard input.")]


@cli.callback()
def hl7(
    base: Annotated[
        str, typer.Option(help="The FHIR base of the running server, for replay and senders.")
    ] = "http://127.0.0.1:8080/fhir",
) -> None:
    """HL7 v2: send, replay, convert, check."""
    _chosen["base"] = base


@cli.command()
def send(
    files: Files,
    to: Annotated[str, typer.Option(help="mllp://host:port, mllps://…, https://…/hl7v2")],
    cert: Annotated[Path | None, typer.Option(help="Client certificate and key, PEM.")] = None,
    ca: Annotated[Path | None, typer.Option(help="Authority of the server, PEM.")] = None,
    rate: Annotated[float, typer.Option(help="Messages per second at most; 0 is no limit.")] = 0,
    charset: Annotated[str, typer.Option(help="Charset told to an HTTP listener.")] = "",
    stop_on_error: Annotated[bool, typer.Option("--stop-on-error")] = False,
) -> None:
    """Send messages and print one line for each answer; by HTTP with the token in FHIR_TOKEN."""
    try:
        sender = Sender(to, cert, ca, charset, os.environ.get("FHIR_TOKEN", ""))
    except (ValueError, OSError) as error:
        _stop(str(error))
    status = _WELL
    began, count = time.monotonic(), 0
    try:
        for file in _files(files):
            for message in messages_of(file):
                if rate:
                    time.sleep(max(0.0, began + count / rate - time.monotonic()))
                count += 1
                if not _sent(sender, message):
                    status = _NEGATIVE
                    if stop_on_error:
                        raise typer.Exit(status)
    except TransportError as error:
        _stop(str(error))
    finally:
        sender.close()
    raise typer.Exit(status)


def _sent(sender: Sender, message: bytes) -> bool:
    """Send one message and tell its answers; return whether they are positive."""
    header = header_of(message)
    control = header.control_id if header else ""
    well = True
    answers = sender.send(message)
    for answer in answers:
        code, named = answered(answer)
        faults = [line for line in answer.decode("latin-1").split("\r") if line[:3] == "ERR"]
        typer.echo(" ".join((code or "??", named or control, *faults[:1])))
        well = well and code in ("AA", "CA")
    if not answers:
        typer.echo(f"-- {control}")
    return well


@cli.command()
def replay(
    ids: Annotated[list[str] | None, typer.Argument(help="Rows of the inbox.")] = None,
    state: Annotated[str, typer.Option(help="All rows in this state, such as dead.")] = "",
    sender: Annotated[str, typer.Option(help="… of this sender.")] = "",
    type: Annotated[str, typer.Option(help="… of this type, such as ORU^R01.")] = "",
    since: Annotated[str, typer.Option(help="… that came from then on.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would come.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Also undo newer statements.")] = False,
) -> None:
    """Have messages applied again, in order of arrival; print counts by outcome."""
    parameters: list[dict[str, Any]] = [{"name": "id", "valueString": id} for id in ids or ()]
    named = {"state": state, "sender": sender, "type": type, "since": since}
    parameters += [{"name": n, "valueString": value} for n, value in named.items() if value]
    switches = {"dry-run": dry_run, "force": force}
    parameters += [{"name": n, "valueBoolean": True} for n, value in switches.items() if value]
    after, status = "", _WELL
    while True:
        more = [{"name": "after", "valueString": after}] if after else []
        answer = _asked("POST", "$hl7v2-replay", [*parameters, *more])
        counts = dict(_outcomes(answer))
        typer.echo(", ".join(f"{name} {value}" for name, value in counts.items()) or "no rows")
        if counts.keys() & {"dead", "held", "retry"}:
            status = _NEGATIVE
        after = next((one["valueString"] for one in answer if one["name"] == "after"), "")
        if not after:
            raise typer.Exit(status)


def _outcomes(parameters: Iterable[dict[str, Any]]) -> Iterator[tuple[str, int]]:
    for one in parameters:
        if one["name"] == "outcome":
            parts = {part["name"]: part for part in one["part"]}
            yield parts["state"]["valueCode"], parts["count"]["valueInteger"]


@cli.command()
def convert(
    file: Annotated[Path, typer.Argument(help="A file; - is standard input.")],
    zone: Annotated[str, typer.Option(help="Zone of times without one, as Asia/Dhaka.")] = "",
    sender: Annotated[str, typer.Option(help="A profile, of which the server is asked.")] = "",
) -> None:
    """Print the Bundle that each message becomes, and on standard error what was not mapped."""
    readers = Readers(_settings())
    readers.profiles = _profiles(sender)
    status = _WELL
    for data in messages_of(file):
        arrival = Arrival(data, "", "file", datetime.now(UTC))  # noqa: TID251 - a command has no context
        try:
            item = readers.item(arrival, header_of(data), judged=False, zone=zone, sender=sender)
            typer.echo(encode(_bundle(item)))
        except MessageFault as fault:
            typer.echo(f"{fault.error_code} {fault.where} {fault.text}", err=True)
            status = _NEGATIVE
            continue
        for one in item.report.issues:
            typer.echo(f"{one.severity} {one.code} {one.where}: {one.text}", err=True)
        for unmapped in unmapped_of(item.report):
            typer.echo(f"not mapped: {unmapped['field']} x{unmapped['count']}", err=True)
    raise typer.Exit(status)


def _bundle(item: Item) -> dict[str, Any]:
    """Return what ``item`` becomes where nothing is stored yet."""
    if item.report.fault is not None:
        raise item.report.fault
    known = Known()
    drawn = [f"patient-{number}" for number, _ in enumerate(item.report.changes)]
    while asked := wanted(item.report, known, item.profile, drawn):
        known.resources |= dict.fromkeys(asked.ids)
        known.found |= dict.fromkeys(asked.searches, ())
    plan = planned(item.report, known, item.profile, drawn)
    entries = [
        {"resource": one.resource, "request": {"method": "PUT", "url": f"{one.type}/{one.id}"}}
        for one in plan.writes
    ]
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


def _profiles(name: str) -> tuple[Profile, ...]:
    """Return the profile called ``name`` as the server has it; none where none is named."""
    if not name:
        return ()
    return tuple(
        profile_of(decode(part["valueString"].encode()))
        for one in _asked("GET", "$hl7v2-senders", query={"name": name})
        for part in one["part"]
        if part["name"] == "profile"
    )


def _settings() -> Any:
    """Return what reading needs to know; the server's settings are its own."""

    class _Usual:
        hl7_time_zone = "UTC"
        hl7_charset_fallback = "windows-1252"
        hl7_segments_max = 20_000
        hl7_field_repetitions_max = 1000

    return _Usual()


@cli.command()
def strict(files: Files) -> None:
    """Print what hl7apy says of each message; it needs the extra ``hl7``."""
    status = _WELL
    for file in _files(files):
        for number, data in enumerate(messages_of(file), 1):
            found = asyncio.run(verdict(data))
            status = _NEGATIVE if found else status
            typer.echo(f"{file} {number}: {'; '.join(found) or 'ok'}")
    raise typer.Exit(status)


@senders_cli.command(name="list")
def list_senders() -> None:
    """Print the names of the profiles, with their versions."""
    for one in _asked("GET", "$hl7v2-senders"):
        parts = {part["name"]: part for part in one["part"]}
        typer.echo(f"{parts['name']['valueString']} {parts['version']['valueInteger']}")


@senders_cli.command()
def show(name: str) -> None:
    """Print a profile."""
    for one in _asked("GET", "$hl7v2-senders", query={"name": name}):
        parts = {part["name"]: part for part in one["part"]}
        typer.echo(parts["profile"]["valueString"])


@senders_cli.command(name="set")
def set_sender(name: str, file: Path) -> None:
    """Set the profile in FILE, a JSON object whose name is NAME."""
    text = file.read_text(encoding="utf-8")
    for one in _asked("POST", "$hl7v2-senders", _profile(text)):
        if one["name"] == "name" and one["valueString"] != name:
            _stop(f"The file names {one['valueString']}, which was set, and not {name}.")
        typer.echo(" ".join(str(value) for value in one.values()))


@senders_cli.command()
def check(file: Path) -> None:
    """Check the profile in FILE, without setting it."""
    parameters = _profile(file.read_text(encoding="utf-8"))
    _asked("POST", "$hl7v2-senders", [*parameters, {"name": "check", "valueBoolean": True}])
    typer.echo("ok")


def _profile(text: str) -> list[dict[str, Any]]:
    return [{"name": "profile", "valueString": text}]


def _asked(
    method: str,
    operation: str,
    parameters: list[dict[str, Any]] | None = None,
    query: dict[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Return the Parameters that a running server answers; a refusal ends the command."""
    url = f"{_chosen['base'].rstrip('/')}/{operation}"
    body = {"resourceType": "Parameters", "parameter": parameters} if parameters else None
    try:
        answer = httpx.request(
            method,
            url,
            params=query,
            content=encode(body) if body else None,
            headers={"Content-Type": "application/fhir+json"} if body else {},
            timeout=_TIMEOUT_S,
        )
        found: dict[str, Any] = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        _stop(f"{url} does not answer: {type(error).__name__}")
    if answer.status_code >= 300:
        _stop("; ".join(one.get("diagnostics", "") for one in found.get("issue", [])))
    return list(found.get("parameter", []))


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(one for one in path.rglob("*") if one.is_file())
        elif str(path) == "-" or path.is_file():
            yield path
        else:
            _stop(f"There is no {path}.")


def _stop(text: str) -> NoReturn:
    typer.echo(text, err=True)
    raise typer.Exit(_BROKEN)
