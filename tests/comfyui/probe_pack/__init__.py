"""Nodes that only the tests have, in the real ComfyUI beside the pack."""

from __future__ import annotations

import time

from comfy_api.latest import ComfyExtension, io

from . import giving, identity, insides, looking, meddling, numbering, squeezing


class ProbeNothing(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ProbeNothing",
            display_name="Probe: nothing",
            category="probe",
            inputs=[io.Int.Input("number", default=1)],
            outputs=[io.Int.Output()],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, number: int) -> io.NodeOutput:
        return io.NodeOutput(number, ui={"number": [number]})


class ProbeWait(io.ComfyNode):
    """Runs until it is stopped, or for so long; or fails at its end."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ProbeWait",
            display_name="Probe: wait",
            category="probe",
            inputs=[io.Float.Input("seconds", default=60.0), io.Boolean.Input("fails", default=False)],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, seconds: float, fails: bool) -> io.NodeOutput:
        import comfy.model_management

        end = time.monotonic() + seconds
        while time.monotonic() < end:
            comfy.model_management.throw_exception_if_processing_interrupted()
            time.sleep(0.01)
        if fails:
            raise ValueError("the probe fails as told")
        return io.NodeOutput(ui={"waited": [seconds]})


class ProbeExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        families = (looking, meddling, giving, numbering, squeezing, identity, insides)
        return [ProbeNothing, ProbeWait, *(node for family in families for node in family.NODES)]


async def comfy_entrypoint() -> ProbeExtension:
    return ProbeExtension()
