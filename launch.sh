#!/usr/bin/env bash
# The door: makes .venv on a machine that has Python 3.11+ and a package index, once; then runs the command.
#   ./launch.sh                the quick-start sweep and its report
#   ./launch.sh test [ARGS]    the whole test suite (ARGS go to pytest)
#   ./launch.sh COMMAND ...    train, evaluate, translate, sweep, report, describe, doctor
# Variables:
#   TRANSFORMER_JAX_PYTHON     the Python to make the environment with, a name or a path (default: the newest found)
#   TRANSFORMER_JAX_VENV       the environment (default: .venv beside this file); checkouts may share one
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv=${TRANSFORMER_JAX_VENV:-$here/.venv}

case $venv in /*) ;; *) venv=$PWD/$venv ;; esac
export PYTHONSAFEPATH=1 # nothing is imported from the current directory

# Whether the Python $1 runs (a shim of pyenv may not) and is of a version that is supported.
is_supported() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1
}

find_python() {
    local candidate
    if [ -n "${TRANSFORMER_JAX_PYTHON:-}" ]; then
        if is_supported "$TRANSFORMER_JAX_PYTHON"; then
            echo "$TRANSFORMER_JAX_PYTHON"
            return
        fi
        echo "launch.sh: TRANSFORMER_JAX_PYTHON=$TRANSFORMER_JAX_PYTHON is no Python 3.11, 3.12 or 3.13 that runs." >&2
        return 1
    fi
    for candidate in python3.13 python3.12 python3.11 python3 python; do
        if is_supported "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    echo "launch.sh: Python 3.11, 3.12 or 3.13 is needed, and none was found." >&2
    return 1
}

# Refuses an environment of another Python than the one that is asked for.
check_python() {
    local python wanted found version='import sys; print(sys.version.split()[0])'
    [ -n "${TRANSFORMER_JAX_PYTHON:-}" ] && [ -x "$venv/bin/python" ] || return 0
    python=$(find_python) || return 1
    wanted=$("$python" -c "$version")
    found=$("$venv/bin/python" -c "$version")
    [ "$wanted" = "$found" ] && return
    echo "launch.sh: $venv has Python $found, but TRANSFORMER_JAX_PYTHON is $wanted: remove the environment, or name" \
        "another one by TRANSFORMER_JAX_VENV." >&2
    return 1
}

# The JAX build for the accelerator of this machine; none is needed for the CPU.
accelerator() {
    if command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1; then
        if nvidia-smi | grep -q 'CUDA Version: 12'; then echo cuda12; else echo cuda13; fi
    elif [ -n "${TPU_NAME:-}${TPU_WORKER_ID:-}" ]; then
        echo tpu
    fi
}

# What pyproject.toml asks for with the extras $1, one requirement a line.
requirements() {
    "$venv/bin/python" - "$here/pyproject.toml" "$1" <<'END'
import pathlib, sys, tomllib

project = tomllib.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))["project"]

def of_extras(names):
    for name in filter(None, names.split(",")):
        for wanted in project["optional-dependencies"][name]:
            own, _, extras = wanted.rstrip("]").partition("[")
            yield from of_extras(extras) if own == project["name"] else [wanted]

print(*project["dependencies"], *of_extras(sys.argv[2]), sep="\n")
END
}

# Installs what pyproject.toml asks for with the extras $1, unless that was done before. Only the checkout's own
# environment is told where the code lies: several may share another one.
install() {
    local wanted="$1" stamp python what
    stamp=$venv/installed-$(cd "$here" && cksum <pyproject.toml | cut -d' ' -f1)-${wanted//,/-}
    [ -e "$stamp" ] && return
    lock=$venv.lock # not local: the trap needs it when the function has gone
    mkdir -p "$(dirname "$venv")"
    # mkdir is atomic on shared file systems too: one host installs, the others wait.
    until mkdir "$lock" 2>/dev/null; do
        [ -e "$stamp" ] && return
        if [ -z "${waiting:-}" ]; then
            waiting=1
            echo "launch.sh: waiting for another installation to end; if there is none, remove $lock" >&2
        fi
        if [ -n "$(find "$lock" -maxdepth 0 -mmin +30 2>/dev/null)" ]; then rmdir "$lock" 2>/dev/null || true; fi
        sleep 1
    done
    trap 'rmdir "$lock" 2>/dev/null || true' EXIT
    if [ ! -e "$stamp" ]; then
        echo "launch.sh: installing into $venv (once) ..." >&2
        if [ ! -x "$venv/bin/python" ]; then
            python=$(find_python) || exit 1
            "$python" -m venv "$venv"
        fi
        what=(--editable "$here${wanted:+[$wanted]}")
        if [ "$venv" != "$here/.venv" ]; then
            requirements "$wanted" >"$venv/requirements.txt"
            what=(--requirement "$venv/requirements.txt")
        fi
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "${what[@]}" >&2
        touch "$stamp"
    fi
    rmdir "$lock"
    trap - EXIT
}

# This checkout's code runs, whatever is installed in the environment. An empty entry of PYTHONPATH would be the current
# directory.
use_this_checkout() {
    local entry given path=$here
    IFS=: read -ra given <<<"${PYTHONPATH:-}"
    for entry in ${given[@]+"${given[@]}"}; do
        if [ -n "$entry" ]; then path+=:$entry; fi
    done
    export PYTHONPATH=$path
}

check_python
extras=$(accelerator)
if [ "${1:-}" = test ]; then
    shift
    install "${extras:+$extras,}test"
    use_this_checkout
    cd "$here"
    exec "$venv/bin/python" -m pytest "$@"
fi
install "$extras"
use_this_checkout
# Ctrl-C while Python itself starts would be a traceback: it is held back until the first lines of the command take it.
hold=(env --block-signal=INT)
"${hold[@]}" true 2>/dev/null || hold=() # GNU's env can
exec ${hold[@]+"${hold[@]}"} "$venv/bin/python" -m transformer_jax.cli "$@"
