"""Image tasks: from the request to a trainer of denoisers."""

from contextlib import ExitStack
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch.distributed as dist
from PIL import Image

from live.training.address import FetchLimits
from live.training.data import DataRecord
from live.training.delivery import fetched_model
from live.training.facts import Facts
from live.training.fetch import FetchFailed
from live.training.images import pairs as files_of
from live.training.images import stand_ins
from live.training.images.archive import ArchiveLimits
from live.training.images.families import INDEX, Family, family_of
from live.training.images.pairs import Pair, PairLimits, image_of, read_pairs
from live.training.images.terms import ImageTerms, pixels_of, settle, shape_of
from live.training.images.trainer import data_of, made
from live.training.inputs import SLOW_S, may_have_data, source_of
from live.training.loading import Source
from live.training.run import Run
from live.training.together import on_rank_0
from live.worker_files import WorkerFiles
from shared.errors import InputError

STAND_IN_STEPS = 12


@dataclass(frozen=True, slots=True)
class Pictures:
    """What there is to train on. record: what the data came to; None for built-in pictures."""

    pairs: tuple[Pair, ...]
    images: tuple[Image.Image, ...]
    record: dict[str, Any] | None
    why: str = ""

    @property
    def held_out(self) -> list[int]:
        """Indices of the pairs held out."""
        return [at for at, each in enumerate(self.pairs) if each.held_out]

    @property
    def train(self) -> list[int]:
        """Indices of the pairs to train on: all of them where all are alike."""
        rest = [at for at, each in enumerate(self.pairs) if not each.held_out]
        return rest if rest and not (self.record or {}).get("held_out_is_train") else [
            *range(len(self.pairs))]  # fmt: skip


class ImageRun(Run):
    """An SDXL or Flux job."""

    def made(self, held: ExitStack) -> tuple[Facts, Any]:
        """As ``Run.made``."""
        del held
        spec, files = self.spec, self.files
        pictures = pictures_of(files)
        source = source_of(files, lambda: fetched_model(files, INDEX), INDEX)
        family = self._family(source)
        files.beat(SLOW_S)
        images = dict(zip(pictures.pairs, pictures.images, strict=True))
        rows = family.rows(pictures.pairs, images.__getitem__)
        files.beat(SLOW_S)
        model = family.denoiser()
        shape = shape_of(model)
        settled = settle(spec, shape, len(pictures.train), self.lacks())
        data = data_of(rows, pictures.train, pictures.held_out)
        most_steps = self._most_steps(pictures, settled)
        trainer = made(spec, settled, files.folder, (family, model, data), most_steps)
        facts = Facts(
            source=source,
            data_record=pictures.record,
            data_why=pictures.why,
            rows=len(pictures.pairs),
            held_out=len(pictures.held_out),
            settled=settled,
            base_params=shape.params,
            most_steps=most_steps,
            load_s=self.load_s(),
        )
        return facts, trainer

    def _family(self, source: Source) -> Family:
        if source.folder is None:
            return stand_ins.TinySdxl(self.device)
        return family_of(source.folder, self.device)

    def _most_steps(self, pictures: Pictures, settled: ImageTerms) -> int:
        told = self.told_steps()
        if told is not None:
            return told
        rows = settled.micro * settled.accumulation * dist.get_world_size()
        steps = max(1, ceil(len(pictures.train) * self.spec.training.image_epochs / rows))
        return min(steps, STAND_IN_STEPS) if pictures.record is None else steps


def pictures_of(files: WorkerFiles) -> Pictures:
    """The job's pictures, brought by rank 0. Raises InputError when there are none."""
    spec = files.spec
    if may_have_data(files, "dataset_zip"):
        record = on_rank_0(lambda: _prepared(files))
        pairs = tuple(read_pairs(files.folder))
        return Pictures(pairs, tuple(image_of(files.folder, each) for each in pairs), record)
    if spec.device != "cpu":
        raise InputError("training.data_hosts: found none, allowed is one or more to fetch from")
    pairs, images = stand_ins.pictures(pixels_of(spec))
    why = "no dataset can be fetched; on the CPU built-in pictures take its place"
    return Pictures(pairs, images, None, why)


def _prepared(files: WorkerFiles) -> dict[str, Any]:
    spec, settings = files.spec, files.spec.training
    most = settings.most_data_bytes
    limits = PairLimits(
        fetch=FetchLimits(hosts=settings.data_hosts, most_bytes=most),
        archive=ArchiveLimits(bytes=most),
        pixels=pixels_of(spec),
        share=settings.held_out_share,
        most=settings.most_held_out,
    )
    try:
        record: DataRecord = files_of.prepare(
            spec.request, files.folder, limits, local_files=spec.local_files, beat=files.beat
        )
    except FetchFailed as why:
        raise InputError(str(why)) from None
    return record.model_dump(mode="json")
