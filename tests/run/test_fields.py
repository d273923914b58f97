"""A knob that does nothing is a bug: each field that is not the model's changes what it says, where it is read.

What a field of another room can change is one of five things: the batches of the data; the program of a step; the
program that writes; what a run leaves behind; how it is laid out. Programs are compared before they are compiled, as
text. The fields of the model are in `tests/models/test_liveness.py`.
"""

import functools
import json
import re
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
import tiny
import tiny_run

from transformer_jax.config import FIELDS, every_field, fields_of, is_read
from transformer_jax.data import evaluation_batches, make_dataset, make_plan
from transformer_jax.errors import UserError
from transformer_jax.models.build import build_model
from transformer_jax.parallel.layout import make_layout
from transformer_jax.run.compile import Steps, state_template
from transformer_jax.run.directory import CHECKPOINTS, METRICS, RESULT
from transformer_jax.strict_json import to_json
from transformer_jax.tasks import task_of
from transformer_jax.tasks.writing import write
from transformer_jax.training.optimizer import build_optimizer
from transformer_jax.training.state import lanes_of
from transformer_jax.training.step import build_step

CHOSEN_BY_THE_FILE = {"model.family", "task.name"}
"""They say which fields there are."""
IN_FILES_OF_THEIR_OWN = {
    "train.start_from": "run/test_start.py",
    "task.shift": "tasks/test_classification.py",
    **{f"task.{name}": "tasks/test_masked_language_modelling.py" for name in ("hidden", "masked", "random")},
}


# --- What a field can change ---


@pytest.fixture(scope="module")
def corpora(tmp_path_factory) -> dict[str, str]:
    """Two corpora of English, German and French: the digits of numbers, in French of larger ones."""
    places = {}
    for name, first in (("one", 1), ("other", 1001)):
        places[name] = tmp_path_factory.mktemp(name)
        for split, size in (("train", 60), ("val", 4), ("test", 4)):
            for language, times in {"en": 1, "de": 1, "fr": 7}.items():
                lines = [" ".join(f"{language}{digit}" for digit in str(times * n)) for n in range(first, first + size)]
                (places[name] / f"{split}.{language}").write_text("".join(f"{line}\n" for line in lines))
    return {name: str(place) for name, place in places.items()}


@functools.cache
def data_of(config) -> str:
    """The batches of an epoch, and what is evaluated."""
    dataset = make_dataset(config.data)
    plan = make_plan(dataset.splits["train"], config.data)
    batches = [plan.batch_at(step, config.seed) for step in range(plan.batches_per_epoch)]
    batches += [batch for _, batch in evaluation_batches(dataset.splits["test"], config.data)]
    return str([{name: array.tolist() for name, array in batch.items()} for batch in batches])


@functools.cache
def step_of(config) -> str:
    """The program of a training step."""
    lane = jax.tree.map(lambda leaf: leaf[0], lanes_of([config]))
    state, batch = state_template(config), tiny.batch_of(config)
    return _text(jax.make_jaxpr(build_step(config))(state, batch, lane))


@functools.cache
def update_of(config) -> str:
    """The program that makes an update of a gradient."""
    params = {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}
    optimizer = build_optimizer(config)
    return _text(jax.make_jaxpr(lambda gradient: optimizer.update(gradient, optimizer.init(params), params))(params))


@functools.cache
def writing_of(config) -> str:
    """The program that writes."""
    model, params = build_model(config.model), state_template(config).params
    return _text(jax.make_jaxpr(functools.partial(write, config, model))(params, tiny.batch_of(config)))


def _text(jaxpr) -> str:
    return re.sub(r"0x[0-9a-f]+", "", str(jaxpr))


def layout_of(config, lanes=1) -> str:
    """The layout, or why there is none."""
    try:
        layout = make_layout(config, lanes)
    except UserError as error:
        return str(error)
    return to_json({"kind": type(layout).__name__, "options": getattr(layout, "_options", None)})


def dispatched_by(config) -> str:
    """How many steps a call takes, at most."""
    asked = []
    layout = types.SimpleNamespace(compile_steps=asked.append)
    Steps(config, make_plan(make_dataset(config.data).splits["train"], config.data), layout)
    return str(asked[0].args[1])


def judged_by(config) -> str:
    """What is told of outputs."""
    split = make_dataset(config.data).splits["test"]
    return str(task_of(config).output.judge(config, [""] * len(split), split))


# --- Data, steps, writing, layout: (field, another value, what else the config says, what it changes) ---

PAIRS = {"data.source": "parallel_text", "data.directory": "one", "data.max_length": 4, "data.over_long": "truncate"}
COSINE = {"optimizer.schedule": "cosine", "optimizer.warmup_steps": 2}
BEAM = {"decode.strategy": "beam"}
CHANGES = [
    ("seed", 1, {}, data_of),
    ("data.source", "copy(symbols=6, max_length=6, examples=120)", {}, data_of),
    ("data.directory", "other", PAIRS, data_of),
    ("data.source_language", "fr", PAIRS, data_of),
    ("data.target_language", "fr", PAIRS, data_of),
    ("data.tokenizer", "characters", PAIRS, data_of),
    ("data.joint_vocabulary", False, PAIRS, data_of),
    ("data.max_length", 2, PAIRS, data_of),
    ("data.over_long", "drop", {**PAIRS, "data.max_length": 2}, data_of),
    ("data.batching", "packed", {}, data_of),
    ("data.tokens_per_batch", 256, {}, data_of),
    ("data.batch_multiple", 16, {}, data_of),
    ("data.length_classes", 1, {}, data_of),
    *(("optimizer.name", name, {"optimizer.weight_decay": 0.1}, update_of) for name in ("adamw", "lion", "sgd")),
    ("optimizer.learning_rate", 0.5, {}, update_of),
    ("optimizer.schedule", "linear", COSINE, update_of),
    ("optimizer.warmup_steps", 3, COSINE, update_of),
    ("optimizer.beta_1", 0.5, {}, update_of),
    ("optimizer.beta_2", 0.5, {}, update_of),
    ("optimizer.epsilon", 0.5, {}, update_of),
    ("optimizer.weight_decay", 0.5, {"optimizer.name": "adamw"}, update_of),
    ("optimizer.clip_norm", 0.5, {}, update_of),
    ("optimizer.ema_decay", None, {}, step_of),
    ("optimizer.trained", ("decoder",), {}, step_of),
    ("train.label_smoothing", 0.5, {}, step_of),
    ("train.steps", 30, COSINE, update_of),
    ("train.on_nonfinite", "skip", {}, step_of),
    ("train.remat", "layers", {}, step_of),
    ("train.accumulate", 2, {}, step_of),
    ("train.deterministic", True, {}, layout_of),
    ("parallel.strategy", "pmap", {}, layout_of),
    *((f"parallel.{axis}", 2, {}, layout_of) for axis in ("data", "fsdp", "tensor")),
    ("parallel.population", 2, {}, functools.partial(layout_of, lanes=2)),
    ("train.steps_per_dispatch", 2, {}, dispatched_by),
    ("evaluate.metrics", ("exact_match",), {}, judged_by),
    ("decode.strategy", "beam", {}, writing_of),
    ("decode.beam_size", 2, BEAM, writing_of),
    ("decode.alpha", 0.0, BEAM, writing_of),
    ("decode.max_extra_length", 4, {}, writing_of),
]
OF_OTHER_TASKS = {"data.joint_vocabulary", "data.max_length", "data.over_long", "decode.strategy"} | {
    "decode.max_extra_length", "data.tokenizer", "evaluate.metrics", "evaluate.decode_every",
}  # fmt: skip
"""Read wherever there are pairs of sentences; other tasks do without some of them."""
NOT_READ = [  # here the same changes nothing
    ("data.source_language", "fr", {}, data_of),
    ("data.target_language", "fr", {}, data_of),
    ("data.length_classes", 1, {"data.batching": "packed"}, data_of),
    ("optimizer.warmup_steps", 3, {"optimizer.schedule": "constant"}, update_of),
    ("optimizer.beta_1", 0.5, {"optimizer.name": "sgd"}, update_of),
    ("optimizer.beta_2", 0.5, {"optimizer.name": "sgd"}, update_of),
    ("optimizer.epsilon", 0.5, {"optimizer.name": "lion"}, update_of),
    ("optimizer.weight_decay", 0.5, {}, update_of),
    ("decode.beam_size", 2, {}, writing_of),
    ("decode.alpha", 0.0, {}, writing_of),
]


def made(overrides, corpora):
    """The config; a directory that it names is that of a corpus."""
    directory = overrides.get("data.directory")
    named = {} if directory is None else {"data.directory": corpora[directory]}
    return tiny_run.config({"model.vocab_size": 64, **overrides, **named})


@pytest.mark.parametrize(("path", "value", "overrides", "effect"), CHANGES)
def test_a_field_changes_what_it_says(path, value, overrides, effect, corpora):
    config, other = made(overrides, corpora), made({**overrides, path: value}, corpora)
    assert is_read(fields_of(config)[path], config)
    assert config != other
    assert effect(config) != effect(other)


@pytest.mark.parametrize(("path", "value", "overrides", "effect"), NOT_READ)
def test_a_field_that_is_not_read_changes_nothing(path, value, overrides, effect, corpora):
    config, other = made(overrides, corpora), made({**overrides, path: value}, corpora)
    assert not is_read(fields_of(config)[path], config)
    assert config != other
    assert effect(config) == effect(other)


# --- What a run leaves behind: the same compiled steps, with another plan for the loop ---


def run_of(workdir: Path, overrides) -> str:
    """Log, checkpoints and result of a run whose evaluations cost nothing: nll and accuracy fall from each to the next,
    so the one calls the last the best, the other the first."""
    evaluations = []

    def measure(_, trained, split, write):
        evaluations.append(write)
        value = 1 / len(evaluations)
        return [{"nll": value, "token_accuracy": value, "written": write, "unfinished": 0}], [[""] * len(split)]

    program = tiny_run.with_measure(tiny_run.adjusted(tiny_run.program(), overrides), measure)
    tiny_run.train_here(workdir, compiled=program)
    log = [json.loads(line) for line in (workdir / METRICS).read_text().splitlines()]
    result = json.loads((workdir / RESULT).read_text())
    kept = sorted(path.name for path in (workdir / CHECKPOINTS).iterdir())
    told = {name: result[name] for name in ("steps", "best_step", "checkpoint", "metrics")}
    return to_json([[{k: v for k, v in line.items() if k != "tokens_per_second"} for line in log], kept, told])


LAST = {"evaluate.checkpoint": "last"}
FALLING = {**LAST, "evaluate.best": "token_accuracy"}
"""Judged by it, no evaluation is better than the first."""
IN_A_RUN = [
    ("train.steps", 16, {}),
    ("train.log_every", 5, {}),
    ("train.evaluate_every", 4, {}),
    ("train.checkpoint_every", 10, {}),
    ("train.keep_last", 2, LAST),
    ("train.patience", 1, FALLING),
    ("evaluate.best", "token_accuracy", {}),
    ("evaluate.decode_every", None, {}),
    ("evaluate.checkpoint", "last", {}),
]


@pytest.fixture(scope="module")
def left_by(tmp_path_factory):
    return functools.cache(lambda changes: run_of(tmp_path_factory.mktemp("run") / "run", dict(changes)))


@pytest.mark.parametrize(("path", "value", "overrides"), IN_A_RUN)
def test_a_field_changes_what_a_run_leaves_behind(path, value, overrides, left_by):
    assert left_by(tuple(overrides.items())) != left_by(tuple({**overrides, path: value}.items()))


def test_a_run_leaves_the_same_behind_each_time(tmp_path, left_by):
    assert run_of(tmp_path / "run", {}) == left_by(())


def test_every_field_is_changed_here_or_among_those_of_the_model():
    tried = {change[0] for change in [*CHANGES, *IN_A_RUN]}
    others = {path for path in every_field() if not path.startswith("model.")} - CHOSEN_BY_THE_FILE
    assert others - set(IN_FILES_OF_THEIR_OWN) == tried
    for path, file in IN_FILES_OF_THEIR_OWN.items():
        assert path in (Path(__file__).parent.parent / file).read_text()
    conditional = {path for path in tried if FIELDS[path].knob.read_if is not None}
    assert conditional - {change[0] for change in NOT_READ} == OF_OTHER_TASKS
