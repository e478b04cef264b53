"""The settings of appointments, queues and reminders; a part of ``Settings``.

design/scheduling.md. Read as ``fhir_server/settings.py`` says.
"""

from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator

from fhir_server.reminder_settings import ReminderSettings


class SchedulingSettings(ReminderSettings):
    """Free times, claims on time, holds."""

    scheduling_enforce: Literal["strict", "off"] = Field(
        default="strict",
        description="`strict`: whatever writes an Appointment or a Slot takes its time, and is "
        "refused where that is taken; `off`: times are not guarded.",
    )
    scheduling_granule_minutes: int = Field(
        default=5,
        ge=1,
        le=60,
        description="Minutes of the pieces that time is given out in; divides 60. Not to be "
        "changed while appointments lie ahead.",
    )
    scheduling_timezone: str = Field(
        default="UTC",
        description="Time zone of opening hours where neither rules nor actor nor place name one, "
        "as `Asia/Dhaka`.",
    )
    scheduling_patients: bool = Field(
        default=True,
        description="Whether a patient can have one appointment at a time only.",
    )
    scheduling_notice_minutes: int = Field(
        default=0,
        ge=0,
        description="Minutes from now to the first start that is offered, where no rule says.",
    )
    scheduling_horizon_days: int = Field(
        default=90,
        ge=1,
        le=3660,
        description="Days from now to the last start that is offered, where no rule says.",
    )
    scheduling_hold_minutes: int = Field(
        default=10, ge=1, le=1440, description="Minutes that a hold lasts, where no rule says."
    )
    scheduling_holds_max: int = Field(
        default=3, ge=1, le=100, description="Holds that a patient may have at a time."
    )
    scheduling_no_show_minutes: int = Field(
        default=0,
        ge=0,
        le=1440,
        description="Minutes after `start` at which an appointment that is still `booked` becomes "
        "`noshow`; 0: only people note that.",
    )
    scheduling_find_days_max: int = Field(
        default=31, ge=1, le=366, description="Days from `start` to `end` that `$find` looks at."
    )
    scheduling_find_schedules_max: int = Field(
        default=200,
        ge=1,
        le=1000,
        description="Schedules that one `$find` looks at; more are refused, for criteria to be "
        "added.",
    )
    scheduling_proposal_minutes: int = Field(
        default=10, ge=1, le=60, description="Minutes for which what `$find` proposes can be taken."
    )

    scheduling_waitlist: bool = Field(
        default=True,
        description="Whether a time that becomes free is offered to the waiting list.",
    )
    scheduling_offer_minutes: int = Field(
        default=30,
        ge=1,
        le=10_080,
        description="Minutes that somebody of the waiting list has to accept an offered time.",
    )
    scheduling_calendars: Path | None = Field(
        default=None,
        description="Folder with holiday calendars of your own, CSV of local dates, beside "
        "`terminology/calendars/`.",
    )
    queue_carry_minutes: int = Field(
        default=240,
        ge=0,
        le=1440,
        description="Minutes for which who waits at midnight is still called on the next day.",
    )
    queue_boards_open: bool = Field(
        default=False,
        description="Whether queue boards are shown to everybody; else, in production, to whoever "
        "has the link of `$board-link`.",
    )
    queue_listeners_max: int = Field(
        default=500,
        ge=1,
        le=10_000,
        description="Queue boards that one process keeps up to date at a time; more: 503.",
    )

    scheduling_publish: bool = Field(
        default=False,
        description="Whether free times are published for everybody who asks: `$bulk-publish`.",
    )
    scheduling_publish_days: int = Field(
        default=14, ge=1, le=92, description="Days, today included, whose free times are published."
    )
    scheduling_publish_seconds: int = Field(
        default=300,
        ge=1,
        le=86_400,
        description="Seconds for which what is published may be used before it is asked for again.",
    )

    scheduling_calendar_names: bool = Field(
        default=False,
        description="Whether the calendar at a practitioner's secret address has names of "
        "patients.",
    )

    @field_validator("scheduling_granule_minutes")
    @classmethod
    def _divides_an_hour(cls, minutes: int) -> int:
        if 60 % minutes:
            raise ValueError(f"{minutes} minutes do not divide an hour.")
        return minutes

    @field_validator("scheduling_timezone")
    @classmethod
    def _is_known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, OSError, ValueError) as error:  # what is no key, and what is not there
            raise ValueError(f"{name[:40]!r} is no time zone, such as Asia/Dhaka.") from error
        return name
