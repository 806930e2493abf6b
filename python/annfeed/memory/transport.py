"""Batches from a torch worker to the process that asked for them, without a copy.

torch alone copies each tensor into shared memory made for it, and both processes pay for its pages anew: for a batch of
15 MB that is several times what making it costs. Here a worker makes batches in shared memory that goes round
(memory/shared_batches.py), and sends where in it they lie. What does not lie there (small values, what a transform made
anew) travels as usual.
"""

from __future__ import annotations

import os
from multiprocessing.reduction import ForkingPickler
from typing import Any, TypeVar, cast

import torch

from annfeed.memory.shared_batches import Bytes, Name, received, segment_at
from annfeed.memory.sparse import compressed

T = TypeVar("T")
#: What of shared memory a batch lies in: bytes, and the memory itself until the receiver has it.
Segments = dict[Name, tuple[int, torch.UntypedStorage | None]]

#: A tensor of at most so many bytes is sent as bytes: a descriptor of its own would cost more.
_SMALL = 1 << 16


class SentBatch(dict[str, Any]):
    """A batch on its way out of a worker; who receives it gets a dict. Everywhere else it is a dict like others."""


def sendable(batch: T) -> T:
    """Return what a torch worker shall send for a batch: itself, but for a dict in a worker, which goes as `SentBatch`.

    Examples
    --------
    >>> type(sendable({"X": torch.zeros(2)}))
    <class 'dict'>
    """
    if type(batch) is not dict or torch.utils.data.get_worker_info() is None:
        return batch
    whole: Any = batch
    return cast("T", SentBatch(whole))


def _reduce(batch: SentBatch) -> tuple[Any, ...]:
    """What `ForkingPickler`, which queues between processes use, makes of a batch."""
    segments: Segments = {}
    return _receive, ({key: _serialized(value, segments) for key, value in batch.items()}, segments, os.getpid())


ForkingPickler.register(SentBatch, _reduce)


def _receive(serialized: dict[str, Any], segments: Segments, worker: int) -> dict[str, Any]:
    memory = {name: received(name, worker, *sent) for name, sent in segments.items()}
    return {
        key: value.tensor(memory) if isinstance(value, _Tensor | _Csr) else value for key, value in serialized.items()
    }


class _Tensor:
    """A strided tensor: where it lies in a segment, or its bytes."""

    def __init__(self, tensor: torch.Tensor, lies_in: Name | None) -> None:
        self._dtype, self._segment = tensor.dtype, lies_in
        self._size, self._stride, self._offset = tuple(tensor.shape), tensor.stride(), tensor.storage_offset()
        self._bytes: bytes | None = None
        if lies_in is None:
            tensor = tensor.contiguous()
            self._stride, self._offset = tensor.stride(), 0
            self._bytes = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()

    def tensor(self, memory: dict[Name, Bytes]) -> torch.Tensor:
        if self._segment is None:
            flat = torch.frombuffer(bytearray(self._bytes or b""), dtype=self._dtype)
        else:
            flat = torch.from_numpy(memory[self._segment]).view(self._dtype)
        return flat.as_strided(self._size, self._stride, self._offset)


class _Csr:
    """A sparse CSR tensor."""

    def __init__(self, parts: list[Any], size: tuple[int, ...]) -> None:
        self._parts, self._size = parts, size

    def tensor(self, memory: dict[Name, Bytes]) -> torch.Tensor:
        crow, columns, values = [part.tensor(memory) if isinstance(part, _Tensor) else part for part in self._parts]
        return compressed(crow, columns, values, self._size)


def _serialized(value: Any, segments: Segments) -> Any:
    """A value serialized: as references to segments, which are added to ``segments``, or bytes; else as it is."""
    if type(value) is not torch.Tensor or value.requires_grad or value.device.type != "cpu":
        return value
    if value.is_nested or value.is_quantized:  # more than elements at strides
        return value
    if value.layout is torch.sparse_csr:
        parts = [value.crow_indices(), value.col_indices(), value.values()]
        return _Csr([_serialized(part, segments) for part in parts], tuple(value.shape))
    if value.layout is not torch.strided:
        return value
    value = value.resolve_conj().resolve_neg()  # torch forgets the sign on the way
    segment = segment_at(value.untyped_storage().data_ptr())
    if segment is not None and (segment.name in segments or not segment.is_sent):
        if segment.name not in segments:
            segments[segment.name] = segment.send()
        return _Tensor(value, segment.name)
    return _Tensor(value, None) if 0 < value.nbytes <= _SMALL else value
