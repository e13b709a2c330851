"""Named random streams: every draw is keyed by (seed, replication, index, purpose).

Two presets meet the same luck on the same offer because element i of a purpose depends on the key
and on i alone, whatever was accepted before and however many draws another purpose took.
"""

from hashlib import blake2b

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Words = NDArray[np.uint64]

KEY_LIMIT = 2**64
"""Seeds and replications lie in 0 .. KEY_LIMIT - 1, so that each fills two 32-bit words."""

_UNIT = 2.0**-53
_BYTES, _CHARS = 16, 36
_DASHES = (8, 13, 18, 23)
_HEX = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)


def _halves(value: int, name: str) -> tuple[int, int]:
    """A key as two 32-bit words of fixed width: no two keys run into the same word list."""
    if not 0 <= value < KEY_LIMIT:
        raise ValueError(f"{name}: found {value}, allowed is 0 to {KEY_LIMIT - 1}")
    return value & 0xFFFFFFFF, value >> 32


def _bits(seed: int, replication: int, purpose: str) -> np.random.Philox:
    """The counter-based bit source of one purpose; ``hash()`` would differ from run to run."""
    digest = int.from_bytes(blake2b(purpose.encode(), digest_size=8).digest(), "little")
    words = (
        *_halves(seed, "seed"),
        *_halves(replication, "replication"),
        *_halves(digest, "purpose"),
    )
    return np.random.Philox(np.random.SeedSequence(words))


def words(seed: int, replication: int, purpose: str, n: int) -> Words:
    """Give n random 64-bit words, uint64 (n,). The first k of n equal the words for k.

    ValueError when seed or replication lies outside 0 .. 2**64 - 1.
    """
    return np.asarray(_bits(seed, replication, purpose).random_raw(n), dtype=np.uint64)


def uniforms(seed: int, replication: int, purpose: str, n: int) -> Floats:
    """Give n uniforms in [0, 1), float64 (n,), one word each: element i depends on key and i alone.

    Other distributions are reached through their inverse CDF, so that one element stays one draw.
    The first k of n equal the uniforms for k. ValueError as ``words``.
    """
    # the top 53 bits, as numpy's own generators do; written out because numpy promises a
    # bit source's words across versions, but not the way a distribution uses them
    top = words(seed, replication, purpose, n) >> np.uint64(11)
    return top.astype(np.float64) * _UNIT


def generator(seed: int, replication: int, purpose: str) -> np.random.Generator:
    """A sequential source for a process that makes up the stream before any preset sees it.

    Not for draws that belong to an offer: what it gives depends on the draws before.
    """
    return np.random.Generator(_bits(seed, replication, f"sequence:{purpose}"))


def exponential(u: Floats, mean: float) -> Floats:
    """Exponential values of this mean through the inverse CDF."""
    return -mean * np.log1p(-u)


def lognormal(u: Floats, mean: float, sigma: float) -> Floats:
    """Lognormal values of this mean (of the values); sigma is that of their logarithm."""
    from scipy.special import ndtri  # here: it takes longer to import than the rest together

    normal = ndtri(np.maximum(u, _UNIT / 2))  # a draw of 0 would be minus infinity
    return np.asarray(mean * np.exp(sigma * normal - sigma**2 / 2), dtype=np.float64)


def uuids(seed: int, replication: int, purpose: str, n: int) -> pa.Array:
    """Give n random UUIDs (version 4) as text of 36 characters, a pyarrow string array.

    The first k of n equal the UUIDs for k.
    """
    raw = np.empty((n, _BYTES), dtype=np.uint8)
    for half, name in enumerate(("high", "low")):
        drawn = words(seed, replication, f"{purpose}.{name}", n)
        raw[:, half * 8 : half * 8 + 8] = drawn.astype(">u8").view(np.uint8).reshape(n, 8)
    raw[:, 6] = raw[:, 6] & 0x0F | 0x40  # version 4
    raw[:, 8] = raw[:, 8] & 0x3F | 0x80  # the variant of RFC 9562
    return _as_text(raw)


def _as_text(raw: NDArray[np.uint8]) -> pa.Array:
    """Rows of 16 bytes as hexadecimal text with dashes, without a Python loop over the rows."""
    n = len(raw)
    text = np.full((n, _CHARS), ord("-"), dtype=np.uint8)
    at = np.delete(np.arange(_CHARS), _DASHES)
    text[:, at[0::2]] = _HEX[raw >> 4]
    text[:, at[1::2]] = _HEX[raw & 0x0F]
    offsets = np.arange(0, (n + 1) * _CHARS, _CHARS, dtype=np.int64)
    large = pa.LargeStringArray.from_buffers(n, pa.py_buffer(offsets), pa.py_buffer(text))
    return large.cast(pa.string())
