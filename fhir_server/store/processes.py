"""What a process of ours is called to MongoDB, and whether who is called so is still there.

A name has host, process id, and when that process began: ids are given again. Of a process on
another host it says nothing; nor does it where there is no ``/proc`` to tell when one began.
"""

import os
import platform
import re
from pathlib import Path

PROGRAM = "fhir-server"
_NAME = re.compile(rf"{PROGRAM} (\S+) (\d{{1,9}}) (\d{{1,19}})", re.ASCII)


def own_name() -> str:
    """Return the name of this process; the program alone where no other could tell it is gone."""
    pid = os.getpid()
    began = _began(pid)
    return f"{PROGRAM} {platform.node()} {pid} {began}" if began else PROGRAM


def is_gone(name: str) -> bool:
    """Whether ``name`` is of a process that was on this host, and is not any more."""
    found = _NAME.fullmatch(name)
    if found is None or not _began(os.getpid()):
        return False
    host, pid, began = found.groups()
    return host == platform.node() and _began(int(pid)) != began


def _began(pid: int) -> str:
    """Return when the process ``pid`` began, as its kernel counts; ``""`` where it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    state, *rest = text.rpartition(")")[2].split()  # before it is its program's name, any signs
    return "" if state in "ZX" else rest[18]
