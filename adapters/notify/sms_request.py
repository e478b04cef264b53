"""How an SMS gateway is called: a site's JSON file -> the request for one message. Pure.

```json
{"url": "https://gateway.example/api/v1/send", "method": "POST",
 "headers": {"Authorization": "Bearer {secret}"},
 "json": {"to": "{to}", "text": "{text}", "reference": "{key}"},
 "accepted": {"path": ["status"], "values": ["ok", 0]}}
```

In place of ``json`` there may be ``form`` or ``query``: names and texts. The names in braces are
``to``, ``text``, ``key`` and ``secret``; they are replaced inside the texts of the file, which are
encoded afterwards: what a message says cannot become another field, header or address. The URL has
none of them. A gateway that answers 200 to what it refuses is told by ``accepted``: where in its
answer which values mean that it took the message.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlencode, urlsplit

NAMES = ("to", "text", "key", "secret")
_NAME = re.compile(r"\{(to|text|key|secret)\}")
_MEMBERS = {"url", "method", "headers", "json", "form", "query", "accepted", "refused"}
_HERE = ("127.0.0.1", "::1", "localhost")
_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9\-]{0,63}")
_FINAL = range(400, 500)
_LATER = (401, 403, 404, 408, 409, 425, 429)

Outcome = Literal["taken", "later", "never"]


class GatewayFault(ValueError):
    """What is wrong with the file; the text names it, and no secret."""


@dataclass(frozen=True, slots=True, repr=False)  # the secret is in what is made of it
class Gateway:
    """A gateway as its file says; ``form`` is how ``body`` is written: ``json``, ``form``,
    ``query``."""

    url: str
    method: str
    headers: Mapping[str, str]
    form: str
    body: Any
    path: tuple[str | int, ...] = ()
    values: tuple[Any, ...] = ()
    refused: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, repr=False)  # the secret is in it
class Call:
    """One request to a gateway."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    query: Mapping[str, str]


def gateway(text: str) -> Gateway:
    """Return the gateway that a file describes. Raises :class:`GatewayFault`."""
    try:
        given = json.loads(text)
    except ValueError as error:
        raise GatewayFault("the file of the SMS gateway is no JSON") from error
    if not isinstance(given, dict) or not given.keys() <= _MEMBERS:
        raise GatewayFault(f"the file of the SMS gateway has more than {sorted(_MEMBERS)}")
    url, method = given.get("url"), given.get("method", "POST")
    parts = urlsplit(url if isinstance(url, str) else "")
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _HERE)
    if not isinstance(url, str) or not is_safe or "{" in url or parts.username:
        raise GatewayFault("url is to be https, without names in braces and without a user")
    if method not in ("POST", "PUT", "GET"):
        raise GatewayFault("method is to be POST, PUT or GET")
    forms = [one for one in ("json", "form", "query") if one in given]
    if len(forms) != 1 or (method == "GET" and forms != ["query"]):
        raise GatewayFault("there is to be one of json, form, query; of a GET, query")
    if forms == ["query"] and parts.query:
        raise GatewayFault("what url has as its query belongs into query")
    headers = _texts(given.get("headers", {}), "headers")
    for name, value in headers.items():
        if not _HEADER.fullmatch(name) or set(_NAME.findall(value)) - {"secret", "key"}:
            raise GatewayFault(f"header {name[:40]!r} may have secret and key only")
    body = given[forms[0]] if forms[0] == "json" else _texts(given[forms[0]], forms[0])
    accepted = given.get("accepted", {})
    if not isinstance(accepted, dict) or not accepted.keys() <= {"path", "values"}:
        raise GatewayFault("accepted has path and values")
    return Gateway(
        *(url, method, headers, forms[0], body),
        tuple(accepted.get("path", ())),
        tuple(accepted.get("values", ())),
        frozenset(given.get("refused", ())),
    )


def call_of(gateway: Gateway, to: str, text: str, key: str, secret: str) -> Call:
    """Return the request that has ``text`` sent to ``to``."""
    values = {"to": to, "text": text, "key": key, "secret": secret}
    headers = {name: _line(_filled(one, values)) for name, one in gateway.headers.items()}
    headers["Idempotency-Key"] = key
    filled = _filled(gateway.body, values)
    body, query = b"", {}
    if gateway.form == "json":
        headers["Content-Type"] = "application/json"
        body = json.dumps(filled, ensure_ascii=False).encode()
    elif gateway.form == "form":
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        body = urlencode(filled).encode()
    else:
        query = filled
    return Call(gateway.method, gateway.url, headers, body, query)


def outcome(gateway: Gateway, status: int, body: bytes) -> Outcome:
    """Return what the answer of a gateway means: the message was taken, is to be sent later, or is
    never taken. What a wrong secret or path brings about is mended, and so is not never."""
    if status in gateway.refused:
        return "never"
    if 200 <= status < 300:
        return "taken" if _is_accepted(gateway, body) else "later"
    return "never" if status in _FINAL and status not in _LATER else "later"


def _is_accepted(gateway: Gateway, body: bytes) -> bool:
    if not gateway.path:
        return True
    try:
        found: Any = json.loads(body)
        for step in gateway.path:
            found = found[step]
    except (ValueError, LookupError, TypeError):
        return False
    return any(type(one) is type(found) and one == found for one in gateway.values)


def _filled(template: Any, values: Mapping[str, str]) -> Any:
    """Return ``template`` with the names replaced in its texts, each once: a value that has braces
    itself stays as it is."""
    if isinstance(template, str):
        return _NAME.sub(lambda match: values[match[1]], template)
    if isinstance(template, dict):
        return {name: _filled(one, values) for name, one in template.items()}
    if isinstance(template, list):
        return [_filled(one, values) for one in template]
    return template


def _line(text: str) -> str:
    return "".join(one for one in text if one.isprintable())


def _texts(given: Any, name: str) -> dict[str, str]:
    if not isinstance(given, dict) or not all(isinstance(one, str) for one in given.values()):
        raise GatewayFault(f"{name} is to have names and texts")
    return given
