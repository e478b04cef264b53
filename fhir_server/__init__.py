"""A FHIR R4 server on MongoDB; ``__version__`` is the one place that states its version."""

__version__ = "0.1.0"
