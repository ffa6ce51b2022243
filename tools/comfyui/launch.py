"""Start of a ComfyUI checkout in this process: `python launch.py CHECKOUT -- its arguments`.

ComfyUI imports torchvision and torchaudio. With the CPU build of torch and the CUDA builds of those two, which is what
some package indexes have, their compiled parts do not load and the import fails, although nothing here uses them. This
file makes the import succeed there, and changes nothing where the compiled parts load.
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

_libraries: list[Any] = []  # operators disappear when their library is collected


def declare_operators(extension: Any) -> None:
    """Declare two operators to which torchvision adds fake kernels on import, even if it has no real ones."""
    if extension._has_ops():
        return
    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _libraries.append(library)


def ignore_load_errors(utils: Any) -> None:
    """Make torchaudio treat compiled parts that do not load like missing ones, which are optional."""
    load: Callable[[str], bool] = utils._load_lib

    def load_if_possible(name: str) -> bool:
        try:
            return load(name)
        except OSError:
            return False

    utils._load_lib = load_if_possible


AFTER = {"torchvision.extension": declare_operators, "torchaudio._extension.utils": ignore_load_errors}


class _Patched(Loader):
    def __init__(self, inner: Loader, after: Callable[[Any], None]) -> None:
        self.inner, self.after = inner, after

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.inner.exec_module(module)
        self.after(module)


class Patches(MetaPathFinder):
    """Import hooks that patch a module at its first import: ComfyUI must import torch itself, after setting it up."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module that is to be patched."""
        spec = PathFinder.find_spec(fullname, path, target) if fullname in AFTER else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Patched(spec.loader, AFTER[fullname])
        return spec


def end_with_stdin() -> None:
    """End this process when its standard input closes, because the process that started it has ended or was killed."""
    while os.read(0, 1024):
        pass
    os._exit(1)


def main() -> None:
    """Start the checkout named on the command line."""
    if len(sys.argv) < 3 or sys.argv[2] != "--":
        raise SystemExit(__doc__)
    checkout, _, *arguments = sys.argv[1:]
    if os.environ.pop("COMFYUI_ENDS_WITH_STDIN", None):
        threading.Thread(target=end_with_stdin, daemon=True).start()
    sys.meta_path.insert(0, Patches())
    os.chdir(checkout)
    # ComfyUI has packages called `utils` and `app`: its folder comes first, the folder of this file is removed
    here = str(Path(__file__).parent)
    # (tools/venv.sh installs packages for ComfyUI alone into a separate folder)
    sys.path[:] = [checkout, *(entry for entry in sys.path if entry != here), str(Path(sys.prefix) / "comfyui")]
    sys.argv = ["main.py", *arguments]
    runpy.run_path("main.py", run_name="__main__")


if __name__ == "__main__":
    main()
