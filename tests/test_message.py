"""Messages: English texts that can be translated."""

from __future__ import annotations

import copy
import pickle

import pytest

from sf_core.message import NOTHING, Message, Sentence, clauses, lines, listed, sentences

GERMAN = {
    "chunk {n} of {m}": "Block {n} von {m}",
    "{chunk}: {what}": "{what} ({chunk})",
    "{one}. {other}": "{one} | {other}",
    "{what} would fit": "{what} ginge",
}


def test_a_message_is_its_english_text() -> None:
    message = Message("chunk {n} of {m}", n=3, m=7)
    assert message == "chunk 3 of 7"
    assert f"{message}!" == "chunk 3 of 7!"
    assert not NOTHING


def test_a_translation_takes_the_same_values_and_translates_the_messages_among_them() -> None:
    chunk = Message("chunk {n} of {m}", n=3, m=7)
    assert Message("{chunk}: {what}", chunk=chunk, what="a {brace}").translated(GERMAN) == "a {brace} (Block 3 von 7)"


def test_english_stands_in_for_a_template_without_a_translation() -> None:
    message = Message("{chunk} is made", chunk=Message("chunk {n} of {m}", n=3, m=7))
    assert message.translated(GERMAN) == "Block 3 von 7 is made"


def test_a_message_without_one_of_its_values_is_refused() -> None:
    with pytest.raises(KeyError, match="m"):
        Message("chunk {n} of {m}", n=3)


def test_a_sentence_begins_with_a_capital_letter_in_each_language() -> None:
    sentence = Sentence("{what} would fit", what=Message("a window"))
    assert sentence == "A window would fit"
    assert sentence.translated(GERMAN) == "A window ginge"


def test_joined_texts_leave_out_empty_ones_and_keep_what_they_are_made_of() -> None:
    chunk = Message("chunk {n} of {m}", n=3, m=7)
    assert sentences(("", NOTHING)) == ""
    assert sentences((chunk, "", "{as it is}")) == "chunk 3 of 7. {as it is}"
    assert sentences((chunk, "{as it is}", chunk)).translated(GERMAN) == "Block 3 von 7 | {as it is} | Block 3 von 7"
    assert listed(("a", "b", "c")) == "a, b, c"
    assert clauses(("a", "b")) == "a; b"
    assert lines(("a", "b")) == "a\nb"


def test_copies_of_a_message_can_be_translated() -> None:
    message = sentences((Message("chunk {n} of {m}", n=3, m=7), "{brace}"))
    for twin in (copy.deepcopy(message), pickle.loads(pickle.dumps(message))):
        assert twin == message
        assert twin.translated(GERMAN) == "Block 3 von 7 | {brace}"
