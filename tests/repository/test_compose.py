"""``compose.yaml`` holds together: three members, TLS and passwords, nothing beyond loopback."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from fhir_server.security.production import Database, Found, reasons, tls_unchecked
from fhir_server.security.sealing import key_of
from fhir_server.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
MEMBERS = {name: it for name, it in SERVICES.items() if "--replSet" in it.get("command", [""])[0]}
JOBS = {name: it for name, it in SERVICES.items() if it["restart"] == "no"}
SERVER = SERVICES["server"]
# As compose writes it, with a word for what comes from the environment.
URI = re.sub(r"\$\{[^}]*\}", "word", SERVER["environment"]["FHIR_MONGODB_URI"])


def test_every_service_that_stays_has_a_health_check() -> None:
    """A service is checked by compose or by its own image; a job that ends needs none."""
    checked = {name for name, it in SERVICES.items() if "healthcheck" in it}
    if "HEALTHCHECK" in DOCKERFILE:
        checked |= {name for name, it in SERVICES.items() if it.get("build") == "."}

    assert checked == set(SERVICES) - set(JOBS)


def test_nothing_is_published_beyond_loopback() -> None:
    """One port of one service is published, on 127.0.0.1; no service shares the host's network."""
    published = {name: it["ports"] for name, it in SERVICES.items() if "ports" in it}

    assert published == {"server": ["127.0.0.1:8443:8443"]}
    assert [name for name, it in SERVICES.items() if "network_mode" in it] == []


def test_the_database_is_on_a_network_of_its_own() -> None:
    """Only the server and the job that sets it up reach it."""
    assert all(it["networks"] == ["store"] for it in (MEMBERS | JOBS).values())
    assert COMPOSE["networks"]["store"] == {"internal": True}


def test_the_replica_set_has_three_members() -> None:
    """The members, what the job initiates, and the server's URI name the same three."""
    uri = urlsplit(URI)
    hosts = uri.netloc.rpartition("@")[2].split(",")
    [job] = JOBS.values()
    script = job["command"][0]

    assert len(MEMBERS) == 3
    assert hosts == [f"{name}:27017" for name in MEMBERS]
    assert all(f'host: "{host}"' in script for host in hosts)
    assert parse_qs(uri.query)["replicaSet"] == ["rs0"]
    assert all("--replSet rs0" in it["command"][0] for it in MEMBERS.values())
    assert '_id: "rs0"' in script


def test_each_member_keeps_its_own_data() -> None:
    """Each member has a volume, and no two share one."""
    volumes = [it["volumes"][0].partition(":")[0] for it in MEMBERS.values()]

    assert sorted(volumes) == sorted(COMPOSE["volumes"])


def test_the_server_waits_for_the_replica_set() -> None:
    """The server starts when the set is initiated, the set is initiated when its members live."""
    [(name, job)] = JOBS.items()

    assert SERVER["depends_on"] == {name: {"condition": "service_completed_successfully"}}
    assert job["depends_on"] == {member: {"condition": "service_healthy"} for member in MEMBERS}


def test_what_it_sets_may_run_in_production() -> None:
    """Nothing of its settings is what ``fhir-server check --production`` names."""
    given = {name.removeprefix("FHIR_").lower(): it for name, it in SERVER["environment"].items()}
    settings = Settings.model_validate(given | {"mongodb_uri": URI})
    uri = parse_qs(urlsplit(URI).query)
    database = Database(
        hosts=("mongo1:27017",),
        smallest_set=len(MEMBERS),
        has_credentials=bool(urlsplit(URI).username),
        takes_strangers=not all("--keyFile" in it["command"][0] for it in MEMBERS.values()),
        has_tls=uri["tls"] == ["true"],
        tls_unchecked=tls_unchecked(dict(uri)),
        has_test_commands=any("enableTestCommands" in str(it) for it in MEMBERS.values()),
    )
    assert settings.mode == "production"
    assert reasons(settings, Found("0f" * 32, (), database, administrators=1)) == ()
    assert all("--tlsMode requireTLS" in it["command"][0] for it in MEMBERS.values())


def test_every_secret_is_one_that_the_script_makes() -> None:
    """Who uses a secret names one that is declared; its file is in the folder that git leaves."""
    used = {
        one if isinstance(one, str) else one["source"]
        for it in SERVICES.values()
        for one in it.get("secrets", ())
    }
    script = (ROOT / "scripts" / "compose_secrets.sh").read_text(encoding="utf-8")

    assert used == set(COMPOSE["secrets"])
    for declared in COMPOSE["secrets"].values():
        folder, _, name = declared["file"].partition("/")
        assert folder == "secrets"
        assert name in script or name.split(".")[0] in script
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert {"/secrets/", ".env"} <= set(ignored)


@pytest.mark.skipif(not shutil.which("openssl"), reason="there is no openssl on this machine")
def test_the_script_makes_them_for_their_owner_alone(tmp_path: Path) -> None:
    """Every file, open to nobody else; run again, it changes nothing."""
    (tmp_path / "scripts").mkdir()
    script = shutil.copy(ROOT / "scripts" / "compose_secrets.sh", tmp_path / "scripts")
    subprocess.run(["sh", script], check=True, capture_output=True)
    made = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    subprocess.run(["sh", script], check=True, capture_output=True)

    for declared in COMPOSE["secrets"].values():
        assert (tmp_path / declared["file"]).stat().st_mode & 0o077 == 0
    assert all(path.read_bytes() == text for path, text in made.items())
    key = (tmp_path / "secrets" / "master.key").read_text()
    assert len(key_of(key)) == 32
    for name in ("server", "mongo1"):
        proof = ["openssl", "verify", "-CAfile", "secrets/ca.pem", f"secrets/{name}.pem"]
        subprocess.run(proof, cwd=tmp_path, check=True, capture_output=True)
