"""How jobs are trained and handed in: what the daemon's configuration may set."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Folder = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00]*$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}$")]
Host = Annotated[str, Field(pattern=r"^(\*\.)?[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]


class TrainingSettings(BaseModel):
    """Settings of the worker. Bytes are bytes; folders are absolute by the time a job has them."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    epochs: Annotated[float, Field(gt=0, le=1000)] = Field(
        default=3.0, description="Passes over the data at most; the deadline may end it before."
    )
    image_epochs: Annotated[float, Field(gt=0, le=10_000)] = Field(
        default=100.0, description="The same of an image task, which has few pictures."
    )
    image_pixels: Annotated[int, Field(ge=64, le=4096, multiple_of=64)] = Field(
        default=1024, description="A side of the squares that pictures are cut to."
    )
    patience: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=3, description="Evaluations without a better one after which training stops."
    )
    held_out_share: Annotated[float, Field(gt=0, le=0.5)] = Field(
        default=0.05, description="Share of the rows that is evaluated on and not trained on."
    )
    most_held_out: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=500, description="Rows held out at most."
    )
    most_completion: Annotated[int, Field(ge=8, le=32_768)] = Field(
        default=256, description="Tokens of an answer that a GRPO job samples, at most."
    )
    data_hosts: tuple[Host, ...] = Field(
        default=(), description="Hosts that datasets may be fetched from; *.name: any below it."
    )
    hub_datasets: bool = Field(
        default=False,
        description="Whether datasets that are told by a name of the hub are fetched.",
    )
    most_data_bytes: Annotated[int, Field(ge=1)] = Field(
        default=2_000_000_000, description="Bytes of a dataset at most."
    )
    models: Folder | None = Field(
        default=None, description="Where base models are kept. Default: models in the data folder."
    )
    fetch_models: bool = Field(
        default=True, description="False: only models that lie in the models folder are trained."
    )
    most_model_bytes: Annotated[int, Field(ge=1)] = Field(
        default=200_000_000_000, description="Bytes of a base model at most."
    )
    submit: Literal["folder", "hub"] = Field(
        default="folder",
        description="folder: the adapter stays in the job's folder; hub: it is uploaded.",
    )
    namespace: Name | None = Field(
        default=None, description="The hub account that adapters are uploaded to."
    )
    upload_megabytes_per_second: Annotated[float, Field(gt=0, le=100_000)] = Field(
        default=50.0, description="How fast adapters go up; the time for it is kept free."
    )
    private: bool = Field(default=False, description="Whether repositories are made private.")
    token_file: Folder | None = Field(
        default=None, description="File that holds the hub token; read by the hub process alone."
    )
    endpoint: Annotated[str, Field(pattern=r"^https?://[^\s]+$")] | None = Field(
        default=None, description="The hub's address, where it is not huggingface.co."
    )
    rewards: bool = Field(
        default=False, description="Whether reward functions of strangers are run, jailed."
    )
    reward_seconds: Annotated[float, Field(gt=0, le=3600)] = Field(
        default=5.0, description="What one call of a reward function may take."
    )

    @model_validator(mode="after")
    def _can_upload(self) -> "TrainingSettings":
        if self.submit == "hub":
            for name in ("namespace", "token_file"):
                if getattr(self, name) is None:
                    raise ValueError(f"{name}: found none, needed with submit hub")
        return self
