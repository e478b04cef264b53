"""The settings of who may do what, and of what is kept of it; a part of ``Settings``.

design/security.md. Read as ``fhir_server/settings.py`` says.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings


class SecuritySettings(BaseSettings):
    """Sign-in, tokens, access, audit, rates."""

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
    def _has_an_issuer(self) -> "SecuritySettings":
        for name in ("auth_issuer", "auth_jwks_url", "auth_introspection_url"):
            url = getattr(self, name)
            here = ("http://127.0.0.1", "http://localhost", "http://[::1]")
            if url and not url.startswith(("https://", *here)):
                raise ValueError(f"FHIR_{name.upper()} is no https URL.")
        return self

    def master_key_text(self) -> str:
        """Return the master key as it is written, ``""`` for none. Raises ``OSError``."""
        if self.master_key_file is not None:
            return self.master_key_file.read_text(encoding="ascii", errors="replace").strip()
        return self.master_key.get_secret_value()
