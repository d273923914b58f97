"""The rooms of the package stand in an order, and each imports only rooms above it."""

import ast
from pathlib import Path

import pytest

import transformer_jax

PACKAGE = Path(transformer_jax.__file__).parent
FILES = sorted(path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py"))

# Files that stand by themselves, above the room that they lie in: they lean on less than it does.
BY_THEMSELVES = {"run/directory", "run/interruption"}
# From the top of the house down. Rooms of one floor do not import each other.
FLOORS = [
    {"errors", "files", "processes", "strict_json", "vocabulary", "run/interruption"},
    {"registry", "compilation", "checked_json", "run/directory"},
    {"report"},
    {"config"},
    {"data"},
    {"models"},
    {"decoding"},
    {"tasks"},
    {"parallel"},
    {"training"},
    {"checkpoint"},
    {"evaluation"},
    {"run"},
    {"loading", "describe", "forecast", "doctor", "inspection", "export", "marian", "bert"},
    {"sweeps"},
    {"arguments"},
    {"cli"},
]
FLOOR = {room: number for number, floor in enumerate(FLOORS) for room in floor}


def room_of(module: str) -> str:
    """`transformer_jax.models.build` -> `models`; `transformer_jax.run.directory` stands by itself."""
    parts = module.split(".")
    return "/".join(parts[1:3]) if "/".join(parts[1:3]) in BY_THEMSELVES else parts[1]


def room_of_file(file: Path) -> str:
    return str(file) if str(file) in BY_THEMSELVES else file.parts[0]


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


def rooms_used(file: Path) -> set[str]:
    """The other rooms that a file imports from."""
    modules = {module for module in imports(file) if module.startswith("transformer_jax.")}
    return {room_of(module) for module in modules} - {room_of_file(file)}


MODULES = [file for file in FILES if file != Path("__init__")]


@pytest.mark.parametrize("file", MODULES, ids=str)
def test_a_room_imports_only_rooms_above_it(file):
    room = room_of_file(file)
    assert room in FLOOR, f"{room} has no floor: put it where it belongs in FLOORS and in DESIGN.md"
    assert {used for used in rooms_used(file) if FLOOR[used] >= FLOOR[room]} == set()


def test_every_floor_is_inhabited():
    assert {room_of_file(file) for file in MODULES} == set(FLOOR)


def files_of(room: str) -> list[Path]:
    return [file for file in FILES if room_of_file(file) == room]


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        ("sweeps", {"models", "training", "parallel", "decoding"}),
        ("decoding", {"models", "tasks", "training", "data", "config"}),
        ("models", {"tasks", "training", "data", "decoding", "parallel"}),
        ("tasks", {"training", "parallel", "run"}),
        ("parallel", {"models", "tasks", "training", "data"}),
        ("data", {"models", "tasks"}),
    ],
)
def test_what_a_room_knows_nothing_of(room, forbidden):
    for file in files_of(room):
        assert rooms_used(file) & forbidden == set(), file


def test_the_report_reads_run_directories_alone():
    used = set().union(*map(rooms_used, files_of("report")))
    assert used == {"errors", "files", "strict_json", "run/directory"}


DEVICES = {"devices", "local_devices", "device_count", "local_device_count", "pmap", "device_put"}
ALONG_AN_AXIS = {"psum", "axis_index"}  # of which a step is told by a layout, if there is one
MAY_USE = {
    "run": {"devices", "local_device_count"},  # they ask what the device is
    "doctor": {"devices", "local_device_count"},
    "sweeps": {"devices", "local_device_count"},
    "training": ALONG_AN_AXIS,
}


def test_only_parallel_lays_out_devices():
    for file in FILES:
        if file.parts[0] == "parallel":
            continue
        used = {name.rpartition(".")[2] for name in names(file) if name.startswith("jax.")} & (DEVICES | ALONG_AN_AXIS)
        assert used <= MAY_USE.get(file.parts[0], set()), file
        assert not any(module.startswith("jax.sharding") for module in imports(file)), file
    assert "jax.pmap" in names(Path("parallel/layout"))
    assert "jax.devices" in names(Path("parallel/transfer"))


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
