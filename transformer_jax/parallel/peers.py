"""Processes that train one run together: how they find each other, and what the first of them tells the others.

Each holds a part of the devices and takes the same steps. The first one alone reads and writes the run directory; the
others learn from it what stands there. Without others every function here does nothing, or what its argument does.
"""

import contextlib
import dataclasses
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jax.experimental import multihost_utils

from transformer_jax.compilation import available_gpus
from transformer_jax.errors import UserError
from transformer_jax.run.interruption import Interruption
from transformer_jax.strict_json import to_json

HEARTBEAT_SECONDS = 20
"""So long after the last sign of life of a process the others end."""
SHUTDOWN_SECONDS = 10
Tree = Any


@dataclasses.dataclass(frozen=True)
class Peers:
    """What a process must know to find the others.

    Attributes:
      coordinator: host:port of the first; None: JAX finds it out.
      devices: which of the GPUs that it sees are its own; None: all.
      granted: GPUs that Slurm granted it; None: it is not known.
    """

    coordinator: str | None
    number: int | None
    index: int | None
    devices: Sequence[int] | None = None
    granted: int | None = None


def find_peers(
    coordinator: str | None, number: int | None, index: int | None, environment: Mapping[str, str]
) -> Peers | None:
    """From the command line, or from what Slurm or a TPU pod says to its processes; None: this one is alone.

    Raises:
      UserError: only some of the three are given, they cannot be, or others cannot reach the coordinator.
    """
    given = {"--coordinator": coordinator, "--num-processes": number, "--process-id": index}
    if any(value is not None for value in given.values()):
        if missing := [name for name, value in given.items() if value is None]:
            raise UserError(f"{' and '.join(missing)}: give all of {', '.join(given)}, or none.")
        assert coordinator is not None
        assert number is not None
        assert index is not None
        if index >= number:
            raise UserError(f"--process-id={index}: the {number} processes are counted from 0.")
        _check_reachable(coordinator, several_hosts=_nodes(environment) > 1)
        return Peers(coordinator, number, index)
    if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        first = _first_host(environment.get("SLURM_STEP_NODELIST", ""))
        if _nodes(environment) > 1 and first:
            _check_reachable(f"{first}:0", several_hosts=True)
        return Peers(None, None, None, *_of_slurm(environment))
    if "," in environment.get("TPU_WORKER_HOSTNAMES", ""):
        return Peers(None, None, None)
    return None


def _nodes(environment: Mapping[str, str]) -> int:
    return int(environment.get("SLURM_STEP_NUM_NODES", "1"))


def _first_host(nodes: str) -> str:
    """ "node[07-09],other" -> "node07"."""
    name, bracket, rest = nodes.split(",")[0].partition("[")
    return name + rest.rstrip("]").split("-")[0] if bracket else name


def _check_reachable(coordinator: str, several_hosts: bool) -> None:
    """Refuses an address that means another machine on every host."""
    host, colon, port = coordinator.rpartition(":")
    if not (colon and host and port.isdigit()):
        raise UserError(f"--coordinator={coordinator}: give HOST:PORT of the process with --process-id=0.")
    try:
        addresses = {str(found[4][0]) for found in socket.getaddrinfo(host.strip("[]"), None)}
    except OSError as error:
        raise UserError(f"--coordinator={coordinator}: {host} is not known on this machine ({error}).") from error
    is_loopback = any(address.startswith("127.") or address == "::1" for address in addresses)
    is_meant = host in ("localhost", "[::1]") or host.startswith("127.")
    if is_loopback and (several_hosts or not is_meant):
        raise UserError(
            f"the coordinator {coordinator} is the loopback address here ({', '.join(sorted(addresses))}), which no "
            "other host can reach: give the address of its network as --coordinator."
        )


def _of_slurm(environment: Mapping[str, str]) -> tuple[list[int] | None, int | None]:
    """Which GPUs are this task's own, of those that it sees, and how many were granted to it.

    JAX would take one for each task, and leave seven of eight idle where a node has one task.
    """
    seen = len(available_gpus(environment))
    on_node = environment.get("SLURM_GPUS_ON_NODE", "")
    granted = int(on_node) if on_node.isdigit() else None
    if "SLURM_GPUS_PER_TASK" in environment or "SLURM_NTASKS_PER_GPU" in environment:  # Slurm shows each its own
        return list(range(seen)) or None, seen or None
    tasks = _tasks_here(environment)
    own = list(range(seen))[int(environment.get("SLURM_LOCALID", "0")) :: tasks]
    return own or None, None if granted is None else granted // tasks


def _tasks_here(environment: Mapping[str, str]) -> int:
    """Of "2(x3),1", tasks on each node, that of this one."""
    counts: list[int] = []
    for part in environment.get("SLURM_STEP_TASKS_PER_NODE", "1").split(","):
        tasks, _, times = part.partition("(x")
        counts += [int(tasks)] * int(times.rstrip(")") or "1")
    return counts[min(int(environment.get("SLURM_NODEID", "0")), len(counts) - 1)]


@contextlib.contextmanager
def joined(peers: Peers | None, say: Callable[[str], None]) -> Iterator[None]:
    """With the others, if there are any; says which devices each process has.

    Raises:
      UserError: the devices are not those that Slurm granted, or another process ended.
    """
    if peers is None:
        yield
        return
    try:
        jax.distributed.initialize(
            peers.coordinator,
            peers.number,
            peers.index,
            peers.devices,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=SHUTDOWN_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the processes do not find each other: {str(error).splitlines()[0]}.") from error
    try:
        own = jax.local_devices()
        mine = f"{len(own)} x {own[0].device_kind} on {socket.gethostname()}"
        say(f"Process {jax.process_index()} of {jax.process_count()}: {mine}.")
        used = len(own) if own[0].platform == "gpu" else 0
        if peers.granted is not None and used != peers.granted:
            raise UserError(f"Slurm granted {peers.granted} GPUs to this process, but JAX uses {mine}: see `doctor`.")
        try:
            yield
        except Interruption:
            of_first(lambda: None)
            raise
        of_first(lambda: None)  # nobody leaves while the first one still writes
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1 or "RESOURCE_EXHAUSTED" in str(error):
            raise
        raise UserError(
            f"process {jax.process_index()} cannot resume without the others, of which one has ended (see what it "
            f"printed): {str(error).splitlines()[0]}. Once all have ended, the same command resumes."
        ) from error


def is_first() -> bool:
    """Whether this process reads and writes the run directory."""
    return jax.process_index() == 0


def of_first(function: Callable[[], Any]) -> Any:
    """What `function` returns, as JSON, at the first process, for all. It is called there only.

    Raises:
      UserError: as there, at all of them.
    """
    if jax.process_count() == 1:
        return function()
    outcome: dict[str, Any] = {}
    refused: UserError | None = None
    if is_first():
        try:
            outcome = {"value": function()}
        except UserError as error:
            outcome, refused = {"refused": str(error)}, error
    outcome = json.loads(_told(to_json(outcome).encode()))
    if "refused" in outcome:
        raise refused or UserError(outcome["refused"])
    return outcome["value"]


def check_same(*said: str) -> None:
    """Refuses processes that do not say the same, as of other data.

    Raises:
      UserError: at those that differ from the first.
    """
    if of_first(lambda: list(said)) != list(said):
        raise UserError(f"process {jax.process_index()} reads other data than the first: give all the same files.")


def arrays_of_first(tree: Tree | None, template: Tree) -> Tree:
    """Arrays of the first process for all of them, bit for bit; the others give None, and shapes and dtypes."""
    if jax.process_count() == 1:
        return tree
    shapes, structure = jax.tree.flatten(template)
    leaves = shapes if tree is None else jax.tree.leaves(tree)
    told = [
        _bytes_of_first(np.asarray(leaf) if is_first() else np.zeros(shape.shape, shape.dtype))
        for leaf, shape in zip(leaves, shapes, strict=True)
    ]
    return jax.tree.unflatten(structure, told)


def _bytes_of_first(array: np.ndarray) -> np.ndarray:
    # As bytes, whose sum with zeros is what they were: that of numbers is not, for -0.0.
    told = multihost_utils.broadcast_one_to_all(np.frombuffer(array.tobytes(), np.uint8))
    return np.frombuffer(np.asarray(told).tobytes(), array.dtype).reshape(array.shape)


def _told(text: bytes) -> bytes:
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    buffer = np.zeros(size, np.uint8)
    if is_first():
        buffer[:] = np.frombuffer(text, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(buffer)).tobytes()


class Stop(Protocol):
    """True once somebody has asked to stop."""

    def __bool__(self) -> bool: ...


class StopTogether:
    """True at all processes from the same question on, once one of them was asked to stop: they ask equally often.

    A step, as JAX counts them for this, is a question.
    """

    def __init__(self, asked: list[int]):
        self._asked = asked
        self._questions = 0
        self._told = False

    def __bool__(self) -> bool:
        if jax.process_count() == 1:
            return bool(self._asked)
        if self._asked and not self._told:  # by Ctrl-C, or as nobody reads what it prints
            os.kill(os.getpid(), signal.SIGTERM)  # to JAX, which tells the others
            self._told = True
        self._questions += 1
        return bool(multihost_utils.reached_preemption_sync_point(self._questions))


def signals_to_stop() -> tuple[signal.Signals, ...]:
    """What asks this program to stop. Where there are other processes, SIGTERM is JAX's, which tells them."""
    return (signal.SIGINT, signal.SIGTERM) if jax.process_count() == 1 else (signal.SIGINT,)
