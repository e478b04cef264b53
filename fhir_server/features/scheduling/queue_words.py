"""The words of the queue board in the languages that it has, and their digits. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

_BANGLA_DIGITS = str.maketrans("0123456789", "০১২৩৪৫৬৭৮৯")


@dataclass(frozen=True, slots=True)
class Words:
    """What a board says in one language. ``{n}`` stands for a number."""

    lang: str
    title: str
    now: str
    counter: str
    next: str
    waiting: str
    wait: str
    nobody_called: str
    nobody_waits: str
    lost: str
    refused: str
    unknown: str
    digits: Mapping[int, int | str | None]

    def shown(self, text: object) -> str:
        """Return ``text`` with the digits of the language."""
        return str(text).translate(self.digits)

    def of(self, sentence: str, number: object) -> str:
        """Return ``sentence`` about ``number``."""
        return self.shown(sentence.replace("{n}", str(number)))


LANGUAGES: Mapping[str, Words] = {
    "en": Words(
        lang="en",
        title="Queue",
        now="Now serving",
        counter="Counter {n}",
        next="Next",
        waiting="{n} waiting",
        wait="about {n} min",
        nobody_called="Nobody has been called yet.",
        nobody_waits="Nobody is waiting.",
        lost="Not up to date. Please ask at the desk.",
        refused="This board is shown with its link only. The front desk makes one.",
        unknown="There is no board here.",
        digits={},
    ),
    "bn": Words(
        lang="bn",
        title="সারি",
        now="এখন ডাকা হচ্ছে",
        counter="কাউন্টার {n}",
        next="এরপর",
        waiting="{n} জন অপেক্ষায়",
        wait="আনুমানিক {n} মিনিট",
        nobody_called="এখনো কাউকে ডাকা হয়নি।",
        nobody_waits="কেউ অপেক্ষায় নেই।",
        lost="হালনাগাদ হচ্ছে না। অনুগ্রহ করে ডেস্কে জিজ্ঞাসা করুন।",
        refused="এই বোর্ড শুধু এর লিংক দিয়ে দেখা যায়। ডেস্ক থেকে লিংক নিন।",
        unknown="এখানে কোনো বোর্ড নেই।",
        digits=_BANGLA_DIGITS,
    ),
}


def language(wanted: str, accepted: str) -> Words:
    """Return the words of ``wanted``, else of the first language of an Accept-Language header
    that is there, else English.

    >>> language("", "fr, bn-BD;q=0.9, en;q=0.5").lang, language("", "").lang
    ('bn', 'en')
    """
    ranges = [wanted, *(one.partition(";")[0] for one in accepted[:200].split(","))]
    for one in ranges:
        if found := LANGUAGES.get(one.strip().partition("-")[0].lower()):
            return found
    return LANGUAGES["en"]


def is_bangla(text: str) -> bool:
    """Whether ``text`` is written in Bangla script, in part."""
    return any("\u0980" <= sign <= "\u09ff" for sign in text)
