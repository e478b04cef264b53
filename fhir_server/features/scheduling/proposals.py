"""Proposals of ``$find``: what can be booked by naming it. Section 3 of design/scheduling.md."""

from fhir_server.context import Context
from fhir_server.messages import Resource


async def proposal_of(reference: str, context: Context) -> tuple[Resource, int] | None:
    """Return the Appointment that ``reference`` (``Appointment/Vb3kQ0-7``) proposes to who asks,
    and for how many weeks in a row; ``None`` where there is none, or none any more."""
    return None
