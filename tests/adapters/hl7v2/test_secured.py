"""design/hl7v2.md, sections 3 and 24: TLS, client certificates, listeners that must not be. H5."""

import ssl
import subprocess
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from fhir_server.outcome import FhirError
from fhir_server.settings import Settings
from tests.adapters.hl7v2.conftest import OpenSite, Site, adt
from tests.store.mongods import free_port

DAY = ["-days", "1"]
PAST = ["-days", "-1"]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority, a server, a client and an expired one of it, and a client of
    another one."""
    folder = tmp_path_factory.mktemp("certificates")
    for authority in ("ca", "other"):
        openssl(folder, "req", "-x509", *key(authority), "-subj", f"/CN={authority}", *DAY)
    for name, authority in {
        "server": "ca", "client": "ca", "expired": "ca", "foreign": "other"
    }.items():  # fmt: skip
        openssl(folder, "req", *key(name, "csr"), "-subj", f"/CN={name}")
        (folder / "ext").write_text(f"subjectAltName=IP:127.0.0.1,DNS:{name}.example")
        openssl(
            *(folder, "x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.pem"),
            *("-CAkey", f"{authority}.key", "-CAcreateserial", "-extfile", "ext"),
            *("-out", f"{name}.pem", *(PAST if name == "expired" else DAY)),
        )
    return folder


def key(name: str, kind: str = "pem") -> list[str]:
    """Return the arguments for a new key and what is made of it."""
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    return [*curve, "-keyout", f"{name}.key", "-out", f"{name}.{kind}"]


def openssl(folder: Path, *arguments: str) -> None:
    """Run openssl in ``folder``."""
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


async def secured(open_site: OpenSite, folder: Path) -> Site:
    """Return a site that listens with TLS and wants client certificates."""
    return await open_site(
        mllp_port=0,
        mllp_tls_port=free_port(),
        mllp_tls_cert=folder / "server.pem",
        mllp_tls_key=folder / "server.key",
        mllp_tls_client_ca=folder / "ca.pem",
    )


def client(folder: Path, name: str = "", **versions: Any) -> ssl.SSLContext:
    """Return the TLS of a client that trusts the authority."""
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    if name:
        context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    for member, version in versions.items():
        setattr(context, member, version)
    return context


async def test_h5_who_has_a_certificate_is_served(open_site: OpenSite, certificates: Path) -> None:
    """With the one of our authority; its names are known to the row's peer."""
    site = await secured(open_site, certificates)
    peer = await site.peer("mllps", ssl=client(certificates, "client"))

    assert await peer.ask(adt("A1")) == "AA"
    [row] = await site.rows()
    assert row["transport"] == "mllps"


@pytest.mark.parametrize("name", ["", "foreign", "expired"])
async def test_h5_who_has_none_a_foreign_or_an_expired_one_is_not(
    open_site: OpenSite, certificates: Path, name: str
) -> None:
    """The connection ends without an answer; nothing is kept."""
    site = await secured(open_site, certificates)
    code = ""
    with suppress(ssl.SSLError, ConnectionError):  # TLS 1.3 tells the client when it first reads
        peer = await site.peer("mllps", ssl=client(certificates, name))
        code = await peer.ask(adt("A1"))

    assert code == ""
    assert await site.rows() == []


async def test_certificates_are_checked_before_a_reload(
    open_site: OpenSite, certificates: Path
) -> None:
    """The listener's own are right; those of which the key is another's are refused, by name."""
    site = await secured(open_site, certificates)
    check = site.interface.check
    await check(site.server.context)
    wrong = {"mllp_tls_key": certificates / "client.key"}
    settings = site.server.context.settings.model_copy(update=wrong)
    with pytest.raises(FhirError, match=r"FHIR_MLLP_TLS_KEY.* cannot be used"):
        await check(replace(site.server.context, settings=settings))


def fingerprint(folder: Path, name: str) -> str:
    """Return SHA-256 of a certificate as openssl prints it."""
    command = ["openssl", "x509", "-in", f"{name}.pem", "-noout", "-fingerprint", "-sha256"]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return "SHA-256:" + done.stdout.strip().partition("=")[2]


async def test_h74_a_certificate_binds_its_connection_to_senders(
    open_site: OpenSite, certificates: Path
) -> None:
    """By name and by fingerprint; it may send as no other one, and another may not as this."""
    site = await secured(open_site, certificates)
    digest = fingerprint(certificates, "client")
    await site.profile("NAMED", peers={"certificates": ["DNS:client.example"]})
    await site.profile("PRINT", peers={"certificates": [digest]})
    await site.profile("OTHERS", peers={"certificates": ["DNS:another.example"]})
    await site.profile("FREE")
    peer = await site.peer("mllps", ssl=client(certificates, "client"))

    assert await peer.ask(adt("A1", m3="NAMED")) == "AA"
    assert await peer.ask(adt("A2", m3="PRINT")) == "AA"
    for number, name in enumerate(("OTHERS", "FREE", "UNKNOWN")):
        assert await peer.ask(adt(f"B{number}", m3=name)) == "AR"
        *_, row = await site.rows()
        assert row["state"] == "rejected"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_h5_tls_before_12_is_refused(open_site: OpenSite, certificates: Path) -> None:
    """The handshake fails."""
    site = await secured(open_site, certificates)
    old = client(certificates, "client")
    old.minimum_version = ssl.TLSVersion.TLSv1_1
    old.maximum_version = ssl.TLSVersion.TLSv1_1

    with pytest.raises((ssl.SSLError, ConnectionError)):
        await site.peer("mllps", ssl=old)


REFUSED: dict[str, dict[str, Any]] = {
    "FHIR_MLLP_PLAIN=allowed": {"mllp_address": "10.0.0.1"},
    "FHIR_MLLP_PEERS": {
        "mllp_address": "10.0.0.1",
        "mllp_plain": "allowed",
        "mode": "production",
    },
    "FHIR_MLLP_TLS_CERT": {"mllp_tls_port": 2576},
}


@pytest.mark.parametrize(("way_out", "settings"), REFUSED.items(), ids=REFUSED)
def test_h5_a_listener_that_must_not_be_is_refused_at_start(
    way_out: str, settings: dict[str, Any]
) -> None:
    """And what to do about it is named."""
    with pytest.raises(ValidationError, match=way_out):
        Settings.model_validate(settings)


def test_h5_a_plain_listener_on_loopback_needs_nothing() -> None:
    """That is what one gets without a setting."""
    assert Settings.model_validate({}).mllp_address == "127.0.0.1"
