"""Calendars of holidays: ``terminology/calendars/*.csv``, and a folder that a site has of its own.

A file has the lines ``2026-12-16,Victory Day``: a local date, and what it is called. Lines that
begin with ``#`` and the line ``date,name`` say nothing. Its name without ``.csv`` is what the rule
``holidayCalendar`` calls it; a site's own goes before ours.
"""

import csv
import json
import logging
from collections.abc import Iterable
from datetime import date
from functools import lru_cache
from pathlib import Path

from fhir_server.artifacts import artifacts_root
from fhir_server.features.scheduling.parameters import Holidays
from fhir_server.settings import Settings

_LOG = logging.getLogger("fhir_server.scheduling")
_HEAD = "date"
_LINES_MAX = 100_000


def holidays_of(settings: Settings) -> Holidays:
    """Return the dates of all calendars by name. They are read once in a process."""
    ours = artifacts_root(settings.artifacts) / "terminology" / "calendars"
    own = settings.scheduling_calendars
    return _read((ours, own) if own else (ours,))


@lru_cache(maxsize=8)
def _read(folders: tuple[Path, ...]) -> Holidays:
    found = {}
    for folder in folders:
        for file in sorted(folder.glob("*.csv")):
            try:
                with file.open(encoding="utf-8-sig", newline="") as lines:
                    found[file.stem] = dates(lines)
            except (OSError, ValueError) as error:
                # Without it, the rules that name it are refused, and say so.
                found.pop(file.stem, None)
                _LOG.error("%s", json.dumps(f"{file}: {error}"))
    return found


def dates(lines: Iterable[str]) -> frozenset[date]:
    """Return the dates of a calendar. Raises ``ValueError`` that names the line.

    >>> sorted(dates(["date,name", "# fixed", "2026-12-16,Victory Day"]))
    [datetime.date(2026, 12, 16)]
    """
    found = set()
    for number, row in enumerate(csv.reader(lines), start=1):
        first = row[0].strip() if row else ""
        if not first or first.startswith("#") or first == _HEAD:
            continue
        if number > _LINES_MAX:
            raise ValueError(f"more than {_LINES_MAX:,} lines")
        try:
            found.add(date.fromisoformat(first))
        except ValueError as error:
            raise ValueError(f"line {number} begins with no date such as 2026-12-16") from error
    return frozenset(found)
