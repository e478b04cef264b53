"""IANA's registries of special addresses; design/security.md, section 5: what may be called."""

from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as some

from fhir_server.security.addresses import host_fault, is_public, origin_of

SPECIAL = """
    0.0.0.0 0.0.0.1 10.0.0.1 100.64.0.1 100.100.100.200 127.0.0.1 127.255.255.254 168.63.129.16
    169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.192 192.0.2.1 192.88.99.1 192.168.0.1
    198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.1.1.1 240.0.0.1
    255.255.255.255
    :: ::1 ::127.0.0.1 ::7f00:1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:a9fe:a9fe ::ffff:0:127.0.0.1
    64:ff9b::127.0.0.1 64:ff9b::a00:1 64:ff9b::a9fe:a9fe 64:ff9b:1::7f00:1 100::1 2001::1
    2001:0:7f00:1:: 2001:2::1 2001:10::1 2001:20::1 2001:db8::1 2002:7f00:1:: 2002:a00:1::1
    2002:a9fe:a9fe::1 2620:4f:8000::1 3fff::1 5f00::1 fc00::1 fd00:ec2::254 fe80::1 fec0::1 ff02::1
    2600::5efe:7f00:1 2600::200:5efe:a00:1
    fe80::1%eth0 2600::1%1 1 127.1 0x7f000001 2130706433 0177.0.0.1 127.0.0.01 localhost
""".split()
PUBLIC = """
    1.1.1.1 9.9.9.9 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1 168.63.129.15 172.15.0.1
    172.32.0.1 192.0.1.1 192.167.1.1 192.169.0.1 198.17.1.1 198.20.0.1 223.255.255.255
    2606:4700::1111 2a00::1 2001:4860::8888 2400::1 ::ffff:9.9.9.9 64:ff9b::9.9.9.9 2002:909:909::1
""".split()


@pytest.mark.parametrize("address", [*SPECIAL, ""])
def test_special_addresses_are_not_called(address: str) -> None:
    """This machine, its neighbours, other writings of them, and what is no address."""
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are(address: str) -> None:
    """Those beside the special ones too."""
    assert is_public(address)


@given(address=some.ip_addresses(v=4))
def test_no_writing_of_an_address_opens_it(address: IPv4Address) -> None:
    """Embedded in IPv6, an address is judged as it is by itself; never more is open than Python's
    own table has."""
    judged = is_public(str(address))
    for prefix in ("::ffff:", "64:ff9b::"):
        assert is_public(f"{prefix}{address}") is judged
    six_to_four = IPv6Address((0x2002 << 112) | (int(address) << 80) | 1)
    assert is_public(str(six_to_four)) is judged
    assert not judged or address.is_global


@given(address=some.ip_addresses(v=6))
def test_less_is_open_than_for_python(address: IPv6Address) -> None:
    """Of IPv6, only the part that is given out."""
    if is_public(str(address)) and address not in ip_network("64:ff9b::/96"):
        assert address.is_global or address.ipv4_mapped or address.sixtofour


NAMES = ["a", "example.org", "EXAMPLE.org", "xn--bcher-kva.example", "a_b.example", "1.example"]
NUMBERS = """
    127.1 2130706433 0x7f000001 0x7f.1 0177.0.0.1 0x7F.0.0.1 127.0.0.01 a.1 1.2.3.4.5 256.1.1.1
    example.0x7f 1. 0x
""".split()
ODD = ["", ".", "a.", ".a", "a..b", "-a", "a-", "a b", "a@b", "a%2eb", "a/b", "a\\b", "ä.example"]
ODD += [
    "a" * 64,
    ".".join(["a" * 60] * 5),
    "localhost\x00",
    "a\n",
    "::1%1",
    ":::",
    "a:b",
    "①.example",
]


@pytest.mark.parametrize("host", [*NAMES, "9.9.9.9", "127.0.0.1", "::1"])
def test_names_and_plain_addresses_are_hosts(host: str) -> None:
    """Where they lead is judged afterwards."""
    assert host_fault(host) == ""


@pytest.mark.parametrize("host", [*NUMBERS, *ODD])
def test_other_writings_are_none(host: str) -> None:
    """What one program takes for a name and another for an address."""
    assert host_fault(host)


def test_origins_are_written_in_one_way() -> None:
    """A prefix of a name is another name."""
    assert origin_of("https://a.example/fhir") == origin_of("HTTPS://A.example:443")
    others = {"https://a.example.evil", "http://a.example", "https://a.example:8443", "https://a"}
    assert origin_of("https://a.example") not in map(origin_of, others)
    assert [origin_of(url) for url in ("/fhir", "mailto:a", "")] == [""] * 3
