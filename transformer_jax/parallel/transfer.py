"""Arrays between host and devices, where the devices may be those of several processes."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding

from transformer_jax.errors import UserError

Tree = Any


def devices_of_all(count: int) -> list[jax.Device]:
    """So many devices, of each process equally many.

    Raises:
      UserError: they cannot be shared evenly.
    """
    processes = jax.process_count()
    if count % processes:
        raise UserError(
            f"{count} devices cannot be shared evenly by {processes} processes: choose data.batch_multiple, or "
            "parallel.data, as a multiple of that."
        )
    of_each = [[device for device in jax.devices() if device.process_index == k] for k in range(processes)]
    return [device for devices in of_each for device in devices[: count // processes]]


def to_devices(tree: Tree, shardings: Tree) -> Tree:
    """Host arrays, the same at every process, where they shall lie: each process hands over its part."""
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings)

    def place(leaf: Any, sharding: NamedSharding) -> jax.Array:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return leaf
        array = np.asarray(leaf)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    if isinstance(shardings, NamedSharding):
        return jax.tree.map(lambda leaf: place(leaf, shardings), tree)
    return jax.tree.map(place, tree, shardings)


def to_host(tree: Tree) -> Tree:
    """NumPy arrays, the same at every process."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    leaves, structure = jax.tree.flatten(tree)
    jax.block_until_ready(leaves)
    found: list[Any] = [
        np.asarray(leaf.addressable_data(0)) if isinstance(leaf, jax.Array) and leaf.is_fully_replicated else leaf
        for leaf in leaves
    ]
    spread = [k for k, leaf in enumerate(found) if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable]
    for k, whole in zip(spread, _whole([found[k] for k in spread]), strict=True):
        found[k] = whole
    return jax.device_get(jax.tree.unflatten(structure, found))


def _whole(arrays: Sequence[jax.Array]) -> list[np.ndarray]:
    """Arrays of which each process holds a part, by one exchange of bytes."""
    if not arrays:
        return []
    own = [shard.data for array in arrays for shard in sorted(array.addressable_shards, key=lambda s: s.device.id)]
    sent = np.concatenate([np.ascontiguousarray(part).reshape(-1).view(np.uint8) for part in map(np.asarray, own)])
    whole = [np.empty(array.shape, array.dtype) for array in arrays]
    for process, received in enumerate(multihost_utils.process_allgather(sent)):
        start = 0
        for array, target in zip(arrays, whole, strict=True):
            places: dict[Any, Any] = dict(array.sharding.devices_indices_map(array.shape))
            for device in sorted(places, key=lambda device: device.id):
                if device.process_index == process:
                    place = target[places[device]]
                    end = start + place.nbytes
                    target[places[device]] = received[start:end].view(array.dtype).reshape(place.shape)
                    start = end
    return whole
