"""The command ``verify``: whether this machine plays a checkpoint as it should."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from tqdm import tqdm

from ..config import RolloutConfig
from ..files.checkpoint import load_model, open_source, rollout_settings
from ..files.published_models import WAN22_CHANNELS, model_by_name
from ..files.recognition import Recognition, recognise
from ..memory_ledger import DeviceMemory, Ledger, Setup
from ..model.attention import choose_attention
from ..model.two_sets import PREFIX
from ..model.wan import CausalWan
from ..session.session import Session
from ..verification.cases import Case, case_for
from ..verification.certificate import Certificate
from ..verification.checks import Check, Host, Promises, check_case
from .generate import DTYPES

SMALL, USUAL = (128, 128), (832, 480)  # pixels of the checkpoint's own video, on a CPU and elsewhere
_FACTOR, _WAN22_FACTOR = 8, 16  # pixels along the edge of a latent


def verify(args: argparse.Namespace) -> int:
    """Verify a checkpoint, print the certificate, and return the exit status: 0 if all checks passed, else 1.

    Raises:
        ValueError: The file is no causal Wan model, or nothing tells which one.
    """
    device, dtype = torch.device(args.device), DTYPES[args.dtype or "float32"]
    tensors, metadata = open_source(args.file)
    own = rollout_settings(metadata)[0]
    found = recognise(args.file, tensors, metadata, own)
    family, config = _family(found, args.preset)
    two_sets = any(word.startswith(PREFIX) for name in tensors for word in name.split("."))
    case = case_for(config, found.channels or 0, two_sets)
    checks: list[Check] = []
    promises = None if args.case_only else _Checkpoint(args, config, device, dtype)
    with _progress() as host:
        if case is not None:
            checks.append(check_case(case, _tiny(case, device, dtype), dtype, host))
        if promises is not None:
            checks += promises.check(host)
    size = None if promises is None else promises.size
    attention = choose_attention("auto", device, dtype)
    certificate = Certificate(args.file.name, family, config, case, device, dtype, attention, size, checks)
    if args.out is not None:
        certificate.write(args.out)
    for check in checks:
        print(f"{'ok    ' if check.passed else 'FAILED'}  {check.name}: {check.said}")
    print(certificate.line)
    return 0 if certificate.passed else 1


def _family(found: Recognition, preset: str | None) -> tuple[str, RolloutConfig]:
    """Return name and settings of the model to verify. Raises ValueError if nothing tells them."""
    if preset is not None:
        model = model_by_name(preset)
        assert model.config is not None  # of those that are found by their name
        if found.channels is not None and (found.channels == WAN22_CHANNELS) != (model.channels == WAN22_CHANNELS):
            raise ValueError(
                f"--preset {model.name!r} is of models with latents of {model.channels} channels, and this file's have "
                f"{found.channels}: name another preset, or leave it out"
            )
        return f"{model.name}, by --preset", model.config
    if found.refusal:
        raise ValueError(found.text())
    if found.config is None or found.could_be:
        raise ValueError(f"{found.text()}. Say with --preset which model it is")
    return found.name, found.config


def _tiny(case: Case, device: torch.device, dtype: torch.dtype) -> CausalWan:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.safetensors"
        case.write_model(path)
        return load_model(path, device, dtype)


class _Checkpoint:
    """The checkpoint itself, loaded, and the size of its videos in pixels."""

    def __init__(
        self, args: argparse.Namespace, config: RolloutConfig, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._config, self._dtype = config, dtype
        self._model = load_model(args.file, device, dtype)
        width, height = args.size or (SMALL if device.type == "cpu" else USUAL)
        self.size = (int(width), int(height))
        factor = _WAN22_FACTOR if self._model.arch.in_dim == WAN22_CHANNELS else _FACTOR
        self._latent_size = self._model.arch.latent_size(*self.size, factor)
        weights = sum(parameter.nbytes for parameter in self._model.parameters())
        self._ledger = Ledger(self._model, weights, DeviceMemory(device.type, 0), spatial_factor=factor)

    def check(self, host: Host) -> list[Check]:
        host = Host(host.report, predicted=self._predicted)
        return Promises(self._model, self._config, self._latent_size, self._dtype, host).check()

    def _predicted(self, session: Session) -> int:
        return self._ledger.parts(Setup(self._config, self._latent_size, 1, session.frames)).total


@contextmanager
def _progress() -> Iterator[Host]:
    """Show the progress on stderr."""
    with tqdm(unit="chunk", file=sys.stderr, bar_format="{desc} [{elapsed}]", leave=False) as bar:

        def report(doing: str, done: int, total: int) -> None:
            text = f"{doing} ({done} of {total} chunks)"
            if bar.desc != text:
                bar.set_description_str(text)

        yield Host(report)
