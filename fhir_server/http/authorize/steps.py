"""The pages between sign-in and code: which patient, which visit, what is granted.

https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html
"""

from collections.abc import Iterable, Sequence

from fhir_server.http.authorize.chosen import ROWS_MAX, Chosen, Row
from fhir_server.http.authorize.exchange import AUTH_PATH, Answer
from fhir_server.http.authorize.html import NOTHING, page
from fhir_server.http.authorize.login import LOGOUT, hidden_request
from fhir_server.http.authorize.session import Visitor
from fhir_server.markup import Html, html, joined
from fhir_server.security.oauth import AuthorizationRequest
from fhir_server.security.scopes import scope_of
from fhir_server.security.words import words_of

CHOOSE = f"{AUTH_PATH}/choose"
CONSENT = f"{AUTH_PATH}/consent"


_STRANGER = html(
    '<p class="note bad">Nobody here has looked at this app: it has registered itself, under a '
    "name of its own choice. Go on only if you have begun there yourself, and know the address "
    "below.</p>"
)


def patient_page(
    who: Visitor, query: str, request: AuthorizationRequest, rows: Sequence[Row], words: str
) -> Answer:
    """Return the page to choose a patient from ``rows``, which ``words`` have found."""
    none = f"Nobody is found by {words}." if words else "There is nobody to choose from."
    main = html(
        """<h1>Which patient?</h1>
<p><strong>{app}</strong> works with one patient. Choose whom it is about.</p>
<form method="post" action="{action}">{hidden}
<div class="search"><input name="search" value="{words}" maxlength="100" type="search"
 aria-label="Name or number" placeholder="Name or number" autofocus><button>Find</button></div>
</form>
{rows}{most}{end}""",
        app=request.client.name,
        action=CHOOSE,
        hidden=_hidden(who, query),
        words=words,
        rows=_choices(who, query, "patient", rows) if rows else html("<p>{n}</p>", n=none),
        most=_most(rows),
        end=_end(who, query),
    )
    return page("Which patient?", main, to=request.redirect_uri, headers=who.headers)


def encounter_page(
    who: Visitor, query: str, request: AuthorizationRequest, chosen: Chosen, rows: Sequence[Row]
) -> Answer:
    """Return the page to choose one of the visits of a patient, or none."""
    main = html(
        """<h1>Which visit?</h1>
<p><strong>{app}</strong> works with one visit of {name}.</p>
{rows}{most}
<form method="post" action="{action}">{hidden}
<input type="hidden" name="patient" value="{patient}">
<input type="hidden" name="encounter_none" value="yes">
<button>None of them</button></form>{end}""",
        app=request.client.name,
        name=chosen.name,
        rows=_choices(who, query, "encounter", rows, patient=chosen.patient),
        most=_most(rows),
        action=CHOOSE,
        hidden=_hidden(who, query),
        patient=chosen.patient,
        end=_end(who, query),
    )
    return page("Which visit?", main, to=request.redirect_uri, headers=who.headers)


def consent_page(
    who: Visitor,
    query: str,
    request: AuthorizationRequest,
    scopes: Iterable[str],
    chosen: Chosen,
    display: str,
) -> Answer:
    """Return the page that asks whether the app may have ``scopes``, each of which can go."""
    about = (
        html("<p>It is about <strong>{name}</strong>.</p>", name=chosen.name)
        if chosen.patient
        else NOTHING
    )
    main = html(
        """<h1>{app} asks for access</h1>
<p>You are {display}.</p>{about}{stranger}
<form method="post" action="{action}">{hidden}{kept}
<p>It would be able to do what is ticked. Untick what it does not need.</p>
<ul class="rows">{rows}</ul>
<div class="actions"><button class="first" name="decision" value="allow">Allow</button>
<button name="decision" value="deny">Do not allow</button></div>
</form>
<p class="small">Afterwards you go to {to}. You can end this at any time under
<em>Connected apps</em>.</p>{out}""",
        app=request.client.name,
        display=display,
        about=about,
        stranger=_STRANGER if request.client.registered_itself else NOTHING,
        action=CONSENT,
        hidden=_hidden(who, query),
        kept=_kept(chosen),
        rows=joined(_scope_row(one, chosen.name) for one in scopes),
        to=request.redirect_uri.partition("?")[0],
        out=_sign_out(who),
    )
    return page("Access", main, to=request.redirect_uri, headers=who.headers)


def _scope_row(scope: str, patient: str) -> Html:
    found = scope_of(scope)
    changes = found is not None and any(letter in found.letters for letter in "cud")
    mark = html(' <strong class="bad">It changes records.</strong>') if changes else NOTHING
    return html(
        '<li><label><input type="checkbox" name="scope" value="{scope}" checked>'
        '<span>{words}.{mark}<br><code class="small">{scope}</code></span></label></li>',
        scope=scope,
        words=words_of(scope, patient),
        mark=mark,
    )


def _choices(who: Visitor, query: str, name: str, rows: Iterable[Row], patient: str = "") -> Html:
    kept = (
        html('<input type="hidden" name="patient" value="{patient}">', patient=patient)
        if patient
        else NOTHING
    )
    buttons = joined(
        html(
            '<li><button class="row" name="{name}" value="{id}">{title}<br>'
            '<span class="small">{detail}</span></button></li>',
            name=name,
            id=one.id,
            title=one.title,
            detail=one.detail,
        )
        for one in rows
    )
    return html(
        '<form method="post" action="{action}">{hidden}{kept}'
        '<ul class="rows">{buttons}</ul></form>',
        action=CHOOSE,
        hidden=_hidden(who, query),
        kept=kept,
        buttons=buttons,
    )


def _kept(chosen: Chosen) -> Html:
    said = {"patient": chosen.patient, "encounter": chosen.encounter}
    if chosen.encounter_is_settled and not chosen.encounter:
        said["encounter_none"] = "yes"
    return joined(
        html('<input type="hidden" name="{name}" value="{value}">', name=name, value=value)
        for name, value in said.items()
        if value
    )


def _most(rows: Sequence[Row]) -> Html:
    if len(rows) < ROWS_MAX:
        return NOTHING
    return html('<p class="small">These are the first {n}; say more to see others.</p>', n=ROWS_MAX)


def _end(who: Visitor, query: str) -> Html:
    return html(
        '<form method="post" action="{action}">{hidden}'
        '<button name="decision" value="deny">Stop here</button></form>',
        action=CONSENT,
        hidden=_hidden(who, query),
    )


def _sign_out(who: Visitor) -> Html:
    return html(
        '<form method="post" action="{action}">{token}<button>That is not me: sign out</button>'
        "</form>",
        action=LOGOUT,
        token=who.hidden,
    )


def _hidden(who: Visitor, query: str) -> Html:
    return joined((who.hidden, hidden_request(query)))
