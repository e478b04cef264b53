"""What a sender may: from where it sends, what it sends to whom, which resources it writes.

design/hl7v2.md, sections 18 and 24: the members ``peers``, ``principal``, ``accept`` and ``ack`` of
a sender's profile. A member that is missing allows everything; what is listed is all that is
allowed.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

SAME = "same"
_ADDRESS = re.compile(r"(mllps?)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?/?")
_USUAL_PORT = 2575
_TYPE = re.compile(r"[A-Z][A-Za-z]{1,63}")
_LETTERS = frozenset("crud")
_CERTIFICATE = re.compile(r"(DNS|IP Address|IP|URI|email|SHA-?256):\S+", re.I)
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


# ------------------------------------------------------------------------- what a profile may say


def peers_fault(value: Any) -> str:
    """Return what is wrong with the member ``peers``, or ""."""
    if fault := _members("peers", value, ("addresses", "certificates")):
        return fault
    for address in value.get("addresses", ()):
        try:
            ipaddress.ip_network(address)
        except ValueError:
            return "'peers.addresses' must be a list of networks such as 10.2.0.0/16."
    for name in value.get("certificates", ()):
        is_digest = name.upper().startswith("SHA")
        digest = _certificate(name).partition(":")[2]
        if not _CERTIFICATE.fullmatch(name) or (is_digest and not _FINGERPRINT.fullmatch(digest)):
            return (
                "'peers.certificates' must be a list of names such as DNS:lis.example, or of "
                "fingerprints such as SHA-256: and 64 hexadecimal digits."
            )
    return ""


def principal_fault(value: Any) -> str:
    """Return what is wrong with the member ``principal``, or ""."""
    if not isinstance(value, Mapping) or not value.keys() <= {"types"}:
        return "'principal' must be an object with the member types."
    types = value.get("types", {})
    if not isinstance(types, Mapping) or not all(
        _TYPE.fullmatch(type) and isinstance(letters, str) and set(letters) <= _LETTERS
        for type, letters in types.items()
    ):
        return "'principal.types' must be an object of resource types and some of the letters crud."
    return ""


def accept_fault(value: Any) -> str:
    """Return what is wrong with the member ``accept``, or ""."""
    if not isinstance(value, Mapping):
        return "'accept' must be an object."
    for member, said in value.items():
        if member == "query":
            if not isinstance(said, bool):
                return "'accept.query' must be true or false."
        elif member == "receivers":
            if not isinstance(said, list) or not all(map(_is_receiver, said)):
                return "'accept.receivers' must be a list of objects with application and facility."
        elif member not in ("types", "processing"):
            return f"'accept.{member}' is no member of a profile."
        elif not isinstance(said, list) or not all(isinstance(one, str) for one in said):
            return f"'accept.{member}' must be a list of texts."
    return ""


def ack_fault(value: Any) -> str:
    """Return what is wrong with the member ``ack``, or ""."""
    if not isinstance(value, Mapping) or not value.keys() <= {"to", "warnings"}:
        return "'ack' must be an object with the members to and warnings."
    if not isinstance(value.get("warnings", False), bool):
        return "'ack.warnings' must be true or false."
    to = value.get("to", SAME)
    if to == SAME or (isinstance(to, str) and address_of(to)):
        return ""
    return "'ack.to' must be same, or an address such as mllps://lis.example:2575."


def _members(name: str, value: Any, known: tuple[str, ...]) -> str:
    if not isinstance(value, Mapping) or not value.keys() <= set(known):
        return f"'{name}' must be an object with the members {' and '.join(known)}."
    for member, said in value.items():
        if not isinstance(said, list) or not all(isinstance(one, str) for one in said):
            return f"'{name}.{member}' must be a list of texts."
    return ""


def _is_receiver(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and value.keys() <= {"application", "facility"}
        and all(isinstance(one, str) for one in value.values())
    )


def address_of(to: str) -> tuple[str, str, int] | None:
    """Return transport, host and port of an address; None for what is none.

    >>> address_of("mllp://lis.example:2600"), address_of("http://lis.example")
    (('mllp', 'lis.example', 2600), None)
    """
    found = _ADDRESS.fullmatch(to)
    if not found or not 0 < int(found[3] or _USUAL_PORT) < 65_536:
        return None
    return found[1], found[2].strip("[]"), int(found[3] or _USUAL_PORT)


# ------------------------------------------------------------------------------------- from where


def may_use(peers: Mapping[str, Any], address: str, names: Iterable[str]) -> bool:
    """Return whether a peer may send as the sender whose member ``peers`` this is.

    ``names`` are those of its client certificate. Where addresses and certificates are listed, both
    must fit.
    """
    networks, certificates = peers.get("addresses"), peers.get("certificates")
    if networks is not None and not any(_is_in(address, network) for network in networks):
        return False
    return certificates is None or is_bound(peers, names)


def is_bound(peers: Mapping[str, Any], names: Iterable[str]) -> bool:
    """Return whether a client certificate with ``names`` is one of those that are listed."""
    listed = {_certificate(name) for name in peers.get("certificates", ())}
    return bool(listed) and any(_certificate(name) in listed for name in names)


def _is_in(address: str, network: str) -> bool:
    known = _network(network)
    try:
        peer = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(peer, ipaddress.IPv6Address) and peer.ipv4_mapped:
        peer = peer.ipv4_mapped
    return peer.version == known.version and peer in known


@lru_cache(maxsize=1024)
def _network(text: str) -> IpNetwork:
    return ipaddress.ip_network(text)


@lru_cache(maxsize=1024)
def _certificate(name: str) -> str:
    """Return a name of a certificate as names are compared: without case, digests without colons.

    >>> _certificate("DNS:LIS.example"), _certificate("SHA256:AB:CD")
    ('dns:lis.example', 'sha256:abcd')
    """
    kind, _, rest = name.partition(":")
    kind = kind.lower().replace("-", "")
    if kind == "sha256":
        rest = rest.replace(":", "")
    return f"{kind.removesuffix(' address')}:{rest.lower()}"


# --------------------------------------------------------------------------------- which resources


def may_write(principal: Mapping[str, Any], type: str, letter: str) -> bool:
    """Return whether the sender may create (``c``), read (``r``) or update (``u``) a ``type``."""
    types = principal.get("types")
    return types is None or letter in types.get(type, "")


def without(resource: Any, references: frozenset[str]) -> Any:
    """Return ``resource`` without the References that are ``references`` (``Encounter/a``).

    What has nothing left goes with them.
    """
    if isinstance(resource, dict):
        if resource.get("reference") in references:
            return None
        made = {name: without(value, references) for name, value in resource.items()}
        return {name: value for name, value in made.items() if value not in (None, {}, [])}
    if isinstance(resource, list):
        kept = [without(value, references) for value in resource]
        return [value for value in kept if value not in (None, {}, [])]
    return resource
