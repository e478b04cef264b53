"""How often it was tried to sign in, by account and network, so that guessing takes its time.

The rules are those of ``security/lockout.py``; here are the numbers. Rows are named by hashes: what
was typed as a name may be anything, a password among it. They are removed a day after the last
attempt.
"""

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from pymongo import IndexModel
from pymongo.errors import DuplicateKeyError

from fhir_server.security.lockout import (
    FORGOTTEN,
    is_attacked,
    kept_times,
    wait_of_account,
    wait_of_network,
)
from fhir_server.store.client import Database, Document, deadline

ATTEMPTS = "sign_in_attempts"
_ADVICE = "Try again."
_TRIES = 8  # so often others may come between; then this attempt waits a second
_BUSY_S = 1.0


@dataclass(frozen=True, slots=True)
class Admitted:
    """Whether an attempt may be judged: ``wait_s`` is 0, else so long it has to wait.

    ``is_attack`` of the attempt with which an account begins to be slowed everywhere.
    """

    wait_s: float
    is_attack: bool = False


@dataclass(frozen=True, slots=True)
class Attempts:
    """The attempts that ``database`` keeps, for all processes."""

    database: Database
    timeout_s: float

    async def ensure(self) -> None:
        """Make the index, and with it the collection."""
        index = IndexModel([("forgotten", 1)], expireAfterSeconds=0)
        await self.database[ATTEMPTS].create_indexes([index])

    async def admit(self, account: str, network: str, now: datetime) -> Admitted:
        """Count an attempt on ``account`` from ``network``, unless it has to wait.

        Both rows are written only as they were read: of attempts that come at once, each is judged
        by what the ones before it have left.
        """
        account_id, network_id = _ids(account, network)
        async with deadline(self.timeout_s, _ADVICE):
            for _ in range(_TRIES):
                found = await self._rows(account_id, network_id)
                of_account, of_network = found.get(account_id), found.get(network_id)
                times = of_account["times"] if of_account else []
                count, last = _counted(of_network, now)
                is_owners = _is_owners(of_network, now)
                of_all = 0.0 if is_owners else wait_of_account(times, now)
                wait = max(wait_of_network(count, last, now), of_all)
                if wait > 0:
                    return Admitted(wait)
                after = kept_times(times, now)
                row: Document = {"times": after, "forgotten": now + FORGOTTEN}
                if not await self._replaced(account_id, of_account, row):
                    continue
                row = {"count": count + 1, "last": now, "forgotten": now + FORGOTTEN}
                if of_network and is_owners:
                    row["owner"] = of_network["owner"]
                if await self._replaced(network_id, of_network, row):
                    begins = is_attacked(after, now) and not is_attacked(times, now)
                    return Admitted(0.0, begins)
        return Admitted(_BUSY_S)

    async def succeeded(self, account: str, network: str, times: list[datetime]) -> None:
        """Forget what ``network`` has tried at ``account``, and that those of ``times`` were
        attempts: they were the owner's, whom no attack from elsewhere keeps out there for a day."""
        account_id, network_id = _ids(account, network)
        last = times[-1]
        known = {"count": 0, "last": last, "owner": last, "forgotten": last + FORGOTTEN}
        async with deadline(self.timeout_s, _ADVICE):
            await self.database[ATTEMPTS].update_one(
                {"_id": network_id}, {"$set": known, "$inc": {"turn": 1}}, upsert=True
            )
            await self.database[ATTEMPTS].update_one(
                {"_id": account_id}, {"$pull": {"times": {"$in": times}}, "$inc": {"turn": 1}}
            )

    async def forget(self, account: str) -> None:
        """Forget every attempt on ``account``: an administrator lets its owner in again."""
        async with deadline(self.timeout_s, _ADVICE):
            account_id, _ = _ids(account, "")
            await self.database[ATTEMPTS].delete_many(
                {"_id": {"$gte": account_id, "$lt": account_id + "0"}}
            )

    async def _rows(self, *ids: str) -> dict[str, Document]:
        rows = await self.database[ATTEMPTS].find({"_id": {"$in": [*ids]}}).to_list()
        return {row["_id"]: row for row in rows}

    async def _replaced(self, id: str, was: Document | None, row: Document) -> bool:
        """Write ``row`` in the place of what ``was`` there; return whether it still was."""
        turn = was["turn"] if was else 0
        wanted = {**row, "turn": turn + 1}
        try:
            if was is None:
                await self.database[ATTEMPTS].insert_one({"_id": id, **wanted})
                return True
            done = await self.database[ATTEMPTS].replace_one({"_id": id, "turn": turn}, wanted)
        except DuplicateKeyError:
            return False
        return done.modified_count == 1


def _ids(account: str, network: str) -> tuple[str, str]:
    """Return the names of both rows; that of the account begins the other: ``/`` follows it."""
    name = sha256(account.encode()).hexdigest()
    return name, f"{name}/{sha256(network.encode()).hexdigest()}"


def _is_owners(row: Document | None, now: datetime) -> bool:
    """Whether the owner of the account has signed in from the network of ``row`` within a day."""
    return row is not None and "owner" in row and now - row["owner"] < FORGOTTEN


def _counted(row: Document | None, now: datetime) -> tuple[int, datetime | None]:
    if row is None or now - row["last"] >= FORGOTTEN:
        return 0, None
    return row["count"], row["last"]
