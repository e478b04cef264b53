"""A message to the changes it asks for. One module for each family of message types.

design/hl7v2.md, section 12.
"""

from adapters.hl7v2.message import Message
from adapters.hl7v2.plan import Report
from adapters.hl7v2.senders import Profile


def changes_of(message: Message, profile: Profile, *, arrived: str = "") -> Report:
    """Return what ``message`` asks for, by the rules of its sender.

    ``arrived`` is when the message came, as a FHIR instant: a time in the future counts as that.
    Never raises: a message that cannot be applied gives a report with a ``fault``.
    """
    raise NotImplementedError
