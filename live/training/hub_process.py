"""One errand to the model hub, in a process of its own: ``python -m live.training.hub_process``.

The worker itself is offline and knows no token. This process reads its errand as JSON from standard
input, the token from its file, and answers with one line of JSON; the token is in no argument, no
environment and no answer.
"""

import glob
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetInfo, HfApi, ModelInfo
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from live.reaping import die_with_parent

MODEL_FILES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer.model",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "vocab.txt", "merges.txt", "chat_template.jinja", "model.safetensors.index.json",
)  # fmt: skip
IMAGE_INDEX = "model_index.json"
COMPONENTS = (
    "scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "transformer",
    "unet", "vae",
)  # fmt: skip
"""Folders of an image model, as diffusers lays it out."""
SMALL = (".json", ".txt", ".model")
HALF = ".fp16."
"""In the names of weights in half precision, which are fetched where there are no others."""
ADAPTER_FILES = (
    "adapter_model.safetensors", "adapter_config.json", "pytorch_lora_weights.safetensors",
    "README.md",
)  # fmt: skip
ROWS = (".parquet", ".jsonl", ".json", ".csv")
"""What rows are kept in, the best first."""
SHARDED = (".parquet", ".jsonl")
_TRAIN_SPLIT = re.compile(r"(^|[^a-z])train", re.IGNORECASE)
_OTHER_SPLIT = re.compile(r"(^|[^a-z])(test|valid|validation|dev|eval)([^a-z]|$)|dataset_info",
                          re.IGNORECASE)  # fmt: skip
SPARE_BYTES = 2_000_000_000
"""Left free on the disk of the models, whatever is fetched."""
ANSWER_S = 30.0
REFUSED = frozenset({400, 401, 403, 404, 413})
"""Answers that another try would not change."""


class Refused(Exception):
    """The errand cannot be done, however often it is tried."""


def wanted(names: dict[str, int]) -> dict[str, int]:
    """Of a repository's files and their bytes, those that are fetched. Raises Refused.

    Weights as safetensors, at the top; no pickles, no code.
    """
    chosen = {
        name: size
        for name, size in names.items()
        if name in MODEL_FILES or ("/" not in name and name.endswith(".safetensors"))
    }
    if not any(name.endswith(".safetensors") for name in chosen):
        raise Refused("found no *.safetensors at its top, allowed are no other weights")
    if "config.json" not in chosen:
        raise Refused("found no config.json")
    return chosen


def wanted_images(names: dict[str, int]) -> dict[str, int]:
    """The same of an image model in diffusers' layout. Raises Refused."""
    if IMAGE_INDEX not in names:
        raise Refused(f"found no {IMAGE_INDEX}, allowed is diffusers' layout")
    chosen = {IMAGE_INDEX: names[IMAGE_INDEX]}
    for component in COMPONENTS:
        files = [name for name in names if name.startswith(f"{component}/")]
        weights = _weights_of([name for name in files if name.endswith(".safetensors")])
        halves = bool(weights) and HALF in weights[0]
        small = [
            name for name in files
            if name.endswith(SMALL) and name.count("/") == 1
            and (not name.endswith(".index.json") or (HALF in name) == halves)
        ]  # fmt: skip
        chosen.update({name: names[name] for name in (*small, *weights)})
    if not any(name.startswith(("unet/", "transformer/")) and name.endswith(".safetensors")
               for name in chosen):  # fmt: skip
        raise Refused("found no *.safetensors of a denoiser, allowed are no other weights")
    return chosen


def _weights_of(names: list[str]) -> list[str]:
    """One form of a component's weights: whole precision, else half."""
    here = [name for name in names if name.count("/") == 1]
    plain = [name for name in here if name.rsplit("/", 1)[1].count(".") == 1]
    return plain or [name for name in here if HALF in name]


def wanted_rows(names: dict[str, int]) -> dict[str, int]:
    """Of a dataset's files those that hold its rows to train on, all of one kind. Raises Refused.

    What is named after tests or validation is left out, and where some are named after training,
    all others are.
    """
    for kind in ROWS:
        files = [name for name in names if name.endswith(kind) and not _OTHER_SPLIT.search(name)]
        files = [name for name in files if _TRAIN_SPLIT.search(name)] or files
        if len(files) > 1 and kind not in SHARDED:
            raise Refused(f"found {len(files)} files of {kind}, allowed is one")
        if files:
            return {name: names[name] for name in sorted(files)}
    raise Refused(f"found no rows, allowed are files of {', '.join(ROWS)}")


def fetch_dataset(api: HfApi, errand: dict[str, Any]) -> dict[str, Any]:
    """Bring a dataset's rows into ``folder``. Raises Refused, and what the hub's library raises."""
    info = api.dataset_info(errand["repo"], files_metadata=True, timeout=ANSWER_S)
    files = wanted_rows(_sizes(info))
    _download(api, errand, info.sha, files, repo_type="dataset")
    return {"revision": info.sha, "files": sorted(files)}


def _sizes(info: ModelInfo | DatasetInfo) -> dict[str, int]:
    return {each.rfilename: each.size or 0 for each in info.siblings or ()}


def _download(
    api: HfApi, errand: dict[str, Any], revision: str | None, files: dict[str, int], **more: Any
) -> None:
    """Bring these files of a revision. Raises Refused, OSError, and the library's own."""
    folder = Path(errand["folder"])
    _room_for(sum(files.values()), folder, errand["most_bytes"])
    api.snapshot_download(
        errand["repo"],
        revision=revision,
        local_dir=folder,
        allow_patterns=sorted(map(glob.escape, files)),
        **more,
    )
    missing = sorted(name for name in files if not (folder / name).is_file())
    if missing:
        raise OSError(f"{missing[0]} did not come")


def _room_for(total: int, folder: Path, most_bytes: int) -> None:
    """Make the folder, if what comes into it is allowed and has room. Raises Refused, OSError."""
    if total > most_bytes:
        raise Refused(f"found {total} bytes, allowed are at most {most_bytes}")
    folder.mkdir(parents=True, exist_ok=True)
    there = sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())
    free = shutil.disk_usage(folder).free + there
    if total + SPARE_BYTES > free:
        raise Refused(f"found {total} bytes, and {free - SPARE_BYTES} are free")


def fetch_model(api: HfApi, errand: dict[str, Any]) -> dict[str, Any]:
    """Bring a model into ``folder``. Raises Refused, and what the hub's library raises."""
    info = api.model_info(errand["repo"], files_metadata=True, timeout=ANSWER_S)
    images = errand["index"] == IMAGE_INDEX
    files = (wanted_images if images else wanted)(_sizes(info))
    _download(api, errand, info.sha, files)
    config = json.loads((Path(errand["folder"]) / errand["index"]).read_bytes())
    if "auto_map" in config:
        raise Refused("it needs code of its own, and none is run")
    return {"revision": info.sha, "bytes": sum(files.values())}


def upload(api: HfApi, errand: dict[str, Any]) -> dict[str, Any]:
    """Bring an adapter into its repository. Raises what the hub's library raises."""
    repo, folder = errand["repo"], Path(errand["folder"])
    api.create_repo(repo, private=errand["private"], exist_ok=True)
    names = [name for name in ADAPTER_FILES if (folder / name).is_file()]
    done = api.upload_folder(
        repo_id=repo, folder_path=folder, allow_patterns=names, commit_message="LoRA adapter"
    )
    there = set(api.list_repo_files(repo, revision=done.oid))
    missing = sorted(set(names) - there)
    if missing:
        raise OSError(f"{missing[0]} is not in the commit")
    return {"commit": done.oid}


def answer(errand: dict[str, Any]) -> dict[str, Any]:
    """Do it. ``ok`` tells whether it is done, ``refused`` whether another try is in vain."""
    path = errand.get("token_file")
    token = ""
    try:
        token = Path(path).read_text(encoding="utf-8").strip() if path else ""
        api = HfApi(endpoint=errand.get("endpoint"), token=token or False)
        does = {"model": fetch_model, "dataset": fetch_dataset, "upload": upload}[errand["what"]]
        return {"ok": True, **does(api, errand)}
    except Refused as why:
        return _failed(str(why), token, refused=True)
    except GatedRepoError:
        return _failed("it is gated, and the token has no access", token, refused=True)
    except (RepositoryNotFoundError, RevisionNotFoundError):
        return _failed("the hub knows no such repository", token, refused=True)
    except HfHubHTTPError as why:
        status = why.response.status_code if why.response is not None else 0
        return _failed(f"the hub answered {status}", token, refused=status in REFUSED)
    except Exception as why:
        return _failed(f"{type(why).__name__}: {why}", token, refused=False)


def _failed(why: str, token: str, *, refused: bool) -> dict[str, Any]:
    said = (why.splitlines() or [""])[0][:500]
    return {
        "ok": False,
        "refused": refused,
        "why": said.replace(token, "(token)") if token else said,
    }


def main() -> int:
    """One errand from standard input."""
    die_with_parent()
    told = answer(json.load(sys.stdin))
    sys.stdout.write(json.dumps(told) + "\n")
    return 0 if told["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
