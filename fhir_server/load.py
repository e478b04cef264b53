"""Files -> transactions through the front door, so that loading again changes nothing.

Whatever a file asks for is written by id (``PUT Type/id``): the resource's own id, else the UUID of
its fullUrl, else one computed from its content. A load that was interrupted is repeated; what is
there already is seen to be unchanged.

====================================  ============================================================
``*.json``, ``*.xml``                 a Bundle (transaction, batch, collection, searchset) or any
                                      other resource
``*.ndjson``                          one resource a line
``….gz``                              each of these, compressed
====================================  ============================================================
"""

import asyncio
import gzip
import hashlib
import zlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from fhir_server.messages import Request, Resource, Response
from fhir_server.outcome import FhirError, invalid_value, too_large
from fhir_server.r4.json import canonical, decode
from fhir_server.r4.xml import Xml

Perform = Callable[[Request], Awaitable[Response]]

SUFFIXES = tuple(name + packed for name in (".json", ".ndjson", ".xml") for packed in ("", ".gz"))
_UNPACKED = ("transaction", "batch", "collection", "searchset")
_GROUP_ENTRIES = 200  # resources of NDJSON that are written together; a few MB at most
_AT_ONCE = 4  # transactions under way: while one is in the database, another is validated
_URN = "urn:uuid:"


@dataclass(slots=True)
class Report:
    """What a load came to. ``errors`` are ``(file, sentence)`` in the order they were met."""

    files: int = 0
    resources: int = 0
    written: int = 0
    errors: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Group:
    """Entries that are written together; ``whole`` says that none may be without the rest.

    ``faults`` are sentences about what stands between the entries and cannot be read.
    """

    source: str
    entries: tuple[Resource, ...]
    whole: bool
    faults: tuple[str, ...] = ()


def files_of(paths: Iterable[Path]) -> list[Path]:
    """Return the files: each path that is a file, and those with our suffixes in a folder.

    Raises :class:`FileNotFoundError` for a path that is not there.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(one for one in path.rglob("*") if one.name.endswith(SUFFIXES))
        elif path.is_file():
            found.append(path)
        else:
            raise FileNotFoundError(f"{path} is not there.")
    return found


async def load(
    files: Sequence[Path],
    perform: Perform,
    *,
    xml: Xml,
    bytes_max: int,
    done: Callable[[int], None] = lambda _: None,
) -> Report:
    """Load ``files`` in their order, several transactions at a time.

    ``xml`` reads files of XML. ``bytes_max`` bounds a file of one resource and a line of NDJSON.
    ``done`` is told the number of resources after each group. A file that cannot be read, and a
    resource that is refused, are errors of the report; the others are loaded all the same.
    """
    report = Report()
    turn = asyncio.Semaphore(_AT_ONCE)

    async def one_group(group: Group) -> None:
        try:
            await _write(group, perform, report)
        finally:
            turn.release()
        done(len(group.entries))

    async with asyncio.TaskGroup() as tasks:
        for file in files:
            report.files += 1
            try:
                for group in groups_of(file, xml, bytes_max):
                    report.errors += [(group.source, fault) for fault in group.faults]
                    if not group.entries:
                        continue
                    await turn.acquire()
                    tasks.create_task(one_group(group))
            except (OSError, EOFError, zlib.error, FhirError) as error:
                report.errors.append((str(file), str(error)))
    return report


def groups_of(file: Path, xml: Xml, bytes_max: int) -> Iterator[Group]:
    """Yield what ``file`` holds, as groups of entries to be written together.

    Raises ``structure`` for a file that is no resource, ``too-long`` for one over ``bytes_max``.
    """
    name = str(file)
    text = gzip.decompress(file.read_bytes()) if name.endswith(".gz") else file.read_bytes()
    if name.removesuffix(".gz").endswith(".ndjson"):
        yield from _groups_of_lines(name, text, bytes_max)
        return
    if len(text) > bytes_max:
        raise too_large("The file", bytes_max)
    is_xml = name.removesuffix(".gz").endswith(".xml")
    resource = xml.decode(text) if is_xml else decode(text)
    if resource.get("resourceType") != "Bundle" or resource.get("type") not in _UNPACKED:
        yield Group(name, (_entry(resource, ""),), whole=False)
    elif members := resource.get("entry"):
        if not isinstance(members, list):
            raise invalid_value("Bundle.entry", members, "a list of entries", "Bundle.entry")
        yield Group(
            name,
            tuple(_by_id(entry) for entry in members),
            whole=resource["type"] == "transaction",
        )


def _groups_of_lines(name: str, text: bytes, bytes_max: int) -> Iterator[Group]:
    """Yield groups of the lines that can be read; the others are faults, with their number."""
    entries: list[Resource] = []
    faults: list[str] = []
    for number, line in enumerate(text.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            entries.append(_entry(_resource(line, bytes_max), ""))
        except FhirError as error:
            faults.append(f"Line {number}: {_said(error)}")
        if len(entries) == _GROUP_ENTRIES:
            yield Group(name, tuple(entries), whole=False, faults=tuple(faults))
            entries, faults = [], []
    if entries or faults:
        yield Group(name, tuple(entries), whole=False, faults=tuple(faults))


def _resource(line: bytes, bytes_max: int) -> Resource:
    if len(line) > bytes_max:
        raise too_large("A line", bytes_max)
    return decode(line)


def _by_id(entry: Any) -> Resource:
    """Return a Bundle entry that writes by id; what neither creates nor updates stays as it is.

    So does what does not have the form of an entry: it will be refused with its place.
    """
    match entry:
        case {"fullUrl": url} if not isinstance(url, str):
            return dict(entry)
        case {"resource": dict(), "request": {"method": "PUT", "url": str(url)}} if (
            "?" not in url and url.count("/") == 1
        ):
            return dict(entry)
        case {"resource": dict(resource), "request": {"method": "POST" | "PUT", "url": str()}}:
            return _entry(resource, entry.get("fullUrl", ""))
        case {"resource": dict(resource)} if "request" not in entry:
            return _entry(resource, entry.get("fullUrl", ""))
    return dict(entry) if isinstance(entry, dict) else {}


def _entry(resource: Resource, full_url: str) -> Resource:
    type, id = resource.get("resourceType", ""), resource.get("id") or _id_of(resource, full_url)
    return {
        **({"fullUrl": full_url} if full_url else {}),
        "resource": {**resource, "id": id},
        "request": {"method": "PUT", "url": f"{type}/{id}"},
    }


def _id_of(resource: Resource, full_url: str) -> str:
    if full_url.startswith(_URN):
        return full_url.removeprefix(_URN)
    if "/" in full_url:
        return full_url.rpartition("/")[2]
    return str(UUID(bytes=hashlib.sha256(canonical(resource)).digest()[:16], version=5))


async def _write(group: Group, perform: Perform, report: Report) -> None:
    """Write ``group`` at once; where something in it is refused, each resource for itself."""
    report.resources += len(group.entries)
    try:
        written = await _transaction(group.entries, perform)
        report.written += written  # only now: others count meanwhile
    except FhirError as error:
        if group.whole or len(group.entries) == 1:
            report.errors.append((group.source, _said(error)))
            return
        for entry in group.entries:
            await _write(Group(group.source, (entry,), whole=True), perform, report)
        report.resources -= len(group.entries)


async def _transaction(entries: Sequence[Resource], perform: Perform) -> int:
    """Write ``entries`` and return how many of them wrote a version."""
    body: Resource = {"resourceType": "Bundle", "type": "transaction", "entry": list(entries)}
    response = await perform(Request("transaction", body=body))
    return response.body.count(b'"status":"201')


def _said(error: FhirError) -> str:
    shown = [
        f"{issue.expression}: {issue.diagnostics}" if issue.expression else issue.diagnostics
        for issue in error.issues[:3]
    ]
    more = len(error.issues) - len(shown)
    return " ".join(shown) + (f" And {more} more." if more else "")
