"""The settings of who may do what, and of what is kept of it; a part of ``Settings``.

design/security.md. Read as ``fhir_server/settings.py`` says.
"""

from pydantic import Field
from pydantic_settings import BaseSettings


class SecuritySettings(BaseSettings):
    """Sign-in, tokens, access, audit, rates."""

    privacy_officer: str = Field(
        default="",
        description="Who is told when the glass is broken: an address, as the outbox sends to it.",
    )
