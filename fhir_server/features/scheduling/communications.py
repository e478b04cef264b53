"""The resources of messages: what is to be said, what was said, and that nothing is to be. Pure.

https://hl7.org/fhir/R4/communicationrequest.html, communication.html, consent.html. A message of
this server is a CommunicationRequest with the category :data:`MESSAGE`; what became of it is a
Communication with the same id. A Consent with the category :data:`NO_MESSAGES` says that none
are wanted: its scope is ``treatment``, so it denies nobody any data.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from fhir_server.features.scheduling.extensions import moment
from fhir_server.features.scheduling.reminders import Reminder
from fhir_server.features.scheduling.templates import Text
from fhir_server.messages import Resource
from fhir_server.store.documents import instant

MESSAGE = {"system": "urn:fhir-server:CodeSystem:message", "code": "message"}
CHANNEL = "urn:fhir-server:CodeSystem:channel"
NO_MESSAGES = {"system": "urn:fhir-server:CodeSystem:consent-category", "code": "no-messages"}
_MODE = "http://terminology.hl7.org/CodeSystem/v3-ParticipationMode"
_NOT_DONE = "http://terminology.hl7.org/CodeSystem/communication-not-done-reason"
_MODES = {"email": "EMAILWRIT", "sms": "ONLINEWRIT", "webhook": "ONLINEWRIT"}
_TEXTS = {
    "patient-objection": "No messages are wanted.",
    "recipient-unavailable": "There is nobody to tell.",
    "invalid-phone-number": "The address was refused.",
    "system-error": "It could not be sent.",
    "unknown": "It was not sent.",
}

Json = Mapping[str, Any]


def request_of(reminder: Reminder, text: Text) -> Resource:
    """Return the CommunicationRequest of ``reminder``."""
    payload = [{"contentString": text.text}]
    if text.subject:
        payload.insert(0, {"contentString": text.subject})
    return {
        "resourceType": "CommunicationRequest",
        "id": reminder.id,
        "status": "active",
        "category": [{"coding": [MESSAGE], "text": reminder.kind}],
        "medium": [medium(reminder.channel)],
        "subject": {"reference": reminder.patient},
        "about": [{"reference": one} for one in reminder.about],
        "payload": payload,
        "occurrenceDateTime": instant(reminder.due),
        "recipient": [{"reference": reminder.patient}],
    }


def ended(request: Resource, status: str, reason: str = "") -> Resource:
    """Return ``request`` with its ``status``, and why."""
    made = {name: value for name, value in request.items() if name != "statusReason"}
    return {**made, "status": status, **({"statusReason": {"text": reason}} if reason else {})}


def communication_of(
    request: Resource, now: datetime, *, not_done: str = "", note: str = ""
) -> Resource:
    """Return the Communication that says what became of ``request``: it was sent, or was not for
    ``not_done``, a code of communication-not-done-reason."""
    kept = ("category", "medium", "subject", "about", "recipient", "payload")
    made: Resource = {
        "resourceType": "Communication",
        "id": request["id"],
        "basedOn": [{"reference": f"CommunicationRequest/{request['id']}"}],
        "status": "not-done" if not_done else "completed",
        **{name: request[name] for name in kept if name in request},
    }
    if not_done:
        coding = {"system": _NOT_DONE, "code": not_done}
        made["statusReason"] = {"coding": [coding], "text": _TEXTS[not_done]}
    else:
        made["sent"] = instant(now)
    if note:
        made["note"] = [{"text": note}]
    return made


def medium(channel: str) -> Resource:
    """Return ``channel`` as a CodeableConcept."""
    codings = [{"system": CHANNEL, "code": channel}]
    return {"coding": [*codings, {"system": _MODE, "code": _MODES[channel]}]}


def channel_of(request: Json) -> str:
    """Return by which channel ``request`` is sent, ``""`` for none of ours."""
    return next(_codes(request.get("medium"), CHANNEL), "")


def objection(patient: str, channel: str, now: datetime) -> Resource:
    """Return the Consent that says that ``patient`` (a reference) wants no messages by
    ``channel``."""
    return {
        "resourceType": "Consent",
        "status": "active",
        "scope": {
            "coding": [
                {
                    "system": "http://terminology.hl7.org/CodeSystem/consentscope",
                    "code": "treatment",
                }
            ]
        },
        "category": [{"coding": [NO_MESSAGES]}],
        "patient": {"reference": patient},
        "dateTime": instant(now),
        "policyRule": {
            "coding": [
                {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "OPTOUT"}
            ]
        },
        "provision": {"type": "deny", "code": [{"coding": [{"system": CHANNEL, "code": channel}]}]},
    }


def objects(consents: Iterable[Json], channel: str, now: datetime) -> bool:
    """Whether one of ``consents``, all of one patient, says that nothing is to be sent by
    ``channel``; one that names no channel means all."""
    return any(_objects(one, channel, now) for one in consents)


def _objects(consent: Json, channel: str, now: datetime) -> bool:
    category = _codes(consent.get("category"), NO_MESSAGES["system"])
    if consent.get("status") != "active" or NO_MESSAGES["code"] not in category:
        return False
    provision = consent.get("provision")
    provision = provision if isinstance(provision, dict) else {}
    if provision.get("type") == "permit":
        return False
    period = provision.get("period")
    period = period if isinstance(period, dict) else {}
    begin, end = moment(period.get("start")), moment(period.get("end"))
    if (begin is not None and now < begin) or (end is not None and now >= end):
        return False
    named = channels_of(consent)
    return not named or channel in named


def channels_of(consent: Json) -> list[str]:
    """Return the channels that ``consent`` names; none where it means all."""
    provision = consent.get("provision")
    return list(_codes(provision.get("code"), CHANNEL)) if isinstance(provision, dict) else []


def _codes(concepts: Any, system: str) -> Iterator[str]:
    for concept in concepts if isinstance(concepts, list) else ():
        for coding in concept.get("coding", ()) if isinstance(concept, dict) else ():
            if isinstance(coding, dict) and coding.get("system") == system:
                yield str(coding.get("code", ""))
