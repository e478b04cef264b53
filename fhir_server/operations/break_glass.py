"""``$break-glass``: one patient's record in an emergency, for 15 minutes.

design/security.md, section 3.3. For staff, five times a day. It lifts what Consents deny and the
need of a relationship, never scopes or types. Every request under it is recorded with the purpose
BTG, and the privacy officer is told. More time is another request.

==============  ================================================================================
parameter       what it is
==============  ================================================================================
``patient``     a reference to the patient, ``Patient/1``
``reason``      why, in words; up to 1,000 characters
==============  ================================================================================
"""

from dataclasses import replace
from datetime import datetime

from fhir_server.context import Context
from fhir_server.interactions.admitting import SIGNED_IN
from fhir_server.interactions.parameters import known_only
from fhir_server.interactions.recording import note
from fhir_server.messages import Request, Response
from fhir_server.operations.bodies import parameters_in, parameters_out
from fhir_server.outcome import FhirError, Issue, invalid_value, not_found
from fhir_server.r4.references import target
from fhir_server.registry import Operation
from fhir_server.security.audit import Row
from fhir_server.security.break_glass import (
    A_DAY,
    A_DAY_MAX,
    LASTS,
    PURPOSE,
    REASON_MAX,
    account,
    is_staff,
    may_again_at,
)
from fhir_server.store.break_glass import Use, add_use, ensure_break_glass, uses_since
from fhir_server.store.documents import instant
from fhir_server.store.resources import ResourceStore


async def break_glass(request: Request, context: Context) -> Response:
    """Open the record of the parameter ``patient`` to who asks, and say until when.

    Raises ``forbidden`` for who is no staff, ``value`` without a patient here and a reason,
    ``throttled`` (429) after five times in 24 hours, ``not-found`` where there is no such patient:
    that is one of the five.
    """
    if not is_staff(context.principal):
        raise FhirError(Issue("forbidden", "$break-glass is for staff."))
    known_only(request, ())
    patient, reason = _asked(request, context)
    store = context.store.as_server
    found = await store.read("Patient", patient)
    there = found is not None and not found.deleted
    now = context.now()
    until = now + LASTS if there else now
    use = Use(
        *(context.new_id(), account(context.principal), context.principal.fhir_user, patient),
        *(reason, now, until),
    )
    tells = (context.settings.privacy_officer,) if there else ()
    await ensure_break_glass(store.database)

    async def work(inside: ResourceStore) -> None:
        assert inside.session is not None
        earlier = await uses_since(inside.database, use.account, now - A_DAY, inside.session)
        if again := may_again_at(earlier, now):
            raise _too_often(again, now)
        await add_use(inside.database, use, tells, inside.session)
        if there:
            opening = Row(
                *(now, "break-glass", context.principal, "Patient", patient),
                purpose=PURPOSE,
                query=reason,
            )
            await note(replace(context, store=inside), opening)

    await store.in_transaction(work, ())
    await store.denials.settle(-1)  # every process is to know
    if not there:
        raise not_found("Patient", patient)
    body = parameters_out(
        [
            {"name": "patient", "valueReference": {"reference": f"Patient/{patient}"}},
            {"name": "until", "valueInstant": instant(until)},
        ]
    )
    return Response(200, body)


def _asked(request: Request, context: Context) -> tuple[str, str]:
    """Return the id of the patient, and the reason."""
    given = parameters_in(request, context, {"patient": "valueReference", "reason": "valueString"})
    reference = given.get("patient", {}).get("reference", "")
    found = target(reference, (request.base_url,))
    if found.type != "Patient" or not found.id:
        raise invalid_value("patient", reference, "a reference such as Patient/1")
    reason = given.get("reason", "").strip()
    if not 0 < len(reason) <= REASON_MAX:
        text = f"reason is to say why, in up to {REASON_MAX:,} characters."
        raise FhirError(Issue("value", text, "Parameters.parameter"))
    return found.id, reason


def _too_often(again: datetime, now: datetime) -> FhirError:
    text = (
        f"The glass may be broken {A_DAY_MAX} times in 24 hours, and was; again from "
        f"{instant(again)} on. Ask a colleague."
    )
    seconds = max(1, int((again - now).total_seconds()) + 1)
    return FhirError(Issue("throttled", text), headers=(("Retry-After", str(seconds)),))


BREAK_GLASS = Operation(
    "$break-glass",
    "urn:fhir-server:OperationDefinition:break-glass",
    break_glass,
    affects_state=True,
    needs=SIGNED_IN,
)
