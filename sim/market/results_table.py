"""``python -m sim score``: the market's rules applied to a table of results."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from shared.errors import InputError
from shared.wire import MAX_MS, instant_ms
from sim.market.income import Income, Results, TaskFacts, collect, income, join
from sim.market.ranking import FloatArray, IntArray, Submissions, TaskScores, score_tasks
from sim.market.results_rows import TIME_ALLOWED, ResultRow, Rows, read_rows, shown
from sim.market.rules import MID_2025, RuleSet
from sim.market.work import task_billions, task_work

_TASK_FIELDS = (
    "task_type",
    "hours_to_complete",
    "model",
    "model_params_count",
    "is_organic",
    "created_at",
)


@dataclass
class Table:
    """A table of results by column: rows (R,) and the tasks (T,) and miners (M,) they speak of.

    ``task``, ``miner`` and ``column`` (R,) say where a row belongs: indices into ``task_ids`` and
    ``miner_ids``, both in order of first appearance, and its position among its task's rows.
    ``width`` (T,) counts each task's rows.
    """

    task_ids: list[str]
    miner_ids: list[str]
    facts: TaskFacts
    width: IntArray
    task: IntArray
    miner: IntArray
    column: IntArray
    test_loss: FloatArray
    synth_loss: FloatArray
    is_finetune: np.ndarray[Any, np.dtype[np.bool_]]


def score_file(path: Path, now_ms: int | None = None, rules: RuleSet = MID_2025) -> dict[str, Any]:
    """Scores of every task and income of every miner in a file of results.

    ``now_ms`` (UTC epoch milliseconds) ends the windows; rows later than it are left out, but not
    unread: they must be sound too. None: the latest ``created_at``. The answer is
    ``{tasks: {TASK: {MINER: score}}, miners: {MINER: {share, mean_score, tasks, first_places,
    penalties}}}``. Raises ``InputError`` with one line on what is wrong in the file.
    """
    table = read_rows(path)
    _check_rows(table, path, rules)
    latest = max((row["created_at"] for row in table.rows), default=0)
    now_ms = latest if now_ms is None else now_ms
    rows = [row for row in table.rows if row["created_at"] <= now_ms]
    return _score_table(_tabulate(rows, rules), now_ms, rules) if rows else _document({}, {})


def score_command(path: Path, now: str | None, as_json: bool) -> int:
    """Print what ``score_file`` finds, as JSON or as a table; the exit code, always 0.

    ``now`` is as in an offers file, or None. Raises ``InputError``.
    """
    document = score_file(path, None if now is None else _now_ms(now))
    if as_json:
        sys.stdout.write(json.dumps(document, allow_nan=False) + "\n")
    else:
        _print_table(document)
    return 0


def _now_ms(text: str) -> int:
    try:
        moment = int(text) if text.isdecimal() else instant_ms(text)
    except ValueError:
        moment = -1
    if not 0 <= moment <= MAX_MS:
        raise InputError(f"--now: found {shown(text)}, allowed: {TIME_ALLOWED}")
    return moment


def _check_rows(table: Rows, path: Path, rules: RuleSet) -> None:
    """One row for each task and miner, and every task described alike and of a known type."""
    first_of_task: dict[str, tuple[int, ResultRow]] = {}
    first_of_pair: dict[tuple[str, str], int] = {}
    for number, row in zip(table.numbers, table.rows, strict=True):
        task, miner = row["task_id"], row["miner"]
        known = first_of_task.get(task)
        if known is None:
            first_of_task[task] = number, row
            _check_type(row, f"{path}, line {number}", rules)
        elif _facts_of(known[1]) != _facts_of(row):
            _refuse_unlike(known, row, f"{path}, line {number}")
        before = first_of_pair.setdefault((task, miner), number)
        if before != number:
            raise InputError(
                f"{path}, line {number}, key miner: found {shown(miner)} for task {shown(task)} "
                f"again, after line {before}, allowed: one row for each miner of a task"
            )


def _facts_of(row: ResultRow) -> tuple[object, ...]:
    """What all rows of a task must agree on, as ``_TASK_FIELDS`` names it."""
    return (
        row["task_type"],
        row["hours_to_complete"],
        row["model"],
        row.get("model_params_count"),
        row["is_organic"],
        row["created_at"],
    )


def _check_type(row: ResultRow, where: str, rules: RuleSet) -> None:
    try:
        rules.group_of(row["task_type"])
    except InputError as error:
        raise InputError(f"{where}, key {error}") from None


def _refuse_unlike(known: tuple[int, ResultRow], row: ResultRow, where: str) -> NoReturn:
    before, after = _facts_of(known[1]), _facts_of(row)
    index = next(index for index, fact in enumerate(before) if fact != after[index])
    raise InputError(
        f"{where}, key {_TASK_FIELDS[index]}: found {shown(after[index])} for task "
        f"{shown(row['task_id'])}, allowed: {shown(before[index])} as in line {known[0]}"
    )


def _tabulate(rows: list[ResultRow], rules: RuleSet) -> Table:
    tasks: dict[str, int] = {}
    miners: dict[str, int] = {}
    task = np.array([tasks.setdefault(row["task_id"], len(tasks)) for row in rows], dtype=np.int64)
    miner = np.array([miners.setdefault(row["miner"], len(miners)) for row in rows], dtype=np.int64)
    width = np.bincount(task, minlength=len(tasks))
    # Rows of a task keep the order of their lines: its first row is where its count starts.
    order = np.argsort(task, kind="stable")
    column = np.empty_like(task)
    column[order] = np.arange(len(rows)) - np.repeat(np.cumsum(width) - width, width)
    return Table(
        list(tasks),
        list(miners),
        _facts([rows[index] for index in np.flatnonzero(column == 0)], rules),
        width,
        task,
        miner,
        column,
        np.array([row["test_loss"] for row in rows], dtype=np.float64),
        np.array([row["synth_loss"] for row in rows], dtype=np.float64),
        np.array([row["is_finetune"] for row in rows], dtype=np.bool_),
    )


def _facts(rows: list[ResultRow], rules: RuleSet) -> TaskFacts:
    """Facts of each task from the first of its rows."""
    hours = np.array([row["hours_to_complete"] for row in rows])
    billions = np.array(
        [task_billions(row["model"], row.get("model_params_count"), rules.work) for row in rows]
    )
    return TaskFacts(
        group=np.array([rules.group_of(row["task_type"]) for row in rows], dtype=np.int64),
        is_organic=np.array([row["is_organic"] for row in rows], dtype=np.bool_),
        created_ms=np.array([row["created_at"] for row in rows], dtype=np.int64),
        work=task_work(hours, billions, rules.work),
    )


def _score_table(table: Table, now_ms: int, rules: RuleSet) -> dict[str, Any]:
    score = np.zeros(len(table.task))
    parts: list[Results] = []
    for rows, tasks in _batches(table):
        scores, miner = _score_batch(table, rows, tasks, rules)
        position = np.searchsorted(tasks, table.task[rows])
        score[rows] = scores.score[position, table.column[rows]]
        parts.append(collect(_pick(table.facts, tasks), miner, scores))
    earned = income(join(parts), now_ms, len(table.miner_ids), rules)
    return _document(_by_task(table, score), _by_miner(table, earned))


def _batches(table: Table) -> Iterator[tuple[IntArray, IntArray]]:
    """Rows and tasks (sorted) to score together: tasks of much the same width.

    One crowded task would otherwise pad every other one to its own width.
    """
    size = np.ceil(np.log2(table.width)).astype(np.int64)
    for wanted in np.unique(size):
        yield np.flatnonzero(size[table.task] == wanted), np.flatnonzero(size == wanted)


def _score_batch(
    table: Table, rows: IntArray, tasks: IntArray, rules: RuleSet
) -> tuple[TaskScores, IntArray]:
    """Scores and miners (tasks, columns) of one batch."""
    shape = (len(tasks), int(table.width[tasks].max()))
    where = (np.searchsorted(tasks, table.task[rows]), table.column[rows])

    def spread(values: np.ndarray[Any, Any], empty: float) -> np.ndarray[Any, Any]:
        spread_out = np.full(shape, empty, dtype=values.dtype)
        spread_out[where] = values
        return spread_out

    submissions = Submissions(
        table.facts.group[tasks],
        spread(table.test_loss[rows], np.nan),
        spread(table.synth_loss[rows], np.nan),
        spread(table.is_finetune[rows], False),
        spread(np.ones(len(rows), dtype=np.bool_), False),
    )
    return score_tasks(submissions, rules), spread(table.miner[rows], -1)


def _pick(facts: TaskFacts, tasks: IntArray) -> TaskFacts:
    return TaskFacts(
        facts.group[tasks], facts.is_organic[tasks], facts.created_ms[tasks], facts.work[tasks]
    )


def _by_task(table: Table, score: FloatArray) -> dict[str, dict[str, float]]:
    tasks: dict[str, dict[str, float]] = {task_id: {} for task_id in table.task_ids}
    rows = zip(table.task.tolist(), table.miner.tolist(), score.tolist(), strict=True)
    for task, miner, points in rows:
        tasks[table.task_ids[task]][table.miner_ids[miner]] = _plain(points)
    return tasks


def _by_miner(table: Table, earned: Income) -> dict[str, dict[str, float]]:
    return {
        name: {
            "share": float(earned.share[index]),
            "mean_score": float(earned.mean_score[index]),
            "tasks": int(earned.tasks[index]),
            "first_places": int(earned.first_places[index]),
            "penalties": int(earned.penalties[index]),
        }
        for index, name in enumerate(table.miner_ids)
    }


def _plain(points: float) -> float:
    """A whole score as an int, so that 3 is printed and not 3.0."""
    return int(points) if points.is_integer() else points


def _document(
    tasks: dict[str, dict[str, float]], miners: dict[str, dict[str, float]]
) -> dict[str, Any]:
    return {"tasks": tasks, "miners": miners}


def _print_table(document: dict[str, Any]) -> None:
    # Here, so that reading a rule set or scoring in a simulation never pays for rich.
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table as Grid

    grid = Grid(title=f"{len(document['tasks'])} tasks; shares of the miners' emission")
    grid.add_column("miner", overflow="fold")
    for heading in ("share", "mean score", "tasks", "first places", "penalties"):
        grid.add_column(heading, justify="right")
    ranked = sorted(document["miners"].items(), key=lambda item: -item[1]["share"])
    for name, miner in ranked:
        counts = [str(miner[key]) for key in ("tasks", "first_places", "penalties")]
        grid.add_row(escape(name), f"{miner['share']:.2%}", f"{miner['mean_score']:.2f}", *counts)
    Console().print(grid)
