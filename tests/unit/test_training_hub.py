"""Errands to the hub, by the real library against a hub of our own."""

import json
import threading
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path

import pytest

import live.training.hub
from live.training import hub as module
from live.training.card import card
from live.training.hub import (
    HubFailed,
    HubSettings,
    dataset_folder,
    model_folder,
    repository_of,
    upload,
)
from live.training.hub_process import Refused, answer, wanted, wanted_images, wanted_rows
from live.training.read import read_shards
from live.training.record import TrainingRecord
from live.training.table import ReadLimits
from shared.errors import InputError
from tests.unit.fake_hub import FakeHub

TOKEN = "hf_" + "s" * 30
BIG = bytes(range(256)) * 100_000
"""Over twice what the library writes at once, 10 MB."""
MODEL = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "model.safetensors": BIG,
    "pytorch_model.bin": b"pickle",
    "modeling_x.py": b"code",
    "original/consolidated.safetensors": b"no",
    "README.md": b"words",
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.1)
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    made = FakeHub()
    made.repos["owner/model"] = dict(MODEL)
    yield made
    made.close()


@pytest.fixture
def settings(hub: FakeHub, tmp_path: Path) -> HubSettings:
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    return HubSettings(hub.address, str(token), "us", most_bytes=10**8)


class Beats:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def fetched(
    store: Path, settings: HubSettings, model: str = "owner/model",
    left_s: Callable[[], float] = lambda: inf, beat: Callable[[], None] = lambda: None,
) -> Path:  # fmt: skip
    return model_folder(model, store, settings, left_s=left_s, beat=beat)


def test_a_model_comes_once_with_weights_and_no_code(
    hub: FakeHub, settings: HubSettings, tmp_path: Path
) -> None:
    beats = Beats()
    folder = fetched(tmp_path / "models", settings, beat=beats)
    there = {each.name for each in folder.iterdir()}
    assert there == {"config.json", "tokenizer.json", "model.safetensors", "model.json"}
    assert (folder / "model.safetensors").read_bytes() == BIG
    assert json.loads((folder / "model.json").read_text())["revision"] == "c" * 40
    assert beats.count > 0
    assert f"Bearer {TOKEN}" in hub.tokens
    hub.asked.clear()
    assert fetched(tmp_path / "models", settings) == folder
    assert not hub.asked


def test_what_breaks_off_is_taken_up_where_it_was(
    hub: FakeHub, settings: HubSettings, tmp_path: Path
) -> None:
    hub.cut["model.safetensors"] = 21_000_000
    hub.faults["/api/models/owner/model"] = [500]
    folder = fetched(tmp_path / "models", settings)
    assert (folder / "model.safetensors").read_bytes() == BIG
    assert hub.ranges


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda hub: hub.repos["owner/model"].pop("model.safetensors"), "no *.safetensors"),
        (lambda hub: hub.repos["owner/model"].pop("config.json"), "no config.json"),
        (lambda hub: hub.repos["owner/model"].update({"config.json": b'{"auto_map": {}}'}), "code"),
        (lambda hub: hub.repos.clear(), "no such repository"),
        (lambda hub: hub.gated.add("owner/model"), "gated"),
        (lambda hub: hub.faults.update({"/api/models": [401]}), "401"),
    ],
)
def test_what_cannot_be_used_is_told_at_once(
    hub: FakeHub, settings: HubSettings, tmp_path: Path, spoil: Callable[[FakeHub], None], said: str
) -> None:
    spoil(hub)
    with pytest.raises(InputError, match=r"^model: owner/model: ") as told:
        fetched(tmp_path / "models", settings)
    assert said in str(told.value) or "no such repository" in str(told.value)
    asked = sum(n for path, n in hub.asked.items() if path == "GET /api/models/owner/model")
    assert asked <= 1
    assert [each for each in (tmp_path / "models").iterdir() if each.is_dir()] == []


IMAGE_MODEL = {
    "model_index.json": 5, "flux1-dev.safetensors": 90, "README.md": 1, "images/x.jpg": 1,
    "unet/config.json": 1, "unet/diffusion_pytorch_model.safetensors": 50,
    "unet/diffusion_pytorch_model.fp16.safetensors": 25, "unet/model.onnx": 60,
    "text_encoder/config.json": 1, "text_encoder/model.fp16.safetensors": 5,
    "text_encoder/pytorch_model.bin": 10, "tokenizer/vocab.json": 1, "tokenizer/merges.txt": 1,
    "scheduler/scheduler_config.json": 1, "vae/config.json": 1,
    "vae/diffusion_pytorch_model.safetensors": 2, "vae_decoder/x.safetensors": 7,
    "unet/deep/er.safetensors": 1, "unet/code.py": 1,
}  # fmt: skip


def test_of_an_image_model_one_form_of_each_part_is_fetched() -> None:
    assert sorted(wanted_images(IMAGE_MODEL)) == [
        "model_index.json", "scheduler/scheduler_config.json", "text_encoder/config.json",
        "text_encoder/model.fp16.safetensors", "tokenizer/merges.txt", "tokenizer/vocab.json",
        "unet/config.json", "unet/diffusion_pytorch_model.safetensors", "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ]  # fmt: skip
    with pytest.raises(Refused, match="model_index"):
        wanted_images(dict.fromkeys(MODEL, 1))
    bare = {name: size for name, size in IMAGE_MODEL.items() if not name.startswith("unet/d")}
    with pytest.raises(Refused, match=r"no \*\.safetensors of a denoiser"):
        wanted_images(bare)


def test_an_image_model_comes_with_its_folders(
    hub: FakeHub, settings: HubSettings, tmp_path: Path
) -> None:
    hub.repos["owner/images"] = dict.fromkeys(IMAGE_MODEL, b"{}")
    folder = model_folder("owner/images", tmp_path / "models", settings, index="model_index.json",
                          left_s=lambda: inf, beat=lambda: None)  # fmt: skip
    there = {str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()}
    assert there == {"model.json", *wanted_images(IMAGE_MODEL)}


DATASET = {
    "README.md": b"words", "dataset_info.json": b"{}", "data/x.py": b"code",
    "data/train-00001-of-00002.jsonl": b'{"q": "c", "a": "d"}\n',
    "data/train-00000-of-00002.jsonl": b'{"q": "a", "a": "b"}\n',
    "data/test-00000-of-00001.jsonl": b'{"q": "never", "a": "never"}\n',
}  # fmt: skip


def test_of_a_dataset_the_rows_to_train_on_come_in_order(
    hub: FakeHub, settings: HubSettings, tmp_path: Path
) -> None:
    hub.repos["owner/rows"] = dict(DATASET)
    folder = tmp_path / "raw"
    dataset_folder("owner/rows", folder, settings, 10**6, left_s=lambda: inf, beat=lambda: None)
    assert [path.name for path in sorted(folder.iterdir())] == ["00000", "00001"]
    assert [row for _, row in read_shards(folder, ReadLimits())] == [
        {"q": "a", "a": "b"}, {"q": "c", "a": "d"},
    ]  # fmt: skip
    assert [number for number, _ in read_shards(folder, ReadLimits())] == [1, 2]
    assert {each.name for each in tmp_path.iterdir()} == {"raw", "token"}


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["a.csv"], ["a.csv"]),
        (["a.csv", "b.json", "c.jsonl"], ["c.jsonl"]),
        (["latest.jsonl", "contest.jsonl"], ["contest.jsonl", "latest.jsonl"]),
        (["b/train.parquet", "a/train.parquet", "a/validation.parquet", "x.parquet"],
         ["a/train.parquet", "b/train.parquet"]),
        (["train.csv", "extra.csv"], ["train.csv"]),
    ],
)  # fmt: skip
def test_which_files_hold_the_rows(names: list[str], chosen: list[str]) -> None:
    assert list(wanted_rows(dict.fromkeys(names, 1))) == chosen


@pytest.mark.parametrize("names", [["a.csv", "b.csv"], ["x.bin", "README.md"], ["test.jsonl"]])
def test_a_dataset_without_rows_to_train_on_is_refused(names: list[str]) -> None:
    with pytest.raises(Refused):
        wanted_rows(dict.fromkeys(names, 1))


def test_a_dataset_that_cannot_be_had_is_told_of(
    hub: FakeHub, settings: HubSettings, tmp_path: Path
) -> None:
    hub.repos["owner/rows"] = dict(DATASET)
    for name, most, said in (
        ("rows", 10**6, "allowed is owner/name"),
        ("owner/none", 10**6, "no such repository"),
        ("owner/rows", 10, "allowed are at most 10"),
    ):
        with pytest.raises(InputError, match=said):
            dataset_folder(
                name, tmp_path / "raw", settings, most, left_s=lambda: inf, beat=lambda: None
            )
    assert {each.name for each in tmp_path.iterdir()} == {"token"}


def test_bounds_of_bytes_disk_and_names(
    settings: HubSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = HubSettings(settings.endpoint, settings.token_file, most_bytes=1000)
    with pytest.raises(InputError, match="allowed are at most 1000"):
        fetched(tmp_path / "a", small)
    for name in ("model", "../up", "a/b/c", "a/", "/etc/passwd", "x" * 300 + "/y"):
        with pytest.raises(InputError, match="allowed is owner/name"):
            fetched(tmp_path / "b", settings, name)
    monkeypatch.setattr("live.training.hub_process.SPARE_BYTES", 10**18)
    errand = {"what": "model", "repo": "owner/model", "folder": str(tmp_path / "c"),
              "endpoint": settings.endpoint, "most_bytes": 10**9,
              "index": "config.json"}  # fmt: skip
    assert "are free" in answer(errand)["why"]


def test_two_jobs_that_want_one_model_fetch_it_once(
    hub: FakeHub, settings: HubSettings, tmp_path: Path
) -> None:
    found: list[Path] = []
    both = [
        threading.Thread(target=lambda: found.append(fetched(tmp_path / "m", settings)))
        for _ in range(2)
    ]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert len(set(found)) == 1
    assert hub.asked["GET /owner/model/resolve/" + "c" * 40 + "/model.safetensors"] == 1


def test_a_hub_that_stays_away_fails_in_time(
    hub: FakeHub, settings: HubSettings, tmp_path: Path
) -> None:
    hub.faults["/"] = [503] * 1000
    with pytest.raises(HubFailed, match="owner/model"):
        fetched(tmp_path / "m", settings)
    with pytest.raises(HubFailed, match="no time left"):
        fetched(tmp_path / "m", settings, left_s=lambda: 0.0)


# Uploads.


def adapter(folder: Path) -> Path:
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(BIG)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "README.md").write_text("card")
    (folder / "secret.txt").write_text("no")
    return folder


def uploaded(folder: Path, settings: HubSettings, repository: str = "us/task") -> str:
    return upload(folder, repository, settings, left_s=lambda: inf, beat=Beats())


def test_an_adapter_goes_up_with_its_card_and_nothing_else(
    hub: FakeHub, settings: HubSettings, tmp_path: Path
) -> None:
    hub.faults["/api/models/us/task/commit"] = [500]
    assert uploaded(adapter(tmp_path / "a"), settings) == "c" * 40
    assert set(hub.repos["us/task"]) == {
        "adapter_model.safetensors", "adapter_config.json", "README.md",
    }  # fmt: skip
    assert hub.repos["us/task"]["adapter_model.safetensors"] == BIG


def test_tries_of_one_upload_share_a_home_that_is_gone_afterwards(
    hub: FakeHub, settings: HubSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the hub's library remembers of a broken upload lies in its home."""
    homes = []
    environment = live.training.hub._environment

    def seen(home: str) -> dict[str, str]:
        homes.append((home, Path(home).is_dir()))
        return environment(home)

    monkeypatch.setattr(live.training.hub, "_environment", seen)
    hub.faults["/api/repos/create"] = [503, 503]
    uploaded(adapter(tmp_path / "a"), settings)
    assert len(homes) > 1
    assert set(homes) == {(homes[0][0], True)}
    assert not Path(homes[0][0]).exists()


def test_an_upload_that_lost_a_file_is_no_upload(
    hub: FakeHub, settings: HubSettings, tmp_path: Path
) -> None:
    hub.lost = "adapter_config.json"
    with pytest.raises(HubFailed, match=r"adapter_config\.json is not in the commit"):
        uploaded(adapter(tmp_path / "a"), settings)


def test_a_refused_token_is_told_and_never_shown(
    hub: FakeHub, settings: HubSettings, tmp_path: Path
) -> None:
    hub.faults["/api/repos/create"] = [403] * 9
    with pytest.raises(InputError, match="us/task: the hub answered 403") as told:
        uploaded(adapter(tmp_path / "a"), settings)
    assert TOKEN not in str(told.value)
    assert hub.asked["POST /api/repos/create"] == 1
    gone = HubSettings(hub.address, str(tmp_path / TOKEN), "us")
    with pytest.raises(HubFailed):
        uploaded(tmp_path / "a", gone)


@pytest.mark.parametrize(
    ("expected", "repository"),
    [("task-1", "us/task-1"), ("us/task-1", "us/task-1"), ("them/task", None), ("", None),
     (None, None), ("us/../x", None), ("us/a b", None)],
)  # fmt: skip
def test_only_our_own_account_is_uploaded_to(expected: object, repository: str | None) -> None:
    settings = HubSettings(namespace="us")
    if repository is None:
        with pytest.raises(InputError, match="expected_repo_name"):
            repository_of(expected, settings)
    else:
        assert repository_of(expected, settings) == repository
    with pytest.raises(InputError, match=r"training\.namespace"):
        repository_of("task", HubSettings())


def test_files_that_are_fetched() -> None:
    sizes = {name: len(content) for name, content in MODEL.items()}
    assert set(wanted(sizes)) == {"config.json", "tokenizer.json", "model.safetensors"}
    with pytest.raises(Refused):
        wanted({"config.json": 1, "pytorch_model.bin": 5})


def test_a_card_holds_no_stranger_s_markup() -> None:
    model = 'x/y"\n---\nlicense: mit\n<script>alert(1)</script> [a](b) `c` | d'
    text = card(TrainingRecord(model=model, task_type="<b>ChatTask", steps=5))
    head = text.split("---")[1]
    assert "license:" not in head.replace("_", "\n").splitlines()
    assert not set("<>[]`") & set(text.replace("tags: [lora, peft]", ""))
    assert "| optimizer steps | 5 |" in text
    assert text.count("\n---\n") == 1
