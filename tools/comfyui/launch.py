"""Start a ComfyUI checkout in this process: `python launch.py CHECKOUT -- its arguments`.

ComfyUI imports torchvision and torchaudio. Where torch is the CPU build and those two come from a package index that
has only their CUDA builds, their compiled parts do not load and the import fails, although nothing here uses them.
This file makes the import succeed there, and changes nothing where the compiled parts load.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

_kept: list[Any] = []  # a library of operators takes them with it when it is collected


def declare_operators(extension: Any) -> None:
    """torchvision adds fake kernels to two operators when it is imported, even if it has no real ones."""
    if extension._has_ops():
        return
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept.append(library)


def do_without(utils: Any) -> None:
    """torchaudio's compiled parts are optional, but one that is there and does not load is taken for an error."""
    load: Callable[[str], bool] = utils._load_lib

    def load_if_possible(name: str) -> bool:
        try:
            return load(name)
        except OSError:
            return False

    utils._load_lib = load_if_possible


AFTER = {"torchvision.extension": declare_operators, "torchaudio._extension.utils": do_without}


class _Patched(Loader):
    def __init__(self, inner: Loader, after: Callable[[Any], None]) -> None:
        self.inner, self.after = inner, after

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.inner.exec_module(module)
        self.after(module)


class Patches(MetaPathFinder):
    """Patches a module when it is first imported: ComfyUI wants torch imported by itself, after it has set it up."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname in AFTER else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Patched(spec.loader, AFTER[fullname])
        return spec


def end_with_stdin() -> None:
    """Whoever started this holds the other end of its standard input: when it is gone, killed even, so is this."""
    while os.read(0, 1024):
        pass
    os._exit(1)


def main() -> None:
    if len(sys.argv) < 3 or sys.argv[2] != "--":
        raise SystemExit(__doc__)
    checkout, _, *arguments = sys.argv[1:]
    if os.environ.pop("COMFYUI_ENDS_WITH_STDIN", None):
        threading.Thread(target=end_with_stdin, daemon=True).start()
    sys.meta_path.insert(0, Patches())
    os.chdir(checkout)
    # ComfyUI has packages called `utils` and `app`: its folder comes first, and the folder of this file not at all
    here = str(Path(__file__).parent)
    # (tools/venv.sh puts what only ComfyUI may see into a folder of its own)
    sys.path[:] = [checkout, *(entry for entry in sys.path if entry != here), str(Path(sys.prefix) / "comfyui")]
    sys.argv = ["main.py", *arguments]
    runpy.run_path("main.py", run_name="__main__")


if __name__ == "__main__":
    main()
