"""Conversations as tokens: the loss is on what the assistant says."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

from transformers import AutoTokenizer

from live.training import tokens
from live.training.loading import CHATML, TINY, Source, tokenizer_of
from live.training.tokens import IGNORED, sft_row

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
