"""Growth of memory and disk in a long live run: Stream Video in a real ComfyUI, watched in a real browser.

Resident memory of the server and of the browser is measured every other second; the slope is that of a line fitted to
the last two thirds. The run ends as a user ends it, after --minutes or --frames, whichever is first. With --real-time
it samples at the rate of the playback; otherwise it samples as fast as possible.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil

from sf_core import tiny
from sf_core.session.replay import replay_reach
from tools.comfyui.browser import Editor, chromium, editor
from tools.comfyui.checkout import primary
from tools.comfyui.server import Server

from .measure import ROOT, Report

WATCH = """() => {
  window.soak = { lost: 0, state: null, frames: 0, interruptions: 0 };
  app.api.addEventListener("reconnecting", () => (soak.lost += 1));
  app.api.addEventListener("self_forcing.run", ({ detail }) => (soak.state = detail));
  app.api.addEventListener("self_forcing.frames", ({ detail }) => (soak.frames += detail.frames.length));
}"""


def resident_mib(processes: list[psutil.Process]) -> float:
    """Return the resident memory of processes."""
    total = 0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total / 2**20


def browser_processes() -> list[psutil.Process]:
    """List the browser's processes, which are children of this one."""
    return [child for child in psutil.Process().children(recursive=True) if "chrom" in child.name()]


def archived_bytes(server: Server) -> int:
    """Return the size of the archive of older latents, an unnamed file."""
    sizes = []
    for link in Path(f"/proc/{server.pid}/fd").iterdir():
        with suppress(OSError):
            if re.search(r"/#\d+ \(deleted\)$|/self-forcing-", str(link.readlink())):
                sizes.append(link.stat().st_size)
    return sum(sizes)


def predicted_bytes(chunks: int) -> int:
    """Predict the size of the archive of a session."""
    model = tiny.load_transformer()
    config, size = model.rollout_config, model.latent_size
    assert config is not None
    assert size is not None
    reach = replay_reach(model.arch.num_layers, config.ring_frames, config.chunk_frames) or 0
    chunk_bytes = 4 * model.arch.in_dim * config.chunk_frames * size[0] * size[1]
    # in memory: the latents that a replay needs, the newest chunk, and the next one to be archived
    return chunk_bytes * (chunks - reach - 2)


def watch(tab: Editor, args: argparse.Namespace, report: Report) -> None:
    """Run the workflow in the editor, and add the measurements to the report."""
    server, node = tab.server, "5"
    tab.load_workflow(ROOT / "workflows" / "tiny_live.json")
    tab.set_widget(node, "seconds", 0.0 if args.real_time else 86400.0)
    tab.js(WATCH)
    run, begun = tab.press_run(), time.monotonic()
    samples: list[tuple[float, float, float]] = []
    state: dict[str, Any] = {}
    while (minutes := (time.monotonic() - begun) / 60) < args.minutes and state.get("frames", 0) < args.frames:
        samples.append((minutes, resident_mib([psutil.Process(server.pid)]), resident_mib(browser_processes())))
        time.sleep(2)
        state = tab.js("() => soak.state") or {}
    on_disk = archived_bytes(server)  # of the chunks so far, at least those that were reported
    server.post("/self_forcing/steer", {"node_id": node, "action": "stop"})
    tab.wait(run, timeout=600)
    seen: dict[str, Any] = tab.js("() => soak")
    state = seen["state"]
    report.row("minutes", [samples[-1][0]], "min")
    report.row("frames", [state["frames"]], "")
    report.row("pictures sent", [seen["frames"]], "")
    moments, *both = np.array(samples[len(samples) // 3 :]).T
    for what, memory in zip(("server", "browser"), both, strict=True):
        report.row(f"{what}'s memory after the first third", [memory[0]], "MiB")
        report.row(f"{what}'s memory at the end", [memory[-1]], "MiB")
        report.row(
            f"{what}'s slope after the first third", [float(np.polyfit(moments, memory, 1)[0])], "MiB/min", most=1.0
        )
    report.row("connections lost", [seen["lost"]], "", most=0)
    report.row("latents on disk / predicted", [on_disk / predicted_bytes(state["chunk"])], "x", least=0.99, most=1.01)
    video = state["video"]
    path = server.base / video["type"] / video["subfolder"] / video["filename"]
    with av.open(str(path)) as container:
        whole = sum(1 for _ in container.demux(video=0) if _.size)
    report.row("frames in the file / made", [whole / state["frames"]], "x", least=1.0, most=1.0)
    assert tab.errors == [], tab.errors


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="default: %(default)s")
    parser.add_argument("--frames", type=int, default=100_000, help="default: %(default)s")
    parser.add_argument("--real-time", action="store_true", help="sample at the rate of the playback")
    parser.add_argument("--mode", choices=["classic", "nodes2"], default="classic", help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    args = parser.parse_args()
    report = Report("soak_live", args)
    with (
        tempfile.TemporaryDirectory() as folder,
        Server(primary(), Path(folder), threads=args.threads) as server,
        chromium() as browser,
        editor(browser, server, args.mode) as tab,
    ):
        watch(tab, args, report)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
