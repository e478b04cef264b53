"""Appointments without double bookings, the queue of a clinic, reminders. design/scheduling.md.

Each part adds its own operations, rules and tasks by a function ``register``.
"""

from collections.abc import Callable

from fhir_server.features.scheduling import finding, holding, reminding
from fhir_server.registry import Registry

PARTS: tuple[Callable[[Registry], None], ...] = (
    holding.register,
    finding.register,
    reminding.register,
)


def register(registry: Registry) -> None:
    """Add all parts."""
    for part in PARTS:
        part(registry)
