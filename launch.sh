#!/usr/bin/env bash
# The door: makes .venv on a machine that has Python 3.11+ and a package index, once; then runs the command.
#   ./launch.sh                the quick-start sweep and its report
#   ./launch.sh test [ARGS]    the whole test suite (ARGS go to pytest)
#   ./launch.sh COMMAND ...    train, evaluate, translate, sweep, report, describe, doctor
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv=${TRANSFORMER_JAX_VENV:-$here/.venv}

find_python() {
    local candidate
    for candidate in python3.13 python3.12 python3.11 python3 python; do
        if command -v "$candidate" >/dev/null &&
            "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "launch.sh: Python 3.11, 3.12 or 3.13 is needed, and none was found." >&2
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

# Installs what pyproject.toml asks for with the extras $1, unless that was done before.
install() {
    local wanted="$1" stamp
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
        [ -x "$venv/bin/python" ] || "$(find_python)" -m venv "$venv"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$here${wanted:+[$wanted]}" >&2
        touch "$stamp"
    fi
    rmdir "$lock"
    trap - EXIT
}

extras=$(accelerator)
if [ "${1:-}" = test ]; then
    shift
    install "${extras:+$extras,}test"
    cd "$here"
    exec "$venv/bin/python" -m pytest "$@"
fi
install "$extras"
exec "$venv/bin/python" -m transformer_jax.cli "$@"
