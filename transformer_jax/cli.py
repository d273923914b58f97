"""The commands. No logic: arguments in, one call, the result out.

What a command needs is imported by the command: `--help` and a refusal answer at once.
"""

from transformer_jax.run.interruption import (
    STOPPED,
    Interruption,
    abort,
    abort_on_interrupt,
    abort_on_interrupts,
    request_stop,
    take_interrupts,
)

if __name__ == "__main__":
    abort_on_interrupt()  # before the imports that take time: an exception in one of them could be lost
    take_interrupts()

import argparse
import contextlib
import dataclasses
import io
import math
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from transformer_jax.errors import UserError, shortened
from transformer_jax.run.directory import MOST_SEEDS

REFUSED = 2
ROOT = Path(__file__).parent.parent
QUICKSTART = ["sweep", str(ROOT / "experiments" / "quickstart.py"), "--workdir=runs/quickstart"]
MOST_AT_A_TIME, MOST_RESULTS, MOST_LENGTH = 1_000, 1_000, 1_000_000
Overrides = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0; 1 if runs failed or diverged; 2 if refused with a sentence, or disk or memory do not suffice; 75
    if stopped and saved; 130 if stopped at once."""
    arguments = list(sys.argv[1:] if arguments is None else arguments) or QUICKSTART
    with abort_on_interrupts():
        return _run(arguments)


def _run(arguments: list[str]) -> int:
    try:
        _write_utf8()
        options, overrides = _parse(arguments)
        if options.computes:
            from transformer_jax.compilation import use_persistent_cache

            use_persistent_cache()
        with _memory_in_a_sentence():
            status: int = options.command(options, overrides)
        _flush_output()
        return status
    except UserError as error:
        return _refuse(str(error))
    except Interruption as stopped:
        command = shortened(shlex.join(["./launch.sh", *arguments]))
        _tell(f"\n{stopped}. The same command resumes: {command}")
        return STOPPED
    except KeyboardInterrupt:
        abort()
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        _drop(sys.stdout)
        return 0
    except OSError as error:  # a disk that is full, a directory that may not be written
        _drop(sys.stdout)
        return _refuse(f"{error.filename or 'input or output'}: {error.strerror or error}.")


def _refuse(sentence: str) -> int:
    _tell(f"transformer_jax: {shortened(sentence)}")
    return REFUSED


def _tell(text: str) -> None:
    try:
        print(text, file=sys.stderr)
    except BrokenPipeError:
        _drop(sys.stderr)


def _write_utf8() -> None:
    """What is written is UTF-8, whatever the machine would write: so are the files beside it, and the input."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def _flush_output() -> None:
    """Here it may fail: at the end of the process that would be a traceback."""
    if sys.stdout is not None:
        sys.stdout.flush()


def _drop(stream: Any) -> None:
    """What is left of it cannot be written, and would be tried again at the end of the process."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or not a file
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextlib.contextmanager
def _memory_in_a_sentence() -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise UserError(_no_memory(error)) from error
    except RuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):  # XLA's word for it
            raise UserError(_no_memory(error)) from error
        raise


def _no_memory(error: BaseException) -> str:
    what = next(iter(str(error).splitlines()), "")
    return f"the memory does not suffice ({what or type(error).__name__}): make model, lengths or batches smaller."


def _parse(arguments: list[str]) -> tuple[argparse.Namespace, Overrides]:
    """Options of the command, and the `--config.a.b=value` among the arguments."""
    ours = [argument for argument in arguments if argument.startswith("--config.")]
    options = _parser().parse_args([argument for argument in arguments if argument not in ours])
    if not ours:
        return options, {}
    if not options.takes_config:
        raise UserError(f"{ours[0]}: this command reads no config.")
    from transformer_jax.loading import parse_override

    return options, dict(parse_override(argument) for argument in ours)


class _Parser(argparse.ArgumentParser):
    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        _flush_output()  # of --help
        super().exit(status, message)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}. `./{self.prog} --help` says more.")


def _text(text: str) -> str:
    if not text.strip() or "\0" in text:
        raise argparse.ArgumentTypeError(f"{text!r} names nothing")
    return text


def _path(text: str) -> Path:
    return Path(_text(text))


def _count(most: int, least: int = 1) -> Callable[[str], int]:
    """A whole number of that range, its ends included."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most:,}")
        return number

    return parse


def _number_of(low: float, high: float) -> Callable[[str], float]:
    """A number of that range, its ends included."""

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low} to {high}")
        return number

    return parse


def _some(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("'' is no text")
    return text


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="launch.sh",
        description="A laboratory for the Transformer. Without a command: the quick-start sweep and its report.",
        epilog="`./launch.sh COMMAND --help` shows an example. `./launch.sh test` runs the tests.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(
        name: str,
        call: Callable[..., int],
        summary: str,
        example: str,
        takes_config: bool = True,
        computes: bool = True,
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name,
            help=summary,
            description=f"{summary}\n\nExample:\n  ./launch.sh {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(command=call, takes_config=takes_config, computes=computes)
        command.add_argument("--json", action="store_true", help="print the result as one JSON object")
        return command

    def add_run(command: argparse.ArgumentParser, checkpoint: bool = False) -> None:
        command.add_argument("--workdir", type=_path, required=True, help="the run directory")
        if checkpoint:
            command.add_argument(
                "--checkpoint", type=_text, help="best, last, a step or average:N (default: evaluate.checkpoint)"
            )

    config_help = "config file, and a row of its ROWS; --config.a.b=value changes any field but what the row sets"
    command = add(
        "train", _train, "Train and evaluate one run, or resume it.",
        "train --config=configs/scan.py:no_wo --workdir=runs/no_wo --config.model.num_heads=8",
    )  # fmt: skip
    command.add_argument("--config", type=_text, metavar="FILE[:ROW]", required=True, help=config_help)
    add_run(command)
    command.add_argument(
        "--allow-config-change", metavar="FIELD,...", default="", help="fields that may differ from the run's config"
    )

    command = add(
        "evaluate", _evaluate, "Score a run on a split of its corpus, or on files.",
        "evaluate --workdir=runs/no_wo --checkpoint=best --split=test",
    )  # fmt: skip
    add_run(command, checkpoint=True)
    command.add_argument("--split", default="test", help="train, valid or test")
    command.add_argument("--source", type=_path, help="a file of sentences, one a line")
    command.add_argument("--reference", type=_path, help="their translations")
    command.add_argument("--watch", action="store_true", help="follow a training run: score each new checkpoint")

    command = add(
        "translate", _translate, "Translate standard input, a sentence a line, to standard output.",
        'translate --workdir=runs/no_wo <<< "jump twice and walk left"',
    )  # fmt: skip
    add_run(command, checkpoint=True)
    command.add_argument(
        "--nbest", type=_count(MOST_RESULTS), default=1, help="translations a sentence; above 1 with their scores"
    )

    command = add(
        "generate", _generate, "Have a language model write on after a prompt.",
        'generate --workdir=runs/shakespeare --prompt="ROMEO:" --temperature=0.8 --samples=3',
    )  # fmt: skip
    add_run(command, checkpoint=True)
    command.add_argument("--prompt", default="\n", help="the text to write on (default: a line break)")
    command.add_argument("--length", type=_count(MOST_LENGTH), default=500, help="tokens to be written, at most")
    command.add_argument("--samples", type=_count(MOST_RESULTS), default=1, help="how many texts")
    command.add_argument("--temperature", type=_number_of(0, 1000), help="of sampling; 0: always the most probable")
    command.add_argument("--top-k", type=_count(MOST_LENGTH), help="sample among so many tokens only")
    command.add_argument("--top-p", type=_number_of(0, 1), help="sample among the tokens of this mass only")
    command.add_argument("--stop", type=_some, help="end a text before this")
    command.add_argument("--seed", type=_count(2**31 - 1, least=0), help="which samples (default: the seed of the run)")

    command = add(
        "export", _export, "Write the parameters of a run as safetensors.",
        "export --workdir=runs/no_wo --checkpoint=best --output=no_wo.safetensors", takes_config=False,
    )  # fmt: skip
    add_run(command, checkpoint=True)
    command.add_argument("--output", type=_path, required=True, help="the file to write")

    command = add(
        "replay", _replay, "Take the step again at which a run diverged, and show what is not finite.",
        "replay --workdir=runs/no_wo", takes_config=False,
    )  # fmt: skip
    add_run(command)

    command = add(
        "score", _score, "Score given translations.",
        "score --hypotheses=output.txt --references=reference.txt --metrics=bleu,chrf", takes_config=False,
    )  # fmt: skip
    command.add_argument("--hypotheses", type=_path, required=True, help="translations, one a line")
    command.add_argument("--references", type=_path, required=True, help="what they should be, one a line")
    command.add_argument("--metrics", default="bleu,chrf", help="comma-separated, as in evaluate.metrics")
    command.add_argument(
        "--against",
        type=_path,
        help="another system's translations: is the difference in BLEU one of these sentences alone?",
    )

    command = add(
        "sweep", _sweep, "Run every row of an experiment over its seeds, and write the report.",
        "sweep experiments/heads.py --scale=small --workdir=runs/heads",
    )  # fmt: skip
    command.add_argument("experiment", type=_path, help="a file of experiments/")
    command.add_argument("--workdir", type=_path, required=True, help="the directory of the sweep")
    command.add_argument("--scale", default="small", help="smoke, small, full, or another of the experiment")
    command.add_argument(
        "--config",
        type=_text,
        metavar="FILE",
        help="put the rows on this base instead; --config.a.b=value changes any field but what a row sets",
    )
    command.add_argument(
        "--seeds", type=_count(MOST_SEEDS), help="how many seeds, 0, 1, ...; there is no --config.seed here"
    )
    command.add_argument("--workers", type=_count(MOST_AT_A_TIME), help="processes at a time")
    command.add_argument(
        "--lanes",
        type=_count(MOST_AT_A_TIME),
        help="runs trained together in one program; 1: one after another (default: the faster)",
    )
    command.add_argument("--no-reuse", action="store_true", help="train anew what a sweep beside this one has trained")
    command.add_argument("--retry-failed", action="store_true", help="try runs again that failed before")
    command.add_argument(
        "--time-limit",
        type=_seconds,
        metavar="SECONDS",
        help="end a run that takes longer (lanes: each so long); it has failed",
    )
    command.add_argument("--status", action="store_true", help="only show how far each run of this sweep is")

    command = add(
        "report", _report, "Write the report of a sweep or of a run from its directory.",
        "report runs/heads", takes_config=False, computes=False,
    )  # fmt: skip
    command.add_argument("directory", type=_path, help="of the sweep, packed or not, or of the run")
    command.add_argument(
        "--pack",
        type=_path,
        metavar="OUT",
        help="write five files to the new directory OUT instead, and nothing to the other: sweep.json, runs.jsonl, "
        "curves.jsonl, report.md and report.csv; no checkpoints",
    )

    command = add(
        "describe", _describe, "Parameters by module, FLOPs, memory, and what is not used; nothing is trained.",
        "describe --config=configs/base.py:no_wo",
    )  # fmt: skip
    command.add_argument("--config", type=_text, metavar="FILE[:ROW]", required=True, help=config_help)

    command = add(
        "benchmark", _benchmark, "Run a file of benchmarks/ on a config, or on a run.",
        "benchmark populations --config=configs/scan_short.py",
    )  # fmt: skip
    command.add_argument("name", help="populations (of a config), decode (of a run)")
    command.add_argument("--config", type=_text, metavar="FILE[:ROW]", help=config_help)
    command.add_argument("--workdir", type=_path, metavar="DIR", help="a trained run")

    add(
        "doctor", _doctor, "Devices, versions, corpora and determinism, and how to get what is missing.",
        "doctor", takes_config=False,
    )  # fmt: skip
    return parser


def _train(options: argparse.Namespace, overrides: Overrides) -> int:
    from transformer_jax.loading import load_config
    from transformer_jax.run.train import train

    config = load_config(options.config, overrides)
    allowed = [name.strip() for name in options.allow_config_change.split(",") if name.strip()]
    result = train(config, options.workdir, allow_config_change=allowed, say=_say(options))
    skipped = f", of which {result['skipped']} were skipped" if result.get("skipped") else ""
    _print(options, result, [f"{options.workdir}: {result['status']} after {result['steps']} steps{skipped}"])
    return 1 if result["status"] == "diverged" else 0


def _evaluate(options: argparse.Namespace, overrides: Overrides) -> int:
    from transformer_jax.run.saved import evaluate_run, watch_run

    how = {"split": options.split, "source": options.source, "reference": options.reference, "overrides": overrides}
    if options.watch and options.checkpoint is not None:
        raise UserError("--watch scores every checkpoint: leave --checkpoint out.")
    if options.watch:
        for result in watch_run(options.workdir, **how):
            _print_scores(options, result)
    else:
        _print_scores(options, evaluate_run(options.workdir, checkpoint=options.checkpoint, **how))
    return 0


def _print_scores(options: argparse.Namespace, result: dict[str, Any]) -> None:
    from transformer_jax.run.train import describe_metrics

    lines = [f"{result['split']} ({result['checkpoint']}): {describe_metrics(result['metrics'])}"]
    lines += [f"{name}: {text}" for name, text in result["metrics"].items() if isinstance(text, str)]
    _print(options, result, lines)


def _translate(options: argparse.Namespace, overrides: Overrides) -> int:
    from transformer_jax.data.parallel_text import decode_lines
    from transformer_jax.files import one_line
    from transformer_jax.run.saved import translate

    if sys.stdin is None:
        raise UserError("standard input is closed: give the sentences there.")
    sources = decode_lines(sys.stdin.buffer, "standard input")
    found = translate(
        options.workdir, sources, checkpoint=options.checkpoint, num_results=options.nbest, overrides=overrides
    )
    lines = [one_line(best[0][0]) for best in found]
    if options.nbest > 1:
        lines = [f"{n}\t{score:.6f}\t{one_line(text)}" for n, best in enumerate(found, 1) for text, score in best]
    _print(options, {"translations": found}, lines)
    return 0


def _generate(options: argparse.Namespace, overrides: Overrides) -> int:
    from transformer_jax.run.generate import generate

    sampling = {"temperature": options.temperature, "top_k": options.top_k, "top_p": options.top_p}
    given = {name: value for name, value in sampling.items() if value is not None}
    if given and "decode.strategy" in overrides:
        raise UserError(f"--{next(iter(given)).replace('_', '-')} and --config.decode.strategy: give only one of them.")
    if given:
        chosen = ", ".join(f"{name}={value}" for name, value in given.items())
        overrides = {**overrides, "decode.strategy": "greedy" if given.get("temperature") == 0 else f"sample({chosen})"}
    if options.seed is not None:
        overrides = {**overrides, "seed": options.seed}
    texts = generate(
        options.workdir,
        options.prompt,
        checkpoint=options.checkpoint,
        samples=options.samples,
        length=options.length,
        stop=options.stop,
        overrides=overrides,
    )
    lines = texts if len(texts) == 1 else [f"--- {number} ---\n{text}" for number, text in enumerate(texts, 1)]
    _print(options, {"texts": texts}, lines)
    return 0


def _export(options: argparse.Namespace, overrides: Overrides) -> int:
    from transformer_jax.export import export

    written = export(options.workdir, options.output, options.checkpoint)
    _print(options, written, [f"{written['output']}: {len(written['tensors'])} tensors ({written['checkpoint']})"])
    return 0


def _replay(options: argparse.Namespace, overrides: Overrides) -> int:
    from transformer_jax.inspection.replay import replay

    found = replay(options.workdir)
    numbers = "  ".join(f"{name} {_number(value)}" for name, value in found["measured"].items())
    titles = {"largest": "largest value", "gradient_norm": "gradient norm", "update_norm": "update norm"}
    table = [(*titles.values(), "parameters")]
    table += [(*(_number(look[name]) for name in titles), path) for path, look in found["parameters"].items()]
    lines = [f"step {found['step']}: {numbers}"]
    lines += ["  ".join([*(f"{cell:>14}" for cell in cells), path]) for *cells, path in table]
    _print(options, found, lines)
    return 0


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4g}"


def _score(options: argparse.Namespace, overrides: Overrides) -> int:
    from transformer_jax.evaluation.significance import compare_files
    from transformer_jax.loading import split_specs
    from transformer_jax.run.saved import score_files

    specs = split_specs(options.metrics)
    if not specs:
        raise UserError(f"--metrics={options.metrics}: name at least one, such as bleu.")
    found = score_files(options.hypotheses, options.references, specs)
    if options.against is not None:
        test = compare_files(options.against, options.hypotheses, options.references, specs)
        found["against"] = dataclasses.asdict(test)
    lines = [f"{name}: {value}" for name, value in found.items() if name != "against"]
    lines += [f"against {options.against}: {name} {value}" for name, value in found.get("against", {}).items()]
    _print(options, found, lines)
    return 0


def _sweep(options: argparse.Namespace, overrides: Overrides) -> int:
    from transformer_jax.sweeps.experiment import choose_scale, load_experiment, make_variants, on_config
    from transformer_jax.sweeps.planning import plan_sweep
    from transformer_jax.sweeps.runner import run_sweep, sweep_status

    experiment = load_experiment(options.experiment)
    scale = choose_scale(experiment, options.scale)
    if options.config is not None:
        scale = on_config(scale, options.config)
    if options.seeds is not None:
        scale = dataclasses.replace(scale, seeds=options.seeds)
    variants = make_variants(experiment, scale, overrides)
    what = (options.experiment.stem, experiment, options.scale, scale, variants, options.workdir)
    if options.status:
        runs = sweep_status(options.workdir, plan_sweep(*what, download=False).runs)
        lines = [f"{run['status']:>10}  {run['row']} seed {run['seed']}  {run['message']}".rstrip() for run in runs]
        _print(options, {"runs": runs}, lines)
        return 0
    report = run_sweep(
        *what,
        workers=options.workers,
        lanes=options.lanes,
        reuse_finished=not options.no_reuse,
        retry_failed=options.retry_failed,
        time_limit=options.time_limit,
        say=_say(options),
    )
    _print(options, report.as_dict(), [report.summary, f"Report: {report.files['html']}"])
    return 1 if any(run.status == "failed" for run in report.analysis.sweep.runs) else 0


def _report(options: argparse.Namespace, overrides: Overrides) -> int:
    from transformer_jax.report.write import pack_report, write_report

    report = write_report(options.directory) if options.pack is None else pack_report(options.directory, options.pack)
    _print(options, report.as_dict(), [report.summary, *(str(path) for path in report.files.values())])
    return 0


def _describe(options: argparse.Namespace, overrides: Overrides) -> int:
    from transformer_jax.describe import describe
    from transformer_jax.loading import load_config

    figures = describe(load_config(options.config, overrides))
    lines = [f"{count:>13,}  {name}" for name, count in figures["modules"].items()]
    lines += [
        f"{figures['parameters']:>13,}  parameters",
        f"{figures['flops_per_token']:>13,}  FLOPs a token in training, attention between tokens not counted",
        f"{figures['state_bytes'] / 2**20:>13,.0f}  MiB of parameters, gradients and Adam's moments",
    ]
    lines += [f"not used: {path}" for path in figures["not_used"]]
    _print(options, figures, lines)
    return 0


def _benchmark(options: argparse.Namespace, overrides: Overrides) -> int:
    from transformer_jax.loading import load_config, load_module

    benchmark = load_module(ROOT / "benchmarks" / f"{options.name}.py", "run")
    if (options.config is None) == (options.workdir is None):
        raise UserError("Give one of --config and --workdir: benchmark populations is of a config, decode of a run.")
    measured = load_config(options.config, overrides) if options.workdir is None else options.workdir
    rows = benchmark.run(measured, say=_say(options))
    _print(options, {"benchmark": options.name, "rows": rows}, [])
    return 0


def _doctor(options: argparse.Namespace, overrides: Overrides) -> int:
    from transformer_jax.doctor import check_determinism, diagnose

    say = _say(options)
    found = diagnose()
    for name, value in found.items():
        say(f"{name:>24}  {value}")
    for name, value in check_determinism().items():  # takes half a minute
        say(f"{name:>24}  {value}")
        found[name] = value
    _print(options, found, [])
    return 0


def _say(options: argparse.Namespace) -> Callable[[str], None]:
    """Progress goes to standard error where standard output is for JSON.

    Where its reader has gone, as `head` does, what is being trained is saved and stopped as by a signal.
    """
    stream = sys.stderr if options.json else sys.stdout

    def say(line: str) -> None:
        try:
            print(line, file=stream, flush=True)
        except BrokenPipeError:
            _drop(stream)
            if not request_stop():
                raise

    return say


def _print(options: argparse.Namespace, result: dict[str, Any], lines: Sequence[str]) -> None:
    from transformer_jax.strict_json import to_json

    for line in [to_json(result)] if options.json else lines:
        print(line)
    _flush_output()  # --watch prints several, hours apart


if __name__ == "__main__":
    sys.exit(main())
