"""The recorded cases that ship with the pack, for ``python -m sf_core verify``.

`python -m tools.assets.verification_cases` plays each case in float32 on a CPU, with one thread, and writes
sf_core/verification/cases.safetensors. Before that it plays the recorded runs of the authors' own code (tests/parity)
with this very code, and refuses to record anything if one of them is off.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

import sf_core
from sf_core.verification.cases import FILE, Case, cases
from sf_core.verification.checks import relative_distance
from tests import families, helpers, longlive2

LIMIT = 5e-6  # of the distance to the authors' code
SELF_FORCING = ("causal_chunk", "rolling_sink0")
# runs of the authors' code by the name of a case; a name of tests/families, of tests/parity or of LongLive 2
AUTHORS = {
    "SGF+": ("sgfplus_chunk", "sgfplus_i2v"),
    "SGF+, frame-wise": ("sgfplus_frame",),
    "SGF": ("sgf_chunk",),
    "SGF, frame-wise": ("sgf_frame",),
    "Rolling Forcing": ("rolling_5",),
    "Causal Forcing, long video": ("rolling_4",),
    "Causal Forcing, frame-wise": ("causal_framewise",),
    "CausVid": ("causal_nowarp",),
    "Causal Forcing, chunk-wise": SELF_FORCING,
    "Self Forcing, web demo (shift 8)": SELF_FORCING,
    "Causal-rCM, c3-3, 4 steps": ("rcm_c3_step4",),
    "Causal-rCM, c1-1, 2 steps": ("rcm_c1_step2",),
    "Causal-rCM, c1-1, 2 steps, noisy context": ("rcm_c1_step2_noisyctx",),
    "LongLive": ("longlive_chunk", "longlive_switch"),
    "LongLive, infinite attention": ("longlive_infinity",),
    "LongLive 2": ("longlive2_t2v", "longlive2_shots"),
    "Reward Forcing": ("reward_chunk",),
    "Infinite-Forcing": ("infinite_chunk",),
    "Krea Realtime 14B": ("krea_t2v", "krea_prompt"),
    "MemFlow": ("memflow",),
    "flashdreams": ("sink5_window7_rerope",),
}


def authors_distance(run: str) -> float:
    """Play a recorded run of the authors' own code, and return the relative L2 distance of all latents."""
    if run in families.CASES:
        ours = families.play(families.start(run), run, families.acts_of(run)).latents
        return relative_distance(ours, families.recorded(run))
    if run in longlive2.CASES:
        return relative_distance(longlive2.play(longlive2.begin(run), run).latents, longlive2.recorded(run))
    session, tensors, chunks = helpers.golden_session(run)
    for _ in range(chunks):
        session, _ = session.next_chunk()
    return relative_distance(session.latents, tensors["latents"].transpose(1, 2))


def play(case: Case) -> torch.Tensor:
    """Play a case in float32 on a CPU."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.safetensors"
        case.write_model(path)
        return case.play(sf_core.load_model(path))


def main() -> None:
    """Record all cases. Raises ValueError if the pack is off the authors' code."""
    torch.set_num_threads(1)
    latents, metadata = {}, {}
    for case in cases():
        distances = {run: authors_distance(run) for run in AUTHORS.get(case.name, ())}
        if off := {run: distance for run, distance in distances.items() if not distance <= LIMIT}:
            raise ValueError(f"the pack is off the authors' code, so nothing is recorded: {off}")
        latents[case.name] = play(case)
        authors = float(f"{max(distances.values()):.1e}") if distances else None
        metadata[case.name] = json.dumps({"authors": authors, "runs": list(distances)})
        print(f"{case.name:44}{case.chunks:3} chunks  {authors or 'no run of the authors'}", flush=True)
    save_file(latents, FILE, metadata)
    print(f"{FILE.name}: {FILE.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
