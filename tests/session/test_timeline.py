"""A timeline's text says what is made, and the same timeline makes the same video from wherever it goes on."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sf_core
from sf_core.noise import MAX_SEED
from sf_core.session.frame_counts import video_frames
from sf_core.session.timeline import MAX_BLEND, Row, Timeline, format_rows, parse_rows, second_of
from tests.helpers import SIZE, prompt, random_latents, random_model

MODEL = random_model(layers=1)
CONFIG = sf_core.RolloutConfig(chunk_frames=2, window_frames=6, denoising_steps=(1000, 500))
FACTOR, FPS = 4, 16.0
CHUNK = FACTOR * CONFIG.chunk_frames / FPS  # seconds, but of the first
WORDS = {"one": prompt(1), "two": prompt(2), "three": prompt(3)}

seconds = st.integers(0, 10**8).map(lambda millionths: millionths / 10**6)
texts = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp")), max_size=20).map(str.strip)


recaches: st.SearchStrategy[bool | str] = st.sampled_from([False, True, "joint"])


@st.composite
def rows(draw: st.DrawFn) -> Row:
    cut, seed = draw(st.booleans()), draw(st.none() | st.integers(0, MAX_SEED))
    words = draw(texts.filter(bool) if not cut and seed is None else texts)
    return Row(draw(seconds), words, draw(st.integers(1, MAX_BLEND)), draw(recaches), cut, seed)


@given(st.lists(rows(), min_size=1, unique_by=lambda row: row.second))
def test_rows_are_read_as_they_are_written(made: list[Row]) -> None:
    in_order = sorted(made, key=lambda row: row.second)
    assert parse_rows(format_rows(made)) == tuple(in_order)


def test_rows_are_read_as_people_write_them() -> None:
    text = "# a comment\n\n 2.5  BLEND 3  Recache : a cat: black\n0: a dog\n4 cut :\n5 seed 12: \n"
    text += "5.5 Joint: a fox\n6 cut seed 0 : x"
    assert parse_rows(text) == (
        Row(0.0, "a dog"),
        Row(2.5, "a cat: black", blend=3, recache=True),
        Row(4.0, cut=True),
        Row(5.0, seed=12),
        Row(5.5, "a fox", recache="joint"),
        Row(6.0, "x", cut=True, seed=0),
    )


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ("1:30: a dog", Row(90, "a dog")),
        ("0:05 a cat", Row(5, "a cat")),
        ("1:02:03.5 blend 3 cut: x", Row(3723.5, "x", blend=3, cut=True)),
        ("0:07:", None),
        ("0\uff1aa cat", Row(0, "a cat")),
        ("1\uff1a30\uff1a a cat", Row(90, "a cat")),
        ("2 seed 5\uff1a", Row(2, seed=5)),
        ("\ufeff0: a cat", Row(0, "a cat")),
        ("0: a cat \ud83d", Row(0, "a cat \ufffd")),
        ("0: \ud83d\ude00", Row(0, "\U0001f600")),
        ("5: 1: a", Row(5, "1: a")),
        ("0: 30: a", Row(0, "30: a")),
        ("\uff11\uff1a\uff13\uff10 \u72d7", Row(90, "\u72d7")),
        ("1:30:5 dogs: a", Row(90, "5 dogs: a")),
        ("1:05 cut of meat", Row(65, "cut of meat")),
    ],
)
def test_times_in_minutes_and_other_keyboards_are_read(text: str, row: Row | None) -> None:
    if row is None:
        with pytest.raises(ValueError, match="expected a prompt"):
            parse_rows(text)
    else:
        assert parse_rows(text) == (row,)
    assert [row.second for row in parse_rows("0:00 a\n0:02 b")] == [0, 2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("# only this", "is empty"),
        ("a cat", "row 1 .* expected 'second: prompt'"),
        ("0: a\nb: c", "row 2 .* expected 'second: prompt'"),
        ("-1: a", "expected 'second: prompt'"),
        ("nan: a", "expected 'second: prompt'"),
        ("inf: a", "expected 'second: prompt'"),
        ("1: ", "expected a prompt"),
        ("1 blend 3:", "expected a prompt"),
        ("1: a\n1.0: b", "two rows at second 1; row 2"),
        ("1 blend: a", "'blend' is no option; known are"),
        ("1 blend 0: a", "blend of 1 to 1000"),
        ("1 blend 1001: a", "blend of 1 to 1000"),
        ("1 blend -3: a", "is no option"),
        ("1 cutter: a", "is no option"),
        (f"1 seed {MAX_SEED + 1}:", "expected a seed"),
        ("1 fade 3: a", "'fade 3' is no option"),
        ("1:60: a", "'1:60' is no time; expected m:ss, h:mm:ss or m:ss.5"),
        ("1:5: a", "'1:5' is no time; expected m:ss"),
        ("1:30:5: a", "'1:30:5' is no time"),
        ("00:00:05,000 --> 00:00:10,000", "'00:00:05,000' is no time"),
        ("1:30:00:00: a", "'1:30:00:00' is no time"),
        ("1:05 cut", "expected 'second: prompt'"),
        ("1:05 Seed 3 cut", "expected 'second: prompt'"),
    ],
)
def test_a_row_that_is_none_is_named(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_rows(text)


def start() -> sf_core.Session:
    return sf_core.Session.start(MODEL, prompt(0), SIZE, CONFIG, seed=5)


def made_by(timeline: Timeline, session: sf_core.Session, chunks: int) -> sf_core.Session:
    for _ in range(chunks):
        session, _ = timeline.steer(session, FACTOR, FPS).next_chunk()
    return session


def timeline(text: str) -> Timeline:
    return Timeline(parse_rows(text), WORDS)


def prompts_of(session: sf_core.Session) -> list[torch.Tensor]:
    assert session.head is not None
    return [block.prompt.text for block in reversed(list(session.head.back()))]


def filled(text: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(text, (0, 0, 0, max(x.shape[1] for x in WORDS.values()) - text.shape[1]))


def test_a_row_takes_effect_with_the_first_chunk_that_begins_at_its_second_or_after_it() -> None:
    session = start()
    starts = []
    for _ in range(4):
        starts.append(second_of(session, FACTOR, FPS))
        session, _ = session.next_chunk()
    assert starts == [video_frames(2 * chunk, FACTOR) / FPS for chunk in range(4)]
    for second, first in [(0, 0), (0.01, 1), (starts[2], 2), (starts[2] + 0.001, 3), (starts[2] - 0.001, 2)]:
        made = prompts_of(made_by(timeline(f"{second}: one"), start(), 4))
        changed = [chunk for chunk, text in enumerate(made) if torch.equal(text, WORDS["one"])]
        assert changed == list(range(first, 4)), second


def test_a_blend_goes_in_equal_parts_and_ends_at_the_prompt() -> None:
    made = prompts_of(made_by(timeline(f"0: one\n{CHUNK} blend 4: two"), start(), 7))
    old, new = filled(WORDS["one"]), filled(WORDS["two"])
    for chunk, share in enumerate([0, 0, 0.25, 0.5, 0.75, 1, 1]):
        torch.testing.assert_close(filled(made[chunk]), torch.lerp(old, new, share), rtol=1e-5, atol=1e-6)
    assert torch.equal(made[-1], WORDS["two"])
    assert torch.equal(made[-2], WORDS["two"])


def test_a_blend_at_the_beginning_has_nothing_to_turn_from() -> None:
    assert all(torch.equal(text, WORDS["one"]) for text in prompts_of(made_by(timeline("0 blend 3: one"), start(), 3)))


STEPS = "0: one\n0.3 blend 3: two\n0.9 cut:\n1.2 seed 9:\n1.4 blend 2 recache: three\n2: one\n2.4 cut seed 3: two"


@given(st.integers(0, 7), st.integers(0, 3))
def test_a_video_goes_on_as_it_would_have_from_any_chunk_and_after_any_rewind(stop: int, back: int) -> None:
    whole = made_by(timeline(STEPS), start(), 8)
    session = made_by(timeline(STEPS), start(), stop)
    session = session.rewind(min(back, stop))
    session = made_by(timeline(STEPS), session, 8 - session.chunks)
    assert torch.equal(session.latents, whole.latents)


def test_cuts_and_seeds_are_those_of_a_session() -> None:
    made = made_by(timeline(f"{CHUNK} cut:\n{2 * CHUNK} seed 77:"), start(), 5)
    expected = start()
    for chunk in range(5):
        expected = expected.with_cut() if chunk == 2 else expected
        expected = expected.with_seed(77) if chunk == 3 else expected
        expected, _ = expected.next_chunk()
    assert torch.equal(made.latents, expected.latents)


def test_given_pictures_come_before_the_first_row() -> None:
    session = made_by(timeline("0: one"), start().with_context(random_latents(4)), 2)
    assert all(torch.equal(text, WORDS["one"]) for text in prompts_of(session)[2:])


def test_what_is_said_again_at_the_same_second_overrides_only_what_it_says() -> None:
    line = Timeline().with_row(Row(1.0, "one", blend=3), WORDS["one"]).with_row(Row(1.0, seed=4))
    assert line.rows == (Row(1.0, "one", blend=3, seed=4),)
    line = line.with_row(Row(1.0000004, cut=True)).with_row(Row(1.0, "two"), WORDS["two"])
    assert line.rows == (Row(1.0, "two", cut=True, seed=4),)
    assert [row.second for row in line.with_row(Row(0.5, cut=True)).rows] == [0.5, 1.0]


def test_a_prompt_that_holds_already_changes_nothing() -> None:
    session = made_by(timeline("0 recache: one"), start(), 3)
    assert session.head is not None
    assert [block.event.recache for block in session.head.back()][:2] == [False, False]


def test_a_joint_row_is_a_joint_recache() -> None:
    session = made_by(timeline("0: one\n1 joint: two"), start(), 5)
    assert session.head is not None
    (event,) = [block.event for block in session.head.back() if block.event.recache]
    assert event.joint
    at = next(n for n, block in enumerate(session.blocks) if block.event.recache)
    by_hand = session.rewind(5 - at).with_prompt(WORDS["two"], recache="joint")
    for _ in range(5 - at):
        by_hand, _ = by_hand.next_chunk()
    assert torch.equal(by_hand.latents, session.latents)
