"""Fair rows: what each row is worth at a learning rate of its own.

A row that wants another learning rate than the base loses by the setting, not by what it changes. So every row, the
base among them, is trained at a few rates around the base's, with the same budget for all, and judged on the validation
split with seeds that no sweep has. The sweep then has each row twice: at the base's setting, and at its own.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from transformer_jax.config import replace
from transformer_jax.errors import UserError
from transformer_jax.sweeps.experiment import Experiment, Scale, Variant, judged_by
from transformer_jax.sweeps.planning import plan_sweep
from transformer_jax.sweeps.runner import run_sweep
from transformer_jax.sweeps.slurm import Cluster
from transformer_jax.sweeps.tuning import FIRST_SEED, ranked

RATE = "optimizer.learning_rate"
FACTORS = (0.5, 1.0, 2.0)
"""Times the base's learning rate: what every row is tried at."""
SEEDS = 2
DIRECTORY = "row_tuning"
"""Of the search, itself a sweep, inside that of the sweep."""
OWN = ".own"


def with_own_rates(
    name: str,
    experiment: Experiment,
    scale_name: str,
    scale: Scale,
    variants: Sequence[Variant],
    workdir: Path,
    *,
    workers: int | None = None,
    lanes: int | None = None,
    cluster: Cluster | None = None,
    say: Callable[[str], None] = print,
) -> tuple[Experiment, list[Variant]]:
    """The experiment with each of its rows at its own learning rate too, named "ROW.own", each beside the base's.

    Trains what the search lacks. Arguments are those of `run_sweep`, which may be given what comes out.

    Raises:
      UserError: as `run_sweep`; a row sets the learning rate itself.
      Interruption, Submitted: as `run_sweep`; the same call resumes.
    """
    if fixed := [variant.name for variant in variants if RATE in variant.overrides]:
        raise UserError(f"row {fixed[0]!r} sets {RATE}, so that it has no rate of its own: leave --tune-rows out.")
    plan_sweep(
        name, experiment, scale_name, scale, variants, workdir, here=cluster is None
    )  # refused before anything is trained
    base = next(variant for variant in variants if variant.name == experiment.base)
    rates = [base.config.optimizer.learning_rate * factor for factor in FACTORS]
    tried = {variant.name: {_tried(variant, rate).name: rate for rate in rates} for variant in variants}
    candidates = [_tried(variant, rate) for variant in variants for rate in rates]
    search = Experiment(
        rows={candidate.name: candidate.overrides for candidate in candidates},
        scales={},
        question="Which learning rate suits each row?",
        hypothesis="That of the base.",
        base=next(iter(tried[base.name])),
    )
    judged = judged_by(Scale(scale.config, SEEDS, first_seed=FIRST_SEED), base.config, *_validation(scale))
    say(f"Each row at {', '.join(f'{rate:g}' for rate in rates)}, to find its own learning rate:")
    report = run_sweep(
        f"{name}_{DIRECTORY}", search, scale_name, judged, candidates, workdir / DIRECTORY,
        workers=workers, lanes=lanes, cluster=cluster, say=say,
    )  # fmt: skip
    own = []
    for variant in variants:
        found = ranked(report.analysis.sweep, {row: {RATE: rate} for row, rate in tried[variant.name].items()})
        best = next(iter(found.values()))
        rate = best.numbers[RATE] if best.whole else base.config.optimizer.learning_rate
        own.append(_at(variant, variant.name + OWN, rate))
    return dataclasses.replace(
        experiment,
        rows={**experiment.rows, **{variant.name: variant.overrides for variant in own}},
        partners={**experiment.partners, **_beside_the_base(own, base.name)},
        own={variant.name: variant.name.removesuffix(OWN) for variant in own},
    ), [*variants, *own]


def _validation(scale: Scale) -> tuple[str, str]:
    """The split and the metric that the search is judged by: the scale's own metric."""
    return "valid", scale.metric.partition("/")[2]


def _tried(variant: Variant, rate: float) -> Variant:
    return _at(variant, f"{variant.name}.rate_{rate!r}", rate)


def _at(variant: Variant, name: str, rate: float) -> Variant:
    return Variant(name, {**variant.overrides, RATE: rate}, replace(variant.config, {RATE: rate}))


def _beside_the_base(own: Sequence[Variant], base: str) -> Mapping[str, str]:
    return {variant.name: base + OWN for variant in own if variant.name != base + OWN}
