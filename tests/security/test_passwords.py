"""https://pages.nist.gov/800-63-4/sp800-63b.html#passwordver"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.security.passwords import (
    CHARACTERS_MAX,
    NOBODY,
    Unusable,
    check,
    hashed,
    is_common,
    is_current,
    is_right,
)

SALT = bytes(range(16))

REFUSED = (
    *(
        "short-one",
        "x" * 300,
        "passwordpassword",
        "Password1234!",
        "P@ssw0rd2024!",
        "letmein-letmein",
    ),
    *(
        "qwertyuiop12",
        "1q2w3e4r5t6y",
        "123456789012",
        "zzzzzzzzzzzz",
        "abcabcabcabc",
        "welcome to dhaka",
    ),
    *(
        "iloveyou1234",
        "administrator",
        "rahima-begum-1",
        "Hospital2026!",
        "poiuytrewq12",
        "tab\tin a password",
    ),
)
TAKEN = (
    *("violet harbour 19 lanterns", "kz8fh2lqp3vn", "correct horse battery staple"),
    *("আমার পাসওয়ার্ড খুব লম্বা", "three wet umbrellas", "Tr0ub4dor & three"),
)


@pytest.mark.parametrize("password", REFUSED)
def test_what_everybody_tries_is_refused(password: str) -> None:
    """Too short, too long, common words in any spelling, runs, repetitions, the owner's name."""
    with pytest.raises(Unusable) as refused:
        check(password, ("Rahima Begum",))
    assert password not in str(refused.value)


@pytest.mark.parametrize("password", TAKEN)
def test_what_is_long_and_its_own_is_taken(password: str) -> None:
    """No rule asks for digits or signs; any script will do."""
    check(password, ("Rahima Begum", "rahima"))


@given(st.text(max_size=300))
def test_any_text_is_taken_or_refused(text: str) -> None:
    """Whatever is typed, in a time that a sign-in page can afford."""
    is_common(text)


@given(st.sampled_from(["password", "welcome", "dragon"]), st.integers(0, 99_999), st.booleans())
def test_a_common_word_stays_common(word: str, number: int, in_front: bool) -> None:
    """Digits before or behind a common word make it no other password."""
    assert is_common(f"{number}{word}" if in_front else f"{word}{number}")


def test_what_is_kept_is_argon2id() -> None:
    """64 MiB, three passes; the same however it was typed, and not what it was."""
    kept = hashed("caf\u00e9 with three doors", SALT)

    assert kept.startswith("$argon2id$v=19$m=65536,t=3,p=1$")
    assert is_current(kept)
    assert is_right(kept, "cafe\u0301 with three doors")
    assert not is_right(kept, "cafe with three doors")
    assert not is_right("", "cafe with three doors")
    assert is_current(NOBODY)
    assert not is_right(NOBODY, "")
    assert not is_current(kept.replace("m=65536", "m=1024"))
    assert CHARACTERS_MAX * 4 <= 1_024  # all of it is hashed
