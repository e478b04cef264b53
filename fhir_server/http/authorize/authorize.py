"""The authorization endpoint: who signs in grants an app a part of what they may do themselves.

https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html#obtain-authorization-code; RFC 6749,
section 4.1; OpenID Connect Core, section 3.1.2. design/security.md, sections 2.1 and 2.2.

The steps are sign-in, patient, visit, consent. Nothing is kept between them: the request goes along
in the forms and is judged anew at each, and so is what was chosen. A client or an address that is
not registered is told here to the person, and nobody is sent anywhere; every other fault goes to
the app, with its ``state``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from urllib.parse import urlencode

from fhir_server.http.authorize.chosen import Chosen, encounters, patient_named, patients
from fhir_server.http.authorize.exchange import Answer, Call, form_of, redirect
from fhir_server.http.authorize.html import page
from fhir_server.http.authorize.login import (
    AUTHORIZE,
    asked_by,
    login_page,
    request_of,
)
from fhir_server.http.authorize.session import Visitor, fields, foreign_form, visitor
from fhir_server.http.authorize.session import field as form_field
from fhir_server.http.authorize.steps import consent_page, encounter_page, patient_page
from fhir_server.interactions.access import is_possible
from fhir_server.interactions.recording import note
from fhir_server.markup import html
from fhir_server.security.audit import Row
from fhir_server.security.grants import Grant, Launch
from fhir_server.security.oauth import (
    AuthorizationRequest,
    NotRedirected,
    OAuthError,
    authorization_request,
    redirected,
    redirection,
)
from fhir_server.security.principal import Principal
from fhir_server.security.scopes import scope_of
from fhir_server.store.sessions import Session
from fhir_server.store.users import User

SCOPE = "scope"
_PROMPTS = ("", "none", "login", "consent", "select_account")


@dataclass(frozen=True, slots=True)
class Asked:
    """A good authorization request of somebody who is signed in. ``query`` is it as it was sent;
    ``launch`` what it was launched with from here, ``None`` for a standalone launch."""

    who: Visitor
    session: Session
    user: User
    request: AuthorizationRequest
    query: str
    launch: Launch | None
    more: Mapping[str, str] = field(default_factory=dict)

    @property
    def fhir_user(self) -> str:
        """The resource that the user is."""
        return self.user.fhir_user or (f"Patient/{self.user.patient}" if self.user.patient else "")

    @property
    def scopes(self) -> tuple[str, ...]:
        """What may be granted: no ``fhirUser`` to an app whose user is no resource."""
        hidden = () if self.fhir_user else ("fhirUser", "profile")
        return tuple(one for one in self.request.scopes if one not in hidden)

    @property
    def needs_patient(self) -> bool:
        """Whether a patient has to be chosen."""
        return "launch/patient" in self.scopes or any(map(_is_of_patient, self.scopes))


def _is_of_patient(text: str) -> bool:
    scope = scope_of(text)
    return scope is not None and scope.level == "patient"


async def authorize(call: Call) -> Answer:
    """Begin: sign in if need be, then choose, then consent."""
    query = urlencode(call.query)
    found = await _asked(call, query)
    return found if isinstance(found, Answer) else await _next_step(found)


async def authorize_by_form(call: Call) -> Answer:
    """The same by POST. https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html

    It comes from a page of the app, so the browser keeps our cookies back; it comes again by GET.
    """
    return redirect(f"{AUTHORIZE}?{urlencode(call.form)}")


async def choose(call: Call) -> Answer:
    """Go on with the patient, or the visit, that was chosen; or look for a patient by name."""
    found = await _posted(call)
    if isinstance(found, Answer):
        return found
    return await _next_step(found)


async def consent(call: Call) -> Answer:
    """Send the app its code for what was left ticked, or that nothing was granted."""
    found = await _posted(call)
    if isinstance(found, Answer):
        return found
    if form_field(call, "decision") != "allow":
        return await _refused(found, "The person did not agree.")
    ticked = set(fields(call, SCOPE))
    scopes = tuple(one for one in found.scopes if one in ticked)
    if not scopes:
        return await _refused(found, "The person left nothing ticked.")
    try:
        return await _granted(found, scopes)
    except OAuthError as error:
        return _told(found.request.redirect_uri, error, found.request.state)


async def _next_step(asked: Asked) -> Answer:
    """Show what is still to be chosen, or what is to be consented to."""
    who, request = asked.who, asked.request
    try:
        chosen = await _chosen(asked)
    except OAuthError as error:
        return _told(request.redirect_uri, error, request.state)
    if asked.needs_patient and not chosen.patient:
        words = form_field(who.call, "search")[:100]
        rows = await patients(who.call.context, asked.user, words)
        return patient_page(who, asked.query, request, rows, words)
    if "launch/encounter" in asked.scopes and chosen.patient and not chosen.encounter_is_settled:
        rows = await encounters(who.call.context, asked.user, chosen.patient)
        if rows:
            return encounter_page(who, asked.query, request, chosen, rows)
    return consent_page(who, asked.query, request, asked.scopes, chosen, asked.user.display)


async def _chosen(asked: Asked) -> Chosen:
    """Return who and what is in context: of the launch, or what the user may see and has chosen.

    Raises ``access_denied`` for a patient whom the user does not see.
    """
    call, launch = asked.who.call, asked.launch
    if launch is not None and not launch.patient and asked.needs_patient:
        launch = None  # opened with nobody in context: a patient is chosen as without a launch
    is_launched = launch is not None
    if launch is not None:
        patient, encounter, is_settled = launch.patient, launch.encounter, True
    else:
        is_patient = not asked.user.is_staff
        patient = asked.user.patient if is_patient else form_field(call, "patient")
        encounter = form_field(call, "encounter")
        is_settled = bool(encounter) or form_field(call, "encounter_none") == "yes"
    if not asked.needs_patient and launch is None:
        return Chosen()
    if not patient:
        if not asked.user.is_staff:
            raise OAuthError("access_denied", "This user is no patient here.")
        return Chosen()
    name = await patient_named(call.context, asked.user, patient)
    if name is None:
        raise OAuthError("access_denied", "This patient is not among those that the user sees.")
    if encounter and not is_launched:
        rows = await encounters(call.context, asked.user, patient)
        if all(encounter != one.id for one in rows):
            raise OAuthError("access_denied", "This visit is not among those that the user sees.")
    return Chosen(patient, name, encounter, is_settled)


async def _granted(asked: Asked, scopes: tuple[str, ...]) -> Answer:
    """Send the app its code. Raises :class:`OAuthError`, which the app is told."""
    request, accounts = asked.request, asked.who.call.context.accounts
    chosen = await _chosen(asked)
    if any(map(_is_of_patient, scopes)) and not chosen.patient:
        raise OAuthError("invalid_scope", "There is no patient for the scopes of one.")
    if asked.launch is not None:
        taken = await accounts.take_launch(request.launch, request.client.id, asked.user.name)
        if taken is None:
            raise OAuthError("invalid_request", "This launch was used before, or is over.")
    tells_patient = asked.launch is not None or any(
        one == "launch/patient" or _is_of_patient(one) for one in scopes
    )
    tells_encounter = asked.launch is not None or "launch/encounter" in scopes
    grant = Grant(
        request.client.id,
        request.audience,
        scopes,
        user=asked.user.name,
        session=asked.session.id,
        session_until=asked.session.until,
        fhir_user=asked.fhir_user,
        roles=asked.user.roles,
        patient=chosen.patient if tells_patient else "",
        encounter=chosen.encounter if tells_encounter else "",
        context=asked.launch.context if asked.launch is not None else {},
        auth_time=asked.session.began,
    )
    await _recorded(asked, grant)
    code = await accounts.issue_code(
        grant,
        redirect_uri=request.redirect_uri,
        challenge=request.challenge,
        nonce=request.nonce,
    )
    # What ends all access of a user ends the sessions first: after that, no code leaves.
    if await asked.who.people.current(asked.who.cookie) is None:
        raise OAuthError("access_denied", "The sign-in has ended meanwhile.")
    answer = {"code": code, "state": request.state}
    return redirect(redirected(request.redirect_uri, answer))


async def _recorded(asked: Asked, grant: Grant | None) -> None:
    """Have the decision recorded: what was granted, or that nothing was."""
    user, call = asked.user, asked.who.call
    patient = grant.patient if grant is not None else ""
    by = Principal(
        *("user", user.name, asked.request.client.id),
        fhir_user=asked.fhir_user,
        patient=patient,
        address=call.address,
    )
    row = Row(
        *(call.context.now(), "consent", by),
        concerns=(f"Patient/{patient}",) if patient else (),
        query=" ".join(grant.scopes) if grant is not None else "",
        status=200 if grant is not None else 403,
        issue="" if grant is not None else "forbidden",
    )
    await note(call.context, row)


async def _refused(asked: Asked, why: str) -> Answer:
    await _recorded(asked, None)
    error = OAuthError("access_denied", why)
    return _told(asked.request.redirect_uri, error, asked.request.state)


async def _posted(call: Call) -> Asked | Answer:
    """Return the request that one of our own forms carries on."""
    who = await visitor(call)
    if who.signed_in is None or not who.may_post():
        return foreign_form()
    return await _asked(call, request_of(call) or asked_by(call), who)


async def _asked(call: Call, query: str, who: Visitor | None = None) -> Asked | Answer:
    """Return the authorization request ``query``, judged; or what is answered to it at once."""
    try:
        parameters = form_of(query.encode("utf-8", "replace"))
        ids = [value for name, value in parameters if name == "client_id"]
        client = await call.context.accounts.clients.client(ids[0][:256]) if ids else None
        client, to, given = redirection(parameters, client)
    except NotRedirected as error:
        return _shown(str(error))
    except OAuthError as error:
        return _shown(error.description)
    try:
        possible = partial(is_possible, table=call.context.parameters)
        request = authorization_request(parameters, client, (call.base,), is_possible=possible)
        prompt, max_age = _prompt(given)
        who = who or await visitor(call)
        found = who.signed_in
        if found is None or "login" in prompt or _is_old(found[0], max_age, who):
            if "none" in prompt:
                raise OAuthError("login_required", "Somebody has to sign in.")
            hint = given.get("login_hint", "")[:64]
            return login_page(who, query, app=client.name, to=to, name=hint)
        if "none" in prompt:
            raise OAuthError("consent_required", "Whoever is signed in is asked each time.")
        launch = await _launched(request, found[1], call)
        return Asked(who, *found, request, query, launch)
    except OAuthError as error:
        return _told(to, error, given.get("state", ""))


async def _launched(request: AuthorizationRequest, user: User, call: Call) -> Launch | None:
    """Return what the app was launched with from here. It is used up when the code is issued."""
    if not request.launch:
        if "launch" in request.scopes:
            raise OAuthError("invalid_request", "The scope launch needs the value launch.")
        return None
    if "launch" not in request.scopes:
        raise OAuthError("invalid_scope", "The value launch needs the scope launch.")
    accounts = call.context.accounts
    found = await accounts.seen_launch(request.launch, request.client.id, user.name)
    if found is None:
        said = "This launch is over, was used before, or is of another app or person."
        raise OAuthError("invalid_request", said)
    return found


def _prompt(given: Mapping[str, str]) -> tuple[set[str], timedelta | None]:
    """Return ``prompt`` and ``max_age``. OpenID Connect Core, section 3.1.2.1."""
    prompt = set(given.get("prompt", "").split())
    if not prompt <= set(_PROMPTS) or ("none" in prompt and len(prompt) > 1):
        raise OAuthError("invalid_request", "prompt is none, login, consent or select_account.")
    if "select_account" in prompt:
        prompt = (prompt - {"select_account"}) | {"login"}
    seconds = given.get("max_age", "")
    if seconds and not (seconds.isascii() and seconds.isdigit() and len(seconds) < 10):
        raise OAuthError("invalid_request", "max_age is a number of seconds.")
    return prompt, timedelta(seconds=int(seconds)) if seconds else None


def _is_old(session: Session, max_age: timedelta | None, who: Visitor) -> bool:
    return max_age is not None and who.people.now() - session.began > max_age


def _told(to: str, error: OAuthError, state: str) -> Answer:
    """Return the answer that tells the app of ``error``. RFC 6749, section 4.1.2.1."""
    said = error.members | ({"state": state[:2_000]} if state else {})
    return redirect(redirected(to, said))


def _shown(why: str) -> Answer:
    main = html(
        "<h1>This app cannot be connected</h1><p>{why}</p><p>You were not sent on, to be safe. "
        "Whoever made the app can put it right.</p>",
        why=why,
    )
    return page("Not connected", main, status=400)
