"""Conversations as tokens: the loss is on what the assistant says."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("transformers")

from datasets import Dataset
from transformers import AutoTokenizer

from live.training import tokens
from live.training.inputs import Texts, data_of
from live.training.loading import CHATML, TINY, Source, tokenizer_of
from live.training.settings import TrainingSettings
from live.training.tokens import IGNORED, sft_row
from shared.errors import InputError

SMALL = Path(__file__).parents[1] / "models" / "small-llama"
SAID = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Grüße, naïve 🙂?"},
    {"role": "assistant", "content": " 🙂🙂 Yes\nno"},
    {"role": "user", "content": "Why"},
    {"role": "assistant", "content": "Because."},
]
FORGETS = "{% for m in messages[-2:] %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>\n{% endfor %}"
"""A template that leaves out what came before, as some do with thoughts."""


def tokenizer(name: str, template: str | None = None) -> Any:
    made = AutoTokenizer.from_pretrained(SMALL) if name == "small" else None
    made = made or tokenizer_of(Source(TINY, None))
    made.chat_template = template or made.chat_template
    return made


def learned(made: Any, row: dict[str, list[int]]) -> list[str]:
    """The stretches of text that take part in the loss."""
    stretches, before = [], IGNORED
    for token, label in zip(row["input_ids"], row["labels"], strict=True):
        if label != IGNORED:
            assert label == token
            if before == IGNORED:
                stretches.append([])
            stretches[-1].append(token)
        before = label
    return [made.decode(each) for each in stretches]


@pytest.mark.parametrize("name", ["small", "tiny"])
def test_every_turn_of_the_assistant_counts_and_nothing_else(name: str) -> None:
    made = tokenizer(name, CHATML)
    row = sft_row(made, {"messages": SAID}, 10_000)
    assert row is not None
    assert row["input_ids"] == made.apply_chat_template(SAID, return_dict=True)["input_ids"]
    assert learned(made, row) == [
        " 🙂🙂 Yes\nno<|im_end|>\n",
        "Because.<|im_end|>\n",
    ]


def test_a_row_is_cut_and_without_an_answer_left_out() -> None:
    made = tokenizer("tiny", CHATML)
    whole = sft_row(made, {"messages": SAID}, 10_000)
    assert whole is not None
    first = whole["labels"].index(next(x for x in whole["labels"] if x != IGNORED))
    cut = sft_row(made, {"messages": SAID}, first + 3)
    assert cut == {key: whole[key][: first + 3] for key in whole}
    assert sft_row(made, {"messages": SAID}, first) is None


def test_where_the_template_forgets_only_the_last_turn_counts() -> None:
    made = tokenizer("tiny", FORGETS)
    row = sft_row(made, {"messages": SAID}, 10_000)
    assert row is not None
    assert len(learned(made, row)) == 1
    assert learned(made, row)[0].endswith("Because.</s>\n")
    assert " 🙂🙂 Yes" not in made.decode(row["input_ids"])


def test_turns_past_the_cut_are_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A legal row has thousands of turns; each look costs as much as all turns before it."""
    looked = []
    text = tokens._text

    def counted(*told: Any, **more: Any) -> str:
        looked.append(told)
        return text(*told, **more)

    monkeypatch.setattr(tokens, "_text", counted)
    many = [{"role": ("user", "assistant")[at % 2], "content": str(at)} for at in range(400)]
    made = tokenizer("small", CHATML)
    row = sft_row(made, {"messages": many}, 256)
    whole = sft_row(made, {"messages": many}, 100_000)
    assert row is not None
    assert whole is not None
    assert row["labels"] == whole["labels"][:256]
    assert len(looked) < 100 + 401


def test_a_tokenizer_without_positions_learns_the_last_turn() -> None:
    class Slow:
        """As transformers' own without ``tokenizer.json``."""

        is_fast = False

        def __init__(self, made: Any) -> None:
            self.made = made

        def __getattr__(self, name: str) -> Any:
            return getattr(self.made, name)

    made = tokenizer("tiny", CHATML)
    row = sft_row(Slow(made), {"messages": SAID}, 10_000)
    assert row is not None
    assert learned(made, row) == ["Because.<|im_end|>\n"]


def rows_of(kind: str, rows: list[dict[str, Any]], most: int) -> Any:
    """What is trained on of these rows: the last one is held out. most: tokens of a row."""
    training = TrainingSettings(most_completion=16)
    files: Any = SimpleNamespace(
        spec=SimpleNamespace(task_type=kind, training=training), beat=lambda _=0.0: None
    )
    texts = Texts(Dataset.from_list(rows[:-1]), Dataset.from_list(rows[-1:]), None)
    return data_of(files, texts, tokenizer("tiny"), most)


def test_prompts_that_leave_no_room_for_an_answer_are_left_out_and_told() -> None:
    prompts = [{"prompt": "a" * size} for size in (10, 48, 49, 12)]
    data = rows_of("GrpoTask", prompts, 64)
    assert [each["prompt"] for each in data.train] == ["a" * 10, "a" * 48]
    assert data.train.column_names == ["prompt"]
    assert (data.longest_row, len(data.held_out)) == (64, 1)
    assert data.left_out == (
        "left out: 1 of 4 rows, which leave no room for an answer within 64 tokens"
    )
    assert not rows_of("GrpoTask", prompts, 128).left_out
    with pytest.raises(InputError, match="every prompt is over 8 tokens"):
        rows_of("GrpoTask", prompts, 16)


def test_rows_without_an_answer_left_are_left_out_and_told() -> None:
    rows = [{"prompt": "a" * size, "completion": "b" * 5} for size in (10, 30, 70, 12)]
    data = rows_of("InstructTextTask", rows, 32)
    assert [len(each["input_ids"]) for each in data.train] == [16, 32]
    assert data.longest_row == 32
    assert data.left_out == "left out: 1 of 4 rows, which have no answer left within 32 tokens"
