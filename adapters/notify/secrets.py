"""Secrets of gateways, from a file or a setting."""

from pathlib import Path

from pydantic import SecretStr


def secret(value: SecretStr, path: Path | None) -> str:
    """Return the secret: that of the file where there is one. Raises ``OSError``."""
    if path is not None:
        return path.read_text(encoding="utf-8").strip()
    return value.get_secret_value()
