"""Runs a search over several types: one page over all of them, and what comes along with it.

https://hl7.org/fhir/R4/http.html#search
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.search.page import Edge
from fhir_server.search.plan import Plan
from fhir_server.search.several import Row, Several, merged, order_name
from fhir_server.store.client import Database
from fhir_server.store.documents import PRESENT, SHOWN, Document, Shown, shown
from fhir_server.store.explain import begin
from fhir_server.store.includes import NOTHING_INCLUDED, Gathering, fields_for
from fhir_server.store.linked import Linked, linked
from fhir_server.store.ordered import Source, order_of, row_key
from fhir_server.store.search import Bounds, Page
from fhir_server.store.totals import total_of

_FILLED_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class Types:
    """Runs one search over several types. ``types`` are those in use."""

    database: Database
    session: AsyncClientSession | None
    types: Collection[str]
    bounds: Bounds

    async def page(self, wanted: Several) -> Page[Shown]:
        """Return the page of ``wanted``, and the total where it is asked for or seen."""
        total = await self._total(wanted) if wanted.counted else None
        if wanted.plans and not wanted.count:
            return Page((), None, total)
        reading = self._merged if wanted.is_sorted else self._one_by_one
        rows, beyond = await reading(wanted)
        before, after = wanted.after, Edge(rows[-1][0]) if rows and beyond else None
        if wanted.backward:
            rows.reverse()
            before, after = Edge(beyond[0]) if beyond else None, wanted.until
        if total is None and before is None and after is None:
            total = len(rows)
        included = NOTHING_INCLUDED
        if wanted.includes and rows:
            matches: dict[str, list[Document]] = defaultdict(list)
            for _, type, row in rows:
                matches[type].append(row)
            limits = (self.bounds.includes_max, self.bounds.bytes_max)
            included = await Gathering(
                self.database, self.session, self.types, wanted.includes, *limits, wanted.rest
            ).of(matches)
        if wanted.rest is not None:
            return Page((), wanted.until, None, included, before)
        entries = tuple(shown(type, row) for _, type, row in rows)
        return Page(entries, after, total, included, before)

    async def _total(self, wanted: Several) -> int:
        total = 0
        for plan in wanted.counted:
            asked = await self._linked(replace(plan, count=0), ())
            begin(self.database, "total")
            total += await total_of(asked.source, plan, asked.filter) or 0
        return total

    async def _linked(self, plan: Plan, fields: Sequence[str], bytes_max: int = 1) -> Linked:
        collection = self.database[plan.type]
        source = Source(collection, self.session, bytes_max, fields=tuple(fields))
        return await linked(self.database, source, plan, self.types)

    async def _one_by_one(self, wanted: Several) -> tuple[list[Row], Row | None]:
        """Return the rows of the first types until the page is full, in the direction of reading;
        and the next one."""
        rows: list[Row] = []
        left = self.bounds.bytes_max
        for plan in reversed(wanted.plans) if wanted.backward else wanted.plans:
            full = len(rows) >= wanted.count or left <= 0
            room = 1 if full else wanted.count - len(rows)
            part = replace(plan, count=room, total="none")
            fields = (*SHOWN, *fields_for(plan.type, wanted.includes))
            asked = await self._linked(part, fields, max(1, left))
            begin(self.database, "matches")
            page = await asked.page(part)
            more: list[Row] = [(_place(plan, row), plan.type, row) for row in page.rows]
            if full:
                if more:
                    return rows, more[0]
                continue
            rows += reversed(more) if wanted.backward else more
            if page.beyond:
                return rows, (_place(plan, page.beyond), plan.type, page.beyond)
            left -= sum(len(row["json"]) for row in page.rows)
        return rows, None

    async def _merged(self, wanted: Several) -> tuple[list[Row], Row | None]:
        """Return the first rows of all types in their common order, in the direction of reading;
        and the next one.

        Rows are compared without their JSON. It is read of those that are shown.
        """
        rows: list[Row] = []
        for plan in wanted.plans:
            part = replace(plan, total="none")
            asked = await self._linked(part, ())
            begin(self.database, "order")
            page = await asked.page(part)
            here = [*page.rows, *([page.beyond] if page.beyond else ())]
            rows += (((*row_key(plan.sort, row), plan.type), plan.type, row) for row in here)
        descending = [down for _, down in order_of(wanted.plans[0].sort)]
        ordered = merged(rows, descending)
        if wanted.backward:
            ordered.reverse()
        shown, left_out = await self._filled(ordered[: wanted.count], wanted)
        further = ordered[wanted.count] if len(ordered) > wanted.count else None
        return shown, left_out or further

    async def _filled(self, rows: Sequence[Row], wanted: Several) -> tuple[list[Row], Row | None]:
        """Return ``rows`` with what is served, as many of the first as a page holds, and the first
        of the others. What was deleted a moment ago is not among them."""
        begin(self.database, "matches")
        filled: list[Row] = []
        size = 0
        for start in range(0, len(rows), _FILLED_AT_ONCE):
            some = rows[start : start + _FILLED_AT_ONCE]
            texts: dict[tuple[str, str], Document] = {}
            for type in dict.fromkeys(type for _, type, _ in some):
                ids = [row["_id"] for _, other, row in some if other == type]
                cursor = self.database[type].find(
                    {"_id": {"$in": ids}, **PRESENT},
                    projection=SHOWN | fields_for(type, wanted.includes),
                    session=self.session,
                )
                texts |= {(type, row["_id"]): row for row in await cursor.to_list()}
            for one in some:
                key, type, row = one
                whole = texts.get((type, row["_id"]))
                size += len(whole["json"]) if whole else 0
                if filled and size > self.bounds.bytes_max:
                    return filled, one
                if whole:
                    filled.append((key, type, whole))
        return filled, None


def _place(plan: Plan, row: Document) -> tuple[Any, ...]:
    """Return the key of ``row`` where types are read one behind the other."""
    return plan.type, order_name(plan), *row_key(plan.sort, row)
