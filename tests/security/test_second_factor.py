"""https://www.rfc-editor.org/rfc/rfc6238, https://www.rfc-editor.org/rfc/rfc4226"""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.security.second_factor import (
    RECOVERY_BYTES,
    code_of,
    matching_step,
    recovery_code,
    recovery_hash,
    step_of,
    uri,
)

SEED = b"12345678901234567890"
NOW = datetime(2026, 1, 1, 12, 0, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("time", "code"), [(59, "287082"), (1111111109, "081804"), (20000000000, "353130")]
)
def test_codes_are_those_of_the_standard(time: int, code: str) -> None:
    """RFC 6238, appendix B, the last six digits."""
    assert code_of(SEED, time // 30) == code


@pytest.mark.parametrize(
    ("seconds", "is_right"), [(-60, False), (-30, True), (0, True), (30, True), (60, False)]
)
def test_one_step_of_drift(seconds: int, is_right: bool) -> None:
    """A clock may be off by one step, and no more."""
    code = code_of(SEED, step_of(NOW + timedelta(seconds=seconds)))
    assert (matching_step(SEED, code, NOW, 0) is not None) is is_right


def test_a_step_counts_once() -> None:
    """What was used, and what came before it, is of no use any more; spaces do not matter."""
    step = step_of(NOW)
    code = code_of(SEED, step)
    assert matching_step(SEED, f"{code[:3]} {code[3:]}", NOW, step - 1) == step
    assert matching_step(SEED, code, NOW, step) is None
    assert matching_step(SEED, code_of(SEED, step - 1), NOW, step) is None


@given(st.text(max_size=60))
def test_any_text_is_a_code_or_none(text: str) -> None:
    """Whatever is typed is judged."""
    matching_step(SEED, text, NOW, 0)
    recovery_hash(text)


@given(st.binary(min_size=RECOVERY_BYTES, max_size=RECOVERY_BYTES))
def test_a_code_on_paper_is_known_however_typed(random: bytes) -> None:
    """Lower case, without dashes, with spaces: it is the same code."""
    code = recovery_code(random)
    kept = recovery_hash(code)
    assert len(kept) == 64
    assert recovery_hash(code.lower().replace("-", " ")) == kept
    assert recovery_hash(code[:-1]) == ""


def test_an_app_takes_the_seed_over() -> None:
    """The link carries name, issuer and key."""
    assert uri(SEED, "dr.rahman", "Clinic").startswith(
        "otpauth://totp/Clinic:dr.rahman?secret=GEZD"
    )
