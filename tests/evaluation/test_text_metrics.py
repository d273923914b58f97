import pytest
import sacrebleu

from transformer_jax.errors import UserError
from transformer_jax.evaluation.significance import compare_sentences
from transformer_jax.registry import resolve
from transformer_jax.tasks import TASKS
from transformer_jax.tasks.task import higher_is_better
from transformer_jax.tasks.text_metrics import (
    LOWER_IS_BETTER,
    METRICS,
    bleu,
    chrf,
    exact_match,
    tokenised_bleu,
    word_error_rate,
)

HYPOTHESES = ["The cat sat on the mat.", "it's raining, isn't it?", "An old man walks down the street."]
REFERENCES = ["The cat sat on a mat.", "It's raining today, isn't it?", "An old man walks down the street."]


def test_scores_are_those_of_sacrebleu():
    assert bleu(HYPOTHESES, REFERENCES).score == sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES]).score
    assert chrf(HYPOTHESES, REFERENCES).score == sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES]).score
    plus = sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES], word_order=2).score
    assert chrf(HYPOTHESES, REFERENCES, word_order=2).score == plus


def test_tokenised_bleu_splits_at_blanks_only():
    score = tokenised_bleu(HYPOTHESES, REFERENCES)
    assert score.score == sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES], tokenize="none", force=True).score
    assert score.score != bleu(HYPOTHESES, REFERENCES).score
    assert score.name == "tokenised_bleu"
    assert "tok:none" in score.signature


def test_signature_and_name_tell_the_settings():
    assert "tok:13a" in bleu(HYPOTHESES, REFERENCES).signature
    assert bleu(HYPOTHESES, REFERENCES).name == "bleu"
    by_character = resolve(METRICS, "bleu(tokenize='char')", "evaluate.metrics")(HYPOTHESES, REFERENCES)
    assert by_character.name == "bleu(tokenize='char')"
    assert "tok:char" in by_character.signature
    assert f"version:{sacrebleu.__version__}" in chrf(HYPOTHESES, REFERENCES).signature
    assert chrf(HYPOTHESES, REFERENCES, word_order=2).name == "chrf(word_order=2)"


def test_text_without_blanks_needs_another_tokenizer():
    hypotheses, references = ["猫が畳の上に座った。", "今日は雨です。"], ["猫は畳の上に座った。", "今日は雨だ。"]
    assert bleu(hypotheses, references, tokenize="char").score > bleu(hypotheses, references).score + 10


def test_exact_match_is_the_fraction_of_equal_lines():
    assert exact_match(HYPOTHESES, REFERENCES).score == pytest.approx(1 / 3)


@pytest.mark.parametrize("hypothesis", ["a  b", "A b", "a b.", "b a", "ab", "a b c", "a"])
def test_a_line_that_differs_in_one_character_is_no_match(hypothesis):
    assert exact_match([hypothesis, "a b"], ["a b", "a b"]).score == 0.5


def test_a_word_is_right_if_it_is_said_as_any_of_its_pronunciations():
    said = ["K AE1 T", "R IY1 D", "R IY0 D", "L AY1", ""]
    listed = ["K AE1 T", "R EH1 D | R IY1 D", "R EH1 D | R IY1 D", "L IH1 V | L AY1 V", "AH0"]
    assert word_error_rate(said, listed).score == 3 / 5
    without = word_error_rate(said, listed, stress=False)
    assert (without.score, without.name) == (2 / 5, "word_error_rate(stress=False)")
    assert word_error_rate(listed[:1], said[:1]).score == 0.0


@pytest.mark.parametrize(
    ("metric", "higher"), [("word_error_rate(stress=False)", False), ("bleu", True), ("nll", False)]
)
def test_metrics_know_their_direction(metric, higher):
    assert higher_is_better(TASKS["translation"], metric) is higher


COMPARE = [name for name in METRICS if name not in ("distinct", "unrepeated", *LOWER_IS_BETTER)]


@pytest.mark.parametrize("name", COMPARE)
def test_the_same_text_has_the_highest_score(name):
    score = METRICS[name](REFERENCES, REFERENCES)
    assert score.name == name
    assert score.score == (1.0 if name in ("exact_match", "macro_f1") else 100.0)


@pytest.mark.parametrize("name", METRICS)
def test_text_scores_as_the_file_it_is_written_to(name):
    """Predictions are lines: outer blanks do not count, and a line break within is a blank."""
    hypotheses = ["\u3000the cat sat on the mat ", "a\ndog sat there\r", "\n it rains today again"]
    references = ["the cat sat on the mat", " a dog sat there", "it rains today again"]
    assert METRICS[name](hypotheses, references).score == METRICS[name](references, references).score
    assert METRICS[name](references, hypotheses).score == METRICS[name](references, references).score


@pytest.mark.parametrize("lines", range(1, 40, 3))
def test_a_perfect_bleu_is_exactly_100(lines):
    text = [f"line {'again ' * (line % 7)}number {line} , and no other one" for line in range(lines)]
    assert [METRICS[name](text, text).score for name in ("bleu", "tokenised_bleu", "chrf")] == [100.0] * 3
    assert compare_sentences(text, text, text, samples=2).system == 100.0


@pytest.mark.parametrize("name", METRICS)
def test_unequal_numbers_of_lines_are_refused(name):
    with pytest.raises(UserError, match=r"2 hypotheses but 3 references"):
        METRICS[name](HYPOTHESES[:2], REFERENCES)


@pytest.mark.parametrize("name", METRICS)
def test_nothing_to_score_is_refused(name):
    with pytest.raises(UserError, match="nothing to score"):
        METRICS[name]([], [])


@pytest.mark.parametrize("name", METRICS)
def test_empty_lines_are_scored(name):
    assert METRICS[name](["", ""], ["a cat", "a dog"]).score == (1.0 if name in LOWER_IS_BETTER else 0.0)


def test_unknown_tokenizers_are_refused():
    with pytest.raises(UserError, match=r"tokenize='mecab'.*char"):
        bleu(HYPOTHESES, REFERENCES, tokenize="mecab")
    with pytest.raises(UserError, match="tokenised_bleu"):
        bleu(HYPOTHESES, REFERENCES, tokenize="none")


def test_a_tokenizer_that_is_not_installed_is_explained(monkeypatch):
    monkeypatch.setattr("sacrebleu.tokenizers.tokenizer_ja_mecab.MeCab", None)
    with pytest.raises(UserError, match=r"sacrebleu\[ja\]"):
        bleu(HYPOTHESES, REFERENCES, tokenize="ja-mecab")
