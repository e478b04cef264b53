"""A browser without scripts: keeps cookies, follows what a person would press."""

from dataclasses import dataclass, replace
from html.parser import HTMLParser
from itertools import count
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx

from fhir_server.app import Server
from fhir_server.context import Context
from fhir_server.http.authorize.endpoints import authorization_server
from fhir_server.http.authorize.pages import PAGES
from fhir_server.http.site import CONTEXT
from fhir_server.security.grants import Client
from fhir_server.security.oauth import challenge_of

SITE = "http://127.0.0.1:8080"
BASE = f"{SITE}/fhir"
BACK = "https://app.example/back"
_NETWORKS = count(1)
VERIFIER = "v" * 43
APP = Client(
    "app",
    "The <Growth> Chart",
    redirect_uris=(BACK,),
    launch_uri="https://app.example/launch",
    scopes=(
        *("openid", "fhirUser", "launch", "launch/patient", "launch/encounter"),
        *("offline_access", "online_access", "patient/*.rs", "user/Observation.rs"),
    ),
)


class Forms(HTMLParser):
    """The forms of a page: action, method and fields, with the buttons apart."""

    def __init__(self, text: str) -> None:
        """Read ``text``."""
        super().__init__()
        self.forms: list[dict[str, Any]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take note of forms and what is in them."""
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append({"action": given["action"], "method": given["method"], "fields": []})
        is_sent = given.get("type") != "checkbox" or "checked" in given
        if tag == "input" and self.forms and "name" in given and is_sent:
            self.forms[-1]["fields"].append((given["name"], given.get("value", "")))


@dataclass
class Browser:
    """One browser at ``server``, from ``address``."""

    context: Context
    address: str = ""
    site: str = SITE

    def __post_init__(self) -> None:
        """Open it, in a network of its own."""
        self.address = self.address or f"10.{next(_NETWORKS)}.0.1"
        app = authorization_server(PAGES)

        async def given(scope: Any, receive: Any, send: Any) -> None:
            await app(scope | {CONTEXT: self.context}, receive, send)

        transport = httpx.ASGITransport(given, client=(self.address, 1))
        self.http = httpx.AsyncClient(transport=transport, base_url=self.site)

    async def get(self, path: str) -> httpx.Response:
        """Open a page, and follow where it leads on this site."""
        return await self._followed(await self.http.get(path))

    async def press(self, page: httpx.Response, action: str, **fields: Any) -> httpx.Response:
        """Send the form of ``page`` that goes to ``action``, with ``fields`` filled in."""
        [form, *_] = [
            one
            for one in Forms(page.text).forms
            if one["action"].endswith(action) and all(name in page.text for name in fields)
        ]
        kept = [(name, value) for name, value in form["fields"] if name not in fields]
        for name, value in fields.items():
            kept += [(name, one) for one in (value if isinstance(value, list) else [value])]
        body = urlencode(kept)
        headers = {"content-type": "application/x-www-form-urlencoded"}
        answer = await self.http.post(form["action"], content=body, headers=headers)
        return await self._followed(answer)

    async def sign_in(self, page: httpx.Response, name: str, password: str) -> httpx.Response:
        """Type name and password."""
        return await self.press(page, "/login", name=name, password=password)

    async def _followed(self, answer: httpx.Response) -> httpx.Response:
        for _ in range(5):
            where = answer.headers.get("location", "")
            if not where.startswith("/"):
                return answer
            answer = await self.http.get(where)
        raise AssertionError("it leads nowhere")


def asked(**other: str) -> str:
    """Return the path of a good authorization request, with ``other`` parameters; an empty one is
    left out."""
    given = {
        "response_type": "code",
        "client_id": "app",
        "redirect_uri": BACK,
        "scope": "openid fhirUser launch/patient patient/*.rs",
        "state": "s1",
        "aud": BASE,
        "code_challenge": challenge_of(VERIFIER),
        "code_challenge_method": "S256",
    }
    said = {name: value for name, value in (given | other).items() if value}
    return f"/auth/authorize?{urlencode(said)}"


def answer_of(response: httpx.Response) -> dict[str, str]:
    """Return what the app is told by a redirect."""
    where = response.headers.get("location", "")
    assert where.startswith(f"{BACK}?"), (response.status_code, response.text[:2_000])
    return dict(parse_qsl(urlsplit(where).query))


def as_of(server: Server, **other: Any) -> Context:
    """Return the context of ``server`` with ``other`` parts."""
    return replace(server.context, **other)
