"""Called by ComfyUI before it empties its temporary folder: sets aside what a killed server left there."""

import importlib.util
from pathlib import Path

import folder_paths
from comfy.cli_args import args

_spec = importlib.util.spec_from_file_location(
    "self_forcing_leftovers", Path(__file__).parent / "nodes" / "adapters" / "leftovers.py"
)
assert _spec is not None
assert _spec.loader is not None
_leftovers = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_leftovers)

# ComfyUI obeys --temp-directory only after this script
_leftovers.set_aside(
    Path(args.temp_directory).absolute() / "temp" if args.temp_directory else Path(folder_paths.get_temp_directory())
)
