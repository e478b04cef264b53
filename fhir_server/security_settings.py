"""The settings of who may do what, and of what is kept of it; a part of ``Settings``.

design/security.md. Read as ``fhir_server/settings.py`` says.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, NoDecode


def listed(value: Any) -> Any:
    """Return the names of ``Patient,Encounter``, of ``*`` and of a JSON list."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return tuple(name.strip() for name in value.split(",") if name.strip())


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(listed)]
"""Names with commas between, or a JSON list."""

StaffRoles = Annotated[
    tuple[
        Literal["physician", "nurse", "front-desk", "front-desk-lead", "billing", "lab", "analyst"],
        ...,
    ],
    NoDecode,
    BeforeValidator(listed),
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
    master_key: SecretStr = Field(
        default=SecretStr(""),
        description="The key over all secrets in the database, 256 bits as hexadecimal digits or "
        "Base64; better in a file. In development there is one in the database itself.",
    )
    master_key_file: Path | None = Field(
        default=None,
        description="File with that key, readable for the server alone. It goes before "
        "`FHIR_MASTER_KEY`.",
    )

    tls_cert: Path | None = Field(
        default=None,
        description="Certificate chain, PEM, where this server speaks TLS (1.2 or newer) itself.",
    )
    tls_key: Path | None = Field(default=None, description="Its private key, PEM.")
    trusted_proxies: Names = Field(
        default=(),
        description="Addresses or networks of the proxies in front, as `10.2.0.0/16`: whose "
        "`X-Forwarded-For` and `X-Forwarded-Proto` are believed. In development others are "
        "refused.",
    )
    rate_per_s: float = Field(
        default=200.0,
        gt=0,
        description="Requests a second of one user through one app; more: 429. The demo user of "
        "development is not held to it.",
    )
    rate_burst: int = Field(
        default=400, ge=1, description="Requests that may come at once before that counts."
    )
    bodies_bytes_max: int = Field(
        default=134_217_728,
        ge=1_048_576,
        description="Bytes of all request bodies that one process holds at a time; more: 503.",
    )
    headers_max: int = Field(
        default=100, ge=16, le=1000, description="Headers of one request; more: 431."
    )

    client_registration: bool = Field(
        default=False,
        description="Whether apps may register themselves (RFC 7591, `/auth/register`); else the "
        "operator does, by `fhir-server client add`.",
    )
    auth_issuer: str = Field(
        default="",
        description="Another issuer of tokens (`https://login.clinic.example`) in place of the "
        "built-in authorization server.",
    )
    auth_audience: str = Field(
        default="", description="What its tokens have as `aud`; empty: the FHIR base."
    )
    auth_algorithm: Literal["RS256", "RS384", "PS256", "ES256", "ES384"] = Field(
        default="RS256", description="What its tokens are signed by; no other is taken."
    )
    auth_jwks_url: str = Field(
        default="", description="Where its keys are; empty: as its discovery document says."
    )
    auth_introspection_url: str = Field(
        default="", description="Where it is asked about tokens (RFC 7662), in place of its keys."
    )
    auth_introspection_client: str = Field(
        default="", description="The id by which this server asks there."
    )
    auth_introspection_secret: SecretStr = Field(
        default=SecretStr(""), description="The secret by which it does."
    )
    auth_claims: dict[str, str] = Field(
        default={},
        description='Claims other than the usual, as JSON: `{"roles": '
        '"realm_access.roles"}`. Known are `name`, `client`, `scopes`, `fhir_user`, `patient`, '
        "`encounter`, `roles`.",
    )

    @model_validator(mode="after")
    def _has_both_halves(self) -> "SecuritySettings":
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("FHIR_TLS_CERT and FHIR_TLS_KEY go together.")
        return self

    def master_key_text(self) -> str:
        """Return the master key as it is written, ``""`` for none. Raises ``OSError``."""
        if self.master_key_file is not None:
            return self.master_key_file.read_text(encoding="ascii", errors="replace").strip()
        return self.master_key.get_secret_value()

    @model_validator(mode="after")
    def _has_an_issuer(self) -> "SecuritySettings":
        for name in ("auth_issuer", "auth_jwks_url", "auth_introspection_url"):
            url = getattr(self, name)
            here = ("http://127.0.0.1", "http://localhost", "http://[::1]")
            if url and not url.startswith(("https://", *here)):
                raise ValueError(f"FHIR_{name.upper()} is no https URL.")
        return self
