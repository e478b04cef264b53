"""ARCHITECTURE.md, section 15: the command line that scripts and outsiders rely on."""

import json
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fhir_server import __version__
from tests.faults.serving import Serving, command
from tests.interactions.asking import patient
from tests.store.mongods import bare_mongod


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    """A server that is not started yet, on data of its own; nothing of it outlives the test."""
    one = Serving(tmp_path)
    yield one
    one.clean_up()


def test_version(tmp_path: Path) -> None:
    """The version of the program and of FHIR are said, and nothing is started."""
    done = command("version", folder=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"fhir-server {__version__} (FHIR R4, 4.0.1)\n"
    assert list(tmp_path.iterdir()) == []


def test_help_names_the_commands(tmp_path: Path) -> None:
    """Without a command the commands are listed."""
    done = command(folder=tmp_path)

    for name in ("serve", "load", "check", "version"):
        assert name in done.stdout + done.stderr


# Setting, value -> what the message names.
WRONG = {
    "a port that is no number": ({"port": "http"}, "FHIR_PORT"),
    "a port out of range": ({"port": "70000"}, "FHIR_PORT"),
    "a mode that is none": ({"mode": "fast"}, "FHIR_MODE"),
    "a limit that is too high": ({"resource_bytes_max": "99999999"}, "FHIR_RESOURCE_BYTES_MAX"),
    "a name with a dot": ({"mongodb_database": "a.b"}, "FHIR_MONGODB_DATABASE"),
    "features that are no list": ({"features": "cds"}, "FHIR_FEATURES"),
    "two at once": ({"port": "x", "workers": "0"}, "FHIR_WORKERS"),
}


@pytest.mark.parametrize(("settings", "words"), WRONG.values(), ids=WRONG)
def test_wrong_settings_are_named(tmp_path: Path, settings: dict[str, str], words: str) -> None:
    """The message names each wrong setting; exit code 2, no stack trace, nothing is started."""
    done = command("serve", folder=tmp_path, **settings)

    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_settings_come_from_a_file_too(tmp_path: Path) -> None:
    """A file .env in the working directory is read, and its mistakes are named."""
    (tmp_path / ".env").write_text("FHIR_PORT=none\n")

    assert "FHIR_PORT" in command("serve", folder=tmp_path).stderr


@pytest.mark.slow
def test_a_mongodb_that_is_not_there_is_explained(tmp_path: Path) -> None:
    """Exit code 2 and one sentence that names the setting; no stack trace."""
    done = command("check", folder=tmp_path, mongodb_uri="mongodb://127.0.0.1:1/")

    assert done.returncode == 2, done.stderr
    assert "FHIR_MONGODB_URI" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_feature_that_is_not_there_is_named(tmp_path: Path, mongodb_uri: str) -> None:
    """Exit code 2 and one sentence with the setting and the module; no stack trace."""
    done = command("check", folder=tmp_path, mongodb_uri=mongodb_uri, features='["adapters.fax"]')

    assert done.returncode == 2, done.stderr
    assert "FHIR_FEATURES lists adapters.fax" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_a_standalone_mongodb_is_explained(tmp_path: Path) -> None:
    """The command that makes it a replica set is in the message."""
    with bare_mongod(tmp_path / "db") as uri:
        done = command("serve", folder=tmp_path, mongodb_uri=uri)

    assert done.returncode == 2
    assert "rs.initiate()" in done.stderr


def test_serve_use_stop_and_serve_again(serving: Serving) -> None:
    """It answers, ends cleanly on SIGTERM with its mongod, and has the data the next time."""
    seconds = serving.start()
    with httpx.Client(base_url=serving.base) as client:
        assert httpx.get(f"{serving.site}/live").json() == {"status": "live"}
        written = client.put("/Patient/p", json=patient(active=True))
        assert (written.status_code, written.headers["etag"]) == (201, 'W/"1"')
        assert client.get("/metadata").json()["resourceType"] == "CapabilityStatement"
    code = serving.stop()

    assert code == 0, serving.said
    assert not serving.mongod_runs()
    assert "Traceback" not in serving.said
    assert "small sites" in serving.said
    assert f"{serving.base}" in serving.said
    assert seconds < 20

    serving.start()
    read = httpx.get(f"{serving.base}/Patient/p")
    assert read.json() == written.json()
    assert serving.stop() == 0
    assert not serving.mongod_runs()


def test_a_second_server_on_the_same_data_is_refused(serving: Serving, tmp_path: Path) -> None:
    """It says so and ends with 2; the first goes on. A load is a guest and works beside it."""
    serving.start()
    second = command("serve", "--port", "1", "--data", str(serving.data), folder=tmp_path)
    file = tmp_path / "a.ndjson"
    file.write_text(json.dumps(patient("loaded")))
    loaded = command("load", str(file), "--data", str(serving.data), folder=tmp_path)

    assert second.returncode == 2
    assert "Another fhir-server uses the data" in second.stderr
    assert (loaded.returncode, "1 new" in loaded.stderr) == (0, True), loaded.stderr
    assert httpx.get(f"{serving.base}/Patient/loaded").status_code == 200
    assert serving.stop() == 0


def test_a_port_that_is_taken_is_explained(serving: Serving, tmp_path: Path) -> None:
    """The message names address and port, the exit code is not 0, and no mongod stays behind."""
    with socket.socket() as taker:
        taker.bind(("127.0.0.1", serving.port))
        taker.listen()
        done = command(
            *("serve", "--port", str(serving.port), "--data", str(serving.data)), folder=tmp_path
        )

    assert done.returncode != 0
    assert str(serving.port) in done.stderr
    assert "address already in use" in done.stderr.lower()
    lock = serving.data / "mongodb" / "mongod.lock"
    assert not lock.exists() or lock.read_text() == ""


@pytest.mark.slow
def test_interrupting_it_is_a_clean_end(serving: Serving) -> None:
    """Ctrl-C ends it as SIGTERM does, without a stack trace."""
    serving.start()
    assert serving._process is not None
    serving._process.send_signal(signal.SIGINT)
    serving._process.wait(40)

    assert not serving.mongod_runs()
    assert "Traceback" not in serving.said


@pytest.mark.slow
def test_load_and_check(tmp_path: Path) -> None:
    """A folder is loaded once and again; errors are listed at the end with exit code 1."""
    data = str(tmp_path / "data")
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a.ndjson").write_text("\n".join(json.dumps(patient(f"n{n}")) for n in range(30)))
    (folder / "b.json").write_text(json.dumps(patient("b")))
    first = command("load", str(folder), "--data", data, folder=tmp_path)
    again = command("load", str(folder), "--data", data, folder=tmp_path)
    (folder / "c.json").write_text("{")
    broken = command("load", str(folder), "--data", data, folder=tmp_path)
    checked = command("check", "--data", data, folder=tmp_path)

    assert first.returncode == 0, first.stderr
    assert re.search(r"2 files, 31 resources in .* 31 new, 0 errors", first.stderr)
    assert " 0 new, 0 errors" in again.stderr
    assert broken.returncode == 1
    assert " 0 new, 1 errors" in broken.stderr
    assert "c.json" in broken.stderr.splitlines()[-1]
    assert checked.returncode == 0, checked.stderr
    assert "1 resource types in use" in checked.stderr
    assert "Indexes missing: none" in checked.stderr


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """The load ends with 2 and the name before anything is started."""
    done = command("load", "nowhere.json", folder=tmp_path)

    assert done.returncode == 2
    assert "nowhere.json is not there" in done.stderr
    assert list(tmp_path.iterdir()) == []
