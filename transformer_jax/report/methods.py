"""How the statistics of a report were made, in words: what a reader needs to judge them."""

from transformer_jax.report.results import Sweep
from transformer_jax.report.statistics import LEVEL
from transformer_jax.report.wording import Units, count

TEST_NAMES = {"paired": "paired t test", "welch": "Welch's t test"}
TESTS_IN_WORDS = {
    "paired": "The test of a difference is the two-sided paired t test: row minus base, seed by seed. It holds its "
    "level however much of the seeds' luck the rows share, and whatever their spreads, for normal differences.",
    "welch": "The test of a difference is Welch's two-sided t test, in which the seeds of both rows are independent "
    "samples, for other data had shown hardly any correlation between them.",
}


def methods(sweep: Sweep, units: Units) -> list[str]:
    """Paragraphs."""
    return [" ".join(_tests(sweep, units)), " ".join(_corrections(sweep)), " ".join(_limits(sweep, units))]


def _tests(sweep: Sweep, units: Units) -> list[str]:
    said = [
        "All rows are trained with the same seeds; a comparison uses the seeds finished in both rows.",
        "Mean ± sd is the sample standard deviation over seeds.",
        TESTS_IN_WORDS[sweep.test],
        "Which test is used was declared with the experiment, before its runs; the correlation over seeds is printed "
        "and chooses nothing here.",
    ]
    if sweep.margin is None:
        said.append("No margin was declared within which rows count as equal, so nothing is called equal.")
    else:
        said.append(
            f"Rows are called equal where two one-sided t tests (Schuirmann 1987) show the true difference to be less "
            f"than the declared margin of {units.amount(sweep.margin)} in both directions."
        )
    said.append("What is neither seen to differ nor shown to be equal is open: that is not evidence of equality.")
    return said


def _corrections(sweep: Sweep) -> list[str]:
    if sweep.family_size:
        family = f"a family of {count(sweep.family_size, 'comparison')}, of which some stand in other reports"
    else:
        family = "all comparisons of this report"
    said = [
        f"p is corrected by Holm's method over {family}, separately for differences and for equality: each of the two "
        f"kinds of statement is wrong somewhere in the family with a chance of at most {LEVEL:.0%}.".replace("%", " %"),
    ]
    if sweep.rounds:
        looks = len(sweep.rounds)
        said.append(
            f"The sweep was looked at after {', '.join(map(str, sweep.rounds))} seeds, and rows that were settled got "
            f"no more; every p is therefore multiplied by {looks}, the number of looks (Bonferroni), and every "
            f"interval of the sweep's metric is one of {100 * (1 - LEVEL / looks):.2f} %, so that it covers the truth "
            "at all looks together with 95 %. A row that stopped early because it differed tends to show too large a "
            "difference."
        )
    said.append("The intervals are not corrected for the number of comparisons.")
    return said


def _limits(sweep: Sweep, units: Units) -> list[str]:
    said = [
        "All other metrics are exploratory: their intervals are uncorrected, and no verdict is given on them. From 6 "
        "seeds the exact sign-flip permutation test and, from 10 seeds, a BCa bootstrap of the paired differences "
        "stand beside the t test, uncorrected.",
        "Effect size is the mean difference over the standard deviation of one seed's difference. “Seeds to settle” "
        "gives 80 % power (noncentral t, at the level that is left for each open comparison) if difference and spread "
        "are as seen here; from few seeds it is a rough guide.",
        "No test of means is valid where a row fails with some seeds and none of these has been drawn: with 3 seeds "
        "a failure that befalls 1 of 5 is missed every second time.",
    ]
    if sweep.failing is not None:
        side = "below" if sweep.higher_is_better else "above"
        said.append(
            f"A seed has failed that ends {side} {units.value(sweep.failing)}{' %' if sweep.percent else ''}, as was "
            "declared, or diverged; the interval of their share is exact (Clopper and Pearson 1934)."
        )
    return said
