"""Which addresses and host names may be called for somebody else: the public ones, and no others.

design/security.md, section 5. A table of our own: Python's ``is_global`` lets pass what leads to
this machine or its neighbours by another writing (NAT64, 6to4, multicast, a cloud's own service).
https://www.iana.org/assignments/iana-ipv4-special-registry and iana-ipv6-special-registry.
"""

import re
from ipaddress import (
    AddressValueError,
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
)
from urllib.parse import urlsplit

_NOT_PUBLIC_4 = tuple(
    IPv4Network(row.split()[0])
    for row in """
    0.0.0.0/8          this network; Linux takes it for this machine
    10.0.0.0/8         private
    100.64.0.0/10      shared by the customers of a carrier
    127.0.0.0/8        this machine
    168.63.129.16/32   what a cloud offers its machines
    169.254.0.0/16     link-local, with the metadata of clouds
    172.16.0.0/12      private
    192.0.0.0/24       protocols of the IETF
    192.0.2.0/24       for documentation
    192.31.196.0/24    AS112
    192.52.193.0/24    AMT
    192.88.99.0/24     relays of 6to4
    192.168.0.0/16     private
    192.175.48.0/24    AS112
    198.18.0.0/15      for measurements
    198.51.100.0/24    for documentation
    203.0.113.0/24     for documentation
    224.0.0.0/4        multicast
    240.0.0.0/4        reserved, and broadcast
    """.strip().splitlines()
)
_PUBLIC_6 = IPv6Network("2000::/3")
_NOT_PUBLIC_6 = tuple(
    IPv6Network(row.split()[0])
    for row in """
    2001::/23          protocols of the IETF: Teredo, ORCHID, benchmarks
    2001:db8::/32      for documentation
    2620:4f:8000::/48  AS112
    3fff::/20          for documentation
    """.strip().splitlines()
)
# Network -> the place of the IPv4 address that is inside, in bits from the right.
_EMBEDDED = (
    (IPv6Network("::ffff:0:0/96"), 0),
    (IPv6Network("64:ff9b::/96"), 0),  # NAT64, RFC 6052
    (IPv6Network("2002::/16"), 80),  # 6to4, RFC 3056
)
_ISATAP = (0x00005EFE, 0x02005EFE)  # RFC 5214: the IPv4 address is the last 32 bits

_LABEL = r"[a-z0-9](?:[a-z0-9_\-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}")
_LOOKS_LIKE_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_NAME_CHARACTERS_MAX = 253
_PORTS = {"https": 443, "http": 80}


def is_public(address: str) -> bool:
    """Whether ``address`` is one of the public Internet, with what is embedded in it.

    >>> [is_public(one) for one in ("9.9.9.9", "10.0.0.1", "64:ff9b::a00:1", "::ffff:9.9.9.9")]
    [True, False, False, True]

    What is no address, such as one with a zone, is none.
    """
    try:
        return _is_public_4(IPv4Address(address))
    except AddressValueError:
        pass
    try:
        found = IPv6Address(address)
    except AddressValueError:
        return False
    return found.scope_id is None and _is_public_6(found)


def _is_public_4(address: IPv4Address) -> bool:
    return not any(address in network for network in _NOT_PUBLIC_4)


def _is_public_6(address: IPv6Address) -> bool:
    number = int(address)
    for network, shift in _EMBEDDED:
        if address in network:
            return _is_public_4(IPv4Address((number >> shift) & 0xFFFFFFFF))
    if (number >> 32) & 0xFFFFFFFF in _ISATAP:
        return False
    return address in _PUBLIC_6 and not any(address in network for network in _NOT_PUBLIC_6)


def host_fault(host: str) -> str:
    """Return what is wrong with the ``host`` of a URL, in ASCII; ``""`` where nothing is.

    It is a name, an IPv6 address, or an IPv4 address of four decimal numbers. Other numbers are
    addresses to some programs and not to others: ``0x7f.1``, ``2130706433``, ``0177.0.0.1``.

    >>> host_fault("fhir.example.org"), host_fault("9.9.9.9"), host_fault("2130706433")
    ('', '', 'its host is a number')
    """
    if ":" in host:
        try:
            return "its host has a zone" if IPv6Address(host).scope_id is not None else ""
        except AddressValueError:
            return "its host is no address"
    name = host.lower()
    if len(name) > _NAME_CHARACTERS_MAX or not _NAME.fullmatch(name):
        return "its host is no name"
    if _LOOKS_LIKE_NUMBER.fullmatch(name.rpartition(".")[2]):
        try:
            IPv4Address(name)
        except AddressValueError:
            return "its host is a number"
    return ""


def origin_of(url: str) -> str:
    """Return scheme, host and port of ``url``, each always written in the same way.

    >>> origin_of("HTTPS://Fhir.example.org/a?b"), origin_of("http://[::1]:8080/")
    ('https://fhir.example.org:443', 'http://[::1]:8080')

    ``""`` for what has none. Raises ``ValueError`` for a port that is none.
    """
    parts = urlsplit(url)
    port = parts.port or _PORTS.get(parts.scheme, 0)
    if not parts.hostname or not port:
        return ""
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{port}"
