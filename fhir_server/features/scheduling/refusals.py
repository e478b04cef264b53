"""The refusals of bookings. Pure. The error table of section 5 of design/scheduling.md.

https://profiles.ihe.net/ITI/Scheduling/ITI-116.html; a failure is a plain OperationOutcome.
"""

from fhir_server.outcome import FhirError, Issue


def gone(text: str) -> FhirError:
    """Return the refusal (409) of a time that somebody else has: a conflict, and the ``not-found``
    by which IHE clients know it."""
    return FhirError(
        Issue("conflict", text),
        Issue("not-found", "The proposed time is gone.", severity="fatal"),
        status=409,
    )


def against_rules(text: str) -> FhirError:
    """Return the refusal (409) of what a state, a notice, a horizon or a cutoff forbids."""
    return FhirError(Issue("business-rule", text), status=409)
