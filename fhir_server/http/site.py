"""What is there beside the FHIR base: the start page, liveness, readiness. FastAPI lives here.

``/live`` says that the process answers, ``/ready`` that it can serve; neither says more.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import HTMLResponse, PlainTextResponse

from fhir_server import __version__
from fhir_server.context import Context
from fhir_server.http.cors import allowed_here, is_preflight, preflight, with_origin
from fhir_server.http.facade import Facade, sent_id
from fhir_server.http.pages import STYLE, docs_page, start_page
from fhir_server.http.protection import (
    ALWAYS,
    HSTS,
    PAGE_POLICY,
    is_called,
    is_sent_on,
    names_of,
    protecting,
    refuse_host,
    refuse_proxy,
)
from fhir_server.outcome import FhirError
from fhir_server.settings import Settings

FHIR_PATH = "/fhir"
_WELL_KNOWN = f"{FHIR_PATH}/.well-known/"

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]
Asgi = Callable[[Any, Any, Any], Awaitable[None]]
Routes = Callable[[], tuple[Mapping[str, Asgi], Context] | None]
"""The applications at their paths, and the context that they are given; ``None`` while starting."""

CONTEXT = "fhir_server.context"
"""Where in the scope an application that a feature has registered finds the context."""

IDENTIFY = "fhir_server.identify"
"""Where it finds what says who asks, by the headers: see ``Identify`` in ``facade.py``."""


@dataclass(frozen=True, slots=True)
class Site:
    """The whole application: what is below the FHIR base goes to the facade at once, but for its
    well-known URIs, the rest to FastAPI, whose routing and middleware would cost a read a third of
    its time; but what is registered at a path goes there. ``names`` are what a Host may be,
    ``is_tls_only`` has browsers never come without TLS again; unless ``is_for_proxies``, what a
    proxy has sent on is refused."""

    facade: Facade
    pages: Asgi
    routes: Routes
    origins: tuple[str, ...]
    names: frozenset[bytes]
    is_tls_only: bool
    is_for_proxies: bool = True

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Hand one connection on."""
        if scope["type"] == "http":
            path = scope["path"]
            is_fhir = path.startswith(f"{FHIR_PATH}/") or path == FHIR_PATH
            is_known = path.startswith(_WELL_KNOWN)
            if not is_fhir or is_known or self.is_tls_only:
                send = protecting(send, self._always(scope, is_fhir=is_fhir and not is_known))
            if not is_called(scope, self.names):
                await refuse_host(protecting(send, self._always(scope, is_fhir=False)))
                return
            if not self.is_for_proxies and is_sent_on(scope):
                await refuse_proxy(protecting(send, self._always(scope, is_fhir=False)))
                return
            if is_known and (routed := self.routes()) and path in routed[0]:
                await routed[0][path](scope | {CONTEXT: routed[1]}, receive, send)
                return
            if is_fhir:
                if b"origin" in dict(scope["headers"]):  # a page of a browser asks
                    origin = allowed_here(scope, self.origins, await self._of_apps())
                    if is_preflight(scope):
                        await preflight(origin, send)
                        return
                    send = with_origin(send, origin) if origin else send
                await self.facade(scope, receive, send)
                return
            routed = self.routes()
            below = path[: path.find("/", 1) + 1]
            app = routed and (routed[0].get(path) or routed[0].get(below))
            if routed and app:
                beside = {CONTEXT: routed[1], IDENTIFY: self.facade.identify}
                await app(scope | beside, receive, send)
                return
        await self.pages(scope, receive, send)

    async def _of_apps(self) -> Collection[str]:
        """Return the origins of registered apps."""
        routed = self.routes()
        if routed is None:
            return ()
        try:
            return await routed[1].accounts.clients.origins()
        except FhirError:
            return ()  # the database is not there, as the answer will say

    def _always(self, scope: Any, *, is_fhir: bool) -> list[tuple[bytes, bytes]]:
        said = [HSTS] if self.is_tls_only else []
        if not is_fhir:  # the facade has these by itself
            id = sent_id(dict(scope["headers"])) or self.facade.new_id()
            said += [*ALWAYS, PAGE_POLICY, (b"x-request-id", id.encode())]
        return said


def site(
    facade: Facade,
    ready: Callable[[], Awaitable[bool]],
    lifespan: Lifespan | None,
    settings: Settings,
    routes: Routes = lambda: None,
    names: frozenset[bytes] | None = None,
) -> Site:
    """Return the application. ``ready`` says whether requests can be served; ``routes`` are what
    features have registered; ``names`` what a Host may be, where the settings do not say it."""
    pages = FastAPI(
        title="FHIR Server",
        version=__version__,
        lifespan=lifespan,
        description="The endpoints beside the FHIR base, which describes itself at "
        "[/fhir/metadata](/fhir/metadata).",
        # FastAPI's own pages load scripts from elsewhere, which a clinic may not reach.
        docs_url=None,
        redoc_url=None,
    )

    base_url = settings.base_url or f"http://{settings.host}:{settings.port}{FHIR_PATH}"

    @pages.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def start() -> str:
        return start_page(settings, base_url)

    @pages.get("/docs", response_class=HTMLResponse, include_in_schema=False)
    async def docs() -> str:
        return docs_page(settings.mode, base_url)

    @pages.get("/style.css", response_class=PlainTextResponse, include_in_schema=False)
    async def style() -> PlainTextResponse:
        return PlainTextResponse(STYLE, media_type="text/css")

    @pages.get("/live", summary="Whether the process answers")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @pages.get("/ready", summary="Whether requests can be served", responses={503: {}})
    async def readiness(response: Response) -> dict[str, str]:
        if await ready():
            return {"status": "ready"}
        response.status_code = 503
        return {"status": "not ready"}

    is_tls_only = settings.mode == "production"
    return Site(
        *(facade, pages, routes, settings.cors_origins),
        *(names_of(settings) if names is None else names, is_tls_only),
        is_tls_only or bool(settings.trusted_proxies),
    )
