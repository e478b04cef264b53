"""Which path of the pages for people is answered by what."""

from collections.abc import Mapping

from fhir_server.http.authorize.authorize import authorize, authorize_by_form, choose, consent
from fhir_server.http.authorize.console import END, LAUNCH, console, end_app, launch, open_app
from fhir_server.http.authorize.demo import DEMO, demo
from fhir_server.http.authorize.exchange import Answer, Call, Endpoint
from fhir_server.http.authorize.html import STYLE, STYLE_PATH
from fhir_server.http.authorize.login import (
    AUTHORIZE,
    CONSOLE,
    LOGIN,
    LOGOUT,
    SECOND,
    SET_UP,
    finish_set_up,
    give_second_factor,
    login,
    second_factor,
    set_up,
    sign_in,
    sign_out,
)
from fhir_server.http.authorize.steps import CHOOSE, CONSENT


async def style(_: Call) -> Answer:
    """Answer with the style sheet of the pages."""
    return Answer(200, STYLE.encode(), "text/css; charset=utf-8", (("Cache-Control", "no-cache"),))


PAGES: Mapping[str, Mapping[str, Endpoint]] = {
    STYLE_PATH: {"GET": style},
    AUTHORIZE: {"GET": authorize, "POST": authorize_by_form},
    CHOOSE: {"POST": choose},
    CONSENT: {"POST": consent},
    LOGIN: {"GET": login, "POST": sign_in},
    SECOND: {"GET": second_factor, "POST": give_second_factor},
    SET_UP: {"GET": set_up, "POST": finish_set_up},
    LOGOUT: {"POST": sign_out},
    CONSOLE: {"GET": console},
    END: {"POST": end_app},
    DEMO: {"GET": demo},
    LAUNCH: {"GET": launch, "POST": open_app},
}
