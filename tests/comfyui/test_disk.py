"""Disks that are full, folders that vanish, files that change, servers that are killed: nothing made is lost."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sf_core.session.saved_record import read_record
from tests.comfyui.graphs import BLUE, SAVE, Graph, Out, Tiny, facts, forget_all, latents, probe, temp_videos, tensor
from tests.comfyui.sessions_api import KEEP, endless, entries, folder, offered, post, save_numbers, saved
from tests.comfyui.test_interrupt import played, streaming
from tests.waiting import wait_until
from tools.comfyui.server import PromptFailed, PromptInterrupted, PromptRejected, Server


def temp(server: Server, *parts: str) -> Path:
    return server.base.joinpath("temp", "self_forcing", *parts)


@contextmanager
def replaced(path: Path, by: Path | None = None) -> Iterator[None]:
    """Put a file, or a link to the folder ``by``, in the place of a folder for a while."""
    aside = path.with_name(f"{path.name} aside")
    path.mkdir(parents=True, exist_ok=True)
    path.rename(aside)
    try:
        path.touch() if by is None else path.symlink_to(by, target_is_directory=True)
        yield
    finally:
        path.unlink()
        aside.rename(path)


def sampling(seed: int, chunks: int = 3) -> tuple[Graph, str]:
    graph = Graph()
    tiny = Tiny.of(graph)
    return graph, probe(graph, tiny.sampled(tiny.session(BLUE, seed=seed), chunks))


def test_a_run_goes_on_without_the_files_that_only_help(server: Server) -> None:
    """Stored chunks and pictures to scrub back to cannot be written: one note, and the whole video."""
    forget_all(server)
    graph = Graph()
    tiny = Tiny.of(graph)
    graph("SFStreamVideo", session=tiny.session(BLUE, seed=21), vae=tiny.vae, seconds=3.0, fps=16.0)
    before = server.log_text().count("chunks are not stored for later runs from here on")
    with replaced(temp(server, "chunks")), replaced(temp(server, "live")), server.events("disk") as events:
        server.run(graph.prompt, client_id="disk")
        events.wait_for_end()
        notes = [event.data["note"] for event in events.of("self_forcing.run")]
    assert played(temp_videos(server)[-1]) == 57
    assert any(note.startswith("chunks are not stored for later runs from here on") for note in notes)
    assert server.log_text().count("chunks are not stored for later runs from here on") == before + 1


def test_a_video_that_no_disk_holds_is_refused_before_the_work(server: Server) -> None:
    graph = Graph()
    tiny = Tiny.of(graph)
    inputs = {"model": tiny.model, "positive": tiny.text(BLUE), "width": 1024, "height": 1024, "seed": 0}
    session = graph("SFSession", **inputs)[0]
    graph("SFStreamVideo", session=session, vae=tiny.vae, seconds=86400.0, fps=240.0)
    with pytest.raises(PromptFailed, match=r"will take about .* has .* free\. Make room, .* lower 'seconds'"):
        server.run(graph.prompt)


def test_frames_are_decoded_where_no_temporary_file_can_be_written(server: Server) -> None:
    forget_all(server)
    graph = Graph()
    tiny = Tiny.of(graph)
    decoded = graph("SFDecodeChunks", session=tiny.sampled(tiny.session(BLUE, seed=28), 2), vae=tiny.vae, fps=16.0)
    number = graph("ProbeTensor", image=decoded[0]).number
    with replaced(temp(server)):
        assert tensor(server.run(graph.prompt), number).shape[0] == 21


def test_a_damaged_stored_chunk_is_made_again(server: Server) -> None:
    """Cut short, of other values, of another shape, with NaN."""
    forget_all(server)
    graph, number = sampling(22, 4)
    whole = latents(server.run(graph.prompt), number)
    cut, changed, reshaped, poisoned = stored = list(temp(server, "chunks").glob("*.safetensors"))
    cut.write_bytes(cut.read_bytes()[:-100])
    changed.write_bytes(changed.read_bytes()[:-4] + b"\0\0\0\x3f")
    save_file({"latents": load_file(reshaped)["latents"][:, :, :1].clone()}, reshaped)
    save_file({"latents": load_file(poisoned)["latents"] * float("nan")}, poisoned)
    damaged = {path: path.read_bytes() for path in stored}
    longer, number = sampling(22, 5)
    assert torch.equal(latents(server.run(longer.prompt), number)[:, :, : whole.shape[2]], whole)
    assert not [path for path, content in damaged.items() if path.read_bytes() == content]
    number = sampling(22, 4)[1]
    server.run(sampling(23, 1)[0].prompt)  # forgets the executor's results
    assert facts(server.run(graph.prompt), number)["how"].startswith("kept")


def video(seed: int, name: str) -> tuple[Graph, str, str]:
    """(a graph that saves a video, number of its saver, of its stream)."""
    graph = Graph()
    tiny = Tiny.of(graph)
    stream = graph("SFStreamVideo", session=tiny.session(BLUE, seed=seed), vae=tiny.vae, seconds=1.0, fps=16.0)
    return graph, graph("SaveVideo", video=stream[0], filename_prefix=f"video/{name}", **SAVE).number, stream.number


def test_a_video_whose_file_is_gone_is_made_again_and_load_session_stays(server: Server) -> None:
    """Somebody emptied the temporary folder of a server that runs."""
    server.run(video(24, "before")[0].prompt)
    name = saved(server, "disk/stays")
    shutil.rmtree(server.base / "temp")
    assert name in offered(server)
    assert server.get("/self_forcing/sessions")["sessions"]
    graph, saver, _ = video(24, "after")
    outputs = server.run(graph.prompt)
    assert played(server.files({saver: outputs[saver]})[0]) == 21
    runs = len(temp_videos(server))
    server.run(video(24, "once more")[0].prompt)
    assert len(temp_videos(server)) == runs  # the file is there, so the result is used


def saving(session: Out, graph: Graph, prefix: Any) -> str:
    return graph("SFSaveSession", session=session, filename_prefix=prefix).number


def test_where_a_session_cannot_be_saved_is_said_before_the_work(server: Server) -> None:
    name = saved(server, "disk/in the way")
    for prefix, words in (
        (f"sessions/{name}/deeper", "no file can be made in"),
        ("../../x", "leads out of ComfyUI's output folder"),
        ("/etc/x", "leads out of ComfyUI's output folder"),
        (f"sessions/{'画' * 80}", "is too long a name"),
        ("sessions/a\0b", "contains a character of number 0"),
        ("sessions/a\ud83d", "contains half a character"),
    ):
        graph = Graph()
        tiny = Tiny.of(graph)
        saving(tiny.sampled(tiny.session(BLUE, seed=25), 1), graph, prefix)
        with pytest.raises(PromptRejected, match=words):
            server.run(graph.prompt)


def test_a_session_that_cannot_be_saved_at_the_end_is_kept(server: Server) -> None:
    graph = Graph()
    tiny = Tiny.of(graph)
    prefix = graph("PrimitiveString", value="../../x")[0]  # known at the end only
    saving(tiny.sampled(tiny.session(BLUE, seed=26), 2), graph, prefix)
    with pytest.raises(PromptFailed, match=r"leads out of .*The session is kept: Load Session lists it as") as failure:
        server.run(graph.prompt)
    kept = failure.value.exception_message.split("lists it as '")[1].split("'")[0]
    assert read_record(temp(server, "interrupted", f"{kept}.session"))["seeds"] == [26]
    assert f"{kept}.session" in offered(server)


def test_a_linked_folder_of_sessions_is_used_and_a_file_in_its_place_is_said(server: Server, tmp_path: Path) -> None:
    with endless(server) as node:
        with replaced(folder(server), by=tmp_path):
            status, answer = post(server, KEEP, node_id=node, name="linked")
            assert (status, read_record(tmp_path / answer["name"])["batch"]) == (200, 1)
        with replaced(folder(server)):
            status, answer = post(server, KEEP, node_id=node, name="in the way")
            assert (status, "sessions" in answer["error"]) == (409, True)
            assert "SFLoadSession" in server.object_info()
        with ThreadPoolExecutor(4) as pool:  # at once, under one name
            answers = list(pool.map(lambda _: post(server, KEEP, node_id=node, name="at once")[1]["name"], range(8)))
        assert len(set(answers)) == 8
        assert all(read_record(folder(server) / name)["blocks"] for name in answers)
    assert not list(folder(server).rglob("*.part"))


def interrupted_names(server: Server) -> set[str]:
    return {one["name"] for one in entries(server) if one["kind"] == "interrupted"}


def test_interrupted_sessions_do_not_overwrite_each_other_and_survive_a_kill(server: Server) -> None:
    """The pack is loaded even when there is no folder to save sessions in."""
    forget_all(server)
    shutil.rmtree(temp(server, "interrupted"), ignore_errors=True)
    for _ in range(3):  # the same chunk, in one second or two
        forget_all(server)
        graph, stream, _ = streaming(131)
        graph.prompt[stream]["inputs"]["fps"] = 16.0 + next(save_numbers)
        with pytest.raises(PromptInterrupted):
            server.run(graph.prompt)
    names = interrupted_names(server)
    assert len(names) == 3
    forget_all(server)
    whole, number = sampling(27, 100_000)
    server.submit(whole.prompt)
    wait_until(lambda: list(temp(server, "unfinished").glob("*.session")), "a copy of the session")
    wait_until(lambda: len(list(temp(server, "chunks").glob("*.safetensors"))) >= 3, "3 chunks")
    with replaced(folder(server)):
        os.killpg(server.pid, signal.SIGKILL)
        server.restart()
        assert not server.failed_packs()
        assert interrupted_names(server) > names
        (killed,) = interrupted_names(server) - names
        assert killed.startswith("killed at chunk ")
    whole.prompt = sampling(27)[0].prompt
    assert facts(server.run(whole.prompt), number)["how"].startswith("kept")
    assert not (server.base / "temp.self_forcing").exists()
