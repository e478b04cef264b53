"""3GPP TS 23.038 and check R6: what a text may say, and how many pieces it is sent in."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.features.scheduling.sms_segments import Segments, segments
from fhir_server.features.scheduling.templates import (
    FIELDS,
    KINDS,
    TEXTS,
    TemplateFault,
    loaded,
    named,
    rendered,
)

MARK = "Zq"
ALL = {name: f"{MARK}{name}" for names in FIELDS.values() for name in names}
SECRETS = {
    name: f"{MARK}{name}" for name in ("family", "birthDate", "diagnosis", "address", "identifier")
}
SITE_MAX = 6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channel", FIELDS)
@pytest.mark.parametrize("language", ["en", "bn"])
def test_no_field_outside_the_list_is_in_a_text(kind: str, channel: str, language: str) -> None:
    """R6: whatever is known, only what the channel may have gets into its text."""
    text = rendered(TEXTS, kind, channel, language, {**ALL, **SECRETS})
    both = text.text + text.subject
    allowed = {f"{MARK}{name}" for name in FIELDS[channel]}

    for value in {*ALL.values(), *SECRETS.values()} - allowed:
        assert value not in both
    assert "{" not in both


@pytest.mark.parametrize(
    "text",
    [
        "{family}",
        "{service}",
        "{given.__class__}",
        "{given!r}",
        "{given:>999999999}",
        "{0}",
        "{}",
        "{{day}}",
        "{day",
        "}",
        "${day}%(day)s {",
        "",
        "x" * 3000,
        "ক" * 500,
        7,
    ],
)
def test_a_template_is_names_in_braces_and_nothing_else(text: Any) -> None:
    """R6: expressions, formats, members, other names: refused when the server starts."""
    given_ = {"reminder": {"en": {"sms": text}}}
    with pytest.raises(TemplateFault):
        loaded(json.dumps(given_), SITE_MAX)


def test_a_site_has_its_own_texts() -> None:
    """What a file names is taken from it, the rest stays; another language may be added."""
    whole = {"sms": "{day}", "subject": "{day}", "email": "{day}", "webhook": "{day}"}
    texts = loaded(json.dumps({"reminder": {"en": {"sms": "Hi {given}"}, "ur": whole}}), SITE_MAX)

    assert rendered(texts, "reminder", "sms", "en", {"given": "Amina"}).text == "Hi Amina"
    assert texts["reminder"]["en"]["email"] == TEXTS["reminder"]["en"]["email"]
    assert rendered(texts, "reminder", "sms", "ur", {"day": "Mon"}).text == "Mon"
    with pytest.raises(TemplateFault, match="nothing for"):
        loaded('{"reminder": {"ur": {"sms": "x"}}}', SITE_MAX)
    with pytest.raises(TemplateFault, match="one line"):
        loaded('{"reminder": {"en": {"subject": "Your\\nappointment"}}}', SITE_MAX)
    with pytest.raises(TemplateFault, match="no messages"):
        loaded('{"other": {}}', SITE_MAX)


@pytest.mark.parametrize("language", ["en", "bn"])
def test_nobody_is_asked_for_an_answer_that_is_not_heard(language: str) -> None:
    """Where no answers are taken, a patient who sent 2 would believe to have cancelled."""
    heard, unheard = (
        rendered(loaded("", SITE_MAX, is_heard=one), "reminder", "sms", language, ALL).text
        for one in (True, False)
    )
    assert "STOP" in heard
    assert "STOP" not in unheard
    assert all(f"{MARK}{name}" in unheard for name in ("day", "time", "phone"))
    own = loaded(json.dumps({"reminder": {"en": {"sms": "{day}!"}}}), SITE_MAX, is_heard=False)
    assert own["reminder"]["en"]["sms"] == "{day}!"


@given(st.text(), st.sampled_from(["sms", "email", "webhook"]))
def test_a_value_is_one_line_and_bounded(value: str, channel: str) -> None:
    """Whatever stands in a record: no line break, nothing invisible, no name that is replaced
    again, and never more pieces than a site allows."""
    values = dict.fromkeys(ALL, value)
    for kind in KINDS:
        for language in ("en", "bn"):
            text = rendered(TEXTS, kind, channel, language, values)
            assert "\n" not in text.subject
            assert text.text.count("\n") == TEXTS[kind][language][channel].count("\n")
            if channel == "sms":
                assert segments(text.text).count <= SITE_MAX
    once = rendered(TEXTS, "reminder", "sms", "en", {"clinic": "{phone}", "phone": value or "x"})
    assert once.text.startswith("{phone}:")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Segments("GSM-7", 1)),
        ("a" * 160, Segments("GSM-7", 1)),
        ("a" * 161, Segments("GSM-7", 2)),
        ("a" * 306, Segments("GSM-7", 2)),
        ("a" * 307, Segments("GSM-7", 3)),
        ("€" * 80, Segments("GSM-7", 1)),
        ("a" * 152 + "€" + "a" * 152, Segments("GSM-7", 3)),  # an escape is not parted
        ("a" * 159 + "ক", Segments("UCS-2", 3)),
        ("ক" * 70, Segments("UCS-2", 1)),
        ("ক" * 71, Segments("UCS-2", 2)),
        ("ক" * 134, Segments("UCS-2", 2)),
        ("ক" * 135, Segments("UCS-2", 3)),
        ("😀" * 35, Segments("UCS-2", 1)),
        ("ক" * 66 + "😀" + "ক" * 66, Segments("UCS-2", 3)),  # nor is a pair
        ("\u2019", Segments("UCS-2", 1)),
    ],
)
def test_pieces_are_counted(text: str, expected: Segments) -> None:
    """160 and 153 characters, 70 and 67 with Bangla; those that count twice count twice."""
    assert segments(text) == expected


@given(st.text(alphabet="ab€ক😀", max_size=700))
def test_more_text_is_never_fewer_pieces(text: str) -> None:
    """A property: to take the last character off saves a piece or none."""
    shorter = segments(text[:-1])
    if shorter.alphabet == segments(text).alphabet:
        assert shorter.count in (segments(text).count, segments(text).count - 1)


def test_a_day_is_written_in_the_language() -> None:
    """With the digits of the language, in the zone of the moment."""
    when = datetime(2036, 12, 2, 15, 5, tzinfo=UTC) + timedelta(0)
    assert named(when, "en") == ("Tue 2 Dec 2036", "15:05")
    assert named(when, "bn") == ("মঙ্গলবার ২ ডিসেম্বর ২\u09e6৩৬", "১৫:\u09e6৫")
    assert named(when, "fr") == named(when, "en")
