"""The examples that docs/market.md works by hand."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.market.income import points_of_cell, revenue_per_day
from sim.market.results_table import score_file
from sim.market.rules import MID_2025, Emission
from sim.market.tournament import play, prize_shares, tasks_needed

NOW = 1_750_000_000_000
HOUR = 3_600_000
Losses = dict[str, tuple[float | None, float | None]]


def rows(
    losses: Losses, task_type: str = "DpoTask", task_id: str = "t", not_finetuned: str = "", **facts
) -> list[dict[str, Any]]:
    shared = {
        "task_id": task_id,
        "task_type": task_type,
        "hours_to_complete": 4,
        "model": "org/base-4b",
        "model_params_count": 4_000_000_000,
        "is_organic": False,
        "created_at": NOW,
    }
    return [
        shared
        | facts
        | {
            "miner": miner,
            "test_loss": test,
            "synth_loss": synth,
            "is_finetune": miner != not_finetuned,
        }
        for miner, (test, synth) in losses.items()
    ]


def score(folder: Path, table: list[dict[str, Any]]) -> dict[str, Any]:
    path = folder / "results.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in table))
    return score_file(path)


TEXT: Losses = {
    "a": (1.00, 1.30),
    "b": (1.10, 1.15),
    "c": (1.20, 1.25),
    "d": (1.25, 1.20),
    "e": (1.40, None),
    "f": (None, None),
}
DUPLICATES: Losses = {
    "a": (1.00, 1.10),
    "b": (1.00, 1.10),
    "c": (1.20, 1.30),
    "d": (1.30, 1.00),
    "e": (1.35, None),
}
GRPO: Losses = {
    "a": (0.90, 0.20),
    "b": (0.80, 0.90),
    "c": (0.50, 0.90),
    "d": (-0.10, 0.40),
    "e": (-0.20, None),
}
IMAGES: Losses = {f"m{index}": ((10 + index) / 100, None) for index in range(11)}


@pytest.mark.parametrize(
    ("task_type", "losses", "scores"),
    [
        ("InstructTextTask", TEXT, [0, 3, 0, 0, 0, -1]),
        ("ChatTask", TEXT, [0, 3, 0, 0, 0, -1]),
        ("DpoTask", TEXT, [0, 3, 0, 0, 0, -1]),
        ("DpoTask", DUPLICATES, [-1, -1, 3, 0, 0]),
        ("DpoTask", DUPLICATES | {"c": (1.2, None), "d": (1.3, None)}, [0, 0, 0, 0, 0]),
        ("GrpoTask", GRPO, [0, 3, 0, 0, 0]),
        ("GrpoTask", GRPO | {"b": (0.80, 1.30)}, [3, 0, 0, 0, 0]),
        ("ImageTask", IMAGES, [3, 0, 0, 0, 0, 0, 0, 0, -1, -1, -1]),
        ("ImageTask", dict(list(IMAGES.items())[:8]), [3, 0, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_a_task(tmp_path: Path, task_type: str, losses: Losses, scores: list[int]) -> None:
    found = score(tmp_path, rows(losses, task_type, not_finetuned="m10"))
    assert found["tasks"]["t"] == dict(zip(losses, scores, strict=True))
    assert json.dumps(list(found["tasks"]["t"].values())) == json.dumps(scores)


def test_a_task_that_counts_nowhere_is_in_nobodys_count(tmp_path: Path) -> None:
    found = score(tmp_path, rows({"a": (1.0, None), "b": (None, None)}))
    nothing = {"share": 0, "mean_score": 0, "tasks": 0, "first_places": 0, "penalties": 0}
    assert found == {"tasks": {"t": {"a": 0, "b": 0}}, "miners": {"a": nothing, "b": nothing}}


def test_the_table_of_points() -> None:
    x = np.array([0.0, 0.1, 0.25, 0.5, 2 / 3, 1.0])
    wanted = [0.0, 0.051102, 0.132612, 0.441222, 0.635191, 0.744224]
    assert points_of_cell(x * 180.0, MID_2025.curve) == pytest.approx(wanted, abs=5e-7)


WON, SECOND, FAILED = (1.0, 1.0), (2.0, 2.0), (None, None)


def a_week() -> list[dict[str, Any]]:
    def task(name: str, hours_ago: int, hours: float, organic: bool, losses: Losses):
        return rows(
            losses,
            task_id=name,
            hours_to_complete=hours,
            is_organic=organic,
            created_at=NOW - hours_ago * HOUR,
        )

    return [
        *task("t1", 12, 4, False, {"A": WON, "B": SECOND, "C": FAILED}),
        *task("t2", 48, 0.25, False, {"A": SECOND, "B": WON, "C": (3.0, 3.0)}),
        *task("t3", 120, 9, False, {"A": WON, "B": SECOND}),
        *task("t4", 12, 4, True, {"A": SECOND, "B": WON}),
        *task("t5", 12, 9, True, {"C": WON}),
    ]


def test_a_week(tmp_path: Path) -> None:
    path = tmp_path / "week.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in a_week()))
    found = score_file(path, NOW)
    assert found["tasks"] == {
        "t1": {"A": 3, "B": 0, "C": -1},
        "t2": {"A": 0, "B": 3, "C": 0},
        "t3": {"A": 3, "B": 0},
        "t4": {"A": 0, "B": 3},
        "t5": {"C": 3},
    }
    shares = {name: miner["share"] for name, miner in found["miners"].items()}
    assert shares == pytest.approx({"A": 0.606091, "B": 0.393909, "C": 0.0}, abs=5e-7)
    counts = {
        name: [miner[key] for key in ("mean_score", "tasks", "first_places", "penalties")]
        for name, miner in found["miners"].items()
    }
    assert counts == {"A": [3, 4, 2, 0], "B": [3, 4, 2, 0], "C": [1, 3, 1, 1]}
    pay = revenue_per_day(np.array([shares["A"]]), Emission(per_day=1000.0, price=0.5))
    assert pay == pytest.approx([303.05], abs=5e-3)


def test_a_tournament() -> None:
    rules = MID_2025.tournament
    losses = np.tile(np.arange(9.0)[None, :, None], (3, 1, tasks_needed(rules)))
    losses[:, 8] = 0.0
    losses[1, 0, -4:] = -1.0
    losses[2, 0, -3:] = -1.0
    outcome = play(losses, rules)
    assert outcome.wins.tolist() == [0, 4, 3]
    assert outcome.winner.tolist() == [8, 0, 8]
    # Pairs 0-7, 3-4, 1-6, 2-5, then 0-3 and 1-2, then 0-1; the losers in the better seeds' order.
    assert outcome.rank[0].tolist() == [2, 3, 5, 4, 9, 8, 7, 6, 1]
    assert outcome.rank[1].tolist() == [1, 3, 5, 4, 9, 8, 7, 6, 2]


def test_equals_against_a_champion() -> None:
    rules = MID_2025.tournament
    losses = np.random.default_rng(7).normal(size=(20_000, 9, tasks_needed(rules)))
    taken = (play(losses, rules).winner != 8).mean()
    assert taken == pytest.approx(22 / 64, abs=4 * math.sqrt(22 / 64 * 42 / 64 / 20_000))


def test_prizes() -> None:
    assert prize_shares(3, MID_2025.tournament) * 1.39 == pytest.approx([1.0, 0.3, 0.09])
