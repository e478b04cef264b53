"""Why a server may not run in production: every reason at once, each with its remedy.

design/security.md, section 1. What is asked of the world outside, such as the database, is in
:class:`Found`; what could not be found out counts as unsafe.
"""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fhir_server.security.sealing import KEY_BYTES, key_of
from fhir_server.settings import LOOPBACK, Settings

SECRET_FILES = ("master_key_file", "tls_key", "mllp_tls_key")
"""The settings that name a file with a secret in it."""

_OTHERS = 0o007
_UNCHECKED_TLS = ("tlsInsecure", "tlsAllowInvalidCertificates", "tlsAllowInvalidHostnames")


@dataclass(frozen=True, slots=True)
class Database:
    """What a database says of itself, and its URI of how it is reached.

    ``hosts`` are the names of its members, ``smallest_set`` the members of its smallest replica
    set. ``takes_strangers`` says that it lists its databases to who has not signed in.
    """

    hosts: tuple[str, ...] = ()
    smallest_set: int = 0
    has_credentials: bool = False
    takes_strangers: bool = True
    has_tls: bool = False
    tls_unchecked: tuple[str, ...] = ()
    has_test_commands: bool = True
    write_concern: str = "majority"
    has_journal: bool = True


@dataclass(frozen=True, slots=True)
class Found:
    """What was found outside of the settings. ``readable`` are secret files that others read."""

    master_key: str = ""
    readable: tuple[Path, ...] = ()
    database: Database | None = None
    administrators: int = 0
    demo_users: int = 0


def reasons(settings: Settings, found: Found) -> tuple[str, ...]:
    """Return why this may not run in production, one sentence each; none where it may."""
    return (
        *_of_addresses(settings),
        *_of_secrets(found),
        *_of_accounts(settings, found),
        *_of_database(settings, found.database),
    )


def mode_is_open(mode: int) -> bool:
    """Whether a file of this ``mode`` is open to those who are neither its owner nor its group."""
    return bool(mode & _OTHERS)


def _of_addresses(settings: Settings) -> list[str]:
    found = []
    base = urlsplit(settings.base_url)
    if base.scheme != "https" or not base.hostname:
        found.append("FHIR_BASE_URL is no https URL: tokens and patient data would go out plain.")
    if "*" in settings.cors_origins:
        found.append("FHIR_CORS_ORIGINS has *: list the origins of the apps.")
    if any(_is_everybody(one) for one in settings.trusted_proxies):
        found.append(
            "FHIR_TRUSTED_PROXIES has *: anybody could say to be anywhere. Name the proxies."
        )
    if settings.tls_cert is None and not settings.trusted_proxies:
        found.append(
            "There is no TLS: set FHIR_TLS_CERT and FHIR_TLS_KEY, or FHIR_TRUSTED_PROXIES to the "
            "proxy that has it."
        )
    return found


def _is_everybody(proxy: str) -> bool:
    return proxy == "*" or proxy.endswith("/0")


def _of_secrets(found: Found) -> list[str]:
    said = []
    if len(key_of(found.master_key)) < KEY_BYTES:
        said.append(
            "FHIR_MASTER_KEY_FILE is missing or holds less than 256 bits, as 64 hexadecimal "
            "digits or Base64: openssl rand -hex 32 makes one."
        )
    said += [
        f"{path} holds a secret, and others may read or change it: chmod o= {path}"
        for path in found.readable
    ]
    return said


def _of_accounts(settings: Settings, found: Found) -> list[str]:
    said = []
    if not getattr(settings, "auth_issuer", "") and not found.administrators:
        said.append(
            "There is neither FHIR_AUTH_ISSUER nor an administrator: fhir-server user add makes "
            "the first."
        )
    if found.demo_users:
        said.append(
            f"There are {found.demo_users} demo users: they are for trying out. Use a database of "
            "its own for production."
        )
    if str(getattr(settings, "audit", "on")).lower() in ("off", "false"):
        said.append("FHIR_AUDIT is off: nobody would know who has seen what.")
    return said


def _of_database(settings: Settings, database: Database | None) -> list[str]:
    if not settings.mongodb_uri:
        return ["FHIR_MONGODB_URI is not set: the embedded MongoDB is for trying out."]
    if database is None:
        return ["MongoDB at FHIR_MONGODB_URI could not be asked; see the message before this."]
    said = []
    if database.smallest_set < 2:
        said.append("MongoDB is a single node: its loss is the loss of all data. Run three.")
    if not database.has_credentials or database.takes_strangers:
        said.append(
            "MongoDB is used without authentication: start it with --auth and a key file, and name "
            "a user in FHIR_MONGODB_URI."
        )
    if not database.has_tls and any(map(_is_remote, database.hosts or ("",))):
        said.append("MongoDB is on another machine and reached without TLS: add tls=true.")
    said += [f"FHIR_MONGODB_URI has {one}: leave it out." for one in database.tls_unchecked]
    if database.has_test_commands:
        said.append("mongod runs with enableTestCommands: start it without.")
    if database.write_concern != "majority" or not database.has_journal:
        said.append(
            "FHIR_MONGODB_URI has a write concern below majority and journal: leave w and journal "
            "out of it."
        )
    return said


def _is_remote(host: str) -> bool:
    """Whether ``name:port`` is another machine."""
    return host.rpartition(":")[0].strip("[]") not in LOOPBACK


def tls_unchecked(options: dict[str, object]) -> tuple[str, ...]:
    """Return the ``options`` of a URI by which TLS would not say who answers."""
    known = {name.lower(): name for name in _UNCHECKED_TLS}
    return tuple(known[name.lower()] for name in options if name.lower() in known and options[name])
