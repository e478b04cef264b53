"""The settings of who may do what, and of what is kept of it; a part of ``Settings``.

design/security.md. Read as ``fhir_server/settings.py`` says.
"""

from pathlib import Path

from pydantic import Field, SecretStr
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

    def master_key_text(self) -> str:
        """Return the master key as it is written, ``""`` for none. Raises ``OSError``."""
        if self.master_key_file is not None:
            return self.master_key_file.read_text(encoding="ascii", errors="replace").strip()
        return self.master_key.get_secret_value()
