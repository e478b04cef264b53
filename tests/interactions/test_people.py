"""design/security.md, section 2.3 and check A12."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from secrets import token_bytes

import pytest

from fhir_server.app import Server
from fhir_server.interactions import hashing
from fhir_server.interactions import people as signing_in
from fhir_server.interactions.people import People, SignedIn, Wait, Wrong, people_of
from fhir_server.security.lockout import FORGOTTEN
from fhir_server.security.passwords import hashed
from fhir_server.security.second_factor import code_of, step_of
from fhir_server.store.attempts import Attempts
from fhir_server.store.users import User

PASSWORD = "violet harbour 19 lanterns"
HASH = hashed(PASSWORD, token_bytes(16))
START = datetime(2026, 1, 1, tzinfo=UTC)
HERE = "192.0.2.1"


class Clock:
    """A time that stands still until it is moved."""

    def __init__(self) -> None:
        """Begin now: what is past is removed by the database."""
        self.now = datetime.now(UTC).replace(microsecond=0)

    def __call__(self) -> datetime:
        """Return it."""
        return self.now

    def moves(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    """The time of the test."""
    return Clock()


@pytest.fixture
async def people(empty: Server, clock: Clock) -> AsyncIterator[People]:
    """A patient and a physician, and nobody else."""
    found = replace(people_of(empty.context), now=clock)
    for user in (
        User("pat", "Pat", ("patient",), patient="p", password=HASH),
        User("dr", "Dr", ("physician",), password=HASH),
        User("gone", "Gone", ("patient",), patient="g", password=HASH, is_disabled=True),
        User("new", "New", ("nurse",)),
    ):
        await found.users.add(user, clock())
    yield found
    for name in ("users", "sessions", "sign_in_attempts", "outbox"):
        await empty.database[name].delete_many({})


async def test_a_patient_signs_in_by_password(people: People) -> None:
    """Name in any case; the session is known by its cookie, and kept by a hash."""
    found = await people.password(" Pat ", PASSWORD, HERE)

    assert isinstance(found, SignedIn)
    assert found.session.is_whole
    assert found.cookie not in found.session.id
    assert await people.current(found.cookie) == (found.session, found.user)
    assert await people.current(found.session.id) is None


@pytest.mark.parametrize("name", ["pat", "gone", "new", "nobody", "", "../x", "a" * 300])
async def test_what_is_wrong_is_not_told_apart(people: People, name: str) -> None:
    """A wrong password, a disabled user, one without password, nobody: the same answer."""
    password = "wrong password it is" if name == "pat" else PASSWORD
    assert isinstance(await people.password(name, password, HERE), Wrong)


async def test_staff_need_a_second_factor(people: People, clock: Clock) -> None:
    """The first sign-in sets it up; then a code opens once, and a code on paper once."""
    half = await people.password("dr", PASSWORD, HERE)
    assert isinstance(half, SignedIn)
    assert not half.session.is_whole
    seed = await people.seed(half.user)
    sealed = await people.users.named("dr")
    assert sealed is not None
    assert seed not in sealed.seed
    wrong, none = await people.enrolled(half.session, "000000", HERE)
    assert (isinstance(wrong, Wrong), none) == (True, ())
    found, codes = await people.enrolled(half.session, code_of(seed, step_of(clock())), HERE)
    assert isinstance(found, SignedIn)
    assert found.session.is_whole
    assert found.cookie != half.cookie
    assert await people.current(half.cookie) is None
    assert len(set(codes)) == 10

    for code, is_right in (
        (code_of(seed, step_of(clock())), False),  # it was used
        (code_of(seed, step_of(clock()) + 1), True),
        (codes[3], True),
        (codes[3], False),
    ):
        half = await people.password("dr", PASSWORD, HERE)
        assert isinstance(half, SignedIn)
        found = await people.second_factor(half.session, code, HERE)
        assert isinstance(found, SignedIn) is is_right, code
    again, _ = await people.enrolled(half.session, "000000", HERE)
    assert isinstance(again, Wrong)


async def test_of_many_uses_of_a_code_one_counts(people: People, clock: Clock) -> None:
    """However many browsers send the same code at once, from as many networks."""
    user = await people.users.named("dr")
    assert user is not None
    seed, codes = await people.give_second_factor(user)
    for code in (code_of(seed, step_of(clock())), codes[0]):
        half = await people.password("dr", PASSWORD, HERE)
        assert isinstance(half, SignedIn)
        found = await asyncio.gather(
            *(people.second_factor(half.session, code, f"198.51.{n}.1") for n in range(16))
        )
        assert sum(isinstance(one, SignedIn) for one in found) == 1


async def test_a_password_that_is_changed_meanwhile_opens_nothing(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old one was right when it was judged; what ends all sessions has been done since."""

    async def judged(kept: str, password: str) -> bool:
        found = await hashing.matches(kept, password)
        await people.users.change("pat", people.now(), password=HASH.replace("$m=", "$m=1"))
        await people.sessions.end_all("pat")
        return found

    monkeypatch.setattr(signing_in, "matches", judged)
    assert isinstance(await people.password("pat", PASSWORD, HERE), Wrong)
    assert await people.sessions.end_all("pat") == []


async def test_a_second_factor_needs_the_password_still(people: People, clock: Clock) -> None:
    """Where the sign-in was ended between both, the code is right and opens nothing."""
    user = await people.users.named("dr")
    assert user is not None
    seed, _ = await people.give_second_factor(user)
    half = await people.password("dr", PASSWORD, HERE)
    assert isinstance(half, SignedIn)
    await people.sessions.end_all("dr")
    found = await people.second_factor(half.session, code_of(seed, step_of(clock())), HERE)
    assert isinstance(found, Wrong)


async def test_guesses_wait(people: People, clock: Clock) -> None:
    """Five are judged, the sixth waits, the right password as well; from elsewhere it does not."""
    for _ in range(4):
        await people.attempts.admit("pat", "192.0.2.0/24", clock())
    assert isinstance(await people.password("pat", "wrong password it is", HERE), Wrong)
    waits = await people.password("pat", PASSWORD, "192.0.2.200")
    assert isinstance(waits, Wait)
    assert waits.seconds == 30
    assert isinstance(await people.password("pat", PASSWORD, "198.51.100.1"), SignedIn)
    clock.moves(30)
    assert isinstance(await people.password("pat", "wrong password it is", HERE), Wrong)
    waits = await people.password("pat", PASSWORD, HERE)
    assert isinstance(waits, Wait)
    assert waits.seconds == 60
    clock.moves(61)
    assert isinstance(await people.password("pat", PASSWORD, HERE), SignedIn)
    assert (await people.attempts.admit("pat", "192.0.2.0/24", clock())).wait_s == 0


async def test_of_guesses_at_once_five_are_judged(people: People) -> None:
    """They are counted before they are looked at."""
    found = await asyncio.gather(
        *(people.password("nobody", "wrong password it is", HERE) for _ in range(40))
    )
    assert sum(isinstance(one, Wrong) for one in found) == 5


async def test_an_attack_slows_an_account_everywhere(people: People, clock: Clock) -> None:
    """After a hundred attempts in an hour one in 30 s is judged, and the owner is told once."""
    attempts = people.attempts
    for n in range(100):
        admitted = await attempts.admit("pat", f"10.{n}.0.0/24", clock())
        assert admitted.wait_s == 0
    waits = await people.password("pat", PASSWORD, "203.0.113.9")
    assert isinstance(waits, Wait)
    clock.moves(31)
    assert isinstance(await people.password("pat", PASSWORD, "203.0.113.9"), SignedIn)
    assert await people.notices.to("pat", clock() - timedelta(days=1)) == []


async def test_an_attack_does_not_keep_the_owner_out(people: People, clock: Clock) -> None:
    """Where the owner has signed in within a day, what strangers do elsewhere is not waited for;
    guesses from there wait as ever."""
    assert isinstance(await people.password("pat", PASSWORD, HERE), SignedIn)
    for n in range(100):
        clock.moves(1)
        await people.attempts.admit("pat", f"10.{n}.0.0/24", clock())
    assert isinstance(await people.password("pat", PASSWORD, "203.0.113.9"), Wait)
    assert isinstance(await people.password("pat", PASSWORD, HERE), SignedIn)
    found = [await people.password("pat", "wrong password it is", HERE) for _ in range(7)]
    assert [type(one) for one in found] == [Wrong] * 5 + [Wait] * 2


async def test_an_owner_is_told_of_an_attack(people: People, clock: Clock) -> None:
    """The attempt that makes the hundred writes the notice; those after it do not."""
    for n in range(99):
        await people.attempts.admit("new", f"10.{n}.0.0/24", clock())
    await people.password("new", "wrong password it is", HERE)
    [notice] = await people.notices.to("new", clock() - timedelta(days=1))
    assert notice.kind == "sign-in-slowed"
    clock.moves(40)
    await people.password("new", "wrong password it is", HERE)
    assert len(await people.notices.to("new", clock() - timedelta(days=1))) == 1


async def test_attempts_are_forgotten(empty: Server, people: People, clock: Clock) -> None:
    """A day later a network begins anew; an administrator lets an owner in before that."""
    attempts = Attempts(empty.database, 10.0)
    assert [(await attempts.admit("x", HERE, clock())).wait_s for _ in range(6)] == [0] * 5 + [30]
    await attempts.forget("x")
    assert (await attempts.admit("x", HERE, clock())).wait_s == 0
    assert [(await attempts.admit("x", HERE, clock())).wait_s for _ in range(6)] == [0] * 4 + [
        30
    ] * 2
    later = clock() + FORGOTTEN
    assert [(await attempts.admit("x", HERE, later)).wait_s for _ in range(6)] == [0] * 5 + [30]


@pytest.mark.slow
async def test_known_and_unknown_names_take_the_same_time(people: People) -> None:
    """A12: medians within a tenth, taken in turn so that a busy machine is busy for both."""
    gap = 1.0
    for _ in range(4):
        took: dict[str, list[float]] = {"pat": [], "nobody": []}
        for n in range(11):
            for name, seen in took.items():
                began = time.perf_counter()
                await people.password(name, "wrong password it is", f"10.{n}.{len(seen)}.1")
                seen.append(time.perf_counter() - began)
        known, unknown = map(statistics.median, took.values())
        gap = abs(known - unknown) / known
        if gap <= 0.1:
            break
        for name in took:
            await people.attempts.forget(name)
    assert gap <= 0.1
