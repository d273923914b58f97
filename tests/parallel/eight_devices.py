"""Run by `test_layout.py` in a process of its own, which has eight devices: writes what every layout computes.

python eight_devices.py FILE.npz
"""

import functools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

import tiny

from transformer_jax.config import freeze
from transformer_jax.models import build
from transformer_jax.parallel.layout import JitLayout, PmapLayout, make_layout
from transformer_jax.training import objective
from transformer_jax.training.objective import smoothed_cross_entropy, teacher_forced_logits
from transformer_jax.training.optimizer import build_optimizer
from transformer_jax.training.state import Lane, TrainState
from transformer_jax.training.step import build_steps

STEPS = 10
SGD = {"optimizer.name": "sgd", "optimizer.schedule": "constant", "optimizer.learning_rate": 0.5}
CONFIG = tiny.config({"model.num_decoder_layers": 1, **SGD})
LAYOUTS = {"jit_1": lambda: JitLayout(1), "jit_8": lambda: JitLayout(8), "pmap_8": lambda: PmapLayout(8)}
UNEVEN = [5, 5, 5, 4, 1, 1, 0, 0, 1, 2, 3, 1, 5, 1, 1, 0]
"""Target tokens of each row; a device has two rows, and one of them nothing but padding."""


def batch_at(t):
    return {
        "inputs": tiny.sentences([6 if n else 0 for n in UNEVEN], 6, t),
        "targets": tiny.sentences(UNEVEN, 5, t + 99),
    }


def state_of(params, config):
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=build_optimizer(config).init(params),
        average=None,
        skipped=jnp.zeros((), jnp.int32),
        alive=jnp.ones((), bool),
    )


def trained(layout, dropout_rate):
    """The rate is an argument of the program, so that one program serves both."""
    lane = Lane(np.int32(0), {"model.dropout_rate": np.float32(dropout_rate)})
    step = layout.compile_steps(functools.partial(build_steps, CONFIG, 1), 1)
    state = layout.put(state_of(jax.device_get(tiny.params(CONFIG)), CONFIG))
    found = {"loss": [], "count": [], "params": [layout.get(state).params]}
    for t in range(STEPS):
        state, sums = step(state, batch_at(t), lane, 1)
        for name, value in zip(("loss", "count"), jax.device_get(sums["loss"]), strict=True):
            found[name].append(value)
        found["params"].append(layout.get(state).params)
    found["params"] = [np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(p)]) for p in found["params"]]
    return {name: np.stack(values) for name, values in found.items()}


def dispatched(layout):
    """Losses of the same steps, up to four in a call; what lies behind those that are asked for must not matter."""
    lane, losses = Lane(np.int32(0), {"model.dropout_rate": np.float32(0.0)}), []
    steps = layout.compile_steps(functools.partial(build_steps, CONFIG, 4), 4)
    state = layout.put(state_of(jax.device_get(tiny.params(CONFIG)), CONFIG))
    for start in range(0, STEPS, 4):
        batches = [batch_at(start + k) for k in range(4)]
        stacked = {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}
        state, sums = steps(state, stacked, lane, min(4, STEPS - start))
        losses += list(jax.device_get(sums["loss"][0]))
    params = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(layout.get(state).params)])
    return {"loss": np.asarray(losses[:STEPS]), "params": params}


def noise_of(layout):
    """Sums over the devices of a number that each draws from its key of the step, and of its square."""

    def build(reduce, key_of_part):
        def step(state, batch, lane, count):
            noise = jax.random.normal(key_of_part(jax.random.key(lane)))
            return state, reduce((noise, noise**2))

        return step

    step = layout.compile_steps(build, 1)
    return np.asarray(step(layout.put(np.zeros(3)), {"x": np.zeros((16, 1))}, np.int32(0), 1)[1])


def rows_of(layout):
    """The nll of every row, as the evaluation has it computed."""

    def nll(params, batch):
        logits = teacher_forced_logits(CONFIG, params, batch, None)
        _, nll = smoothed_cross_entropy(logits, batch["targets"], 0.0)
        return {"nll": jnp.sum(nll * (batch["targets"] != build.PAD_ID), axis=-1)}

    params = layout.put(jax.device_get(tiny.params(CONFIG)))
    return layout.compile_rows(nll)(params, batch_at(0))["nll"]


def population(lanes, parallel):
    """Of a linear objective: where each lane ends, what the rows are, and over how many devices its state lies."""
    config = freeze({**SGD, **parallel})

    def linear(config):
        def objective(params, batch, key):
            pull = jax.random.normal(key, params["w"].shape)
            return jnp.sum((batch["x"] - params["w"]) ** 2) + pull @ params["w"], jnp.float32(len(batch["x"])), {}

        return objective

    objective.OBJECTIVES["transformer"] = linear
    seeds, x = np.arange(lanes, dtype=np.int32), np.float32(np.random.default_rng(0).normal(size=(lanes, 8, 2)))
    layout = make_layout(config, lanes)
    step = layout.compile_steps(functools.partial(build_steps, config, 1), 1)
    state = jax.vmap(lambda w: state_of({"w": w}, config))(jnp.ones((lanes, 2)))
    state = layout.put(jax.device_get(state))
    for _ in range(3):
        state, _ = step(state, {"x": x}, Lane(seeds, {}), 1)
    rows = layout.compile_rows(lambda params, batch: batch["x"] @ params["w"])(state.params, {"x": x[0]})
    shards = {str(shard.index) for shard in state.params["w"].addressable_shards}
    return {"params": layout.get(state).params["w"], "rows": rows, "shards": np.int32(len(shards))}


def main(file):
    results = {}
    for name, make in LAYOUTS.items():
        for rate in (0.0, 0.5):
            results |= {f"{name}/{rate}/{key}": value for key, value in trained(make(), rate).items()}
        results[f"{name}/rows"] = rows_of(make())
        results |= {f"{name}/dispatched/{key}": value for key, value in dispatched(make()).items()}
    results["noise"] = noise_of(PmapLayout(8))
    for lanes in (3, 8):
        for devices in (1, 8):
            found = population(lanes, {"parallel.data": devices})
            results |= {f"lanes_{lanes}/{devices}/{key}": value for key, value in found.items()}
    results["devices"] = np.int32(make_layout(freeze({})).devices)
    results["devices_of_four_rows"] = np.int32(make_layout(freeze({"data.batch_multiple": 4})).devices)
    results["devices_of_six_rows"] = np.int32(make_layout(freeze({"data.batch_multiple": 6})).devices)
    np.savez(file, **results)


if __name__ == "__main__":
    main(sys.argv[1])
