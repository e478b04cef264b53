"""An export as a client has it: from the request to the manifest, and then all of its files.

https://hl7.org/fhir/uv/bulkdata/STU2/export.html

Who exports is signed in as an analyst. Times of the processor are those of the server and of its
database; what the client spends on reading is not among them.
"""

import json
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.bench.generate import id_of
from tests.bench.targets import Target, signed

ROLE = "analyst"
_POLLED_S = 0.1
_READ_BYTES = 1 << 20
_PATIENCE_S = 600.0


@dataclass
class Step:
    """What a part of an export took. ``server`` and ``mongod`` are processor seconds, ``grown`` the
    megabytes by which the memory of the server grew at most."""

    name: str
    resources: int = 0
    bytes: int = 0
    seconds: float = 0.0
    server: float = 0.0
    mongod: float = 0.0
    grown: float = 0.0


@dataclass
class Exporting:
    """One who exports from ``target``, with ``headers``."""

    target: Target
    headers: Mapping[str, str] = field(default_factory=dict)

    def run(self, path: str) -> list[Step]:
        """Export what ``path`` stands for, below the base; read all files; remove the export."""
        made, read = Step(f"`{path}`, to its manifest"), Step("… all of its files, read")
        with self._watched(made):
            place = self._begun(path)
            manifest = self._manifest(place, made)
        made.resources = sum(one["count"] for one in manifest["output"])
        with self._watched(read):
            for one in manifest["output"]:
                self._read(one["url"], read)
        assert read.resources == made.resources, (read, made)
        self.remove(place)
        return [made, read]

    def remove(self, url: str) -> None:
        """Delete what is at ``url``."""
        self._ask("DELETE", url).close()

    def group(self) -> str:
        """Make a Group of all patients; return its place below the base."""
        patients = [id_of("pat", n) for n in range(self.target.patients)]
        members = [{"entity": {"reference": f"Patient/{id}"}} for id in patients]
        body = {"resourceType": "Group", "type": "person", "actual": True, "member": members}
        url, sent = f"{self.target.base}/Group", json.dumps(body).encode()
        with self._ask("POST", url, sent, **{"Content-Type": "application/fhir+json"}) as answer:
            place: str = answer.headers["Location"].partition("/Group/")[2]
        return f"Group/{place.partition('/')[0]}"

    def _begun(self, path: str) -> str:
        url = f"{self.target.base}/{path}"
        with self._ask("GET", url, Prefer="respond-async") as answer:
            return str(answer.headers["Content-Location"])

    def _manifest(self, place: str, step: Step) -> Any:
        end, memory = time.monotonic() + _PATIENCE_S, self.target.memory_mb()
        while time.monotonic() < end:
            with self._ask("GET", place) as answer:
                if answer.status == 200:
                    return json.load(answer)
            step.grown = max(step.grown, self.target.memory_mb() - memory)
            time.sleep(_POLLED_S)
        raise AssertionError("the export did not come to its end")

    def _read(self, url: str, step: Step) -> None:
        memory = self.target.memory_mb()
        with self._ask("GET", url) as answer:
            while data := answer.read(_READ_BYTES):
                step.bytes += len(data)
                step.resources += data.count(b"\n")
                step.grown = max(step.grown, self.target.memory_mb() - memory)

    def _ask(self, method: str, url: str, body: bytes | None = None, **more: str) -> Any:
        headers = {**self.headers, **more}
        request = urllib.request.Request(url, body, headers, method=method)
        return urllib.request.urlopen(request, timeout=60)

    @contextmanager
    def _watched(self, step: Step) -> Iterator[None]:
        before, began = self.target.spent(), time.perf_counter()
        yield
        step.seconds = time.perf_counter() - began
        after = self.target.spent()
        step.server, step.mongod = after[0] - before[0], after[1] - before[1]


_COLUMNS = (
    *("export", "resources", "resources a second", "MB/s"),
    *("server CPU s per 1,000", "mongod CPU s per 1,000", "server grew by MB"),
)


def table(target: Target, turns: int = 2) -> None:
    """Print what exports of ``target`` cost, one of ours: of everything, of all patients, and of
    the patients of a Group. Of each the cheapest of ``turns``."""
    exporting = Exporting(target, signed(target, ROLE))
    group = exporting.group()
    paths = ("$export", "Patient/$export", f"{group}/$export")
    print(f"\n| {' | '.join(_COLUMNS)} |\n| --- |{' ---: |' * (len(_COLUMNS) - 1)}")
    for path in paths:
        runs = [exporting.run(path) for _ in range(turns)]
        for steps in zip(*runs, strict=True):
            _line(min(steps, key=lambda one: one.server + one.mongod))
    exporting.remove(f"{target.base}/{group}")


def _line(step: Step) -> None:
    cells = (
        *(step.name, f"{step.resources:,}", f"{step.resources / step.seconds:,.0f}"),
        f"{step.bytes / step.seconds / 1e6:,.0f}" if step.bytes else "–",
        *(f"{1000 * one / step.resources:.4f}" for one in (step.server, step.mongod)),
        f"{step.grown:.0f}",
    )
    print(f"| {' | '.join(cells)} |", flush=True)
