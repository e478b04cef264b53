"""Reads the rows of a page within a bound of bytes, whatever the size of the resources.

A thousand resources of six megabytes are not held in memory to be cut afterwards: the cursor is
read batch by batch, and MongoDB sends at most 16 MB a batch.
"""

from typing import Any

from fhir_server.store.documents import Document

_BATCH_ROWS = 100


async def rows_within(cursor: Any, bytes_max: int) -> tuple[list[Document], Document | None]:
    """Return the rows of ``cursor`` up to ``bytes_max`` of JSON, but one at least; and the first of
    those that were left out, if there is one."""
    rows: list[Document] = []
    size = 0
    while batch := await cursor.to_list(_BATCH_ROWS):
        for place, row in enumerate(batch):
            size += len(row.get("json", b""))
            if size > bytes_max and (rows or place):
                await cursor.close()
                return rows + batch[:place], row
        rows += batch
        if len(batch) < _BATCH_ROWS:
            break
    return rows, None
