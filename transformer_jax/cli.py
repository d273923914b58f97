"""The commands. No logic: arguments in, one call, the result out."""

import argparse
import dataclasses
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformer_jax.compilation import use_persistent_cache
from transformer_jax.data.parallel_text import decode_lines
from transformer_jax.describe import describe
from transformer_jax.doctor import check_determinism, diagnose
from transformer_jax.errors import UserError
from transformer_jax.export import export
from transformer_jax.interruption import Interruption
from transformer_jax.loading import load_config, load_module, parse_override, split_specs
from transformer_jax.replay import replay
from transformer_jax.run import describe_metrics, train
from transformer_jax.run_directory import one_line
from transformer_jax.saved_run import evaluate_run, score_files, translate, watch_run
from transformer_jax.strict_json import to_json
from transformer_jax.sweeps.experiment import choose_scale, load_experiment, make_variants, on_config
from transformer_jax.sweeps.report import write_report
from transformer_jax.sweeps.runner import run_sweep, sweep_status
from transformer_jax.sweeps.sentence_test import compare_files

REFUSED, STOPPED, ABORTED = 2, 75, 130
ROOT = Path(__file__).parent.parent
QUICKSTART = ["sweep", str(ROOT / "experiments" / "quickstart.py"), "--workdir=runs/quickstart"]
Overrides = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0; 1 if runs failed or diverged; 2 if refused with a sentence, or the disk fails; 75 if stopped and
    saved; 130 if stopped at once."""
    arguments = list(sys.argv[1:] if arguments is None else arguments) or QUICKSTART
    try:
        options, overrides = _parse(arguments)
        use_persistent_cache()
        return options.command(options, overrides)
    except UserError as error:
        print(f"transformer_jax: {error}", file=sys.stderr)
        return REFUSED
    except Interruption as stopped:
        print(f"\n{stopped}. The same command goes on: {shlex.join(['./launch.sh', *arguments])}", file=sys.stderr)
        return STOPPED
    except KeyboardInterrupt:
        print(
            "\nstopped at once. What was saved before is intact; the same command goes on from there.", file=sys.stderr
        )
        sys.stdout.flush()
        os._exit(ABORTED)  # without waiting for a save that is under way; what it leaves is cleared away later
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a disk that is full, a directory that may not be written
        print(f"transformer_jax: {error.filename or 'input or output'}: {error.strerror or error}.", file=sys.stderr)
        return REFUSED


def _parse(arguments: list[str]) -> tuple[argparse.Namespace, Overrides]:
    """Options of the command, and the `--config.a.b=value` among the arguments."""
    ours = [argument for argument in arguments if argument.startswith("--config.")]
    options = _parser().parse_args([argument for argument in arguments if argument not in ours])
    if ours and not options.takes_config:
        raise UserError(f"{ours[0]}: this command reads no config.")
    return options, dict(parse_override(argument) for argument in ours)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="launch.sh",
        description="A laboratory for the Transformer. Without a command: the quick-start sweep and its report.",
        epilog="`./launch.sh COMMAND --help` shows an example. `./launch.sh test` runs the tests.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(
        name: str, call: Callable[..., int], summary: str, example: str, takes_config: bool = True
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name,
            help=summary,
            description=f"{summary}\n\nExample:\n  ./launch.sh {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(command=call, takes_config=takes_config)
        command.add_argument("--json", action="store_true", help="print the result as one JSON object")
        return command

    config_help = "config file, and a row of its ROWS; any field is changed by --config.a.b=value"
    command = add(
        "train", _train, "Train and evaluate one run, or go on with it.",
        "train --config=configs/scan.py:no_wo --workdir=runs/no_wo --config.model.num_heads=8",
    )  # fmt: skip
    command.add_argument("--config", metavar="FILE[:ROW]", required=True, help=config_help)
    command.add_argument("--workdir", type=Path, required=True, help="the run directory")
    command.add_argument(
        "--allow-config-change", metavar="FIELD,...", default="", help="fields that may differ from the run's config"
    )

    command = add(
        "evaluate", _evaluate, "Score a run on a split of its corpus, or on files.",
        "evaluate --workdir=runs/no_wo --checkpoint=best --split=test",
    )  # fmt: skip
    command.add_argument("--workdir", type=Path, required=True, help="the run directory")
    command.add_argument("--checkpoint", help="best, last, a step or average:N (default: evaluate.checkpoint)")
    command.add_argument("--split", default="test", help="train, valid or test")
    command.add_argument("--source", type=Path, help="a file of sentences, one a line")
    command.add_argument("--reference", type=Path, help="their translations")
    command.add_argument("--watch", action="store_true", help="follow a training run: score each new checkpoint")

    command = add(
        "translate", _translate, "Translate standard input, a sentence a line, to standard output.",
        'translate --workdir=runs/no_wo <<< "jump twice and walk left"',
    )  # fmt: skip
    command.add_argument("--workdir", type=Path, required=True, help="the run directory")
    command.add_argument("--checkpoint", help="best, last, a step or average:N (default: evaluate.checkpoint)")
    command.add_argument("--nbest", type=int, default=1, help="translations a sentence; above 1 with their scores")

    command = add(
        "export", _export, "Write the parameters of a run as safetensors.",
        "export --workdir=runs/no_wo --checkpoint=best --output=no_wo.safetensors", takes_config=False,
    )  # fmt: skip
    command.add_argument("--workdir", type=Path, required=True, help="the run directory")
    command.add_argument("--checkpoint", help="best, last, a step or average:N (default: evaluate.checkpoint)")
    command.add_argument("--output", type=Path, required=True, help="the file to write")

    command = add(
        "replay", _replay, "Take the step again at which a run diverged, and show what is not finite.",
        "replay --workdir=runs/no_wo", takes_config=False,
    )  # fmt: skip
    command.add_argument("--workdir", type=Path, required=True, help="the run directory")

    command = add(
        "score", _score, "Score given translations.",
        "score --hypotheses=output.txt --references=reference.txt --metrics=bleu,chrf", takes_config=False,
    )  # fmt: skip
    command.add_argument("--hypotheses", type=Path, required=True, help="translations, one a line")
    command.add_argument("--references", type=Path, required=True, help="what they should be, one a line")
    command.add_argument("--metrics", default="bleu,chrf", help="comma-separated, as in evaluate.metrics")
    command.add_argument(
        "--against",
        type=Path,
        help="another system's translations: is the difference in BLEU one of these sentences alone?",
    )

    command = add(
        "sweep", _sweep, "Run every row of an experiment over its seeds, and write the report.",
        "sweep experiments/heads.py --scale=small --workdir=runs/heads",
    )  # fmt: skip
    command.add_argument("experiment", type=Path, help="a file of experiments/")
    command.add_argument("--workdir", type=Path, required=True, help="the directory of the sweep")
    command.add_argument("--scale", default="small", help="smoke, small, full, or another of the experiment")
    command.add_argument("--config", metavar="FILE", help="put the rows on this base instead")
    command.add_argument("--seeds", type=int, help="how many seeds, 0, 1, ...")
    command.add_argument("--workers", type=int, help="processes at a time")
    command.add_argument(
        "--lanes", type=int, help="runs trained together in one program; 1: one after another (default: the faster)"
    )
    command.add_argument("--no-reuse", action="store_true", help="train anew what a sweep beside this one has trained")
    command.add_argument("--retry-failed", action="store_true", help="try runs again that failed before")
    command.add_argument(
        "--time-limit",
        type=float,
        metavar="SECONDS",
        help="end a run that takes longer (lanes: each so long); it has failed",
    )
    command.add_argument("--status", action="store_true", help="only show how far each run is")

    command = add(
        "report", _report, "Write the report of a sweep or of a run from its directory.",
        "report runs/heads", takes_config=False,
    )  # fmt: skip
    command.add_argument("directory", type=Path)

    command = add(
        "describe", _describe, "Parameters by module, FLOPs, memory, and what is not used; nothing is trained.",
        "describe --config=configs/base.py:no_wo",
    )  # fmt: skip
    command.add_argument("--config", metavar="FILE[:ROW]", required=True, help=config_help)

    command = add(
        "benchmark", _benchmark, "Run a file of benchmarks/ on a config.",
        "benchmark populations --config=configs/scan_short.py",
    )  # fmt: skip
    command.add_argument("name", help="populations")
    command.add_argument("--config", metavar="FILE[:ROW]", required=True, help=config_help)

    add(
        "doctor", _doctor, "Devices, versions, corpora and determinism, and how to get what is missing.",
        "doctor", takes_config=False,
    )  # fmt: skip
    return parser


def _train(options: argparse.Namespace, overrides: Overrides) -> int:
    config = load_config(options.config, overrides)
    allowed = [name.strip() for name in options.allow_config_change.split(",") if name.strip()]
    result = train(config, options.workdir, allow_config_change=allowed, say=_say(options))
    skipped = f", of which {result['skipped']} were skipped" if result.get("skipped") else ""
    _print(options, result, [f"{options.workdir}: {result['status']} after {result['steps']} steps{skipped}"])
    return 1 if result["status"] == "diverged" else 0


def _evaluate(options: argparse.Namespace, overrides: Overrides) -> int:
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
    lines = [f"{result['split']} ({result['checkpoint']}): {describe_metrics(result['metrics'])}"]
    lines += [f"{name}: {text}" for name, text in result["metrics"].items() if isinstance(text, str)]
    _print(options, result, lines)


def _translate(options: argparse.Namespace, overrides: Overrides) -> int:
    if options.nbest < 1:
        raise UserError(f"--nbest={options.nbest}: there must be at least one.")
    sources = decode_lines(sys.stdin.buffer, "standard input")
    found = translate(
        options.workdir, sources, checkpoint=options.checkpoint, num_results=options.nbest, overrides=overrides
    )
    lines = [one_line(best[0][0]) for best in found]
    if options.nbest > 1:
        lines = [f"{n}\t{score:.6f}\t{one_line(text)}" for n, best in enumerate(found, 1) for text, score in best]
    _print(options, {"translations": found}, lines)
    return 0


def _export(options: argparse.Namespace, overrides: Overrides) -> int:
    written = export(options.workdir, options.output, options.checkpoint)
    _print(options, written, [f"{written['output']}: {len(written['tensors'])} tensors ({written['checkpoint']})"])
    return 0


def _replay(options: argparse.Namespace, overrides: Overrides) -> int:
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
    specs = split_specs(options.metrics)
    found = score_files(options.hypotheses, options.references, specs)
    if options.against is not None:
        test = compare_files(options.against, options.hypotheses, options.references, specs)
        found["against"] = dataclasses.asdict(test)
    lines = [f"{name}: {value}" for name, value in found.items() if name != "against"]
    lines += [f"against {options.against}: {name} {value}" for name, value in found.get("against", {}).items()]
    _print(options, found, lines)
    return 0


def _sweep(options: argparse.Namespace, overrides: Overrides) -> int:
    if options.status:
        return _status(options)
    experiment = load_experiment(options.experiment)
    scale = choose_scale(experiment, options.scale)
    if options.config is not None:
        scale = on_config(scale, options.config)
    if options.seeds is not None:
        if options.seeds < 1:
            raise UserError(f"--seeds={options.seeds}: there must be at least one.")
        scale = dataclasses.replace(scale, seeds=options.seeds)
    report = run_sweep(
        options.experiment.stem,
        experiment,
        options.scale,
        scale,
        make_variants(experiment, scale, overrides),
        options.workdir,
        workers=options.workers,
        lanes=options.lanes,
        reuse=not options.no_reuse,
        retry_failed=options.retry_failed,
        time_limit=options.time_limit,
        say=_say(options),
    )
    _print(options, report.as_dict(), [report.summary, f"Report: {report.files['html']}"])
    return 1 if any(run.status == "failed" for run in report.analysis.sweep.runs) else 0


def _status(options: argparse.Namespace) -> int:
    runs = sweep_status(options.workdir)
    lines = [f"{run['status']:>10}  {run['row']} seed {run['seed']}  {run['message']}".rstrip() for run in runs]
    _print(options, {"runs": runs}, lines)
    return 0


def _report(options: argparse.Namespace, overrides: Overrides) -> int:
    report = write_report(options.directory)
    _print(options, report.as_dict(), [report.summary, *(str(path) for path in report.files.values())])
    return 0


def _describe(options: argparse.Namespace, overrides: Overrides) -> int:
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
    benchmark = load_module(ROOT / "benchmarks" / f"{options.name}.py", "run")
    rows = benchmark.run(load_config(options.config, overrides), say=_say(options))
    _print(options, {"benchmark": options.name, "rows": rows}, [])
    return 0


def _doctor(options: argparse.Namespace, overrides: Overrides) -> int:
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
    """Progress goes to standard error where standard output is for JSON."""
    stream = sys.stderr if options.json else sys.stdout
    return lambda line: print(line, file=stream, flush=True)


def _print(options: argparse.Namespace, result: dict[str, Any], lines: Sequence[str]) -> None:
    for line in [to_json(result)] if options.json else lines:
        print(line)


if __name__ == "__main__":
    sys.exit(main())
