"""How fast offers files are read, beside pydantic line by line, in one run on one machine.

python benchmarks/readers.py [--offers N] [--repeats R] [--json]
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa

from shared.errors import InputError
from shared.wire import OfferLine, offer_line
from sim.offers_checks import hours_to_ms_column
from sim.offers_file import read_offers, write_offers
from sim.stream import Labels, OfferStream, in_handling_order

MODELS = tuple(f"org-{org}/model-{org}-{size}b" for org in range(40) for size in (1, 7, 13))
TYPES = ("DpoTask", "GrpoTask", "ImageTask", "InstructTextTask")
YEAR_MS = 365 * 86_400_000
MEBI = 1 << 20


def offers(count: int) -> OfferStream:
    """A year of offers with UUIDs for ids, every column filled, some counts unknown."""
    rng = np.random.default_rng(2)
    ids = rng.bytes(16 * count)
    hours = np.round(rng.uniform(0.5, 12, count), 2)
    params = rng.integers(5 * 10**8, 7 * 10**10, count)
    params[::3] = -1
    return in_handling_order(
        OfferStream(
            at_ms=np.sort(rng.integers(0, YEAR_MS, count)) + 1_700_000_000_000,
            task_id=pa.array(
                [str(uuid.UUID(bytes=ids[at : at + 16])) for at in range(0, 16 * count, 16)]
            ),
            model=Labels(rng.integers(0, len(MODELS), count, dtype=np.int32), MODELS),
            task_type=Labels(rng.integers(0, len(TYPES), count, dtype=np.int32), TYPES),
            hours=hours,
            ds_size=rng.integers(100, 200_000, count),
            params=params,
            train_ms=hours_to_ms_column(np.round(hours * rng.uniform(0.5, 1, count), 3)),
        )
    )


def pydantic_lines(path: Path) -> int:
    """What the readers are measured against: pydantic's own JSON parser, a line at a time."""
    with path.open("rb") as file:
        return len([OfferLine.model_validate_json(line) for line in file])


def exact_lines(path: Path) -> int:
    """Pydantic line by line with what it leaves out: keys twice, as the error path reads."""
    with path.open("rb") as file:
        return len([offer_line(line) for line in file])


def refused(path: Path) -> int:
    """Reads a file whose last line is wrong."""
    try:
        read_offers(path)
    except InputError:
        return 1
    raise AssertionError(path)


def ours(path: Path) -> int:
    """The reader itself."""
    return len(read_offers(path))


WAYS: dict[str, tuple[str, Callable[[Path], int]]] = {
    "JSON lines": ("o.jsonl", ours),
    "CSV": ("o.csv", ours),
    "Parquet": ("o.parquet", ours),
    "JSON lines, last line wrong": ("bad.jsonl", refused),
    "CSV, last line wrong": ("bad.csv", refused),
    "Parquet, last row wrong": ("bad.parquet", refused),
    "pydantic line by line": ("o.jsonl", pydantic_lines),
    "pydantic line by line, keys twice found": ("o.jsonl", exact_lines),
}


def write_files(folder: Path, count: int) -> None:
    """One file a format, and one each with a fault at its very end."""
    stream = offers(count)
    for ending in ("jsonl", "csv", "parquet"):
        write_offers(stream, folder / f"o.{ending}")
        stream.ds_size[-1], told = -2, stream.ds_size[-1]
        write_offers(stream, folder / f"bad.{ending}")
        stream.ds_size[-1] = told


def measured(name: str, folder: Path, repeats: int) -> dict[str, float]:
    """Seconds and peak memory of one way, in a process of its own, imports not counted."""
    call = [sys.executable, __file__, "--way", name, "--in", str(folder), "--repeats", str(repeats)]
    run = subprocess.run(call, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(run.stdout)
    return found


def one_way(name: str, folder: Path, repeats: int) -> dict[str, float]:
    """Times one way in this process."""
    file, read = WAYS[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        read(folder / file)
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "median_s": median(seconds),
        "best_s": min(seconds),
        "peak_mib": peak * 1024 / MEBI,
        "import_mib": before * 1024 / MEBI,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--offers", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--in", dest="folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.way:
        print(json.dumps(one_way(asked.way, asked.folder, asked.repeats)))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), asked.offers)
        results = {name: measured(name, Path(folder), asked.repeats) for name in WAYS}
    slow = results["pydantic line by line"]["median_s"]
    for result in results.values():
        result["times_pydantic"] = slow / result["median_s"]
    if asked.json:
        print(json.dumps({"offers": asked.offers, "ways": results}, indent=2))
        return
    print(
        f"{asked.offers:,} offers; median and best of {asked.repeats}, each way in its own process"
    )
    print(f"{'way':42}{'median s':>10}{'best s':>8}{'peak MiB':>10}{'x pydantic':>12}")
    for name, one in results.items():
        print(
            f"{name:42}{one['median_s']:10.2f}{one['best_s']:8.2f}{one['peak_mib']:10.0f}"
            f"{one['times_pydantic']:12.1f}"
        )


if __name__ == "__main__":
    main()
