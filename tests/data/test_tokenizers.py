"""Text to ids and back, saved and loaded."""

import itertools
import json
import pickle

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer_jax.config import DataConfig
from transformer_jax.data import BOS, EOS, NUM_SPECIALS, PAD, UNK, TextSplit, TokenizerPair, check
from transformer_jax.data.tokenizers import load_tokenizer, resolve_tokenizer, train_tokenizers
from transformer_jax.errors import UserError

ANIMALS = {"the cat": "die Katze", "a dog": "ein Hund", "my horse": "mein Pferd", "the mouse": "die Maus"}
VERBS = {"sat quietly": "saß ruhig", "ran quickly": "lief schnell", "was sleeping": "schlief", "jumped": "sprang"}
PLACES = {"on the mat": "auf der Matte", "in the garden": "im Garten", "over the bridge": "über die Brücke"}
TRAIN = TextSplit(
    [" ".join(words) for words in itertools.product(ANIMALS, VERBS, PLACES)],
    [" ".join(words) for words in itertools.product(ANIMALS.values(), VERBS.values(), PLACES.values())],
)
SPECS = [
    "sentencepiece(vocab_size=300)",
    'sentencepiece(vocab_size=300, model_type="unigram")',
    "words",
    "characters",
]
ODD_TEXTS = [
    "",
    "  two  blanks ",
    "漢字かな交じり文、東京。",
    "🚀 👩‍👩‍👧 ﬁ é e\u0301",
    "שלום, مرحبا and hello",
    "<s> </s> <pad> <unk> <0x41>",
    "a\u0085b\u2028c\td\u00a0e\u3000f",
    "\x00",
]


def train(spec, joint=True, split=TRAIN):
    return train_tokenizers(DataConfig(tokenizer=spec, joint_vocabulary=joint), split)


@pytest.mark.parametrize("spec", SPECS)
def test_training_text_comes_back(spec):
    tokenizer = train(spec).source
    texts = TRAIN.sources + TRAIN.references
    encoded = tokenizer.encode(texts)
    assert [tokenizer.decode(ids) for ids in encoded] == texts
    assert all(NUM_SPECIALS <= token < tokenizer.vocab_size for ids in encoded for token in ids)


@pytest.mark.parametrize("spec", SPECS[:2])
@pytest.mark.parametrize("text", ODD_TEXTS)
def test_subwords_give_back_any_text(spec, text):
    tokenizer = train(spec).source
    (ids,) = tokenizer.encode([text])
    assert tokenizer.decode(ids) == text
    assert not set(ids) & {PAD, UNK, BOS, EOS}


@settings(max_examples=100)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581")))
def test_subwords_give_back_generated_text(text):
    tokenizer = train(SPECS[0]).source
    assert tokenizer.decode(tokenizer.encode([text])[0]) == text


@pytest.mark.parametrize("spec", SPECS)
def test_decoding_stops_at_eos_and_skips_padding(spec):
    tokenizer = train(spec).source
    (ids,) = tokenizer.encode(["the cat"])
    assert tokenizer.decode([BOS, *ids, PAD, EOS, *ids]) == "the cat"
    assert tokenizer.decode([EOS]) == tokenizer.decode([]) == ""
    beyond = tokenizer.decode([*ids, tokenizer.vocab_size + 5])  # of a model whose table is larger
    assert beyond.startswith("the cat")
    assert beyond != "the cat"


@pytest.mark.parametrize("spec", SPECS)
def test_same_text_same_bytes(spec):
    assert train(spec).fingerprint == train(spec).fingerprint
    other = TextSplit(TRAIN.sources, [text.replace("K", "Q") for text in TRAIN.references])
    assert train(spec).fingerprint != train(spec, split=other).fingerprint


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("spec", SPECS)
def test_saved_and_loaded(tmp_path, spec, joint):
    pair = train(spec if joint else spec.replace("300", "290"), joint)  # half the text gives fewer pieces
    pair.save(tmp_path)
    loaded = TokenizerPair.load(tmp_path)
    assert pair.is_joint == loaded.is_joint == joint
    assert loaded.fingerprint == pair.fingerprint
    assert loaded.target.vocab_size == pair.target.vocab_size
    assert loaded.source.encode(TRAIN.sources) == pair.source.encode(TRAIN.sources)
    assert loaded.target.encode(TRAIN.references) == pair.target.encode(TRAIN.references)
    assert len(list(tmp_path.iterdir())) == (1 if joint else 2)  # no temporary file stays


def test_words_and_characters_count_the_specials():
    words = train("words", joint=False).source
    assert words.vocab_size == NUM_SPECIALS + len({word for text in TRAIN.sources for word in text.split()})
    assert words.encode(["the zebra"]) == [[NUM_SPECIALS, UNK]]  # the most frequent word comes first
    assert words.decode([NUM_SPECIALS, UNK]) == "the <unk>"
    assert train("characters").source.decode([UNK]) == "\ufffd"
    common = train("words(min_count=13)", joint=False).source  # every place stands in 16 sentences, every animal in 12
    assert sorted(common.symbols) == sorted(["the", "on", "mat", "in", "garden", "over", "bridge"])
    assert train("sentencepiece(vocab_size=300)").source.vocab_size == 300


def test_symbols_are_in_order_of_frequency_then_code_point():
    assert train("words", split=TextSplit(["d b a a"], ["c"])).source.symbols == ["a", "b", "c", "d"]


def test_words_spelt_like_specials_are_words():
    specials = TextSplit(["<pad> </s> <s> <unk>"], ["x"])
    tokenizer = train("words", split=specials).source
    (ids,) = tokenizer.encode(specials.sources)
    assert min(ids) >= NUM_SPECIALS
    assert tokenizer.decode(ids) == specials.sources[0]


@pytest.mark.parametrize(
    ("text", "left_out"),
    [("é" * 2096, 0), ("é" * 2096 + "e", 1), ("e" * 4192, 0), ("e" * 4193, 1), ("é \u2585", 1), ("é \u2584", 0)],
)
def test_what_sentencepiece_leaves_out_is_counted(text, left_out):
    """As many as are missing: the letter é is a piece of its own where the text was trained on."""
    trainer = resolve_tokenizer(DataConfig(tokenizer="sentencepiece(vocab_size=280)"))
    few = ["a b c d e f g h i j k l m n o p"] * 3
    assert trainer.left_out([*few, text]) == left_out
    pieces = trainer.train([*few, text])._processor
    assert pieces.is_unknown(pieces.piece_to_id("é")) == (left_out == 1) or "é" not in text
    assert resolve_tokenizer(DataConfig(tokenizer="words")).left_out([text]) == 0


def test_text_of_which_all_is_left_out_is_refused():
    with pytest.raises(
        UserError, match="no line of the training text can be used; SentencePiece leaves out what is long"
    ):
        train("sentencepiece(vocab_size=280)", split=TextSplit(["e" * 5000], ["\u2585"]))


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_vocabulary_size_that_the_text_cannot_give(model_type):
    with pytest.raises(UserError, match=r"largest possible vocab_size is (\d+)") as refused:
        train(f"sentencepiece(vocab_size=9000, model_type={model_type!r})")
    largest = int(str(refused.value).split("vocab_size is ")[1].rstrip("."))
    assert train(f"sentencepiece(vocab_size={largest}, model_type={model_type!r})").source.vocab_size == largest
    with pytest.raises(UserError, match=r"too small; the characters .* need"):
        train(f"sentencepiece(vocab_size=261, model_type={model_type!r})")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("sentencepiece(vocab_size=260)", "above 260"),
        ('sentencepiece(model_type="word")', "allowed: bpe, unigram"),
        ("words(min_count=0)", "at least 1"),
        ("word", "did you mean 'words'"),
        ("characters(min_count=2)", "takes no 'min_count'"),
    ],
)
def test_check_refuses_options(spec, says):
    with pytest.raises(UserError, match=says):
        check(DataConfig(tokenizer=spec))


def test_min_count_that_leaves_nothing():
    with pytest.raises(UserError, match="lower min_count"):
        train("words(min_count=100)")


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("a saved tokenizer was executed",)


JSON_SYMBOLS = {"unit": "words", "symbols": ["a"]}


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe nonsense",
        pickle.dumps(Bomb()),
        b"[1, 2]",
        b"[" * 100_000,
        json.dumps(JSON_SYMBOLS | {"unit": "bytes"}).encode(),
        json.dumps(JSON_SYMBOLS | {"symbols": "abc"}).encode(),
        json.dumps(JSON_SYMBOLS | {"symbols": [1]}).encode(),
        json.dumps(JSON_SYMBOLS | {"symbols": ["a", "a"]}).encode(),
    ],
    ids=range(9),
)
def test_malformed_file_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name):
        TokenizerPair.load(tmp_path)


def test_empty_subword_file_is_called_empty(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"")
    with pytest.raises(UserError, match=r"\(empty\)"):
        TokenizerPair.load(tmp_path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(UserError, match="no saved tokenizer"):
        TokenizerPair.load(tmp_path)
    with pytest.raises(UserError, match=r"tokenizer\.json: cannot be read"):
        load_tokenizer(tmp_path / "tokenizer.json")


def test_foreign_sentencepiece_model_is_refused(tmp_path):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TRAIN.sources), model_prefix=str(tmp_path / "tokenizer"), vocab_size=34, minloglevel=2
    )
    with pytest.raises(UserError, match="special ids"):
        TokenizerPair.load(tmp_path)
