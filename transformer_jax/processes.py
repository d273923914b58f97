"""Processes that this program starts: they run the very same code."""

import os
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent


def of_this_code(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables under which Python imports this program from here, and nothing from the current directory.

    Another checkout may be installed, and the directory may hold a `jax.py`. An empty entry of PYTHONPATH would be the
    directory.
    """
    given = [entry for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if entry]
    path = dict.fromkeys([str(ROOT), *given])
    return {**environment, "PYTHONPATH": os.pathsep.join(path), "PYTHONSAFEPATH": "1"}
