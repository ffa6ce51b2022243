"""`comfy node validate`, which the registry runs on a pack before it takes it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tools.comfyui.find import ROOT


def test_the_registrys_own_check_has_nothing_to_say(tmp_path: Path) -> None:
    comfy = Path(sys.executable).with_name("comfy")
    home = {**os.environ, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}  # it writes settings there
    # no --json: then it says only whether it ended well
    command = [str(comfy), "--skip-prompt", "--no-enable-telemetry", "node", "validate"]
    done = subprocess.run(command, cwd=ROOT, env=home, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Validating node configuration" in done.stdout
    places = re.findall(r"--> (\S+?):\d+", done.stdout)
    shipped = [place for place in places if not place.startswith("tests/")]
    assert shipped == [], done.stdout
