"""The sockets to listen on: bound by the parent, inherited by every worker.

Workers come and go, the sockets stay: while one of them is there, who connects waits in the queue
of the socket until a worker takes him. All workers take from the same queue, so that who is busy
takes fewer, and what a worker had not taken yet is not lost with it.
"""

import errno
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from fhir_server.settings import Settings

HTTP, MLLP, MLLPS = "http", "mllp", "mllps"
_HL7 = "adapters.hl7v2"
_ABSENT = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)  # such as IPv6 where it is off

Sockets = Sequence[socket.socket]

_inherited: dict[str, tuple[socket.socket, ...]] = {}


class UnlistenedError(OSError):
    """Nobody can listen there; the message names the address and the reason."""

    def __init__(self, host: str, port: int, error: OSError) -> None:
        """Take what the system said."""
        reason = (error.strerror or str(error)).lower()
        super().__init__(f"Nobody can listen on {host}:{port}: {reason}.")


def addresses(settings: Settings) -> dict[str, tuple[str, int]]:
    """Return what is listened on: name -> host and port."""
    found = {HTTP: (settings.host, settings.port)}
    if _HL7 in settings.features:
        mllp = {MLLP: settings.mllp_port, MLLPS: settings.mllp_tls_port}
        found |= {name: (settings.mllp_address, port) for name, port in mllp.items() if port}
    return found


def bound(host: str, port: int) -> Sockets:
    """Return a socket for each address of ``host``, every one where it is empty; none listens yet.

    An address that this machine does not have is passed over while there is another one.
    Raises :class:`UnlistenedError`.
    """
    sockets: list[socket.socket] = []
    absent = None
    try:
        kind, flags = socket.SOCK_STREAM, socket.AI_PASSIVE
        found = socket.getaddrinfo(host or None, port, type=kind, flags=flags)
        for family, _, _, _, address in dict.fromkeys(found):
            try:
                sockets.append(_bound(family, address))
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise
                absent = error
        if absent is not None and not sockets:
            raise absent
    except OSError as error:
        for one in sockets:
            one.close()
        raise UnlistenedError(host, port, error) from error
    return sockets


def _bound(family: int, address: Any) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(address)
    except OSError:
        one.close()
        raise
    return one


def listen(one: socket.socket, waiting_max: int) -> None:
    """Have up to ``waiting_max`` wait on a bound socket until they are taken.

    Raises :class:`UnlistenedError`: another server may have been bound there and listen by now.
    """
    try:
        one.listen(waiting_max)
    except OSError as error:
        host, port, *_ = one.getsockname()
        raise UnlistenedError(host, port, error) from error


def inherit(numbers: Mapping[str, Sequence[int]]) -> None:
    """Take the sockets over from the parent: name -> file descriptors."""
    for name, some in numbers.items():
        _inherited[name] = tuple(socket.socket(fileno=one) for one in some)


def inherited(name: str) -> Sockets:
    """Return the sockets that the parent has bound as ``name``; none where there is no parent."""
    return _inherited.get(name, ())
