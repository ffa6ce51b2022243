"""Promises about the project itself."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import sf_core

ROOT = Path(__file__).parents[2]
CORE = sorted((ROOT / "sf_core").rglob("*.py"))
HOST_MODULES = {"comfy", "comfy_api", "comfy_extras", "comfy_execution", "folder_paths", "server", "nodes", "execution"}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", CORE, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_core_imports_nothing_of_comfyui(path: Path) -> None:
    assert not imported(path) & HOST_MODULES


def test_a_session_needs_only_torch_safetensors_and_einops() -> None:
    code = (
        "import sys, sf_core; third = {m.split('.')[0] for m in sys.modules};"
        "print(sorted(third & {'av', 'PIL', 'transformers', 'flash_attn', 'comfy', 'hypothesis'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_rollout_and_losses_need_no_packages_of_the_trainer() -> None:
    """As in `import sf_core; from sf_core.training import rollout, DMD`; only `Trainer` and recipes need pydantic."""
    blocked = ["pydantic", "matplotlib", "tensorboard", "transformers", "sentencepiece", "av", "PIL"]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked})); "
        "import sf_core; from sf_core.training import rollout, DMD; print(callable(rollout))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "True", done.stderr


def test_no_module_is_shadowed_by_a_name_of_its_package() -> None:
    """`import sf_core.a.b` gives the module `b`, never a function that the package exports under that name."""
    packages = [
        "sf_core",
        *(found.name for found in pkgutil.walk_packages(sf_core.__path__, "sf_core.") if found.ispkg),
    ]
    assert "sf_core.training.losses" in packages
    for name in packages:
        package = importlib.import_module(name)
        for module in pkgutil.iter_modules(package.__path__):
            if module.name != "__main__":
                importlib.import_module(f"{name}.{module.name}")
                assert getattr(package, module.name) is sys.modules[f"{name}.{module.name}"]
