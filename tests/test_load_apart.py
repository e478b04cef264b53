"""``fhir-server load`` by several processes: the same as by one."""

import asyncio
import gzip
import json
import multiprocessing
import os
import signal
import sys
from pathlib import Path

import pytest

from fhir_server import load
from fhir_server.app import Server
from fhir_server.load_apart import Ended, load_apart
from fhir_server.settings import Settings
from fhir_server.store import deferral
from tests.faults.serving import environment
from tests.store.mongods import runs

pytestmark = pytest.mark.slow

PATIENTS = 400


def lines(count: int, **members: object) -> str:
    """Return NDJSON of so many patients."""
    return "\n".join(
        json.dumps({"resourceType": "Patient", "id": f"p{n}", **members}) for n in range(count)
    )


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Lines in many parts, one of which is no resource, a packed Bundle, and what is no file."""
    monkeypatch.setattr(load, "_PART_BYTES", 3000)
    text = lines(PATIENTS).replace('"id": "p300"', '"id":')
    (tmp_path / "a.ndjson").write_text(text)
    entry = [{"resource": {"resourceType": "Practitioner", "id": f"d{n}"}} for n in range(5)]
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": entry}
    (tmp_path / "b.json.gz").write_bytes(gzip.compress(json.dumps(bundle).encode()))
    (tmp_path / "c.json.gz").write_bytes(b"no gzip")
    return load.files_of([tmp_path])


async def unlocked(server: Server) -> None:
    """End what a killed process has begun: it stands for a minute. A load waits for that."""
    await server.database.client.admin.command("killAllSessions", [])


async def test_two_processes_load_what_one_loads(
    files: list[Path], server: Server, settings: Settings, mongodb_uri: str
) -> None:
    """Every resource once, faults with their lines; again, and nothing is new. Those of a load
    that makes the indexes at its end make none."""
    counts: list[int] = []

    async def loaded(*, deferring: bool = False) -> load.Report:
        return await load_apart(files, settings, mongodb_uri, 2, counts.append, deferring=deferring)

    store = server.context.store
    await deferral.begin(store.keys, store.indexes)
    first = await loaded(deferring=True)
    assert list(await server.database["Patient"].index_information()) == ["_id_"]
    await deferral.end(store.keys, store.indexes)
    assert (first.files, first.resources, first.written) == (3, PATIENTS - 1 + 5, PATIENTS - 1 + 5)
    assert sum(counts) == first.resources
    assert sorted(Path(name).name for name, _ in first.errors) == ["a.ndjson", "c.json.gz"]
    assert next(said for name, said in first.errors if name.endswith("a.ndjson")).startswith(
        "Line 301: "
    )
    assert await server.database["Patient"].count_documents({}) == PATIENTS - 1
    again = await loaded()
    assert (again.resources, again.written) == (first.resources, 0)


async def test_a_process_that_is_killed_is_told_of(
    files: list[Path], server: Server, settings: Settings, mongodb_uri: str
) -> None:
    """And loading again completes what is missing."""

    def kill(_: int) -> None:
        for one in multiprocessing.active_children()[:1]:
            os.kill(one.pid or 0, signal.SIGKILL)

    with pytest.raises(Ended, match="load again"):
        await load_apart(files, settings, mongodb_uri, 2, kill)
    await unlocked(server)
    report = await load.load(files, server.perform, xml=server.xml, bytes_max=2**20)
    assert len(report.errors) == 2, report.errors
    assert report.resources == PATIENTS - 1 + 5
    assert await server.database["Patient"].count_documents({}) == PATIENTS - 1


async def test_a_later_file_is_written_later(
    tmp_path: Path, server: Server, settings: Settings, mongodb_uri: str
) -> None:
    """Of two files with the same resource the second one stands, whichever process writes it. A
    name that no file can have ends the reading; what was read before is loaded all the same."""
    (tmp_path / "day1.ndjson").write_text(lines(PATIENTS))
    (tmp_path / "day2.ndjson").write_text(lines(PATIENTS, active=True).rpartition("\n")[2])
    files = [tmp_path / name for name in ("day1.ndjson", "day2.ndjson", "no\0file.ndjson")]

    with pytest.raises(ValueError, match="null"):
        await load_apart(files, settings, mongodb_uri, 2)

    assert await server.database["Patient"].count_documents({}) == PATIENTS
    stored = await server.database["Patient"].find_one({"_id": f"p{PATIENTS - 1}"})
    assert stored is not None
    assert stored["resource"].get("active") is True


def children_of(pid: int) -> list[int]:
    """Return the processes of the load ``pid``, without what Python itself keeps beside them."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    all = [int(one) for task in tasks for one in (task / "children").read_text().split()]
    return [one for one in all if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes()]


async def test_interrupting_it_ends_all_processes(
    tmp_path: Path, server: Server, settings: Settings, mongodb_uri: str
) -> None:
    """Ctrl-C: neither the command nor one of its processes is left, and it is no success."""
    count = 30_000
    (tmp_path / "a.ndjson").write_text(lines(count))
    named = {"mongodb_uri": mongodb_uri, "mongodb_database": settings.mongodb_database}
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "fhir_server", "load", "--processes", "2", "a.ndjson"),
        cwd=tmp_path,
        env=environment(**named),
        # Who runs tests in the background may have them ignore what a terminal sends.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        while not await server.database["Patient"].find_one():
            assert command.returncode is None
            await asyncio.sleep(0.05)
        children = children_of(command.pid)
        assert len(children) == 2
        command.send_signal(signal.SIGINT)

        assert await asyncio.wait_for(command.wait(), 20) != 0
        assert not any(runs(pid) for pid in children)
        assert await server.database["Patient"].count_documents({}) < count
    finally:
        if command.returncode is None:
            command.kill()
        await unlocked(server)
