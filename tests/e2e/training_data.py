"""Real text for training tests: the paragraphs of this project's own documentation."""

import json
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"


def paragraphs() -> list[str]:
    """Of prose, in a fixed order."""
    found = []
    for path in sorted(DOCS.rglob("*.md")):
        for part in path.read_text(encoding="utf-8").split("\n\n"):
            text = " ".join(part.split())
            if re.match(r"[A-Z]", text) and len(text) >= 120:
                found.append(text[:600])
    return found


def instruct() -> list[dict[str, str]]:
    """The beginning of a paragraph asks, the rest answers."""
    return [{"ask": text[:60], "about": "", "answer": text[60:360]} for text in paragraphs()]


def chat() -> list[dict[str, Any]]:
    """Two turns of each side, in the market's own words for roles."""
    rows = []
    for text in paragraphs():
        parts = [text[at : at + 80] for at in range(0, 320, 80)]
        said = [
            {"from": "human" if at % 2 == 0 else "gpt", "value": part}
            for at, part in enumerate(parts)
            if part
        ]
        rows.append({"talk": said[: len(said) // 2 * 2]})
    return rows


def preference() -> list[dict[str, str]]:
    """The real continuation against its words the other way round."""
    rows = []
    for text in paragraphs():
        rest = text[60:200]
        rows.append({"prompt": text[:60], "chosen": rest, "rejected": " ".join(rest.split()[::-1])})
    return rows


def prompts() -> list[dict[str, str]]:
    """Beginnings to go on from."""
    return [{"prompt": text[:40]} for text in paragraphs()]


REWARD = """
def reward_func(completions, **kwargs):
    return [sum(c in "aeiou " for c in text) / max(1, len(text)) for text in completions]
"""

KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "InstructTextTask": (
        instruct,
        {"field_instruction": "ask", "field_input": "about", "field_output": "answer"},
    ),
    "ChatTask": (
        chat,
        {
            "chat_column": "talk",
            "chat_role_field": "from",
            "chat_content_field": "value",
            "chat_user_reference": "human",
            "chat_assistant_reference": "gpt",
        },
    ),
    "DpoTask": (
        preference,
        {"field_prompt": "prompt", "field_chosen": "chosen", "field_rejected": "rejected"},
    ),
    "GrpoTask": (
        prompts,
        {
            "field_prompt": "prompt",
            "reward_functions": [{"reward_func": REWARD, "reward_weight": 1.0}],
        },
    ),
}


def request(task_type: str, folder: Path) -> dict[str, Any]:
    """A start request whose dataset is a file in ``folder``."""
    rows, columns = KINDS[task_type]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    return {"dataset": str(path), "dataset_type": columns, "file_format": "json"}
