"""One worker process: a whole server, on the sockets and the database that its parent names.

``python -m fhir_server.worker FD`` is what the parent (``workers.py``) starts. ``FD`` is its end of
a pair of sockets:

=========  =====================================================================================
it reads   a line of JSON, :class:`Told`; later perhaps ``retire``; its end is the parent's end
it writes  ``ready``, once it takes connections
=========  =====================================================================================

It ends on SIGTERM when what is under way is answered. One that cannot begin says why and ends with
the exit code :data:`UNFIT`.
"""

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial

import uvicorn

from fhir_server.app import running
from fhir_server.http.accepting import AcceptingServer
from fhir_server.http.site import Site
from fhir_server.http.transport import transport_of
from fhir_server.listening import HTTP, UnlistenedError, inherit, inherited
from fhir_server.logs import configure_logging
from fhir_server.outcome import FhirError
from fhir_server.registry import UnknownFeatureError
from fhir_server.sample import add_sample
from fhir_server.settings import Settings
from fhir_server.starting import console, read_settings
from fhir_server.store.client import UnfitDatabaseError
from fhir_server.told import READY, RETIRE, UNFIT, Told, heard

_LOST = 1  # the exit code where the parent has gone


def main() -> None:
    """Serve until told to end."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it is for the parent: workers are replaced
    line = Line(socket.socket(fileno=int(sys.argv[1])))
    said = heard(line.control)
    if not said:  # the parent could not begin
        sys.exit(_LOST)
    try:
        told = Told.of(said)
        line.listen()
        os.environ["FHIR_MONGODB_URI"] = told.uri
        settings = read_settings(told.file)
        configure_logging(settings.log_level)
        inherit(told.sockets)
        loop_factory = uvicorn.Config("").get_loop_factory()
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(_served(settings, told, line))
    except (
        UnfitDatabaseError,
        UnknownFeatureError,
        UnlistenedError,
        FhirError,
        ValueError,
    ) as error:
        console.print(str(error), markup=False, soft_wrap=True)
        sys.exit(UNFIT)


class Line:
    """What connects this worker with its parent."""

    def __init__(self, control: socket.socket) -> None:
        """Take our end."""
        self.control = control
        self.retire: Callable[[], object] = lambda: None

    def listen(self) -> None:
        """Do from now on what the parent says. Whatever is under way ends with the parent: nobody
        would be there to tell it anything."""
        threading.Thread(target=self._obey, daemon=True).start()

    def _obey(self) -> None:
        while said := heard(self.control):
            if said == RETIRE:
                self.retire()
        os._exit(_LOST)


async def _served(settings: Settings, told: Told, line: Line) -> None:
    """Open the server, answer requests, and close it."""
    if told.sample:
        await add_sample(settings)
    async with running(settings, is_checked=told.is_checked) as site:
        server = AcceptingServer(
            _config(site, settings), inherited(HTTP), partial(line.control.sendall, READY)
        )
        loop = asyncio.get_running_loop()
        line.retire = partial(loop.call_soon_threadsafe, server.retire)
        # uvicorn gives the signal on when it has obeyed it; what is open here is to be closed yet.
        signal.signal(signal.SIGTERM, lambda *_: None)
        await server.serve()


def _config(site: Site, settings: Settings) -> uvicorn.Config:
    """Return what uvicorn is told. Raises ``ValueError`` for TLS files that cannot be used."""
    config = uvicorn.Config(
        site,
        lifespan="off",
        http="fhir_server.http.protocol:BoundedProtocol",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=settings.shutdown_s,
        **transport_of(settings),
    )
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        raise ValueError(f"FHIR_TLS_CERT and FHIR_TLS_KEY cannot be used: {error}") from error
    return config


if __name__ == "__main__":
    main()
