"""Messages taken in: judged at the door, applied in the order of their patients, kept, answered.

design/hl7v2.md, sections 5 to 7.

========  =====================================================================================
original  the message is applied at once; its row is written in the transaction that applies it
enhanced  the row is written as ``received`` and CA is answered; a worker applies it afterwards
========  =====================================================================================

What could be read is never only in the sender's hands: where applying fails, the row is written
alone, with its state, before there is a negative answer. Where the database cannot take it, there
is no answer at all (:class:`UnavailableError`), upon which every sender sends again.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from adapters.hl7v2 import reading
from adapters.hl7v2.ack import (
    Asked,
    Fault,
    Header,
    Sent,
    acknowledgement,
    as_issue,
    asked,
    header_of,
)
from adapters.hl7v2.apply import Applied, Begin, applied, unmapped_of
from adapters.hl7v2.attempts import LostError, Outcome, RepeatedError
from adapters.hl7v2.chains import Chains, Place
from adapters.hl7v2.elsewhere import Elsewhere
from adapters.hl7v2.failures import log_failure, log_refusal
from adapters.hl7v2.gathering import GroupInsert
from adapters.hl7v2.issues import MessageFault
from adapters.hl7v2.lookups import HeldError
from adapters.hl7v2.outcomes import (
    FINISHED,
    Outcomes,
    Taken,
    as_fault,
    given,
    invalid,
    is_ruled_out,
    refused,
    waiting_state,
    warnings,
)
from adapters.hl7v2.precedence import check_order, gives_up_key
from adapters.hl7v2.profiles import Profiles
from adapters.hl7v2.querying import replied
from adapters.hl7v2.reading import Arrival, ForeignFault, Item
from adapters.hl7v2.refusals import Refusals
from adapters.hl7v2.repetitions import APPLIED, Repetitions, answer_again
from fhir_server.context import Context
from fhir_server.outcome import FhirError
from fhir_server.store.inbox import Arrivals, Inbox, KeyTakenError, Row
from fhir_server.store.resources import ResourceStore

LEASE_S = 15.0
RETRY_FIRST_S, RETRY_MAX_S = 1.0, 300.0
_REJECTED_DAYS = 7
_REPEATED_TRIES = 3
_KEPT = "The message is kept and will be tried again; it need not be sent again."

_log = logging.getLogger("fhir_server.hl7v2")


class UnavailableError(Exception):
    """The database cannot take the message: nothing is answered, and the sender sends again."""


class Intake:
    """Takes messages in, for one process. ``wake`` is set when there may be rows to work off."""

    def __init__(self, context: Context) -> None:
        """Begin with nothing under way."""
        settings = context.settings
        self.context = context
        self.chains = Chains()
        self.counts: Counter[str] = Counter()
        self.owner = context.new_id()
        self.workers = asyncio.Semaphore(settings.hl7_workers)
        self.offer: Callable[[Row, Place], bool] | None = None
        self.readers = reading.Readers(settings)
        self._profiles = Profiles()
        self._repetitions = Repetitions(self.readers)
        self._arrivals = Arrivals()
        self.outcomes = Outcomes(context)
        self._refusals = Refusals(settings.hl7_rejects_per_minute_max)
        self._batch = GroupInsert(context)
        self.elsewhere = Elsewhere(settings, self.readers, self.counts)

    async def refresh(self) -> None:
        """Take the senders' profiles, and the maps that they name, as they are now."""
        self.readers.profiles = await self._profiles.read(self.context)

    # ------------------------------------------------------------------------------- the door

    async def take(self, arrival: Arrival) -> Taken:
        """Take one message; return what is answered. Up to its place among the messages of its
        patients nothing is waited for, unless it was applied before: messages are applied as they
        were taken.

        Raises :class:`UnavailableError`.
        """
        return self.elsewhere.redirected(arrival, await self._taken(arrival))

    async def _taken(self, arrival: Arrival) -> Taken:
        header = header_of(arrival.data)
        if header is not None and header.value(9).upper() == "ACK":
            self.counts["acknowledgements"] += 1
            return Taken()
        if header is not None and (row := await self._repeated(arrival, header)):
            return Taken(*answer_again(row))
        try:
            item = self.readers.item(arrival, header)
        except MessageFault as fault:
            return await self._refused(arrival, header, fault)
        except Exception as error:  # noqa: BLE001 - our own fault: the message is kept, and the sender can go on
            log_failure(error)
            return await self._refused(arrival, header, MessageFault(207, "", _KEPT), "retry")
        item = replace(
            item, id=self.context.new_id(), sequence=self._arrivals.next(arrival.received)
        )
        keys = [*item.patients, f"key:{item.key}"]
        try:
            if item.message.type == "QBP":
                return await replied(item, self.context, self._sent())
            if item.asked.waits:
                return await self._at_once(item, self.chains.enter(keys, item.sequence))
            return await self._stored(item, self.chains.enter(keys, item.sequence))
        except FhirError as error:
            if error.status < 500:
                raise
            raise UnavailableError from error

    async def _repeated(self, arrival: Arrival, header: Header) -> Row | None:
        """Return the row of a message that this process has applied not long ago."""
        try:
            row = await self._repetitions.row(arrival, header, self._inbox)
        except FhirError as error:
            raise UnavailableError from error
        self.counts["repetitions"] += row is not None
        return row

    async def _refused(
        self, arrival: Arrival, header: Header | None, fault: MessageFault, state: str = ""
    ) -> Taken:
        """Answer a message that cannot be read as one: rejected, or dead where only its content is
        at fault."""
        if isinstance(fault, ForeignFault):
            self.counts["foreign sender"] += 1
            _log.warning('"hl7v2: %s has sent as a sender that it may not use"', arrival.peer)
        told = as_fault(fault)
        wanted = asked(header) if header else Asked(False, "NE", "AL")
        code = wanted.refusal("AR" if fault.refused else "AE")
        state = state or ("rejected" if fault.refused else "dead")
        answer = self._answer(header, code, [told])
        row = Row(
            id=self.context.new_id(),
            sequence=self._arrivals.next(arrival.received),
            state=state,
            code=code,
            answer=answer,
            issues=(as_issue(told),),
            **reading.known(arrival, header),
        )
        if state == "rejected":
            row = replace(row, until=arrival.received + timedelta(days=_REJECTED_DAYS))
        if state == "retry":
            row = self._retrying(row)
        if state != "rejected" and (first := await self._insert_or_find(row)):
            if first.digest == row.digest and first.answer:
                await self._inbox.copied(first.id)
                return Taken(first.code, first.answer)
            if first.digest != row.digest:  # it is kept all the same
                await self._insert_or_find(replace(row, key=""))
        elif state == "rejected" and self._may_keep(arrival):
            await self._insert_or_find(replace(row, key=""))
        self._tell(row, 0.0)
        return Taken(code, answer)

    def _may_keep(self, arrival: Arrival) -> bool:
        """Whether a refusal of this peer is still kept: beyond a limit they are only counted."""
        self.counts["rejected"] += 1
        return self._refusals.may_keep(arrival)

    # -------------------------------------------------------------------------- original mode

    async def _at_once(self, item: Item, place: Place) -> Taken:
        """Apply ``item`` now and answer what came of it."""
        kept = False
        try:
            try:
                async with asyncio.timeout(self.context.settings.hl7_apply_s_max):
                    await place.turn()
                    await self.workers.acquire()
            except TimeoutError:
                outcome = Outcome("retry", (Fault("207", _KEPT),))
                taken, kept = await self._alone(item, outcome, place)
                return taken
            try:
                row: Row | Outcome | RepeatedError = await self._first(item)
            except RepeatedError as repeated:
                row = repeated
            finally:
                self.workers.release()
            if isinstance(row, RepeatedError):
                place.leave()  # the first one may have to be applied: it would wait for us
                return await self._repetition(item, row.row)
            if isinstance(row, Outcome):
                taken, kept = await self._alone(item, row, place)
                return taken
            return Taken(row.code, row.answer)
        finally:
            if not kept:
                place.leave()

    async def _first(self, item: Item) -> Row | Outcome:
        """Apply ``item`` and write its row in one transaction; return the row, or why not."""
        began = self.context.now()
        sent = self._sent()

        async def finish(store: ResourceStore, made: Applied) -> Row:
            answer, code = self._positive(item, sent, made)
            row = self._row(item, made.state)
            row = replace(row, code=code, answer=answer, **self._finished(item, made))
            await store.inbox.insert(row)
            return row

        async def begin(store: ResourceStore, first: Row | None) -> None:
            if first is not None:
                if first.state == "dead" and first.digest != item.digest:
                    await store.inbox.change(
                        first.id, ["dead"], {"key": "", "replaced_by": item.id}
                    )
                elif not await gives_up_key(first, item, store.inbox):
                    raise RepeatedError(first)
            await check_order(item, store.inbox)

        outcome = await self._attempt(item, begin, finish)
        if isinstance(outcome, Row):
            self._repetitions.remember(item)
            self._tell(outcome, (self.context.now() - began).total_seconds())
        return outcome

    async def _attempt(
        self,
        item: Item,
        begin: Begin | None,
        finish: Callable[[ResourceStore, Applied], Awaitable[Row]],
    ) -> Row | Outcome:
        """Apply ``item``; a failure becomes an outcome, but that of the database is raised."""
        try:
            return await applied(item, self.context, begin, finish)
        except HeldError as held:
            return Outcome("held", held.faults, {"unmapped": unmapped_of(item.report)})
        except MessageFault as fault:
            told = as_fault(fault)
            return Outcome("rejected" if fault.refused else "dead", (told,), refused=fault.refused)
        except FhirError as error:
            if error.status >= 500:
                raise
            if not is_ruled_out(error):
                self.counts["mapping-invalid"] += 1
                log_refusal(error)
            return Outcome("dead", refused(error), {"issues": invalid(error)})
        except (RepeatedError, LostError, asyncio.CancelledError):
            raise
        except Exception as error:  # noqa: BLE001 - the row is kept and tried again; the listener goes on
            log_failure(error)
            return Outcome("retry", (Fault("207", _KEPT),))

    async def _alone(self, item: Item, outcome: Outcome, place: Place) -> tuple[Taken, bool]:
        """Write the row of what was not applied; return the answer, and whether ``place`` is kept
        for further attempts."""
        code = item.asked.refusal("AR" if outcome.refused else "AE")
        answer = self._answer(item.header, code, outcome.faults)
        row = replace(
            self._row(item, outcome.state),
            raw=item.arrival.data,
            code=code,
            answer=answer,
            issues=(*map(as_issue, outcome.faults), *(outcome.set or {}).get("issues", ())),
            unmapped=(outcome.set or {}).get("unmapped", ()),
        )
        if outcome.state == "retry":
            row = self._retrying(row)
        if outcome.state == "rejected":
            until = item.arrival.received + timedelta(days=_REJECTED_DAYS)
            row = replace(row, key="", until=until)
            if not self._may_keep(item.arrival):
                return Taken(code, answer), False
        first = await self._insert_or_find(row, item=item)
        if first is not None:
            place.leave()  # the first one, or this one with its key, would wait for us
            return await self._repetition(item, first), False
        self._tell(row, 0.0)
        kept = outcome.state == "retry" and self.offer is not None and self.offer(row, place)
        return Taken(code, answer), kept

    # -------------------------------------------------------------------------- enhanced mode

    async def _stored(self, item: Item, place: Place) -> Taken:
        """Keep ``item`` to be applied by a worker, and answer that it is kept."""
        kept = False
        try:
            row = replace(self._row(item, "received"), raw=item.arrival.data)
            if item.asked.wants_commit(positive=True):
                answer = self._answer(item.header, "CA")
                row = replace(row, code="CA", answer=answer)
            first = await self._insert_or_find(row, gathered=True, item=item)
            if first is not None:
                return await self._repetition(item, first)
            kept = self.offer is not None and self.offer(row, place)
            self._tell(row, 0.0)
            wants = item.asked.application != "NE"
            return Taken(row.code, row.answer, self._later(row.id) if wants else None)
        finally:
            if not kept:
                place.leave()

    def _later(self, id: str) -> Callable[[], Awaitable[bytes]]:
        future = self.outcomes.expect(id)

        async def answer() -> bytes:
            row = await self.outcomes.of(id, future, self.context.settings.hl7_retry_s_max * 2)
            return row.late_answer if row else b""

        return answer

    # ----------------------------------------------------------------------------- repetition

    async def _repetition(self, item: Item, first: Row, tries: int = _REPEATED_TRIES) -> Taken:
        """Answer a message whose key ``first`` has: as before, or that the key is taken."""
        if first.digest != item.digest:
            return await self._key_taken(item, first)
        self.counts["repetitions"] += 1
        await self._inbox.copied(first.id)
        again = first
        if first.state in ("dead", "retry") and not self.outcomes.is_awaited(first.id):
            changed = await self._inbox.change(
                first.id, ["dead", "retry"], {"state": "received", "next": None, "until": None}
            )
            if changed is not None and self.offer is not None:
                place = self.chains.enter(changed.patients, changed.sequence)
                if not self.offer(changed, place):
                    place.leave()
                again = changed
        if not item.asked.waits:
            later = None
            if item.asked.application != "NE":
                later = self._later(first.id) if again.state not in FINISHED else given(first)
            return Taken(first.code, first.answer, later)
        if again.state not in APPLIED:
            future = self.outcomes.expect(first.id)
            limit = self.context.settings.hl7_apply_s_max
            found = await self.outcomes.of(first.id, future, limit)
            if found is None:
                text = Fault("207", _KEPT)
                return Taken("AE", self._answer(item.header, "AE", [text]))
            again = found
        return Taken(*answer_again(again))

    async def _key_taken(self, item: Item, first: Row) -> Taken:
        """Another message has the number of this one: a dead one gives it up, others do not."""
        if first.state == "dead":
            given_up = await self._inbox.change(
                first.id, ["dead"], {"key": "", "replaced_by": item.id}
            )
            if given_up is not None:
                return await self._taken(replace(item.arrival, received=self.context.now()))
        text = "Another message came with the same control id (MSH-10) and other content."
        fault = Fault("205", text, "MSH[1]-10")
        code = item.asked.refusal("AE")
        answer = self._answer(item.header, code, [fault])
        if self._may_keep(item.arrival):
            row = replace(
                self._row(item, "rejected"),
                raw=item.arrival.data,
                key="",
                code=code,
                answer=answer,
                reason=f"The first one is {first.id}.",
                issues=(as_issue(fault),),
                until=item.arrival.received + timedelta(days=_REJECTED_DAYS),
            )
            await self._insert_or_find(row)
        return Taken(code, answer)

    # --------------------------------------------------------------------------------- workers

    async def work(self, id: str) -> str:
        """Apply the row ``id`` once, if nobody else does; return its state afterwards, ``""``
        where it is not to be applied any more."""
        now = self.context.now()
        until = now + timedelta(seconds=LEASE_S)
        row = await self._inbox.lease(id, self.owner, now, until)
        if row is None:
            return ""
        began = self.context.now()
        try:
            if row.replay_of:  # by the rules of now, whoever changed them, wherever
                await self.refresh()
            item = self._item_of(row)
            outcome = await self._again(item, row)
        except MessageFault as fault:
            told = as_fault(fault)
            outcome = Outcome("dead", (told,))
        except LostError:
            return ""
        except FhirError:  # the database: the lease ends, or is given back
            with suppress(FhirError):
                await self._inbox.change(
                    id, ["applying"], {"state": waiting_state(row)}, self.owner
                )
            raise
        except Exception as error:  # noqa: BLE001 - our own fault: this row is tried again, others go on
            log_failure(error)
            outcome = Outcome("retry", (Fault("207", _KEPT),))
        if isinstance(outcome, Outcome):
            changed = await self._not_applied(row, outcome)
        else:
            changed = outcome
        if changed is None:
            return ""
        self._tell(changed, (self.context.now() - began).total_seconds())
        self.outcomes.announce(changed)
        return changed.state

    def _item_of(self, row: Row) -> Item:
        arrival = Arrival(row.raw, row.peer, row.transport, row.received, charset=row.charset)
        item = self.readers.item(arrival, header_of(row.raw), judged=False)
        return replace(item, id=row.id, sequence=row.sequence, key=row.key, force=row.force)

    async def _again(self, item: Item, row: Row) -> Row | Outcome:
        sent = self._sent()

        async def begin(store: ResourceStore, _: Row | None) -> None:
            await check_order(item, store.inbox)

        async def finish(store: ResourceStore, made: Applied) -> Row:
            late, _ = self._positive(item, sent, made)
            finished: dict[str, Any] = {
                "raw": b"",
                "owner": "",
                "lease": None,
                "next": None,
                "code": "AA",
                **self._finished(item, made),
                "state": made.state,
                "late_answer": late if item.asked.wants_application(positive=True) else b"",
                "attempt": self._tried(made.state),
            }
            changed = await store.inbox.change(row.id, ["applying"], finished, self.owner)
            if changed is None:
                raise LostError
            if row.parts:
                await store.inbox.forget_parts(row.id)
            return changed

        # A replay is what a person has decided.
        waits = item.profile.hold_after_dead and not row.replay_of
        return await self._attempt(item, begin if waits else None, finish)

    async def _not_applied(self, row: Row, outcome: Outcome) -> Row | None:
        state = outcome.state if outcome.state != "rejected" else "dead"
        set: dict[str, Any] = {
            "owner": "",
            "lease": None,
            "issues": (*map(as_issue, outcome.faults), *(outcome.set or {}).get("issues", ())),
            "attempt": self._tried(state),
            "unmapped": (outcome.set or {}).get("unmapped", ()),
        }
        if state == "retry":
            retrying = self._retrying(row)
            set |= {"next": retrying.next, "first_failed": retrying.first_failed}
            waited = self.context.now() - (retrying.first_failed or self.context.now())
            if waited.total_seconds() > self.context.settings.hl7_retry_s_max:
                state = "dead"
        header = header_of(row.raw)
        if header is not None and state != "retry":
            code = "AE"
            wants = asked(header).wants_application(positive=False)
            late = self._answer(header, code, outcome.faults) if wants else b""
            set |= {"code": code, "late_answer": late}
        return await self._inbox.change(row.id, ["applying"], {**set, "state": state}, self.owner)

    def _tried(self, state: str) -> dict[str, Any]:
        return {"at": self.context.now(), "outcome": state}

    def _retrying(self, row: Row) -> Row:
        now = self.context.now()
        wait = min(RETRY_FIRST_S * 2 ** len(row.attempts), RETRY_MAX_S)
        return replace(
            row, next=now + timedelta(seconds=wait), first_failed=row.first_failed or now
        )

    # ---------------------------------------------------------------------- for an operator

    def next_place(self, now: datetime) -> int:
        """Return the place of what arrives now in the order of arrival."""
        return self._arrivals.next(now)

    async def put(self, row: Row) -> None:
        """Keep ``row`` and have it applied. Raises ``transient`` where that cannot be."""
        await self._inbox.insert(row)
        self.resume(row)

    def resume(self, row: Row) -> None:
        """Have ``row``, which waits again, applied."""
        place = self.chains.enter(row.patients, row.sequence)
        if self.offer is None or not self.offer(row, place):
            place.leave()

    async def finished(self, id: str, seconds: float) -> Row | None:
        """Return the row ``id`` when it is finished, or when ``seconds`` are over."""
        row = await self._inbox.row(id)
        if row is None or row.state in FINISHED:
            return row
        return await self.outcomes.of(id, self.outcomes.expect(id), seconds)

    # ----------------------------------------------------------------------------------- rows

    @property
    def _inbox(self) -> Inbox:
        return self.context.store.inbox

    def _row(self, item: Item, state: str) -> Row:
        return Row(
            id=item.id,
            sequence=item.sequence,
            state=state,
            patients=tuple(item.patients),
            **reading.known(item.arrival, item.header, item),
        )

    def _finished(self, item: Item, made: Applied) -> dict[str, Any]:
        now = self.context.now()
        return {
            "binary": made.binary,
            "raw": b"" if made.binary else item.arrival.data,
            "subjects": made.subjects,
            "issues": made.issues,
            "unmapped": made.unmapped,
            "made": made.made,
            "until": now + timedelta(days=self.context.settings.hl7_done_days),
        }

    async def _insert_or_find(
        self, row: Row, *, gathered: bool = False, item: Item | None = None
    ) -> Row | None:
        """Write ``row`` alone; return the row that has its key already, if one has."""
        for _ in range(_REPEATED_TRIES):
            try:
                if gathered:
                    await self._batch.insert(row)
                else:
                    await self._inbox.insert(row)
                return None
            except KeyTakenError:
                found: Row | None = await self._inbox.with_key(row.key)
                if found is not None and not (
                    item and await gives_up_key(found, item, self._inbox)
                ):
                    return found
            except FhirError as error:
                raise UnavailableError from error
        raise UnavailableError

    def _positive(self, item: Item, sent: Sent, made: Applied) -> tuple[bytes, str]:
        if not item.asked.wants_application(positive=True):
            return b"", ""
        # Before v2.5 an ERR has no severity: a warning there would be read as a refusal.
        told = item.profile.ack.get("warnings", False) and item.header.version >= (2, 5)
        return acknowledgement(item.header, "AA", sent, warnings(made.issues) if told else ()), "AA"

    def _answer(self, header: Header | None, code: str, faults: Sequence[Fault] = ()) -> bytes:
        return acknowledgement(header, code, self._sent(), faults) if code else b""

    def _sent(self) -> Sent:
        """Return what our header says: a new control id of 20 characters, and the time."""
        digits = self.context.new_id().replace("-", "")
        return Sent(digits[:12] + digits[-8:], self.context.now())

    def _tell(self, row: Row, seconds: float) -> None:
        self.counts[f"state:{row.state}"] += 1
        if _log.isEnabledFor(logging.INFO):
            _log.info(
                '{"row":"%s","sender":"%s","type":"%s","state":"%s","ms":%.1f}',
                *(row.id, row.sender, row.type, row.state, seconds * 1000),
            )
