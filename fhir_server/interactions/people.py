"""People signing in: password, second factor, session. design/security.md, section 2.3.

Whatever is wrong, the answer is the same and takes the same time: an unknown name, a disabled user
and a wrong password are not told apart. An attempt is counted before it is judged
(``security/lockout.py``).
"""

from base64 import urlsafe_b64decode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

import re2 as re

from fhir_server.context import Context
from fhir_server.interactions.hashing import hash_of, matches
from fhir_server.security.lockout import WINDOW
from fhir_server.security.passwords import CHARACTERS_MAX, SALT_BYTES, is_current
from fhir_server.security.rates import network_of
from fhir_server.security.sealing import NONCE_BYTES, Unopened, opened, seal
from fhir_server.security.second_factor import (
    RECOVERY_BYTES,
    RECOVERY_CODES,
    SEED_BYTES,
    matching_step,
    recovery_code,
    recovery_hash,
)
from fhir_server.store.attempts import Attempts
from fhir_server.store.client import Database
from fhir_server.store.notices import Notice, Notices
from fhir_server.store.sessions import Session, Sessions
from fhir_server.store.users import User, Users

_ENSURE_S = 60.0
_NAME = re.compile(r"[a-z0-9][a-z0-9\._@\-]{0,63}")


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A password, or a second factor, was right. ``cookie`` is what the browser keeps; ``session``
    is not whole where the second factor is still to come."""

    session: Session
    user: User
    cookie: str


@dataclass(frozen=True, slots=True)
class Wrong:
    """It was not right; nobody learns more. ``name`` is whose it would have been, for the audit;
    ``""`` where there is nobody of that name: what was typed may be a password."""

    name: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Too many attempts: nothing was judged. The next may come in ``seconds``. ``name`` as in
    :class:`Wrong`."""

    name: str
    seconds: float


Verdict = SignedIn | Wrong | Wait


def session_id(cookie: str) -> str:
    """Return what a session is kept by: the hash of what its cookie holds."""
    return sha256(cookie.encode()).hexdigest()


def user_name(typed: str) -> str:
    """Return the name as it is kept; ``""`` for what can be nobody's.

    >>> user_name(" Dr.Rahman@clinic.example "), user_name("a b")
    ('dr.rahman@clinic.example', '')
    """
    name = typed.strip().casefold()
    return name if _NAME.fullmatch(name) else ""


@dataclass(frozen=True, slots=True)
class People:
    """Those who may sign in, and those who have. ``secret`` returns 256 random bits in base64url,
    ``master_key`` is what seeds are sealed under."""

    users: Users
    sessions: Sessions
    attempts: Attempts
    notices: Notices
    now: Callable[[], datetime]
    secret: Callable[[], str]
    master_key: bytes

    # Signing in.

    async def password(self, typed: str, password: str, address: str) -> Verdict:
        """Judge a name and a password from ``address``."""
        name, now = user_name(typed), self.now()
        waiting = await self._counted(name or typed, address, now)
        if waiting is not None:
            return waiting
        user = await self.users.named(name)
        kept = user.password if user is not None and not user.is_disabled else ""
        is_right = await matches(kept, password[: CHARACTERS_MAX + 1])
        if user is None or not is_right:
            return Wrong(user.name if user is not None else "")
        if not is_current(kept):
            user = await self.set_password(user, password) or user
        if user.needs_second_factor:
            return await self._begun(user, is_whole=False, began=now)
        await self.attempts.succeeded(name, network_of(address), [now])
        return await self._begun(user, is_whole=True, began=now)

    async def second_factor(self, session: Session, code: str, address: str) -> Verdict:
        """Judge a code of the authenticator app, or one for paper, after the password."""
        now, user = self.now(), await self.users.named(session.user)
        if user is None or user.is_disabled or not user.is_enrolled:
            return Wrong(session.user)
        waiting = await self._counted(user.name, address, now)
        if waiting is not None:
            return waiting
        if not await self._is_factor(user, code, now):
            return Wrong(user.name)
        return await self._whole(session, user, address, now)

    async def enrolled(
        self, session: Session, code: str, address: str
    ) -> tuple[Verdict, tuple[str, ...]]:
        """Take over the second factor that was shown, if ``code`` is one of it. Return as well the
        recovery codes, which are never shown again."""
        now, user = self.now(), await self.users.named(session.user)
        if user is None or user.is_disabled or user.is_enrolled or not user.seed:
            return Wrong(session.user), ()
        waiting = await self._counted(user.name, address, now)
        if waiting is not None:
            return waiting, ()
        step = matching_step(self._seed_of(user), code, now, user.step)
        codes, hashes = self._recovery()
        if step is None or not await self.users.enrol(user, hashes, step, now):
            return Wrong(user.name), ()
        return await self._whole(session, user, address, now), codes

    async def seed(self, user: User) -> bytes:
        """Return the seed of ``user``'s second factor that is to be enrolled, made if there is
        none. Only for who has typed the password and is not enrolled."""
        assert not user.is_enrolled
        if user.seed:
            return self._seed_of(user)
        seed = self._random(SEED_BYTES)
        sealed = self._sealed(user.name, seed)
        await self.users.change(user.name, self.now(), seed=sealed, is_enrolled=False)
        return seed

    async def current(self, cookie: str) -> tuple[Session, User] | None:
        """Return session and user of a cookie; ``None`` where the session has ended, or its user
        may not be here any more."""
        if not cookie:
            return None
        session = await self.sessions.current(session_id(cookie), self.now())
        user = await self.users.named(session.user) if session is not None else None
        if session is None or user is None or user.is_disabled:
            return None
        return session, user

    # Administering.

    async def set_password(self, user: User, password: str) -> User | None:
        """Have ``password`` be the one of ``user``; it was checked before."""
        kept = await hash_of(password, self._random(SALT_BYTES))
        return await self.users.change(user.name, self.now(), password=kept)

    async def reset_second_factor(self, user: User) -> None:
        """Forget the second factor: it is set up anew at the next sign-in."""
        await self.users.change(
            user.name, self.now(), seed=b"", is_enrolled=False, step=0, recovery=()
        )

    async def give_second_factor(self, user: User) -> tuple[bytes, tuple[str, ...]]:
        """Give ``user`` a second factor; return its seed and the recovery codes, for the one who
        hands them over."""
        seed = self._random(SEED_BYTES)
        codes, hashes = self._recovery()
        sealed = self._sealed(user.name, seed)
        await self.users.change(
            *(user.name, self.now()), seed=sealed, is_enrolled=True, step=0, recovery=hashes
        )
        return seed, codes

    # Parts.

    async def _counted(self, name: str, address: str, now: datetime) -> Wait | None:
        found = await self.attempts.admit(name, network_of(address), now)
        if found.is_attack and await self.users.named(name) is not None:
            text = (
                "There were 100 attempts to sign in with your name within an hour. For now one "
                "in 30 seconds is taken. If they were not yours, tell your administrator."
            )
            await self.notices.add(Notice(name, "sign-in-slowed", text, now), WINDOW)
        if found.wait_s > 0:
            user = await self.users.named(name)
            return Wait(user.name if user is not None else "", found.wait_s)
        return None

    async def _is_factor(self, user: User, code: str, now: datetime) -> bool:
        step = matching_step(self._seed_of(user), code, now, user.step)
        if step is not None:
            return await self.users.take_step(user, step)
        return await self.users.take_recovery(user, recovery_hash(code))

    async def _whole(self, half: Session, user: User, address: str, now: datetime) -> Verdict:
        """Return a session with all factors. It has another cookie: one that was seen or planted
        before is of no use. Wrong where the sign-in was ended meanwhile."""
        if not await self.sessions.end(half.id):
            return Wrong(user.name)
        await self.attempts.succeeded(user.name, network_of(address), [half.began, now])
        return await self._begun(user, is_whole=True, began=now)

    async def _begun(self, user: User, *, is_whole: bool, began: datetime) -> SignedIn | Wrong:
        """Return a new session of ``user``, unless that is not who may sign in any more: what ends
        all sessions may have been done while the password was judged."""
        cookie = self.secret()
        session = await self.sessions.begin(
            session_id(cookie), user.name, began, is_staff=user.is_staff, is_whole=is_whole
        )
        again = await self.users.named(user.name)
        if again is None or _by(again) != _by(user):
            await self.sessions.end(session.id)
            return Wrong(user.name)
        return SignedIn(session, user, cookie)

    def _seed_of(self, user: User) -> bytes:
        try:
            return opened(self.master_key, user.seed, f"totp/{user.name}")
        except Unopened:
            return self._random(SEED_BYTES)  # of another key: no code is right

    def _sealed(self, name: str, seed: bytes) -> bytes:
        return seal(self.master_key, seed, self._random(NONCE_BYTES), f"totp/{name}")

    def _recovery(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        codes = [recovery_code(self._random(RECOVERY_BYTES)) for _ in range(RECOVERY_CODES)]
        return tuple(codes), tuple(map(recovery_hash, codes))

    def _random(self, count: int) -> bytes:
        """Return ``count`` random bytes, 32 at most."""
        return urlsafe_b64decode(self.secret() + "=")[:count]


def _by(user: User) -> tuple[object, ...]:
    """Return what a session is for: whoever changes any of it ends those that there are."""
    return user.password, user.is_disabled, user.roles, user.patient, user.fhir_user


def people_of(context: Context) -> People:
    """Return the people of this server."""
    database, seconds = context.store.database, context.settings.request_timeout_s
    return People(
        Users(database, seconds),
        Sessions(database, seconds),
        Attempts(database, seconds),
        Notices(database, seconds),
        context.now,
        context.accounts.secret,
        context.master_key,
    )


async def ensure_people(database: Database) -> None:
    """Make the collections and their indexes."""
    for kind in (Users, Sessions, Attempts, Notices):
        await kind(database, _ENSURE_S).ensure()


def ago(now: datetime) -> datetime:
    """Return since when notices are shown to who signs in."""
    return now - timedelta(days=7)
