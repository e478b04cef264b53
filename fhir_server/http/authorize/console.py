"""The page of somebody who is signed in: connected apps, what there is to know, apps to open.

A user ends here every grant of an app at once (design/security.md, section 2.1), and opens an app
with a patient (EHR launch).
"""

from collections.abc import Iterable, Mapping

from fhir_server.http.authorize.chosen import Row, patient_named, patients
from fhir_server.http.authorize.exchange import AUTH_PATH, Answer, Call, redirect
from fhir_server.http.authorize.html import NOTHING, page
from fhir_server.http.authorize.login import CONSOLE, LOGIN, LOGOUT
from fhir_server.http.authorize.session import Visitor, field, foreign_form, visitor
from fhir_server.interactions.launching import launch_url, launched
from fhir_server.interactions.people import ago
from fhir_server.interactions.recording import note
from fhir_server.markup import Html, html, joined
from fhir_server.outcome import FhirError
from fhir_server.security.audit import Row as Record
from fhir_server.security.grants import Client, Grant
from fhir_server.security.principal import Principal
from fhir_server.security.words import words_of
from fhir_server.store.users import User

END = f"{AUTH_PATH}/end"
LAUNCH = f"{AUTH_PATH}/launch"


async def console(call: Call) -> Answer:
    """Show it, or the page to sign in."""
    who = await visitor(call)
    if who.signed_in is None:
        return redirect(LOGIN)
    _, user = who.signed_in
    accounts = call.context.accounts
    grants = await accounts.grants_of(user.name)
    clients = {one.id: one for one in await accounts.clients.listed()}
    notices = await who.people.notices.to(user.name, ago(who.people.now()))
    main = html(
        """<h1>{display}</h1>
<p class="small">{name}; {roles}</p>{notices}
<h2>Connected apps</h2>
{apps}
{launchable}
<form method="post" action="{logout}">{token}<button>Sign out</button></form>""",
        display=user.display,
        name=user.name,
        roles=", ".join(user.roles) or "no role",
        notices=joined(
            html(
                '<p class="note bad">{text}<br><span class="small">{at}</span></p>',
                text=one.text,
                at=one.at.strftime("%Y-%m-%d %H:%M UTC"),
            )
            for one in notices
        ),
        apps=_apps(who, grants, clients),
        launchable=_launchable(clients.values(), user),
        logout=LOGOUT,
        token=who.hidden,
    )
    return page("Your apps", main, headers=who.headers)


async def end_app(call: Call) -> Answer:
    """End everything that the user has granted an app."""
    who = await visitor(call)
    if who.signed_in is None or not who.may_post():
        return foreign_form()
    _, user = who.signed_in
    client = field(call, "client")
    if client and await call.context.accounts.revoke(user=user.name, client=client):
        by = Principal("user", user.name, client, fhir_user=user.fhir_user, address=call.address)
        await note(call.context, Record(call.context.now(), "consent", by))
    return redirect(CONSOLE)


async def launch(call: Call) -> Answer:
    """Show the patients with whom an app can be opened."""
    who = await visitor(call)
    if who.signed_in is None:
        return redirect(LOGIN)
    words = next((value for key, value in call.query if key == "search"), "")[:100]
    id = next((value for key, value in call.query if key == "client"), "")
    client = await call.context.accounts.clients.client(id[:256])
    if client is None or not client.launch_uri:
        return redirect(CONSOLE)
    _, user = who.signed_in
    rows = await _patients(call, user, words)
    main = html(
        """<h1>Open {app}</h1>
<p>With which patient?</p>
<form method="get" action="{action}"><input type="hidden" name="client" value="{id}">
<div class="search"><input name="search" value="{words}" maxlength="100" type="search"
 aria-label="Name or number" placeholder="Name or number" autofocus><button>Find</button></div>
</form>
<form method="post" action="{action}">{token}<input type="hidden" name="client" value="{id}">
<ul class="rows">{rows}</ul></form>
<p><a href="{console}">Back</a></p>""",
        app=client.name,
        action=LAUNCH,
        id=client.id,
        words=words,
        token=who.hidden,
        rows=joined(
            html(
                '<li><button class="row" name="patient" value="{id}">{title}<br>'
                '<span class="small">{detail}</span></button></li>',
                id=one.id,
                title=one.title,
                detail=one.detail,
            )
            for one in rows
        ),
        console=CONSOLE,
    )
    return page(f"Open {client.name}", main, to=client.launch_uri, headers=who.headers)


async def open_app(call: Call) -> Answer:
    """Send the browser to the app, with a value that it can take up this launch by."""
    who = await visitor(call)
    if who.signed_in is None or not who.may_post():
        return foreign_form()
    _, user = who.signed_in
    patient = field(call, "patient")
    if patient and await patient_named(call.context, user, patient) is None:
        return foreign_form()
    try:
        client, value = await launched(
            call.context, user.name, field(call, "client"), patient=patient
        )
    except FhirError:
        return redirect(CONSOLE)
    by = Principal("user", user.name, client.id, fhir_user=user.fhir_user, address=call.address)
    about = (f"Patient/{patient}",) if patient else ()
    await note(call.context, Record(call.context.now(), "$launch", by, concerns=about))
    return redirect(launch_url(client, call.base, value))


async def _patients(call: Call, user: User, words: str) -> list[Row]:
    if user.is_staff:
        return await patients(call.context, user, words)
    name = await patient_named(call.context, user, user.patient)
    return [Row(user.patient, name, "")] if name is not None else []


def _apps(who: Visitor, grants: Mapping[str, Grant], clients: Mapping[str, Client]) -> Html:
    scopes: dict[str, dict[str, None]] = {}
    for grant in grants.values():
        scopes.setdefault(grant.client, {}).update(dict.fromkeys(grant.scopes))
    if not scopes:
        return html("<p>None. An app asks you when it wants to be connected.</p>")
    rows = (
        html(
            """<li><strong>{app}</strong><br><span class="small">{may}</span>
<form method="post" action="{end}">{token}<input type="hidden" name="client" value="{id}">
<button>End its access</button></form></li>""",
            app=clients[id].name if id in clients else id,
            may="; ".join(words_of(one) for one in granted),
            end=END,
            token=who.hidden,
            id=id,
        )
        for id, granted in scopes.items()
    )
    return html('<ul class="rows">{rows}</ul>', rows=joined(rows))


def _launchable(clients: Iterable[Client], user: User) -> Html:
    found = [one for one in clients if one.launch_uri and "launch" in one.scopes]
    if not found or not (user.is_staff or user.patient):
        return NOTHING
    rows = (
        html(
            """<li><form method="get" action="{action}">
<input type="hidden" name="client" value="{id}"><button class="row">{app}</button></form></li>""",
            action=LAUNCH,
            id=one.id,
            app=one.name,
        )
        for one in found
    )
    return html(
        '<h2>Open an app with a patient</h2><ul class="rows">{rows}</ul>', rows=joined(rows)
    )
