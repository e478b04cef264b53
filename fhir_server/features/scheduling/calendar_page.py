"""``/calendar/[practitioner]``: a day or a week of one practitioner, for staff, as a page.

Whoever is signed in sees what the roles open, with names where these may be read; in development
everybody does, as everywhere. The page has no script, and nothing inline.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import re2 as re

from fhir_server.asgi import CSS, HTML, query_of, sent
from fhir_server.context import Context
from fhir_server.features.scheduling.daybook import BLOCKED, Entry, entries
from fhir_server.features.scheduling.markup import page
from fhir_server.features.scheduling.surroundings import display
from fhir_server.features.scheduling.waitlist import resource
from fhir_server.features.scheduling.zones import zone_with
from fhir_server.interactions.people import people_of
from fhir_server.markup import Html, html, joined
from fhir_server.outcome import FhirError
from fhir_server.registry import Registry
from fhir_server.security.principal import Principal
from fhir_server.security.scopes import scopes_of

PATH = "/calendar/"
STYLE_PATH = "/calendar.css"
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_COOKIE_BYTES_MAX = 200
_READING = scopes_of("user/*.rs")
_DAYS = {"day": 1, "week": 7}
_FIRST, _LAST = date(1900, 1, 1), date(9000, 1, 1)
_WORDS = {"pending": "held", "noshow": "did not come", "checked-in": "checked in"}

STYLE = """main { max-width: none; }
body { max-width: 84rem; }
nav { display: flex; flex-wrap: wrap; gap: .4rem 1.2rem; margin: .6rem 0 1.2rem; }
.days { display: grid; gap: .8rem; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); }
.days section { border-top: .2rem solid #8886; min-width: 0; }
.days section.today { border-color: #1a6fc4; }
.days h2 { font-size: 1rem; margin: .4rem 0; }
.days ol { list-style: none; margin: 0; padding: 0; }
.days li { margin: 0 0 .5rem; padding: .35rem .6rem; border-left: .3rem solid #1a6fc4;
  border-radius: .2rem; background: #8881; overflow-wrap: anywhere; line-height: 1.35; }
.days li.pending { border-left-style: dashed; }
.days li.busy-unavailable { border-color: #888; background: #8883; }
.days li.noshow { opacity: .65; }
.days li.fulfilled { border-color: #26824a; }
.days li.twice { border-color: #b3261e; }
.days time { font-variant-numeric: tabular-nums; font-weight: 600; }
.days small { display: block; }
.none { opacity: .65; margin: .2rem 0; }
@media (max-width: 40rem) { .days { grid-template-columns: 1fr; } body { margin: 1rem auto; } }
"""


def register(registry: Registry) -> None:
    """Add the page and its style."""
    registry.route(PATH, answered)
    registry.route(STYLE_PATH, answered)


async def answered(scope: Any, receive: Any, send: Any) -> None:
    """Answer one HTTP request; whatever happens, there is an answer."""
    del receive
    if scope["path"] == STYLE_PATH:
        await sent(scope, send, 200, CSS, STYLE.encode(), (b"cache-control", b"no-cache"))
    elif scope["method"] not in ("GET", "HEAD"):
        await sent(scope, send, 405, HTML, b"", (b"allow", b"GET, HEAD"))
    else:
        await sent(scope, send, *await _page(scope))


async def _page(scope: Any) -> tuple[int, str, bytes]:
    status, body = await _shown(scope)
    return status, HTML, body


async def _shown(scope: Any) -> tuple[int, bytes]:
    context: Context = scope["fhir_server.context"]
    try:
        principal = await _who(scope, context)
        if principal is None:
            text = '<p><a href="/auth/console">Sign in</a>, and open this page again.</p>'
            return 401, page("Please sign in", html(text))
        id, asked = scope["path"].removeprefix(PATH), context.asked_by(principal)
        person = await resource(f"Practitioner/{id}", asked) if _ID.fullmatch(id) else None
        if person is None:
            return 404, page("Nobody", html("<p>There is no such practitioner.</p>"))
        zone = await zone_with((f"Practitioner/{id}",), asked)
        today = context.now().astimezone(zone).date()
        query = query_of(scope)
        view = query.get("view", "week")
        first = _first(query.get("date", "") or today.isoformat(), view)
        if first is None:
            return 400, page("No such day", html("<p>A date is such as 2026-12-01.</p>"))
        days = [first + timedelta(days=n) for n in range(_DAYS[view])]
        low = datetime.combine(first, time(), zone).astimezone(UTC)
        high = datetime.combine(days[-1] + timedelta(days=1), time(), zone).astimezone(UTC)
        some = await entries(id, low, high, asked, named=True)
    except FhirError as error:
        if error.status in (401, 403):
            text = "<p>What you were granted does not open this calendar.</p>"
            return 403, page("Not for you", html(text))
        return error.status, page("Please try again", html("<p>This did not work just now.</p>"))
    main = joined([_links(first, view, today), _days(days, some, zone, today)])
    return 200, page(display(person) or "Calendar", main, STYLE_PATH)


def _first(said: str, view: str) -> date | None:
    """Return the first day of the ``view`` with the day ``said``; ``None`` for no such thing."""
    try:
        day = min(max(date.fromisoformat(said), _FIRST), _LAST)
    except ValueError:
        return None
    if view not in _DAYS:
        return None
    return day - timedelta(days=day.weekday()) if view == "week" else day


async def _who(scope: Any, context: Context) -> Principal | None:
    """Return who asks: by token, by the session of the browser, or whoever in development."""
    headers = dict(scope["headers"])
    address = (scope.get("client") or ("",))[0]
    principal: Principal = await scope["fhir_server.identify"](headers)
    if principal.kind != "nobody":
        return principal.at(address, "")
    name = "__Host-fhir-session" if scope.get("scheme") == "https" else "fhir-session"
    if (context.settings.base_url or "").startswith("https://"):
        name = "__Host-fhir-session"  # behind a proxy that speaks TLS
    cookie = _cookie(headers.get(b"cookie", b"").decode("latin-1"), name)
    found = await people_of(context).current(cookie) if cookie else None
    if found is None or not found[0].is_whole or not found[1].is_staff:
        return None
    user = found[1]
    made = Principal(*("user", user.name, "", _READING, user.roles), fhir_user=user.fhir_user)
    return made.at(address, "")


def _cookie(sent: str, wanted: str) -> str:
    for part in sent.split(";"):
        name, _, value = part.strip().partition("=")
        if name == wanted and len(value) <= _COOKIE_BYTES_MAX:
            return value
    return ""


def _links(first: date, view: str, today: date) -> Html:
    step = timedelta(days=_DAYS[view])
    link = '<a href="?date={day}&amp;view={view}">{text}</a>'
    other = "day" if view == "week" else "week"
    links = (
        html(link, day=first - step, view=view, text=f"Previous {view}"),
        html(link, day=today, view=view, text="Today"),
        html(link, day=first + step, view=view, text=f"Next {view}"),
        html(link, day=first, view=other, text=f"By {other}"),
    )
    return html("<nav>{links}</nav>", links=joined(links))


def _days(days: Sequence[date], some: Sequence[Entry], zone: ZoneInfo, today: date) -> Html:
    sections = []
    for day in days:
        low = datetime.combine(day, time(), zone).astimezone(UTC)
        high = datetime.combine(day + timedelta(days=1), time(), zone).astimezone(UTC)
        inside = [one for one in some if one.start < high and low < one.end]
        rows = joined(_row(one, inside, zone, day) for one in inside)
        content = html("<ol>{rows}</ol>", rows=rows) if inside else html('<p class="none">–</p>')
        sections.append(
            html(
                '<section class="{now}"><h2>{day}</h2>{content}</section>',
                now="today" if day == today else "",
                day=f"{day:%a %d %b %Y}",
                content=content,
            )
        )
    return html('<div class="days">{sections}</div>', sections=joined(sections))


def _row(entry: Entry, others: Iterable[Entry], zone: ZoneInfo, day: date) -> Html:
    start, end = entry.start.astimezone(zone), entry.end.astimezone(zone)
    from_, until = (
        f"{one:%H:%M}" if one.date() == day else f"{one:%d %b %H:%M}" for one in (start, end)
    )
    over = entry.status != BLOCKED and any(
        one is not entry and one.start < entry.end and entry.start < one.end for one in others
    )
    what = (
        entry.title
        if entry.status in (BLOCKED, "booked")
        else (f"{entry.title} ({_WORDS.get(entry.status, entry.status)})")
    )
    return html(
        '<li class="{status}{twice}"><time>{start}–{end}</time> {who}<small>{what}{over}</small>'
        "</li>",
        status=entry.status,
        twice=" twice" if over or entry.has_conflict else "",
        start=from_,
        end=until,
        who=entry.who,
        what=what,
        over=", to be moved" if entry.has_conflict else ", beside another" if over else "",
    )
