"""The processes of a sweep, each of which takes one task after another; one that dies costs one run."""

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from transformer_jax.compilation import available_cpus
from transformer_jax.run.directory import ERROR, is_settled, write_json
from transformer_jax.run.interruption import Interruption, stop_requested
from transformer_jax.sweeps.wording import seconds_text
from transformer_jax.sweeps.worker import UNSOUND, Task, write_task

Say = Callable[[str], None]


def run_tasks(
    tasks: Sequence[Task],
    directory: Path,
    workers: int,
    time_limit: float | None,
    environment: Mapping[str, str],
    say: Say,
) -> None:
    """Runs the tasks, `workers` at a time. A run whose process dies is marked as failed; those after it are trained.

    Args:
      directory: where the tasks are written for the processes.
      time_limit: seconds for a run, the start of its process included; a run that takes longer is ended.
      environment: variables of the processes.

    Raises:
      Interruption: asked to stop; every run has saved its state.
    """
    waiting = list(tasks)
    running: dict[int, _Worker] = {}
    shares = [available_cpus()[k::workers] for k in range(workers)]
    progress = _Progress(tasks, say)
    with stop_requested() as stop:
        while (waiting and not stop) or running:
            for place in range(workers):
                if place not in running and waiting and not stop:
                    running[place] = _Worker(directory, shares[place], environment, say)
                    running[place].take(waiting.pop(0))
            for place, worker in list(running.items()):
                if worker.has_ended():
                    left = running.pop(place).close(stopped=bool(stop))
                    waiting[:0] = [left] if left else []
                elif stop:  # again and again: a worker may be between two runs, where nobody listens
                    worker.stop()
                elif not worker.is_idle():
                    worker.check_time(time_limit)
                elif waiting:
                    worker.take(waiting.pop(0))
                else:
                    worker.dismiss()
            progress.show()
            time.sleep(0.1)
    if stop:
        raise Interruption(None)


class _Progress:
    """Says how many runs are done whenever that changes, and when the rest will be."""

    def __init__(self, tasks: Sequence[Task], say: Say):
        self._workdirs = [workdir for task in tasks for workdir in task.workdirs if not is_settled(workdir)]
        self._say = say
        self._begun = time.monotonic()
        self._done = 0

    def show(self) -> None:
        done, total = sum(map(is_settled, self._workdirs)), len(self._workdirs)
        if self._done < done < total:
            left = (time.monotonic() - self._begun) / done * (total - done)
            self._say(f"{done} of {total} runs done, about {seconds_text(left)} left")
        self._done = done


class _Worker:
    """A process and its present task, and a thread that passes its lines on."""

    def __init__(self, directory: Path, cpus: Sequence[int], environment: Mapping[str, str], say: Say):
        self._directory, self._say = directory, say
        command = [sys.executable, "-m", "transformer_jax.sweeps.worker", str(directory), ",".join(map(str, cpus))]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # names its tasks; it ends with this process, and the worker with it
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
            start_new_session=True,  # Ctrl-C reaches this process alone, which passes it on
        )
        assert self._process.stdin is not None
        self._names = self._process.stdin
        self._end = ""  # why this process was ended from here
        self._tail = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def take(self, task: Task) -> None:
        """Gives it a task."""
        self._task, self._tail = task, ""
        self._open, self._since = len(task.workdirs), time.monotonic()
        with contextlib.suppress(BrokenPipeError):  # it has died: `close` tells
            print(write_task(self._directory, task).name, file=self._names, flush=True)

    def is_idle(self) -> bool:
        """Whether it waits for a task: not once it was dismissed."""
        return not self._open_runs() and not self._names.closed

    def dismiss(self) -> None:
        """Lets it end."""
        with contextlib.suppress(BrokenPipeError):
            self._names.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._say(line.rstrip("\n"))
            self._tail = (self._tail + line)[-2000:]

    def stop(self) -> None:
        """Asks the process to save and end."""
        self._process.send_signal(signal.SIGTERM)

    def check_time(self, limit: float | None) -> None:
        """Ends the process if its present run takes longer than `limit` seconds, lanes that for each of them."""
        if limit is None:
            return
        if (still_open := len(self._open_runs())) != self._open:
            self._open, self._since = still_open, time.monotonic()
        if time.monotonic() - self._since > limit * self._task.lanes:
            self._end = f"the run took longer than the time limit of {limit:g} seconds"
            self._process.kill()

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def _open_runs(self) -> list[int]:
        return [k for k, workdir in enumerate(self._task.workdirs) if not is_settled(workdir)]

    def close(self, stopped: bool) -> Task | None:
        """After the end: marks the run that the process died of, unless it was `stopped`; a task of those after it."""
        self.dismiss()
        self._reader.join()
        left = self._open_runs()
        if stopped or not left:
            return None
        if self._process.returncode == UNSOUND:  # the run that failed has said so itself
            return self._task.only(left)
        first = len(left) if self._task.lanes > 1 else 1
        message = self._end or f"the process of the run ended with status {self._process.returncode}"
        for k in left[:first]:
            self._say(f"[{self._task.label([k])}] failed: {message}")
            error = {"type": "ProcessEnded", "message": message, "traceback": self._tail}
            write_json(self._task.workdirs[k] / ERROR, error)
        return self._task.only(left[first:]) if left[first:] else None
