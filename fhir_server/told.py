"""What a parent and its workers say to each other, over a pair of sockets."""

import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

READY = b"ready\n"
RETIRE = b"retire\n"
UNFIT = 2
"""The exit code of a worker that could not begin."""
_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Told:
    """What a worker is told at its begin: the file descriptors of the ``sockets`` by name, what
    ``.env`` said when its generation began (``file``), the ``uri`` of MongoDB, whether it adds the
    ``sample``, and whether it takes the place of one that works (``is_checked``): then it must not
    begin with what it cannot do."""

    sockets: Mapping[str, Sequence[int]]
    file: Mapping[str, str] = field(default_factory=dict, repr=False)  # secrets are in it
    uri: str = ""
    sample: bool = False
    is_checked: bool = False

    def line(self) -> bytes:
        """Return this as a line of JSON."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def of(cls, line: bytes) -> "Told":
        """Return what ``line`` says. Raises ``ValueError`` for what another version says."""
        try:
            return cls(**json.loads(line))
        except (TypeError, ValueError) as error:
            raise ValueError(
                "The program on disk is another version than the server that runs: restart it."
            ) from error


def heard(control: socket.socket) -> bytes:
    """Return the next line that the parent says; empty where it has ended."""
    found = b""
    while not found.endswith(b"\n"):
        try:
            part = control.recv(_BYTES)
        except OSError:
            part = b""
        if not part:
            return b""
        found += part
    return found
