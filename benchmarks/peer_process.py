"""The process in which the peers of a benchmark run, in an environment of their own.

TRANSFORMER_JAX_PEERS names its Python; whatever of these is not there is reported as missing:

    python -m venv PEERS && PEERS/bin/pip install torch transformers ctranslate2 x-transformers
    export TRANSFORMER_JAX_PEERS=PEERS/bin/python
"""

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformer_jax.errors import UserError
from transformer_jax.strict_json import to_json

PEERS = "TRANSFORMER_JAX_PEERS"
SCRIPTS = Path(__file__).parent / "peers"


class Peers:
    """A script of `peers/`, which answers lines of JSON by lines of JSON; without the environment, no peer is there.

    Attributes:
      names: the peers that are there.
      versions: library -> its version.
    """

    def __init__(
        self, script: str, folder: Path, say: Callable[[str], None], variables: Mapping[str, str] | None = None
    ):
        self.names: list[str] = []
        self.versions: dict[str, str] = {}
        python = os.environ.get(PEERS)
        if python is None:
            say(f"{PEERS} names no Python: the peers are missing. See benchmarks/peer_process.py.")
            return
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | (variables or {})
        pipe = subprocess.PIPE
        command = [python, str(SCRIPTS / script), str(folder)]
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
        started = self._answer()
        self.names, self.versions = started["peers"], started["versions"]

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a question; the script says which there are."""
        assert self._process.stdin is not None
        self._process.stdin.write(to_json(question) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def end(self) -> None:
        """Ends the process."""
        if self.names:
            self._process.communicate()

    def peak_mib(self) -> float:
        """The most memory that the process has had."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise UserError(f"{PEERS}: the process of the peers ended; its message stands above.")
        return json.loads(line)
