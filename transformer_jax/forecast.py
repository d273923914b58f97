"""What a training step of a config takes of each of many devices, from compiling it for them; nothing is run.

The devices are played by the CPU, so their number is free. What XLA makes for another kind of device is fused
otherwise: for GPUs and TPUs the bytes that a step works with are an estimate.
"""

import functools
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from transformer_jax.config import Resolved, value_at
from transformer_jax.errors import UserError
from transformer_jax.parallel.layout import JitLayout, make_layout
from transformer_jax.parallel.rules import AXES
from transformer_jax.run.compile import state_template
from transformer_jax.tasks import task_of
from transformer_jax.training.state import Lane
from transformer_jax.training.step import build_steps

BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8}
COLLECTIVE = re.compile(
    r"= (\(.*?\)|\S+) (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
)


def play_devices(count: int) -> None:
    """From now on the CPU of this process plays so many devices.

    Raises:
      UserError: JAX has started already.
    """
    try:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError as error:
        raise UserError(f"--devices={count}: JAX has started with other devices in this process.") from error


def mesh_overrides(text: str) -> dict[str, int]:
    """The fields that "data:8,fsdp:8" sets.

    Raises:
      UserError: it is not of that form.
    """
    found = {}
    for part in filter(None, text.split(",")):
        axis, _, size = part.partition(":")
        if axis not in AXES or not re.fullmatch("-1|[0-9]{1,4}", size):
            raise UserError(f"--mesh={text}: give sizes of {', '.join(AXES)}, as data:8,fsdp:8.")
        found[f"parallel.{axis}"] = int(size)
    return found


def forecast(config: Resolved, memory: int | None = None) -> dict[str, Any]:
    """Figures for one device of the mesh that `config.parallel` describes.

    Args:
      memory: bytes of a device, to say how many rows a batch may have.

    Returns:
      "mesh"; "batch": the shape of each field of the batch, the longest that the config allows; "per_device": bytes of
      "parameters", "optimizer" and "average", which are exact, of the "logits" of a part of the batch, and of all that
      a step "works" with beside its arguments, as XLA plans it; "collectives": kind -> how often, and the bytes of
      their results; "most_rows": with `memory`, how many rows fit, on the line through two compiled sizes.

    Raises:
      UserError: the mesh cannot be, or the config names `pmap`, which splits nothing but batches.
    """
    layout = make_layout(config)
    if not isinstance(layout, JitLayout):
        raise UserError("parallel.strategy = 'pmap' cannot be compiled for devices that are not there: use 'jit'.")
    one = state_template(config)
    state = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype), one)
    placed = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        state,
        layout.shardings(state),
    )
    rows = _rows(config)
    compiled = _compiled(config, layout, placed, rows)
    working = compiled.memory_analysis().temp_size_in_bytes
    kept = {name: _bytes_of(getattr(placed, name)) for name in ("params", "opt_state", "average")}
    found = {
        "mesh": layout.sizes,
        "batch": {name: list(field.shape[2:]) for name, field in _batch(config, rows).items()},
        "per_device": {
            "parameters": kept["params"],
            "optimizer": kept["opt_state"],
            "average": kept["average"],
            "logits": _logits(config, layout, rows),
            "works": working,
        },
        "collectives": collectives_of(compiled.as_text()),
    }
    if memory is not None:
        multiple = config.data.batch_multiple
        fewer = max(multiple, rows // 2 // multiple * multiple)
        other = 2 * rows if fewer == rows else fewer
        less = _compiled(config, layout, placed, other).memory_analysis().temp_size_in_bytes
        for_each = max(working - less, 1) / (rows - other) if rows > other else max(less - working, 1) / (other - rows)
        fit = rows + (memory - sum(kept.values()) - working) / for_each
        found["most_rows"] = max(0, int(fit // multiple * multiple))
    return found


FLOPS = (
    "3 (2 weights tokens + 2 pairs heads (d_k + d_v)): weights that a token meets, the softmax's table too; pairs of "
    "tokens by attention, half of them in a decoder's own, all in an encoder and across; backwards twice as many"
)


def flops_per_step(config: Resolved, flops_per_token: Mapping[str, int]) -> int:
    """FLOPs of a step, by the formula FLOPS, on a batch of the longest examples without padding.

    Args:
      flops_per_token: as `describe` finds them, without attention between tokens.
    """
    rows, width = _rows(config), _width(config)
    if "example" in flops_per_token:
        return rows * flops_per_token["example"]
    pairs = sum(
        depth * rows * width**2 // (2 if place == "decoder" else 1) for place, depth in config.model.depths.items()
    )
    between = 2 * pairs * config.model.num_heads * sum(config.model.head_widths) if pairs else 0
    return rows * width * sum(flops_per_token.values()) + 3 * between


def _rows(config: Resolved) -> int:
    """Rows of a batch of the longest examples."""
    multiple, width = config.data.batch_multiple, _width(config)
    return max(multiple, config.data.tokens_per_batch // width // multiple * multiple)


def _width(config: Resolved) -> int:
    """Tokens of the longest example, or 1 for one that is no tokens."""
    fields = task_of(config).example_batch(config).values()
    return config.data.max_length if all(field.ndim == 2 for field in fields) else 1


def _batch(config: Resolved, rows: int) -> dict[str, Any]:
    width = _width(config)
    return {
        name: jax.ShapeDtypeStruct((1, 1, rows, *([width] if field.ndim == 2 else field.shape[1:])), field.dtype)
        for name, field in task_of(config).example_batch(config).items()
    }


def _compiled(config: Resolved, layout: JitLayout, state: Any, rows: int) -> Any:
    seed = Lane(np.zeros(1, np.int32), {})
    steps: Any = layout.compile_steps(functools.partial(build_steps, config, 1))
    return steps.lower(state, _batch(config, rows), seed, 1).compile()


def _bytes_of(tree: Any) -> int:
    """Of one device's part."""
    leaves = jax.tree.leaves(tree)
    return sum(leaf.dtype.itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in leaves)


def _logits(config: Resolved, layout: JitLayout, rows: int) -> int:
    """Of one device, float32: it may hold them and their gradient at once. 0 for a model without a vocabulary."""
    if "vocab_size" not in config.model.from_data:
        return 0
    sharing = layout.sizes["data"] * layout.sizes["fsdp"] * layout.sizes["tensor"] * config.train.accumulate
    vocabulary: int = value_at(config, "model.vocab_size")
    return 4 * rows * _width(config) * vocabulary // sharing


def collectives_of(program: str) -> dict[str, dict[str, int]]:
    """Kind -> how often devices exchange so in one run of an HLO program, and bytes of the results on each of them.

    What stands in a loop counts as often as the loop is known to run.
    """
    blocks, entry = _blocks(program)
    times: Counter[str] = Counter()
    size: Counter[str] = Counter()

    def walk(name: str, often: int) -> None:
        for line in blocks[name]:
            if exchange := COLLECTIVE.search(line):
                times[exchange[2]] += often
                size[exchange[2]] += often * sum(_sizes(exchange[1]))
            trips = re.search(r'known_trip_count":\{"n":"(\d+)"', line)
            for kind, callee in re.findall(r"(body|calls|to_apply)=%?([\w.\-]+)", line):
                walk(callee, often * (int(trips[1]) if kind == "body" and trips else 1))

    walk(entry, 1)
    return {kind: {"times": times[kind], "bytes": size[kind]} for kind in sorted(times)}


def _blocks(program: str) -> tuple[dict[str, list[str]], str]:
    """The lines of each computation, and the name of the one that is run."""
    blocks: dict[str, list[str]] = {}
    entry, name = "", ""
    for line in program.splitlines():
        if header := re.match(r"(ENTRY )?%?([\w.\-]+) .*\{$", line):
            name = header[2]
            entry = name if header[1] else entry
            blocks[name] = []
        elif name:
            blocks[name].append(line)
    return blocks, entry


def _sizes(shapes: str) -> Iterator[int]:
    """Bytes of each array of a type, as "(f32[2,3]{1,0}, s32[])"."""
    for dtype, numbers in re.findall(r"([a-z]+\d*)\[([\d,]*)\]", shapes):
        yield BYTES[dtype] * math.prod(int(number) for number in numbers.split(",") if number)
