"""What goes wrong without being anybody's fault but ours: a line in the log, no patient in it."""

import logging

from fhir_server.outcome import FhirError

_failures = logging.getLogger("fhir_server.failures")


def log_failure(error: BaseException) -> None:
    """Write where ``error`` was raised, and nothing that it says: that may be of a patient."""
    trace, places = error.__traceback__, []
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    _failures.error('"hl7v2: %s at %s"', type(error).__name__, " < ".join(places[-4:]))


def places(error: FhirError) -> str:
    """Return what ``error`` is about, as codes and places: nothing that a resource says."""
    return ", ".join(f"{one.code} {one.expression}" for one in error.issues[:5])


def log_refusal(error: FhirError) -> None:
    """Note that what our mapping made was refused: the codes and the elements, not the data."""
    _failures.error('"hl7v2: our mapping made what is refused: %s"', places(error))
