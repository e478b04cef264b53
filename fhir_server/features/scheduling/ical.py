"""A calendar as text/calendar: the one place that knows the library. Pure. RFC 5545, RFC 7986."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from icalendar import Calendar, Event, vDuration, vText

from fhir_server.features.scheduling.daybook import Entry

_PRODUCT = "-//FHIR Server//Scheduling//EN"
_STATUS = {"pending": "TENTATIVE"}
_REFRESHED = timedelta(minutes=15)
_CONTROLS = dict.fromkeys((*range(32), *range(127, 160)), " ")


def _line(text: str) -> str:
    """Return ``text`` on one line, without control characters: RFC 5545 has none in a text."""
    return " ".join(text.translate(_CONTROLS).split())


def feed(name: str, host: str, entries: Iterable[Entry], now: datetime) -> bytes:
    """Return the calendar called ``name`` with ``entries``; ``host`` makes their names unique."""
    calendar = Calendar()
    calendar.add("prodid", _PRODUCT)
    calendar.add("version", "2.0")
    calendar.add("method", "PUBLISH")
    calendar.add("x-wr-calname", vText(_line(name)))
    calendar.add("refresh-interval", vDuration(_REFRESHED), parameters={"VALUE": "DURATION"})
    for one in entries:
        event = Event()
        event.add("uid", f"{one.key.replace('/', '-')}@{host}")
        event.add("dtstamp", now)
        event.add("dtstart", one.start)
        event.add("dtend", one.end)
        event.add("summary", _line(one.title))
        event.add("sequence", one.version)
        event.add("status", _STATUS.get(one.status, "CONFIRMED"))
        event.add("class", "PRIVATE")
        if one.place:
            event.add("location", _line(one.place))
        calendar.add_component(event)
    return bytes(calendar.to_ical())
