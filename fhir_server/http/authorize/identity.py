"""Who asks, by the settings: tokens of this server, or of another issuer, or none at all.

design/security.md, sections 1 and 2.1.
"""

from collections.abc import Callable

from fhir_server.http.authorize.bearer import Bearer, Verdict, verdict_on
from fhir_server.http.authorize.external import ExternalIssuer
from fhir_server.security.principal import DEMO, NOBODY
from fhir_server.settings import Settings
from fhir_server.store.accounts import Accounts


def identity(
    settings: Settings,
    accounts: Callable[[], Accounts],
    bases: tuple[str, ...],
    now: Callable[[], float],
) -> Bearer:
    """Return what says who asks. ``bases`` are our FHIR bases, ``now`` seconds since 1970."""

    async def judged(token: str) -> Verdict | None:
        # Where no base is set, this server is called by whatever leads to it.
        return verdict_on(await accounts().known(token), settings.base_url.rstrip("/"))

    without = DEMO if settings.mode == "development" else NOBODY
    if settings.auth_issuer:
        return Bearer(ExternalIssuer(settings, bases, now), without)
    return Bearer(judged, without)
