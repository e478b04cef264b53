"""The people who sign in here: who they are, and by what they are known.

design/security.md, section 2.3. Passwords are kept as Argon2id, seeds of the second factor sealed
under the master key (security/sealing.py), recovery codes as SHA-256. Nothing of it is ever shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pymongo import IndexModel
from pymongo.errors import BulkWriteError, DuplicateKeyError

from fhir_server.store.client import Database, Document, deadline

USERS = "users"
LISTED_MAX = 1_000
_ADVICE = "Try again."
_FIELDS = frozenset(
    (
        *("display", "roles", "fhir_user", "patient", "is_disabled"),
        *("password", "seed", "is_enrolled", "step", "recovery"),
    )
)


class Taken(Exception):
    """There is a user of this name."""


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who may sign in.

    ``name`` is what is typed, in lower case. ``fhir_user`` is ``Practitioner/1``, ``patient`` the
    id of the Patient that this user is, both ``""`` where there is none. ``password`` is the hash,
    ``""`` of one who cannot sign in yet. ``seed`` is that of the second factor, sealed;
    ``is_enrolled`` once a code of it was typed; ``step`` the last one that was. ``recovery`` are
    hashes of the codes that are left. ``is_demo`` is one of development, made at its start.
    """

    name: str
    display: str
    roles: tuple[str, ...]
    fhir_user: str = ""
    patient: str = ""
    is_disabled: bool = False
    is_demo: bool = False
    password: str = field(default="", repr=False)
    seed: bytes = field(default=b"", repr=False)
    is_enrolled: bool = False
    step: int = 0
    recovery: tuple[str, ...] = field(default=(), repr=False)
    changed: datetime | None = None

    @property
    def is_staff(self) -> bool:
        """Whether this is somebody else than a patient: who has no role has none of a patient."""
        return set(self.roles) != {"patient"}

    @property
    def needs_second_factor(self) -> bool:
        """Whether a password is not enough. Demo users exist in development alone."""
        return self.is_staff and not self.is_demo


@dataclass(frozen=True, slots=True)
class Users:
    """The users of ``database``."""

    database: Database
    timeout_s: float

    async def ensure(self) -> None:
        """Make the index, and with it the collection."""
        await self.database[USERS].create_indexes([IndexModel([("roles", 1)])])

    async def add(self, user: User, now: datetime) -> None:
        """Add ``user``. Raises :class:`Taken`."""
        async with deadline(self.timeout_s, _ADVICE):
            try:
                await self.database[USERS].insert_one(_document(user, now))
            except (DuplicateKeyError, BulkWriteError) as error:
                raise Taken(user.name) from error

    async def named(self, name: str) -> User | None:
        """Return the user of this name."""
        async with deadline(self.timeout_s, _ADVICE):
            return _user(await self.database[USERS].find_one({"_id": name}))

    async def listed(self, after: str = "", count: int = LISTED_MAX) -> list[User]:
        """Return users by name, those behind ``after``."""
        async with deadline(self.timeout_s, _ADVICE):
            cursor = self.database[USERS].find({"_id": {"$gt": after}}, sort=[("_id", 1)])
            rows = await cursor.limit(min(count, LISTED_MAX)).to_list()
        return [user for row in rows if (user := _user(row)) is not None]

    async def change(self, name: str, now: datetime, **fields: Any) -> User | None:
        """Set ``fields`` of a user, and return the user as it is then; ``None`` if nobody is."""
        assert fields.keys() <= _FIELDS, fields.keys()
        values = {key: _kept(value) for key, value in fields.items()}
        async with deadline(self.timeout_s, _ADVICE):
            await self.database[USERS].update_one(
                {"_id": name}, {"$set": {**values, "changed": now}}
            )
            return _user(await self.database[USERS].find_one({"_id": name}))

    async def enrol(self, user: User, recovery: Sequence[str], step: int, now: datetime) -> bool:
        """Take over the second factor whose code was typed, if it is still the one of ``user``."""
        async with deadline(self.timeout_s, _ADVICE):
            done = await self.database[USERS].update_one(
                {"_id": user.name, "seed": user.seed, "is_enrolled": False},
                {
                    "$set": {
                        "is_enrolled": True,
                        "step": step,
                        "recovery": [*recovery],
                        "changed": now,
                    }
                },
            )
        return done.modified_count == 1

    async def take_step(self, user: User, step: int) -> bool:
        """Use the code of ``step``; return whether nobody has used that one or a later one."""
        async with deadline(self.timeout_s, _ADVICE):
            done = await self.database[USERS].update_one(
                {"_id": user.name, "seed": user.seed, "step": {"$lt": step}},
                {"$set": {"step": step}},
            )
        return done.modified_count == 1

    async def take_recovery(self, user: User, code: str) -> bool:
        """Use a recovery code, by its hash; return whether it was there."""
        if not code:
            return False
        async with deadline(self.timeout_s, _ADVICE):
            done = await self.database[USERS].update_one(
                {"_id": user.name, "recovery": code}, {"$pull": {"recovery": code}}
            )
        return done.modified_count == 1

    async def remove_demo(self) -> None:
        """Remove the users of an earlier start in development."""
        async with deadline(self.timeout_s, _ADVICE):
            await self.database[USERS].delete_many({"demo": True})

    async def has_administrator(self) -> bool:
        """Whether somebody can administrate: production does not start without."""
        wanted = {"roles": "administrator", "is_disabled": False, "demo": False}
        async with deadline(self.timeout_s, _ADVICE):
            return await self.database[USERS].find_one(wanted, {"_id": 1}) is not None

    async def has_demo(self) -> bool:
        """Whether there are users of development: production does not start with them."""
        async with deadline(self.timeout_s, _ADVICE):
            return await self.database[USERS].find_one({"demo": True}, {"_id": 1}) is not None


def _kept(value: Any) -> Any:
    return [*value] if isinstance(value, tuple) else value


def _document(user: User, now: datetime) -> Document:
    return {
        "_id": user.name,
        "display": user.display,
        "roles": [*user.roles],
        "fhir_user": user.fhir_user,
        "patient": user.patient,
        "is_disabled": user.is_disabled,
        "demo": user.is_demo,
        "password": user.password,
        "seed": user.seed,
        "is_enrolled": user.is_enrolled,
        "step": user.step,
        "recovery": [*user.recovery],
        "changed": now,
    }


def _user(row: Document | None) -> User | None:
    if row is None:
        return None
    return User(
        row["_id"],
        row["display"],
        tuple(row["roles"]),
        row["fhir_user"],
        row["patient"],
        row["is_disabled"],
        row["demo"],
        row["password"],
        bytes(row["seed"]),
        row["is_enrolled"],
        row["step"],
        tuple(row["recovery"]),
        row["changed"],
    )
