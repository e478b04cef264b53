"""What Consents take from the rights of a principal, and what break-glass gives back.

Section 3.3 of design/security.md. A number in the database tells whether what this process has
computed from the rows of ``store/denials.py`` still holds; it is looked at ten times a second at
most. A site without a Consent that denies anything pays that and no more.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from fhir_server.context import Context
from fhir_server.interactions.consent_fields import KeyFields
from fhir_server.security.break_glass import LASTS, PURPOSE, account
from fhir_server.security.consent import rule_in
from fhir_server.security.consent_codes import IN_FHIR, OWN_ROLES, STAFF_ROLES
from fhir_server.security.denying import Denial, Denied, Denying, Who
from fhir_server.security.plan import Filter, Rights, both
from fhir_server.security.principal import Principal
from fhir_server.store.break_glass import open_uses
from fhir_server.store.denials import Denials
from fhir_server.store.documents import Document

_HOLDS = timedelta(seconds=1)  # what somebody works as is known so long
_KEPT_MAX = 500
_STAFF = ("Practitioner", "PractitionerRole")


async def as_opened(context: Context) -> Context:
    """Return ``context`` with the purpose BTG where its principal has a record open by break-glass:
    whatever the request comes to is recorded so."""
    principal = context.principal
    if principal.kind != "user" or not await opened(principal, context):
        return context
    return replace(context, principal=replace(principal, purpose=PURPOSE))


async def subtracted(rights: Rights, principal: Principal, context: Context) -> Rights:
    """Return ``rights`` without what Consents deny ``principal`` at this moment.

    With a record open by break-glass, the purpose is BTG.
    """
    known = await _known(principal, context)
    if known is None or not (known.denying.denials or known.opened):
        return rights
    if known.last is None or (known.last[0] is not rights and known.last[0] != rights):
        may: dict[tuple[str, str], Filter] = {
            (type, letter): both(predicate, known.denying.taken(type, letter))
            for (type, letter), predicate in rights.may.items()
        }
        purpose = PURPOSE if known.opened else rights.purpose
        known.last = rights, replace(rights, may=may, purpose=purpose)
    return known.last[1]


async def opened(principal: Principal, context: Context) -> frozenset[str]:
    """Return the ids of the patients whose record ``principal`` has open by break-glass: no
    relationship with them is asked for."""
    known = await _known(principal, context)
    return known.opened if known else frozenset()


async def _known(principal: Principal, context: Context) -> Denied | None:
    """Return what is known as of now; ``None`` where nothing was ever denied or opened."""
    denials = context.store.denials
    number = await denials.number()
    if not number:
        return None
    now = context.now()
    key = (principal.key, principal.fhir_user, principal.roles, principal.purpose)
    kept = denials.kept.get(key)
    if isinstance(kept, Denied) and kept.holds(number, now):
        return kept
    # Who asks at the same time waits for the same answer: rows of one number are the same.
    joined = denials.joined.get((key, number))
    if joined is None:
        joined = asyncio.create_task(_looked_up(principal, number, now, context))
        denials.joined[key, number] = joined
        joined.add_done_callback(lambda _: denials.joined.pop((key, number), None))
    known: Denied = await asyncio.shield(joined)
    if len(denials.kept) >= _KEPT_MAX:
        denials.kept.clear()
    denials.kept[key] = known
    return known


async def _looked_up(principal: Principal, number: int, now: datetime, context: Context) -> Denied:
    denials = context.store.denials
    who = await _who(principal, denials)
    uses = await open_uses(denials.database, account(principal), now, LASTS)
    is_person = who.has_person or principal.kind != "user"
    rows = await denials.touching(
        who.names if is_person else None, organizations=not who.has_organizations
    )
    places = {f"Patient/{id}" for id in uses}
    rows = [
        row
        for row in rows
        if row["patient"] != principal.fhir_user and row["patient"] not in places
    ]
    moments = [one for row in rows for one in (row["begins"], row["ends"])]
    until = min([now + _HOLDS, *(one for one in (*moments, *uses.values()) if one > now)])
    in_force = [row for row in rows if row["begins"] <= now < row["ends"]]
    fields = KeyFields(context.parameters)
    denying = Denying(who, now, fields, list(_denials(in_force, principal.fhir_user)))
    return Denied(number, now, until, denying, frozenset(uses))


def _denials(rows: Iterable[Document], person: str) -> Iterable[Denial]:
    """Yield what ``rows`` deny ``person``: patients of whom the same is said are one."""
    patients: dict[tuple[bytes, bool], list[str]] = {}
    for row in rows:
        key = row["rule"], bool(person) and person in row["exempt"]
        patients.setdefault(key, []).append(row["patient"])
    for (rule, exempt), places in patients.items():
        yield Denial(rule_in(rule), tuple(sorted(set(places))), exempt)


async def _who(principal: Principal, denials: Denials) -> Who:
    """Return ``principal`` as Consents name people."""
    type = principal.fhir_user.partition("/")[0]
    own = frozenset((OWN_ROLES, one) for one in principal.roles)
    own |= {(STAFF_ROLES, IN_FHIR[one]) for one in principal.roles if one in IN_FHIR}
    if type in _STAFF:
        found = await denials.membership(principal.fhir_user)
        names = {principal.fhir_user, *found.roles, *found.organizations} | {found.person} - {""}
        return Who(
            *(frozenset(names), own | found.codes, principal.purpose),
            has_person=bool(found.person),
            has_organizations=bool(found.organizations),
            has_roles=bool(own or found.codes),
        )
    if type in ("Patient", "RelatedPerson"):
        names = {principal.fhir_user}
        return Who(frozenset(names), own, principal.purpose, True, True, True)
    # A backend is nobody's person; whose organization runs it, is not known.
    return Who(frozenset(), own, principal.purpose, has_person=principal.kind == "client")
