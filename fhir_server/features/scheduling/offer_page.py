"""``/offer/[token]``: the page by which somebody of the waiting list takes a time, or does not.

Section 6 of design/scheduling.md. The link is signed and good for one offer, once; whoever has it
need not sign in. Opening it changes nothing, as programs that look at messages open links; a button
does. It shows the time, and of nobody a name.
"""

import json
import logging
from typing import Any

from fhir_server.asgi import CSS, HTML, sent
from fhir_server.context import Context
from fhir_server.features.scheduling.extensions import hold_expires, moment
from fhir_server.features.scheduling.markup import page
from fhir_server.features.scheduling.waiting import accepted, entry_version, is_open, read_token
from fhir_server.features.scheduling.waitlist import PATH, give_back, put, resource
from fhir_server.features.scheduling.zones import zone_at
from fhir_server.markup import Html, html
from fhir_server.messages import Resource
from fhir_server.outcome import FhirError
from fhir_server.registry import Registry

_LOG = logging.getLogger("fhir_server.waitlist")
_DECLINE = "/decline"
STYLE_PATH = "/offer.css"
STYLE = """button { font: inherit; min-height: 3rem; min-width: 14rem; padding: .5rem 1rem;
  border: 1px solid #8885; border-radius: .45rem; background: #8881; color: inherit;
  cursor: pointer; }
button.first { background: #1a5fa8; border-color: #1a5fa8; color: #fff; font-weight: 600; }
button:focus-visible { outline: 3px solid #1a5fa8; outline-offset: 2px; }
"""
_METHODS = ("GET", "HEAD", "POST")
_OVERTAKEN = (404, 409, 410, 412)

_ASK = """<p>A time is free for you: <strong>{start}</strong>. It is kept for you until {until}.</p>
<form method="post" action="{link}"><p><button class="first">Take this time</button></p></form>
<form method="post" action="{link}{decline}"><p><button>No, I go on
waiting</button></p></form>"""


def register(registry: Registry) -> None:
    """Add the page."""
    registry.route(PATH, answered)
    registry.route(STYLE_PATH, styled)


async def styled(scope: Any, receive: Any, send: Any) -> None:
    """Answer one HTTP request for the style of the page."""
    del receive
    await sent(scope, send, 200, CSS, STYLE.encode())


async def answered(scope: Any, receive: Any, send: Any) -> None:
    """Answer one HTTP request; whatever happens, there is an answer."""
    del receive  # which button it was stands in the path
    context: Context = scope["fhir_server.context"]
    try:
        status, title, main = await _answer(scope["method"], scope["path"], context)
    except FhirError as error:
        if error.status < 500:
            _LOG.warning("%s", json.dumps(f"an offer was not answered: {error.status}"))
        status, title = 503, "Please try again"
        main = Html("<p>This did not work just now. Try again in a minute.</p>")
    allow = [(b"allow", ", ".join(_METHODS).encode())] if status == 405 else []
    await sent(scope, send, status, HTML, page(title, main, STYLE_PATH), *allow)


async def _answer(method: str, path: str, context: Context) -> tuple[int, str, Html]:
    """Return status, title and content of the page."""
    if method not in _METHODS:
        return 405, "Not so", html("<p>This page is opened, or its button is pressed.</p>")
    context = context.under("waitlist")
    said = path.removeprefix(PATH)
    token = said.removesuffix(_DECLINE)
    found = read_token(context.page_key, token)
    if found is None:
        return 404, "No such link", html("<p>This link is not complete. Copy all of it.</p>")
    offer = await resource(f"Appointment/{found[0]}", context)
    if offer is None or entry_version(offer) != found[1] or not is_open(offer, context.now()):
        return _over(offer)
    if method != "POST":
        return 200, "A free time", await _asked(offer, token, context)
    try:
        if said != token:
            await give_back(offer, context)
            text = "<p>Somebody else is asked. You keep your place.</p>"
            return 200, "You go on waiting", html(text)
        await put(accepted(offer), context)
    except FhirError as error:
        if error.status not in _OVERTAKEN:
            raise
        return _over(await resource(f"Appointment/{found[0]}", context))
    text = "<p>You have an appointment on {start}.</p>"
    return 200, "The time is yours", html(text, start=await _start(offer, context))


def _over(appointment: Resource | None) -> tuple[int, str, Html]:
    if appointment is not None and appointment.get("status") == "booked":
        return 200, "You have an appointment", html("<p>This link was used already.</p>")
    text = "<p>The time was given to somebody else, or you did not answer in time.</p>"
    if appointment is not None and appointment.get("status") == "waitlist":
        text += "<p>You are still on the waiting list.</p>"
    return 410, "This offer is over", html(text)


async def _asked(offer: Resource, token: str, context: Context) -> Html:
    until = hold_expires(offer)
    zone = await zone_at(offer, context)
    return html(
        _ASK,
        start=await _start(offer, context),
        until=f"{until.astimezone(zone):%H:%M on %d %B %Y}" if until is not None else "then",
        link=PATH + token,
        decline=_DECLINE,
    )


async def _start(offer: Resource, context: Context) -> str:
    start = moment(offer.get("start"))
    zone = await zone_at(offer, context)
    return f"{start.astimezone(zone):%A, %d %B %Y, %H:%M}" if start is not None else ""
