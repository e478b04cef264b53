"""An answer that is no resource, as it is: the manifest of an export, a file of NDJSON."""

import asyncio
import gzip
import zlib
from dataclasses import replace

from fhir_server.http.binary import Outgoing
from fhir_server.http.render import Rendering, render
from fhir_server.messages import Pieces, Response

_GZIP_LEVEL = 1
_GZIP = 16 + zlib.MAX_WBITS
_APART_BYTES = 262_144  # some milliseconds of packing: more of it does not hold up others


def verbatim(response: Response, wish: Rendering) -> Outgoing:
    """Return ``response`` by its own media type, packed for a client that takes gzip.

    Of pieces nobody knows beforehand how many bytes they are; ``size`` is -1.
    """
    rendered, _ = render(replace(response, body=b""), replace(wish, gzip=False, xml=None))
    headers = [one for one in rendered if one[0] != b"content-length"]
    headers.append((b"content-type", response.media_type.encode("ascii")))
    if response.pieces is not None:
        pieces = response.pieces(0, 0)
        if wish.gzip:
            headers.append((b"content-encoding", b"gzip"))
            pieces = _packed(pieces)
        return Outgoing(response, headers, b"", -1, pieces)
    body = response.body
    if wish.gzip and len(body) >= wish.compress_bytes_min:
        headers.append((b"content-encoding", b"gzip"))
        body = gzip.compress(body, _GZIP_LEVEL, mtime=0)
    headers.append((b"content-length", b"%d" % len(body)))
    return Outgoing(response, headers, body, len(body))


async def _packed(pieces: Pieces) -> Pieces:
    """Yield ``pieces`` as one gzip member."""
    packer = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP)
    async for piece in pieces:
        is_large = len(piece) > _APART_BYTES
        packed = (
            await asyncio.to_thread(packer.compress, piece) if is_large else packer.compress(piece)
        )
        if packed:
            yield packed
    yield packer.flush()
