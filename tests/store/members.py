"""A replica set of three members, each a process of its own, of which the primary can be killed."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from tests.store.mongods import bare_mongod

_OPTIONS = ("--replSet", "three", "--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "100")
_ELECTED_S = 60.0

Client = MongoClient[dict[str, Any]]


@dataclass(frozen=True)
class Members:
    """The members by their URIs; ``uri`` is that of all of them."""

    uris: list[str]

    @property
    def uri(self) -> str:
        """Where clients connect."""
        hosts = ",".join(map(_host, self.uris))
        return f"mongodb://{hosts}/?replicaSet=three"

    def primary(self) -> int:
        """Return the process id of the primary, 0 while there is none."""
        for uri in self.uris:
            try:
                with Client(uri, serverSelectionTimeoutMS=500) as client:
                    if client.admin.command("hello")["isWritablePrimary"]:
                        return int(client.admin.command("serverStatus")["pid"])
            except PyMongoError:
                continue
        return 0

    def kill_primary(self) -> None:
        """End the primary at once."""
        os.kill(self.primary(), signal.SIGKILL)


def _host(uri: str) -> str:
    return uri.removeprefix("mongodb://").partition("/")[0]


@contextmanager
def three_members(folder: Path) -> Iterator[Members]:
    """Give three members with a primary; their data is in ``folder``."""
    with ExitStack() as running:
        found = Members(
            [running.enter_context(bare_mongod(folder / str(n), *_OPTIONS)) for n in range(3)]
        )
        config = {
            "_id": "three",
            "members": [{"_id": n, "host": _host(uri)} for n, uri in enumerate(found.uris)],
            "settings": {"electionTimeoutMillis": 2000, "heartbeatIntervalMillis": 300},
        }
        with Client(found.uris[0]) as client:
            client.admin.command("replSetInitiate", config)
        until = time.monotonic() + _ELECTED_S
        while not found.primary():
            assert time.monotonic() < until, "there is no primary"
            time.sleep(0.05)
        yield found
