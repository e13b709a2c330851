"""An offer stream as columns, in handling order: what every preset of a comparison is fed."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shared.offers import Offer
from sim.distinct import surely_distinct

UNKNOWN = -1
"""Stands for a ds_size or a parameter count that was not told."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Codes = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Labels:
    """A column of few distinct strings: ``names[codes[i]]`` is the value of offer i."""

    codes: Codes
    names: tuple[str, ...]

    def __getitem__(self, index: int) -> str:
        return self.names[int(self.codes[index])]

    def taken(self, order: Ints) -> "Labels":
        """The same column in another order, or a part of it."""
        return Labels(self.codes[order], self.names)


@dataclass(frozen=True)
class OfferStream:
    """n offers, sorted by (at_ms, task_id by code point).

    at_ms: int64 epoch milliseconds. task_id: a pyarrow string array. hours: float64 hours to
    complete. ds_size, params: int64, -1 when not told. train_ms: int64, how long the slot is
    really busy once the job is accepted.
    """

    at_ms: Ints
    task_id: pa.Array
    model: Labels
    task_type: Labels
    hours: Floats
    ds_size: Ints
    params: Ints
    train_ms: Ints

    def __len__(self) -> int:
        return len(self.at_ms)

    def offer(self, index: int) -> Offer:
        """One offer as the policy sees it."""
        ds_size, params = int(self.ds_size[index]), int(self.params[index])
        return Offer(
            task_id=self.task_id[index].as_py(),
            model=self.model[index],
            task_type=self.task_type[index],
            hours_to_complete=float(self.hours[index]),
            ds_size=None if ds_size == UNKNOWN else ds_size,
            model_params_count=None if params == UNKNOWN else params,
        )

    @cached_property
    def previous(self) -> Ints | None:
        """Index of the same task's offer before this one, -1 for a task's first; None: no repeats.

        int64, one an offer.
        """
        if surely_distinct(self.task_id):  # far quicker than telling which are equal
            return None
        encoded = pc.dictionary_encode(self.task_id)
        if len(encoded.dictionary) == len(self):
            return None
        codes = encoded.indices.to_numpy(zero_copy_only=False)
        by_task = np.argsort(codes, kind="stable")
        same = codes[by_task][1:] == codes[by_task][:-1]
        previous = np.full(len(self), -1, dtype=np.int64)
        previous[by_task[1:][same]] = by_task[:-1][same]
        return previous


def in_handling_order(stream: OfferStream) -> OfferStream:
    """The same offers sorted by (at_ms, task_id); returned as it is when sorted already."""
    if _is_sorted(stream):
        return stream
    return taken(stream, handling_order(stream.at_ms, stream.task_id))


def _is_sorted(stream: OfferStream) -> bool:
    """Whether the offers are in handling order; task ids are compared at equal times alone."""
    at_ms = stream.at_ms
    if bool(np.any(at_ms[1:] < at_ms[:-1])):
        return False
    ties = pa.array(np.flatnonzero(at_ms[1:] == at_ms[:-1]))
    if not len(ties):
        return True
    earlier, later = stream.task_id.take(ties), stream.task_id.take(pc.add(ties, 1))
    return bool(pc.all(pc.less_equal(earlier, later)).as_py())


def handling_order(at_ms: Ints, task_id: pa.Array) -> Ints:
    """Indices that sort offers by (at_ms, task_id): int64, one an offer."""
    table = pa.table({"at_ms": at_ms, "task_id": task_id})
    # UTF-8 bytes sort as code points do
    keys = [("at_ms", "ascending"), ("task_id", "ascending")]
    return np.asarray(pc.sort_indices(table, sort_keys=keys), dtype=np.int64)


def taken(stream: OfferStream, order: Ints) -> OfferStream:
    """The offers at these indices, in this order. The caller keeps the handling order."""
    return OfferStream(
        at_ms=stream.at_ms[order],
        task_id=stream.task_id.take(pa.array(order)),
        model=stream.model.taken(order),
        task_type=stream.task_type.taken(order),
        hours=stream.hours[order],
        ds_size=stream.ds_size[order],
        params=stream.params[order],
        train_ms=stream.train_ms[order],
    )
