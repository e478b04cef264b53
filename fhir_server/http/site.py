"""What is there beside the FHIR base: the start page, liveness, readiness. FastAPI lives here.

``/live`` says that the process answers, ``/ready`` that it can serve; neither says more.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from html import escape
from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import HTMLResponse

from fhir_server import __version__
from fhir_server.http.facade import Facade
from fhir_server.settings import Settings

FHIR_PATH = "/fhir"

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]
Asgi = Callable[[Any, Any, Any], Awaitable[None]]

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>FHIR Server</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 1.05rem/1.6 system-ui, sans-serif; max-width: 44rem; margin: 3rem auto;
  padding: 0 1.2rem; }}
h1 {{ font-size: 1.7rem; margin-bottom: .2rem; }}
code {{ font-size: .95em; padding: .1em .3em; border-radius: .3em; background: #8882; }}
li {{ margin: .5rem 0; }}
.state {{ color: #26824a; font-weight: 600; }}
footer {{ margin-top: 2.5rem; font-size: .85rem; opacity: .75; }}
</style>
</head>
<body>
<main>
<h1>FHIR Server</h1>
<p><span class="state">Running.</span> FHIR R4 (4.0.1) on MongoDB, version {version}, in
{mode} mode. The FHIR base is <code>{base}</code>.</p>
<ul>
<li><a href="fhir/metadata?_pretty=true">What it can do</a>: the CapabilityStatement</li>
<li><a href="fhir/Patient?_pretty=true&amp;_count=10">A first search</a>:
<code>GET /fhir/Patient</code></li>
<li><a href="fhir/Patient?name=rahima&amp;_pretty=true">Patients named Rahima</a>,
if the sample clinic is loaded</li>
<li><a href="fhir/_history?_pretty=true&amp;_count=10">What was written last</a></li>
<li><a href="docs">The endpoints beside FHIR</a> (OpenAPI)</li>
</ul>
<p>From a shell: <code>curl {base}/Patient?name=rahima</code></p>
<footer>There is no access control yet: keep this server on loopback, without real patients.
FHIR&reg; is the registered trademark of HL7.</footer>
</main>
</body>
</html>
"""


@dataclass(frozen=True, slots=True)
class Site:
    """The whole application: what is below the FHIR base goes to the facade at once, the rest to
    FastAPI, whose routing and middleware would cost a read a third of its time."""

    facade: Facade
    pages: Asgi

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Hand one connection on."""
        if scope["type"] == "http":
            path = scope["path"]
            if path.startswith(f"{FHIR_PATH}/") or path == FHIR_PATH:
                await self.facade(scope, receive, send)
                return
        await self.pages(scope, receive, send)


def site(
    facade: Facade, ready: Callable[[], Awaitable[bool]], lifespan: Lifespan, settings: Settings
) -> Site:
    """Return the application. ``ready`` says whether requests can be served."""
    pages = FastAPI(
        title="FHIR Server",
        version=__version__,
        lifespan=lifespan,
        description="The endpoints beside the FHIR base, which describes itself at "
        "[/fhir/metadata](/fhir/metadata).",
        redoc_url=None,
    )

    @pages.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def start_page() -> str:
        base = settings.base_url or f"http://{settings.host}:{settings.port}{FHIR_PATH}"
        return _PAGE.format(version=__version__, mode=escape(settings.mode), base=escape(base))

    @pages.get("/live", summary="Whether the process answers")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @pages.get("/ready", summary="Whether requests can be served", responses={503: {}})
    async def readiness(response: Response) -> dict[str, str]:
        if await ready():
            return {"status": "ready"}
        response.status_code = 503
        return {"status": "not ready"}

    return Site(facade, pages)
