"""Who may sign in here, as an administrator sees to it. design/security.md, sections 2.3 and 7.

Whatever takes something away from a user (a role, a password, the account) ends the sessions and
the grants that were made with it.
"""

from base64 import b32encode, urlsafe_b64decode
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import re2 as re

from fhir_server.context import Context
from fhir_server.interactions.hashing import hash_of
from fhir_server.interactions.people import People, people_of, user_name
from fhir_server.messages import Request
from fhir_server.outcome import FhirError, Issue, invalid_value, nearest, shown
from fhir_server.security.passwords import SALT_BYTES, Unusable, check
from fhir_server.security.principal import SERVER
from fhir_server.security.roles import OF_USERS
from fhir_server.store.users import Taken, User

_REFERENCE = re.compile(
    r"(Patient|Practitioner|PractitionerRole|RelatedPerson|Person)/[A-Za-z0-9\-\.]{1,64}"
)
_DISPLAY_MAX = 200
_PASSWORD_BYTES = 12


@dataclass(frozen=True, slots=True)
class Made:
    """A user, and the password that was made, ``""`` where one was given."""

    user: User
    password: str


async def add(context: Context, user: User, password: str = "") -> Made:
    """Add ``user``, with a password that is made unless there is one.

    Raises ``value`` for what a user cannot be, ``duplicate`` where the name is taken.
    """
    people = people_of(context)
    name = user_name(user.name)
    if not name:
        expected = "1 to 64 letters, digits and ._@- that begin with a letter or digit"
        raise invalid_value("name", user.name[:80], expected)
    user = _checked(replace(user, name=name, display=user.display.strip() or name))
    await _check_there(context, user)
    kept, made = await _password(people, user, password)
    try:
        await people.users.add(replace(user, password=kept), people.now())
    except Taken as error:
        raise FhirError(Issue("duplicate", f"There is a user {name} already."), status=409) from (
            error
        )
    return Made(user, made)


async def change(context: Context, name: str, **fields: Any) -> User:
    """Change ``fields`` of a user; what was granted with the old ones ends. Raises ``not-found``,
    ``value``."""
    people = people_of(context)
    user = await named(people, name)
    wanted = _checked(replace(user, **fields))
    await _check_there(context, wanted)
    changed = await people.users.change(user.name, people.now(), **fields)
    if fields.keys() - {"display"}:
        await _end_all(context, people, user.name)
    if fields.get("is_disabled") is False:
        await people.attempts.forget(user.name)
    return changed or wanted


async def new_password(context: Context, name: str, password: str = "") -> Made:
    """Give a user another password, made unless there is one. Raises ``not-found``, ``value``."""
    people = people_of(context)
    user = await named(people, name)
    kept, made = await _password(people, user, password)
    await people.users.change(user.name, people.now(), password=kept)
    await people.attempts.forget(user.name)
    await _end_all(context, people, user.name)
    return Made(user, made)


async def new_second_factor(context: Context, name: str) -> User:
    """Have a user set up the second factor anew at the next sign-in. Raises ``not-found``."""
    people = people_of(context)
    user = await named(people, name)
    await people.reset_second_factor(user)
    await _end_all(context, people, user.name)
    return user


async def named(people: People, name: str) -> User:
    """Return the user of this name. Raises ``not-found``."""
    user = await people.users.named(user_name(name))
    if user is None:
        raise FhirError(Issue("not-found", f"There is no user {shown(name[:80])}."))
    return user


async def _password(people: People, user: User, password: str) -> tuple[str, str]:
    """Return the hash to keep, and the password that was made."""
    made = "" if password else random_password(people.secret())
    if password:
        try:
            check(password, (user.name, user.display))
        except Unusable as error:
            raise FhirError(Issue("value", str(error))) from error
    salt = urlsafe_b64decode(people.secret() + "=")[:SALT_BYTES]
    return await hash_of(password or made, salt), made


def random_password(secret: str) -> str:
    """Return a password of 96 random bits, as it can be read out and typed.

    >>> random_password("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8")
    'aaaqe-ayeau-daoca-jbifq'
    """
    text = b32encode(urlsafe_b64decode(secret + "=")[:_PASSWORD_BYTES]).decode().rstrip("=").lower()
    return "-".join(text[place : place + 5] for place in range(0, len(text), 5))


def _checked(user: User) -> User:
    """Return ``user``. Raises ``value`` for what nobody can be."""
    if not user.display.isprintable() or len(user.display) > _DISPLAY_MAX:
        raise invalid_value("display", user.display[:80], "a name of 200 characters at most")
    for role in user.roles:
        if role not in OF_USERS:
            raise FhirError(
                Issue("value", f"There is no role {shown(role)}.{nearest(role, OF_USERS)}")
            )
    if user.fhir_user and not _REFERENCE.fullmatch(user.fhir_user):
        raise invalid_value("fhirUser", user.fhir_user[:80], "a reference such as Practitioner/1")
    if user.is_staff and user.patient:
        text = "Who works here signs in as a patient by a name of their own: role patient alone."
        raise FhirError(Issue("value", text))
    if not user.is_staff and not user.patient:
        raise FhirError(Issue("value", "A user with the role patient needs patient: whose record?"))
    return user


async def _check_there(context: Context, user: User) -> None:
    """Raise ``value`` for a resource that is not there: who creates it later would be that user."""
    wanted = {f"Patient/{user.patient}" if user.patient else "", user.fhir_user} - {""}
    asking = replace(context, principal=SERVER, rights=None)
    for reference in sorted(wanted):
        type, _, id = reference.partition("/")
        try:
            await asking.perform(Request("read", type, id), asking)
        except FhirError as error:
            if error.status >= 500:
                raise
            raise FhirError(Issue("value", f"{shown(reference)} is not there.")) from error


async def _end_all(context: Context, people: People, name: str) -> None:
    await people.sessions.end_all(name)
    await context.accounts.revoke(user=name)


def split(roles: Iterable[str]) -> tuple[str, ...]:
    """Return roles, each once, in their order."""
    return tuple(dict.fromkeys(one.strip() for one in roles if one.strip()))
