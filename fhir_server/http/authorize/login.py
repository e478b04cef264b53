"""Signing in and out: password, second factor, its first set-up, recovery codes.

design/security.md, section 2.3. An authorization request that was interrupted by this goes along in
a hidden field, as its query, and is judged anew afterwards: whatever is in it, it leads to our own
endpoint and nowhere else.
"""

import math
from base64 import b32encode
from dataclasses import replace
from urllib.parse import urlencode

from fhir_server.http.authorize.exchange import AUTH_PATH, Answer, Call, Headers, form_of, redirect
from fhir_server.http.authorize.html import NOTHING, page
from fhir_server.http.authorize.session import (
    SESSION,
    Visitor,
    cookie,
    field,
    foreign_form,
    no_cookie,
    visitor,
)
from fhir_server.interactions.people import SignedIn, Verdict, Wait
from fhir_server.interactions.recording import note
from fhir_server.markup import Html, html, joined
from fhir_server.security.audit import Row
from fhir_server.security.principal import Kind, Principal
from fhir_server.security.rates import network_of
from fhir_server.security.second_factor import uri

AUTHORIZE = f"{AUTH_PATH}/authorize"
LOGIN = f"{AUTH_PATH}/login"
SECOND = f"{AUTH_PATH}/second-factor"
SET_UP = f"{AUTH_PATH}/set-up"
LOGOUT = f"{AUTH_PATH}/logout"
CONSOLE = f"{AUTH_PATH}/console"
REQUEST = "request"
_REQUEST_CHARACTERS_MAX = 32_768
_NOW = ("login", "select_account")
_WRONG = "Name or password is not right."
_WRONG_CODE = "This code is not right, or was used before. Wait for the next one."


async def login(call: Call) -> Answer:
    """Show the page to sign in."""
    who = await visitor(call)
    if who.signed_in is not None:
        return redirect(CONSOLE)
    return login_page(who)


async def sign_in(call: Call) -> Answer:
    """Judge name and password."""
    who = await visitor(call)
    if not who.may_post():
        return foreign_form()
    asked = request_of(call)
    verdict = await _judged(who)
    await _recorded(call, verdict)
    if not isinstance(verdict, SignedIn):
        said, app = _said(verdict, _WRONG), await _app(call, asked)
        shown = login_page(who, asked, said=said, status=_status(verdict), app=app)
        return replace(shown, headers=(*shown.headers, *_later(verdict)))
    await _follows(who, verdict)
    keep = cookie(call, SESSION, verdict.cookie)
    if verdict.session.is_whole:
        return redirect(onward(asked), keep)
    where = SECOND if verdict.user.is_enrolled else SET_UP
    return redirect(f"{where}?{urlencode({REQUEST: asked})}" if asked else where, keep)


async def _judged(who: Visitor) -> Verdict:
    """Judge the name and the password that were sent, unless too many come from one network: few
    that are wrong, more that are right, since a hospital may have one address."""
    call, rates = who.call, who.call.context.rates
    network, now = network_of(call.address), call.context.now().timestamp()
    wait = rates.passwords.wait_s(network, now) or rates.logins.wait_s(network, now)
    if wait:
        return Wait("", wait)
    name, password = field(call, "name")[:256], field(call, "password")[:1_024]
    verdict = await who.people.password(name, password, call.address)
    if isinstance(verdict, SignedIn):
        rates.logins.give_back(network)
    return verdict


async def _follows(who: Visitor, new: SignedIn) -> None:
    """Have the session of ``new`` take the place of the one that this browser had: to sign out
    ends what was granted in either. That of another user ends here."""
    old, accounts = who.session, who.call.context.accounts
    if old is None:
        return
    await who.people.sessions.end(old.id)
    if old.user == new.user.name:
        await accounts.follow_session(old.id, new.session.id)
    else:
        await accounts.end_session(old.id)


async def _app(call: Call, asked: str) -> str:
    """Return the name of the app that ``asked``, if it is known."""
    given = dict(form_of(asked.encode())) if asked.isascii() else {}
    clients = call.context.accounts.clients
    client = await clients.client(given.get("client_id", "")[:256])
    return client.name if client is not None else ""


async def second_factor(call: Call) -> Answer:
    """Show the page for the code."""
    who = await visitor(call)
    if who.halfway is None:
        return redirect(onward(asked_by(call)))
    return _second_page(who, asked_by(call))


async def give_second_factor(call: Call) -> Answer:
    """Judge the code."""
    who = await visitor(call)
    if who.halfway is None or not who.may_post():
        return foreign_form()
    asked = request_of(call)
    verdict = await who.people.second_factor(who.halfway[0], field(call, "code")[:64], call.address)
    await _recorded(call, verdict)
    if not isinstance(verdict, SignedIn):
        return _second_page(who, asked, _said(verdict, _WRONG_CODE), _status(verdict))
    await _follows(who, verdict)
    return redirect(onward(asked), cookie(call, SESSION, verdict.cookie))


async def set_up(call: Call) -> Answer:
    """Show the key of the second factor, once the password was right and there is none yet."""
    who = await visitor(call)
    if who.halfway is None or who.halfway[1].is_enrolled:
        return redirect(onward(asked_by(call)))
    return await _set_up_page(who, asked_by(call))


async def finish_set_up(call: Call) -> Answer:
    """Take over the second factor, and show the recovery codes once."""
    who = await visitor(call)
    if who.halfway is None or who.halfway[1].is_enrolled or not who.may_post():
        return foreign_form()
    asked = request_of(call)
    verdict, codes = await who.people.enrolled(
        who.halfway[0], field(call, "code")[:64], call.address
    )
    await _recorded(call, verdict)
    if not isinstance(verdict, SignedIn):
        return await _set_up_page(who, asked, _said(verdict, _WRONG_CODE), _status(verdict))
    await _follows(who, verdict)
    main = html(
        """<h1>Keep these codes on paper</h1>
<p>Each of them lets you in once, should you lose your phone. They are not shown again.</p>
<ul class="codes">{codes}</ul>
<p class="actions"><a href="{onward}">I have kept them; go on</a></p>""",
        codes=joined(html("<li>{code}</li>", code=one) for one in codes),
        onward=onward(asked),
    )
    return page("Recovery codes", main, headers=cookie(call, SESSION, verdict.cookie))


async def sign_out(call: Call) -> Answer:
    """End the session, and what was granted in it for as long as it lasts."""
    who = await visitor(call)
    if not who.may_post():
        return foreign_form()
    if who.session is not None:
        await who.people.sessions.end(who.session.id)
        await call.context.accounts.end_session(who.session.id)
        by = Principal("user", who.session.user, address=call.address)
        await note(call.context, Row(call.context.now(), "logout", by))
    main = html(
        """<h1>You have signed out</h1>
<p>Apps that are connected for as long as you are signed in are not any more.</p>
<p><a href="{login}">Sign in again</a></p>""",
        login=LOGIN,
    )
    return page("Signed out", main, headers=no_cookie(call, SESSION))


def login_page(
    who: Visitor,
    asked: str = "",
    *,
    said: str = "",
    status: int = 200,
    app: str = "",
    to: str = "",
    name: str = "",
) -> Answer:
    """Return the page to sign in, of the app ``app`` that ``asked``, whose answers go ``to``;
    ``name`` is the user that it expects."""
    why = html("<p>to go on to <strong>{app}</strong></p>", app=app) if app else NOTHING
    main = html(
        """<h1>Sign in</h1>
{why}{said}{plain}
<form method="post" action="{action}">{token}{request}
<label class="field">Name
<input name="name" autocomplete="username" autocapitalize="none" spellcheck="false"
 maxlength="64" value="{name}" required{name_first}></label>
<label class="field">Password
<input name="password" type="password" autocomplete="current-password" maxlength="256"
 required{password_first}></label>
<div class="actions"><button class="first">Sign in</button></div>
</form>""",
        why=why,
        said=_note(said),
        plain=_plain(who),
        action=LOGIN,
        token=who.hidden,
        request=hidden_request(asked),
        name=name,
        name_first=NOTHING if name else Html(" autofocus"),
        password_first=Html(" autofocus") if name else NOTHING,
    )
    return page("Sign in", main, status=status, to=to or _to(asked), headers=who.headers)


def _second_page(who: Visitor, asked: str, said: str = "", status: int = 200) -> Answer:
    main = html(
        """<h1>The code, please</h1>
<p>Open the authenticator app on your phone and type the six digits that it shows for this site. If
you have lost your phone, type one of the codes that you have on paper.</p>{said}
<form method="post" action="{action}">{token}{request}
<label class="field">Code
<input name="code" autocomplete="one-time-code" maxlength="30" required autofocus></label>
<div class="actions"><button class="first">Go on</button></div>
</form>""",
        said=_note(said),
        action=SECOND,
        token=who.hidden,
        request=hidden_request(asked),
    )
    return page("Second factor", main, status=status, to=_to(asked), headers=who.headers)


async def _set_up_page(who: Visitor, asked: str, said: str = "", status: int = 200) -> Answer:
    assert who.halfway is not None
    _, user = who.halfway
    seed = await who.people.seed(user)
    text = b32encode(seed).decode("ascii").rstrip("=")
    key = " ".join(text[place : place + 4] for place in range(0, len(text), 4))
    main = html(
        """<h1>Set up your second factor</h1>
<p>Whoever works here signs in with a password and a code from a phone.</p>
<ol><li>Install an authenticator app on your phone, if there is none yet.</li>
<li>On the phone itself, <a href="{uri}">open this link</a>. On another device, type this key into
the app (by time, six digits):<br><span class="key">{key}</span></li>
<li>Type the code that the app shows now.</li></ol>{said}
<form method="post" action="{action}">{token}{request}
<label class="field">Code
<input name="code" autocomplete="one-time-code" inputmode="numeric" maxlength="12" required
 autofocus></label>
<div class="actions"><button class="first">Go on</button></div>
</form>""",
        uri=uri(seed, user.name, "FHIR Server"),
        key=key,
        said=_note(said),
        action=SET_UP,
        token=who.hidden,
        request=hidden_request(asked),
    )
    return page("Second factor", main, status=status, to=_to(asked), headers=who.headers)


# What was asked before somebody had to sign in.


def request_of(call: Call) -> str:
    """Return the query of the interrupted authorization request that the form carries."""
    return field(call, REQUEST)[:_REQUEST_CHARACTERS_MAX]


def asked_by(call: Call) -> str:
    """Return the same of the query."""
    found = next((value for key, value in call.query if key == REQUEST), "")
    return found[:_REQUEST_CHARACTERS_MAX]


def hidden_request(asked: str) -> Html:
    """Return the field that carries it on."""
    if not asked:
        return NOTHING
    return html('<input type="hidden" name="{name}" value="{v}">', name=REQUEST, v=asked)


def onward(asked: str) -> str:
    """Return where to go once somebody has signed in: on with what was ``asked``, or home.

    A sign-in that was asked for has happened then; it is not asked for again.
    """
    if not asked or not asked.isascii():
        return CONSOLE
    given = []
    for name, value in form_of(asked.encode()):
        left = value
        if name == "prompt":
            left = " ".join(word for word in value.split() if word not in _NOW)
        if (left or not value) and (name, value) != ("max_age", "0"):
            given.append((name, left))
    return f"{AUTHORIZE}?{urlencode(given)}"


def _to(asked: str) -> str:
    """Return where the answer to what was ``asked`` goes. That it is registered, the endpoint sees
    to; here it is only what a browser is allowed to follow."""
    if not asked.isascii():
        return ""
    return next((v for name, v in form_of(asked.encode()) if name == "redirect_uri"), "")


def _note(said: str) -> Html:
    return html('<p class="note bad" role="alert">{said}</p>', said=said) if said else NOTHING


def _plain(who: Visitor) -> Html:
    if who.call.issuer.startswith("https://"):
        return NOTHING
    return html(
        '<p class="note small">This server runs for trying out, without TLS: its cookies are not '
        "marked Secure. Use it on this machine only, with made-up people.</p>"
    )


async def _recorded(call: Call, verdict: Verdict) -> None:
    """Have what came of an attempt recorded; who is halfway has not signed in yet."""
    now = call.context.now()
    if isinstance(verdict, SignedIn):
        user = verdict.user
        by = Principal("user", user.name, fhir_user=user.fhir_user, address=call.address)
        did = "login" if verdict.session.is_whole else ""
        row = Row(now, did, by)
    else:
        kind: Kind = "user" if verdict.name else "nobody"
        by = Principal(kind, verdict.name or "nobody", address=call.address)
        issue = "throttled" if isinstance(verdict, Wait) else "login"
        row = Row(now, "login", by, status=_status(verdict), issue=issue)
    if row.did:
        await note(call.context, row)


def _said(verdict: Verdict, wrong: str) -> str:
    if not isinstance(verdict, Wait):
        return wrong
    seconds = max(1, round(verdict.seconds + 0.5))
    wait = f"{seconds} seconds" if seconds < 120 else f"{-(-seconds // 60)} minutes"
    return f"That was too often. Nothing was looked at; wait {wait}, then try again."


def _later(verdict: Verdict) -> Headers:
    seconds = max(1, math.ceil(verdict.seconds)) if isinstance(verdict, Wait) else 0
    return (("Retry-After", str(seconds)),) if seconds else ()


def _status(verdict: Verdict) -> int:
    return 429 if isinstance(verdict, Wait) else 403
