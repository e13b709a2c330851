"""What a job on the CPU trains on when it can have nothing else: rehearsals need no network.

Sentences with something to learn in them, always the same, in the form of each task type.
"""

from typing import Any

from live.training.rows import CHAT, DPO, GRPO

ROWS = 512
HELD_OUT = 16
Example = dict[str, Any]


def examples(task_type: str) -> list[Example]:
    """Sums, in the form that the task type's trainer takes."""
    pairs = [(row * 7 % 31, row * 11 % 29) for row in range(ROWS)]
    return [_example(task_type, a, b) for a, b in pairs]


def _example(task_type: str, a: int, b: int) -> Example:
    asked, answer = f"{a} plus {b} is ", f"{a + b}."
    if task_type == CHAT:
        return {
            "messages": [
                {"role": "user", "content": asked.strip()},
                {"role": "assistant", "content": answer},
            ]
        }
    if task_type == DPO:
        return {"prompt": asked, "chosen": answer, "rejected": f"{a * b + 1}?"}
    if task_type == GRPO:
        return {"prompt": asked}
    return {"prompt": asked, "completion": answer}


def reward(completions: list[str], **_: Any) -> list[float]:
    """The share of digits: anything can learn to answer in numbers."""
    return [sum(map(str.isdigit, text)) / max(1, len(text)) for text in completions]
