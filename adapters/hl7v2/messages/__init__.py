"""A message to the changes it asks for. One module for each family of message types.

design/hl7v2.md, section 12.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

from adapters.hl7v2.codetables import plain
from adapters.hl7v2.draft import Draft
from adapters.hl7v2.groups import groups_of
from adapters.hl7v2.issues import MessageFault
from adapters.hl7v2.message import Message
from adapters.hl7v2.messages import adt
from adapters.hl7v2.messages.families import order_message, problem, result_message
from adapters.hl7v2.messages.financial import financial
from adapters.hl7v2.messages.mdm import document
from adapters.hl7v2.messages.siu import appointment
from adapters.hl7v2.messages.vxu import vaccination
from adapters.hl7v2.plan import Report
from adapters.hl7v2.rules import add_rows, prepared
from adapters.hl7v2.scene import scene_of
from adapters.hl7v2.segments.skipped import is_skipped
from adapters.hl7v2.senders import Profile
from adapters.hl7v2.vocabulary import uri_part

Family = Callable[[Draft, str], None]


def _events(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Type -> its events and what drafts it.
FAMILIES: Mapping[str, tuple[frozenset[str], Family]] = {
    "ADT": (adt.EVENTS, adt.adt),
    "ORU": (_events("R01 R30 R31 R32 R40"), result_message),
    "OUL": (_events("R21 R22 R23 R24"), result_message),
    "ORM": (_events("O01"), order_message),
    "OML": (_events("O21 O33 O35 O39"), order_message),
    "OMG": (_events("O19"), order_message),
    "OMP": (_events("O09"), order_message),
    "RDE": (_events("O01 O11 O25"), order_message),
    "RDS": (_events("O01 O13"), order_message),
    "RAS": (_events("O01 O17"), order_message),
    "SIU": (_events(" ".join(f"S{n}" for n in range(12, 28) if n != 25)), appointment),
    "VXU": (_events("V04"), vaccination),
    "MDM": (_events(" ".join(f"T{n:02d}" for n in range(1, 12))), document),
    "DFT": (_events("P03 P11"), financial),
    "BAR": (_events("P01 P02 P05 P06 P10 P12"), financial),
    "PPR": (_events("PC1 PC2 PC3"), problem),
    "REF": (_events("I12 I13 I14 I15"), problem),
    "QBP": (_events("Q21 Q22 Q23"), lambda draft, event: None),
}


def event_of(message: Message, profile: Profile) -> str:
    """Return the event of ``message``, after the sender's own names for events."""
    said = message.event
    return profile.events.get(said, said)


def check_type(message: Message, profile: Profile) -> None:
    """Raise :class:`MessageFault` 200 or 201 for a type or an event that is not supported."""
    family = FAMILIES.get(message.type)
    if family is None:
        raise MessageFault(
            200, "MSH^1^9", "Messages of this type are not taken here.", refused=True
        )
    if event_of(message, profile) not in family[0]:
        raise MessageFault(
            201, "MSH^1^9", "This event of the message type is not taken here.", refused=True
        )


def changes_of(message: Message, profile: Profile, *, arrived: str = "") -> Report:
    """Return what ``message`` asks for, by the rules of its sender.

    ``arrived`` is when the message came, as a FHIR instant: a time in the future counts as that.
    Never raises: a message that cannot be applied gives a report with a ``fault``.
    """
    message = prepared(message, profile)
    scene = scene_of(message, profile, arrived)
    draft = Draft(scene, groups_of(message))
    fault: MessageFault | None = None
    try:
        check_type(message, profile)
        FAMILIES[message.type][1](draft, event_of(message, profile))
        add_rows(draft, profile.rows)
        if profile.code_tables:
            draft.changes = [replace(one, set=plain(one.set)) for one in draft.changes]
    except MessageFault as found:
        fault = found
    return Report(
        tuple(draft.changes) if fault is None else (),
        tuple(draft.instructions) if fault is None else (),
        tuple(scene.issues),
        unmapped(message),
        dict(scene.codes),
        tuple(draft.partitions),
        fault,
        f"urn:hl7v2:{uri_part(scene.sender)}:{uri_part(message.control_id)}",
        dict(scene.directory) if fault is None else {},
        scene.held,
    )


def unmapped(message: Message) -> Mapping[str, int]:
    """Return the valued fields that nobody read and that are not listed as left out, counted."""
    found: Counter[str] = Counter()
    for segment in message.segments:
        read, fields, name = segment.read, segment.fields, segment.name
        for number in range(1, len(fields)):
            raw = fields[number]
            if raw and number not in read and not is_skipped(name, number) and raw.strip(_BLANK):
                found[f"{name}-{number}"] += 1
    return dict(found)


_BLANK = ' "^~&|'
