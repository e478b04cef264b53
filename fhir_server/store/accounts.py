"""Grants, codes, tokens, launches and the ids of assertions: what the authorization server keeps.

design/security.md, section 2.1. Each is in a collection of its own, which the database clears by
``until`` (TTL). What may be used once is used up by one compare-and-swap, so that of many who try
at once exactly one succeeds. A token is good as long as its grant and its client are: to revoke is
one write, whatever was handed out.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from pymongo import IndexModel
from pymongo.errors import DuplicateKeyError

from fhir_server.security.grants import (
    ACCESS_S,
    ACCESS_SYSTEM_S,
    CODE_S,
    LAUNCH_S,
    OFFLINE_S,
    Client,
    Grant,
    Known,
    Launch,
    Tokens,
    hashed,
)
from fhir_server.security.oauth import OAuthError
from fhir_server.store.client import Database, Document, deadline
from fhir_server.store.clients import CLIENTS, Clients, client_of
from fhir_server.store.signing_keys import SigningKeys

GRANTS = "oauth_grants"
CODES = "oauth_codes"
TOKENS = "oauth_tokens"
LAUNCHES = "oauth_launches"
ASSERTIONS = "oauth_assertions"
_LISTED_MAX = 1_000
_GRANT = tuple(one.name for one in fields(Grant))


@dataclass(frozen=True, slots=True)
class Accounts:
    """The accounts in ``database``. ``now`` is UTC, ``secret`` returns 256 random bits in
    base64url, ``new_id`` an id. Where the database does not answer within ``timeout_s``,
    ``timeout`` or ``transient`` is raised. ``keys`` sign what this server says."""

    database: Database
    now: Callable[[], datetime]
    secret: Callable[[], str]
    new_id: Callable[[], str]
    timeout_s: float
    keys: SigningKeys

    @property
    def clients(self) -> Clients:
        """The clients that are registered."""
        return Clients(self.database, self.timeout_s)

    async def ensure(self) -> None:
        """Make the collections and their indexes; what is over is removed by them."""
        for name in (GRANTS, CODES, TOKENS, LAUNCHES, ASSERTIONS):
            index = IndexModel([("until", 1)], expireAfterSeconds=0)
            await self.database[name].create_indexes([index])
        await self.database[GRANTS].create_indexes(
            [
                IndexModel([("family", 1)], sparse=True),
                IndexModel([("user", 1)]),
                IndexModel([("session", 1)]),
                IndexModel([("client", 1)]),
            ]
        )
        await self.database[TOKENS].create_indexes([IndexModel([("grant", 1)])])
        await self.clients.ensure()
        await self.keys.ensure()

    # What a user grants.

    async def issue_code(
        self, grant: Grant, *, redirect_uri: str, challenge: str, nonce: str = ""
    ) -> str:
        """Return the code by which the client of ``grant`` gets its tokens, once and within a
        minute; with the ``redirect_uri`` and the verifier of ``challenge``."""
        now, code, id = self.now(), self.secret(), self.new_id()
        async with self._bounded():
            await self._keep_grant(id, grant, now + timedelta(seconds=CODE_S))
            await self.database[CODES].insert_one(
                {
                    "_id": hashed(code),
                    "grant": id,
                    "client": grant.client,
                    "redirect_uri": redirect_uri,
                    "challenge": challenge,
                    "nonce": nonce,
                    "good_until": now + timedelta(seconds=CODE_S),
                    "used": None,
                    # A second use is to be seen as long as there are tokens of the first.
                    "until": now + timedelta(seconds=CODE_S + ACCESS_S),
                }
            )
        return code

    async def redeem(
        self, code: str, client: Client, *, redirect_uri: str, challenge: str
    ) -> Tokens:
        """Return the tokens for ``code``. Raises ``invalid_grant``; where it was used before, what
        the first use gave is revoked. RFC 6749, section 4.1.2."""
        now = self.now()
        wanted: Document = {
            "_id": hashed(code),
            "client": client.id,
            "redirect_uri": redirect_uri,
            "challenge": challenge,
            "good_until": {"$gt": now},
        }
        async with self._bounded():
            found = await self.database[CODES].find_one_and_update(
                wanted | {"used": None}, {"$set": {"used": now}}
            )
            if found is not None:
                return await self._first(found, now)
            used = {"_id": hashed(code), "client": client.id, "used": {"$ne": None}}
            if again := await self.database[CODES].find_one(used):
                await self._revoke({"_id": again["grant"]})
        raise OAuthError("invalid_grant", "The code is not good, or no more.")

    async def _first(self, code: Document, now: datetime) -> Tokens:
        """Return the first tokens of the grant of ``code``.

        Where another has tried the same code meanwhile, the grant is revoked, and they are no
        good; that one succeeds is to be seen nevertheless.
        """
        found = await self.database[GRANTS].find_one({"_id": code["grant"]})
        if found is None:
            raise OAuthError("invalid_grant", "The grant is over.")
        grant = _grant(found)
        refresh, change = "", dict[str, Any]()
        if grant.refreshes:
            family, secret = self.secret(), self.secret()
            refresh = f"{family}.{secret}"
            change = {"family": hashed(family), "refresh": hashed(secret)}
        until = _refreshed_until(grant, now)
        change |= {"until": until, "good_until": until}
        await self.database[GRANTS].update_one({"_id": found["_id"]}, {"$set": change})
        seconds = _seconds(grant, now)
        access = await self._access(found["_id"], grant.scopes, now, seconds)
        return Tokens(grant, access, seconds, refresh, code["nonce"])

    async def refresh(
        self, token: str, client: Client, narrowed: Callable[[Grant], tuple[str, ...]]
    ) -> Tokens:
        """Return new tokens for the refresh token ``token``, which is no good from then on.

        ``narrowed`` returns the scopes that are wanted of the grant's, or raises. The use of a
        token that was used ends the grant. Raises ``invalid_grant``.
        """
        now, [family, _, secret] = self.now(), token.partition(".")
        of_family = {"family": hashed(family), "client": client.id, "revoked": None}
        async with self._bounded():
            found = await self.database[GRANTS].find_one(of_family)
            if found is None or found["good_until"] <= now:
                raise OAuthError("invalid_grant", "The refresh token is not good, or no more.")
            grant, fresh = _grant(found), self.secret()
            scopes = narrowed(grant)
            until = _refreshed_until(grant, now)
            swapped = await self.database[GRANTS].find_one_and_update(
                of_family | {"refresh": hashed(secret), "good_until": {"$gt": now}},
                {"$set": {"refresh": hashed(fresh), "until": until, "good_until": until}},
            )
            if swapped is None:
                await self._revoke({"_id": found["_id"]})
                raise OAuthError("invalid_grant", "The refresh token was used before.")
            seconds = _seconds(grant, now)
            access = await self._access(found["_id"], scopes, now, seconds)
        shown = _grant({**found, "scopes": list(scopes)})
        return Tokens(shown, access, seconds, f"{family}.{fresh}")

    async def give(self, grant: Grant, seconds: int = 0) -> Tokens:
        """Return an access token for ``grant`` that nobody has to redeem: of a backend, or of a
        developer. It is good for ``seconds``, or as long as such tokens are."""
        now, id = self.now(), self.new_id()
        seconds = seconds or (ACCESS_S if grant.user else ACCESS_SYSTEM_S)
        async with self._bounded():
            await self._keep_grant(id, grant, now + timedelta(seconds=seconds))
            return Tokens(grant, await self._access(id, grant.scopes, now, seconds), seconds)

    async def _keep_grant(self, id: str, grant: Grant, until: datetime) -> None:
        kept = {**asdict(grant), "scopes": list(grant.scopes), "roles": list(grant.roles)}
        await self.database[GRANTS].insert_one(
            # It stays a little longer than it is good, so that no token outlives it.
            {"_id": id, **kept, "at": self.now(), "until": until, "good_until": until}
            | {"revoked": None}
        )

    async def _access(
        self, grant: str, scopes: tuple[str, ...], now: datetime, seconds: int
    ) -> str:
        token, until = self.secret(), now + timedelta(seconds=seconds)
        row = {"_id": hashed(token), "name": self.new_id(), "grant": grant}
        await self.database[TOKENS].insert_one(
            row | {"scopes": list(scopes), "at": now, "until": until}
        )
        return token

    # What of it is good.

    async def known(self, token: str) -> Known | None:
        """Return what is known of the access token ``token``; ``None`` unless it is good: not
        over, its grant not revoked, its client still registered."""
        now = self.now()
        pipeline: list[Document] = [
            {"$match": {"_id": hashed(token), "until": {"$gt": now}}},
            _joined(GRANTS, "grant"),
            {"$unwind": "$of_grant"},
            {"$match": {"of_grant.revoked": None}},
            _joined(CLIENTS, "of_grant.client", "of_client"),
            {"$unwind": "$of_client"},
        ]
        async with self._bounded():
            cursor = await self.database[TOKENS].aggregate(pipeline)
            rows = [one async for one in cursor]
        if not rows:
            return None
        [row] = rows
        grant = _grant({**row["of_grant"], "scopes": row["scopes"]})
        client = client_of(row["of_client"])
        return Known(row["name"], row["grant"], grant, client, row["at"], row["until"])

    async def known_refresh(self, token: str, client: str) -> tuple[Grant, datetime] | None:
        """Return the grant of a good refresh token and until when it is good; of ``client`` alone,
        where that is said."""
        family, _, secret = token.partition(".")
        wanted = {"family": hashed(family), "refresh": hashed(secret)}
        wanted |= {"client": client} if client else {}
        async with self._bounded():
            found = await self.database[GRANTS].find_one(
                wanted | {"revoked": None, "good_until": {"$gt": self.now()}}
            )
        return None if found is None else (_grant(found), found["good_until"])

    async def grants_of(self, user: str) -> Mapping[str, Grant]:
        """Return the grants of ``user`` that are not over, by their ids."""
        wanted = {"user": user, "revoked": None, "good_until": {"$gt": self.now()}}
        async with self._bounded():
            rows = await self.database[GRANTS].find(wanted).limit(_LISTED_MAX).to_list()
        return {row["_id"]: _grant(row) for row in rows}

    # What ends.

    async def revoke(self, *, grant: str = "", user: str = "", client: str = "") -> int:
        """End all tokens of one ``grant`` (of ``user``, where that is said), of a user, or of a
        client. Return how many grants have ended by it."""
        said = {"_id": grant, "user": user, "client": client}
        wanted = {name: value for name, value in said.items() if value}
        assert wanted, "an empty wish would end everything"
        async with self._bounded():
            return await self._revoke(wanted)

    async def end_session(self, session: str) -> int:
        """End what was granted in the login ``session`` and does not outlive it."""
        async with self._bounded():
            return await self._revoke(
                {"session": session, "scopes": {"$ne": "offline_access"}} if session else {}
            )

    async def follow_session(self, old: str, new: str) -> None:
        """Have what was granted in the login ``old`` end with ``new``."""
        async with self._bounded():
            await self.database[GRANTS].update_many({"session": old}, {"$set": {"session": new}})

    async def revoke_token(self, token: str, client: str) -> None:
        """End the access token ``token`` of ``client``, or the grant of its refresh token. One that
        is not known is no fault. RFC 7009, section 2.2."""
        async with self._bounded():
            found = await self.database[TOKENS].find_one({"_id": hashed(token)})
            if found is not None:
                of = {"_id": found["grant"], "client": client}
                if await self.database[GRANTS].find_one(of):
                    await self.database[TOKENS].delete_one({"_id": hashed(token)})
                return
            family, dot, _ = token.partition(".")
            if dot:
                await self._revoke({"family": hashed(family), "client": client})

    async def _revoke(self, wanted: Document) -> int:
        if not wanted:
            return 0
        done = await self.database[GRANTS].update_many(
            wanted | {"revoked": None}, {"$set": {"revoked": self.now()}}
        )
        return done.modified_count

    # What may be used once.

    async def new_launch(self, launch: Launch) -> str:
        """Return the value by which an app takes up ``launch``, once and within five minutes."""
        value = self.secret()
        until = self.now() + timedelta(seconds=LAUNCH_S)
        async with self._bounded():
            await self.database[LAUNCHES].insert_one(
                {"_id": hashed(value), **asdict(launch), "until": until}
            )
        return value

    async def take_launch(self, value: str, client: str, user: str) -> Launch | None:
        """Take the launch that ``value`` stands for; ``None`` unless it is good, of this client and
        user, and nobody has taken it."""
        wanted = {"_id": hashed(value), "client": client, "user": user}
        async with self._bounded():
            found = await self.database[LAUNCHES].find_one_and_delete(
                wanted | {"until": {"$gt": self.now()}}
            )
        return None if found is None else _launch(found)

    async def seen_launch(self, value: str, client: str, user: str) -> Launch | None:
        """Return the launch that :meth:`take_launch` would take, and leave it there."""
        wanted = {"_id": hashed(value), "client": client, "user": user}
        async with self._bounded():
            found = await self.database[LAUNCHES].find_one(wanted | {"until": {"$gt": self.now()}})
        return None if found is None else _launch(found)

    async def claim_assertion(self, client: str, jti: str, until: datetime) -> bool:
        """Take the id of an assertion of ``client``; return whether nobody has. It is kept until
        ``until``, after which the assertion itself must not be taken any more."""
        async with self._bounded():
            try:
                name = hashed(f"{client} {jti}")
                await self.database[ASSERTIONS].insert_one({"_id": name, "until": until})
            except DuplicateKeyError:
                return False
        return True

    def _bounded(self) -> Any:
        return deadline(self.timeout_s, "Try again.")


def _joined(collection: str, local: str, name: str = "of_grant") -> Document:
    return {"$lookup": {"from": collection, "localField": local, "foreignField": "_id", "as": name}}


def _launch(row: Document) -> Launch:
    return Launch(**{one.name: row[one.name] for one in fields(Launch)})


def _grant(row: Document) -> Grant:
    given = {name: row[name] for name in _GRANT}
    return Grant(**given | {"scopes": tuple(given["scopes"]), "roles": tuple(given["roles"])})


def _refreshed_until(grant: Grant, now: datetime) -> datetime:
    """Until when the grant may be refreshed, or is good where it cannot be."""
    if grant.is_offline:
        return now + timedelta(seconds=OFFLINE_S)
    if grant.refreshes and grant.session_until is not None:
        return grant.session_until
    return now + timedelta(seconds=ACCESS_S)


def _seconds(grant: Grant, now: datetime) -> int:
    """How long an access token of ``grant`` is good: not beyond the login, if that bounds it."""
    if grant.is_offline or grant.session_until is None:
        return ACCESS_S
    return max(1, min(ACCESS_S, int((grant.session_until - now).total_seconds())))
