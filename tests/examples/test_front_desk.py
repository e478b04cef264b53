"""The front desk of the sample clinic, by the commands of README as they stand there."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import ROOT
from tests.faults.serving import Serving

CLINIC = ROOT / "examples" / "dhaka-clinic" / "clinic.json"
TOOLS = ("bash", "curl", "date", "python3")
JSON = {"content-type": "application/fhir+json"}


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    """A server of which nothing is left behind."""
    one = Serving(tmp_path)
    yield one
    one.clean_up()


def commands() -> str:
    """The commands about the front desk, one shell block of README."""
    text = (ROOT / "README.md").read_text("utf-8")
    return text.partition("The front desk: ")[2].partition("```sh\n")[2].partition("```")[0]


@pytest.mark.slow
@pytest.mark.skipif(not all(map(shutil.which, TOOLS)), reason=f"needs {', '.join(TOOLS)}")
async def test_a_newcomer_books_and_calls(serving: Serving) -> None:
    """Booked once; it is in the calendar, and who came is on the board."""
    again = commands()[commands().index("curl -i -X POST") :].partition("\n\n")[0]
    serving.start()
    async with httpx.AsyncClient(base_url=serving.site, timeout=60) as client:
        loaded = await client.post("/fhir", content=CLINIC.read_bytes(), headers=JSON)
        assert loaded.status_code == 200, loaded.text
        process = await asyncio.create_subprocess_exec(
            *("bash", "-eu", "-c", f"B={serving.base}\n{commands()}\n{again}"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate()
        assert process.returncode == 0, out
        assert out.count(b"HTTP/1.1 201") == out.count(b"HTTP/1.1 409") == 1, out

        asked = {"patient": "shirin-akter", "status": "booked", "date": "ge2026-11-01"}
        found = (await client.get("/fhir/Appointment", params=asked)).json()
        [booked] = [one["resource"] for one in found["entry"]]
        assert booked["start"].endswith("+06:00")
        day = {"date": booked["start"][:10], "view": "day"}
        calendar = await client.get("/calendar/dr-farhana-haque", params=day)
        assert "Shirin Akter" in calendar.text
        assert booked["start"][11:16] in calendar.text
        board = await client.get("/board/consulting-room-1", params={"lang": "bn"})
        assert "GENE-০০১" in board.text
