"""The rooms of the package stand in an order, and each imports only rooms above it."""

import ast
from pathlib import Path

import pytest

import transformer_jax

PACKAGE = Path(transformer_jax.__file__).parent
FILES = sorted(path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py"))

# From the top of the house down. Rooms of one floor do not import each other.
FLOORS = [
    {"errors", "files", "interruption", "processes", "strict_json"},
    {"registry", "compilation", "schema"},
    {"config"},
    {"data"},
    {"models"},
    {"parallel"},
    {"decoding"},
    {"training"},
    {"checkpoint", "run_directory"},
    {"evaluation"},
    {"program"},
    {"saved_run", "provenance"},
    {"record"},
    {"run"},
    {"loading", "describe", "doctor", "replay", "export"},
    {"sweeps"},
    {"cli"},
]
FLOOR = {room: number for number, floor in enumerate(FLOORS) for room in floor}


def room_of(module: str) -> str:
    """`transformer_jax.models.build` -> `models`."""
    return module.split(".")[1]


def tree_of(file: Path) -> ast.Module:
    return ast.parse((PACKAGE / file).with_suffix(".py").read_text())


def imports(file: Path) -> set[str]:
    """Dotted names of all modules that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            found.add(node.module or "")
            if node.module == "transformer_jax":
                found |= {f"transformer_jax.{alias.name}" for alias in node.names}
    return found


def names(file: Path) -> set[str]:
    """`a.b.c` for every attribute in the code of a file."""
    return {ast.unparse(node) for node in ast.walk(tree_of(file)) if isinstance(node, ast.Attribute)}


MODULES = [file for file in FILES if file != Path("__init__")]


@pytest.mark.parametrize("file", MODULES, ids=str)
def test_a_room_imports_only_rooms_above_it(file):
    own = file.parts[0]
    assert own in FLOOR, f"{own} has no floor: put it where it belongs in FLOORS and in DESIGN.md"
    for module in imports(file):
        if module.startswith("transformer_jax."):
            room = room_of(module)
            assert room == own or FLOOR[room] < FLOOR[own], f"{file} imports {module}"


def test_every_floor_is_inhabited():
    assert {file.parts[0] for file in MODULES} == set(FLOOR)


def of_room(room: str) -> list[Path]:
    return [file for file in FILES if file.parts[0] == room]


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        ("sweeps", {"models", "training", "parallel", "decoding"}),
        ("decoding", {"models", "training", "data", "config"}),
        ("models", {"training", "data", "parallel"}),
        ("parallel", {"models", "training", "data"}),
        ("data", {"models"}),
    ],
)
def test_what_a_room_knows_nothing_of(room, forbidden):
    for file in of_room(room):
        assert {room_of(m) for m in imports(file) if m.startswith("transformer_jax.")} & forbidden == set(), file


DEVICES = {"devices", "local_devices", "device_count", "local_device_count", "pmap", "psum", "axis_index", "device_put"}
MAY_ASK_WHAT_THE_DEVICE_IS = {"run", "provenance", "doctor", "sweeps"}


def test_only_parallel_lays_out_devices():
    for file in FILES:
        if file.parts[0] == "parallel":
            continue
        used = {name.rpartition(".")[2] for name in names(file) if name.startswith("jax.")} & DEVICES
        allowed = {"devices", "local_device_count"} if file.parts[0] in MAY_ASK_WHAT_THE_DEVICE_IS else set()
        assert used <= allowed, file
        assert not any(module.startswith("jax.sharding") for module in imports(file)), file
    assert {"jax.pmap", "jax.devices"} <= names(Path("parallel/layout"))


def test_the_package_loads_configs_and_experiments_by_path_and_never_imports_them():
    for file in FILES:
        assert {module.split(".")[0] for module in imports(file)} & {"configs", "experiments", "tests"} == set(), file


def test_no_config_is_asked_for_a_key_that_may_be_missing():
    for file in FILES:
        for node in ast.walk(tree_of(file)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
                receiver = ast.unparse(node.func.value)
                assert receiver.split(".")[-1] not in ROOMS_OF_THE_CONFIG, f"{file}: {ast.unparse(node)}"
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr" and len(node.args) == 3:
                assert "config" not in ast.unparse(node.args[0]), f"{file}: {ast.unparse(node)}"


ROOMS_OF_THE_CONFIG = {"config", "model", "attention", "embedding", "optimizer", "train", "decode", "evaluate"}


def test_all_json_is_written_by_the_one_strict_writer():
    """Python's own writes NaN and Infinity, which no other program reads."""
    for file in FILES:
        writes = {"json.dumps", "json.dump", "json.JSONEncoder"} & names(file)
        assert not writes or file == Path("strict_json"), f"{file}: use transformer_jax.strict_json"
        assert "json" not in {node.module for node in ast.walk(tree_of(file)) if isinstance(node, ast.ImportFrom)}
    assert "json.dumps" in names(Path("strict_json"))
