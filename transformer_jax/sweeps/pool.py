"""The processes of a sweep, each of which takes one task after another; one that dies costs one run."""

import contextlib
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from transformer_jax.checked_json import read_json
from transformer_jax.compilation import available_cpus, available_gpus
from transformer_jax.errors import UserError
from transformer_jax.processes import of_this_code
from transformer_jax.report.wording import seconds_text
from transformer_jax.run.directory import ERROR, RESULT, is_settled, write_json
from transformer_jax.run.interruption import Interruption, stop_requested
from transformer_jax.sweeps.worker import UNFORESEEN, Task, write_task

Say = Callable[[str], None]
LOG_PREFIX = re.compile(r"[A-Z]\d{4} [\d:.]+ +\d+ ")  # of XLA: level and date, time, thread


def run_tasks(
    tasks: Sequence[Task],
    directory: Path,
    workers: int,
    time_limit: float | None,
    environment: Mapping[str, str],
    say: Say,
) -> None:
    """Runs the tasks, `workers` at a time. A run whose process dies is marked as failed; those after it are trained.

    Where all fail for the same reason, no more are tried.

    Args:
      directory: where the tasks are written for the processes.
      time_limit: seconds for a run, the start of its process included; a run that takes longer is ended.
      environment: variables of the processes; each is told which GPUs are its own.

    Raises:
      Interruption: asked to stop; every run has saved its state.
      UserError: all failed for the same reason.
    """
    waiting = list(tasks)
    running: dict[int, _Worker] = {}
    shares = [available_cpus()[k::workers] for k in range(workers)]
    gpus = available_gpus(environment)
    environments = [pinned(environment, k, workers, gpus) for k in range(workers)]
    progress, failures = _Progress(tasks, say), _Failures(tasks, say)
    with stop_requested() as stop:
        while (may_begin := bool(waiting) and not stop and not failures.are_certain()) or running:
            for place in range(workers):
                if place not in running and waiting and may_begin:
                    running[place] = _Worker(directory, shares[place], environments[place], say)
                    running[place].take(waiting.pop(-1 if failures.are_suspect() else 0))
            for place, worker in list(running.items()):
                if worker.has_ended():
                    left = running.pop(place).close(failures, stopped=bool(stop))
                    waiting[:0] = [left] if left else []
                elif stop:  # again and again: a worker may be between two runs, where nobody listens
                    worker.stop()
                elif not worker.is_idle():
                    worker.check_time(time_limit)
                elif waiting and may_begin:
                    worker.take(waiting.pop(-1 if failures.are_suspect() else 0))
                else:
                    worker.dismiss()
            if any(worker.has_spoken for worker in running.values()):
                failures.say_held_back()
            progress.show()
            time.sleep(0.1)
    if stop:
        raise Interruption(None)
    failures.close()


def pinned(environment: Mapping[str, str], place: int, workers: int, gpus: Sequence[str]) -> Mapping[str, str]:
    """The variables of a worker: each sees its own GPUs, or shares one where there are fewer than workers."""
    if workers == 1 or not gpus:
        return environment
    own = {"CUDA_VISIBLE_DEVICES": ",".join(gpus[place::workers] or gpus[place % len(gpus) :][:1])}
    sharers = len(range(place % len(gpus), workers, len(gpus)))
    share = {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{0.9 / sharers:.2f}"} if sharers > 1 else {}
    return {**share, **environment, **own}


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


class _Failures:
    """Tells when all runs fail for one reason, which can be none of theirs: it is said once, and no more are tried."""

    def __init__(self, tasks: Sequence[Task], say: Say):
        self._workdirs = [workdir for task in tasks for workdir in task.workdirs if not is_settled(workdir)]
        self._least = tasks[-1].workdirs if tasks else ()
        self._say = say
        self._starts = self._at_start = 0  # processes that died at their start, and their runs
        self._held_back: list[str] = []

    def add(self, lines: Sequence[str], at_start: bool) -> None:
        """Says the lines of a process that died, unless it was its start: that may be the first of many alike."""
        self._held_back += lines
        if at_start:
            self._starts += 1
            self._at_start += len(lines)
        else:
            self.say_held_back()

    def say_held_back(self) -> None:
        for line in self._held_back:
            self._say(line)
        self._held_back = []

    def _failed(self) -> list[Path]:
        """The failed runs, if there are two, for one reason, and no run came to another end."""
        if any((workdir / RESULT).is_file() for workdir in self._workdirs):
            return []
        failed = [workdir for workdir in self._workdirs if is_settled(workdir)]
        reasons = [_reason(workdir) for workdir in failed]
        return failed if len(failed) > 1 and len(set(reasons)) == 1 and reasons[0] else []

    def are_suspect(self) -> bool:
        """Whether the run with the least work is to be tried next. Others may be too large, and so may the next."""
        return bool(self._failed())

    def are_certain(self) -> bool:
        """Whether all others would fail alike: processes die at their start, or the run with the least work failed."""
        failed = self._failed()
        if self._starts > 1 and self._at_start == len(failed):
            return True
        return len(failed) > 2 and self._least[0] in failed

    def close(self) -> None:
        """UserError if all failed alike."""
        if not self.are_certain():
            self.say_held_back()
            return
        failed = self._failed()
        raise UserError(
            f"every run fails for the same reason: {_message(failed[0])}. {len(failed)} of {len(self._workdirs)} were "
            "tried; when it is mended, give the same command with --retry-failed."
        )


def _message(workdir: Path) -> str:
    """What error.json says; "" if it says nothing."""
    try:
        return str(read_json(workdir / ERROR)["message"]).rstrip(".")
    except (UserError, KeyError, TypeError):
        return ""


def _reason(workdir: Path) -> str:
    """The message without what differs from run to run, as times and addresses do."""
    return re.sub(r"0x[0-9a-f]+|[0-9]+", "#", _message(workdir))


class _Worker:
    """A process and its present task, and threads that pass its lines on."""

    def __init__(self, directory: Path, cpus: Sequence[int], environment: Mapping[str, str], say: Say):
        self._directory, self._say = directory, say
        command = [sys.executable, "-m", "transformer_jax.sweeps.worker", str(directory), ",".join(map(str, cpus))]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # names its tasks; it ends with this process, and the worker with it
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=of_this_code(environment),
            start_new_session=True,  # Ctrl-C reaches this process alone, which passes it on
        )
        assert self._process.stdin is not None
        self._names = self._process.stdin
        self._end = ""  # why this process was ended from here
        self._tail = ""
        self._last_words = ""  # the last line of its standard error
        self.has_spoken = False
        """Whether a run of it has begun."""
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read, self._read_errors)]
        for reader in self._readers:
            reader.start()

    def take(self, task: Task) -> None:
        """Gives it a task."""
        self._task = task
        if self.has_spoken:  # what was said before is of its start, of which it may be dead already
            self._tail = self._last_words = ""
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
            self.has_spoken = True
            self._say(line.rstrip("\n"))
            self._tail = (self._tail + line)[-2000:]

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if self.has_spoken:  # else it is the start, which is alike for all: told if it dies of it
                self._say(line.rstrip("\n"))
            self._tail = (self._tail + line)[-2000:]
            self._last_words = LOG_PREFIX.sub("", line.strip()) or self._last_words

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

    def close(self, failures: _Failures, stopped: bool) -> Task | None:
        """After the end: marks the run that the process died of, unless it was `stopped`; a task of those after it."""
        self.dismiss()
        for reader in self._readers:
            reader.join()
        left = self._open_runs()
        if stopped or not left:
            return None
        if self._process.returncode == UNFORESEEN:  # the run that failed has said so itself
            return self._task.only(left)
        first = len(left) if self._task.lanes > 1 else 1
        message = self._end or self._how_it_ended()
        for k in left[:first]:
            error = {"type": "ProcessEnded", "message": message, "traceback": self._tail}
            write_json(self._task.workdirs[k] / ERROR, error)
        failures.add([f"[{self._task.label([k])}] failed: {message}" for k in left[:first]], not self.has_spoken)
        return self._task.only(left[first:]) if left[first:] else None

    def _how_it_ended(self) -> str:
        ended = f"the process of the run ended with status {self._process.returncode}"
        return f"{ended}: {self._last_words}" if self._last_words else ended
