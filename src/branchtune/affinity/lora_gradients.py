"""Per-sample gradients of LoRA at initialisation from one backward pass per task.

With B = 0 the adapters change nothing, so that the model runs without them, and only B has a gradient. A zero added to
every site's output receives the gradient g of that output; for sample i, dB_i = s sum over positions of g (A x)^T is a
product of two small matrices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import TypeGuard

from branchtune.adapters.adapter import Adapter
from branchtune.adapters.lora import LoRA
from branchtune.adapters.lora_layers import KernelDelta, LoRAConv, LoRALinear
from branchtune.affinity.gradients import Layout, PerSampleGradients, differentiate
from branchtune.backbone.arguments import tensor_arguments
from branchtune.backbone.clone import OwnHook
from branchtune.backbone.spec import Site
from branchtune.batch import Batch
from branchtune.model import MultiTaskModel


def is_plain_lora(adapter: Adapter) -> TypeGuard[LoRA]:
    """Whether `LoRAGradients` gives its gradients: a class of the user's own may build or apply something else."""
    own = type(adapter)
    return isinstance(adapter, LoRA) and own.build is LoRA.build and own.apply is LoRA.apply


class LoRAGradients(PerSampleGradients):
    """The same gradients as `SampleLoop` over B and depthwise kernels of a model with one shared LoRA.

    Args:
        model: without adapter, in eval mode, every parameter frozen.
        adapter: of the LoRA, whose A is drawn here.
    """

    def __init__(self, model: MultiTaskModel, adapter: LoRA) -> None:
        self.model = model
        like = next(model.decoders.parameters())
        modules = dict(model.backbone.frozen.named_modules())
        self.probes = [
            _Probe(site, cast(Any, adapter.build(site).to(like.device, like.dtype).requires_grad_(False)), adapter)
            for site in sorted(adapter.select_sites(model.spec), key=lambda site: site.level)
        ]
        for probe in self.probes:
            # First of the hooks: the one at the end of a level may stop the forward pass, and reads the output.
            modules[probe.site.name].register_forward_hook(probe, prepend=True, with_kwargs=True)
        self.layout = Layout(
            len(model.spec.levels),
            tuple(probe.site.level for probe in self.probes),
            tuple(probe.size for probe in self.probes),
        )

    def chunks(self, batch: Batch) -> Iterator[tuple[slice, dict[str, Tensor]]]:
        for probe in self.probes:
            probe.calls.clear()
        tasks = list(batch.targets)
        outputs = self.model(batch.images, tasks, **batch.inputs)
        zeros = [zero for probe in self.probes for _, zero in probe.calls]
        gradients = {}
        for name in tasks:
            losses = [
                self.model.tasks[name].loss(outputs[name][i : i + 1], batch.targets[name][i : i + 1])
                for i in batch.labelled[name].nonzero()[:, 0].tolist()
            ]
            flow = iter(differentiate(torch.stack(losses).sum(), zeros, retain_graph=name != tasks[-1]))
            parts = [probe.gradient([next(flow) for _ in probe.calls], len(batch.images)) for probe in self.probes]
            gradients[name] = torch.cat(parts, dim=1)
        for probe in self.probes:
            probe.calls.clear()
        yield slice(0, len(batch.images)), gradients


class _Probe(OwnHook):
    """A forward hook that adds zeros to a site's output and keeps what dB needs of its input.

    Attributes:
        calls: per call of the site, A x (a depthwise site: x) and the zeros.
    """

    def __init__(self, site: Site, node: LoRALinear | LoRAConv | KernelDelta, adapter: LoRA) -> None:
        self.site, self.node = site, node
        if isinstance(node, KernelDelta):
            self.scale, self.size = 1.0, node.kernel.numel()
        else:
            self.scale, self.size = adapter.scale(site), node.lora_B.numel()
        self.calls: list[tuple[Tensor, Tensor]] = []

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
        zero = torch.zeros_like(output, requires_grad=True)
        inputs = next(iter(tensor_arguments(args, kwargs).values()))
        self.calls.append((self._seen(inputs.detach()), zero))
        return output + zero

    def _seen(self, x: Tensor) -> Tensor:
        if isinstance(self.node, KernelDelta):
            return x.clone()
        down = self.node.lora_A
        if self.site.kind == "linear":
            return x @ down.mT
        kernel = down if down.ndim == 4 else down[:, :, None, None]
        return F.conv2d(x, kernel, None, self.site.stride, self.site.padding, self.site.dilation, self.site.groups)

    def gradient(self, flows: Sequence[Tensor], batch: int) -> Tensor:
        """`[B, size]` from the gradient of the output of every call."""
        parts = [self._of_call(seen, flow, batch) for (seen, _), flow in zip(self.calls, flows, strict=True)]
        return self.scale * torch.stack(parts).sum(0)

    def _of_call(self, seen: Tensor, flow: Tensor, batch: int) -> Tensor:
        # The image is the slowest index of the rows, also where a layer sees windows.
        if self.site.kind == "linear":
            per_sample = flow.reshape(batch, -1, flow.shape[-1]).mT @ seen.reshape(batch, -1, seen.shape[-1])
            return per_sample.flatten(1)
        groups = self.site.groups
        columns = self._columns(seen) if isinstance(self.node, KernelDelta) else seen.flatten(2)
        per_group = columns.unflatten(1, (groups, -1))
        return (flow.flatten(2).unflatten(1, (groups, -1)) @ per_group.mT).flatten(1)

    def _columns(self, x: Tensor) -> Tensor:
        """What every element of a depthwise kernel was multiplied with: `[B, C * kh * kw, positions]`."""
        site = self.site
        return F.unfold(x, site.kernel_size, site.dilation, site.padding, site.stride)
