"""Proving a million strings distinct without building a million-entry table of them."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_WORD = 4
"""Bytes hashed at a time: a UUID's 36 are nine words."""
_LONGEST = 256
"""Bytes up to which strings are padded to one length."""


def surely_distinct(texts: pa.Array) -> bool:
    """Whether no two of these strings are equal; False may also mean that it could not be told.

    Equal strings have equal hashes, so distinct hashes prove distinct strings. Strings of unequal
    length are padded with spaces first, which can only make two alike, never tell equals apart.
    """
    if len(texts) < 2:
        return True
    lengths = pc.min_max(pc.binary_length(texts)).as_py()
    if lengths["max"] > _LONGEST:
        return False
    width = -(-lengths["max"] // _WORD) * _WORD
    if lengths["min"] < width:
        texts = pc.ascii_rpad(texts, width, " ")
    hashes = _hashes(texts, width // _WORD)
    hashes.sort()
    return not bool((hashes[1:] == hashes[:-1]).any())


def _hashes(texts: pa.Array, words: int) -> NDArray[np.uint64]:
    """A 64-bit hash of each string, all of them ``words`` words long: a random linear form."""
    offset = np.int64 if pa.types.is_large_string(texts.type) else np.int32
    _, offsets, data = texts.buffers()
    start = int(np.frombuffer(offsets, offset, 1, texts.offset * np.dtype(offset).itemsize)[0])
    grid = np.frombuffer(data, np.uint32, len(texts) * words, start).reshape(len(texts), words)
    odd = np.random.default_rng(0x5EED).integers(0, 2**63, words, dtype=np.uint64) * 2 + 1
    hashes = np.zeros(len(texts), dtype=np.uint64)
    for word in range(words):
        hashes += grid[:, word] * odd[word]
    return hashes
