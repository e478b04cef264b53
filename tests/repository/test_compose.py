"""``compose.yaml`` holds together: three members, health checks, nothing beyond loopback."""

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
MEMBERS = {name: it for name, it in SERVICES.items() if "--replSet" in it.get("command", ())}
JOBS = {name: it for name, it in SERVICES.items() if it["restart"] == "no"}
SERVER = SERVICES["server"]


def test_every_service_that_stays_has_a_health_check() -> None:
    """A service is checked by compose or by its own image; a job that ends needs none."""
    checked = {name for name, it in SERVICES.items() if "healthcheck" in it}
    if "HEALTHCHECK" in DOCKERFILE:
        checked |= {name for name, it in SERVICES.items() if it.get("build") == "."}

    assert checked == set(SERVICES) - set(JOBS)


def test_nothing_is_published_beyond_loopback() -> None:
    """One port of one service is published, on 127.0.0.1; no service shares the host's network."""
    published = {name: it["ports"] for name, it in SERVICES.items() if "ports" in it}

    assert published == {"server": ["127.0.0.1:8080:8080"]}
    assert [name for name, it in SERVICES.items() if "network_mode" in it] == []


def test_the_database_is_on_a_network_of_its_own() -> None:
    """MongoDB asks for no password, so only the server and the job that sets it up reach it."""
    assert all(it["networks"] == ["store"] for it in (MEMBERS | JOBS).values())
    assert COMPOSE["networks"]["store"] == {"internal": True}


def test_the_replica_set_has_three_members() -> None:
    """The members, what the job initiates, and the server's URI name the same three."""
    uri = urlsplit(SERVER["environment"]["FHIR_MONGODB_URI"])
    hosts = uri.netloc.split(",")
    [job] = JOBS.values()
    script = job["command"][0]

    assert len(MEMBERS) == 3
    assert hosts == [f"{name}:27017" for name in MEMBERS]
    assert all(f'host: "{host}"' in script for host in hosts)
    assert parse_qs(uri.query)["replicaSet"] == ["rs0"]
    assert all(it["command"][1:3] == ["--replSet", "rs0"] for it in MEMBERS.values())
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
