"""Run by `test_layout.py` in a process of its own, which has eight devices: writes what every layout computes.

python eight_devices.py FILE.npz
"""

import functools
import itertools
import math
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

import tiny

from transformer_jax.config import FAMILIES, freeze
from transformer_jax.data.images import NO_LABEL
from transformer_jax.models.build import build_model
from transformer_jax.parallel.layout import JitLayout, PmapLayout, make_layout
from transformer_jax.tasks import TASKS, task_of
from transformer_jax.training.optimizer import build_optimizer
from transformer_jax.training.state import Lane, TrainState
from transformer_jax.training.step import build_steps
from transformer_jax.vocabulary import NUM_SPECIALS, PAD

STEPS = 10
TRANSLATION = TASKS["translation"]
SGD = {"optimizer.name": "sgd", "optimizer.schedule": "constant", "optimizer.learning_rate": 0.5}
VOCABULARY = 22  # no other size of a model is as large, nor divided by as many devices as share a word's logits


def config_of(family, overrides):
    sizes = {"model.vocab_size": VOCABULARY} if "model.vocab_size" in tiny.model_fields(family) else {}
    return tiny.config({"model.family": family, **sizes, **overrides})


CONFIGS = {family: config_of(family, SGD) for family in FAMILIES}
LAYOUTS = {
    "jit_1": lambda: JitLayout(1),
    "jit_8": lambda: JitLayout(8),
    "fsdp_8": lambda: JitLayout(fsdp=8),
    "mesh_8": lambda: JitLayout(data=2, fsdp=2, tensor=2),
    "pmap_8": lambda: PmapLayout(8),
}
WHOLE = ("jit_1", "jit_8", "pmap_8")
"""Layouts that keep all parameters on each device."""
UNEVEN = [5, 5, 5, 4, 1, 1, 0, 0, 1, 2, 3, 1, 5, 1, 1, 0]
"""Target tokens of each row; a device has two rows, and one of them nothing but padding."""


def batch_at(family, t):
    """Random words alone: an EOS at the end of each would make short rows alike. Or images, or sentences with classes,
    and rows without one."""
    rng, taken = np.random.default_rng(t), np.arange(5) < np.asarray(UNEVEN)[:, None]
    made = tiny.batch_of(CONFIGS[family], seed=t, rows=len(UNEVEN))
    if "images" in made:
        return {**made, "labels": np.where(taken.any(axis=1), made["labels"], NO_LABEL).astype(np.int32)}
    words = {name: rng.integers(NUM_SPECIALS, 11, taken.shape) for name in made if name != "labels"}
    words = {name: np.where(taken, rows, PAD).astype(np.int32) for name, rows in words.items()}
    if "labels" not in made:
        return words
    return {**words, "labels": np.where(taken.any(axis=1), made["labels"], NO_LABEL).astype(np.int32)}


def state_of(params, config):
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=build_optimizer(config).init(params),
        average=None,
        skipped=jnp.zeros((), jnp.int32),
        alive=jnp.ones((), bool),
    )


def alone(tree):
    """The tree of a lane alone, with its axis of lanes."""
    return jax.tree.map(lambda a: np.asarray(a)[None], tree)


def lane(*dropout_rates):
    """The rate is an argument of the program, so that one program serves both."""
    rates = np.asarray(dropout_rates, np.float32)
    return Lane(np.zeros(len(rates), np.int32), {"model.dropout_rate": rates})


def started(layout, family):
    config = CONFIGS[family]
    state = jax.device_get(state_of(tiny.params(config), config))
    return layout.put(jax.tree.map(lambda a: np.stack([a] * layout.lanes), state))


def flat(state):
    """The parameters of each lane in one row."""
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in jax.tree.leaves(state.params)], axis=1)


def trained(layout, family, step, *dropout_rates):
    """Ten steps, one in a call, of the lane of each rate."""
    state = started(layout, family)
    found = {"loss": [], "count": [], "params": [flat(layout.get(state))]}
    for t in range(STEPS):
        batches = {name: np.stack([rows[None]] * layout.lanes) for name, rows in batch_at(family, t).items()}
        state, totals = step(state, batches, lane(*dropout_rates), 1)
        for name, value in zip(("loss", "count"), jax.device_get(totals["loss"]), strict=True):
            found[name].append(value[:, 0])
        found["params"].append(flat(layout.get(state)))
    if isinstance(layout, JitLayout):
        where = zip(jax.tree.leaves(state), jax.tree.leaves(layout.shardings(state)), strict=True)
        assert all(array.sharding.is_equivalent_to(sharding, array.ndim) for array, sharding in where)
    return {
        rate: {name: np.stack(values)[:, k] for name, values in found.items()} for k, rate in enumerate(dropout_rates)
    }


def both_rates(layout, family):
    """Without dropout and with it: of one program one after the other, or as lanes."""
    step = layout.compile_steps(functools.partial(build_steps, CONFIGS[family], 1))
    if layout.lanes == 2:
        return trained(layout, family, step, 0.0, 0.5)
    return trained(layout, family, step, 0.0) | trained(layout, family, step, 0.5)


def program_of(layout):
    """What XLA made of a step of Adam: bytes of a device's arguments, those expected, and what is gathered where."""
    config = config_of("transformer", {})
    one = jax.eval_shape(lambda: state_of(tiny.params(config), config))
    state = jax.tree.map(lambda a: jax.ShapeDtypeStruct((1, *a.shape), a.dtype), one)
    placed = jax.tree.map(
        lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), state, layout.shardings(state)
    )
    batches = {name: rows[None, None] for name, rows in batch_at("transformer", 0).items()}
    steps = layout.compile_steps(functools.partial(build_steps, config, 1))
    compiled = steps.lower(placed, batches, lane(0.0), 1).compile()
    gathered = gathers_of(compiled.as_text())
    whole = sum(4 * math.prod(leaf.shape) for leaf in jax.tree.leaves(one))
    return {
        "argument_bytes": np.int64(compiled.memory_analysis().argument_size_in_bytes),
        "state_bytes": np.int64(whole),
        "gathered": np.asarray([shape for shape, _ in gathered]),
        "gathered_for": np.asarray([name for _, names in gathered for name in names]),
    }


def gathers_of(program):
    """Of every all-gather its shape and what it is for: its name in the source, or, where that is not of the gradient,
    those of what takes it. (Newer XLA names it after the parameter that is gathered.)"""
    found = re.findall(r"^ *(?:ROOT )?(%[\w.\-]+) = (.*?)(?:op_name=\"(.*?)\".*)?$", program, re.MULTILINE)
    names = {instruction: name for instruction, _, name in found}
    takers = {}
    for instruction, said, _ in found:
        for operand in re.findall(r"%[\w.\-]+(?=[,)])", said):
            takers.setdefault(operand, []).append(instruction)

    def reasons(instruction):
        if "jvp(" in names[instruction] or instruction not in takers:
            return [names[instruction]]
        return [reason for taker in takers[instruction] for reason in reasons(taker)]

    gathers = [(instruction, said.split("{")[0]) for instruction, said, _ in found if " all-gather" in said]
    return [(shape, reasons(instruction)) for instruction, shape in gathers]


def dispatched(layout, family):
    """Losses of the same steps, up to four in a call; what lies behind those that are asked for must not matter."""
    losses, state = [], started(layout, family)
    steps = layout.compile_steps(functools.partial(build_steps, CONFIGS[family], 4))
    for start in range(0, STEPS, 4):
        batches = [batch_at(family, start + k) for k in range(4)]
        stacked = {name: np.stack([batch[name] for batch in batches])[None] for name in batches[0]}
        state, totals = steps(state, stacked, lane(0.0), min(4, STEPS - start))
        losses += list(jax.device_get(totals["loss"][0])[0])
    return {"loss": np.asarray(losses[:STEPS]), "params": flat(layout.get(state))[0]}


class Noise:
    """Sums over the devices of a number that each draws from its key of the step, and of its square."""

    def measure(self, config, model, params, batch, key):
        noise = jax.random.normal(key)[None] + 0 * params["w"][:1]
        return {"loss": (noise, jnp.ones(1)), "square": (noise**2, jnp.ones(1))}


def noise_of(layout):
    TASKS["translation"] = Noise()
    config = freeze(SGD)
    step = layout.compile_steps(functools.partial(build_steps, config, 1))
    state = layout.put(alone(jax.device_get(state_of({"w": jnp.zeros(3)}, config))))
    batches = {"x": np.zeros((1, 1, 16, 1), np.float32)}
    _, totals = step(state, batches, alone(Lane(np.int32(0), {})), 1)
    TASKS["translation"] = TRANSLATION
    return np.asarray([np.asarray(totals[name][0])[0, 0] for name in ("loss", "square")])


def rows_of(layout, family, shared=True):
    """The nll of every row, as the evaluation has it computed; of a batch that lanes share, or of the lane's own."""
    config = CONFIGS[family]

    def nll(params, batch):
        return {"nll": task_of(config).measure(config, build_model(config.model), params, batch, None)["nll"][0]}

    params = layout.put(alone(jax.device_get(tiny.params(config))))
    batch = batch_at(family, 0)
    (rows,) = layout.compile_rows(nll, shared)(params, batch if shared else alone(batch))["nll"]
    return rows


class Linear:
    """A sum of squares, and a pull that each step draws."""

    def measure(self, config, model, params, batch, key):
        pull = jax.random.normal(key, params["w"].shape) @ params["w"] / len(batch["x"])
        return {"loss": (jnp.sum((batch["x"] - params["w"]) ** 2, axis=-1) + pull, jnp.ones(len(batch["x"])))}


def lanes_on(lanes, parallel):
    """A linear task: where each lane ends, what the rows are, and over how many devices its state lies."""
    TASKS["translation"] = Linear()
    config = freeze({**SGD, **parallel})
    seeds, x = np.arange(lanes, dtype=np.int32), np.float32(np.random.default_rng(0).normal(size=(lanes, 8, 2)))
    layout = make_layout(config, lanes)
    step = layout.compile_steps(functools.partial(build_steps, config, 1))
    state = layout.init(lambda lane: state_of({"w": jnp.ones(2)}, config), Lane(seeds, {}))
    for _ in range(3):
        state, _ = step(state, {"x": x[:, None]}, Lane(seeds, {}), 1)
    rows = layout.compile_rows(lambda params, batch: batch["x"] @ params["w"])(state.params, {"x": x[0]})
    apart = layout.compile_rows(lambda params, batch: batch["x"] @ params["w"], False)(state.params, {"x": x})
    shards = {str(shard.index) for shard in state.params["w"].addressable_shards}
    TASKS["translation"] = TRANSLATION
    return {"params": layout.get(state).params["w"], "rows": rows, "apart": apart, "shards": np.int32(len(shards))}


def of_rates(of, found):
    return {f"{of}/{rate}/{key}": value for rate, of_rate in found.items() for key, value in of_rate.items()}


def main(file, families):
    results = {}
    for family, (name, make) in itertools.product(families, LAYOUTS.items()):
        of = f"{family}/{name}"
        if name == "fsdp_8" and family != "transformer":
            continue  # the other mesh splits parameters too
        results |= of_rates(of, both_rates(make(), family))
        if name == "mesh_8" and family != "transformer":
            continue
        results[f"{of}/rows"] = rows_of(make(), family)
        if name not in WHOLE:
            results |= {f"{of}/{key}": value for key, value in program_of(make()).items()}
            continue
        results[f"{of}/rows_apart"] = rows_of(make(), family, shared=False)
        results |= {f"{of}/dispatched/{key}": value for key, value in dispatched(make(), family).items()}
    lanes = JitLayout(population=2, fsdp=2, tensor=2, lanes=2)
    results |= of_rates("transformer/lanes_8", both_rates(lanes, "transformer"))
    results["noise"] = noise_of(PmapLayout(8))
    for lanes in (3, 8):
        for devices, parallel in ((1, {"parallel.data": 1}), (8, {})):
            found = lanes_on(lanes, parallel)
            results |= {f"lanes_{lanes}/{devices}/{key}": value for key, value in found.items()}
    results["devices"] = np.int32(make_layout(freeze({})).devices)
    results["devices_of_four_rows"] = np.int32(make_layout(freeze({"data.batch_multiple": 4})).devices)
    results["devices_of_six_rows"] = np.int32(make_layout(freeze({"data.batch_multiple": 6})).devices)
    np.savez(file, **results)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
