"""Peak memory of loading a checkpoint, relative to the size of its file.

A file of bfloat16 weights (by default of the 1.3B model's shapes, 2.8 GB) is written to a temporary folder, as
safetensors and as a trainer's ``.pt``. A new process loads or converts it, and reports its peak memory (VmHWM, which
includes mapped pages of files) minus its memory after the imports. Linux only.

Loading into float32, the default, makes a result of twice a bfloat16 file. A LoRA is merged weight by weight.
Conversion holds one weight at a time.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

import sf_core
from sf_core.files.safetensors_file import write_tensors

from .measure import ROOT, Report
from .models import architecture

RANK = 256
# {work} is the statement to measure
CHILD = """
import sys, time
import torch, sf_core
from sf_core.files.convert import convert
torch.set_num_threads(1)
def memory(key):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024
before, begin = memory("VmRSS:"), time.perf_counter()
{work}
print(memory("VmHWM:") - before, time.perf_counter() - begin)
"""


def _measure(work: str) -> tuple[float, float]:
    """Return the bytes at the peak and the seconds of ``work`` in a new process."""
    code = CHILD.format(work=work)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    peak, seconds = map(float, done.stdout.split())
    return peak, seconds


def _lora(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Build a LoRA for every matrix of the blocks, as LongLive's is."""
    state = {}
    for name, shape in shapes.items():
        if name.startswith("blocks.") and name.endswith(".weight") and len(shape) == 2:
            layer = f"base_model.model.{name.removesuffix('.weight')}"
            state[f"{layer}.lora_A.weight"] = torch.full((RANK, shape[1]), 0.01, dtype=torch.bfloat16)
            state[f"{layer}.lora_B.weight"] = torch.full((shape[0], RANK), 0.01, dtype=torch.bfloat16)
    return state


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"dim": 1536, "ffn": 8960, "layers": 30, "heads": 12, "text_dim": 4096, "text_len": 512}.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--folder", type=Path, help="where the files are written; default: the system's temporary one")
    args = parser.parse_args()
    report = Report("load_memory", args)
    with torch.device("meta"):
        shapes = {name: tuple(p.shape) for name, p in sf_core.CausalWan(architecture(args)).named_parameters()}

    def weight(name: str) -> torch.Tensor:
        return torch.full(shapes[name], 0.01 * (1 + len(name)), dtype=torch.bfloat16)

    with tempfile.TemporaryDirectory(dir=args.folder and args.folder.resolve()) as folder:
        safe, pickled, target = (Path(folder) / name for name in ("m.safetensors", "m.pt", "out.safetensors"))
        layout = {name: (shape, torch.bfloat16) for name, shape in shapes.items()}
        write_tensors(safe, layout, map(weight, layout), {"sf.num_heads": str(args.heads)})
        torch.save({"generator_ema": {f"model.{name}": weight(name) for name in shapes}}, pickled)
        for path in (safe, pickled):
            size = path.stat().st_size
            options = {
                f"{path.suffix} of {size / 1e9:.2f} GB -> bfloat16": ("torch.bfloat16", 1.1),
                f"{path.suffix} of {size / 1e9:.2f} GB -> float32": ("torch.float32", 2.2),
            }
            for what, (dtype, most) in options.items():
                work = f"model = sf_core.load_model({str(path)!r}, dtype={dtype}, num_heads={args.heads})"
                peak, seconds = _measure(work)
                report.row(f"{what}: peak by file", [peak / size], "x", most=most)
                report.row(f"{what}: seconds", [seconds], "s")
        lora = Path(folder) / "lora.pt"
        torch.save({"generator_lora": _lora(shapes)}, lora)
        work = f"model = sf_core.load_model({str(safe)!r}, dtype=torch.bfloat16, lora={str(lora)!r})"
        peak, seconds = _measure(work)
        report.row(f"with a LoRA of rank {RANK} -> bfloat16: peak by file", [peak / safe.stat().st_size], "x", most=1.1)
        report.row(f"with a LoRA of rank {RANK} -> bfloat16: seconds", [seconds], "s")
        peak, seconds = _measure(f"convert({str(pickled)!r}, {str(target)!r}, num_heads={args.heads})")
        report.row("convert .pt to .safetensors: peak by file", [peak / size], "x", most=0.1)
        report.row("convert .pt to .safetensors: seconds", [seconds], "s")
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
