"""One network and how it learns: gradients, clipping, the optimizer, the running average of its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from ..losses.loss import Loss
from ..recipe import Optimizer
from .lora_adapters import own_state
from .networks import whole
from .process_group import Group, own


class Learner:
    """Updates ``network`` by gradients that it computes itself, so that its state is always that between two steps.

    network: its parameters that require a gradient are trained; it is left without gradients, and frozen, between
        updates. steps: how many updates there will be (for the decay of the learning rate).
    average: a twin of the network that takes the running average; needed if ``settings.ema`` is set.
    group: the processes that update it together, each with as many losses; None: one.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        settings: Optimizer,
        steps: int,
        average: nn.Module | None = None,
        group: Group | None = None,
    ) -> None:
        self.name, self.network, self.settings, self.steps = name, network, settings, steps
        self.group = group or Group()
        if settings.ema and average is None:
            raise ValueError(f"ema is set for the {name}, which keeps no average: leave it out there")
        self.average = average if settings.ema else None
        self.updates = 0
        self._parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self._handles, self._optimizers = _optimizers(self._parameters, settings)
        self._rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in self._optimizers]
        self._freeze()

    def update(self, losses: Iterable[Callable[[], Loss]]) -> dict[str, Tensor]:
        """One step along the mean gradient of ``losses``, each computed and followed back before the next.

        Returns their mean logs and the gradient's norm. Raises FloatingPointError, the weights untouched, if the
        gradient is NaN or Inf.
        """
        logs: dict[str, Tensor] = {}
        todo = list(losses)
        for parameter in self._parameters.values():
            parameter.requires_grad_(True)
        try:
            for loss in todo:
                found = loss()
                (found.value / len(todo)).backward()
                for key, value in found.logs.items():
                    logs[key] = logs.get(key, 0) + value.detach().float() / len(todo)
            parameters = list(self._parameters.values())
            self.group.average_gradients(parameters)
            norm = whole(nn.utils.clip_grad_norm_(parameters, self.settings.clip))
            if not torch.isfinite(norm):
                raise FloatingPointError(
                    f"the gradient of {self.name} is {float(norm)} at its update {self.updates + 1}; the weights are "
                    "as before it. Lower the learning rate, or compute in a wider dtype"
                )
            self._step()
        finally:
            self._freeze()
        return {**self.group.mean(logs), f"{self.name}_gradient_norm": norm.detach()}

    def _step(self) -> None:
        factor = self._rate()
        for name, handle in self._handles.items():
            parameter = self._parameters[name]
            if handle is not parameter and parameter.grad is not None:
                handle.grad = _as_matrix(parameter.grad, like=parameter)
        for optimizer, rates in zip(self._optimizers, self._rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
            optimizer.step()
        self.updates += 1
        if self.average is not None:
            self._follow(self.average, 0.0 if self.updates <= self.settings.ema_start else self.settings.ema)

    def _rate(self) -> float:
        """What part of the full learning rate the next update takes."""
        settings, done = self.settings, self.updates
        if done < settings.warmup:
            return (done + 1) / settings.warmup
        part = (done - settings.warmup) / max(1, self.steps - 1 - settings.warmup)
        return 1 + (settings.decay_to - 1) * min(1.0, part)

    @torch.no_grad()
    def _follow(self, average: nn.Module, decay: float) -> None:
        weights = own_state(self.network)
        for name, tensor in own_state(average).items():
            own(tensor).lerp_(own(weights[name]), 1 - decay)

    def _freeze(self) -> None:
        for parameter in (*self._parameters.values(), *self._handles.values()):
            parameter.grad = None
            parameter.requires_grad_(False)

    @property
    def result(self) -> nn.Module:
        """The network as it should be used: the average, if there is one."""
        return self.network if self.average is None else self.average

    # State ----------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """All that the next update depends on, by name. Tensors are the live ones."""
        tensors = {f"network.{name}": tensor for name, tensor in own_state(self.network).items()}
        if self.average is not None:
            tensors |= {f"average.{name}": tensor for name, tensor in own_state(self.average).items()}
        tensors["updates"] = torch.tensor(self.updates)
        for name, optimizer in self._owners():
            for key, value in optimizer.state[self._handles[name]].items():
                tensors[f"optimizer.{name}.{key}"] = value
        return tensors

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave. Raises ValueError if it is another network's."""
        for part, module in (("network", self.network), ("average", self.average)):
            if module is None:
                continue
            found = {k.removeprefix(f"{part}."): v for k, v in state.items() if k.startswith(f"{part}.")}
            mine = own_state(module)
            try:
                if odd := sorted(found.keys() ^ mine.keys()):
                    raise RuntimeError(f"one has {odd[0]}, the other has not")
                module.load_state_dict({k: self.group.placed(v, mine[k]) for k, v in found.items()}, strict=False)
            except RuntimeError as error:
                raise ValueError(f"the saved {self.name} is of another network: {error}") from error
        self.updates = int(state["updates"])
        kept: dict[str, dict[str, Tensor]] = {}
        for key, value in state.items():
            if key.startswith("optimizer."):
                name, entry = key.removeprefix("optimizer.").rsplit(".", 1)
                kept.setdefault(name, {})[entry] = value
        for name, optimizer in self._owners():
            handle = self._handles[name]
            # AdamW counts its steps on the CPU
            optimizer.state[handle] = {
                k: v.clone() if v.ndim == 0 else self.group.placed(v, handle).to(handle.device, handle.dtype, copy=True)
                for k, v in kept.get(name, {}).items()
            }

    def _owners(self) -> Iterator[tuple[str, torch.optim.Optimizer]]:
        names = {handle: name for name, handle in self._handles.items()}
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                for handle in group["params"]:
                    yield names[handle], optimizer


def _is_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon is for it: the matrices inside the transformer's blocks, and kernels of convolutions."""
    inside = "blocks." in name and parameter.ndim == 2
    return inside or (parameter.ndim >= 4 and not name.startswith("patch_embedding"))


def _as_matrix(tensor: Tensor, like: Tensor) -> Tensor:
    """A row for each output. Its columns are ordered as ``like`` lies in memory, so that of ``like`` it is a view; to
    Muon their order makes no difference."""
    strides = like.stride()
    order = sorted(range(1, like.ndim), key=lambda dim: -strides[dim])
    return tensor.permute(0, *order).reshape(len(tensor), -1)


def _optimizers(
    parameters: Mapping[str, nn.Parameter], settings: Optimizer
) -> tuple[dict[str, nn.Parameter], list[torch.optim.Optimizer]]:
    """What the optimizers call each parameter: itself, or the same memory as the matrix that Muon wants."""
    handles, matrices, rest = {}, [], []
    for name, parameter in parameters.items():
        handle = parameter
        if settings.name == "muon" and _is_matrix(name, parameter):
            handle = parameter if parameter.ndim == 2 else nn.Parameter(_as_matrix(parameter.detach(), like=parameter))
            matrices.append(handle)
        else:
            rest.append(handle)
        handles[name] = handle
    optimizers: list[torch.optim.Optimizer] = []
    if matrices:
        scaled = "match_rms_adamw"  # so that one learning rate is right for both
        muon = torch.optim.Muon(matrices, lr=settings.lr, weight_decay=settings.weight_decay, adjust_lr_fn=scaled)
        optimizers.append(muon)
    if rest:
        adamw = torch.optim.AdamW(rest, lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay)
        optimizers.append(adamw)
    return handles, optimizers
