"""Order within one process: who shares a key with somebody earlier waits until that one is done.

A chain, not a lock: whoever comes waits for the last earlier one at each of its keys, so that
nothing can wait in a circle, and a merge waits for both sides and holds up both.
"""

import asyncio
from collections.abc import Iterable


class Place:
    """A place in the chains of its keys. It is to be left once, when its work is done."""

    def __init__(self, chains: "Chains", keys: frozenset[str]) -> None:
        """Stand behind those who have one of ``keys`` now."""
        self._chains = chains
        self._keys = keys
        self._left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        last = chains.last
        self._before = {last[key] for key in keys if key in last}
        last.update(dict.fromkeys(keys, self._left))

    async def turn(self) -> None:
        """Wait until all who came before have left."""
        while self._before:
            await asyncio.wait(self._before)
            self._before = {one for one in self._before if not one.done()}

    def leave(self) -> None:
        """Let the next ones go on; those before still have to leave first."""
        for key in self._keys:
            if self._chains.last.get(key) is self._left and not self._waits():
                del self._chains.last[key]
        if not self._waits():
            if not self._left.done():
                self._left.set_result(None)
            return
        behind = asyncio.ensure_future(self.turn())
        self._chains.leaving.add(behind)
        behind.add_done_callback(self._turned)

    def _turned(self, behind: "asyncio.Future[None]") -> None:
        self._chains.leaving.discard(behind)
        self._before = set()
        self.leave()

    def _waits(self) -> bool:
        return any(not one.done() for one in self._before)


class Chains:
    """The chains of one process: a key -> who stands there last."""

    def __init__(self) -> None:
        """Begin without anybody."""
        self.last: dict[str, asyncio.Future[None]] = {}
        self.leaving: set[asyncio.Future[None]] = set()

    def enter(self, keys: Iterable[str]) -> Place:
        """Return a place behind all who are there with one of ``keys``."""
        return Place(self, frozenset(keys))
