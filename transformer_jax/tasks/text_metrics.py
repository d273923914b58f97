"""Metrics of text by sacreBLEU (Post 2018, "A Call for Clarity in Reporting BLEU Scores"), with its signature.

Hypotheses and references are lines of plain text, one reference per hypothesis, in the same order. Blanks before and
after a line do not count, and a line break within it counts as a blank: text scores as the file that it is written to.
"""

import collections
import itertools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sacrebleu.metrics import BLEU, CHRF

from transformer_jax.errors import UserError
from transformer_jax.files import one_line
from transformer_jax.registry import resolve

BLEU_TOKENIZERS = ("13a", "intl", "char", "zh", "ja-mecab", "ko-mecab")
"""Tokenizers of sacreBLEU that need no download; the two mecab ones need its extras."""


@dataclass(frozen=True)
class Score:
    """A number that says how it was computed.

    Attributes:
      name: the metric, with what differs from its usual setting, such as ``"bleu(tokenize='char')"``.
      score: BLEU and chrF in 0..100, others in 0..1; higher is better, but for LOWER_IS_BETTER.
      signature: sacreBLEU's; scores of different signatures cannot be compared. Empty where the name says it all.
    """

    name: str
    score: float
    signature: str


def bleu(hypotheses: Sequence[str], references: Sequence[str], *, tokenize: str = "13a") -> Score:
    """Corpus BLEU of detokenised text, in 0..100, true case.

    Args:
      tokenize: one of `BLEU_TOKENIZERS`, applied to both sides; "char" or "ja-mecab" for Japanese, "char" or "zh" for
        Chinese.

    Raises:
      UserError: nothing to score, unequal numbers of lines, a tokenizer that does not exist or is not installed.
    """
    if tokenize not in BLEU_TOKENIZERS:
        hint = " BLEU of text that is already tokenised is called tokenised_bleu." if tokenize == "none" else ""
        raise UserError(f"bleu: unknown tokenize={tokenize!r}. Allowed: {', '.join(BLEU_TOKENIZERS)}.{hint}")
    try:
        metric = BLEU(tokenize=tokenize)
    except (ImportError, RuntimeError) as error:
        extra = tokenize.partition("-")[0]
        raise UserError(
            f"bleu: tokenize={tokenize!r} needs an extra; install sacrebleu[{extra}] or take tokenize='char'."
        ) from error
    return _corpus_score(
        "bleu" if tokenize == "13a" else f"bleu(tokenize={tokenize!r})", metric, hypotheses, references
    )


def tokenised_bleu(hypotheses: Sequence[str], references: Sequence[str]) -> Score:
    """Corpus BLEU, in 0..100, of text that was tokenised before: words are what stands between blanks.

    Depends on whoever tokenised the text; not comparable with `bleu`, hence the name.
    """
    return _corpus_score("tokenised_bleu", BLEU(tokenize="none", force=True), hypotheses, references)


def chrf(hypotheses: Sequence[str], references: Sequence[str], *, word_order: int = 0) -> Score:
    """Character n-gram F-score (Popović 2015), in 0..100; word_order=2 is chrF++."""
    if not 0 <= word_order <= 6:
        raise UserError(f"chrf: word_order={word_order} must be from 0 (chrF) to 6 (2: chrF++).")
    name = "chrf" if word_order == 0 else f"chrf(word_order={word_order})"
    return _corpus_score(name, CHRF(word_order=word_order), hypotheses, references)


def exact_match(hypotheses: Sequence[str], references: Sequence[str]) -> Score:
    """The fraction of lines, in 0..1, that equal their reference character by character, outer blanks aside."""
    hypotheses, references = _as_lines("exact_match", hypotheses, references)
    equal = sum(hypothesis == reference for hypothesis, reference in zip(hypotheses, references, strict=True))
    return Score("exact_match", equal / len(references), "")


def word_error_rate(hypotheses: Sequence[str], references: Sequence[str], *, stress: bool = True) -> Score:
    """The fraction of words, in 0..1, whose pronunciation is none of those that their line of the references lists.

    Phonemes stand between blanks, and a "|" between two pronunciations. Lower is better.

    Args:
      stress: False leaves out the digits that say how vowels are stressed, on both sides.
    """
    name = "word_error_rate" if stress else "word_error_rate(stress=False)"

    def phonemes(text: str) -> list[str]:
        return (text if stress else re.sub("[0-9]", "", text)).split()

    said, listed = _as_lines(name, hypotheses, references)
    wrong = sum(
        phonemes(text) not in [phonemes(one) for one in every.split("|")]
        for text, every in zip(said, listed, strict=True)
    )
    return Score(name, wrong / len(listed), "")


def macro_f1(hypotheses: Sequence[str], references: Sequence[str]) -> Score:
    """Lines as names of classes: the mean of F1 = 2 right / (named + true) over the classes of the references, 0..1."""
    hypotheses, references = _as_lines("macro_f1", hypotheses, references)
    named, true = collections.Counter(hypotheses), collections.Counter(references)
    right = collections.Counter(a for a, b in zip(hypotheses, references, strict=True) if a == b)
    shares = [2 * right[name] / (named[name] + true[name]) for name in true]
    return Score("macro_f1", sum(shares) / len(shares), "")


def distinct(hypotheses: Sequence[str], references: Sequence[str], *, n: int = 2) -> Score:
    """Of all sequences of n words, the share that are different, in 0..1 (distinct-n, Li et al. 2016)."""
    grams = list(itertools.chain.from_iterable(_sequences("distinct", hypotheses, references, n)))
    return Score(_named("distinct", n), len(set(grams)) / max(len(grams), 1), "")


def unrepeated(hypotheses: Sequence[str], references: Sequence[str], *, n: int = 2) -> Score:
    """Of the sequences of n words of a text, the share that are different, in 0..1: the mean over texts that have any.

    1 - seq-rep-n of Welleck et al. 2020: how much of a text does not say again what it has said before.
    """
    shares = [len(set(grams)) / len(grams) for grams in _sequences("unrepeated", hypotheses, references, n) if grams]
    return Score(_named("unrepeated", n), sum(shares) / max(len(shares), 1), "")


def _named(name: str, n: int) -> str:
    return name if n == 2 else f"{name}(n={n})"


def _sequences(name: str, hypotheses: Sequence[str], references: Sequence[str], n: int) -> list[list[tuple[str, ...]]]:
    """Of each text all n words in a row, which blanks part. The references say only how many texts there are."""
    if not 1 <= n <= 100:
        raise UserError(f"{name}: n={n} must be a whole number from 1 to 100.")
    words_of_texts = [text.split() for text in _as_lines(name, hypotheses, references)[0]]
    return [[tuple(words[i : i + n]) for i in range(len(words) - n + 1)] for words in words_of_texts]


METRICS: dict[str, Callable[..., Score]] = {
    "bleu": bleu,
    "chrf": chrf,
    "tokenised_bleu": tokenised_bleu,
    "exact_match": exact_match,
    "word_error_rate": word_error_rate,
    "macro_f1": macro_f1,
    "distinct": distinct,
    "unrepeated": unrepeated,
}
"""What `evaluate.metrics` may name; ``"bleu(tokenize='char')"`` sets a keyword."""


LOWER_IS_BETTER = ("word_error_rate",)


def check_metrics(specs: Sequence[str]) -> None:
    """Refuses metrics that do not exist, and their options, by a UserError."""
    for spec in specs:
        resolve(METRICS, spec, "evaluate.metrics")(["a"], ["a"])


def _corpus_score(name: str, metric: BLEU | CHRF, hypotheses: Sequence[str], references: Sequence[str]) -> Score:
    hypotheses, references = _as_lines(name, hypotheses, references)
    score = metric.corpus_score(hypotheses, [references]).score
    return Score(name, whole_hundred(score), str(metric.get_signature()))


def whole_hundred(score: float) -> float:
    """The score, and exactly 100 where only rounding keeps it from that."""
    return 100.0 if math.isclose(score, 100.0, rel_tol=1e-12) else float(score)


def _as_lines(name: str, hypotheses: Sequence[str], references: Sequence[str]) -> tuple[list[str], list[str]]:
    """Both sides as a file would hold them; UserError where they do not fit together."""
    if len(hypotheses) != len(references):
        raise UserError(
            f"{name}: {len(hypotheses)} hypotheses but {len(references)} references; line n of one belongs to line n "
            "of the other."
        )
    if not references:
        raise UserError(f"{name}: nothing to score; the hypotheses and references are empty.")
    as_read = [[one_line(text).strip() for text in side] for side in (hypotheses, references)]
    return as_read[0], as_read[1]


def text_metrics(specs: Sequence[str], hypotheses: list[str], references: list[str]) -> dict[str, float | str]:
    """Metrics of text (see METRICS), each with its signature where it has one."""
    metrics: dict[str, float | str] = {}
    for spec in specs:
        score = resolve(METRICS, spec, "evaluate.metrics")(hypotheses, references)
        metrics[spec] = score.score
        if score.signature:
            metrics[f"{spec}_signature"] = score.signature
    return metrics
