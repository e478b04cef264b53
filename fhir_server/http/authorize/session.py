"""Who sits at the browser: its cookies, its session, and the token that its forms carry.

design/security.md, section 2.3. Over https the cookies are ``__Host-`` and ``Secure``; in
development over http on loopback they cannot be, and are without. A form is taken only with a token
that was made for this browser: another site can send a form, but does not know it.
"""

import hmac
from dataclasses import dataclass
from hashlib import sha256

from fhir_server.http.authorize.exchange import Answer, Call, Headers
from fhir_server.http.authorize.html import page
from fhir_server.interactions.people import People, people_of
from fhir_server.markup import Html, html
from fhir_server.store.sessions import Session
from fhir_server.store.users import User

SESSION = "fhir-session"
FORM = "fhir-form"
_COOKIE_BYTES_MAX = 200
TOKEN = "form_token"


@dataclass(frozen=True, slots=True)
class Visitor:
    """A browser. ``session`` is its login, perhaps without second factor yet, ``None`` without one;
    ``cookie`` what its session is known by, ``form`` what its forms are."""

    call: Call
    people: People
    cookie: str
    form: str
    is_new: bool
    session: Session | None = None
    user: User | None = None

    @property
    def signed_in(self) -> tuple[Session, User] | None:
        """The session and its user, once all factors were given."""
        if self.session is None or self.user is None or not self.session.is_whole:
            return None
        return self.session, self.user

    @property
    def halfway(self) -> tuple[Session, User] | None:
        """The session and its user who still has to give the second factor."""
        if self.session is None or self.user is None or self.session.is_whole:
            return None
        return self.session, self.user

    @property
    def token(self) -> str:
        """What a form of this browser carries."""
        known = self.cookie if self.session is not None else self.form
        said = f"form token\0{self.form}\0{known}".encode()
        return hmac.new(self.call.context.page_key, said, sha256).hexdigest()

    @property
    def headers(self) -> Headers:
        """What a page with a form sends along: the cookie of its forms, where it is new."""
        return cookie(self.call, FORM, self.form) if self.is_new else ()

    @property
    def hidden(self) -> Html:
        """The field with the token."""
        return html('<input type="hidden" name="{name}" value="{v}">', name=TOKEN, v=self.token)

    def may_post(self) -> bool:
        """Whether the form that was sent is one of ours, sent by this browser."""
        site = self.call.header(b"sec-fetch-site")
        if site not in ("", "same-origin", "none"):
            return False
        sent = field(self.call, TOKEN)
        return not self.is_new and hmac.compare_digest(sent.encode(), self.token.encode())


async def visitor(call: Call) -> Visitor:
    """Return who sits at the browser that calls."""
    people = people_of(call.context)
    sent = _cookies(call)
    form, known = sent.get(_name(call, FORM), ""), sent.get(_name(call, SESSION), "")
    is_new = not form
    found = await people.current(known)
    session, user = found or (None, None)
    form = form or call.context.accounts.secret()
    return Visitor(call, people, known, form, is_new, session, user)


def field(call: Call, name: str) -> str:
    """Return the first value of a field of the form."""
    return next((value for key, value in call.form if key == name), "")


def fields(call: Call, name: str) -> list[str]:
    """Return all values of a field of the form."""
    return [value for key, value in call.form if key == name]


def foreign_form() -> Answer:
    """Return what is answered to a form that is not ours, or from before a sign-in."""
    main = html(
        "<h1>This page is out of date</h1><p>What was sent was not taken, to be safe: it came from "
        "another page, or you have signed in or out since. Go back, load the page again, and "
        "repeat it.</p>"
    )
    return page("Out of date", main, status=403)


def cookie(call: Call, name: str, value: str) -> Headers:
    """Return the header that has the browser keep ``value``, until it is closed."""
    secure = "; Secure" if _is_https(call) else ""
    said = f"{_name(call, name)}={value}; Path=/; HttpOnly; SameSite=Lax{secure}"
    return (("Set-Cookie", said),)


def no_cookie(call: Call, name: str) -> Headers:
    """Return the header that has the browser forget ``name``."""
    [(header, said)] = cookie(call, name, "")
    return ((header, f"{said}; Max-Age=0"),)


def _is_https(call: Call) -> bool:
    return call.issuer.startswith("https://")


def _name(call: Call, name: str) -> str:
    return f"__Host-{name}" if _is_https(call) else name


def _cookies(call: Call) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in call.header(b"cookie").split(";"):
        name, _, value = part.strip().partition("=")
        if len(value) <= _COOKIE_BYTES_MAX:
            found.setdefault(name, value)
    return found
