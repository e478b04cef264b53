"""How many pieces a short message is sent in, which is what it costs. Pure.

3GPP TS 23.038 (the alphabet of 7 bits and its extension) and TS 23.040 (joined messages): a piece
has 140 bytes, of which 6 join it to the others where there are several.

=========  ===========  ==========================
alphabet   alone        each of several
=========  ===========  ==========================
7 bits     160          153
UCS-2      70           67 (Bangla, for example)
=========  ===========  ==========================
"""

from collections.abc import Iterable
from dataclasses import dataclass

_SEPTETS = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENDED = frozenset("\f^{}\\[~]|€")  # an escape and a character


@dataclass(frozen=True, slots=True)
class Segments:
    """``count`` pieces in ``alphabet``, ``GSM-7`` or ``UCS-2``."""

    alphabet: str
    count: int


def segments(text: str) -> Segments:
    """Return how ``text`` is sent.

    >>> segments("x" * 160), segments("x" * 161).count, segments("€" * 81).count
    (Segments(alphabet='GSM-7', count=1), 2, 2)
    >>> segments("ক" * 70), segments("ক" * 71).count
    (Segments(alphabet='UCS-2', count=1), 2)
    """
    if all(one in _SEPTETS or one in _EXTENDED for one in text):
        return Segments("GSM-7", _pieces((2 if one in _EXTENDED else 1 for one in text), 160, 153))
    # A character beyond the first 65,536 takes two units, which stay together.
    return Segments("UCS-2", _pieces((1 if ord(one) < 0x10000 else 2 for one in text), 70, 67))


def _pieces(units: Iterable[int], alone: int, joined: int) -> int:
    sizes = list(units)
    if sum(sizes) <= alone:
        return 1
    count, room = 1, joined
    for size in sizes:
        if size > room:
            count, room = count + 1, joined
        room -= size
    return count
