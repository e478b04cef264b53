"""Opening an app from here, with what is being worked on (EHR launch).

https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html#launch-app-ehr-launch. The value is 256
bits, good once, for five minutes, for this app and this user.
"""

from urllib.parse import urlencode

from fhir_server.context import Context
from fhir_server.outcome import FhirError, Issue
from fhir_server.security.grants import Client, Launch


async def launched(
    context: Context, user: str, client: str, *, patient: str = "", encounter: str = ""
) -> tuple[Client, str]:
    """Return the app and the value that it takes up this launch by. That ``user`` sees what is in
    context was judged before. Raises ``not-found`` for an app that cannot be opened."""
    found = await context.accounts.clients.client(client[:256])
    if found is None or not found.launch_uri:
        raise FhirError(Issue("not-found", "There is no app of this id that can be opened."))
    launch = Launch(found.id, user, patient, encounter, {"need_patient_banner": True})
    return found, await context.accounts.new_launch(launch)


def launch_url(client: Client, base: str, value: str) -> str:
    """Return where the browser opens ``client``."""
    sign = "&" if "?" in client.launch_uri else "?"
    return f"{client.launch_uri}{sign}{urlencode({'iss': base, 'launch': value})}"
