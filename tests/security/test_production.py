"""A14; design/security.md, section 1: what keeps a server from production, each by itself."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fhir_server.security.production import Database, Found, reasons
from fhir_server.settings import Settings
from fhir_server.store.fitness import reasons_against
from tests.faults.serving import command
from tests.store.mongods import bare_mongod

SAFE: dict[str, Any] = {
    "mode": "production",
    "base_url": "https://fhir.clinic.example/fhir",
    "mongodb_uri": "mongodb://u:p@a,b,c/?replicaSet=rs0&tls=true",
    "trusted_proxies": "10.0.0.1",
}
DATABASE = Database(
    hosts=("a:27017", "b:27017", "c:27017"),
    smallest_set=3,
    has_credentials=True,
    takes_strangers=False,
    has_tls=True,
    has_test_commands=False,
)
FOUND = Found(master_key="0f" * 32, database=DATABASE, administrators=1)

# What is unsafe -> settings, what was found, what the sentence names.
SETTINGS: dict[str, tuple[dict[str, Any], str]] = {
    "no base URL": ({"base_url": ""}, "FHIR_BASE_URL"),
    "a plain base URL": ({"base_url": "http://fhir.clinic.example/fhir"}, "FHIR_BASE_URL"),
    "pages of every origin": ({"cors_origins": "*"}, "FHIR_CORS_ORIGINS"),
    "every proxy": ({"trusted_proxies": "*"}, "FHIR_TRUSTED_PROXIES"),
    "every proxy, as a network": ({"trusted_proxies": "0.0.0.0/0"}, "FHIR_TRUSTED_PROXIES"),
    "neither TLS nor a proxy": ({"trusted_proxies": ""}, "FHIR_TLS_CERT"),
    "the embedded database": ({"mongodb_uri": ""}, "FHIR_MONGODB_URI"),
}
needs_audit = pytest.mark.skipif("audit" not in Settings.model_fields, reason="no audit yet")
needs_issuer = pytest.mark.skipif(
    "auth_issuer" not in Settings.model_fields, reason="no other issuer yet"
)
OUTSIDE: dict[str, tuple[dict[str, Any], str]] = {
    "no master key": ({"master_key": ""}, "FHIR_MASTER_KEY_FILE"),
    "a master key of 248 bits": ({"master_key": "0f" * 31}, "FHIR_MASTER_KEY_FILE"),
    "a pass phrase": ({"master_key": "correct horse battery staple " * 3}, "256 bits"),
    "a secret file that others read": ({"readable": (Path("/run/key"),)}, "chmod o= /run/key"),
    "nobody who administers": ({"administrators": 0}, "user add"),
    "demo users": ({"demo_users": 2}, "2 demo users"),
    "a database that is not there": ({"database": None}, "FHIR_MONGODB_URI"),
}
INSIDE: dict[str, tuple[dict[str, Any], str]] = {
    "a single node": ({"smallest_set": 1}, "single node"),
    "no credentials": ({"has_credentials": False}, "without authentication"),
    "a database open to strangers": ({"takes_strangers": True}, "without authentication"),
    "no TLS off loopback": ({"has_tls": False}, "without TLS"),
    "one member off loopback": ({"has_tls": False, "hosts": ("::1:1", "b:1")}, "without TLS"),
    "certificates unchecked": (
        {"tls_unchecked": ("tlsAllowInvalidCertificates",)},
        "tlsAllowInvalidCertificates",
    ),
    "test commands": ({"has_test_commands": True}, "enableTestCommands"),
    "a write concern of one": ({"write_concern": "1"}, "write concern"),
    "no journal": ({"has_journal": False}, "write concern"),
}


def test_what_is_safe_may_run() -> None:
    """Nothing is said against it; a database on this machine needs no TLS."""
    settings = Settings.model_validate(SAFE)
    here = replace(DATABASE, has_tls=False, hosts=("127.0.0.1:1", "localhost:2", "[::1]:3"))

    assert reasons(settings, FOUND) == ()
    assert reasons(settings, replace(FOUND, database=here)) == ()


@pytest.mark.parametrize(("changed", "word"), SETTINGS.values(), ids=SETTINGS)
def test_each_unsafe_setting_is_refused_and_named(changed: dict[str, Any], word: str) -> None:
    """Alone, with one sentence."""
    [said] = reasons(Settings.model_validate(SAFE | changed), FOUND)
    assert word in said


@pytest.mark.parametrize(("changed", "word"), OUTSIDE.values(), ids=OUTSIDE)
def test_each_unsafe_thing_outside_is_refused_and_named(changed: Any, word: str) -> None:
    """Keys, accounts, files."""
    [said] = reasons(Settings.model_validate(SAFE), replace(FOUND, **changed))
    assert word in said


@pytest.mark.parametrize(("changed", "word"), INSIDE.values(), ids=INSIDE)
def test_each_unsafe_database_is_refused_and_named(changed: Any, word: str) -> None:
    """What a database says of itself."""
    found = replace(FOUND, database=replace(DATABASE, **changed))
    [said] = reasons(Settings.model_validate(SAFE), found)
    assert word in said


@needs_audit
def test_without_audit_it_is_refused() -> None:
    """Nobody would know who has seen what."""
    [said] = reasons(Settings.model_validate(SAFE | {"audit": False}), FOUND)
    assert "FHIR_AUDIT" in said


@needs_issuer
def test_another_issuer_has_the_administrators() -> None:
    """Where somebody else signs people in, none is needed here."""
    settings = Settings.model_validate(SAFE | {"auth_issuer": "https://id.example"})
    assert reasons(settings, replace(FOUND, administrators=0)) == ()


def test_what_was_not_found_out_is_unsafe() -> None:
    """Nothing known is every reason at once."""
    said = reasons(Settings.model_validate(SAFE), Found(database=Database()))
    assert len(said) >= 6


async def test_a_real_database_says_what_it_is(mongodb_uri: str, tmp_path: Path) -> None:
    """The embedded mongod: one node, no authentication; every reason is there at once."""
    key = tmp_path / "key"
    key.write_text("0f" * 32)
    key.chmod(0o644)
    settings = Settings.model_validate(
        SAFE | {"mongodb_uri": mongodb_uri, "master_key_file": key, "mongodb_database": "nobodys"}
    )

    said = "\n".join(await reasons_against(settings))

    for words in ("single node", "without authentication", "user add", f"chmod o= {key}"):
        assert words in said
    for words in ("256 bits", "without TLS", "write concern", "enableTestCommands"):
        assert words not in said

    key.chmod(0o400)
    again = "\n".join(await reasons_against(settings))
    assert "chmod" not in again
    weak = mongodb_uri + ("&" if "?" in mongodb_uri else "/?") + "w=1&journal=false"
    settings = settings.model_copy(update={"mongodb_uri": weak})
    assert "write concern" in "\n".join(await reasons_against(settings))


async def test_test_commands_are_seen(tmp_path: Path) -> None:
    """A mongod that was started with them."""
    with bare_mongod(tmp_path / "db", "--setParameter", "enableTestCommands=1") as uri:
        settings = Settings.model_validate(SAFE | {"mongodb_uri": uri})
        assert "enableTestCommands" in "\n".join(await reasons_against(settings))


def test_serve_and_check_say_the_same(tmp_path: Path) -> None:
    """``fhir-server serve`` ends with the list that ``check --production`` prints."""
    serving = command("serve", folder=tmp_path, mode="production")
    checking = command("check", "--production", folder=tmp_path, mode="production")

    assert (serving.returncode, checking.returncode) == (2, 1)
    assert serving.stderr == checking.stderr
    for name in ("FHIR_BASE_URL", "FHIR_MASTER_KEY_FILE", "FHIR_MONGODB_URI", "user add"):
        assert name in serving.stderr
    assert list(tmp_path.iterdir()) == []


def test_development_is_for_this_machine(tmp_path: Path) -> None:
    """Another address than loopback is refused."""
    done = command("serve", "--host", "0.0.0.0", folder=tmp_path)

    assert done.returncode == 2
    assert "FHIR_HOST=0.0.0.0" in done.stderr
    assert list(tmp_path.iterdir()) == []
