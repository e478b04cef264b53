"""The settings of who may do what, and of what is kept of it; a part of ``Settings``.

design/security.md. Read as ``fhir_server/settings.py`` says.
"""

from pathlib import Path
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
    audit: bool = Field(
        default=True,
        description="Whether each request is recorded, with a hash chain over the records.",
    )
    audit_reads: Literal["buffered", "strict"] = Field(
        default="buffered",
        description="`buffered`: the record of a read is written within 50 ms; `strict`: before "
        "it is answered. That of a change is always part of the change.",
    )
    audit_rows_waiting_max: int = Field(
        default=10_000,
        ge=1,
        description="Records that wait to be written; when there are as many, nothing is answered.",
    )
    audit_days: int = Field(
        default=0,
        ge=0,
        description="Days for which audit records are kept; 0 is for ever.",
    )
    audit_heads: Path | None = Field(
        default=None,
        description="File, best on another machine, to which the signed heads of the audit chains "
        "are appended every hour. They are in the log as well.",
    )
    privacy_officer: str = Field(
        default="",
        description="Who is told when the glass is broken: an address, as the outbox sends to it.",
    )
