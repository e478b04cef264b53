"""Passwords: which are taken, and how they are kept.

https://pages.nist.gov/800-63-4/sp800-63b.html#passwordver: length counts, composition does not, and
what everybody tries first is refused. Kept is Argon2id (RFC 9106) with 64 MiB and three passes;
salts come from outside, and so does the thread in which the 0.15 s of a hash are spent.

The words below are our own selection of what lists of leaked passwords have at their top in many
spellings (first names, keyboard rows, words of sign-in pages and of clinics). No such list is
copied: of those lists' entries hardly any has twelve characters, and what has is put together from
these words, digits and repetitions, which is what is judged here.
"""

import unicodedata
from collections.abc import Iterable

import re2 as re
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import ARGON2_VERSION, Type, hash_secret, verify_secret

CHARACTERS_MIN = 12
CHARACTERS_MAX = 256
"""What a password has at most: longer ones would only cost us time."""
SALT_BYTES = 16
MEMORY_KIB = 65_536
PASSES = 3
_LANES = 1  # two hashes run side by side, each in one thread
_HASH_BYTES = 32
_FIGURES = f"$argon2id$v={ARGON2_VERSION}$m={MEMORY_KIB},t={PASSES},p={_LANES}$"
NOBODY = f"{_FIGURES}{'A' * 22}${'A' * 43}"
"""A hash that no password has, and that takes as long as any to find that out."""

_WORDS = frozenset(
    """
    aaa abc abcd abcdef access account admin administrator alexander amanda andrew angel anthony
    apple asdf asdfgh asdfghjkl ashley august autumn babygirl bailey bangladesh banana baseball
    basketball batman biteme butterfly buster carlos change changeme charlie cheese chelsea
    chicken chocolate clinic computer cookie correct daniel database december default demo dhaka
    diamond doctor dragon elizabeth february fhir flower football forever freedom friday fuckyou
    fuck george ginger google guest hannah happy harley health healthcare heather hello hockey
    hospital hunter hunter2 iloveyou jasmine january jennifer jessica jesus jordan joseph joshua
    july june justin killer letmein liverpool lock login london looking love lovely maggie master
    matrix matthew medical melissa merlin michael michelle mickey monday mongodb monkey morgan
    mother mustang my myself naruto nicole ninja november nurse october orange pass passcode passw
    password passwort patient pepper phoenix player please pokemon princess purple qazwsx qazwsxedc
    qwer qwerty qwertz qwertyuiop qwertyuiopasdfghjkl qwertzuiop ranger richard robert root sample
    samsung saturday secret secure security september server service shadow sign snoopy soccer
    sophie spring starwars steelers stella summer sunday sunshine super superman superuser support
    system taylor temp temporary test testing the thomas thunder thursday tigger tinkerbell trustno
    tuesday user victoria wednesday welcome whatever william winter wizard xxx yellow you zaq zaqwsx
    zxcv zxcvbn zxcvbnm
    """.split()
)
_ROWS = (
    "01234567890123456789",
    "abcdefghijklmnopqrstuvwxyz",
    "qwertyuiopasdfghjklzxcvbnm",
    "qwertzuiopasdfghjklyxcvbnm",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p",
    "1q2w3e4r5t6y7u8i9o0p",
)
_READ_AS = str.maketrans("@4310$578!", "aaeiosstbi")
_OTHER = re.compile(r"[^\pL]+")
_DISTINCT_MIN = 5  # characters that differ: aaaabbbbcccc is three


class Unusable(ValueError):
    """A password that is not taken; the text says why, and never what it was."""


def normal(password: str) -> str:
    """Return ``password`` as it is hashed: typed on another keyboard it is the same (NFKC)."""
    return unicodedata.normalize("NFKC", password)


def check(password: str, known: Iterable[str] = ()) -> None:
    """Raise :class:`Unusable` for a password that is too short, too long, or among the first that
    somebody would try. ``known`` are words about its owner: name, display name, the site."""
    text = normal(password)
    if len(text) < CHARACTERS_MIN:
        raise Unusable(f"A password has {CHARACTERS_MIN} characters or more.")
    if len(text) > CHARACTERS_MAX:
        raise Unusable(f"A password has {CHARACTERS_MAX} characters at most.")
    if any(unicodedata.category(one) in ("Cc", "Cs") for one in text):
        raise Unusable("A password has no control characters.")
    if is_common(text, known):
        raise Unusable("This is among the passwords that are tried first; take several words.")


def is_common(password: str, known: Iterable[str] = ()) -> bool:
    """Whether ``password`` is put together from what everybody tries: common words in any spelling,
    what is ``known`` of its owner, digits, repetitions, runs of a keyboard.

    >>> is_common("P@ssw0rd2024!"), is_common("qwertyuiop12"), is_common("correct horse stapler")
    (True, True, False)
    """
    text = password.casefold()
    if len(set(text)) < _DISTINCT_MIN or _repeats(text) or _is_run(text):
        return True
    words = _WORDS | {
        part for one in known for part in _OTHER.split(one.casefold()) if len(part) >= 3
    }
    spellings = (text, text.translate(_READ_AS))
    return any(_is_made_of(_OTHER.sub("", one), words) for one in spellings)


def _repeats(text: str) -> bool:
    """Whether ``text`` is one part over and over, the last one perhaps cut."""
    return any(
        (text[:size] * len(text))[: len(text)] == text for size in range(1, len(text) // 2 + 1)
    )


def _is_run(text: str) -> bool:
    """Whether ``text`` follows a row of the keyboard, either way, with up to three more."""
    return any(
        text[start : start + length] in way
        for row in _ROWS
        for way in (row, row[::-1])
        for length in range(max(8, len(text) - 3), len(text) + 1)
        for start in range(len(text) - length + 1)
    )


def _is_made_of(letters: str, words: frozenset[str]) -> bool:
    """Whether ``letters`` are words one after another; up to three letters may be left over."""
    left = {0: 0}  # up to where -> how many letters were left over
    for place in range(len(letters)):
        if place not in left:
            continue
        over = left[place]
        if over < 3:
            left[place + 1] = min(left.get(place + 1, 99), over + 1)
        for end in range(place + 2, min(len(letters), place + 24) + 1):
            if letters[place:end] in words:
                left[end] = min(left.get(end, 99), over)
    return left.get(len(letters), 99) <= 3 and len(letters) <= CHARACTERS_MAX


def hashed(password: str, salt: bytes) -> str:
    """Return what is kept of ``password``: Argon2id with ``salt``, :data:`SALT_BYTES` random bytes.

    Takes some 0.15 s and 64 MiB: to be called in a thread.
    """
    made = hash_secret(
        normal(password).encode(), salt, PASSES, MEMORY_KIB, _LANES, _HASH_BYTES, Type.ID
    )
    return made.decode("ascii")


def is_right(kept: str, password: str) -> bool:
    """Whether ``password`` is the one of which ``kept`` is the hash; as long as :func:`hashed`."""
    try:
        return verify_secret(kept.encode("ascii"), normal(password).encode(), Type.ID)
    except (VerificationError, InvalidHashError):
        return False


def is_current(kept: str) -> bool:
    """Whether ``kept`` was made with today's figures; else a sign-in has it made anew."""
    return kept.startswith(_FIGURES)
