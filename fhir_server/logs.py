"""Where the log goes: standard error, one line of JSON an event."""

import logging
import sys


def configure_logging(level: str) -> None:
    """Send our log to standard error, one line an event; the driver's own is kept to warnings."""
    logging.basicConfig(
        level=logging.WARNING,
        format='{"time":"%(asctime)s","level":"%(levelname)s","log":"%(name)s","event":%(message)s}',
        stream=sys.stderr,
    )
    logging.getLogger("fhir_server").setLevel(level.upper())
