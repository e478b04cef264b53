"""Messages that come again soon: answered as before without being read.

design/hl7v2.md, section 6. What is remembered here only says where to look: whether a message was
applied is in its row.
"""

from collections import OrderedDict

from adapters.hl7v2.ack import Header, asked
from adapters.hl7v2.issues import MessageFault
from adapters.hl7v2.reading import Arrival, Item, Readers, digest_of, key_of
from fhir_server.store.inbox import Inbox, Row

APPLIED = ("done", "ignored", "held")
_REMEMBERED = 10_000  # some 3 MB


class Repetitions:
    """The messages that this process has applied last: key -> digest."""

    def __init__(self, readers: Readers) -> None:
        """Begin with none."""
        self._readers = readers
        self._known: OrderedDict[str, bytes] = OrderedDict()

    def remember(self, item: Item) -> None:
        """Note that the row of ``item`` is written, its transaction committed."""
        self._known[item.key] = item.digest
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    async def row(self, arrival: Arrival, header: Header, inbox: Inbox) -> Row | None:
        """Return the row of the same message as ``arrival``, which is counted there once more;
        ``None`` where it is to be taken like any other."""
        key = key_of(header)
        digest = self._known.get(key)
        if digest is None or not asked(header).waits or digest_of(arrival.data) != digest:
            return None
        try:
            self._readers.judge(arrival, header)
        except MessageFault:
            return None
        return await inbox.copied_again(key, digest, APPLIED)


def answer_again(row: Row) -> tuple[str, bytes]:
    """Return code and acknowledgement of a message that is applied, as they were given."""
    return ("", row.late_answer) if row.late_answer else (row.code, row.answer)
