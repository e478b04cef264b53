"""Files in a folder: taken, their answers written beside them, moved away.

design/hl7v2.md, section 3. A file is written elsewhere and renamed into the folder; its answers are
``NAME.ack``, and it goes to ``done/``, or to ``failed/`` where one of them is negative.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from adapters.hl7v2.ack import answered
from adapters.hl7v2.batches import TooManyError, take_batch
from adapters.hl7v2.failures import log_failure
from adapters.hl7v2.inbox import Intake, UnavailableError
from adapters.hl7v2.outcomes import Taken
from adapters.hl7v2.reading import Arrival

_LOOK_S = 2.0
_PIECE_BYTES = 1_048_576
_LEFT_ALONE = (".ack", ".tmp", ".part")


class Folder:
    """Watches ``path`` by looking."""

    def __init__(self, path: Path, intake: Intake) -> None:
        """Prepare."""
        self._path = path
        self._intake = intake

    async def run(self) -> None:
        """Take files until cancelled."""
        while True:
            try:
                for file in await asyncio.to_thread(self._files):
                    await self.take(file)
            except UnavailableError:
                pass  # the file stays, and is taken when the database is there again
            except Exception as error:  # noqa: BLE001 - the next look may find the folder in order
                log_failure(error)
            await asyncio.sleep(_LOOK_S)

    def _files(self) -> list[Path]:
        if not self._path.is_dir():
            return []
        return sorted(
            one
            for one in self._path.iterdir()
            if one.is_file() and one.suffix not in _LEFT_ALONE and not one.name.startswith(".")
        )

    async def take(self, file: Path) -> bool:
        """Take all messages of ``file``; return whether all answers are positive."""
        context = self._intake.context
        like = Arrival(b"", "", "file", context.now())
        failed: list[str] = []

        async def take(arrival: Arrival) -> Taken:
            taken = await self._intake.take(arrival)
            if taken.answer and answered(taken.answer)[0] not in ("AA", "CA"):
                failed.append(taken.code)
            return taken

        answers = file.with_name(file.name + ".ack")
        parts: list[bytes] = []
        try:
            limit = context.settings.hl7_batch_messages_max
            async for part in take_batch(_pieces(file), like, take, limit):
                parts.append(part)
        except TooManyError:
            failed.append("too many")
        await asyncio.to_thread(answers.write_bytes, b"".join(parts))
        folder = self._path / ("failed" if failed else "done")
        await asyncio.to_thread(_moved, file, folder)
        return not failed


async def _pieces(file: Path) -> AsyncIterator[bytes]:
    with file.open("rb") as opened:
        while piece := await asyncio.to_thread(opened.read, _PIECE_BYTES):
            yield piece


def _moved(file: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    file.rename(folder / file.name)
