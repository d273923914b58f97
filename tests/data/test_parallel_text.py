"""Reading parallel text: what a line is, which files are taken, and a sentence for everything malformed."""

import gzip

import pytest
from corpora import make_corpus
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from transformer_jax.config import DataConfig
from transformer_jax.data import check
from transformer_jax.data.parallel_text import read_lines
from transformer_jax.errors import UserError

SENTENCES = {"train": ("a b\nc\n", "A B\nC\n"), "dev": ("d\n", "D\n"), "test": ("e\n", "E\n")}


@pytest.fixture(autouse=True)
def _no_data_root(monkeypatch):
    monkeypatch.delenv("TRANSFORMER_JAX_DATA", raising=False)


def write_corpus(directory, **replaced):
    """A small corpus; `replaced` maps file names (with "_" for ".") to bytes, or None to leave the file out."""
    directory.mkdir(exist_ok=True)
    files = {
        f"{split}.{lang}": text.encode()
        for split, side in SENTENCES.items()
        for lang, text in zip("xy", side, strict=True)
    }
    files |= {name.replace("__", "."): content for name, content in replaced.items()}
    for name, content in files.items():
        if content is not None:
            (directory / name).write_bytes(content)
    return directory


def config(directory, source="parallel_text"):
    return DataConfig(source=source, directory=str(directory), source_language="x", target_language="y")


def splits(directory, source="parallel_text"):
    return make_corpus(config(directory, source)).splits


def test_splits(tmp_path):
    made = splits(write_corpus(tmp_path))
    assert list(made) == ["train", "valid", "test"]
    assert (made["train"].sources, made["train"].references) == (["a b", "c"], ["A B", "C"])
    assert (made["valid"].sources, made["test"].references) == (["d"], ["E"])


def test_gzip_equals_plain(tmp_path):
    plain = make_corpus(config(write_corpus(tmp_path / "plain")))
    packed = gzip.compress(SENTENCES["train"][0].encode())
    zipped = make_corpus(config(write_corpus(tmp_path / "zipped", train__x=None, train__x__gz=packed)))
    assert zipped.splits == plain.splits
    assert zipped.fingerprint == plain.fingerprint


def test_fingerprint_sees_every_text(tmp_path):
    first = make_corpus(config(write_corpus(tmp_path / "a"))).fingerprint
    assert first != make_corpus(config(write_corpus(tmp_path / "b", test__y=b"F\n"))).fingerprint
    # Moving a word over a line end changes no byte count and no text but the division into lines.
    assert first != make_corpus(config(write_corpus(tmp_path / "c", train__x=b"a\nb c\n"))).fingerprint


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"a\nb", ["a", "b"]),
        (b"\xef\xbb\xbfa\n", ["a"]),
        (b"  a  b \t\n", ["a  b"]),
        (b"a\n\nb\n", ["a", "", "b"]),
        (b"", []),
        ("a\u0085b\u2028c\u2029d\x0be\x0cf\x1cg\rh\n".encode(), ["a\u0085b\u2028c\u2029d\x0be\x0cf\x1cg\rh"]),
        ("مرحبا, hello, 日本語 🚀\n".encode(), ["مرحبا, hello, 日本語 🚀"]),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_what_a_line_is(tmp_path, content, lines, suffix):
    path = tmp_path / f"file{suffix}"
    path.write_bytes(gzip.compress(content) if suffix else content)
    assert read_lines(path) == lines


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]))),
    st.sampled_from(["\n", "\r\n"]),
)
def test_any_lines_come_back(tmp_path, lines, end):
    path = tmp_path / "file"
    path.write_bytes("".join(line.strip() + end for line in lines).encode())
    # A mark at the very start of a file belongs to the encoding, not to the text.
    assert read_lines(path) == [
        line.strip().removeprefix("\ufeff" if i == 0 else "").strip() for i, line in enumerate(lines)
    ]


MALFORMED = {
    "more lines": ({"train__x": b"a\nb\nc\n"}, r"train\.x, line 3: has no partner in .*train\.y"),
    "fewer lines": ({"train__x": b"a\n"}, r"train\.y, line 2: has no partner in .*train\.x"),
    "empty file": ({"dev__y": b""}, r"dev\.y: the file is empty"),
    "only blank lines": ({"dev__y": b" \n\n"}, r"dev\.y: the file is empty"),
    "invalid UTF-8": ({"train__y": b"A\nB\xff\n"}, r"train\.y, line 2: invalid UTF-8 at byte 2"),
    "latin-1": ({"train__y": "Ä\nB\n".encode("latin-1")}, r"train\.y, line 1: invalid UTF-8"),
    "UTF-16": ({"train__y": "A\nB\n".encode("utf-16")}, r"train\.y, line 1: invalid UTF-8"),
    "no gzip": ({"train__x": None, "train__x__gz": b"a\nb\n"}, r"train\.x\.gz, line 1: damaged gzip"),
    "gzip cut off": (
        {"train__x": None, "train__x__gz": gzip.compress(b"a b\nc\n")[:-9]},
        r"train\.x\.gz, line \d: damaged gzip",
    ),
    "gzip checksum": (
        {"train__x": None, "train__x__gz": gzip.compress(b"a b\nc\n")[:-8] + bytes(8)},
        r"train\.x\.gz, line \d: damaged",
    ),
    "no train": ({"train__x": None, "train__y": None}, r"train\.x .*is missing"),
    "half of train": ({"train__y": None}, r"train\.y .*is missing"),
    "no validation": ({"dev__x": None}, r"no validation split; looked for val\.x"),
    "two validations": ({"val__x": b"d\n", "val__y": b"D\n"}, "several validation splits, val, dev"),
    "half of test": ({"test__y": None}, r"test\.y .*is missing"),
    "two tests": ({"test2__x": b"e\n", "test2__y": b"E\n"}, "several test splits, test, test2; choose one"),
    "no usable pair": ({"train__x": b"a\n\n", "train__y": b"\nB\n"}, "the split 'train' has no sentence pair"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_corpus_is_refused_in_a_sentence(tmp_path, case):
    replaced, says = MALFORMED[case]
    with pytest.raises(UserError, match=says) as refused:
        splits(write_corpus(tmp_path, **replaced))
    assert "\n" not in str(refused.value)


def test_choice_of_the_test_split(tmp_path):
    write_corpus(tmp_path, test2__x=b"f\n", test2__y=b"F\n", test3__x=b"half\n")
    assert splits(tmp_path, 'parallel_text(test="test2")')["test"].sources == ["f"]
    with pytest.raises(UserError, match=r"test3\.y"):
        splits(tmp_path, 'parallel_text(test="test3")')
    none = write_corpus(tmp_path / "none", test__x=None, test__y=None)
    assert list(splits(none)) == ["train", "valid"]


def test_pairs_with_an_empty_side(tmp_path):
    write_corpus(tmp_path, train__x=b"a\n\nc\n", train__y=b"A\nB\n \n", dev__x=b"\nd\n", dev__y=b"D\n\n")
    corpus = make_corpus(config(tmp_path))
    assert corpus.splits["train"].sources == ["a"]
    assert corpus.dropped_empty == 2
    assert corpus.splits["valid"].sources == ["", "d"]  # kept: a score is over every pair


def test_where_a_directory_is_looked_up(tmp_path, monkeypatch):
    write_corpus(tmp_path / "corpus")
    relative = DataConfig(directory="corpus", source_language="x", target_language="y")
    with pytest.raises(UserError, match=r"no directory corpus.*TRANSFORMER_JAX_DATA"):
        make_corpus(relative)
    with pytest.raises(UserError, match=r"data\.directory is not set"):
        make_corpus(DataConfig())
    monkeypatch.setenv("TRANSFORMER_JAX_DATA", str(tmp_path))
    assert make_corpus(relative).splits["valid"].sources == ["d"]
    monkeypatch.setenv("TRANSFORMER_JAX_DATA", str(tmp_path / "corpus"))
    unset = DataConfig(source_language="x", target_language="y")
    assert make_corpus(unset).splits["valid"].sources == ["d"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"target_language": "en"}, "both 'en'"),
        ({"source": "parallel_texts"}, "did you mean 'parallel_text'"),
        ({"source": "parallel_text(test=3)"}, "test=3"),
        ({"source": 'parallel_text(tset="a")'}, "did you mean 'test'"),
    ],
)
def test_check_refuses_without_a_corpus(changes, says):
    with pytest.raises(UserError, match=says):
        check(DataConfig(**changes))
