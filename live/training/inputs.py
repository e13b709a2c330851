"""What a job starts from, brought by rank 0 alone: its data, and the folder of its base model."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset

from live.training import stand_ins
from live.training.address import FetchLimits
from live.training.data import DATA, HELD_OUT, HUB, TRAIN, DataLimits, DataRecord, prepare
from live.training.delivery import fetched_dataset
from live.training.fetch import FetchFailed
from live.training.kept import Data
from live.training.loading import TINY, Source
from live.training.planning import most_answer
from live.training.rows import CHAT, DPO, GRPO
from live.training.table import ReadLimits
from live.training.together import on_rank_0
from live.training.tokens import Row, preference_length, prompt_length, sft_row
from live.worker_files import WorkerFiles
from shared.errors import InputError

SLOW_S = 1800.0
"""How long loading, fetching or tokenising may take without a sign of life."""
BATCH_ROWS = 100
"""Rows that are tokenised between two signs of life."""
_LENGTH = "prompt tokens"
CHECKED_ROWS = 200_000
"""Rows of preferences of which the longest is sought, at most; longer ones are cut."""


@dataclass(frozen=True, slots=True)
class Texts:
    """Examples before they are tokens. record: what the data came to; None for built-in rows."""

    train: Dataset
    held_out: Dataset
    record: dict[str, Any] | None
    why: str = ""


def texts_of(files: WorkerFiles) -> Texts:
    """The job's examples. Raises InputError when there is nothing to train on."""
    spec = files.spec
    if may_have_data(files):
        record = on_rank_0(lambda: _prepared(files))
        place = files.folder / DATA
        cache = str(files.folder / DATA / "cache")
        train, held_out = (
            Dataset.from_parquet(str(place / name), cache_dir=cache) for name in (TRAIN, HELD_OUT)
        )
        return Texts(train, held_out, record)
    if spec.device != "cpu":
        raise InputError("training.data_hosts: found none, allowed is one or more to fetch from")
    rows = stand_ins.examples(spec.task_type)
    held_out, train = rows[: stand_ins.HELD_OUT], rows[stand_ins.HELD_OUT :]
    why = "no dataset can be fetched; on the CPU built-in rows take its place"
    return Texts(Dataset.from_list(train), Dataset.from_list(held_out), None, why)


def may_have_data(files: WorkerFiles, key: str = "dataset") -> bool:
    """Whether what the request names under ``key`` could be had at all."""
    address = files.spec.request.get(key)
    if not isinstance(address, str):
        return False
    named = files.spec.request.get("file_format") == HUB
    if named and not (files.spec.local_files and Path(address).is_absolute()):
        return files.spec.training.hub_datasets
    return bool(files.spec.training.data_hosts) or (
        files.spec.local_files and Path(address).is_absolute()
    )


def _prepared(files: WorkerFiles) -> dict[str, Any]:
    spec, settings = files.spec, files.spec.training
    most = settings.most_data_bytes
    limits = DataLimits(
        fetch=FetchLimits(hosts=settings.data_hosts, most_bytes=most),
        read=ReadLimits(most_bytes=most),
        share=settings.held_out_share,
        most=settings.most_held_out,
    )
    try:
        record: DataRecord = prepare(
            spec.request,
            spec.task_type,
            files.folder,
            limits=limits,
            local_files=spec.local_files,
            beat=files.beat,
            messages=spec.task_type == CHAT,
            from_hub=partial(fetched_dataset, files) if settings.hub_datasets else None,
        )
    except FetchFailed as why:
        raise InputError(str(why)) from None
    return record.model_dump(mode="json")


def source_of(
    files: WorkerFiles, fetched: Callable[[], Path], index: str = "config.json"
) -> Source:
    """Where the base model lies. fetched: brings it from the hub. index: the file that a model's
    folder is told by. Raises InputError.
    """
    spec = files.spec
    own = Path(spec.model)
    if spec.local_files and own.is_absolute() and (own / index).is_file():
        return Source(str(own), own)
    if spec.device == "cpu":
        asked_for = spec.model in ("tiny", TINY)
        why = (
            "no weights of the model on this machine; on the CPU a tiny random one takes its place"
        )
        return Source(TINY, None, "asked for" if asked_for else why)
    files.beat(SLOW_S)
    return Source(spec.model, Path(on_rank_0(lambda: str(fetched()))))


def data_of(files: WorkerFiles, texts: Texts, tokenizer: Any, max_length: int) -> Data:
    """Rows as the trainer takes them, and the longest, in tokens. Raises InputError."""
    files.beat(SLOW_S)
    kind = files.spec.task_type
    if kind == GRPO:
        return _prompts(files, texts, tokenizer, max_length)
    if kind == DPO:
        some = texts.train.take(min(len(texts.train), CHECKED_ROWS))
        longest = max((preference_length(tokenizer, each) for each in some), default=1)
        return Data(texts.train, texts.held_out, min(longest, max_length))
    train, held_out = (
        _tokenised(files, tokenizer, rows, max_length) for rows in (texts.train, texts.held_out)
    )
    if not len(train):
        raise InputError(f"dataset: no answer is left of any row within {max_length} tokens")
    longest = max(max(map(len, part["input_ids"]), default=1) for part in (train, held_out))
    what = f"have no answer left within {max_length} tokens"
    return Data(train, _some(held_out, train), longest, _left_out(texts, (train, held_out), what))


def _some(held_out: Dataset, train: Dataset) -> Dataset:
    """Something to evaluate on."""
    return held_out if len(held_out) else train.take(1)


def _left_out(texts: Texts, parts: tuple[Dataset, Dataset], what: str) -> str:
    rows = len(texts.train) + len(texts.held_out)
    fewer = rows - sum(map(len, parts))
    return f"left out: {fewer} of {rows} rows, which {what}" if fewer else ""


def _prompts(files: WorkerFiles, texts: Texts, tokenizer: Any, max_length: int) -> Data:
    """Prompts that leave room for an answer: the trainer cuts none. Raises InputError."""
    answer = most_answer(files.spec, max_length)

    def lengths(batch: dict[str, list[Any]]) -> dict[str, list[int]]:
        files.beat(SLOW_S)
        return {_LENGTH: [prompt_length(tokenizer, {"prompt": each}) for each in batch["prompt"]]}

    counted = (_mapped(rows, lengths) for rows in (texts.train, texts.held_out))
    train, held_out = (
        rows.select([at for at, each in enumerate(rows[_LENGTH]) if each <= max_length - answer])
        for rows in counted
    )
    if not len(train):
        raise InputError(f"dataset: every prompt is over {max_length - answer} tokens")
    longest = max(train[_LENGTH]) + answer
    train, held_out = (rows.remove_columns(_LENGTH) for rows in (train, held_out))
    what = f"leave no room for an answer within {max_length} tokens"
    return Data(train, _some(held_out, train), longest, _left_out(texts, (train, held_out), what))


def _mapped(rows: Dataset, does: Callable[..., Any], **more: Any) -> Dataset:
    """In memory where that is small: two ranks would write one cache."""
    return rows.map(
        does,
        batched=True,
        batch_size=BATCH_ROWS,
        keep_in_memory=len(rows) < CHECKED_ROWS,
        load_from_cache_file=False,
        **more,
    )


def _tokenised(files: WorkerFiles, tokenizer: Any, rows: Dataset, max_length: int) -> Dataset:
    """Every rank does it for itself: tokens are cheap, and there is nothing to agree on."""

    def several(batch: dict[str, list[Any]]) -> dict[str, list[list[int]]]:
        files.beat(SLOW_S)  # the last of these has to do until the model is there
        names = list(batch)
        found: list[Row] = []
        for values in zip(*batch.values(), strict=True):
            row = sft_row(tokenizer, dict(zip(names, values, strict=True)), max_length)
            if row is not None:
                found.append(row)
        return {key: [row[key] for row in found] for key in ("input_ids", "labels")}

    return _mapped(rows, several, remove_columns=rows.column_names)
