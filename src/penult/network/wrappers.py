"""Wrappers around networks and layers, taken off so that these can be watched by their names."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from penult.network.state import runnable_example


def unwrapped(model: nn.Module) -> nn.Module:
    """The network without `torch.compile` and parallel wrappers, inside of it too.

    The network's own modules are changed in place: each wrapper in it gives way to what it wraps,
    and modules compiled in place run as they were written.
    """
    model = _inner(model)
    for module in list(model.modules()):
        for name, child in list(module._modules.items()):
            if child is not None and (inner := _inner(child)) is not child:
                module._modules[name] = inner
        if getattr(module, "_compiled_call_impl", None) is not None:
            module._compiled_call_impl = None
    return model


def _inner(module: nn.Module) -> nn.Module:
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while True:
        inner: Any = getattr(module, "_orig_mod", None)
        if isinstance(module, parallel):
            inner = module.module
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def in_single_precision(model: nn.Module) -> nn.Module:
    """The network in float32 unless it takes float32 images as it is; half precision is storage.

    Weights of float16 and bfloat16 keep their values exactly.
    """
    dtypes = {p.dtype for p in model.parameters() if p.is_floating_point()} - {torch.float32}
    if not dtypes or runnable_example(model, torch.float32) is not None:
        return model
    found = " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
    warnings.warn(f"the network's weights are {found}: it is run in float32", stacklevel=2)
    return model.float()
