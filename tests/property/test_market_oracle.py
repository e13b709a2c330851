"""The market against a slow second reading of the rules.

The oracle below was written from the published rules alone: dicts and loops, no numpy, nothing of
the product. It works on rows as they stand in a results file, so the whole way from the file to
the shares is compared.
"""

import json
import math
import random
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from sim.market.results_table import score_file

TEXT = ("InstructTextTask", "ChatTask", "DpoTask", "GrpoTask")
GROUP = {
    "InstructTextTask": "text",
    "ChatTask": "text",
    "DpoTask": "dpo",
    "ImageTask": "image",
    "GrpoTask": "grpo",
}
GROUP_WEIGHT = {"text": 0.25, "dpo": 0.15, "image": 0.25, "grpo": 0.35}
WINDOW_WEIGHT = {1: 0.3, 3: 0.3, 7: 0.4}
DAY = 86_400_000


def oracle_task(rows: list[dict]) -> dict[str, int]:  # noqa: C901 (reads like the rules)
    """Scores of one task's rows, by miner."""
    kind = rows[0]["task_type"]
    image, grpo = kind == "ImageTask", kind == "GrpoTask"
    rows = [dict(row, synth_loss=row["test_loss"]) if image else dict(row) for row in rows]
    failed, standing = [], []
    for row in rows:
        bad = not row["is_finetune"] or row["test_loss"] is None
        (failed if bad else standing).append(row)
    if not image:
        by_test = sorted(standing, key=lambda row: -row["test_loss"] if grpo else row["test_loss"])
        best = [row["miner"] for row in by_test[:4]]
        # The others are out: 0 points, and nobody asks after them again.
        standing = [row for row in standing if row["miner"] in best]
    pairs = Counter(
        (row["test_loss"], row["synth_loss"])
        for row in standing + failed
        if row["test_loss"] is not None and row["synth_loss"] is not None
    )
    left = []
    for row in standing:
        pair = (row["test_loss"], row["synth_loss"])
        (failed if row["synth_loss"] is None or pairs[pair] > 1 else left).append(row)
    scores = {row["miner"]: 0 for row in rows}
    if not left:
        return scores
    if grpo:
        sound = 0
        for row in left:
            if row["test_loss"] > 0 and row["synth_loss"] / row["test_loss"] <= 1.5:
                sound += 1
        if sound / len(left) >= 0.4:
            left.sort(key=lambda row: -(0.7 * row["test_loss"] + 0.3 * row["synth_loss"]))
        else:
            left.sort(key=lambda row: -row["test_loss"])
    else:
        left.sort(key=lambda row: max(row["test_loss"], row["synth_loss"]))
    scores[left[0]["miner"]] = 3
    if len(left) > 8:
        for row in left[len(left) - max(1, int(0.25 * len(left))) :]:
            scores[row["miner"]] = -1
    for row in failed:
        scores[row["miner"]] = -1
    return scores


def oracle_work(row: dict) -> float:
    count = row.get("model_params_count")
    if count is None:
        named = re.search(r"(\d+)[bB]", row["model"])
        billions = min(8, int(named.group(1))) if named else 1
    else:
        billions = count // 1_000_000_000
    billions = max(1, min(40, billions))
    return max(1.0, 2 * math.sqrt(row["hours_to_complete"] * billions))


def oracle_week(rows: list[dict], now: int) -> dict:  # noqa: C901 (reads like the rules)
    """The whole answer of ``score``."""
    rows = [row for row in rows if row["created_at"] <= now]
    by_task = defaultdict(list)
    for row in rows:
        by_task[row["task_id"]].append(row)
    tasks = {task: oracle_task(members) for task, members in by_task.items()}
    counting = [task for task, scores in tasks.items() if any(scores.values())]
    miners = list(dict.fromkeys(row["miner"] for row in rows))

    def head(task: str) -> dict:
        return by_task[task][0]

    def recent(days: int) -> list[str]:
        return [task for task in counting if head(task)["created_at"] >= now - days * DAY]

    def entering(miner: str, group: str, organic: bool, days: int) -> list[tuple[int, float]]:
        found = []
        for task in recent(days):
            row = head(task)
            if GROUP[row["task_type"]] == group and row["is_organic"] == organic:
                score = tasks[task].get(miner, 0)
                if score >= 1 or score < 0:
                    found.append((score, oracle_work(row)))
        return found

    def flagged(miner: str, group: str) -> bool:
        organic = [score for score, _ in entering(miner, group, True, 7)]
        synthetic = [score for score, _ in entering(miner, group, False, 7)]
        if not organic:
            return False
        if not synthetic:
            return True
        mean = sum(synthetic) / len(synthetic)
        deviation = math.sqrt(sum((s - mean) ** 2 for s in synthetic) / len(synthetic))
        # A hair's breadth: the quotients here are rounded, the product's comparison is not.
        return sum(organic) / len(organic) - mean > 0.5 * deviation + 1e-12

    total = dict.fromkeys(miners, 0.0)
    for group in GROUP_WEIGHT:
        week = [task for task in recent(7) if GROUP[head(task)["task_type"]] == group]
        flags = {miner: flagged(miner, group) for miner in miners}
        for organic in (True, False):
            if not week:
                continue
            part = sum(head(task)["is_organic"] == organic for task in week) / len(week)
            for days in WINDOW_WEIGHT:
                worth = {}
                for miner in miners:
                    found = entering(miner, group, organic, days)
                    mean = sum(s for s, _ in found) / len(found) if found else 0.0
                    worth[miner] = sum(s * w for s, w in found) * mean if mean >= 0 else 0.0
                largest = max(worth.values())
                for miner in miners:
                    x = worth[miner] / largest if largest > 0 else 0.0
                    points = 0.0
                    if x > 0 and not (organic and flags[miner]):
                        points = 0.7 * (1 / (1 + math.exp(-9 * (x - 0.5)))) ** 0.75 + 0.05 * x
                    weight = WINDOW_WEIGHT[days] * GROUP_WEIGHT[group] * part
                    total[miner] += points * weight
    everything = sum(total.values())
    answer = {}
    for miner in miners:
        scores = [tasks[task][miner] for task in recent(7) if miner in tasks[task]]
        some = [score for score in scores if score]
        answer[miner] = {
            "share": total[miner] / everything if everything else 0.0,
            "mean_score": sum(some) / len(some) if some else 0.0,
            "tasks": len(scores),
            "first_places": scores.count(3),
            "penalties": scores.count(-1),
        }
    return {"tasks": tasks, "miners": answer}


LOSSES = [0.5, 0.75, 1.0, 1.0, 1.25, 1.5, 2.0]
REWARDS = [-0.5, 0.0, 0.25, 0.5, 0.5, 0.75, 1.0, 1.6]


def random_task(rng: random.Random, name: str, miners: list[str], created: int) -> list[dict]:
    kind = rng.choice([*TEXT, "ImageTask", "ImageTask"])
    values = REWARDS if kind == "GrpoTask" else LOSSES
    if rng.random() < 0.3:  # fewer ties, so that images keep more than 8
        values = [round(rng.uniform(0.2, 2.0), 2) for _ in range(40)]
    missing = rng.choice([0.0, 0.1, 0.6])
    facts = {
        "task_id": name,
        "task_type": kind,
        "hours_to_complete": rng.choice([0.2, 1, 2, 3.5, 8]),
        "model": rng.choice(["org/model-7B", "org/qwen2.5-1.5b", "tiny", "big-72b-b12"]),
        "model_params_count": rng.choice([None, 0, 999_999_999, 7_600_000_000, 71_000_000_000]),
        "is_organic": rng.random() < 0.4,
        "created_at": created,
    }
    return [
        facts
        | {
            "miner": miner,
            "test_loss": None if rng.random() < missing else rng.choice(values),
            "synth_loss": None if rng.random() < missing else rng.choice(values),
            "is_finetune": rng.random() > 0.1,
        }
        for miner in rng.sample(miners, rng.randint(1, len(miners)))
    ]


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def assert_same(found: dict, wanted: dict) -> None:
    assert found["tasks"] == wanted["tasks"]
    assert list(found["miners"]) == list(wanted["miners"])
    for miner, numbers in wanted["miners"].items():
        assert found["miners"][miner] == pytest.approx(numbers, rel=1e-9, abs=1e-12), miner


@pytest.mark.parametrize("miners", [3, 6, 14])
def test_scores_of_random_tasks(tmp_path: Path, miners: int) -> None:
    rng = random.Random(miners)
    names = [f"m{index}" for index in range(miners)]
    tasks = [random_task(rng, f"t{index}", names, 1_750_000_000_000) for index in range(1500)]
    found = score_file(write(tmp_path / "r.jsonl", [row for rows in tasks for row in rows]))
    seen: Counter[int] = Counter()
    for rows in tasks:
        wanted = oracle_task(rows)
        assert found["tasks"][rows[0]["task_id"]] == wanted, rows
        seen.update(wanted.values())
    assert min(seen[score] for score in (-1, 0, 3)) > 500


@pytest.mark.parametrize("seed", range(60))
def test_income_of_random_weeks(tmp_path: Path, seed: int) -> None:
    rng = random.Random(f"week {seed}")
    now = 1_750_000_000_000
    miners = [f"m{index}" for index in range(rng.randint(1, 12))]
    # Whole days back hit the windows' very edges; some tasks lie before them, some after now.
    ages = [rng.choice([0, 1, 2, 3, 7, 8, -1]) + rng.choice([0, 0.3]) for _ in range(50)]
    rows = [
        row
        for index, age in enumerate(ages)
        for row in random_task(rng, f"t{index}", miners, now - round(age * DAY))
    ]
    rng.shuffle(rows)
    found = score_file(write(tmp_path / "r.jsonl", rows), now)
    assert_same(found, oracle_week(rows, now))
