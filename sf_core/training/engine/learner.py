"""Training of one network: gradients, clipping, the optimizer, the EMA of its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from ..losses.loss import Loss
from ..stage_settings import Optimizer
from .lora_adapters import state_without_base
from .process_group import Group
from .shards import full_tensor, local_shard


class Learner:
    """The optimizer steps of one network. Between them the network is frozen and has no gradients.

    Args:
        name: Name in logs and errors.
        network: Its parameters that require a gradient are trained.
        settings: Settings of the optimizer.
        steps: Number of updates, for the decay of the learning rate.
        average: A copy of the network that takes the EMA; needed if ``settings.ema`` is set.
        group: The processes that update it together, each with equally many losses; None: this process alone.

    Raises:
        ValueError: If ``settings.ema`` is set without ``average``.
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
        """Take one optimizer step along the mean gradient of the micro-batches.

        Args:
            losses: Functions that compute the loss of one micro-batch each. The graph of one is freed before the next.

        Returns:
            The mean logs, and the norm of the gradient before clipping.

        Raises:
            FloatingPointError: If the gradient is NaN or Inf. The weights are unchanged then.
        """
        logs: dict[str, Tensor] = {}
        microbatches = list(losses)
        for parameter in self._parameters.values():
            parameter.requires_grad_(True)
        try:
            for compute in microbatches:
                loss = compute()
                (loss.value / len(microbatches)).backward()
                for key, value in loss.logs.items():
                    logs[key] = logs.get(key, 0) + value.detach().float() / len(microbatches)
            parameters = list(self._parameters.values())
            self.group.average_gradients(parameters)
            norm = full_tensor(nn.utils.clip_grad_norm_(parameters, self.settings.clip))
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
        factor = self._lr_factor()
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
            self._update_average(self.average, 0.0 if self.updates <= self.settings.ema_start else self.settings.ema)

    def _lr_factor(self) -> float:
        """Return the factor of the learning rate in the next update: linear warm-up, then linear decay."""
        settings = self.settings
        if self.updates < settings.warmup:
            return (self.updates + 1) / settings.warmup
        progress = (self.updates - settings.warmup) / max(1, self.steps - 1 - settings.warmup)
        return 1 + (settings.decay_to - 1) * min(1.0, progress)

    @torch.no_grad()
    def _update_average(self, average: nn.Module, decay: float) -> None:
        weights = state_without_base(self.network)
        for name, tensor in state_without_base(average).items():
            local_shard(tensor).lerp_(local_shard(weights[name]), 1 - decay)

    def _freeze(self) -> None:
        for parameter in (*self._parameters.values(), *self._handles.values()):
            parameter.grad = None
            parameter.requires_grad_(False)

    @property
    def result(self) -> nn.Module:
        """The network to use: the EMA if there is one."""
        return self.network if self.average is None else self.average

    # State ----------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """Return the tensors that the next update depends on, by name; they are not copied."""
        tensors = {f"network.{name}": tensor for name, tensor in state_without_base(self.network).items()}
        if self.average is not None:
            tensors |= {f"average.{name}": tensor for name, tensor in state_without_base(self.average).items()}
        tensors["updates"] = torch.tensor(self.updates)
        for name, optimizer in self._parameter_optimizers():
            for key, value in optimizer.state[self._handles[name]].items():
                tensors[f"optimizer.{name}.{key}"] = value
        return tensors

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Load a state from `state`. Raises ValueError if it is another network's."""
        for part, module in (("network", self.network), ("average", self.average)):
            if module is None:
                continue
            saved = {k.removeprefix(f"{part}."): v for k, v in state.items() if k.startswith(f"{part}.")}
            current = state_without_base(module)
            try:
                if odd := sorted(saved.keys() ^ current.keys()):
                    raise RuntimeError(f"one has {odd[0]}, the other has not")
                placed = {k: self.group.distribute_like(v, current[k]) for k, v in saved.items()}
                module.load_state_dict(placed, strict=False)
            except RuntimeError as error:
                raise ValueError(f"the saved {self.name} is of another network: {error}") from error
        self.updates = int(state["updates"])
        optimizer_states: dict[str, dict[str, Tensor]] = {}
        for key, value in state.items():
            if key.startswith("optimizer."):
                name, entry = key.removeprefix("optimizer.").rsplit(".", 1)
                optimizer_states.setdefault(name, {})[entry] = value
        for name, optimizer in self._parameter_optimizers():
            handle = self._handles[name]
            # AdamW counts its steps on the CPU
            optimizer.state[handle] = {
                k: v.clone()
                if v.ndim == 0
                else self.group.distribute_like(v, handle).to(handle.device, handle.dtype, copy=True)
                for k, v in optimizer_states.get(name, {}).items()
            }

    def _parameter_optimizers(self) -> Iterator[tuple[str, torch.optim.Optimizer]]:
        names = {handle: name for name, handle in self._handles.items()}
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                for handle in group["params"]:
                    yield names[handle], optimizer


def _is_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether Muon updates the parameter: matrices inside the transformer's blocks, and convolution kernels."""
    inside = "blocks." in name and parameter.ndim == 2
    return inside or (parameter.ndim >= 4 and not name.startswith("patch_embedding"))


def _as_matrix(tensor: Tensor, like: Tensor) -> Tensor:
    """Flatten all dimensions but the first, in the memory order of ``like``.

    So the matrix of ``like`` is a view. The order of the columns does not matter to Muon.
    """
    strides = like.stride()
    order = sorted(range(1, like.ndim), key=lambda dim: -strides[dim])
    return tensor.permute(0, *order).reshape(len(tensor), -1)


def _optimizers(
    parameters: Mapping[str, nn.Parameter], settings: Optimizer
) -> tuple[dict[str, nn.Parameter], list[torch.optim.Optimizer]]:
    """Build the optimizers; also return each parameter's handle in them: itself, or its matrix view for Muon."""
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
        scaled = "match_rms_adamw"  # so that one learning rate suits both
        muon = torch.optim.Muon(matrices, lr=settings.lr, weight_decay=settings.weight_decay, adjust_lr_fn=scaled)
        optimizers.append(muon)
    if rest:
        adamw = torch.optim.AdamW(rest, lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay)
        optimizers.append(adamw)
    return handles, optimizers
