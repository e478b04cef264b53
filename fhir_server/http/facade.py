"""The FHIR base as one ASGI application: an HTTP request in, the front door, an HTTP answer out.

https://hl7.org/fhir/R4/http.html
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Container, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from traceback import extract_tb
from typing import Any

import re2 as re

from fhir_server.http import binary
from fhir_server.http.body import Disconnected, Receive, body_pieces
from fhir_server.http.intake import Bodies, Intake
from fhir_server.http.negotiate import (
    FHIR_JSON,
    FORM,
    accepted,
    accepts_gzip,
    is_xml,
    may_be_fhir,
    patch_format,
    sends_xml,
)
from fhir_server.http.remembered import remembered
from fhir_server.http.render import Rendering, render
from fhir_server.http.sending import Send, streamed
from fhir_server.http.verbatim import verbatim
from fhir_server.messages import Parameters, Pieces, Request, Resource, Response
from fhir_server.outcome import FhirError, Issue, invalid_value, operation_outcome, too_large
from fhir_server.patch.formats import FHIRPATH_PATCH, as_binary
from fhir_server.r4.headers import (
    entity_tags,
    http_date_or_instant,
    idempotency_key,
    override_reason,
    preferences,
)
from fhir_server.r4.json import decode, encode
from fhir_server.r4.xml import Xml
from fhir_server.route import FORM_PARAMETERS, allowed, decoded, query_parameters, route
from fhir_server.security.principal import NOBODY, Principal
from fhir_server.settings import Settings

Perform = Callable[[Request, Principal], Awaitable[Response]]
Headers = Mapping[bytes, bytes]
Identify = Callable[[Headers], Awaitable[Principal]]
"""Who asks, by the headers of a request. Raises ``login`` (401) for a token that is not good."""

_log = logging.getLogger("fhir_server.access")
_failures = logging.getLogger("fhir_server.failures")

_WITH_BODY = ("POST", "PUT", "PATCH")
_HOST = re.compile(
    r"[A-Za-z0-9\.\-_]{1,253}(?::[0-9]{1,5})?|\[[0-9A-Fa-f:\.]{2,45}\](?::[0-9]{1,5})?"
)
_REQUEST_ID = re.compile(r"[A-Za-z0-9\-\._]{1,64}")
_XML_APART_BYTES = 262_144  # some 30 ms of reading or writing: more of it does not hold up others
_BODY_TIMEOUT_S = 60.0  # a client that sends a byte a second does not hold a connection for long


Refused = Callable[[Principal, tuple[str, str, bytes], FhirError], Awaitable[None]]
"""Records a refusal of what did not come to the front door: method, path, query."""
Admit = Callable[[Principal, str, float], None]
"""Counts a request of a principal from an address at a time. Raises status 429."""


def _none_is(operation: str) -> bool:
    return False


async def _unrecorded(
    _principal: Principal, _called: tuple[str, str, bytes], _error: FhirError
) -> None:
    return


def _everybody(principal: Principal, address: str, now: float) -> None:
    """Count nobody."""


@dataclass(frozen=True, slots=True)
class Facade:
    """Answers what comes below ``path`` (``/fhir``). ``perform`` is the front door, ``served`` are
    the interactions behind it; ``xml`` returns what reads and writes XML; ``identify`` says who
    asks; ``is_native`` of an operation whether its Binaries come and go by their own content
    type. ``refused`` is told of what did not come to the front door; ``admit`` refuses who asks
    too often; ``bodies`` are those that this process holds."""

    path: str
    perform: Perform
    settings: Settings
    new_id: Callable[[], str]
    served: Container[str]
    xml: Callable[[], Xml]
    identify: Identify
    is_native: Callable[[str], bool] = _none_is
    refused: Refused = _unrecorded
    admit: Admit = _everybody
    bodies: Bodies = field(default_factory=Bodies)

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer one HTTP request; whatever happens, there is an answer and a line in the log."""
        intake = Intake(receive, self.bodies)
        try:
            await self._exchanged(scope, intake, send)
        finally:
            intake.release()

    async def _exchanged(self, scope: Any, receive: Intake, send: Send) -> None:
        began = time.perf_counter()
        headers = _by_name(scope["headers"])
        request_id = sent_id(headers) or self.new_id()
        wish = self._first_wish(headers, self._base_url(scope, headers))
        size, pieces = -1, None
        try:
            interaction, response, wish = await self._answer(
                scope, receive, headers, wish, request_id
            )
            if response.media_type:
                sent = verbatim(response, wish)
                response, rendered, body = sent.response, sent.headers, sent.body
                size, pieces = sent.size, sent.pieces
            elif wish.native or response.pieces is not None:
                # RFC 9110, 14.2: a range is for GET alone; HEAD tells of the whole.
                ranged = headers if scope["method"] == "GET" else {**headers, b"range": b""}
                sent = binary.outgoing(response, wish, ranged)
                response, rendered, body = sent.response, sent.headers, sent.body
                size, pieces = sent.size, sent.pieces
            elif wish.xml is not None and len(response.body) > _XML_APART_BYTES:
                rendered, body = await asyncio.to_thread(render, response, wish)
            else:
                rendered, body = render(response, wish)
        except Disconnected:
            return
        except Exception as error:  # noqa: BLE001 - outermost shell: the next request is served whatever this met
            log_failure(request_id, error)
            interaction, response = "", _failed(request_id)
            rendered, body = render(response, wish)
            pieces = None
        rendered.append((b"x-request-id", request_id.encode()))
        await send({"type": "http.response.start", "status": response.status, "headers": rendered})
        bare = scope["method"] == "HEAD"
        if pieces is not None and not bare:
            try:
                whole = await streamed(send, receive, pieces)
            except Exception as error:  # noqa: BLE001 - the answer has begun, so nothing else can be said
                log_failure(request_id, error)
                return
            if not whole:
                return
        await send({"type": "http.response.body", "body": b"" if bare else body})
        if _log.isEnabledFor(logging.INFO):
            milliseconds = round((time.perf_counter() - began) * 1000, 1)
            _log.info(
                '{"request":"%s","method":"%s","interaction":"%s","status":%d,"ms":%s,"bytes":%d}',
                *(request_id, _word(scope["method"]), interaction, response.status),
                *(milliseconds, len(body) if pieces is None else size),
            )

    def _first_wish(self, headers: Headers, base_url: str) -> Rendering:
        """Return how to answer what is refused before its parameters are known."""
        accept = headers.get(b"accept", b"")
        if b"xml" in accept:
            with suppress(FhirError):
                wanted = accepted(accept.decode("latin-1"), None)
                return Rendering(wanted, base_url, xml=self.xml() if is_xml(wanted) else None)
        return Rendering(f"{FHIR_JSON};charset=utf-8", base_url)

    async def _answer(
        self, scope: Any, receive: Intake, headers: Headers, wish: Rendering, request_id: str
    ) -> tuple[str, Response, Rendering]:
        """Return the interaction, its answer or refusal, and how the client wants it."""
        interaction, inside = "", False
        principal = NOBODY
        address = scope["client"][0] if scope.get("client") else ""
        try:
            self._check_headers(scope["headers"])
            _check_site(scope["method"], headers)
            path = scope["path"][len(self.path) :]
            principal = (await self._identified(headers, address)).at(address, request_id)
            if not principal.is_unrestricted:
                self.admit(principal, address, time.monotonic())
            native = binary.asked_natively(scope["method"], path, headers)
            native = native or binary.called_natively(path, headers, self.is_native)
            accepting = {**headers, b"accept": b""} if native else headers
            parameters, wish = self._wishes(scope, accepting, wish)
            if native:
                wish = replace(wish, native=binary.still_native(parameters, wish))
            request, wish = await self._request(scope, receive, headers, parameters, wish)
            interaction, inside = request.interaction, True
            response = await self.perform(request, principal)
            if wish.native and interaction.startswith("$"):
                wish = replace(wish, native=binary.is_one(response))
            return interaction, response, wish
        except FhirError as error:
            if not inside:
                called = (scope["method"], scope["path"][len(self.path) :], scope["query_string"])
                await self.refused(principal.at(address, request_id), called, error)
            return interaction, self._refused(error, scope), wish

    async def _identified(self, headers: Headers, address: str) -> Principal:
        """Return who asks. A token that is refused is counted with the network it came from."""
        try:
            return await self.identify(headers)
        except FhirError as error:
            if error.status == 401:
                self.admit(NOBODY, address, time.monotonic())
            raise

    def _refused(self, error: FhirError, scope: Any) -> Response:
        issues, headers = error.issues, error.headers
        if error.status == 405 and not error.headers:
            methods = ", ".join(allowed(scope["path"][len(self.path) :], self.served))
            headers = (*headers, ("Allow", methods))
            [first, *rest] = issues
            text = f"{first.diagnostics} Here possible is {methods or 'nothing'}."
            issues = (replace(first, diagnostics=text), *rest)
        return Response(error.status, encode(operation_outcome(issues)), headers=headers)

    def _check_headers(self, pairs: list[tuple[bytes, bytes]]) -> None:
        """Refuse more than the limits. https://www.rfc-editor.org/rfc/rfc6585#section-5"""
        limit = self.settings.headers_max
        if len(pairs) > limit:
            error = too_large("The number of headers", limit, "headers")
            raise FhirError(*error.issues, status=431)
        limit = self.settings.headers_bytes_max
        if sum(len(name) + len(value) for name, value in pairs) > limit:
            error = too_large("All headers together", limit)
            raise FhirError(*error.issues, status=431)

    def _base_url(self, scope: Any, headers: Headers) -> str:
        if self.settings.base_url:
            return self.settings.base_url.rstrip("/")
        host = _host(headers.get(b"host", b"")) or f"{self.settings.host}:{self.settings.port}"
        return f"{scope['scheme']}://{host}{self.path}"

    def _wishes(
        self, scope: Any, headers: Headers, wish: Rendering, form: Parameters = ()
    ) -> tuple[Parameters, Rendering]:
        """Return the parameters of query and ``form``, without those about how to answer."""
        query = scope["query_string"]
        limit = self.settings.url_bytes_max
        if len(query) + len(scope["path"]) > limit:
            raise FhirError(
                Issue("too-long", f"The URL is over {limit:,} bytes; search with POST _search."),
                status=414,
            )
        parameters = form_of(query) if query else ()
        rest, wish = _taken(parameters + form, headers, wish, self.settings.compress_bytes_min)
        xml = self.xml() if is_xml(wish.content_type) else None
        return rest, wish if wish.xml is xml else replace(wish, xml=xml)

    async def _request(
        self,
        scope: Any,
        receive: Intake,
        headers: Headers,
        parameters: Parameters,
        wish: Rendering,
    ) -> tuple[Request, Rendering]:
        method = scope["method"]
        routed = route("GET" if method == "HEAD" else method, _path(scope)[len(self.path) :])
        body = pieces = None
        text = b""
        if method in _WITH_BODY and binary.takes_natively(routed):
            body, pieces = await self._binary(receive, routed, headers)
        elif method in _WITH_BODY:
            text = await self._body(receive, headers)
            if routed.interaction.startswith("search-"):
                parameters, wish = self._wishes(scope, headers, wish, _form_body(text, headers))
            elif method == "PATCH":
                body = await self._patch(text, headers)
            elif self.is_native(routed.interaction) and may_be_fhir(headers) is False:
                body, text = binary.with_data(binary.described(routed, headers), text), b""
            elif text or not routed.interaction.startswith("$"):
                body = await self._resource(text, headers)
        request = Request(
            *(routed.interaction, routed.type, routed.id, routed.version, body, parameters),
            base_url=wish.base_url,
            format=wish.format,
            reading=routed.reading,
            pieces=pieces,
            text=text if routed.interaction.startswith("$") else b"",
            **({} if _CONDITIONS.isdisjoint(headers) else _conditions(headers)),
        )
        return request, wish

    async def _resource(self, text: bytes, headers: Headers) -> Resource:
        depth_max = self.settings.depth_max
        # Where nothing is sent, nothing says what it is: that the body is missing is the fault.
        says_type = bool(text) or b"content-type" in headers
        if not (says_type and sends_xml(headers)):
            return decode(text, depth_max=depth_max)
        read = partial(self.xml().decode, text, depth_max=depth_max)
        return await asyncio.to_thread(read) if len(text) > _XML_APART_BYTES else read()

    async def _binary(
        self, receive: Intake, routed: Request, headers: Headers
    ) -> tuple[Resource, Pieces | None]:
        """Return the Binary that is sent; or what it is without its data, and the pieces of those.

        https://hl7.org/fhir/R4/binary.html#rest: what is FHIR is a content like any other, "except
        for the special case where the content is actually a Binary resource".
        """
        said = may_be_fhir(headers)
        if said is False:
            described = binary.described(routed, headers)
            limit = self.settings.binary_bytes_max
            return described, body_pieces(receive, headers, limit, _BODY_TIMEOUT_S)
        text = await self._body(receive, headers)
        try:
            resource = await self._resource(text, headers)
            if resource.get("resourceType") == binary.BINARY or b"content-type" not in headers:
                return resource, None
        except FhirError:
            if said:
                raise
        return binary.described(routed, headers), binary.once(text)

    async def _patch(self, text: bytes, headers: Headers) -> Resource:
        """Return the patch as a resource: a Parameters as it is, another kind in a Binary."""
        format = patch_format(headers)
        if format != FHIRPATH_PATCH:
            return as_binary(format, text)
        return await self._resource(text, headers)

    async def _body(self, receive: Intake, headers: Headers) -> bytes:
        return await receive.body(headers, self.settings.body_bytes_max, _BODY_TIMEOUT_S)


_CONDITIONS = frozenset(
    (
        *(b"if-match", b"if-none-match", b"if-modified-since", b"if-none-exist"),
        *(b"prefer", b"idempotency-key", b"x-override-reason"),
    )
)


def _conditions(headers: Headers) -> dict[str, Any]:
    """Return what the headers in :data:`_CONDITIONS` say of a request; most have none of them."""
    return {
        "if_match": entity_tags(_text(headers, b"if-match"), "If-Match"),
        "if_none_match": entity_tags(_text(headers, b"if-none-match"), "If-None-Match"),
        "if_modified_since": http_date_or_instant(_text(headers, b"if-modified-since")),
        "if_none_exist": _text(headers, b"if-none-exist"),
        "prefer": preferences(_text(headers, b"prefer")),
        "idempotency_key": idempotency_key(_text(headers, b"idempotency-key")),
        "override": override_reason(_text(headers, b"x-override-reason")),
    }


@remembered
def _host(sent: bytes) -> str:
    """Return what a client calls this server, ``""`` for what is no host."""
    host = sent.decode("latin-1")
    return host if _HOST.fullmatch(host) else ""


def _check_site(method: str, headers: Headers) -> None:
    """Refuse a change that a page of another site sends through the browser of somebody here.

    Browsers say so in Sec-Fetch-Site; other clients do not send it. A token is none that a browser
    sends by itself.
    """
    if method in ("GET", "HEAD") or headers.get(b"sec-fetch-site") != b"cross-site":
        return
    if b"authorization" not in headers:
        text = "A page of another site may not write here without a token."
        raise FhirError(Issue("forbidden", text))


def _path(scope: Any) -> str:
    """Return the path, which the server has decoded; it would not show an escaped slash."""
    path: str = scope["path"]
    if b"%2f" in scope.get("raw_path", b"").lower():
        decoded(scope["raw_path"].decode("latin-1"))
    return path


def form_of(text: bytes) -> Parameters:
    """Return names and values of a query string or form. Raises ``value`` for what is not UTF-8."""
    if not text.isascii():
        raise invalid_value("The query", text[:80], "percent-encoded UTF-8")
    return query_parameters(text.decode("ascii"))


def _taken(
    parameters: Parameters, headers: Headers, wish: Rendering, compress_bytes_min: int
) -> tuple[Parameters, Rendering]:
    """Take ``_format`` and ``_pretty`` out of ``parameters`` and put them into the rendering."""
    accept = headers.get(b"accept", b"").decode("latin-1")
    gzip = accepts_gzip(headers.get(b"accept-encoding", b"").decode("latin-1"))
    if not parameters:
        kind = accepted(accept, None)
        return (), Rendering(kind, wish.base_url, (), False, gzip, compress_bytes_min, wish.xml)
    formats = [value for name, value in parameters if name == "_format"]
    prettiness = [value for name, value in parameters if name == "_pretty"]
    if any(value not in ("true", "false") for value in prettiness):
        raise invalid_value("_pretty", prettiness[0], "true or false")
    rest = tuple(one for one in parameters if one[0] not in FORM_PARAMETERS)
    return rest, replace(
        wish,
        content_type=accepted(accept, formats[-1] if formats else None),
        format=tuple(one for one in parameters if one[0] in FORM_PARAMETERS),
        pretty="true" in prettiness,
        gzip=gzip,
        compress_bytes_min=compress_bytes_min,
    )


def _form_body(text: bytes, headers: Headers) -> Parameters:
    """Return the parameters of a search by POST. https://hl7.org/fhir/R4/search.html#Introduction"""
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")
    if text and kind != FORM:
        raise FhirError(
            Issue("not-supported", f"A search by POST is sent as Content-Type: {FORM}."), status=415
        )
    return form_of(text)


def _by_name(pairs: list[tuple[bytes, bytes]]) -> Headers:
    """Return headers with repeated ones joined by commas, as RFC 9110, 5.2 has it."""
    once = dict(pairs)
    if len(once) == len(pairs):
        return once
    joined: dict[bytes, bytes] = {}
    for name, value in pairs:
        joined[name] = joined[name] + b", " + value if name in joined else value
    return joined


def _text(headers: Headers, name: bytes) -> str | None:
    value = headers.get(name)
    return None if value is None else value.decode("latin-1")


def sent_id(headers: Headers) -> str:
    """Return the id that a client has given its request, ``""`` for none that can be used."""
    sent = headers.get(b"x-request-id", b"").decode("latin-1")
    return sent if sent and _REQUEST_ID.fullmatch(sent) else ""


def log_failure(request_id: str, error: Exception) -> None:
    """Write what went wrong to the log, in one line: where, and what kind of error.

    Its message is left out: the database's carry whole documents.
    """
    stack = [
        f"{frame.filename}:{frame.lineno} {frame.name}" for frame in extract_tb(error.__traceback__)
    ]
    said = {"request": request_id, "error": type(error).__name__, "stack": stack}
    _failures.error(encode(said).decode())


def _failed(request_id: str) -> Response:
    text = f"The server failed on this request. Its log has the reason under {request_id}."
    return Response(500, encode(operation_outcome([Issue("exception", text)])))


def _word(method: str) -> str:
    return method if method.isalpha() and len(method) < 16 else "?"
