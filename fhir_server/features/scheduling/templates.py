"""The texts of messages: what a template may say, and what becomes of it. Pure.

A template is text with names in braces, such as ``{day}``, and nothing else: no expression, no
format, no member of anything. Which names it may have depends on the channel: what is sent by SMS
is read on a screen that others see. A site's own templates are a JSON file of the same shape as
:data:`TEXTS`; they are read when the server starts, and what is wrong with one stops the start.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fhir_server.features.scheduling.sms_segments import segments

FIELDS: Mapping[str, frozenset[str]] = {
    "sms": frozenset(("given", "day", "time", "clinic", "phone", "practitioner", "place", "link")),
    "email": frozenset(
        ("given", "day", "time", "clinic", "phone", "practitioner", "place", "service", "link")
    ),
    "webhook": frozenset(
        ("day", "time", "clinic", "phone", "practitioner", "place", "service", "link")
    ),
}
"""The names that a template of a channel may have. There is no other way for data into a text."""

KINDS = ("reminder", "cancelled", "moved", "medication", "offer", "blocked")
VALUE_CHARACTERS_MAX = 40
"""What a value has at most in a text; it is cut behind them. It is what bounds an SMS."""
_TEMPLATE_CHARACTERS_MAX = 2000
_NAME = re.compile(r"\{([a-z]+)\}")
_LINK_CHARACTERS_MAX = 200
_JOINERS = "\u200c\u200d"  # of Bangla's letters; else nothing invisible gets into a text

Texts = Mapping[str, Mapping[str, Mapping[str, str]]]
"""Kind -> language -> ``sms``, ``email``, ``subject``, ``webhook``."""

TEXTS: Texts = {
    "reminder": {
        "en": {
            "sms": "{clinic}: your appointment is on {day} at {time}. Reply 1 to confirm, 2 to "
            "cancel, STOP for no messages.",
            "subject": "Your appointment on {day}",
            "email": "Dear {given},\n\nyour appointment is on {day} at {time}, with {practitioner} "
            "at {place}.\n\nIf you cannot come, please tell us: {phone}.\n\n{clinic}\n",
            "webhook": "Appointment on {day} at {time}.",
        },
        "bn": {
            "sms": "{clinic}: আপনার অ্যাপয়েন্টমেন্ট {day}, {time}। নিশ্চিত করতে 1, বাতিল করতে 2, "
            "বার্তা বন্ধ করতে STOP লিখুন।",
            "subject": "{day} আপনার অ্যাপয়েন্টমেন্ট",
            "email": "প্রিয় {given},\n\nআপনার অ্যাপয়েন্টমেন্ট {day}, {time}; {practitioner}, "
            "{place}।\n\nআসতে না পারলে আমাদের জানান: {phone}।\n\n{clinic}\n",
            "webhook": "অ্যাপয়েন্টমেন্ট {day}, {time}।",
        },
    },
    "cancelled": {
        "en": {
            "sms": "{clinic}: your appointment on {day} at {time} is cancelled. {phone}",
            "subject": "Your appointment on {day} is cancelled",
            "email": "Dear {given},\n\nyour appointment on {day} at {time} is cancelled. For "
            "another time, call {phone}.\n\n{clinic}\n",
            "webhook": "Appointment on {day} at {time} is cancelled.",
        },
        "bn": {
            "sms": "{clinic}: আপনার {day}, {time} অ্যাপয়েন্টমেন্ট বাতিল হয়েছে। {phone}",
            "subject": "{day} আপনার অ্যাপয়েন্টমেন্ট বাতিল",
            "email": "প্রিয় {given},\n\nআপনার {day}, {time} অ্যাপয়েন্টমেন্ট বাতিল হয়েছে। অন্য "
            "সময়ের জন্য ফোন করুন: {phone}।\n\n{clinic}\n",
            "webhook": "{day}, {time} অ্যাপয়েন্টমেন্ট বাতিল।",
        },
    },
    "moved": {
        "en": {
            "sms": "{clinic}: your appointment is now on {day} at {time}. {phone}",
            "subject": "Your appointment is now on {day}",
            "email": "Dear {given},\n\nyour appointment was moved. It is now on {day} at {time}, "
            "with {practitioner} at {place}.\n\nIf you cannot come, please tell us: {phone}."
            "\n\n{clinic}\n",
            "webhook": "Appointment moved to {day} at {time}.",
        },
        "bn": {
            "sms": "{clinic}: আপনার অ্যাপয়েন্টমেন্টের নতুন সময় {day}, {time}। {phone}",
            "subject": "আপনার অ্যাপয়েন্টমেন্টের নতুন সময় {day}",
            "email": "প্রিয় {given},\n\nআপনার অ্যাপয়েন্টমেন্টের নতুন সময় {day}, {time}; "
            "{practitioner}, {place}।\n\nআসতে না পারলে আমাদের জানান: {phone}।\n\n{clinic}\n",
            "webhook": "অ্যাপয়েন্টমেন্টের নতুন সময় {day}, {time}।",
        },
    },
    "medication": {
        "en": {
            "sms": "{clinic}: it is time for your medicine ({time}).",
            "subject": "Time for your medicine",
            "email": "Dear {given},\n\nit is time for your medicine ({time}).\n\n{clinic}\n",
            "webhook": "Time for medicine ({time}).",
        },
        "bn": {
            "sms": "{clinic}: আপনার ওষুধ খাওয়ার সময় হয়েছে ({time})।",
            "subject": "ওষুধ খাওয়ার সময়",
            "email": "প্রিয় {given},\n\nআপনার ওষুধ খাওয়ার সময় হয়েছে ({time})।\n\n{clinic}\n",
            "webhook": "ওষুধ খাওয়ার সময় ({time})।",
        },
    },
    "offer": {
        "en": {
            "sms": "{clinic}: {day}, {time} has become free. To take it: {link}",
            "subject": "A time on {day} has become free",
            "email": "Dear {given},\n\n{day} at {time}, with {practitioner}, has become free. To "
            "take it, open {link}.\n\n{clinic}\n",
            "webhook": "{day}, {time} is offered: {link}",
        },
        "bn": {
            "sms": "{clinic}: {day}, {time} খালি হয়েছে। নিতে চাইলে: {link}",
            "subject": "{day} একটি সময় খালি হয়েছে",
            "email": "প্রিয় {given},\n\n{day}, {time} ({practitioner}) খালি হয়েছে। নিতে চাইলে খুলুন: "
            "{link}\n\n{clinic}\n",
            "webhook": "{day}, {time}: {link}",
        },
    },
    "blocked": {
        "en": {
            "sms": "{clinic}: your appointment on {day} at {time} cannot be kept. We will tell you "
            "of another time. {phone}",
            "subject": "Your appointment on {day} cannot be kept",
            "email": "Dear {given},\n\nyour appointment on {day} at {time} cannot be kept. We will "
            "tell you of another time; you can also call {phone}.\n\n{clinic}\n",
            "webhook": "Appointment on {day} at {time} cannot be kept.",
        },
        "bn": {
            "sms": "{clinic}: আপনার {day}, {time} অ্যাপয়েন্টমেন্ট রাখা যাচ্ছে না। নতুন সময় জানানো হবে। {phone}",
            "subject": "{day} আপনার অ্যাপয়েন্টমেন্ট রাখা যাচ্ছে না",
            "email": "প্রিয় {given},\n\nআপনার {day}, {time} অ্যাপয়েন্টমেন্ট রাখা যাচ্ছে না। নতুন "
            "সময় জানানো হবে; ফোনও করতে পারেন: {phone}।\n\n{clinic}\n",
            "webhook": "{day}, {time} অ্যাপয়েন্টমেন্ট রাখা যাচ্ছে না।",
        },
    },
}
"""The texts as they are without a file. They name no medicine, nor why somebody comes."""
_UNHEARD: Mapping[str, str] = {
    "en": "{clinic}: your appointment is on {day} at {time}. {phone}",
    "bn": "{clinic}: আপনার অ্যাপয়েন্টমেন্ট {day}, {time}। {phone}",
}
"""The SMS of a reminder where answers are not taken: who is asked for one believes that it counts.
"""

_EMPTY = {
    "en": {"given": "patient", "practitioner": "our team", "place": "our clinic"},
    "bn": {"given": "রোগী", "practitioner": "আমাদের চিকিৎসক", "place": "আমাদের ক্লিনিক"},
}
_DAYS = {
    "en": "Mon Tue Wed Thu Fri Sat Sun",
    "bn": "সোমবার মঙ্গলবার বুধবার বৃহস্পতিবার শুক্রবার শনিবার রবিবার",
}
_MONTHS = {
    "en": "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec",
    "bn": "জানুয়ারি ফেব্রুয়ারি মার্চ এপ্রিল মে জুন জুলাই আগস্ট সেপ্টেম্বর অক্টোবর নভেম্বর ডিসেম্বর",
}
_BANGLA_DIGITS = str.maketrans("0123456789", "০১২৩৪৫৬৭৮৯")


class TemplateFault(ValueError):
    """What is wrong with a template; the text names it."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text that is ready to be sent. ``subject`` is that of an e-mail."""

    language: str
    text: str
    subject: str = ""


def rendered(
    texts: Texts, kind: str, channel: str, language: str, values: Mapping[str, str]
) -> Text:
    """Return the text of ``kind`` for ``channel`` in ``language``, which is one of
    :func:`languages`. Of ``values`` only what the channel may have gets into it."""
    found = texts[kind][language]
    known = {name: values.get(name, "") for name in FIELDS[channel]}
    known = {name: _plain(name, one) for name, one in known.items()}
    for name, instead in _EMPTY.get(language, _EMPTY["en"]).items():
        if name in known and not known[name]:
            known[name] = instead

    def value(match: re.Match[str]) -> str:
        return known.get(match[1], "")

    subject = _NAME.sub(value, found.get("subject", "")) if channel == "email" else ""
    return Text(language, _NAME.sub(value, found[channel]), subject)


def languages(texts: Texts, kind: str) -> frozenset[str]:
    """Return the languages that ``kind`` is written in."""
    return frozenset(texts.get(kind, {}))


def named(when: datetime, language: str) -> tuple[str, str]:
    """Return the day and the time of ``when``, in its own zone, as they are written.

    >>> named(datetime.fromisoformat("2026-12-01T09:05:00+06:00"), "en")
    ('Tue 1 Dec 2026', '09:05')
    """
    language = language if language in _DAYS else "en"
    day = _DAYS[language].split()[when.weekday()]
    month = _MONTHS[language].split()[when.month - 1]
    said, time = f"{day} {when.day} {month} {when.year}", f"{when:%H:%M}"
    if language == "bn":
        return said.translate(_BANGLA_DIGITS), time.translate(_BANGLA_DIGITS)
    return said, time


def loaded(text: str, segments_max: int, *, is_heard: bool = True) -> Texts:
    """Return :data:`TEXTS` with those of a site's file ``text`` in their place. ``is_heard`` is
    whether answers to SMS are taken.

    Raises :class:`TemplateFault` that names what is not as it may be: a name outside
    :data:`FIELDS`, a brace that is none of a name, an SMS that may come to more than
    ``segments_max`` pieces.
    """
    try:
        given = json.loads(text) if text else {}
    except ValueError as error:
        raise TemplateFault("The templates are no JSON.") from error
    merged: dict[str, dict[str, Mapping[str, str]]] = {
        kind: dict(by_language) for kind, by_language in TEXTS.items()
    }
    for language, said in () if is_heard else _UNHEARD.items():
        merged["reminder"][language] = {**merged["reminder"][language], "sms": said}
    for kind, by_language in _object(given, "The templates").items():
        if kind not in KINDS:
            raise TemplateFault(f"There are no messages {kind[:40]!r}; there are {KINDS}.")
        for language, one in _object(by_language, kind).items():
            before = merged.get(kind, {}).get(language, {})
            merged.setdefault(kind, {})[language] = {**before, **_object(one, language)}
    for kind, by_language in merged.items():
        for language, one in by_language.items():
            _check(f"{kind}.{language}", one, segments_max)
    return merged


def _check(name: str, texts: Mapping[str, Any], segments_max: int) -> None:
    for part, text in texts.items():
        channel = "email" if part == "subject" else part
        if channel not in FIELDS:
            raise TemplateFault(f"{name} has {part[:40]!r}; it has {sorted(FIELDS)} and subject.")
        if not isinstance(text, str) or not 0 < len(text) <= _TEMPLATE_CHARACTERS_MAX:
            raise TemplateFault(
                f"{name}.{part} is no text of {_TEMPLATE_CHARACTERS_MAX:,} at most."
            )
        if part == "subject" and not text.isprintable():
            raise TemplateFault(f"{name}.subject is not one line; no mail could be sent with it.")
        unknown = set(_NAME.findall(text)) - FIELDS[channel]
        if unknown:
            raise TemplateFault(f"{name}.{part} may not have {sorted(unknown)}.")
        if "{" in _NAME.sub("", text) or "}" in _NAME.sub("", text):
            raise TemplateFault(
                f"{name}.{part} has a brace that is none of a name such as {{day}}."
            )
    missing = FIELDS.keys() - texts.keys()
    if missing:
        raise TemplateFault(f"{name} has nothing for {sorted(missing)}.")
    longest = segments(_NAME.sub(_longest, texts["sms"])).count
    if longest > segments_max:
        raise TemplateFault(f"{name}.sms may come to {longest} pieces; {segments_max} are allowed.")


def _longest(match: re.Match[str]) -> str:
    return "ক" * (_LINK_CHARACTERS_MAX if match[1] == "link" else VALUE_CHARACTERS_MAX)


def _object(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TemplateFault(f"{name} is no JSON object.")
    return value


def _plain(name: str, value: str) -> str:
    """Return ``value`` as one line within bounds: what stands in a record is not ours."""
    most = _LINK_CHARACTERS_MAX if name == "link" else VALUE_CHARACTERS_MAX
    line = " ".join(
        "".join(one if one.isprintable() or one in _JOINERS else " " for one in value).split()
    )
    return line if len(line) <= most else line[: most - 1] + "."
