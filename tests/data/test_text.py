"""Running text: its windows, and what is refused."""

import gzip

import numpy as np
import pytest

from transformer_jax.config import freeze
from transformer_jax.data import EOS, check, evaluation_batches, make_dataset, make_plan
from transformer_jax.data.text import decode_text, encode_text
from transformer_jax.data.tokenizer import SymbolTokenizer
from transformer_jax.errors import UserError

TEXT = "First Citizen:\nBefore we proceed, hear me speak.\n\nAll:\nSpeak, speak.\n" * 3


def data(tmp_path, content=None, name="input.txt", **overrides):
    (tmp_path / name).write_bytes(TEXT.encode() if content is None else content)
    values = {"source": f"text(file='{name}')", "directory": str(tmp_path), "tokenizer": "characters", "max_length": 8}
    config = freeze({f"data.{field}": value for field, value in {**values, **overrides}.items()}).data
    check(config)
    return config


def test_a_training_window_begins_at_every_token_and_its_targets_are_the_tokens_after(tmp_path):
    config = data(tmp_path)
    dataset = make_dataset(config)
    tokenizer, train = dataset.assets.target, dataset.splits["train"]
    text = TEXT[: len(TEXT) - round(0.1 * len(TEXT))]
    assert len(train) == len(text) - 8
    for start in (0, 7, len(train) - 1):
        inputs, targets = (train.columns[name].rows[start].tolist() for name in ("inputs", "targets"))
        assert tokenizer.decode(inputs) == text[start : start + 8]
        assert tokenizer.decode(targets) == text[start + 1 : start + 9]
    batch = make_plan(train, config).batch_at(0, seed=0)
    np.testing.assert_array_equal(batch["inputs"][:, 1:], batch["targets"][:, :-1])


def test_each_token_of_valid_but_the_first_is_a_target_once(tmp_path):
    config = data(tmp_path)
    dataset = make_dataset(config)
    text, valid = TEXT[len(TEXT) - round(0.1 * len(TEXT)) :], dataset.splits["valid"]
    decode = dataset.assets.target.decode
    windows = [valid.columns["targets"].rows[i].tolist() for i in range(len(valid))]
    assert "".join(map(decode, windows)) == text[1:]
    assert [len(window) for window in windows[:-1]] == [8] * (len(windows) - 1)
    assert valid.texts["references"][1] == text[12:16]
    indices, batch = next(evaluation_batches(valid, config))
    real = batch["targets"][indices >= 0] != 0
    np.testing.assert_array_equal(real, batch["inputs"][indices >= 0] != 0)


def test_where_a_tokenizer_knows_no_line_break_eos_stands_for_it(tmp_path):
    config = data(tmp_path, b"a b\nc\n\nd e\n" * 20, tokenizer="words", max_length=4)
    dataset = make_dataset(config)
    first = dataset.splits["train"].columns["inputs"].rows
    (a, b, c, d, e) = dataset.assets.target.encode(["a b c d e"])[0]
    assert [*first[0].tolist(), *first[4].tolist()] == [a, b, EOS, c, EOS, EOS, d, e]


def test_subwords_of_lines_say_the_text_again(tmp_path):
    dataset = make_dataset(data(tmp_path, (TEXT * 9).encode(), tokenizer="sentencepiece(vocab_size=300)"))
    tokens = dataset.splits["train"].columns["inputs"].rows.values
    assert EOS not in tokens
    assert dataset.assets.target.decode(tokens.tolist()) == (TEXT * 9)[: len(TEXT * 9) - round(0.1 * len(TEXT * 9))]


def test_gzip_line_ends_and_a_byte_order_mark_change_nothing(tmp_path):
    plain = make_dataset(data(tmp_path))
    packed = make_dataset(data(tmp_path, gzip.compress(TEXT.encode()), "input.txt.gz"))
    windows = make_dataset(data(tmp_path, b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode(), "dos.txt"))
    assert plain.fingerprint == packed.fingerprint == windows.fingerprint
    assert make_dataset(data(tmp_path, (TEXT + "x").encode())).fingerprint != plain.fingerprint
    assert make_dataset(data(tmp_path, max_length=9)).fingerprint != plain.fingerprint


def test_a_saved_tokenizer_is_used_again(tmp_path):
    config = data(tmp_path)
    assets = make_dataset(config).assets
    longer = make_dataset(data(tmp_path, ("!" + TEXT).encode()), assets)
    assert longer.assets is assets
    assert longer.splits["train"].columns["inputs"].rows[0][0] == 1  # "!" is unknown to it


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"content": b"\xff" * 100}, ["input.txt", "invalid UTF-8 at byte 1"]),
        ({"content": b""}, ["data.tokenizer", "holds no characters"]),
        ({"content": b"too short"}, ["input.txt", "too few for a window", "data.max_length = 8"]),
        ({"content": b"no gzip", "name": "input.txt.gz"}, ["input.txt.gz", "damaged gzip"]),
        ({"source": "text(file='other.txt')"}, ["other.txt", "cannot be read"]),
        ({"source": "text(file='')"}, ["data.source", "name of a file"]),
        ({"source": "text(file='..')"}, ["cannot be read"]),
        ({"source": "text(valid=1.0)"}, ["valid=1.0"]),
        ({"source": "text(valid=0)"}, ["valid=0"]),
        ({"batching": "packed"}, ["data.batching", "length_classes"]),
    ],
)
def test_what_cannot_be_read_is_refused_in_a_sentence(tmp_path, changes, words):
    with pytest.raises(UserError) as refused:
        make_dataset(data(tmp_path, **changes))
    assert [word for word in words if word not in str(refused.value)] == []


def test_a_text_is_what_its_tokens_say():
    text = "a b\n\n c\nd"
    words, characters = (SymbolTokenizer(unit, list("abcd \n")) for unit in ("words", "characters"))
    assert decode_text(encode_text(text, characters), characters) == text
    assert decode_text(encode_text(text, words), words) == "a b\n\nc\nd"
    assert encode_text("a\n", words)[-1] == EOS
    assert EOS not in encode_text("a", words)
