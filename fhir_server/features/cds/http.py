"""``/cds-services``: discovery, services and feedback, as a plain ASGI application.

https://cds-hooks.hl7.org/2.0/; design/cds.md, sections 3 and 13.
"""

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from fhir_server.asgi import received
from fhir_server.context import Context
from fhir_server.features.cds.elsewhere import BYTES_MAX, other_source
from fhir_server.features.cds.feedback import feedback_items
from fhir_server.features.cds.keys import BYTES_MAX as KEY_BYTES_MAX
from fhir_server.features.cds.keys import TIMEOUT_S, NoKeys, PublishedKeys
from fhir_server.features.cds.prefetch import is_plain_id
from fhir_server.features.cds.reading import Source, own_bases, own_source
from fhir_server.features.cds.record import Recorder, row_of
from fhir_server.features.cds.request import HookRequest, hook_request
from fhir_server.features.cds.services import Answer, DrugSafety
from fhir_server.features.cds.trust import (
    LOOPBACK,
    Claim,
    Client,
    Untrusted,
    claim_of,
    load_clients,
    named_by,
)
from fhir_server.interactions.recording import before_the_door, by_another_door
from fhir_server.outcome import FhirError, Issue, operation_outcome, shown
from fhir_server.r4.json import decode, encode
from fhir_server.registry import Service
from fhir_server.remote.fetching import Fetcher, Unfetched, fetching
from fhir_server.security.audit import Row
from fhir_server.security.principal import NOBODY, Principal
from fhir_server.security.scopes import scopes_of
from fhir_server.settings import Settings, covers
from fhir_server.store.cds import claim_token, keep_feedback

PATH = "/cds-services"
_LOG = logging.getLogger("fhir_server.cds")
_JSON = (b"content-type", b"application/json; charset=utf-8")
_HEADERS_ALLOWED = b"Authorization, Content-Type"
_ALL_READ = scopes_of("system/*.rs")  # as far as the role ``cds`` says

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class _Call:
    """One HTTP request: whose, and where to."""

    scope: Any
    context: Context
    headers: Mapping[bytes, bytes]
    service: str = ""
    is_feedback: bool = False

    @property
    def origin(self) -> str:
        return self.headers.get(b"origin", b"").decode("latin-1")

    def at(self, principal: Principal) -> Principal:
        """Return ``principal`` as it calls from where this request comes from."""
        return principal.at(str((self.scope.get("client") or ("",))[0]), "")

    @property
    def root(self) -> str:
        """What the client calls this server, without the path."""
        if base := self.context.settings.base_url:
            return base.rstrip("/").removesuffix("/fhir")
        host = self.headers.get(b"host", b"").decode("latin-1")
        return f"{self.scope.get('scheme', 'http')}://{host}"


class Endpoint:
    """Answers everything at and below ``/cds-services``."""

    def __init__(self, hooks: Mapping[str, Service], safety: DrugSafety) -> None:
        """Serve ``hooks``, which may grow until the server starts."""
        self._hooks = hooks
        self._safety = safety
        self._clients: Mapping[str, Client] | None = None
        self.recorder = Recorder()
        self.fetcher: Fetcher | None = None
        self._published = PublishedKeys(self._key_set, (Unfetched,))

    def clients(self, settings: Settings) -> Mapping[str, Client]:
        """Return the registered clients by issuer."""
        if self._clients is None:
            is_trying = _is_for_trying(settings)
            self._clients = load_clients(settings.cds_clients, is_trying=is_trying)
        return self._clients

    def named_urls(self) -> list[str]:
        """Return the URLs that the file of clients names: of key sets and of FHIR servers."""
        known = (self._clients or {}).values()
        return [url for one in known for url in (one.keys_url, *one.fhir_servers) if url]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one HTTP request; whatever happens, there is an answer."""
        context: Context = scope["fhir_server.context"]
        parts = scope["path"].strip("/").split("/")
        call = _Call(
            scope,
            context,
            dict(scope["headers"]),
            parts[1] if len(parts) > 1 else "",
            len(parts) == 3 and parts[2] == "feedback",
        )
        said = self._cors(call)
        try:
            status, body = await self._answered(call, len(parts), receive)
            await _send(send, status, body, said)
        except FhirError as error:
            called = (scope["method"], scope["path"], scope.get("query_string", b""))
            with suppress(FhirError):  # it is answered all the same
                await before_the_door(context, call.at(NOBODY), called, error)
            outcome = encode(operation_outcome(error.issues))
            more = [(n.lower().encode(), v.encode()) for n, v in error.headers]
            await _send(send, error.status, outcome, [*said, *more])
        except Exception as error:  # noqa: BLE001 - outermost shell: the next call is answered
            request_id = context.new_id()
            _LOG.error('"cds request %s failed: %s"', request_id, type(error).__name__)
            failed = FhirError(Issue("exception", f"The server failed; request {request_id}."))
            await _send(send, 500, encode(operation_outcome(failed.issues)), said)

    async def _answered(self, call: _Call, parts: int, receive: Any) -> tuple[int, bytes]:
        method = call.scope["method"]
        if parts > 3 or (parts == 3 and not call.is_feedback):
            raise FhirError(Issue("not-found", "There is nothing here."))
        if method == "OPTIONS":
            return 204, b""
        _check_https(call)
        expected = "POST" if call.service else "GET"
        if method != expected and not (method == "HEAD" and expected == "GET"):
            said = f"{method} is not possible here; use {expected}."
            allow = (("Allow", f"{expected}, OPTIONS"),)
            raise FhirError(Issue("not-supported", said), status=405, headers=allow)
        if not call.service:
            return 200, encode(await self._discovery(call))
        service = self._services(call.context.settings).get(call.service)
        claim = await self._trusted(call)
        if service is None:
            known = f"There is no service {shown(call.service)}; see {PATH}."
            raise FhirError(Issue("not-found", known))
        if claim is not None and not claim.client.may(service.id):
            raise FhirError(Issue("forbidden", "This service is not open to this client."))
        limit = call.context.settings.cds_body_bytes_max
        body = decode(await received(receive, limit), depth_max=call.context.settings.depth_max)
        if call.is_feedback:
            return 200, await self._feedback(body, service, call)
        return 200, await self._cards(body, service, claim, call)

    def _services(self, settings: Settings) -> dict[str, Service]:
        return {id: one for id, one in self._hooks.items() if covers(settings.cds_services, id)}

    async def _discovery(self, call: _Call) -> dict[str, Any]:
        settings = call.context.settings
        claim = None
        if not settings.cds_discovery_public or b"authorization" in call.headers:
            claim = await self._trusted(call)
        found = []
        for one in self._services(settings).values():
            if claim is not None and not claim.client.may(one.id):
                continue
            entry: dict[str, Any] = {
                "hook": one.hook,
                "id": one.id,
                "title": one.title,
                "description": one.description,
            }
            if one.prefetch:
                entry["prefetch"] = dict(one.prefetch)
            if settings.cds_hooks_version == "3.0":
                entry |= {"version": "1.0", "hookVersion": "1.0"}
            found.append(entry)
        return {"services": found}

    async def _cards(self, body: Any, service: Service, claim: Claim | None, call: _Call) -> bytes:
        request = hook_request(body, service.hook)
        await self._noted(request, service, claim, call)
        source = self._source(request, claim, call)
        began = time.monotonic()
        answer = await service.handler(request, source, call.context)
        if not isinstance(answer, Answer):  # a service of another feature returns cards
            return encode({"cards": list(answer)})
        row = row_of(
            service.id,
            request,
            answer,
            call.context,
            milliseconds=round((time.monotonic() - began) * 1000),
            iss=claim.client.iss if claim else "",
            tenant=claim.tenant if claim else "",
        )
        self.recorder.add(row, call.context)
        return encode({"cards": [card.json for card in answer.cards]})

    async def _noted(
        self, request: HookRequest, service: Service, claim: Claim | None, call: _Call
    ) -> None:
        """Record the call: what a client has brought of a patient is judged, and never read."""
        patient = str(request.context.get("patientId", "")).removeprefix("Patient/")
        is_ours = not request.fhir_server or self._is_own(request.fhir_server, call)
        concerns = [f"Patient/{patient}"] if is_ours and is_plain_id(patient) else []
        by = call.at(_as_client(claim, call.context).principal)
        said = f"{PATH[1:]}/{service.id}"
        row = Row(call.context.now(), "$cds-hook", by, concerns=concerns, query=said)
        await by_another_door(call.context, row)

    def _source(self, request: HookRequest, claim: Claim | None, call: _Call) -> Source | None:
        """Return where missing data may be read: our own store, or a server that is registered for
        this client, and no URL that nobody listed."""
        server, settings = request.fhir_server, call.context.settings
        if not server:
            return None
        if self._is_own(server, call):
            return own_source(_as_client(claim, call.context), server)
        if claim is None or server not in claim.client.fhir_servers:
            return None
        seconds = settings.cds_deadline_ms / 1000

        async def fetch(url: str, token: str) -> bytes:
            return await self._fetched(url, bytes_max=BYTES_MAX, timeout_s=seconds, token=token)

        return other_source(server, request.token, fetch, (Unfetched,), settings.depth_max)

    def _is_own(self, server: str, call: _Call) -> bool:
        return server in (*own_bases(call.context.settings), f"{call.root}/fhir")

    async def _key_set(self, url: str) -> bytes:
        return await self._fetched(url, bytes_max=KEY_BYTES_MAX, timeout_s=TIMEOUT_S)

    async def _fetched(self, url: str, **within: Any) -> bytes:
        if self.fetcher is not None:
            return await self.fetcher.get(url, **within)
        async with fetching(
            self.named_urls()
        ) as once:  # nothing is kept open before the server has started
            return await once.get(url, **within)

    async def _feedback(self, body: Any, service: Service, call: _Call) -> bytes:
        items = feedback_items(body, service.id, call.context.now())
        await self.recorder.ready(call.context)
        await self.recorder.written()
        unknown = await keep_feedback(call.context.store.database, items)
        if unknown:
            _LOG.info('"feedback on %d cards that are not known"', unknown)
        return b"{}"

    async def _trusted(self, call: _Call) -> Claim | None:
        """Return what the caller's token says; ``None`` where none is needed. Raises 401."""
        settings = call.context.settings
        clients = self.clients(settings)
        said = call.headers.get(b"authorization", b"").decode("latin-1")
        if not said and not clients and _is_for_trying(settings):
            return None
        try:
            scheme, _, token = said.partition(" ")
            if scheme.lower() != "bearer":
                raise Untrusted("there is no token")
            claim = await self._claim(token.strip(), clients, call)
            await self.recorder.ready(call.context)
            name = f"{claim.client.iss} {claim.jti}"
            database = call.context.store.database
            if not await claim_token(database, name, call.context.now(), claim.seconds):
                raise Untrusted("it was used before")
        except (Untrusted, NoKeys) as error:
            _LOG.info('"a cds call is refused: %s"', error)
            issue = Issue("login", "A token of a registered client is needed.")
            headers = (("WWW-Authenticate", "Bearer"),)
            raise FhirError(issue, headers=headers) from error
        return claim

    async def _claim(self, token: str, clients: Mapping[str, Client], call: _Call) -> Claim:
        named = named_by(token, clients)
        client = named.client
        keys = client.keys
        if keys is None:
            keys = await self._published.keys(client.keys_url, named.kid, client.algorithm)
        now = call.context.now().timestamp()
        return claim_of(token, self._audiences(call), client, keys, now)

    def _audiences(self, call: _Call) -> tuple[str, ...]:
        """Return what the audience of a token has to be: the URL that is called."""
        return (f"{call.root}{call.scope['path'].rstrip('/')}",)

    def _cors(self, call: _Call) -> Headers:
        """Discovery is for every origin, services and feedback for those of the clients."""
        if not call.origin:
            return []
        settings = call.context.settings
        origins = set(settings.cors_origins)
        for client in self.clients(settings).values():
            origins.update(client.origins)
        is_any = not call.service or "*" in origins
        if not is_any and call.origin not in origins:
            return [(b"vary", b"Origin")]
        said: Headers = [
            (b"vary", b"Origin"),
            (b"access-control-allow-origin", b"*" if is_any else call.origin.encode("latin-1")),
        ]
        if call.scope["method"] == "OPTIONS":
            said += [
                (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
                (b"access-control-allow-headers", _HEADERS_ALLOWED),
                (b"access-control-max-age", b"600"),
            ]
        return said


def _check_https(call: _Call) -> None:
    """https://cds-hooks.hl7.org/2.0/#security-and-safety: what is known of patients goes by TLS."""
    if call.context.settings.mode == "production" and not call.root.startswith("https://"):
        said = (
            "In production CDS Hooks is answered over https only; FHIR_BASE_URL says by which "
            "https URL this server is reached."
        )
        raise FhirError(Issue("security", said), status=403)


async def _send(send: Any, status: int, body: bytes, more: Headers) -> None:
    headers = [*more]
    if status != 204:
        headers += [_JSON, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _is_for_trying(settings: Settings) -> bool:
    """Whether calls without a token are taken: in development, on this machine only."""
    return settings.mode == "development" and settings.host in LOOPBACK


def _as_client(claim: Claim | None, context: Context) -> Context:
    """Return ``context`` as the client whose claim was verified: it reads what decision support
    needs. Where no client is asked who it is, this server reads for itself."""
    if claim is None:
        return context
    name = f"cds/{claim.client.iss}"
    return replace(context, principal=Principal("client", name, scopes=_ALL_READ, roles=("cds",)))
