"""Outputs that are written in parts: examples that are done leave their batch, and those that are not share new ones.

A batch writes as many tokens as its longest output has. So all examples of a width first write as many tokens as that,
which most need at most. The few that are not done then are gathered from all batches into smaller ones, with room for
more tokens, and again after every half as many. What an example writes does not depend on the batches it passes
through. L lanes, whose examples are done at different times and so are gathered apart.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.config import Config
from transformer_jax.models.model import Model, Params
from transformer_jax.models.tokens import Batch

FEWEST_BATCHES = 2
"""Of a width, for which parts pay: they cost a second program to compile."""
SMALLER = 4
"""How many times smaller the batches are to which examples come that were not done in their first."""


@runtime_checkable
class InParts(Protocol):
    """The output of a task that can be left between two tokens; see `tasks.writing`."""

    def longest(self, config: Config, batch: Batch) -> int:
        """The most tokens of an output."""

    def begin(self, config: Config, model: Model, params: Params, batch: Batch, length: int) -> tuple[Any, Any]:
        """What is predicted after up to `length` tokens, and the draft: `found.done_B`, and all else to resume it."""

    def resume(self, config: Config, model: Model, params: Params, draft: Any, until: jax.Array) -> tuple[Any, Any]:
        """The same, for a draft with room for the longest output, after up to `until` tokens."""


Function = Callable[[Config, Model, Params, Any], Any]


class _Waiting(NamedTuple):
    """Examples of one lane that are not done: their indices, and their part of a draft [n, ...]."""

    indices: np.ndarray
    draft: Any


class Relay:
    """Compiles once what writes an output in parts.

    Args:
      model, example: that of the config, and a batch from which it can be initialised; to know shapes.
      compile_rows: (function, whether all lanes share its batch) -> the function of all lanes.
    """

    def __init__(
        self,
        config: Config,
        output: InParts,
        model: Model,
        example: Batch,
        compile_rows: Callable[[Function, bool], Callable[[Any, Any], Any]],
        lanes: int,
    ):
        self._config, self._output, self._model, self._example, self._lanes = config, output, model, example, lanes
        self._room = functools.cache(self._make_room)
        self._begin = compile_rows(self._first, True)
        self._resume = compile_rows(self._next, False)

    def _first(self, config: Config, model: Model, params: Params, batch: Batch) -> Any:
        return self._output.begin(config, model, params, batch, batch["inputs"].shape[1])

    def _next(self, config: Config, model: Model, params: Params, drafts: tuple[Any, jax.Array]) -> Any:
        draft, until_B = drafts
        return self._output.resume(config, model, params, draft, until_B[0])

    def rows(self, trained: Any, batches: Sequence[tuple[np.ndarray, Any]]) -> tuple[np.ndarray, Any]:
        """Of batches of one shape: the indices of their examples in order, and [lanes, examples, ...] of each."""
        found: list[list[_Waiting]] = [[] for _ in range(self._lanes)]
        size, width = batches[0][1]["inputs"].shape
        longest = self._output.longest(self._config, batches[0][1])
        multiple = self._config.data.batch_multiple
        room = self._room(max(size // SMALLER // multiple, 1) * multiple, width, longest)
        left = self._begun(trained, batches, found)
        for until in untils(width, longest):
            left = self._resumed(trained, left, until, room, found)
        assert all(len(part.indices) == 0 for parts in left for part in parts)  # at its limit an example is done
        order = [np.concatenate([part.indices for part in of_lane]) for of_lane in found]
        rows = [jax.tree.map(lambda *a: np.concatenate(a), *(part.draft for part in of_lane)) for of_lane in found]
        sorted_rows = [jax.tree.map(lambda a, o=o: a[np.argsort(o)], r) for o, r in zip(order, rows, strict=True)]
        return np.sort(order[0]), jax.tree.map(lambda *lanes: np.stack(lanes), *sorted_rows)

    def _begun(
        self, trained: Any, batches: Sequence[tuple[np.ndarray, Any]], found: list[list[_Waiting]]
    ) -> Iterator[list[_Waiting]]:
        """Those of every batch that are not done with it, of each lane."""
        for indices, batch in batches:
            rows, draft = self._begin(trained, batch)
            yield self._parted([indices] * self._lanes, rows, draft, found)

    def _resumed(
        self,
        trained: Any,
        waiting: Iterator[list[_Waiting]],
        until: int,
        room: Any,
        found: list[list[_Waiting]],
    ) -> Iterator[list[_Waiting]]:
        """The same of those that wait, after `until` tokens, in batches of which `room` has the shapes."""
        size = len(room.step_B)
        pools: list[list[_Waiting]] = [[] for _ in range(self._lanes)]
        ended = False
        while not ended:
            arrived = next(waiting, None)
            ended = arrived is None
            for pool, new in zip(pools, arrived or [], strict=not ended):
                if len(new.indices):
                    pool.append(new)
            while any(sum(len(w.indices) for w in pool) >= (1 if ended else size) for pool in pools):
                taken = [_take(pool, size) for pool in pools]
                indices, draft = _gathered(taken, room)
                rows, draft = self._resume(trained, (draft, np.full(indices.shape, until, np.int32)))
                yield self._parted(list(indices), rows, draft, found)

    def _parted(
        self, indices_LB: Sequence[np.ndarray], rows: Any, draft: Any, found: list[list[_Waiting]]
    ) -> list[_Waiting]:
        """Adds those that are done to what is found, lane by lane; returns the others."""
        left: list[_Waiting] = []
        for lane, indices_B in enumerate(indices_LB):
            real_B, done_B = indices_B >= 0, draft.found.done_B[lane]
            for chosen_B, tree, where in ((real_B & done_B, rows, found[lane]), (real_B & ~done_B, draft, left)):
                of_lane = jax.tree.map(lambda a, lane=lane, chosen_B=chosen_B: np.asarray(a[lane])[chosen_B], tree)
                where.append(_Waiting(indices_B[chosen_B], of_lane))
        return left

    def _make_room(self, size: int, width: int, longest: int) -> Any:
        """Zeros of the shapes of a draft of one lane in which the longest output finds room; they take none."""

        def begin() -> Any:
            params = self._model.init(jax.random.key(0), self._example)
            batch = {"inputs": jnp.zeros((size, width), jnp.int32), "example": jnp.zeros(size, jnp.int32)}
            return self._output.begin(self._config, self._model, params, batch, longest)[1]

        shapes = jax.eval_shape(begin)
        return jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), shapes)


def _take(pool: list[_Waiting], size: int) -> list[_Waiting]:
    """Takes the first `size` examples out of the pool, or all there are."""
    taken: list[_Waiting] = []
    while pool and size:
        first = pool.pop(0)
        if len(first.indices) > size:
            pool.insert(0, _part(first, slice(size, None)))
            first = _part(first, slice(size))
        taken.append(first)
        size -= len(first.indices)
    return taken


def _part(waiting: _Waiting, places: slice) -> _Waiting:
    return _Waiting(waiting.indices[places], jax.tree.map(lambda leaf: leaf[places], waiting.draft))


def _gathered(taken: Sequence[Sequence[_Waiting]], room: Any) -> tuple[np.ndarray, Any]:
    """[lanes, size] indices and [lanes, size, ...] draft of those of each lane; -1 and zeros at places without one."""
    indices = np.full((len(taken), len(room.step_B)), -1)
    draft = jax.tree.map(lambda leaf: np.zeros((len(taken), *leaf.shape), leaf.dtype), room)
    for lane, of_lane in enumerate(taken):
        start = 0
        for part in of_lane:
            places = slice(start, start + len(part.indices))
            indices[lane, places] = part.indices

            def put(leaf: np.ndarray, of_part: np.ndarray, lane: int = lane, places: slice = places) -> None:
                leaf[lane, places][tuple(slice(size) for size in of_part.shape)] = of_part

            jax.tree.map(put, draft, part.draft)
            start = places.stop
    return indices, draft


def untils(width: int, longest: int) -> Iterator[int]:
    """After how many tokens examples are gathered again, the first `width` being written."""
    while width < longest:
        width = min(width + max(width // 2, 1), longest)
        yield width
