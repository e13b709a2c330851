"""Nonces of signed requests: each is good once, before and after a restart.

The memory decides, in one step of the event loop, so of two equal requests at once one passes.
What it remembers goes into the ledger's file with the input that the request brought.
"""

import heapq
from collections.abc import Iterable
from typing import Protocol

from live.intake.refusals import Refused
from live.rows import ForgetNonces, Nonce, Row

MOST_NONCES = 100_000
"""More signed requests than this within the window are refused: 400 a second for four minutes."""
FORGET_EVERY_MS = 60_000


class NonceStore(Protocol):
    """Where nonces are read from at the start."""

    def nonces(self) -> Iterable[Nonce]:
        """Every nonce that is still remembered."""


class Nonces:
    """The nonces that were used and could still be used again."""

    def __init__(self, known: Iterable[Nonce] = (), *, most: int = MOST_NONCES) -> None:
        """Those of an earlier run are known already."""
        self._most = most
        self._used = {(nonce.hotkey, nonce.nonce) for nonce in known}
        self._expiry = [(nonce.expires_ms, nonce.hotkey, nonce.nonce) for nonce in known]
        heapq.heapify(self._expiry)
        self._forget_ms = 0

    def __len__(self) -> int:
        return len(self._used)

    def claim(self, nonce: Nonce, now_ms: int) -> tuple[Row, ...]:
        """Use a nonce; returns the rows that make it durable.

        Raises Refused when it was used before (401), or when too many are remembered (429).
        """
        self._forget(now_ms)
        key = (nonce.hotkey, nonce.nonce)
        if key in self._used:
            raise Refused(401, "nonce: used before")
        if len(self._used) >= self._most:
            raise Refused(429, "too many signed requests, come again in some minutes")
        self._used.add(key)
        heapq.heappush(self._expiry, (nonce.expires_ms, *key))
        if now_ms < self._forget_ms:
            return (nonce,)
        self._forget_ms = now_ms + FORGET_EVERY_MS
        return (nonce, ForgetNonces(now_ms))

    def _forget(self, now_ms: int) -> None:
        while self._expiry and self._expiry[0][0] < now_ms:
            _, hotkey, nonce = heapq.heappop(self._expiry)
            self._used.discard((hotkey, nonce))
