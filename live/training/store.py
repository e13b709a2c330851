"""Examples on disk: written as they come, and dealt out to two files by their numbers."""

import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from live.job_files import sync_folder

MAPPED = "mapped.parquet"
CHUNK_ROWS = 1_000
"""Examples written at once, and between two signs of life."""
CHUNK_CHARS = 32 << 20
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))

Beat = Callable[[], None]


@dataclass(slots=True)
class Gathered:
    """What was written. alike: 64 bits of each example's hash. longest: characters of one."""

    columns: tuple[str, ...] = ()
    characters: int = 0
    longest: int = 0
    alike: "array[int]" = field(default_factory=lambda: array("Q"))

    @property
    def count(self) -> int:
        """Examples in all."""
        return len(self.alike)

    def add(self, example: dict[str, Any]) -> int:
        """Take note of an example; its characters."""
        texts = list(_texts(example))
        characters = sum(map(len, texts))
        marked = "".join(f"{len(text)}:{text}" for text in texts)
        digest = blake2b(marked.encode(), digest_size=8).digest()
        self.alike.append(int.from_bytes(digest, "big"))
        self.characters += characters
        self.longest = max(self.longest, characters)
        return characters


def _texts(example: dict[str, Any]) -> Iterator[str]:
    for value in example.values():
        if isinstance(value, str):
            yield value
        else:
            for message in value:
                yield message["role"][0]
                yield message["content"]


def gathered(examples: Iterable[dict[str, Any]], path: Path, beat: Beat) -> Gathered:
    """Write examples into one scratch file, without which no text has to stay in memory.

    Raises OSError, and what ``examples`` raises.
    """
    got, chunk, chars = Gathered(), list[dict[str, Any]](), 0
    writer: pq.ParquetWriter | None = None
    beat()
    try:
        for example in examples:
            chunk.append(example)
            chars += got.add(example)
            if len(chunk) >= CHUNK_ROWS or chars >= CHUNK_CHARS:
                writer = _append(writer, path, chunk)
                chunk, chars = [], 0
                beat()
        if chunk:
            writer = _append(writer, path, chunk)
        got.columns = tuple(writer.schema.names) if writer else ()
    finally:
        if writer is not None:
            writer.close()
    return got


def _append(
    writer: pq.ParquetWriter | None, path: Path, chunk: list[dict[str, Any]]
) -> pq.ParquetWriter:
    if writer is None:
        kinds = [
            (name, pa.string() if isinstance(value, str) else MESSAGES)
            for name, value in chunk[0].items()
        ]
        writer = pq.ParquetWriter(path, pa.schema(kinds))
    writer.write_table(pa.Table.from_pylist(chunk, schema=writer.schema))
    return writer


def deal(source: Path, target: Path, count: int, indices: Sequence[int], beat: Beat) -> None:
    """Write the examples of these numbers, in their order, into a file that appears whole.

    Raises OSError.
    """
    chosen = bytearray(count)
    for index in indices:
        chosen[index] = 1
    with pq.ParquetFile(source) as file, _whole(target, file.schema_arrow) as writer:
        start = 0
        for batch in file.iter_batches(CHUNK_ROWS, use_threads=False):
            mask = pa.array(chosen[start : start + batch.num_rows], pa.uint8())
            start += batch.num_rows
            part = batch.filter(pc.equal(mask, 1))
            if part.num_rows:
                writer.write_batch(part)
            beat()


@contextmanager
def _whole(target: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    scratch = target.with_name(f".{target.name}.part")
    try:
        with scratch.open("wb") as file:
            with pq.ParquetWriter(file, schema) as writer:
                yield writer
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(target)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)
