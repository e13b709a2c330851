"""What a start request may hold: the dataset and how to read it, in bounds.

Unknown keys pass: the request is kept whole, and who trains looks for what it knows.
"""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from shared.wire import Hours, ModelId, found

MOST_TEXT = 100_000
"""Characters of one reward function's source."""
LOOSE = ConfigDict(strict=True, extra="ignore", frozen=True, allow_inf_nan=False)

Address = Annotated[str, Field(min_length=1, max_length=8_192)]
"""Where a dataset lies: a presigned address is long."""
Column = Annotated[str, Field(max_length=256)] | None
Template = Annotated[str, Field(max_length=20_000)] | None
RepoName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)?$", max_length=200)]  # noqa: E501  # fmt: skip
FileFormat = Annotated[str, Field(pattern=r"^(csv|json|hf|s3)$")]
Weight = Annotated[float, Field(ge=0, le=1e6)]


def _empty_as_none(value: object) -> object:
    return None if value == "" else value


class _Loose(BaseModel):
    model_config = LOOSE


class Columns(_Loose):
    """Instruct, chat and preference data: which column is what, and the templates around them."""

    field_instruction: Column = None
    field_input: Column = None
    field_output: Column = None
    field_system: Column = None
    field_prompt: Column = None
    field_chosen: Column = None
    field_rejected: Column = None
    field: Column = None
    system_prompt: Template = None
    system_format: Template = None
    format: Template = None
    no_input_format: Template = None
    prompt_format: Template = None
    chosen_format: Template = None
    rejected_format: Template = None
    chat_template: Template = None
    chat_column: Column = None
    chat_role_field: Column = None
    chat_content_field: Column = None
    chat_user_reference: Column = None
    chat_assistant_reference: Column = None


class Reward(_Loose):
    """A reward function as source text; who runs it is another matter."""

    reward_func: Annotated[str, Field(min_length=1, max_length=MOST_TEXT)]
    reward_weight: Weight
    func_hash: Annotated[str, Field(max_length=128)] | None = None
    is_generic: bool | None = None


class Rewards(_Loose):
    """Prompts, and what scores the answers to them."""

    field_prompt: Column = None
    reward_functions: Annotated[list[Reward], Field(max_length=64)] | None = None
    extra_column: Column = None


class TrainRequest(_Loose):
    """What every start request holds."""

    task_id: Annotated[str, Field(min_length=1, max_length=64)]
    model: ModelId
    hours_to_complete: Hours
    expected_repo_name: Annotated[RepoName | None, BeforeValidator(_empty_as_none)] = None


class TrainText(TrainRequest):
    """Instruct, chat and preference tasks. An early form named the dataset type in one word."""

    dataset: Address
    dataset_type: Columns | Annotated[str, Field(max_length=64)]
    file_format: FileFormat


class TrainGrpo(TrainRequest):
    """Tasks scored by reward functions."""

    dataset: Address
    dataset_type: Rewards
    file_format: FileFormat


class TrainImage(TrainRequest):
    """Image tasks."""

    dataset_zip: Address
    model_type: Annotated[str, Field(max_length=64)] = "sdxl"


REQUESTS: dict[str, type[TrainRequest]] = {
    "text": TrainText,
    "grpo": TrainGrpo,
    "image": TrainImage,
}


def fault(error: ValidationError) -> str:
    """The first fault of a start request in one line: key, what was found, what is allowed."""
    first = error.errors(include_url=False, include_context=False)[0]
    key = found(".".join(str(part) for part in first["loc"])).strip('"')
    what: Any = "nothing" if first["type"] == "missing" else found(first["input"])
    said = " ".join(first["msg"].split())
    return f"{key}: found {what}, allowed is: {said[:1].lower()}{said[1:]}"
