"""``Practitioner/[id]/$calendar-link`` and ``/calendar-feed/[secret].ics``: a practitioner's
calendar for the telephone, at a secret address.

Who has the address reads the calendar without signing in; so it has times and what they are for,
and no name of a patient unless a setting says so. A new address makes the one before void.
"""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import re2 as re

from fhir_server.asgi import sent
from fhir_server.context import Context
from fhir_server.features.scheduling.daybook import Entry, entries
from fhir_server.features.scheduling.ical import feed
from fhir_server.features.scheduling.surroundings import display
from fhir_server.features.scheduling.waitlist import resource, root_of
from fhir_server.interactions.admitting import ADMINISTRATOR, forbidden
from fhir_server.messages import Request, Response
from fhir_server.outcome import FhirError, Issue, not_found
from fhir_server.r4.json import encode
from fhir_server.registry import Operation, Registry
from fhir_server.security.rights import is_granted

PATH = "/calendar-feed/"
_DEFINITION = "urn:fhir-server:OperationDefinition:calendar-link"
_NAME = re.compile(r"([A-Za-z0-9_\-]{43})\.ics")
_BEFORE, _AFTER = timedelta(days=7), timedelta(days=90)


def register(registry: Registry) -> None:
    """Add the operation and the feed."""
    registry.operation(
        Operation(
            *("$calendar-link", _DEFINITION, link, ("Practitioner",)),
            instance=True,
            affects_state=True,
            whole=False,
            needs="r",
        )
    )
    registry.route(PATH, answered)


async def link(request: Request, context: Context) -> Response:
    """Make the secret address of the calendar of a practitioner, in the place of the one before;
    with ``revoke`` true there is none any more.

    Raises ``forbidden`` for others than the practitioner and administrators, and for their apps
    that may not search appointments; ``not-found``.
    """
    rights, principal = context.rights, context.principal
    if rights is not None and ADMINISTRATOR not in rights.roles:
        if principal.fhir_user != f"Practitioner/{request.id}":
            raise forbidden("The address of a calendar is for the practitioner whose it is.")
        if not is_granted(principal, "Appointment", "s"):
            raise forbidden("The address opens all appointments; your scopes do not.")
    found = await context.store.read("Practitioner", request.id)
    if found is None or found.deleted:
        raise not_found("Practitioner", request.id)
    links = context.store.calendar_links
    if _revokes(request):
        was = await links.revoke(request.id)
        text = "The address leads nowhere any more." if was else "There was no address."
        said: list[dict[str, Any]] = [{"name": "message", "valueString": text}]
    else:
        secret = context.accounts.secret()
        await links.make(request.id, secret, principal.name, context.now())
        url = f"{_root(request, context)}{PATH}{secret}.ics"
        said = [{"name": "url", "valueUrl": url}]
    return Response(200, encode({"resourceType": "Parameters", "parameter": said}))


def _revokes(request: Request) -> bool:
    given = (request.body or {}).get("parameter", ())
    for one in given if isinstance(given, list) else ():
        if isinstance(one, dict) and one.get("name") == "revoke":
            if not isinstance(one.get("valueBoolean"), bool):
                raise FhirError(Issue("value", "revoke is a valueBoolean.", "Parameters.parameter"))
            return bool(one["valueBoolean"])
    return False


def _root(request: Request, context: Context) -> str:
    base = context.settings.base_url or request.base_url
    return base.rstrip("/").removesuffix("/fhir") if base else root_of(context.settings)


async def answered(scope: Any, receive: Any, send: Any) -> None:
    """Answer one HTTP request for a feed."""
    del receive
    context: Context = scope["fhir_server.context"]
    status, body, kind = 404, b"", "text/plain; charset=utf-8"
    try:
        if scope["method"] not in ("GET", "HEAD"):
            status = 405
        elif (made := await _calendar(scope["path"].removeprefix(PATH), context)) is not None:
            status, body, kind = 200, made, "text/calendar; charset=utf-8"
    except FhirError as error:
        status = error.status
    allow = [(b"allow", b"GET, HEAD")] if status == 405 else []
    await sent(scope, send, status, kind, body, *allow)


async def _calendar(name: str, context: Context) -> bytes | None:
    """Return the feed at this address; ``None`` where there is none."""
    found = _NAME.fullmatch(name)
    practitioner = await context.store.calendar_links.practitioner(found[1]) if found else ""
    context = context.under("calendar feed")
    person = await resource(f"Practitioner/{practitioner}", context) if practitioner else None
    if person is None or person.get("active") is False:
        return None
    settings, now = context.settings, context.now()
    named = settings.scheduling_calendar_names
    some = await entries(practitioner, now - _BEFORE, now + _AFTER, context, named=named)
    host = urlsplit(root_of(settings)).hostname or "fhir-server"
    return feed(display(person) or "Calendar", host, map(_titled, some), now)


def _titled(entry: Entry) -> Entry:
    return replace(entry, title=f"{entry.who}: {entry.title}") if entry.who else entry
