"""Does the pipeline keep up with the model?

    ./launch.sh benchmark data --models=multi30k --output=docs/benchmarks

Examples a second from text to ids and from ids to batches, on one processor, and how many the model takes, on all; the
making of a batch as a share of a step, which is the most that a step can wait for it; the share of padding.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.models import Measured, chosen_models, each_of
from benchmarks.training import Ours
from transformer_jax.config import Config
from transformer_jax.data.encoding import encode
from transformer_jax.vocabulary import PAD

OF = ("models", "config")
ROUNDS, EXAMPLES, BATCHES = 5, 4000, 200


def run(models: Mapping[str, Measured] | Config, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """For each model: examples a second, and shares."""
    return [_measure(name, config, steps, say) for name, config, steps in each_of(models)]


def _measure(name: str, config: Config, steps: int, say: Callable[[str], None]) -> dict[str, Any]:
    ours = Ours(config, steps)
    plan, split = ours.program.plan, ours.program.dataset.splits["train"]
    assets = ours.program.dataset.assets
    tokenizers = {"inputs": assets.source, "targets": assets.target}
    few = range(0, len(split), max(len(split) // EXAMPLES, 1))
    texts = {side: [tokenizers[side].decode(rows[n].tolist()) for n in few] for side, rows in split.sides().items()}
    first = [plan.batch_at(step, 0) for step in range(max(BATCHES, steps))]
    in_batches, in_steps = (_examples(first[:count]) for count in (BATCHES, steps))

    ours.seconds()  # compiles
    rounds = []
    for turn in range(1, ROUNDS + 1):
        to_ids = _seconds(lambda: [encode(of_side, tokenizers[side]) for side, of_side in texts.items()])
        to_batches = _seconds(lambda turn=turn: [plan.batch_at(step, turn) for step in range(BATCHES)])
        rounds.append((to_ids / len(few), to_batches / BATCHES, ours.seconds() / steps))
    of_text, of_batch, of_step = np.median(rounds, axis=0).tolist()
    from_text, appetite = 1 / (of_text + of_batch * BATCHES / in_batches), in_steps / steps / of_step
    row = {
        "model": name,
        "examples_per_second": {
            "text to ids": 1 / of_text,
            "ids to batches": in_batches / BATCHES / of_batch,
            "text to batches": from_text,
            "taken by the model": appetite,
        },
        "text_to_batches_over_appetite": from_text / appetite,
        "batch_share_of_step": of_batch / of_step,
        "padding": plan.padding_share,
    }
    for stage, speed in row["examples_per_second"].items():
        say(f"{name:>15}  {stage:<20} {speed:>12,.0f} examples/s")
    padding = ", ".join(f"{share:.1%} of {side}" for side, share in plan.padding_share.items())
    say(
        f"{name:>15}  from text {from_text / appetite:,.0f} times what the model takes; a batch is made in "
        f"{of_batch / of_step:.2%} of a step; padding: {padding}"
    )
    return row


def _examples(batches: list[dict[str, np.ndarray]]) -> int:
    return sum(int((batch["targets"] != PAD).any(1).sum()) for batch in batches)


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


__all__ = ["OF", "chosen_models", "run"]
