"""The server as a process of its own: started, asked over HTTP, stopped or killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import httpx

from tests.store.mongods import free_port, kill, runs

START_S = 60.0
STOP_S = 40.0
COMMAND_S = 60.0


def environment(**settings: object) -> dict[str, str]:
    """Return this process's environment without settings of ours, and with ``settings``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FHIR_")}
    return kept | {f"FHIR_{name.upper()}": str(value) for name, value in settings.items()}


def command(*arguments: str, folder: Path, **settings: object) -> subprocess.CompletedProcess[str]:
    """Run ``fhir-server`` with ``arguments`` in ``folder`` and wait for its end."""
    return ran(arguments, folder, environment(**settings))


def from_source(source: Path | None) -> dict[str, str]:
    """Return what makes Python take the package from ``source``; ``None`` is this one."""
    return {} if source is None else {"PYTHONPATH": str(source)}


def ran(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run ``fhir-server`` with ``arguments`` in ``folder`` and exactly this ``environment``."""
    return subprocess.run(
        [sys.executable, "-m", "fhir_server", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
    )


class Serving:
    """``fhir-server serve`` on a free port, with an embedded MongoDB under ``folder/data``."""

    def __init__(self, folder: Path, **settings: object) -> None:
        """Prepare; nothing is started yet. ``settings`` go into the environment. ``source`` may be
        set to the folder of another version of the server."""
        self.source: Path | None = None
        self.data = folder / "data"
        self.port = free_port()
        self._folder = folder
        self._log = folder / "serve.log"
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._mongods: set[int] = set()

    @property
    def base(self) -> str:
        """The FHIR base."""
        return f"{self.site}/fhir"

    @property
    def site(self) -> str:
        """Where the server is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def said(self) -> str:
        """What it wrote to standard output and error."""
        return self._log.read_text(errors="replace")

    @property
    def pid(self) -> int:
        """The process id of the server."""
        assert self._process is not None
        return self._process.pid

    @property
    def mongod(self) -> int:
        """The process id of the embedded mongod."""
        return int(json.loads((self.data / "mongod.json").read_text())["pid"])

    def start(self) -> float:
        """Start, and wait until it is ready; return the seconds that took."""
        began = time.monotonic()
        arguments = ("serve", "--port", str(self.port), "--data", str(self.data))
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fhir_server", *arguments],
                cwd=self._folder,
                env=environment(**{"log_level": "warning", **self._settings})
                | from_source(self.source),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        while not self._ready():
            assert self._process.poll() is None, self.said
            assert time.monotonic() - began < START_S, self.said
            time.sleep(0.05)
        self._mongods.add(self.mongod)
        return time.monotonic() - began

    def stop(self) -> int:
        """Ask it to end, as systemd does; return its exit code, also if it has ended already."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(STOP_S)

    def kill(self) -> None:
        """Kill the server, not its mongod."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def kill_mongod(self) -> None:
        """Kill the mongod, not the server."""
        kill(self.mongod)

    def mongod_runs(self) -> bool:
        """Whether any mongod that was seen is still there."""
        return any(map(runs, self._mongods))

    def clean_up(self) -> None:
        """Leave nothing behind, whatever the test did."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        with suppress(OSError, ValueError, KeyError):
            self._mongods.add(self.mongod)
        for pid in self._mongods:
            with suppress(OSError):
                if b"mongod" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    kill(pid)

    def _ready(self) -> bool:
        with suppress(httpx.HTTPError):
            if httpx.get(f"{self.site}/ready", timeout=2).status_code == 200:
                return self._listens()
        return False

    def _listens(self) -> bool:
        """Whether it listens for HL7 v2, where it is to: what runs beside HTTP begins with it."""
        port = int(str(self._settings.get("mllp_port", 0)))
        with suppress(OSError):
            if port:
                socket.create_connection(("127.0.0.1", port), timeout=2).close()
            return True
        return False
