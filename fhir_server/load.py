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

A file of NDJSON begins when all before it is written, and what follows it when it is written: of
two with the same resource the later one stands. Files of one resource or Bundle that follow each
other are written together, and so are the lines of a file: which comes last is open there.
"""

import asyncio
import gzip
import hashlib
import time
import zlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
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
_PART_BYTES = 1_048_576
_PATIENCE_S = 90.0
_PAUSE_S = 1.0
_GROUP_ENTRIES = 200  # resources of NDJSON that are written together; a few MB at most
_AT_ONCE = 4  # transactions under way: while one is in the database, another is validated
_URN = "urn:uuid:"
UNREADABLE = (OSError, EOFError, zlib.error)
"""What reading a file may raise."""


@dataclass(slots=True)
class Report:
    """What a load came to. ``errors`` are ``(file, sentence)`` in the order they were met. ``at``
    is when something was written last, on the monotonic clock."""

    files: int = 0
    resources: int = 0
    written: int = 0
    errors: list[tuple[str, str]] = field(default_factory=list)
    at: float = field(default_factory=time.monotonic, compare=False)

    def add(self, other: "Report") -> None:
        """Count what ``other`` came to, too."""
        self.files += other.files
        self.resources += other.resources
        self.written += other.written
        self.errors += other.errors


@dataclass(frozen=True, slots=True)
class Part:
    """What is in the file ``source``, unpacked: all of it, or whole lines from ``line`` on, counted
    from 1. ``line`` is 0 where ``text`` is no lines."""

    source: str
    text: bytes
    line: int = 0


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
    """Load ``files``, one run of :func:`runs_of` after the other, several transactions at a time.

    ``xml`` reads files of XML. ``bytes_max`` bounds a file of one resource and a line of NDJSON.
    ``done`` is told the number of resources after each group. A file that cannot be read, and a
    resource that is refused, are errors of the report; the others are loaded all the same.
    """
    report = Report(files=len(files))
    for run in runs_of(files):
        parts = parts_in(run, bytes_max, report.errors)
        next_part = partial(_next, parts)
        await load_parts(next_part, perform, report, xml=xml, bytes_max=bytes_max, done=done)
    return report


async def _next(parts: Iterator[Part]) -> Part | None:
    return next(parts, None)


def runs_of(files: Iterable[Path]) -> Iterator[list[Path]]:
    """Yield what is written together: a file of NDJSON alone, others with those next to them."""

    def run(numbered: tuple[int, Path]) -> int | None:
        number, file = numbered
        return number if _has_lines(file) else None

    for _, together in groupby(enumerate(files), run):
        yield [file for _, file in together]


def parts_in(
    files: Iterable[Path], bytes_max: int, unread: list[tuple[str, str]]
) -> Iterator[Part]:
    """Yield the parts of all ``files``; which cannot be read, and why, is added to ``unread``."""
    for file in files:
        try:
            yield from parts_of(file, bytes_max)
        except UNREADABLE as error:
            unread.append((str(file), str(error)))


async def load_parts(
    next_part: Callable[[], Awaitable[Part | None]],
    perform: Perform,
    report: Report,
    *,
    xml: Xml,
    bytes_max: int,
    done: Callable[[int], None] = lambda _: None,
    part_done: Callable[[], None] = lambda: None,
) -> None:
    """Load what ``next_part`` gives until it gives ``None``, and count it in ``report``.

    ``part_done`` is called when all of a part is written; else as :func:`load`.
    """
    turn = asyncio.Semaphore(_AT_ONCE)

    async def one_group(group: Group) -> None:
        try:
            await _write(group, perform, report)
        finally:
            turn.release()
        done(len(group.entries))

    async def written(groups: Sequence[Awaitable[None]]) -> None:
        await asyncio.gather(*groups)
        part_done()

    async with asyncio.TaskGroup() as tasks:
        while (part := await next_part()) is not None:
            groups: list[Awaitable[None]] = []
            try:
                for group in groups_of(part, xml, bytes_max):
                    report.errors += [(group.source, fault) for fault in group.faults]
                    if not group.entries:
                        continue
                    await turn.acquire()
                    groups.append(tasks.create_task(one_group(group)))
            except FhirError as error:
                report.errors.append((part.source, str(error)))
            tasks.create_task(written(groups))


def parts_of(file: Path, bytes_max: int) -> Iterator[Part]:
    """Yield what is in ``file``, unpacked: all of it, or of NDJSON about a megabyte of lines at a
    time. Of a file or a line of more than ``bytes_max`` only as much is read as shows that.

    Raises :data:`UNREADABLE`.
    """
    name = str(file)
    with gzip.open(file) if name.endswith(".gz") else file.open("rb") as opened:
        if not _has_lines(file):
            yield Part(name, opened.read(bytes_max + 1))
            return
        line = 1
        while text := opened.read(_PART_BYTES):
            end = opened.readline(bytes_max + 1)
            text += end
            if len(end) > bytes_max and not end.endswith(b"\n"):
                while (skipped := opened.readline(_PART_BYTES)) and not skipped.endswith(b"\n"):
                    pass
                text += b"\n"
            yield Part(name, text, line)
            line += text.count(b"\n")


def _has_lines(file: Path) -> bool:
    return file.name.removesuffix(".gz").endswith(".ndjson")


def groups_of(part: Part, xml: Xml, bytes_max: int) -> Iterator[Group]:
    """Yield what ``part`` holds, as groups of entries to be written together.

    Raises ``structure`` for a file that is no resource, ``too-long`` for one over ``bytes_max``.
    """
    if part.line:
        yield from _groups_of_lines(part, bytes_max)
        return
    name = part.source
    if len(part.text) > bytes_max:
        raise too_large("The file", bytes_max)
    is_xml = name.removesuffix(".gz").endswith(".xml")
    resource = xml.decode(part.text) if is_xml else decode(part.text)
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


def _groups_of_lines(part: Part, bytes_max: int) -> Iterator[Group]:
    """Yield groups of the lines that can be read; the others are faults, with their number."""
    entries: list[Resource] = []
    faults: list[str] = []
    for number, line in enumerate(part.text.split(b"\n"), part.line):
        if not line.strip():
            continue
        try:
            entries.append(_entry(_resource(line, bytes_max), ""))
        except FhirError as error:
            faults.append(f"Line {number}: {_said(error)}")
        if len(entries) == _GROUP_ENTRIES:
            yield Group(part.source, tuple(entries), whole=False, faults=tuple(faults))
            entries, faults = [], []
    if entries or faults:
        yield Group(part.source, tuple(entries), whole=False, faults=tuple(faults))


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
        written = await _patiently(group.entries, perform, report)
        report.written += written  # only now: others count meanwhile
    except FhirError as error:
        if group.whole or len(group.entries) == 1:
            report.errors.append((group.source, _said(error)))
            return
        for entry in group.entries:
            await _write(Group(group.source, (entry,), whole=True), perform, report)
        report.resources -= len(group.entries)


async def _patiently(entries: Sequence[Resource], perform: Perform, report: Report) -> int:
    """Write ``entries`` as :func:`_transaction` does, again and again while others are in the way:
    what a load that was killed has begun stands in MongoDB for a minute. Where nothing at all has
    been written for longer, nothing is waited for."""
    while True:
        try:
            written = await _transaction(entries, perform)
            report.at = time.monotonic()
            return written
        except FhirError as error:
            if error.status != 503 or time.monotonic() > report.at + _PATIENCE_S:
                raise
        await asyncio.sleep(_PAUSE_S)


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
