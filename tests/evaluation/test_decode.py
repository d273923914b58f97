"""The whole path from source to output text, against the model's own teacher-forced logits.

The logits have a bias that forbids the special tokens, so that a text tells the ids it was made of.
"""

import functools
import re

import jax
import numpy as np
import pytest
import tiny

from transformer_jax.config import replace
from transformer_jax.data import BOS, EOS, PAD, TokenizerPair, encode_pairs
from transformer_jax.data.tokenizer import SymbolTokenizer
from transformer_jax.evaluation import evaluator as evaluator_module
from transformer_jax.evaluation.evaluator import Evaluator, Trained
from transformer_jax.evaluation.relay import untils
from transformer_jax.parallel.layout import make_layout
from transformer_jax.tasks.translation import Translations
from transformer_jax.training.state import lanes_of
from transformer_jax.vocabulary import UNK

TOKENIZER = SymbolTokenizer("words", list("abcdefg"))
EXTRA = 3
CONFIG = {
    "model.embedding.output_bias": True,
    "model.embedding.tying": "none",
    "data.tokens_per_batch": 128,
    "decode.max_extra_length": EXTRA,
}
SOURCES = ["a b c d e", "g", "c c", "f a d", "b e g a"]


ENDS, NEVER_ENDS = -1.0, -1e4
"""The bias of EOS in the logits."""


@functools.cache
def params(end):
    """Random ones, of a model that looks at its source and at what it has written."""
    bias = np.zeros(11, np.float32)
    bias[[UNK, BOS]], bias[EOS] = NEVER_ENDS, end

    def value(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name.endswith("norm/bias"):
            return 0 * leaf
        return 2 * leaf if re.search("attention|(source|target)_embedding", name) else leaf

    random = tiny.params(tiny.config(CONFIG), seed=3)
    return {**jax.tree_util.tree_map_with_path(value, random), "output_bias": {"bias": bias}}


@functools.cache
def evaluator(**decode):
    config = tiny.config({**CONFIG, **{f"decode.{name}": value for name, value in decode.items()}})
    return config, Evaluator(config, TokenizerPair(TOKENIZER, TOKENIZER), make_layout(config))


def written(sources, num_results=1, end=ENDS, **decode):
    """The best texts of each source, with their scores."""
    config, made = evaluator(**decode)
    tokenizers, output = TokenizerPair(TOKENIZER, TOKENIZER), Translations(num_results)
    split = encode_pairs(sources, [""] * len(sources), config.data, tokenizers)
    trained = Trained(jax.tree.map(lambda leaf: leaf[None], params(end)), lanes_of([config]))
    predicted = made.rows(made.compile(output.predict), trained, split)
    return output.ranked({name: values[0] for name, values in predicted.items()}, tokenizers)


def texts(found):
    return [best[0][0] for best in found]


def limit(source):
    """Tokens: those of the source and EXTRA more, both with EOS."""
    return len(source.split()) + 1 + EXTRA


def log_probs(pairs):
    """For (source, text) pairs: the ids of each text, and float[T, C] what the model says of each of its places."""
    sources = [[*ids, EOS] for ids in TOKENIZER.encode([source for source, _ in pairs])]
    targets = TOKENIZER.encode([text for _, text in pairs])
    targets = [t if len(t) == len(s) + EXTRA else [*t, EOS] for s, t in zip(sources, targets, strict=True)]
    inputs, outputs = np.full((2, len(pairs), 16), PAD, np.int32)
    for row, (source, target) in enumerate(zip(sources, targets, strict=True)):
        inputs[row, : len(source)], outputs[row, : len(target)] = source, target
    logits = tiny.logits(tiny.config(CONFIG), params(ENDS), {"inputs": inputs, "targets": outputs}).astype(np.float64)
    found = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return [(target, found[row, : len(target)]) for row, target in enumerate(targets)]


def total(target, log_probs_TC):
    return log_probs_TC[np.arange(len(target)), target].sum()


@pytest.mark.parametrize("alpha", [0.6, 4.0])
def test_every_score_of_a_beam_is_the_models_own_over_the_length_penalty(alpha):
    """Sources that are unlike stand in one batch: each hypothesis is scored by its own source."""
    found = written(SOURCES, num_results=3, alpha=alpha)
    assert [len(best) for best in found] == [3] * len(SOURCES)
    pairs = [(source, text) for source, best in zip(SOURCES, found, strict=True) for text, _ in best]
    assert len({text for _, text in pairs}) > 5
    expected = [total(*each) / ((5 + len(each[0])) / 6) ** alpha for each in log_probs(pairs)]
    np.testing.assert_allclose([score for best in found for _, score in best], expected, rtol=1e-4)


def test_alpha_chooses_between_short_and_long():
    short, long = (texts(written(SOURCES, num_results=3, alpha=alpha)) for alpha in (0.6, 4.0))
    assert short != long
    assert all(len(a) <= len(b) for a, b in zip(short, long, strict=True))


def test_a_wider_beam_finds_what_is_more_probable_than_the_greedy_choice():
    beam, greedy = (written(SOURCES, **d) for d in ({"alpha": 0.0}, {"strategy": "greedy"}))
    better = [a[0][1] - b[0][1] for a, b in zip(beam, greedy, strict=True)]
    assert max(better) > 1e-3


def test_a_source_is_translated_in_a_batch_as_alone():
    together = written(SOURCES, num_results=3, alpha=0.6)
    for source, expected in zip(SOURCES, together, strict=True):
        (alone,) = written([source], num_results=3, alpha=0.6)
        assert [text for text, _ in alone] == [text for text, _ in expected]
        np.testing.assert_allclose([s for _, s in alone], [s for _, s in expected], rtol=1e-5)


def test_greedy_takes_the_most_probable_token_at_every_place():
    found = written(SOURCES, strategy="greedy")
    pairs = list(zip(SOURCES, texts(found), strict=True))
    assert len(set(texts(found))) > 2
    for (target, log_probs_TC), ((_, score),) in zip(log_probs(pairs), found, strict=True):
        assert (log_probs_TC[:, PAD + 1 :].argmax(-1) + PAD + 1).tolist() == target
        assert score == pytest.approx(total(target, log_probs_TC), rel=1e-4)


@pytest.mark.parametrize("decode", [{"alpha": 0.6}, {"strategy": "greedy"}, {"strategy": "sample"}], ids=str)
def test_an_output_that_does_not_end_is_as_long_as_it_may_be(decode):
    found = texts(written(SOURCES, end=NEVER_ENDS, **decode))
    assert [len(text.split()) for text in found] == [limit(source) for source in SOURCES]


def test_options_of_sampling_reach_it():
    greedy = texts(written(SOURCES, strategy="greedy"))
    for options in ("top_k=1, temperature=9.0", "temperature=1e-4"):
        assert texts(written(SOURCES, strategy=f"sample({options})")) == greedy
    for options in ("temperature=9.0", "top_k=3, temperature=9.0"):
        assert texts(written(SOURCES, strategy=f"sample({options})")) != greedy


# --- In parts: examples that are done leave their batch ---

MANY = [" ".join(np.random.default_rng(n).choice(list("abcdefg"), 1 + n * 7 % 15)) for n in range(30)]
"""Of up to 15 words: four batches of 8."""
PARTS = {"decode.max_extra_length": 14}
"""So that an output of up to 30 tokens, begun with 16, is resumed till 24 and till 30."""


@pytest.mark.parametrize("strategy", ["beam", "greedy", "sample(temperature=2.0)"])
def test_in_parts_the_same_is_written_as_at_once(strategy, monkeypatch):
    """By two lanes, of which one never ends and the other here and there: their examples are gathered apart."""
    config = tiny.config({**CONFIG, **PARTS, "decode.strategy": strategy})
    tokenizers = TokenizerPair(TOKENIZER, TOKENIZER)
    split = encode_pairs(MANY, [""] * len(MANY), config.data, tokenizers)
    made = Evaluator(config, tokenizers, make_layout(config, lanes=2))
    of_lanes = jax.tree.map(lambda *leaves: np.stack(leaves), params(-4.0), params(NEVER_ENDS))
    trained = Trained(of_lanes, lanes_of([config, replace(config, {"seed": 1})]))
    in_parts = made.predictor(Translations(2))(trained, split)
    monkeypatch.setattr(evaluator_module, "FEWEST_BATCHES", 100)
    at_once = made.predictor(Translations(2))(trained, split)
    np.testing.assert_array_equal(in_parts["tokens_BNT"], at_once["tokens_BNT"])
    for name in ("scores_BN", "log_probs_BN", "lengths_BN"):
        np.testing.assert_allclose(in_parts[name], at_once[name], rtol=1e-5)
    first, second = in_parts["lengths_BN"][:, :, 0]
    assert list(second) == [len(source.split()) + 1 + 14 for source in MANY]
    assert [np.any((low < first) & (first <= high)) for low, high in ((0, 16), (16, 24), (24, 30))] == [True] * 3


def test_when_examples_are_gathered_again():
    assert list(untils(16, 66)) == [24, 36, 54, 66]
    assert list(untils(1, 4)) == [2, 3, 4]
    assert list(untils(16, 16)) == []
