"""What depends on a whole batch, computed by processes that each have a part of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from mmcore.training.batch import Batch


class WholeBatch(TorchFunctionMode):
    """While it is entered, layers over a part of a batch give that part of what they would give for all of it.

    Dropout and `rand_like` and `randn_like` of tensors with a row per sample draw for the whole batch, so that all
    processes' generators stay alike; batch normalisation takes the moments of all rows. Dropout inside torch's own
    attention and recurrent layers is drawn by each process for itself.
    """

    def __init__(self, batch: Batch) -> None:
        super().__init__()
        self.batch = batch

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is functional.batch_norm:
            return _batch_norm(*args, **kwargs)
        if func in _DROPPING and kwargs.get("training", True) and self._is_part(args[0]):
            kwargs["inplace"] = False
            return args[0] * func(torch.ones_like(self._whole(args[0])), *args[1:], **kwargs)[self.batch.part]
        if func in _RANDOM and self._is_part(args[0]):
            return func(self._whole(args[0]), *args[1:], **kwargs)[self.batch.part]
        return func(*args, **kwargs)

    def _is_part(self, values: Tensor) -> bool:
        return values.ndim > 0 and len(values) == self.batch.part.stop - self.batch.part.start

    def _whole(self, values: Tensor) -> Tensor:
        return values.new_empty((len(self.batch.whole), *values.shape[1:]))


_DROPPING = {functional.dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d}
_RANDOM = {torch.rand_like, torch.randn_like}


def _batch_norm(  # noqa: PLR0917 - as torch's
    values: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`functional.batch_norm` over the rows of all processes."""
    if not training:
        return functional.batch_norm(values, running_mean, running_var, weight, bias, False, momentum, eps)
    rows = [axis for axis in range(values.ndim) if axis != 1]
    shape = [-1 if axis == 1 else 1 for axis in range(values.ndim)]
    count = summed(torch.full((), values.numel() / values.shape[1], dtype=torch.float64, device=values.device)).item()
    # Deviations from the mean itself: a difference of squares would lose the digits.
    mean = summed(values.float().sum(rows)) / count
    variance = summed((values.float() - mean.view(shape)).square().sum(rows)) / count
    with torch.no_grad():
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean, momentum)
            running_var.lerp_(variance * (count / max(1.0, count - 1)), momentum)
    found = (values - mean.view(shape)) * torch.rsqrt(variance + eps).view(shape)
    if weight is not None:
        found = found * weight.view(shape)
    return found if bias is None else found + bias.view(shape)


def summed(values: Tensor) -> Tensor:
    """The sum over all processes of a tensor that each has; gradients are summed on their way back."""
    found: Tensor = _Summed.apply(values)  # type: ignore[no-untyped-call]
    return found


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, values: Tensor) -> Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total
