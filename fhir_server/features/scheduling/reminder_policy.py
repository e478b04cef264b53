"""What the settings say of reminders, as the pure parts take it; the texts of a site's file."""

from dataclasses import dataclass, replace
from datetime import time, timedelta
from functools import lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo

from fhir_server.features.scheduling.reminders import Offset, Policy, Quiet
from fhir_server.features.scheduling.templates import Texts, languages, loaded
from fhir_server.reminder_settings import DURATION
from fhir_server.settings import Settings


@dataclass(frozen=True, slots=True)
class Desk:
    """What is needed to write messages: the rules, the texts, and what is said in all of them."""

    policy: Policy
    texts: Texts
    clinic: str
    phone: str

    def on_clocks_of(self, zone: ZoneInfo) -> "Desk":
        """Return this for an appointment in ``zone``: days and times are told as they are there."""
        return replace(self, policy=replace(self.policy, zone=zone))


def desk_of(settings: Settings) -> Desk:
    """Return what ``settings`` say. Raises ``ValueError`` for templates that cannot be used."""
    is_heard = bool(settings.sms_inbound_secret.get_secret_value())
    texts = _texts(settings.reminder_templates, settings.reminder_sms_segments_max, is_heard)
    quiet = [time.fromisoformat(one) for one in settings.reminder_quiet.split("-") if one]
    policy = Policy(
        tuple(map(_offset, settings.reminder_offsets)),
        ZoneInfo(settings.scheduling_timezone),
        Quiet(*quiet) if quiet else None,
        settings.reminder_channels,
        settings.reminder_language,
        languages(texts, "reminder"),
    )
    return Desk(policy, texts, settings.clinic_name, settings.clinic_phone)


def _offset(name: str) -> Offset:
    """Return a duration of the settings.

    >>> _offset("P1DT30M")
    Offset(name='P1DT30M', days=1, clock=datetime.timedelta(seconds=1800))
    """
    match = DURATION.fullmatch(name)
    assert match is not None, "the settings were checked"
    days, hours, minutes = (int(one or 0) for one in match.groups())
    return Offset(name, days, timedelta(hours=hours, minutes=minutes))


@lru_cache(maxsize=4)
def _texts(path: Path | None, segments_max: int, is_heard: bool) -> Texts:
    """The file is read once: a change counts from the next start on."""
    text = path.read_text("utf-8") if path is not None else ""
    return loaded(text, segments_max, is_heard=is_heard)
