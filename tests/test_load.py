"""ARCHITECTURE.md, section 15 and https://hl7.org/fhir/R4/bundle.html

What ``fhir-server load`` reads: bundles, NDJSON and single resources, packed or not; loading again
changes nothing.
"""

import gzip
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from fhir_server import load
from fhir_server.app import Server
from fhir_server.load import Report
from tests.conftest import Fhir
from tests.interactions.asking import entry, patient, read, tags, versions

BYTES_MAX = 10_000_000
Load = Callable[..., Awaitable[Report]]


@pytest.fixture
def loading(server: Server) -> Load:
    """Load files or folders into the server of the test."""

    async def run(*paths: Path, bytes_max: int = BYTES_MAX, **options: Any) -> Report:
        files = load.files_of(paths)
        return await load.load(
            files, server.perform, xml=server.xml, bytes_max=bytes_max, **options
        )

    return run


async def counts(server: Server) -> dict[str, int]:
    """Return how many resources of each type are there."""
    types = await server.context.store.indexes.existing()
    found = {type: await server.database[type].count_documents({}) for type in types}
    return {type: count for type, count in found.items() if count}


async def version_count(server: Server) -> int:
    """Return how many versions were written, of anything."""
    names = await server.database.list_collection_names()
    return sum([await server.database[n].count_documents({}) for n in names if n[0].isupper()])


def counted(files: Sequence[Path]) -> dict[str, int]:
    """Return the resources of each type in bundles, counted without any of our code.

    Organizations and practitioners are in several bundles, under the same id.
    """
    entries = [
        one for file in files for one in json.loads(gzip.decompress(file.read_bytes()))["entry"]
    ]
    different = {(one["resource"]["resourceType"], one["fullUrl"]) for one in entries}
    return dict(Counter(type for type, _ in different))


async def loaded_twice(server: Server, loading: Load, files: list[Path]) -> None:
    """Load ``files`` twice and check what is there against the files."""
    first = await loading(*files)
    versions_first = await version_count(server)
    second = await loading(*files)
    expected = counted(files)

    assert (first.errors, second.errors) == ([], [])
    assert first.resources == second.resources >= first.written == sum(expected.values())
    assert second.written == 0
    assert await counts(server) == expected
    assert await version_count(server) == versions_first == sum(expected.values())


async def test_synthetic_patients(server: Server, loading: Load, shared: Path) -> None:
    """Some bundles of Synthea load without an error, and again without a version."""
    await loaded_twice(server, loading, sorted((shared / "synthea").glob("*.json.gz"))[:5])


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_all_synthetic_patients(server: Server, loading: Load, shared: Path) -> None:
    """All 120 bundles load without an error, and again without a version."""
    files = sorted((shared / "synthea").glob("*.json.gz"))

    assert len(files) == 120
    await loaded_twice(server, loading, files)


async def test_references_inside_a_bundle_lead_to_what_was_loaded(
    server: Server, loading: Load, fhir: Fhir, shared: Path
) -> None:
    """No urn:uuid is left in any reference of a loaded bundle; each leads to a resource."""
    await loading(sorted((shared / "synthea").glob("*.json.gz"))[0])
    found: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("reference"), str):
                found.add(value["reference"])
            for member in value.values():
                walk(member)
        elif isinstance(value, list):
            for one in value:
                walk(one)

    for type in await counts(server):
        for document in await server.database[type].find().to_list():
            walk(document["resource"])

    local = {one for one in found if not one.startswith("#")}
    assert len(local) > 10
    for reference in local:
        await read(fhir, reference)


def packed(path: Path, text: bytes) -> Path:
    """Write ``text`` to ``path``, compressed if its name says so."""
    path.write_bytes(gzip.compress(text) if path.name.endswith(".gz") else text)
    return path


def lines(count: int, prefix: str = "n") -> bytes:
    """Return NDJSON of ``count`` patients."""
    return b"\n".join(json.dumps(patient(f"{prefix}{n}")).encode() for n in range(count))


def collection(*entries: Any, type: str = "collection") -> bytes:
    """Return a Bundle as text."""
    return json.dumps({"resourceType": "Bundle", "type": type, "entry": entries}).encode()


A, B = patient("a"), patient("b")
FHIR = 'xmlns="http://hl7.org/fhir"'
XML_PATIENT = f'<Patient {FHIR}><id value="a"/></Patient>'.encode()
XML_ENTRY = '<entry><resource><Patient><id value="{}"/></Patient></resource>{}</entry>'


def xml_bundle(type: str, *entries: str) -> bytes:
    """Return a Bundle as XML."""
    return f'<Bundle {FHIR}><type value="{type}"/>{"".join(entries)}</Bundle>'.encode()


# File name, text -> the resources that are there afterwards.
FORMS = {
    "a resource": ("a.json", json.dumps(A).encode(), {"Patient": 1}),
    "a packed resource": ("a.json.gz", json.dumps(A).encode(), {"Patient": 1}),
    "a resource in XML": (
        "a.xml",
        b'\xef\xbb\xbf<?xml version="1.0"?>' + XML_PATIENT,
        {"Patient": 1},
    ),
    "a packed resource in XML": ("a.xml.gz", XML_PATIENT, {"Patient": 1}),
    "a collection in XML": (
        "a.xml",
        xml_bundle("collection", XML_ENTRY.format("a", ""), XML_ENTRY.format("b", "")),
        {"Patient": 2},
    ),
    "a transaction in XML": (
        "a.xml",
        xml_bundle(
            "transaction",
            XML_ENTRY.format(
                "a", '<request><method value="POST"/><url value="Patient"/></request>'
            ),
        ),
        {"Patient": 1},
    ),
    "lines": ("a.ndjson", lines(3), {"Patient": 3}),
    "packed lines": ("a.ndjson.gz", lines(3), {"Patient": 3}),
    "more lines than a group": ("a.ndjson", lines(450), {"Patient": 450}),
    "blank lines and Windows ends": (
        "a.ndjson",
        b"\r\n" + lines(2).replace(b"\n", b"\r\n\r\n") + b"\r\n",
        {"Patient": 2},
    ),
    "a collection": ("a.json", collection({"resource": A}, {"resource": B}), {"Patient": 2}),
    "a searchset": ("a.json", collection({"resource": A}, type="searchset"), {"Patient": 1}),
    "a batch": ("a.json", collection(entry("PUT", "Patient/a", A), type="batch"), {"Patient": 1}),
    "a transaction": (
        "a.json",
        collection(entry("POST", "Patient", A), type="transaction"),
        {"Patient": 1},
    ),
    "a document stays a bundle": (
        "a.json",
        json.dumps({"resourceType": "Bundle", "id": "d", "type": "history"}).encode(),
        {"Bundle": 1},
    ),
    "an empty collection": ("a.json", b'{"resourceType":"Bundle","type":"collection"}', {}),
    "an empty file of lines": ("a.ndjson", b"", {}),
}


@pytest.mark.parametrize(("name", "text", "expected"), FORMS.values(), ids=FORMS)
async def test_forms(
    server: Server, loading: Load, tmp_path: Path, name: str, text: bytes, expected: dict[str, int]
) -> None:
    """Each form is read, and read again without a new version."""
    file = packed(tmp_path / name, text)
    first = await loading(file)
    second = await loading(file)

    assert (first.errors, second.errors) == ([], [])
    assert (first.files, first.resources) == (1, sum(expected.values()))
    assert (first.written, second.written) == (sum(expected.values()), 0)
    assert await counts(server) == expected
    assert await version_count(server) == sum(expected.values())


async def test_resources_without_an_id_have_the_same_one_each_time(
    server: Server, loading: Load, tmp_path: Path
) -> None:
    """The id is that of the fullUrl, else made from the content: equal content is one resource."""
    urn = "61ebe359-bfdc-4613-8bf2-c5e300945f0a"
    plain = {"resourceType": "Patient", "active": True}
    turned = {"active": True, "resourceType": "Patient"}
    file = packed(
        tmp_path / "a.json",
        collection(
            {"resource": plain},
            {"resource": {"resourceType": "Patient"}, "fullUrl": f"urn:uuid:{urn}"},
            {"resource": {"resourceType": "Patient"}, "fullUrl": "http://a.org/fhir/Patient/x1"},
        ),
    )
    other = packed(tmp_path / "b.ndjson", json.dumps(turned).encode())
    first = await loading(file)
    again = await loading(file)
    turned_report = await loading(other)
    ids = [one["_id"] for one in await server.database["Patient"].find().to_list()]

    assert first.errors == again.errors == turned_report.errors == []
    assert (first.written, again.written, turned_report.written) == (3, 0, 0)
    assert {urn, "x1"} < set(ids)
    assert len(ids) == 3


GOOD = patient("good")
# File name, text -> part of the sentence; the good resources beside it are loaded.
BROKEN = {
    "bad JSON": ("bad.json", b'{"resourceType": "Patient",', "not JSON"),
    "no object": ("bad.json", b"[1]", "not a JSON object"),
    "empty": ("bad.json", b"", "empty"),
    "no UTF-8": ("bad.json", b'{"resourceType":"Patient","id":"\xff"}', "UTF-8"),
    "no XML": ("bad.xml", b'{"resourceType":"Patient"}', "not XML"),
    "XML of nothing": ("bad.xml", b"", "not XML"),
    "XML with a document type": ("bad.xml", b"<!DOCTYPE a><a/>", "DOCTYPE"),
    "XML of no resource": ("bad.xml", f"<Patent {FHIR}/>".encode(), "Patent"),
    "XML that is refused": (
        "bad.xml",
        f'<Patient {FHIR}><id value="x"/><gender value="x"/></Patient>'.encode(),
        "gender",
    ),
    "XML that is too large": (
        "bad.xml",
        XML_PATIENT.replace(b"<id", b"<!--" + b"x" * 5000 + b"--><id"),
        "limit",
    ),
    "not compressed": ("bad.json.gz", b"no gzip", ""),
    "an unknown type": ("bad.json", b'{"resourceType":"Patent","id":"a"}', "Patent"),
    "no type": ("bad.json", b'{"id":"a"}', ""),
    "a refused resource": ("bad.json", json.dumps(patient("x", gender="x")).encode(), "gender"),
    "an id that is none": ("bad.json", json.dumps(patient("a_b")).encode(), "a_b"),
    "an id that is a number": ("bad.json", b'{"resourceType":"Patient","id":5}', ""),
    "an entry that is a text": ("bad.json", collection("x"), ""),
    "an entry without a resource": ("bad.json", collection({"fullUrl": "urn:uuid:1"}), ""),
    "a request that is a text": (
        "bad.json",
        collection({"resource": A, "request": "PUT"}, type="batch"),
        "",
    ),
    "a url that is a number": (
        "bad.json",
        collection({"resource": A, "request": {"method": "PUT", "url": 5}}, type="batch"),
        "",
    ),
    "a fullUrl that is a number": (
        "bad.json",
        collection({"resource": {"resourceType": "Patient"}, "fullUrl": 5}),
        "",
    ),
    "entries that are an object": (
        "bad.json",
        b'{"resourceType":"Bundle","type":"collection","entry":{"a":1}}',
        "",
    ),
    "entries that are a number": (
        "bad.json",
        b'{"resourceType":"Bundle","type":"collection","entry":5}',
        "",
    ),
    "a type that is a list": ("bad.json", b'{"resourceType":"Bundle","type":[]}', ""),
    "deep": ("bad.json", b'{"a":' * 200 + b"1" + b"}" * 200, "levels"),
    "a line that is broken": ("bad.ndjson", b"{broken", "Line 1"),
    "a line that is too large": ("bad.ndjson", b"x" * 5001, "Line 1"),
    "too large": (
        "bad.json",
        json.dumps(patient("x", name=[{"text": "x" * 5000}])).encode(),
        "limit",
    ),
}


@pytest.mark.parametrize(("name", "text", "words"), BROKEN.values(), ids=BROKEN)
async def test_a_broken_file_does_not_stop_the_others(
    server: Server, loading: Load, tmp_path: Path, name: str, text: bytes, words: str
) -> None:
    """The report names the file and what is wrong; what comes before and after it is loaded."""
    (tmp_path / name).write_bytes(text)
    packed(tmp_path / "a_first.json", json.dumps(GOOD).encode())
    packed(tmp_path / "z_last.ndjson", lines(3))
    report = await loading(tmp_path, bytes_max=5000)

    assert await counts(server) == {"Patient": 4}
    assert report.files == 3
    assert [Path(source).name for source, _ in report.errors] == [name]
    assert words in report.errors[0][1]


@pytest.mark.parametrize("cut", [5, 20, -9, -1])
async def test_a_truncated_file_is_an_error(
    server: Server, loading: Load, tmp_path: Path, cut: int
) -> None:
    """A gzip file that was cut anywhere is reported, and nothing else is lost."""
    (tmp_path / "cut.ndjson.gz").write_bytes(gzip.compress(lines(50))[:cut])
    packed(tmp_path / "z.json", json.dumps(GOOD).encode())
    report = await loading(tmp_path)

    assert [Path(source).name for source, _ in report.errors] == ["cut.ndjson.gz"]
    assert (await counts(server)).get("Patient") == 1


async def test_one_refused_resource_among_good_ones(
    server: Server, loading: Load, fhir: Fhir, tmp_path: Path
) -> None:
    """In NDJSON and collections each resource stands for itself: the good ones are loaded."""
    bad = json.dumps(patient("bad", gender="x")).encode()
    packed(tmp_path / "a.ndjson", lines(10) + b"\n" + bad + b"\n" + lines(10, "m"))
    packed(tmp_path / "b.json", collection({"resource": A}, {"resource": patient("bad", x=1)}))
    report = await loading(tmp_path)

    assert await counts(server) == {"Patient": 21}
    assert len(report.errors) == 2
    assert report.resources == 23
    assert report.written == 21
    assert tags(await versions(fhir, "Patient/n3")) == [1]


async def test_a_broken_line_among_good_ones(server: Server, loading: Load, tmp_path: Path) -> None:
    """A line that is no JSON is an error with its number; the lines around it are loaded."""
    packed(tmp_path / "a.ndjson", lines(250) + b"\n{broken\n" + lines(250, "m"))
    report = await loading(tmp_path)

    assert await counts(server) == {"Patient": 500}
    [(source, sentence)] = report.errors
    assert source.endswith("a.ndjson")
    assert "251" in sentence


async def test_a_transaction_is_all_or_nothing(
    server: Server, loading: Load, tmp_path: Path
) -> None:
    """A transaction bundle with one refused resource loads nothing, and says which."""
    bad = patient("bad", gender="x")
    entries = [entry("POST", "Patient", A), entry("POST", "Patient", bad)]
    packed(tmp_path / "a.json", collection(*entries, type="transaction"))
    report = await loading(tmp_path)

    assert await counts(server) == {}
    [(_, sentence)] = report.errors
    assert "Bundle.entry[1].resource.gender" in sentence


async def test_deletions_in_a_bundle_are_obeyed(
    server: Server, loading: Load, fhir: Fhir, tmp_path: Path
) -> None:
    """What a transaction deletes is deleted; loading it again changes nothing."""
    await loading(packed(tmp_path / "a.json", json.dumps(A).encode()))
    file = packed(tmp_path / "b.json", collection(entry("DELETE", "Patient/a"), type="transaction"))
    reports = [await loading(file), await loading(file)]

    assert [report.errors for report in reports] == [[], []]
    assert tags(await versions(fhir, "Patient/a")) == [2, 1]


async def test_a_later_file_of_lines_is_written_later(
    server: Server, loading: Load, tmp_path: Path
) -> None:
    """Of two with the same resource the second one stands, however large the first one is."""
    last = json.dumps(patient("n199", active=True)).encode()
    files = [packed(tmp_path / "a.ndjson", lines(200)), packed(tmp_path / "b.ndjson", last)]
    report = await loading(*files)

    assert report.errors == []
    stored = await server.database["Patient"].find_one({"_id": "n199"})
    assert stored is not None
    assert stored["resource"]["active"] is True


def test_which_files_are_written_together() -> None:
    """Lines by themselves; Bundles and resources with those next to them."""
    names = ("a.json", "b.xml.gz", "c.ndjson", "d.ndjson.gz", "e.json")
    runs = [[file.name for file in run] for run in load.runs_of(map(Path, names))]

    assert runs == [["a.json", "b.xml.gz"], ["c.ndjson"], ["d.ndjson.gz"], ["e.json"]]


@pytest.mark.parametrize("size", [99, 100, 101, 250, 5000])
@pytest.mark.parametrize("part_bytes", [1, 50, 99, 100, 101, 10_000])
def test_a_line_is_read_no_further_than_it_may_be_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part_bytes: int, size: int
) -> None:
    """Lines around one that is too long keep their numbers, wherever a part of the file ends."""
    monkeypatch.setattr(load, "_PART_BYTES", part_bytes)
    text = b"{1}\n" + b"x" * size + b"\n{3}\n" + b"x" * size
    parts = list(load.parts_of(packed(tmp_path / "a.ndjson.gz", text), 100))
    read = {
        number: line
        for part in parts
        for number, line in enumerate(part.text.split(b"\n"), part.line)
        if line
    }

    assert max(len(part.text) for part in parts) <= part_bytes + 102
    assert sorted(read) == [1, 2, 3, 4]
    assert (read[1], read[3]) == (b"{1}", b"{3}")
    assert [len(read[number]) > 100 for number in (2, 4)] == [size > 100] * 2


def test_a_file_is_read_no_further_than_it_may_be_large(tmp_path: Path) -> None:
    """A megabyte of nothing is a kilobyte, packed: one byte too many shows that it is too large."""
    [part] = load.parts_of(packed(tmp_path / "a.json.gz", b" " * 2**20), 100)

    assert len(part.text) == 101


async def test_progress_counts_every_resource(loading: Load, tmp_path: Path) -> None:
    """What ``done`` is told adds up to the resources of the report."""
    packed(tmp_path / "a.ndjson", lines(450))
    told: list[int] = []
    report = await loading(tmp_path, done=told.append)

    assert sum(told) == report.resources == 450


async def test_a_load_that_was_interrupted_is_repeated(
    server: Server, loading: Load, tmp_path: Path
) -> None:
    """What the first try has written is seen to be unchanged; only the rest is written."""
    await loading(packed(tmp_path / "half.ndjson", lines(100)))
    report = await loading(packed(tmp_path / "whole.ndjson", lines(300)))

    assert (report.errors, report.resources, report.written) == ([], 300, 200)
    assert await version_count(server) == 300


def test_which_files_are_found(tmp_path: Path) -> None:
    """A folder gives its files with our suffixes, in order; a file is taken whatever its name."""
    (tmp_path / "sub").mkdir()
    for name in ("b.json", "a.ndjson", "c.txt", "sub/d.json.gz", "e.ndjson.gz", "f.xml"):
        (tmp_path / name).touch()

    found = load.files_of([tmp_path, tmp_path / "c.txt"])

    assert [file.relative_to(tmp_path).as_posix() for file in found] == [
        *("a.ndjson", "b.json", "e.ndjson.gz", "f.xml", "sub/d.json.gz", "c.txt"),
    ]
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json"):
        load.files_of([tmp_path / "nowhere.json"])
