"""The settings of reminders and of the ways out for messages; a part of ``SchedulingSettings``.

design/scheduling.md, section 8. Read as ``fhir_server/settings.py`` says.
"""

import re
from datetime import time
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings

from fhir_server.security_settings import Names

DURATION = re.compile(r"P(?:([0-9]{1,3})D)?(?:T(?:([0-9]{1,3})H)?(?:([0-9]{1,4})M)?)?")
"""A duration of days, hours and minutes."""
_OFFSETS_MAX = 10
_SECRET_CHARACTERS_MIN = 32


class ReminderSettings(BaseSettings):
    """Who is reminded of what, when, and by which way."""

    reminder_channels: Names = Field(
        default=(),
        description="Ways by which patients are reminded of appointments, in the order of "
        "preference: `sms`, `email`, `webhook`; empty: nobody is reminded.",
    )
    reminder_offsets: Names = Field(
        default=("P1D", "PT2H"),
        description="How long before an appointment its reminders go out, as ISO 8601 durations of "
        "days, hours and minutes.",
    )
    reminder_quiet: str = Field(
        default="22:00-08:00",
        description="Local hours in which no reminder goes out; it waits for their end. Empty: "
        "none.",
    )
    reminder_language: str = Field(
        default="en",
        description="Language of messages to who speaks none that there are texts in (`en`, `bn`).",
    )
    reminder_templates: Path | None = Field(
        default=None, description="JSON file with texts in place of the built-in ones."
    )
    reminder_sms_segments_max: int = Field(
        default=6,
        ge=1,
        le=20,
        description="Pieces that an SMS may come to at most; templates that may come to more stop "
        "the start.",
    )
    reminder_medication: bool = Field(
        default=False, description="Whether patients are reminded of the doses of their medicines."
    )
    reminder_dose_times: dict[str, str] = Field(
        default={},
        description='Local times of dose codes, as JSON: `{"MORN": "08:00", "NIGHT": "21:00"}`.',
    )
    reminder_senders: int = Field(
        default=4, ge=1, le=32, description="Messages that a process sends at a time."
    )
    reminder_timeout_s: float = Field(
        default=20.0,
        gt=0,
        le=40.0,
        description="Seconds that a gateway has to take a message; less than the 60 s after which "
        "another process would try.",
    )
    clinic_name: str = Field(default="Clinic", description="What messages call the clinic.")
    clinic_phone: str = Field(default="", description="The number that messages name.")
    smtp_url: str = Field(
        default="",
        description="Mail server: `smtps://user@mail.example:465`, or `smtp://…:587`, which "
        "begins TLS by STARTTLS. Without TLS only on this machine.",
    )
    smtp_password: SecretStr = Field(default=SecretStr(""), description="Password of its user.")
    smtp_password_file: Path | None = Field(
        default=None, description="File with that password; it goes before `FHIR_SMTP_PASSWORD`."
    )
    smtp_from: str = Field(default="", description="Address that e-mails come from.")
    sms_gateway: Path | None = Field(
        default=None,
        description="JSON file that says how the SMS gateway is called; docs/scheduling.md.",
    )
    sms_secret: SecretStr = Field(
        default=SecretStr(""), description="What `{secret}` stands for in that file."
    )
    sms_secret_file: Path | None = Field(
        default=None, description="File with that secret; it goes before `FHIR_SMS_SECRET`."
    )
    sms_inbound_secret: SecretStr = Field(
        default=SecretStr(""),
        description="What answers to SMS are signed with, 32 characters at least; empty: none are "
        "taken.",
    )
    webhook_url: str = Field(
        default="", description="Where the channel `webhook` posts messages; https."
    )
    webhook_secret: SecretStr = Field(
        default=SecretStr(""), description="What those posts are signed with."
    )

    @field_validator("reminder_channels")
    @classmethod
    def _are_channels(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in ("sms", "email", "webhook"):
                raise ValueError(f"{name[:40]!r} is none of sms, email, webhook.")
        return names

    @field_validator("reminder_offsets")
    @classmethod
    def _are_durations(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(names) > _OFFSETS_MAX:
            raise ValueError(f"There are at most {_OFFSETS_MAX} offsets.")
        for name in names:
            if not DURATION.fullmatch(name) or not any(one.isdigit() for one in name):
                raise ValueError(f"{name[:40]!r} is no duration, such as P1D or PT2H.")
        return names

    @field_validator("reminder_quiet")
    @classmethod
    def _are_hours(cls, said: str) -> str:
        try:
            times = [time.fromisoformat(one) for one in said.split("-")] if said else []
        except ValueError as error:
            raise ValueError(f"{said[:40]!r} is not like 22:00-08:00.") from error
        if len(times) not in (0, 2) or len(set(times)) != len(times):
            raise ValueError(f"{said[:40]!r} is not like 22:00-08:00.")
        return said

    @field_validator("reminder_dose_times")
    @classmethod
    def _are_times(cls, times: dict[str, str]) -> dict[str, str]:
        for code, said in times.items():
            try:
                time.fromisoformat(said)
            except ValueError as error:
                raise ValueError(
                    f"{code[:40]}: {said[:40]!r} is no time, such as 08:00."
                ) from error
        return times

    @field_validator("smtp_url", "webhook_url")
    @classmethod
    def _is_safe(cls, url: str) -> str:
        parts = urlsplit(url)
        here = parts.hostname in ("127.0.0.1", "::1", "localhost")
        if url and (parts.scheme not in ("smtp", "smtps", "https") and not here):
            raise ValueError(
                "Neither https, smtps nor smtp: what is sent would be read on the way."
            )
        if parts.password:
            raise ValueError("A password does not belong into a URL; it has a setting of its own.")
        return url

    @field_validator("sms_inbound_secret")
    @classmethod
    def _is_long(cls, secret: SecretStr) -> SecretStr:
        if 0 < len(secret.get_secret_value()) < _SECRET_CHARACTERS_MIN:
            raise ValueError(f"It is to have {_SECRET_CHARACTERS_MIN} characters at least.")
        return secret
