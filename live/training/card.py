"""The model card that goes with an adapter: what it is of, how it was trained, what it came to."""

import json
import re

from live.training.record import TrainingRecord

_ODD = re.compile(r"[^A-Za-z0-9 ._/:+-]")


def plain(text: str, most: int = 200) -> str:
    """A stranger's text without what Markdown, HTML or YAML would read."""
    return _ODD.sub("_", text)[:most]


def card(record: TrainingRecord) -> str:
    """README.md of the adapter."""
    model = plain(record.model)
    head = {"base_model": model, "library_name": "peft", "pipeline_tag": "text-generation"}
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in head.items())]
    lines += ["tags: [lora, peft]", "---", "", f"# LoRA adapter of {model}", ""]
    lines += [f"Trained for a task of type {plain(record.task_type)}.", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in _facts(record) if value is not None]
    return "\n".join(lines) + "\n"


def _facts(record: TrainingRecord) -> list[tuple[str, str | None]]:
    plan = record.plan

    def told(value: float | int | None, form: str = "{}") -> str | None:
        return None if value is None else form.format(value)

    return [
        ("rows of the data", told(record.rows)),
        ("rows held out", told(record.held_out)),
        ("optimizer steps", told(record.steps)),
        ("tokens", told(record.tokens_trained)),
        ("rank, alpha", f"{plan.get('lora_r')}, {plan.get('lora_alpha')}" if plan else None),
        ("rows of a GPU at once", told(plan.get("micro_batch"))),  # type: ignore[arg-type]
        ("peak learning rate", told(record.learning_rate, "{:.3g}")),
        (f"{plain(record.held_out_metric)}, base model", told(record.held_out_loss_base, "{:.4f}")),
        (f"{plain(record.held_out_metric)}, adapter", told(record.held_out_loss, "{:.4f}")),
    ]
