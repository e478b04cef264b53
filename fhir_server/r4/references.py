"""What a reference points at: relative, absolute, versioned, urn, fragment and canonical.

https://hl7.org/fhir/R4/references.html#literal

==============================================  ==========================  ===========  =======
text                                            key                         type         version
==============================================  ==========================  ===========  =======
``Patient/1``                                   ``Patient/1``               ``Patient``
``Patient/1/_history/2``                        ``Patient/1``               ``Patient``  ``2``
``[our base]/Patient/1``                        ``Patient/1``               ``Patient``
``http://other/fhir/Patient/1/_history/2``      ``http://other/…/1``        ``Patient``  ``2``
``urn:uuid:…``, any other text                  the text
``#contained``                                  the text
==============================================  ==========================  ===========  =======
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

# A url beyond this is not taken apart: the patterns go back over what they have read.
_CHARACTERS_MAX = 2000
# The same few references stand in all resources of a bundle or a message, and each is looked at by
# several search parameters. What is longer than most is not remembered: that bounds the memory.
_REMEMBERED_CHARACTERS_MAX = 200

_ID = r"[A-Za-z0-9\-.]{1,64}"
_RELATIVE = re.compile(rf"([A-Z][A-Za-z]{{1,63}})/({_ID})(?:/_history/({_ID}))?")
_ABSOLUTE = re.compile(
    rf"((?:https?|ftp|file)://.*/([A-Z][A-Za-z]{{1,63}})/{_ID})(?:/_history/({_ID}))?", re.DOTALL
)


class Target(NamedTuple):
    """What a reference points at, as far as its text says.

    ``key`` is the reference without version and without our own base; ``id`` is empty unless the
    target is on this server.
    """

    key: str
    type: str = ""
    id: str = ""
    version: str = ""


def target(reference: str, base_urls: Sequence[str] = ()) -> Target:
    """Return what ``reference`` points at.

    ``base_urls`` are those of this server, without a slash at the end. The type is not checked
    against the list of resource types: ``http://other/a/Foo/1`` has the type ``Foo``.
    """
    if len(reference) <= _REMEMBERED_CHARACTERS_MAX:
        return _remembered(reference, tuple(base_urls))
    return _target(reference, base_urls)


def _target(reference: str, base_urls: Sequence[str]) -> Target:
    if len(reference) > _CHARACTERS_MAX:
        return Target(reference)
    relative = _RELATIVE.fullmatch(reference) or _RELATIVE.fullmatch(
        without_base(reference, base_urls)
    )
    if relative is not None:
        type, id, version = relative.groups()
        return Target(f"{type}/{id}", type, id, version or "")
    absolute = _ABSOLUTE.fullmatch(reference) if "://" in reference[:8] else None
    if absolute is not None:
        key, type, version = absolute.groups()
        return Target(key, type, version=version or "")
    return Target(reference)


_remembered = lru_cache(maxsize=4096)(_target)


def without_base(url: str, base_urls: Sequence[str]) -> str:
    """Return ``url`` relative to the first of ``base_urls`` that it lies under, else as it is."""
    for base in base_urls:
        if url.startswith(base) and url[len(base) : len(base) + 1] == "/":
            return url[len(base) + 1 :]
    return url


def canonical(text: str) -> tuple[str, str]:
    """Return url and business version of a canonical: ``("http://x", "1.0")`` of ``http://x|1.0``.

    https://hl7.org/fhir/R4/references.html#canonical
    """
    url, _, version = text.partition("|")
    return url, version
