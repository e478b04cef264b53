"""Which refusals are kept: of one peer so many in a minute, the others are only counted."""

from collections import deque
from datetime import datetime, timedelta

from adapters.hl7v2.reading import Arrival

_PEERS_MAX = 10_000


class Refusals:
    """The refusals of the last minute, by peer; ``most`` of each are kept."""

    def __init__(self, most: int) -> None:
        """Begin with none."""
        self._most = most
        self._recent: dict[str, deque[datetime]] = {}

    def may_keep(self, arrival: Arrival) -> bool:
        """Count the refusal of ``arrival``; return whether it is kept."""
        if len(self._recent) > _PEERS_MAX:
            self._recent.clear()
        recent = self._recent.setdefault(arrival.peer, deque())
        while recent and recent[0] < arrival.received - timedelta(minutes=1):
            recent.popleft()
        if len(recent) >= self._most:
            return False
        recent.append(arrival.received)
        return True
