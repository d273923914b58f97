"""What makes a run the one that it is: its config, its data, and the version of the numerics."""

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

from transformer_jax.checked_json import checked, read_json
from transformer_jax.config import Config, config_hash, flatten, freeze, to_dict
from transformer_jax.errors import UserError
from transformer_jax.run.directory import CONFIG, DATA, RESULT, check_entries, write_json

NUMERICS = 2
"""To be raised with every change after which the same config gives other numbers, a changed default among them: older
runs are not reused then."""
IMPORTED = "imported"  # in data.json: the model of another program that a run was made of; it has no data of its own
TRAINED = "config"  # in what is saved beside a state: the config that it was trained with
MEANING = ("model.", "task.", "data.tokenizer", "data.joint_vocabulary")
"""Fields that say what the parameters of a run mean."""


def run_key(config: Config, fingerprint: str) -> str:
    """SHA-256 that two runs share exactly if they are the same experiment: config, data and numerics."""
    return hashlib.sha256(f"{config_hash(config)} {fingerprint} {NUMERICS}".encode()).hexdigest()


def read_result(directory: Path) -> dict[str, Any]:
    """What result.json says of a run.

    Raises:
      UserError: it cannot be read, or does not say what every result does.
    """
    path = directory / RESULT
    fields = {"status": Literal["finished", "diverged"], "key": str, "steps": int, "metrics": dict[str, dict[str, Any]]}
    try:
        return checked(read_json(path), fields, path)
    except UserError as error:
        raise UserError(f"{error} Remove it: the same `train` evaluates the run again and writes it anew.") from error


def is_result_of(directory: Path, config: Config) -> bool:
    """Whether result.json is of that config, on the data that data.json names, with today's numerics.

    Raises:
      UserError: they cannot be read.
    """
    result, data = read_result(directory), checked(read_json(directory / DATA), {"fingerprint": str}, directory / DATA)
    return bool(result["key"] == run_key(config, data["fingerprint"]))


def read_config(directory: Path) -> Config:
    """The resolved config of a run directory.

    Raises:
      UserError: it is no run directory, or its config.json is not a config.
    """
    path = directory / CONFIG
    if not path.is_file():
        raise UserError(f"{directory}: is not a run directory (it has no {CONFIG}).")
    check_entries(directory)
    return _config_of(read_json(path), str(path))


def _config_of(content: Any, where: str) -> Config:
    if not isinstance(content, dict):
        raise UserError(f"{where}: holds no config.")
    try:
        return freeze(content)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    except RecursionError as error:
        raise UserError(f"{where}: holds no config (nested too deep).") from error


def write_config(directory: Path, config: Config, allowed: Collection[str] = ()) -> bool:
    """Writes config.json if it differs; whether it did. On a run directory only the `allowed` fields may differ.

    Raises:
      UserError: naming the fields that differ.
    """
    differs = not (directory / CONFIG).is_file() or bool(config_changes(directory, config, allowed))
    if differs:
        write_json(directory / CONFIG, to_dict(config))
    return differs


def config_changes(directory: Path, config: Config, allowed: Collection[str] = ()) -> list[str]:
    """The fields in which `config` differs from that of the run directory.

    Raises:
      UserError: fields differ that are not `allowed` to, naming them.
    """
    differing = _differing(read_config(directory), config)
    if refused := {path: values for path, values in differing.items() if path not in allowed}:
        raise UserError(
            f"{directory}: holds a run of another config ({_values(refused)}). Give the run another --workdir, or "
            f"resume it with --allow-config-change={','.join(refused)}."
        )
    return list(differing)


def check_trained(
    directory: Path, step: int, remembered: Mapping[str, Any], config: Config, allowed: Collection[str]
) -> None:
    """Refuses to resume from a checkpoint of another config, as where somebody has edited config.json.

    Args:
      remembered: what was saved beside the state; earlier versions did not save the config.

    Raises:
      UserError: fields differ that are not `allowed` to, naming them.
    """
    differing = _since_trained(directory, step, remembered, config)
    if refused := {path: values for path, values in differing.items() if path not in allowed}:
        raise UserError(
            f"{_of_another_config(directory, step, refused)} Restore {CONFIG}, or resume with "
            f"--allow-config-change={','.join(refused)}."
        )


def check_understood(directory: Path, step: int, remembered: Mapping[str, Any], config: Config) -> None:
    """Refuses to read the parameters of a checkpoint by a config that gives them another meaning.

    Args:
      remembered: as of `check_trained`.

    Raises:
      UserError: fields of the model, the task or the tokenizer differ, naming them.
    """
    differing = _since_trained(directory, step, remembered, config)
    if refused := {path: values for path, values in differing.items() if path.startswith(MEANING)}:
        raise UserError(f"{_of_another_config(directory, step, refused)} Restore {CONFIG}.")


def _since_trained(
    directory: Path, step: int, remembered: Mapping[str, Any], config: Config
) -> dict[str, tuple[Any, Any]]:
    if TRAINED not in remembered:
        return {}
    return _differing(_config_of(remembered[TRAINED], f"{directory}: the checkpoint at step {step}"), config)


def _of_another_config(directory: Path, step: int, differing: Mapping[str, tuple[Any, Any]]) -> str:
    return f"{directory}: the checkpoint at step {step} was trained with another config ({_values(differing)})."


def _differing(there: Config, here: Config) -> dict[str, tuple[Any, Any]]:
    """Field -> its values there and here, where these differ."""
    old, new = flatten(to_dict(there)), flatten(to_dict(here))
    return {path: (old.get(path), new.get(path)) for path in {**old, **new} if old.get(path) != new.get(path)}


def _values(differing: Mapping[str, tuple[Any, Any]]) -> str:
    return "; ".join(f"{path} = {there!r} there, {here!r} now" for path, (there, here) in differing.items())


def check_origin(directory: Path, fingerprint: str) -> None:
    """Refuses to resume a run that was started on other data, or by a program that computes other numbers.

    Raises:
      UserError: saying which.
    """
    path = directory / DATA
    if not path.is_file():
        return
    before = read_json(path)
    if not isinstance(before, dict) or before.get("fingerprint") != fingerprint:
        raise UserError(f"{directory}: was started on other data; {path.name} holds the fingerprint of the corpus.")
    if before.get("numerics") != NUMERICS:
        raise UserError(
            f"{directory}: was started by a version of this program that computes other numbers (numerics "
            f"{before.get('numerics')}, now {NUMERICS}). Resume it with that version, or train in another --workdir."
        )


def recorded(directory: Path, name: str) -> Any:
    """An entry of a run's data.json; None if it has none."""
    content = read_json(directory / DATA)
    return content.get(name) if isinstance(content, dict) else None
