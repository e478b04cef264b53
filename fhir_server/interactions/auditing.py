"""What is done for the audit record beside requests: heads are signed every hour and sent outside,
and what is older than a setting says is dropped once a day. Section 4 of the design page.
"""

import asyncio
import json
import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

from fhir_server.context import Context
from fhir_server.outcome import FhirError
from fhir_server.registry import Task
from fhir_server.security.audit import Row
from fhir_server.store.audit import NOT_WRITTEN
from fhir_server.store.audit_chain import drop, sign

_HOUR_S = 3600.0
_DROPPED_EVERY = 24  # hours

_log = logging.getLogger("fhir_server.audit")


async def sign_heads(context: Context) -> dict[str, Any] | None:
    """Sign the heads of the chains of this process, and send them to the log and the file; return
    them."""
    audit = context.store.audit
    if audit is None:
        return None
    said = await sign(audit, context.new_id(), context.now())
    if said is not None:
        line = json.dumps(said)
        _log.info('{"audit_heads":%s}', line)
        if context.settings.audit_heads is not None:
            await asyncio.to_thread(_appended, context.settings.audit_heads, line)
    return said


async def drop_old(context: Context) -> int:
    """Drop what is older than the setting says; return how many rows are gone."""
    audit, days = context.store.audit, context.settings.audit_days
    if audit is None or not days:
        return 0
    before = context.now() - timedelta(days=days)
    gone = await drop(audit.database, audit.key, before, context.now())
    if gone:
        said = f"{gone} records from before {before:%Y-%m-%d}"
        audit.add(Row(context.now(), "retention", context.principal, query=said))
    return gone


def _appended(path: Path, line: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


async def _run(context: Context) -> None:
    """Sign each hour, and once more at the end: what was recorded last is then covered as well."""
    hours = 0
    try:
        while True:
            await asyncio.sleep(_HOUR_S)
            hours += 1
            try:
                await sign_heads(context)
                if hours % _DROPPED_EVERY == 0:
                    await drop_old(context)
            except (FhirError, *NOT_WRITTEN) as error:  # the next hour comes
                _log.error('"audit heads were not signed: %s"', type(error).__name__)
    finally:
        if context.store.audit is not None:
            await context.store.audit.close()
            await sign_heads(context)


TASK = Task("audit", _run)
