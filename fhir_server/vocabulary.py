"""Code systems as their publishers hand them out -> concepts in the database.

https://hl7.org/fhir/R4/codesystem.html. A folder or a zip is read where it is: nothing is unpacked.

Nobody sees a version before all of it is there. A load that was interrupted goes on behind the last
concepts that it wrote, if the files are still the same.
"""

import csv
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from io import TextIOWrapper
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, Protocol, TypeVar
from zipfile import BadZipFile, ZipFile

from fhir_server.context import Context
from fhir_server.messages import Parameters, Request
from fhir_server.r4.json import decode
from fhir_server.search.escape import escape
from fhir_server.store.concepts import Loading
from fhir_server.terminology.sources import loinc, snomed
from fhir_server.terminology.sources.listed import is_large, listed
from fhir_server.terminology.sources.source import Resource, Source, Unreadable
from fhir_server.terminology.sources.table import table

T = TypeVar("T")

BATCH = 2000
_FILES_MAX = 20_000
_LINE_CHARACTERS_MAX = 1_000_000
_ROWS_AT_ONCE = 10_000
_TEMPORARY_CACHE_KIB = 65_536

Done = Callable[[int], None]
"""Is told how many concepts there are so far."""


class Files(Protocol):
    """Named files, in a folder or a zip. Names have their folders before them."""

    @property
    def names(self) -> Sequence[str]:
        """The names, in alphabetical order."""

    def size(self, name: str) -> int:
        """Return how many bytes the file ``name`` has."""

    def open(self, name: str) -> IO[bytes]:
        """Open the file ``name`` for reading."""


@dataclass(frozen=True, slots=True)
class Folder:
    """The files below a folder, or one file."""

    path: Path
    names: Sequence[str] = field(default=())

    @classmethod
    def of(cls, path: Path) -> "Folder":
        """Return the files at ``path``. Links that lead out of it are not followed."""
        if path.is_file():
            return cls(path.parent, (path.name,))
        found = (one for one in path.rglob("*") if one.is_file() and not one.is_symlink())
        return cls(path, tuple(sorted(one.relative_to(path).as_posix() for one in found)))

    def size(self, name: str) -> int:
        """See :class:`Files`."""
        return (self.path / name).stat().st_size

    def open(self, name: str) -> IO[bytes]:
        """See :class:`Files`."""
        return (self.path / name).open("rb")


@dataclass(frozen=True, slots=True)
class Zip:
    """The files in a zip. They are read as they are unpacked; their names lead nowhere."""

    archive: ZipFile

    @property
    def names(self) -> Sequence[str]:
        """See :class:`Files`."""
        return sorted(one for one in self.archive.namelist() if not one.endswith("/"))

    def size(self, name: str) -> int:
        """See :class:`Files`."""
        return self.archive.getinfo(name).file_size

    def open(self, name: str) -> IO[bytes]:
        """See :class:`Files`."""
        return self.archive.open(name)


@contextmanager
def files_at(path: Path) -> Iterator[Files]:
    """Open the folder, the zip or the file at ``path``.

    Raises :class:`FileNotFoundError`, and :class:`Unreadable` for a zip that is none.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there.")
    if path.suffix.lower() != ".zip":
        yield Folder.of(path)
        return
    try:
        with ZipFile(path) as archive:
            yield Zip(archive)
    except BadZipFile as error:
        raise Unreadable(f"{path.name} is no zip that can be read: {error}.") from error


@dataclass(frozen=True, slots=True)
class Described:
    """What the command line says of the code system; what is ``""`` is taken from the files."""

    url: str = ""
    version: str = ""
    title: str = ""


@contextmanager
def source(files: Files, described: Described) -> Iterator[Source]:
    """Find out what ``files`` are, and open them: SNOMED CT, LOINC, a CodeSystem or a table.

    Raises :class:`Unreadable` for what is none of these, or lacks url or version.
    """
    names = {PurePosixPath(name).name: name for name in islice(files.names, _FILES_MAX)}
    if any(snomed.kind_of(name) == "concept" for name in names):
        with _sorted(files, names) as lines:
            version = described.version or snomed.version_of(names)
            yield snomed.snomed(lines, _needed(version, "--version", "SNOMED CT"))
    elif loinc.TERMS in names:
        version = _needed(described.version, "--version", "LOINC, such as 2.78")

        def read(name: str) -> Iterator[Sequence[str]]:
            return _table(files, names[name])

        yield loinc.loinc(names, read, version)
    else:
        yield _single(files, described)


def _needed(value: str, option: str, what: str) -> str:
    if not value:
        raise Unreadable(f"Say the version of {what} with {option}.")
    return value


def _single(files: Files, described: Described) -> Source:
    """Return the code system of one file."""
    name, *more = [*files.names[:2]] or [""]
    kind = PurePosixPath(name).suffix.lower()
    if more or kind not in (".csv", ".tsv", ".json"):
        raise Unreadable(
            "Here is neither a SNOMED CT release (RF2 snapshot), nor a LOINC distribution "
            "(Loinc.csv), nor one file .csv, .tsv or .json."
        )
    if kind == ".json":
        return _resource(files, name, described)
    if not described.url:
        raise Unreadable("Say the url of the code system with --url.")
    title = described.title or PurePosixPath(name).stem
    lines = _table(files, name)
    header = next(_table(files, name), ())
    return table(lines, header, described.url, described.version, title)


def _resource(files: Files, name: str, described: Described) -> Source:
    with files.open(name) as stream:
        resource = decode(stream.read())
    if resource.get("resourceType") != "CodeSystem":
        raise Unreadable(f"{name} is no CodeSystem; load other resources with fhir-server load.")
    if resource.get("content") not in ("complete", "fragment") or "url" not in resource:
        raise Unreadable(f"{name} needs a url, and concepts that are complete or a fragment.")
    if described.version:
        resource["version"] = described.version
    # A system that fits into its resource stays there: it can be read and changed as one.
    return listed(resource) if is_large(resource) else Source(resource, ())


def _table(files: Files, name: str) -> Iterator[Sequence[str]]:
    """Yield the lines of a table, parted by commas, or tabs where the name says so."""
    delimiter = "\t" if name.lower().endswith(".tsv") else ","
    csv.field_size_limit(_LINE_CHARACTERS_MAX)
    try:
        yield from csv.reader(_text(files, name), delimiter=delimiter, strict=True)
    except csv.Error as error:
        raise Unreadable(f"{name} is no table that can be read: {error}.") from error


def _text(files: Files, name: str) -> Iterator[str]:
    """Yield the lines of a file in UTF-8; a line that is endless ends it."""
    try:
        with TextIOWrapper(files.open(name), encoding="utf-8-sig", newline="") as stream:
            while line := stream.readline(_LINE_CHARACTERS_MAX):
                if len(line) == _LINE_CHARACTERS_MAX:
                    raise Unreadable(
                        f"{name} has a line of over {_LINE_CHARACTERS_MAX:,} characters."
                    )
                yield line
    except UnicodeDecodeError as error:
        raise Unreadable(f"{name} is not in UTF-8 (at byte {error.start:,}).") from error


# ------------------------------------------------------------------------- a release of SNOMED CT


@dataclass(frozen=True, slots=True)
class _Sorted:
    """The lines of a release, in a temporary database. See :class:`snomed.Lines`."""

    database: sqlite3.Connection

    def concepts(self) -> Iterator[tuple[str, ...]]:
        """See :class:`snomed.Lines`."""
        yield from self.database.execute('SELECT * FROM "concept" ORDER BY "id"')

    def of(self, kind: str, id: str) -> Sequence[tuple[str, ...]]:
        """See :class:`snomed.Lines`."""
        _, _, by = snomed.FILES[kind]  # names of tables and columns are ours, not the file's
        return self.database.execute(
            f'SELECT * FROM "{kind}" WHERE "{by}" = ? ORDER BY rowid',
            (id,),
        ).fetchall()


@contextmanager
def _sorted(files: Files, names: dict[str, str]) -> Iterator[_Sorted]:
    """Put the lines of a release into a temporary database, which is gone afterwards."""
    with closing(sqlite3.connect("")) as database:  # "" is a file that SQLite removes itself
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        database.execute(f"PRAGMA cache_size = -{_TEMPORARY_CACHE_KIB}")
        for kind, (_, columns, by) in snomed.FILES.items():
            listed_columns = ", ".join(f'"{one}" TEXT' for one in columns)
            database.execute(f'CREATE TABLE "{kind}" ({listed_columns})')
            marks = ", ".join("?" * len(columns))
            for name, place in sorted(names.items()):
                if snomed.kind_of(name) == kind:
                    found = snomed.columns(_text(files, place), kind, name)
                    for some in _batches(found, _ROWS_AT_ONCE):
                        database.executemany(f'INSERT INTO "{kind}" VALUES ({marks})', some)
            database.execute(f'CREATE INDEX "by_{kind}" ON "{kind}" ("{by}")')
        yield _Sorted(database)


# -------------------------------------------------------------------------------- into the database


def fingerprint(files: Files) -> str:
    """Return what tells these files from others, without reading all of them."""
    digest = sha256()
    for name in files.names:
        digest.update(f"{name}\0{files.size(name)}\0".encode())
        with files.open(name) as stream:
            digest.update(stream.read(65_536))
    return digest.hexdigest()[:16]


async def load_system(
    found: Source, mark: str, context: Context, done: Done = lambda _: None
) -> int:
    """Store ``found`` in the place of what there is of the same system and version, and return how
    many concepts there are beside its resource.

    ``mark`` tells its files from others (:func:`fingerprint`). Raises :class:`Unreadable` for files
    that do not fit together, nothing is kept of them; :class:`FhirError` for a resource that is
    refused.
    """
    if "concept" in found.head:
        await _write_head(found.head, context)
        return 0
    concepts = context.store.concepts
    loading = await concepts.begin(found.system, found.version)
    there = _place(loading, mark)
    if there is None:
        await loading.abandon()
        loading, there = await concepts.begin(found.system, found.version), 0
    try:
        count = 0
        for batch in _batches(found.concepts, BATCH):
            count += len(batch)
            if count > there:
                await loading.add(batch, f"{mark}:{count}")
            done(count)
        shelf = await loading.finish()
    except ValueError:
        await loading.abandon()
        raise
    await _write_head({**found.head, "count": shelf.count}, context)
    return shelf.count


async def remove_system(system: str, version: str, context: Context) -> bool:
    """Remove ``version`` of ``system``, concepts and resource; return whether it was there."""
    shelf = await context.store.concepts.shelf(system, version)
    if shelf is None:
        return False
    request = Request("conditional-delete", "CodeSystem", parameters=_criteria(system, version))
    await context.perform(request, context)
    await context.store.concepts.withdraw(shelf)
    return True


def _place(loading: Loading, mark: str) -> int | None:
    """Return how many concepts are there of the same files; ``None`` for those of others."""
    before, _, count = loading.position.partition(":")
    if not before:
        return 0
    return int(count) if before == mark else None


async def _write_head(head: Resource, context: Context) -> None:
    """Write the CodeSystem, over that of the same url and version."""
    parameters = _criteria(head["url"], head.get("version", ""))
    request = Request("conditional-update", "CodeSystem", parameters=parameters, body=head)
    await context.perform(request, context)


def _criteria(url: str, version: str) -> Parameters:
    said = ("version", escape(version)) if version else ("version:missing", "true")
    return (("url", escape(url)), said)


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    waiting = iter(items)
    while batch := list(islice(waiting, size)):
        yield batch
