"""The settings of who may do what, and of what is kept of it; a part of ``Settings``.

design/security.md. Read as ``fhir_server/settings.py`` says.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode


def _names(value: Any) -> Any:
    return [one.strip() for one in value.split(",") if one.strip()] if type(value) is str else value


StaffRoles = Annotated[
    tuple[Literal["physician", "nurse", "front-desk", "billing", "lab", "analyst"], ...],
    NoDecode,
    BeforeValidator(_names),
]
"""Roles that need no relationship with a patient unless this says so."""


class SecuritySettings(BaseSettings):
    """Sign-in, tokens, access, audit, rates."""

    care_relationship: StaffRoles = Field(
        default=(),
        description="Roles that see only patients they care for (an active CareTeam, an open "
        "Encounter or Appointment), as `physician,nurse`; empty: all patients.",
    )
