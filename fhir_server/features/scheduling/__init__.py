"""Appointments without double bookings, the queue of a clinic, reminders. design/scheduling.md.

Each part adds its own operations, rules and tasks by a function ``register``.
"""

from collections.abc import Callable

from fhir_server.features.scheduling import (
    absences,
    allocating,
    booking,
    calendar_feed,
    calendar_page,
    changing,
    events,
    finding,
    holding,
    offer_page,
    publishing,
    queueing,
    reminding,
)
from fhir_server.registry import Registry

PARTS: tuple[Callable[[Registry], None], ...] = (
    holding.register,
    events.register,
    absences.register,
    offer_page.register,
    publishing.register,
    calendar_feed.register,
    calendar_page.register,
    finding.register,
    booking.register,
    changing.register,
    allocating.register,
    queueing.register,
    reminding.register,
)


def register(registry: Registry) -> None:
    """Add all parts."""
    for part in PARTS:
        part(registry)
