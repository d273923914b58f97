"""How fast are the outputs of a trained translation model written, beside Hugging Face's Marian and CTranslate2?

    ./launch.sh benchmark decode --workdir=runs/multi30k_cpu

All have the weights of the run's checkpoint and the test split's sources as tokens, sorted by length; their outputs end
where they end, at the latest `decode.max_extra_length` tokens after the input. They take turns; a figure is the median
over the rounds. Logits are compared first. The peers need an environment of their own: `benchmarks/peer_process.py`.
"""

import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from benchmarks.peer_process import Peers
from transformer_jax.config import Config
from transformer_jax.data import Examples, make_dataset
from transformer_jax.data.examples import Column
from transformer_jax.errors import UserError
from transformer_jax.marian.settings import to_settings
from transformer_jax.marian.weights import order_of_ids, to_state
from transformer_jax.models.build import build_model
from transformer_jax.run.saved import load_params, open_run
from transformer_jax.strict_json import to_json
from transformer_jax.tasks.translation import Translations
from transformer_jax.vocabulary import BOS, EOS, PAD

OF = ("workdir",)
ROUNDS = 5
SAME = 1e-4
"""By how much logits of one model may differ."""
CASES = [(beam, batch) for batch in (256, 32, 1) for beam in (1, 5)]
"""(beam, examples a batch); a beam of 1 is greedy search."""
EXAMPLES = {256: 1000, 32: 1000, 1: 100}
"""Batch -> how many examples a round writes."""


def run(workdir: Path, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """For each search and batch: sentences a second of each, and ours over theirs."""
    opened = open_run(workdir)
    config, choice = opened.config, opened.config.evaluate.checkpoint
    params, inputs = (
        load_params(workdir, choice),
        make_dataset(config.data, opened.assets).splits["test"].columns["inputs"],
    )
    sources = [inputs.rows[n].tolist() for n in range(len(inputs.rows))]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = to_settings(config)
        ids = order_of_ids(settings["vocab_size"] + 1)
        (folder / "config.json").write_text(to_json(settings))
        (folder / "ours.json").write_text(to_json({"ids": ids.tolist(), "norm_epsilon": config.model.norm_epsilon}))
        (folder / "sources.json").write_text(to_json(sources))
        np.savez(folder / "weights.npz", **to_state(config, params, settings["max_position_embeddings"]))
        peers = Peers("decoding.py", folder, say)
        say(f"{workdir}, checkpoint {choice}; peers: {peers.versions or 'missing'}")
        if peers.names:
            difference = _difference(config, params, ids, sources[0], peers)
            say(f"logits differ by at most {difference:.1e}")
            if not difference < SAME:
                raise UserError(f"The logits of Marian differ by {difference:.1e} from ours: it is not the same model.")
        of_cases = []
        for beam, batch in CASES:
            of_cases.append(_measure(workdir, choice, inputs, peers, beam, batch))
            say(_line(of_cases[-1]))
        peers.end()
        return of_cases


def _difference(config: Config, params: Any, ids: np.ndarray, source: list[int], peers: Peers) -> float:
    """Between our logits and Marian's, of some tokens after a source; of all but padding, which neither writes."""
    target = [BOS, *range(4, 12)]
    batch = {"inputs": jnp.asarray([source]), "targets": jnp.asarray([[*target[1:], EOS]])}
    ours = build_model(config.model).apply(params, batch)[0]
    theirs = peers.ask({"logits": [source, target]})["logits"]
    return float(np.max(np.abs(np.asarray(ours)[:, ids[:-1]] - np.asarray(theirs)[:, :-1])))


def _measure(workdir: Path, choice: str, inputs: Column, peers: Peers, beam: int, batch: int) -> dict[str, Any]:
    """Ours and theirs in turn, after each has warmed up."""
    search = {"decode.strategy": "beam", "decode.beam_size": beam} if beam > 1 else {"decode.strategy": "greedy"}
    shapes = {"data.tokens_per_batch": 16 * batch, "data.batch_multiple": min(batch, 8)}
    opened = open_run(workdir, {**search, **shapes})
    _, trained = opened.load(choice)
    every = len(inputs.rows)
    by_length = np.argsort(inputs.rows.lengths, kind="stable")[:: max(every // EXAMPLES[batch], 1)]
    chosen = Examples({"inputs": inputs.take(by_length)})
    decode = opened.config.decode
    asked = {"beam": beam, "batch": batch, "examples": EXAMPLES[batch]}
    asked |= {"extra": decode.max_extra_length, "alpha": decode.alpha}
    predict = opened.evaluator.predictor(Translations())

    def ours() -> tuple[float, list[list[int]]]:
        started = time.perf_counter()
        found = predict(trained, chosen)
        seconds = time.perf_counter() - started
        return seconds, [row[row != PAD].tolist() for row in found["tokens_BNT"][0, :, 0]]

    def theirs(peer: str) -> tuple[float, list[list[int]]]:
        answer = peers.ask({**asked, "peer": peer})
        return answer["seconds"], answer["outputs"]

    writers = {"ours": ours, **{name: functools.partial(theirs, name) for name in peers.names}}
    outputs = {name: write()[1] for name, write in writers.items()}
    seconds: dict[str, list[float]] = {name: [] for name in writers}
    for _ in range(ROUNDS):
        for name, write in writers.items():
            seconds[name].append(write()[0])
    medians = {name: statistics.median(of_name) for name, of_name in seconds.items()}
    return {
        "beam": beam,
        "batch": batch,
        "examples": len(chosen),
        "sentences_per_second": {name: len(chosen) / median for name, median in medians.items()},
        "ours_over": {name: medians[name] / medians["ours"] for name in peers.names},
        "same_outputs": {name: _share_equal(outputs["ours"], outputs[name]) for name in peers.names},
        "mean_length": {name: float(np.mean([len(output) for output in of_name])) for name, of_name in outputs.items()},
        "longest": {name: max(len(output) for output in of_name) for name, of_name in outputs.items()},
        "versions": peers.versions,
    }


def _share_equal(ours: list[list[int]], theirs: list[list[int]]) -> float:
    """Apart from EOS, which not all write."""
    words = [[[token for token in output if token != EOS] for output in side] for side in (ours, theirs)]
    return float(np.mean([a == b for a, b in zip(*words, strict=True)]))


def _line(row: Mapping[str, Any]) -> str:
    speeds = ", ".join(f"{name} {speed:,.1f}" for name, speed in row["sentences_per_second"].items())
    ratios = ", ".join(f"{ratio:.2f} x {name}" for name, ratio in row["ours_over"].items()) or "peers missing"
    return f"beam {row['beam']}, batch {row['batch']:>3}: sentences/s {speeds}; ours is {ratios}"
