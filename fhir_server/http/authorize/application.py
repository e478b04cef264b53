"""The authorization server as one ASGI application: path and method -> endpoint -> answer.

Discovery and keys are for pages of every origin; the rest is for those of registered clients.
https://hl7.org/fhir/smart-app-launch/STU2.2/conformance.html#cors-support
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fhir_server.context import Context
from fhir_server.http.authorize.exchange import (
    AUTH_PATH,
    BODY_BYTES_MAX,
    Answer,
    Call,
    Endpoint,
    form_of,
    json_answer,
    refusal,
)
from fhir_server.http.body import Disconnected, read_body
from fhir_server.http.cors import is_preflight, preflight, with_origin
from fhir_server.http.facade import log_failure
from fhir_server.http.negotiate import FORM
from fhir_server.http.site import CONTEXT, FHIR_PATH
from fhir_server.outcome import FhirError
from fhir_server.security.oauth import OAuthError

Endpoints = Mapping[str, Mapping[str, Endpoint]]
"""Path -> method -> endpoint. HEAD is answered by GET's."""
_BODY_TIMEOUT_S = 10.0
_TOO_MANY = 429
_QUERY_BYTES_MAX = 32_768


@dataclass(frozen=True, slots=True)
class Authorization:
    """Answers at the paths of ``endpoints``; ``public`` are the paths for pages of every origin."""

    endpoints: Endpoints
    public: frozenset[str] = frozenset()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one HTTP request; whatever happens, there is an answer."""
        context: Context = scope[CONTEXT]
        path = scope["path"]
        origin = await self._origin(scope, context)
        if is_preflight(scope):
            await preflight(origin, send)
            return
        sending = with_origin(send, origin) if origin else send
        methods = self.endpoints.get(path)
        if context.settings.auth_issuer and path != SMART_CONFIGURATION:
            methods = None  # another issuer takes the place of this one
        bare = scope["method"] == "HEAD"
        try:
            if methods is None:
                answer = json_answer({"error": "not_found"}, 404)
            elif (endpoint := methods.get("GET" if bare else scope["method"])) is None:
                answer = replace(_not_allowed(methods), body=b"")
            else:
                answer = await endpoint(await _call(scope, receive, context))
        except Disconnected:
            return
        except OAuthError as error:
            answer = refusal(error)
        except FhirError as error:  # no database, a body too large, asked too often
            answer = _unanswered(error)
        except Exception as error:  # noqa: BLE001 - outermost shell: the next call is answered
            request_id = context.new_id()
            log_failure(request_id, error)
            text = f"The server failed on this; its log has the reason under {request_id}."
            answer = refusal(OAuthError("server_error", text, 500))
        await _send(sending, answer, bare=bare)

    async def _origin(self, scope: Any, context: Context) -> bytes:
        origin = next((value for name, value in scope["headers"] if name == b"origin"), b"")
        if not origin or scope["path"] in self.public:
            return b"*" if origin else b""
        try:
            registered = await context.accounts.clients.origins()
        except FhirError:
            return b""  # the database is not there, as the answer will say
        return origin if origin.decode("latin-1") in registered else b""


async def _call(scope: Any, receive: Any, context: Context) -> Call:
    headers = dict(scope["headers"])
    call = Call(
        scope["method"],
        scope["path"],
        headers,
        context,
        scope.get("scheme", "http"),
        address=(scope.get("client") or ("",))[0],
    )
    query = scope["query_string"]
    if len(query) > _QUERY_BYTES_MAX:
        raise OAuthError("invalid_request", "The query is too long.", 414)
    call = replace(call, query=form_of(query))
    if scope["method"] != "POST":
        return call
    try:
        async with asyncio.timeout(_BODY_TIMEOUT_S):
            text = await read_body(receive, headers, BODY_BYTES_MAX)
    except TimeoutError as error:
        raise OAuthError("invalid_request", "The body did not come in time.", 408) from error
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")
    if kind == FORM:
        return replace(call, form=form_of(text))
    return replace(call, text=text)


def _not_allowed(methods: Mapping[str, Endpoint]) -> Answer:
    return Answer(405, headers=(("Allow", ", ".join(methods)), ("Cache-Control", "no-store")))


def _unanswered(error: FhirError) -> Answer:
    is_passing = error.status >= 500 or error.status == _TOO_MANY
    name = "temporarily_unavailable" if is_passing else "invalid_request"
    answer = refusal(OAuthError(name, error.issues[0].diagnostics, error.status))
    return replace(answer, headers=(*answer.headers, *error.headers))


async def _send(send: Any, answer: Answer, *, bare: bool) -> None:
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in answer.headers]
    headers += [
        (b"content-type", answer.content_type.encode()),
        (b"content-length", str(len(answer.body)).encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if bare else answer.body})


def authorization(*endpoints: Endpoints, public: frozenset[str] = frozenset()) -> Authorization:
    """Return the application of the tables ``endpoints``, whose paths are each there once."""
    joined: dict[str, Mapping[str, Endpoint]] = {}
    for table in endpoints:
        for path, methods in table.items():
            assert path not in joined, f"{path} is there twice"
            joined[path] = methods
    return Authorization(joined, public)


SMART_CONFIGURATION = f"{FHIR_PATH}/.well-known/smart-configuration"
PATHS = (f"{AUTH_PATH}/", "/.well-known/", SMART_CONFIGURATION)
"""Where the application is."""
