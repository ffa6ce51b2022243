"""The node that verifies a MODEL on this machine."""

from __future__ import annotations

import json
from typing import Any

from comfy_api.v0_0_2 import io

from ..sf_core.message import Message
from ..sf_core.verification.cases import case_for
from ..sf_core.verification.certificate import Certificate
from ..sf_core.verification.checks import Check, Host, Promises, check_case
from .adapters import host, memory
from .adapters.fingerprint import source_of
from .adapters.model import HostedWan, latent_size
from .adapters.model_loader import recognised
from .adapters.model_settings import config_for
from .adapters.verification import tiny_case
from .inputs import checked, schema

SMALL, USUAL = (128, 128), (832, 480)  # pixels of the model's own video, on a CPU and elsewhere
ENDING = ".json"


class SFVerify(io.ComfyNode):
    """Verifies a MODEL."""

    @classmethod
    def define_schema(cls) -> Any:
        return schema(
            node_id="SFVerify",
            display_name="Verify Model",
            description="Checks that this machine plays a model as recorded, and keeps a session's promises with it.",
            search_aliases=["self test", "bug report", "certificate", "reproducible"],
            inputs=[
                io.Model.Input("model", tooltip="From Load Self Forcing Model or Self Forcing From Model."),
                io.Boolean.Input(
                    "case_only",
                    default=False,
                    tooltip="Play the recorded run with a tiny model alone, which takes seconds; not the model itself.",
                ),
                io.String.Input(
                    "filename_prefix",
                    default="self_forcing/certificate",
                    tooltip="Folder below output and beginning of the certificate's name.",
                ),
            ],
            outputs=[io.String.Output(display_name="certificate", tooltip="The certificate as JSON.")],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> float:
        return float("nan")  # it runs each time that it is asked

    @classmethod
    @checked
    def execute(cls, model: Any, case_only: bool, filename_prefix: str) -> Any:
        path = host.output_path(filename_prefix, ENDING)  # before the work: it may not be writable
        try:
            certificate = _verified(model, case_only)
        except Exception as error:
            if not memory.is_out_of_memory(error):
                raise
            memory.free_all(error)
            message = (
                "the memory was not enough to verify the model, and has been freed. Turn on 'case_only', which plays "
                "the recorded run alone, or load the model with a weight_dtype of fp8"
            )
            raise memory.out_of_memory(error, message) from None
        certificate.write(path)
        shown = host.remark(Message("{text}", text=certificate.line))  # in English: it goes into bug reports
        return io.NodeOutput(json.dumps(certificate.as_dict(), indent=2, ensure_ascii=False), ui=shown)


def _verified(model: Any, case_only: bool) -> Certificate:
    wan = HostedWan(model)
    config, source = config_for(model, None), source_of(model)
    case = case_for(config, wan.arch.in_dim, wan.has_two_sets)
    size = None if case_only else SMALL if wan.device.type == "cpu" else USUAL
    progress = _Progress(wan)
    checks: list[Check] = []
    dtype = wan.dtype
    if case is not None:
        tiny = tiny_case(case, model, dtype)
        dtype = tiny.dtype
        with tiny.shared.in_use():
            checks.append(check_case(case, tiny, dtype, Host(progress.report, tiny.make_ready)))
            tiny.shared.release()
    if size is not None:
        ours = Host(progress.report, wan.make_ready, lambda session: wan.ledger.parts(wan.setup(session)).total)
        with wan.shared.in_use():
            checks += Promises(wan, config, latent_size(wan, *size), wan.dtype, ours).check()
    name = source.name if source is not None else "a MODEL"
    family = recognised(source).name if source is not None else ""
    known = case.name if case is not None else "settings of its own"
    return Certificate(name, family or known, config, case, wan.device, dtype, "ComfyUI's", size, checks)


class _Progress:
    """The progress of a verification on its node."""

    def __init__(self, wan: HostedWan) -> None:
        self._cancellation, self._said, self._total = wan.cancellation, "", 0
        self._bar: host.NodeProgress | None = None

    def report(self, doing: str, done: int, total: int) -> None:
        """Show it. Raises the interrupt if the user cancelled."""
        self._cancellation.raise_if_asked()
        if self._bar is None or total != self._total:
            self._bar, self._total = host.NodeProgress(total, self._cancellation), total
        self._bar.at(done)
        text = f"{doing} ({done} of {total} chunks)"
        if text != self._said:
            self._said = text
            self._bar.say(Message("{text}", text=text))


NODES = [SFVerify]
