"""The demo app of development: a page that asks for access and shows what an app would get.

It is there where the client ``demo-app`` is registered, which a start in development sees to. Its
code verifier is known to everybody, so it is good for trying out and for nothing else.
"""

from urllib.parse import urlencode

from fhir_server.http.authorize.exchange import AUTH_PATH, Answer, Call
from fhir_server.http.authorize.html import page
from fhir_server.http.authorize.login import AUTHORIZE
from fhir_server.markup import html
from fhir_server.security.oauth import challenge_of

DEMO = f"{AUTH_PATH}/demo"
_CLIENT = "demo-app"
_VERIFIER = "this-verifier-is-for-trying-out-and-no-secret"
_SCOPE = "openid fhirUser launch/patient patient/*.rs online_access"


async def demo(call: Call) -> Answer:
    """Show how to begin; with a code, how to exchange it; with an error, what it says."""
    given = dict(call.query)
    client = await call.context.accounts.clients.client(_CLIENT)
    if call.context.settings.mode != "development" or client is None:
        main = html("<h1>There is no demo app here</h1>")
        return page("Demo app", main, status=404)
    if "error" in given:
        main = html(
            "<h1>No access</h1><p>{error}: {text}</p>",
            error=given["error"][:100],
            text=given.get("error_description", "")[:500],
        )
        return page("Demo app", main)
    if "code" in given:
        return _exchange(call, given["code"][:200])
    return _begin(call, given.get("launch", "")[:200])


def _begin(call: Call, launch: str) -> Answer:
    asked = {
        "response_type": "code",
        "client_id": _CLIENT,
        "redirect_uri": f"{call.issuer}{DEMO}",
        "scope": _SCOPE.replace("launch/patient", "launch") if launch else _SCOPE,
        "state": "demo",
        "aud": call.base,
        "code_challenge": challenge_of(_VERIFIER),
        "code_challenge_method": "S256",
    } | ({"launch": launch} if launch else {})
    main = html(
        '<h1>Demo app</h1><p>An app begins by sending you here: <a href="{url}">ask for access</a>'
        "</p>",
        url=f"{AUTHORIZE}?{urlencode(asked)}",
    )
    return page("Demo app", main)


def _exchange(call: Call, code: str) -> Answer:
    form = {
        "grant_type": "authorization_code",
        "client_id": _CLIENT,
        "redirect_uri": f"{call.issuer}{DEMO}",
        "code_verifier": _VERIFIER,
        "code": code,
    }
    main = html(
        """<h1>Access was granted</h1>
<p>The app has a code, which is good once and for a minute. It exchanges it for a token:</p>
<p><code>curl -d '{form}' {token}</code></p>
<p>and asks with what is called <code>access_token</code> there:</p>
<p><code>curl -H 'Authorization: Bearer …' '{base}/Observation?_count=3'</code></p>""",
        form=urlencode(form),
        token=call.endpoint("token"),
        base=call.base,
    )
    return page("Demo app", main)
