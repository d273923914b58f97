"""Damages a run directory at random, as a full disk, a bad copy or somebody else might."""

import copy
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformer_jax.checkpoint import MANIFEST, _hashes

VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 3, 1.5, -0.0, 1e-300, 9e299, 2**31, 2**63, 10**400, "", "x", "a\0b", "../../x", "/",
    "\ud800", "<script>alert(1)</script>", "\x1b[2J", "x" * 5000, "last", "best", "average:3", "finished", "diverged",
    [], [[]], [None], [1, "a", {}], {}, {"": None}, {"a": {"b": {}}}, ["x"] * 500,
    float("nan"), float("inf"), -float("inf"),
]  # fmt: skip
"""What may stand in a field in place of what should."""


def damage(directory: Path, rng: random.Random) -> list[str]:
    """Does one to three things to the files of a directory; what was done."""
    done = []
    for _ in range(rng.choice([1, 1, 2, 3])):
        files = sorted(path for path in directory.rglob("*") if path.is_file() and path.name != "lock")
        path = _choose(files, rng) or directory / "lost"
        how = rng.choice([_fields, _fields, _fields, _fields, _text, _bytes, _cut, _empty, _lose, _directory, _swap])
        done.append(f"{how.__name__} {path.relative_to(directory)} {how(path, rng, files) or ''}")
        step = next((parent for parent in path.parents if parent.parent.name == "checkpoints"), None)
        sealed = step is not None and (step / MANIFEST).is_file()
        if step is not None and sealed and path.name != MANIFEST and rng.random() < 0.7:
            (step / MANIFEST).write_text(json.dumps(_hashes(step)))  # who does it on purpose makes the hashes fit
            done.append("with its hashes")
    return done


def _choose(files: list[Path], rng: random.Random) -> Path | None:
    """Mostly one that holds what the run says of itself, each of them as often, and of checkpoints the newest."""
    named = {path.name: path for path in files if path.suffix in (".json", ".jsonl")}
    if named and rng.random() < 0.85:
        return named[rng.choice(sorted(named))]
    return rng.choice(files) if files else None


def _fields(path: Path, rng: random.Random, files: list[Path]) -> str:
    """Other values in fields of the JSON; a line of it where there are many."""
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.suffix == ".jsonl" else None
        tree = rng.choice(lines) if lines else json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return _bytes(path, rng, files)
    changed = []
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        places = list(_places(tree))
        value = copy.deepcopy(rng.choice(VALUES))  # it may be damaged in its turn
        if not places or rng.random() < 0.05:
            tree = value
            changed.append(f"all = {value!r:.60}")
            break
        node, key = rng.choice(places)
        changed.append(f"{key} = {value!r:.60}")
        if isinstance(node, dict) and rng.random() < 0.2:
            del node[key]
        else:
            node[key] = value
    if lines:
        lines = [*lines[:-1], tree]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) if lines else json.dumps(tree))
    return ", ".join(changed)


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every field of it, as container and key."""
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield tree, key
        yield from _places(tree[key])


def _text(path: Path, rng: random.Random, files: list[Path]) -> None:
    texts = [
        "",
        "{",
        "[" * 100_000,
        '{"a":' * 2000 + "1" + "}" * 2000,
        "null",
        "1" * 5000,
        '"\\ud800"',
        "{}\n{}\n",
        "\0" * 9,
    ]
    path.write_text(rng.choice(texts))


def _bytes(path: Path, rng: random.Random, files: list[Path]) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 5, 50])):
        if content:
            content[rng.randrange(len(content))] = rng.randrange(256)
    path.write_bytes(bytes(content))


def _cut(path: Path, rng: random.Random, files: list[Path]) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content) + 1)])


def _empty(path: Path, rng: random.Random, files: list[Path]) -> None:
    path.write_bytes(b"")


def _lose(path: Path, rng: random.Random, files: list[Path]) -> None:
    """The file, or the directory it lies in."""
    parent = path.parent
    if rng.random() < 0.3 and parent.name in ("checkpoints", "tokenizer", "predictions", "state", "tensorboard"):
        shutil.rmtree(parent)
    else:
        path.unlink()


def _directory(path: Path, rng: random.Random, files: list[Path]) -> None:
    path.unlink()
    path.mkdir()
    if rng.random() < 0.5:
        (path / "x").write_text("x")


def _swap(path: Path, rng: random.Random, files: list[Path]) -> str:
    """Another file's content."""
    other = rng.choice(files)
    path.write_bytes(other.read_bytes())
    return f"from {other.name}"
