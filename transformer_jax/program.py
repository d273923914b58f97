"""What a config makes, once: data, plan, compiled functions. Seeds, and numbers of a population, are arguments."""

import functools
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax import data
from transformer_jax.config import FIELDS, Config, value_at, with_values
from transformer_jax.data import Dataset, TokenizerPair, make_dataset, make_plan
from transformer_jax.errors import UserError
from transformer_jax.evaluation import decode, evaluator
from transformer_jax.evaluation.evaluator import Evaluator
from transformer_jax.models import build
from transformer_jax.parallel.layout import make_layout
from transformer_jax.run_directory import DATA, NUMERICS, TOKENIZER, read_json
from transformer_jax.training import optimizer
from transformer_jax.training.state import Lane, TrainState, init_state
from transformer_jax.training.step import build_steps

TRACEABLE = tuple(path for path, field in FIELDS.items() if field.knob.traced)


def validate(config: Config) -> None:
    """Every room's check of the config, before anything exists on disk.

    Raises:
      UserError: naming the field, what was found and what to do.
    """
    data.check(config.data)
    for room in (build, optimizer, decode, evaluator):
        room.check(config)
    if config.train.checkpoint_every is not None and config.train.checkpoint_every > config.train.steps:
        raise UserError(
            f"train.checkpoint_every = {config.train.checkpoint_every} is beyond train.steps = {config.train.steps}."
        )


def with_vocabulary(config: Config, tokenizers: TokenizerPair) -> Config:
    """The config with the sizes of its vocabularies, which may be set larger than the tokenizers need.

    Raises:
      UserError: one that is set is smaller.
    """
    sizes = {"model.vocab_size": tokenizers.target.vocab_size}
    if config.model.embedding.tying != "three_way":
        sizes["model.source_vocab_size"] = tokenizers.source.vocab_size
    for path, size in sizes.items():
        chosen = value_at(config, path)
        if chosen is not None and chosen < size:
            raise UserError(f"{path} = {chosen} is smaller than the tokenizer's vocabulary of {size}: leave it unset.")
    return with_values(config, {path: value_at(config, path) or size for path, size in sizes.items()})


def sized(config: Config, dataset: Dataset, lanes: int | None = None) -> Config:
    """The config with the sizes of its vocabularies, if this machine can run it.

    Raises:
      UserError: a size that does not fit, devices that there are not, or a state that the machine cannot hold.
    """
    config = with_vocabulary(config, dataset.tokenizers)
    validate(config)
    make_layout(config, lanes)
    needed = (lanes or 1) * sum(
        leaf.dtype.itemsize * math.prod(leaf.shape) for leaf in jax.tree.leaves(state_template(config))
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise UserError(
            f"{count_parameters(config):,} parameters{f' of each of {lanes} lanes' if lanes else ''}, with what the "
            f"optimizer keeps of each, are {needed / 2**30:,.1f} GiB, but this machine has {memory / 2**30:,.1f}: make "
            "the model smaller."
        )
    return config


def differing(configs: Sequence[Config]) -> tuple[str, ...]:
    """The traceable fields in which the configs differ."""
    return tuple(path for path in TRACEABLE if len({value_at(config, path) for config in configs}) > 1)


def common_config(config: Config) -> Config:
    """Equal for two configs exactly where one program can run both: seed and traceable fields are left out."""
    return with_values(config, dict.fromkeys(TRACEABLE, 0.0) | {"seed": 0})


class Program:
    """A config ready to run. With `lanes` it trains that many runs at once: a population.

    Fields in `traced` are arguments of what is compiled, as the seed always is; all others are constants of it.
    """

    def __init__(
        self,
        config: Config,
        lanes: int | None = None,
        tokenizers: TokenizerPair | None = None,
        traced: Sequence[str] = (),
    ):
        validate(config)
        if lanes is not None:
            check_lanes(config)
        self.traced = tuple(traced)
        self.layout = make_layout(config, lanes)
        self.lanes = lanes
        self.dataset = make_dataset(config.data, tokenizers)
        self.config = sized(config, self.dataset, lanes)
        self.plan = make_plan(self.dataset.splits["train"], config.data)
        init = functools.partial(init_state, self.config)
        self._init = jax.jit(init if lanes is None else jax.vmap(init))
        self._most = min(config.train.steps_per_dispatch, *config.train.intervals)
        self._steps = self.layout.compile_steps(functools.partial(build_steps, self.config, self._most), self._most)
        self.evaluator = Evaluator(self.config, self.dataset.tokenizers.target, self.layout, lanes)

    def lane(self, configs: Sequence[Config]) -> Lane:
        """The arguments that make this program the runs of `configs`."""
        seeds = np.asarray([c.seed for c in configs], np.int32)
        numbers = {path: np.asarray([value_at(c, path) for c in configs], np.float32) for path in self.traced}
        lane = Lane(seeds, numbers)
        return lane if self.lanes else jax.tree.map(lambda a: a[0], lane)

    def init(self, lane: Lane) -> TrainState:
        """The state before the first step, on the host."""
        return jax.device_get(self._init(lane))

    def dispatch(self, state: Any, step: int, most: int, seeds: Sequence[int], lane: Lane) -> tuple[Any, Any, int]:
        """Takes steps from `step` (from 0) on, up to `most`: the state, what they measured, and how many they were."""
        end = min(most, self._most)
        classes = (self.plan.class_at(step + k) == self.plan.class_at(step) for k in range(end))
        count = next((k for k, same in enumerate(classes) if not same), end)
        batches = [self.batch(step + k, seeds) for k in range(count)]
        batches += batches[-1:] * (self._most - count)
        state, sums = self._steps(state, self._stack_steps(batches), lane, count)
        return state, sums, count

    def _stack_steps(self, batches: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        if self._most == 1:
            return batches[0]
        axis = 0 if self.lanes is None else 1
        return {name: np.stack([batch[name] for batch in batches], axis) for name in batches[0]}

    def each_step(self, sums: Any, count: int) -> list[Any]:
        """What each step of a dispatch measured."""
        if self._most == 1:
            return [sums]
        return [jax.tree.map(lambda a, k=k: a[..., k], sums) for k in range(count)]

    def batch(self, step: int, seeds: Sequence[int]) -> dict[str, np.ndarray]:
        """The batch of a step; of a population one for each lane, all of the same shape."""
        batches = [self.plan.batch_at(step, seed) for seed in seeds]
        return {name: np.stack([b[name] for b in batches]) for name in batches[0]} if self.lanes else batches[0]

    def unstack(self, state: Any) -> list[Any]:
        """One tree for each run of the program."""
        if self.lanes is None:
            return [state]
        return [jax.tree.map(lambda leaf, k=k: np.asarray(leaf[k]), state) for k in range(self.lanes)]

    def stack(self, states: Sequence[Any]) -> Any:
        """The inverse of `unstack`."""
        return jax.tree.map(lambda *leaves: np.stack(leaves), *states) if self.lanes else states[0]


def check_lanes(config: Config) -> None:
    """Refuses to train runs of `config` together, as lanes of a population.

    Raises:
      UserError: saying why.
    """
    generator = jax.random.key_impl(jax.random.key(0))
    if generator != "threefry2x32":
        raise UserError(
            f"Lanes need JAX's random generator threefry2x32, but JAX_DEFAULT_PRNG_IMPL chose {generator}: "
            "with that a lane draws other numbers than the run alone."
        )
    if config.parallel.strategy == "pmap":
        raise UserError("parallel.strategy = 'pmap' trains one seed at a time: a population needs 'jit'.")


def check_origin(workdir: Path, dataset: Dataset) -> None:
    """Refuses to go on with a run that was begun on other data, or by a program that computes other numbers.

    Raises:
      UserError: saying which.
    """
    path = workdir / DATA
    if not path.is_file():
        return
    before = read_json(path)
    if not isinstance(before, dict) or before.get("fingerprint") != dataset.fingerprint:
        raise UserError(f"{workdir}: was started on other data; {path.name} holds the fingerprint of the corpus.")
    if before.get("numerics") != NUMERICS:
        raise UserError(
            f"{workdir}: was started by a version of this program that computes other numbers (numerics "
            f"{before.get('numerics')}, now {NUMERICS}). Go on with that version, or in another --workdir."
        )


def state_template(config: Config) -> Any:
    """Shapes and dtypes of a run's TrainState."""
    return _state_template(with_values(config, {"seed": 0}))


@functools.cache
def _state_template(config: Config) -> Any:
    lane = Lane(jnp.zeros((), jnp.int32), {})
    return jax.eval_shape(functools.partial(init_state, config), lane)


def count_parameters(config: Config) -> int:
    """Entries of all parameters."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state_template(config).params))


def load_tokenizers(workdir: Path) -> TokenizerPair | None:
    """Those saved with a run, None if it has not got that far."""
    return TokenizerPair.load(workdir / TOKENIZER) if (workdir / DATA).is_file() else None
