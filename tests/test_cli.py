"""The commands as a person or a script meets them."""

import argparse
import contextlib
import importlib.metadata
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_run

from transformer_jax import cli
from transformer_jax.checkpoint import Checkpoints
from transformer_jax.cli import ROOT
from transformer_jax.run.interruption import Interruption, request_stop, stop_requested

COMMANDS = [
    "train", "evaluate", "translate", "generate", "export", "import", "replay", "inspect", "score", "sweep", "tune",
    "report", "describe", "benchmark", "doctor",
]  # fmt: skip


def call(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def strict_json(text: str) -> dict:
    """One JSON object and nothing else, without NaN or Infinity, which are no JSON."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    found = json.loads(text, parse_constant=refuse)
    assert isinstance(found, dict)
    return found


pytestmark = pytest.mark.usefixtures("opened_once")


@pytest.fixture
def config(tmp_path) -> Path:
    return tiny_run.write_config_file(tmp_path / "configs" / "tiny.py")


def standard_input(monkeypatch, data: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))


# --- Help ---


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        call(command, "--help")
    assert stopped.value.code == 0
    assert f"Example:\n  ./launch.sh {command}" in capsys.readouterr().out


def test_the_commands_are_listed(capsys):
    with pytest.raises(SystemExit):
        call("--help")
    output = capsys.readouterr().out
    assert re.findall(r"^ {4}(\w+)(?: |$)", output, re.MULTILINE) == COMMANDS


def test_without_arguments_it_is_the_quick_start(monkeypatch):
    seen = {}
    monkeypatch.setitem(cli.COMMANDS, "sweep", lambda options, overrides: seen.update(vars(options)) or 0)
    assert cli.main([]) == 0
    assert seen["experiment"].name == "quickstart.py"
    assert seen["experiment"].is_file()
    assert seen["workdir"] == Path("runs/quickstart")


PROCESS = [sys.executable, "-m", "transformer_jax.cli"]


def test_a_refusal_and_help_need_no_jax():
    """They answer at once: what a command needs is imported by the command."""
    for arguments in (["trane"], ["train", "--workdir=", "--config=c.py"], ["sweep", "--help"]):
        code = f"import sys; from transformer_jax import cli\ntry: cli.main({arguments})\nexcept SystemExit: pass\n"
        code += "print([name for name in ('jax', 'numpy', 'ml_collections') if name in sys.modules], file=sys.stderr)"
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert found.stderr.splitlines()[-1] == "[]", found.stderr


# --- One JSON object ---


def test_train_prints_progress_or_json(run, config, capsys):
    """The run is finished: what it prints is what is in its directory."""
    assert call("train", f"--config={config}", f"--workdir={run}", "--json") == 0
    output = capsys.readouterr()
    assert strict_json(output.out) == json.loads((run / "result.json").read_text())
    assert "is finished already" in output.err
    assert call("train", f"--config={config}", f"--workdir={run}") == 0
    output = capsys.readouterr()
    assert output.out.splitlines() == [f"{run}: is finished already.", f"{run}: finished after 20 steps"]
    assert output.err == ""


def test_evaluate(run, capsys):
    assert call("evaluate", f"--workdir={run}", "--split=valid", "--json") == 0
    found = strict_json(capsys.readouterr().out)
    assert found["metrics"] == json.loads((run / "result.json").read_text())["metrics"]["valid"]
    assert call("evaluate", f"--workdir={run}", "--split=valid") == 0
    output = capsys.readouterr().out
    assert output.startswith(f"valid (average:3): nll {found['metrics']['nll']:.4f}  ")
    assert f"chrf_signature: {found['metrics']['chrf_signature']}" in output


def test_describe(capsys):
    config = Path(cli.ROOT) / "configs" / "base.py"
    assert call("describe", f"--config={config}", "--json") == 0
    found = strict_json(capsys.readouterr().out)
    assert found["parameters"] == 63_045_632 == sum(found["modules"].values())
    assert call("describe", f"--config={config}:ffn_depth_1") == 0
    output = capsys.readouterr().out
    assert "41,000,960  parameters" in output
    assert "not used: model.d_ff\n" in output


def test_doctor(capsys, monkeypatch):
    monkeypatch.setattr("transformer_jax.doctor.check_determinism", lambda: {"the same job twice": "differs"})
    assert call("doctor", "--json") == 0
    found = strict_json(capsys.readouterr().out)
    assert found["jax"] == importlib.metadata.version("jax")
    assert call("doctor") == 0
    assert "devices" in capsys.readouterr().out


def test_score_against_another_system(tmp_path, capsys):
    """BLEU of both and two p values; of text that is tokenised where that is the metric."""
    lines = [f"the cat number {i} sat on the mat number {i} ." for i in range(40)]
    for name, text in {"ref": lines, "good": lines, "poor": [f"a dog {i}" for i in range(40)]}.items():
        (tmp_path / name).write_text("".join(f"{line}\n" for line in text))
    arguments = ("score", f"--hypotheses={tmp_path / 'good'}", f"--references={tmp_path / 'ref'}")
    against = f"--against={tmp_path / 'poor'}"
    assert call(*arguments, against, "--json") == 0
    found = strict_json(capsys.readouterr().out)["against"]
    assert found["system"] == pytest.approx(100)
    assert found["base"] < 10
    assert max(found["bootstrap_p"], found["randomization_p"]) < 0.01
    assert "tok:13a" in found["bootstrap_signature"]
    assert call(*arguments, against, "--metrics=tokenised_bleu") == 0
    output = capsys.readouterr().out
    assert "randomization_p" in output
    assert "tok:none" in output


def test_score(tmp_path, capsys):
    (tmp_path / "h").write_text("the cat sat on the mat\n")
    (tmp_path / "r").write_text("the cat sat on the mat\n")
    arguments = ("score", f"--hypotheses={tmp_path / 'h'}", f"--references={tmp_path / 'r'}")
    assert call(*arguments, "--metrics=bleu,chrf(word_order=2)", "--json") == 0
    found = strict_json(capsys.readouterr().out)
    assert [found["bleu"], found["chrf(word_order=2)"]] == pytest.approx([100, 100])
    assert "nw:2" in found["chrf(word_order=2)_signature"]


def test_report_of_a_run(run, capsys):
    assert call("report", run, "--json") == 0
    found = strict_json(capsys.readouterr().out)
    assert Path(found["files"]["html"]).is_file()


# --- Translating standard input ---


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (b"", 0),
        (b"\n", 1),
        (b"0 1 2\n3 4\n", 2),
        (b"0 1 2\n3 4", 2),
        (b"0 1 2\r\n\r\n3 4\r\n", 3),
        (b"\xef\xbb\xbf0 1 2\n", 1),
        ("0\u2028 1\n2\x0b 3\n".encode(), 2),
    ],
)
def test_translate_writes_a_line_for_a_line(run, monkeypatch, capsys, text, lines):
    standard_input(monkeypatch, text)
    assert call("translate", f"--workdir={run}") == 0
    output = capsys.readouterr().out
    assert output.count("\n") == lines
    assert output == "" or output.endswith("\n")


def test_translate_is_the_same_whatever_ends_the_lines(run, monkeypatch, capsys):
    found = []
    for text in (b"0 1 2\n\n3 4\n", b"\xef\xbb\xbf0 1 2\r\n \r\n3 4"):
        standard_input(monkeypatch, text)
        call("translate", f"--workdir={run}")
        found.append(capsys.readouterr().out)
    first, second, third = found[0].splitlines()
    assert found[0] == found[1]
    assert second == ""
    assert first != third
    assert first


def test_what_is_cut_is_said_beside_the_output(run, tmp_path, monkeypatch, capsys):
    long = b"0 1\n" + b"go on " * 500 + b"\n2 3\n"
    (tmp_path / "s").write_bytes(long)
    (tmp_path / "r").write_bytes(b"1 0\n1\n3 2\n")
    for arguments in (("translate", f"--workdir={run}"), ("translate", f"--workdir={run}", "--json")):
        standard_input(monkeypatch, long)
        assert call(*arguments) == 0
        output = capsys.readouterr()
        assert output.err == "line cut to data.max_length = 16 tokens, what lies beyond is not translated: 2\n"
        assert output.out.count("\n") == (1 if "--json" in arguments else 3)
    assert (
        call("evaluate", f"--workdir={run}", f"--source={tmp_path / 's'}", f"--reference={tmp_path / 'r'}", "--json")
        == 0
    )
    output = capsys.readouterr()
    found = strict_json(output.out)
    assert (found["examples"], found["truncated"], found["dropped"]) == (3, 1, 0)
    assert output.err.startswith("1 of 3 examples of s cut: a side is longer than data.max_length = 16 tokens")


def test_translations_as_json_and_as_nbest(run, monkeypatch, capsys):
    standard_input(monkeypatch, b"0 1 2\n\n")
    assert call("translate", f"--workdir={run}", "--json") == 0
    (one, blank) = strict_json(capsys.readouterr().out)["translations"]
    assert blank == [["", 0.0]]
    standard_input(monkeypatch, b"0 1 2\n\n")
    assert call("translate", f"--workdir={run}", "--nbest=2", "--config.decode.strategy=beam") == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == ["1", "1", "2"]
    assert float(lines[0][1]) >= float(lines[1][1])
    assert isinstance(one[0][0], str)


def test_what_is_written_is_utf8_whatever_the_machine_writes(monkeypatch):
    text = "ä \N{SNOWMAN} 中 🙂"
    monkeypatch.setattr("transformer_jax.run.saved.translate", lambda *_, **__: [[(f"{text} \udcff", 0.0)]])
    output = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr("sys.stdout", output)
    standard_input(monkeypatch, b"0\n")
    assert call("translate", "--workdir=run") == 0
    assert output.buffer.getvalue() == f"{text} \\udcff\n".encode()


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-16"])
def test_a_sentence_is_utf8_in_any_environment(encoding):
    """As a process, which takes its encoding from the environment."""
    arguments = ["train", "--config=ß中.py".encode(), b"--workdir=\xff\xfe", "--bad=ß".encode()]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    found = subprocess.run([*PROCESS, *arguments], env=environment, capture_output=True)
    assert found.returncode == 2
    assert "--bad=ß" in found.stderr.decode("utf-8")
    assert b"Traceback" not in found.stderr


def test_output_that_cannot_be_written_is_a_sentence(tmp_path):
    """The last lines, too, which are written at the end of the process only."""
    (tmp_path / "a").write_text("x\n")
    arguments = ["score", f"--hypotheses={tmp_path / 'a'}", f"--references={tmp_path / 'a'}", "--metrics=exact_match"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with Path("/dev/full").open("wb") as full:
        found = subprocess.run([*PROCESS, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, env=environment)
    assert (found.returncode, found.stderr) == (2, "transformer_jax: input or output: No space left on device.\n")


@contextlib.contextmanager
def unread() -> Iterator[None]:
    """Standard output goes to a reader that has gone, as that of `head` does."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream, pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", stream)
        yield


@pytest.mark.parametrize(
    "command",
    [
        ["evaluate", "--source={lines}", "--reference={lines}", "--workdir={run}"],
        ["evaluate", "--watch", "--workdir={run}"],
        ["translate", "--workdir={run}"],
        ["report", "{run}", "--json"],
        ["describe", "--config={config}", "--config.model.vocab_size=11"],
        ["train", "--config={config}", "--workdir={run}"],  # is finished already
    ],
    ids=" ".join,
)
def test_output_that_nobody_reads_any_more_ends_a_command_silently(run, config, tmp_path, monkeypatch, capfd, command):
    standard_input(monkeypatch, b"0 1\n")
    (tmp_path / "lines").write_text("0 1\n")
    with unread():
        assert call(*(part.format(run=run, config=config, lines=tmp_path / "lines") for part in command)) == 0
    told = capfd.readouterr().err.splitlines()
    assert [line for line in told if "outputs of" not in line] == []  # of those that were cut off


def test_help_that_nobody_reads_is_no_traceback():
    reader, writer = os.pipe()
    os.close(reader)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    found = subprocess.run([*PROCESS, "--help"], stdout=writer, stderr=subprocess.PIPE, env=environment)
    os.close(writer)
    assert (found.returncode, found.stderr) == (0, b"")


def test_a_training_whose_lines_nobody_reads_any_more_is_saved_and_resumed(config, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("transformer_jax.run.train.compile_program", lambda *arguments: tiny_run.program())
    arguments = ["train", f"--config={config}", f"--workdir={tmp_path / 'run'}"]
    with unread():
        assert call(*arguments) == 75
    assert "stopped and saved at step 1. The same command resumes" in capfd.readouterr().err
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps() == [1]
    assert call(*arguments) == 0
    assert tiny_run.content(tmp_path / "run") == tiny_run.content(tiny_run.finished())


def test_a_sweep_is_stopped_too_though_its_lines_come_from_other_threads():
    with unread(), stop_requested() as outer, stop_requested() as inner:
        say = cli._say(argparse.Namespace(json=False))
        thread = threading.Thread(target=say, args=("a line",))
        thread.start()
        thread.join()
    assert outer == inner == [signal.SIGTERM]
    assert not request_stop()


def test_standard_input_that_is_closed_is_a_sentence(run, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", None)
    assert call("translate", f"--workdir={run}") == 2
    assert "standard input is closed" in capsys.readouterr().err


def test_invalid_utf8_is_refused_with_its_line(run, monkeypatch, capsys):
    standard_input(monkeypatch, b"0 1\n0 \xff\n")
    assert call("translate", f"--workdir={run}") == 2
    assert "standard input, line 2: invalid UTF-8" in capsys.readouterr().err


# --- How it ends ---


def raising(error: BaseException):
    def command(*arguments, **options):
        raise error

    return command


def test_an_interruption_prints_the_command_that_resumes(config, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("transformer_jax.run.train.train", raising(Interruption(7)))
    override = "--config.data.source=copy(symbols=5, max_length=4)"
    assert call("train", f"--config={config}", f"--workdir={tmp_path}/a b", override) == 75
    said = capsys.readouterr().err
    command = said.partition("The same command resumes: ")[2].strip()
    shown = subprocess.run(["bash", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines() == [
        "./launch.sh", "train", f"--config={config}", f"--workdir={tmp_path}/a b", override
    ]  # fmt: skip
    assert "saved at step 7" in said


def test_a_second_interrupt_is_no_traceback(config, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("transformer_jax.run.train.train", raising(KeyboardInterrupt()))
    monkeypatch.setattr("os._exit", lambda status: sys.exit(status))
    with pytest.raises(SystemExit, match="130"):
        call("train", f"--config={config}", f"--workdir={tmp_path}/run")
    assert "stopped at once" in capsys.readouterr().err


INTERRUPTED = """
import os, signal, sys
try:
    os.kill(os.getpid(), signal.SIGINT)
    sum(range(1000))
except BaseException:
    pass  # as a library does that can do without what it imports
print("not stopped", file=sys.stderr)
"""


@pytest.mark.parametrize("module", ["argparse", "jax", "ml_collections"])
def test_ctrl_c_in_an_import_is_neither_lost_nor_a_traceback(module, tmp_path, config):
    """The module interrupts the process while it is imported, and would swallow an exception."""
    (tmp_path / f"{module}.py").write_text(INTERRUPTED)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    found = subprocess.run(
        [*PROCESS, "describe", f"--config={config}"], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert (found.returncode, found.stdout) == (130, "")
    assert found.stderr.startswith("\nstopped at once.")
    assert len(found.stderr.strip().splitlines()) == 1


def test_ctrl_c_is_dealt_with_as_before_when_the_command_has_ended(config, monkeypatch):
    seen = []
    monkeypatch.setitem(cli.COMMANDS, "report", lambda *_: seen.append(signal.getsignal(signal.SIGINT)) or 0)
    before = signal.getsignal(signal.SIGINT)
    assert call("report", config) == 0
    assert signal.getsignal(signal.SIGINT) is before is not seen[0]


def test_nohup_is_heard(config, monkeypatch):
    """Who starts a command that is to ignore Ctrl-C is not overruled."""
    seen = []
    monkeypatch.setitem(cli.COMMANDS, "report", lambda *_: seen.append(signal.getsignal(signal.SIGINT)) or 0)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert call("report", config) == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [signal.SIG_IGN]


@pytest.mark.parametrize(
    "error", [MemoryError("Unable to allocate 146. GiB"), RuntimeError("RESOURCE_EXHAUSTED: 9 GB")]
)
def test_too_little_memory_is_a_sentence(config, monkeypatch, capsys, tmp_path, error):
    monkeypatch.setattr("transformer_jax.run.train.train", raising(error))
    assert call("train", f"--config={config}", f"--workdir={tmp_path}/run") == 2
    said = capsys.readouterr().err
    assert said == f"transformer_jax: the memory does not suffice ({error}): make model, lengths or batches smaller.\n"


def test_a_full_disk_is_a_sentence(config, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(
        "transformer_jax.run.train.train", raising(OSError(28, "No space left on device", "/somewhere/metrics.jsonl"))
    )
    assert call("train", f"--config={config}", f"--workdir={tmp_path}/run") == 2
    assert capsys.readouterr().err == "transformer_jax: /somewhere/metrics.jsonl: No space left on device.\n"


def test_a_diverged_run_has_status_1(config, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(
        "transformer_jax.run.train.train", lambda *arguments, **options: {"status": "diverged", "steps": 3}
    )
    assert call("train", f"--config={config}", f"--workdir={tmp_path}/run") == 1
    assert "diverged after 3 steps" in capsys.readouterr().out


def test_allowed_changes_are_a_list(config, monkeypatch, tmp_path):
    seen = {}
    monkeypatch.setattr(
        "transformer_jax.run.train.train",
        lambda *a, **options: seen.update(options) or {"status": "finished", "steps": 3},
    )
    call("train", f"--config={config}", f"--workdir={tmp_path}", "--allow-config-change=train.steps, seed")
    assert seen["allow_config_change"] == ["train.steps", "seed"]


def test_a_real_run_says_nothing_but_its_progress_and_stops_at_the_second_ctrl_c(config, tmp_path):
    """Libraries have no word in it: standard error is empty, and each line is ours."""
    arguments = ["train", f"--config={config}", f"--workdir={tmp_path}/run", "--config.train.steps=100000"]
    process = subprocess.Popen(
        [*PROCESS, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(6)]
    process.send_signal(signal.SIGINT)
    time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    output, error = process.communicate()
    assert "parameters" in lines[0]
    assert all(line.startswith("step ") for line in [*lines[1:], *output.splitlines(keepends=True)])
    # The second may come before the first is dealt with; then the two are one, and the run has saved.
    assert process.returncode in (130, 75)
    # Python drops an interrupt that arrives inside a callback of its collector, and says so; then the first one holds.
    dropped = error.startswith("Exception ignored in") and process.returncode == 75
    assert dropped or ("Traceback" not in error and len(error.strip().splitlines()) == 1)
