"""Two systems on one test set: sacreBLEU's paired bootstrap over sentences (Koehn 2004).

It answers another question than the tests over seeds: whether these two trained models differ on other sentences, not
whether the two variants differ when trained again.
"""

import dataclasses
from collections.abc import Sequence

from sacrebleu.metrics import BLEU
from sacrebleu.significance import PairedTest, Result


@dataclasses.dataclass(frozen=True)
class SentenceBootstrap:
    """BLEU of both systems, two-sided p, and sacreBLEU's signature of metric and test."""

    base: float
    system: float
    p: float
    signature: str


def paired_sentence_bootstrap(
    base: Sequence[str], system: Sequence[str], references: Sequence[str], samples: int = 1000
) -> SentenceBootstrap:
    """Compare two lists of hypotheses, line by line, with one list of references."""
    if not len(base) == len(system) == len(references):
        raise ValueError(f"lengths differ: base {len(base)}, system {len(system)}, references {len(references)}")
    # The references belong to the metric, else sacreBLEU reads them once for each system.
    metric = BLEU(references=[list(references)])
    systems: list[tuple[str, Sequence[str]]] = [("base", base), ("system", system)]
    signatures, results = PairedTest(systems, {"BLEU": metric}, references=None, test_type="bs", n_samples=samples)()
    of_base, of_system = (result for result in results["BLEU"] if isinstance(result, Result))
    assert of_base.score is not None
    assert of_system.score is not None
    assert of_system.p_value is not None
    return SentenceBootstrap(of_base.score, of_system.score, of_system.p_value, str(signatures["BLEU"]))
