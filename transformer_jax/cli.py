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
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from transformer_jax.arguments import flush_output, make_parser
from transformer_jax.errors import UserError, shortened

REFUSED = 2
ROOT = Path(__file__).parent.parent
QUICKSTART = ["sweep", str(ROOT / "experiments" / "quickstart.py"), "--workdir=runs/quickstart"]
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
            from transformer_jax.compilation import keep_freed_memory, use_persistent_cache

            keep_freed_memory()
            use_persistent_cache()
        with _memory_in_a_sentence():
            return COMMANDS[options.command](options, overrides)
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
    options = make_parser().parse_args([argument for argument in arguments if argument not in ours])
    if not ours:
        return options, {}
    if not options.takes_config:
        raise UserError(f"{ours[0]}: this command reads no config.")
    from transformer_jax.loading import parse_override

    return options, dict(parse_override(argument) for argument in ours)


def _train(options: argparse.Namespace, overrides: Overrides) -> int:
    from transformer_jax.loading import load_config
    from transformer_jax.parallel.peers import is_first
    from transformer_jax.run.train import train

    config = load_config(options.config, overrides)
    allowed = [name.strip() for name in options.allow_config_change.split(",") if name.strip()]
    with _joined(options) as say:
        how = {"allow_config_change": allowed, "profile": options.profile_steps, "say": say}
        result = train(config, options.workdir, **how)
        if not is_first():
            return 0
    skipped = f", of which {result['skipped']} were skipped" if result.get("skipped") else ""
    _print(options, result, [f"{options.workdir}: {result['status']} after {result['steps']} steps{skipped}"])
    return 1 if result["status"] == "diverged" else 0


@contextlib.contextmanager
def _joined(options: argparse.Namespace) -> Iterator[Callable[[str], None]]:
    """With the other processes of a run, if there are any; of what is said, the first one says all."""
    from transformer_jax.parallel.peers import is_first, joined

    say = _say(options)
    with joined(_peers(options), say):
        yield say if is_first() else _nothing


def _peers(options: argparse.Namespace) -> Any:
    from transformer_jax.parallel.peers import find_peers

    return find_peers(options.coordinator, options.num_processes, options.process_id, os.environ)


def _evaluate(options: argparse.Namespace, overrides: Overrides) -> int:
    from transformer_jax.parallel.peers import is_first
    from transformer_jax.run.saved import evaluate_run, to_standard_error, watch_run

    how: dict[str, Any] = {
        "split": options.split,
        "source": options.source,
        "reference": options.reference,
        "overrides": overrides,
    }
    if options.watch and options.checkpoint is not None:
        raise UserError("--watch scores every checkpoint: leave --checkpoint out.")
    if options.watch:
        if _peers(options) is not None:
            raise UserError("--watch is of one process: leave it out, or start one alone.")
        for result in watch_run(options.workdir, **how):
            _print_scores(options, result)
        return 0
    with _joined(options):
        told = to_standard_error if is_first() else _nothing
        result = evaluate_run(options.workdir, checkpoint=options.checkpoint, say=told, **how)
        if is_first():
            _print_scores(options, result)
    return 0


def _nothing(line: str) -> None:
    """What the processes after the first one say."""


def _print_scores(options: argparse.Namespace, result: dict[str, Any]) -> None:
    from transformer_jax.run.conclude import describe_metrics

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
    if options.temperature == 0 and len(given) > 1:
        raise UserError("--temperature=0 always takes the most probable token: leave --top-k and --top-p out.")
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
    if options.format == "marian":
        from transformer_jax.marian.directory import export_marian as export
    else:
        from transformer_jax.export import export

    written = export(options.workdir, options.output, options.checkpoint)
    lines = [f"{written['output']}: {len(written['tensors'])} tensors ({written['checkpoint']})"]
    _print(options, written, [*lines, *written.get("remarks", [])])
    return 0


def _import(options: argparse.Namespace, overrides: Overrides) -> int:
    if options.bert:
        from transformer_jax.bert import import_bert

        made = import_bert(options.bert, options.workdir, overrides)
    else:
        from transformer_jax.marian.directory import import_marian

        made = import_marian(options.marian, options.workdir, overrides)
    line = f"{made['workdir']}: {made['parameters']:,} parameters, a vocabulary of {made['tokens']:,}"
    _print(options, made, [line, *made.get("remarks", [])])
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


def _inspect(options: argparse.Namespace, overrides: Overrides) -> int:
    from transformer_jax.inspection.chosen import Choice

    if options.gold is not None and not options.figures:
        raise UserError("--gold is read with --figures: give both.")
    if options.target is not None and options.text is None:
        raise UserError("--target is an output of --text: give both.")
    chosen = {name: getattr(options, name) for name in ("text", "target", "split", "source", "reference")}
    choice = Choice(**chosen, first=options.example, count=options.examples)
    how = {"checkpoint": options.checkpoint, "output": options.output, "overrides": overrides}
    if options.what == "heads":
        from transformer_jax.inspection import heads

        if given := [name for name in ("text", "figures", "scores", "layers", "heads") if getattr(options, name)]:
            raise UserError(f"inspect heads: --{given[0]} is not read; it measures all heads over a split or files.")
        found = heads.inspect_heads(options.workdir, choice, **how)
        _print(options, found, [*heads.as_text(found), found["file"]])
        return 0
    if options.figures:
        from transformer_jax.inspection.figures import as_text, attention_figures

        if options.text is not None:
            raise UserError("--figures are of a split or of files: leave --text out.")
        found = attention_figures(options.workdir, choice, gold=options.gold, **how)
        _print(options, found, [*as_text(found), found["file"]])
        return 0
    from transformer_jax.inspection.attention import inspect_attention

    which = {"layers": options.layers, "heads": options.heads, "scores": options.scores}
    found = inspect_attention(options.workdir, choice, **which, **how)
    _print(options, found, list(found["files"].values()))
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
    from transformer_jax.sweeps.runner import Submitted, cancel_sweep, run_sweep, sweep_status

    experiment = load_experiment(options.experiment)
    if options.rows is not None:
        experiment = experiment.only(options.rows)
    scale = choose_scale(experiment, options.scale)
    if options.config is not None:
        scale = on_config(scale, options.config)
    if options.seeds is not None:
        scale = dataclasses.replace(scale, seeds=options.seeds)
    if (options.max_seeds is not None) != options.until_settled:
        raise UserError("--until-settled and --max-seeds belong together: give both or none.")
    if options.until_settled:
        scale = scale.until_settled(options.max_seeds)
    if options.tune_rows and options.status:
        raise UserError("--status shows the rows at the base's setting: leave --tune-rows out.")
    variants = make_variants(experiment, scale, overrides)
    what = (options.experiment.stem, experiment, options.scale, scale, variants, options.workdir)
    if options.status:
        runs = sweep_status(options.workdir, plan_sweep(*what, download=False, here=False))
        lines = [f"{run['status']:>10}  {run['row']} seed {run['seed']}  {run['message']}".rstrip() for run in runs]
        _print(options, {"runs": runs}, lines)
        return 0
    if options.cancel:
        cancelled = cancel_sweep(options.workdir, plan_sweep(*what, download=False, here=False))
        _print(options, {"cancelled": cancelled}, [f"Jobs cancelled: {cancelled}. The same sweep resumes."])
        return 0
    how: dict[str, Any] = {"workers": options.workers, "lanes": options.lanes, "say": _say(options)}
    how["cluster"] = _cluster(options)
    try:
        if options.tune_rows:
            from transformer_jax.sweeps.row_tuning import with_own_rates

            experiment, variants = with_own_rates(*what, **how)
            what = (options.experiment.stem, experiment, options.scale, scale, variants, options.workdir)
        report = run_sweep(
            *what,
            **how,
            reuse_finished=not options.no_reuse,
            retry_failed=options.retry_failed,
            time_limit=options.time_limit,
        )
    except Submitted as submitted:
        _print(options, {"submitted": True}, [str(submitted)])
        return 0
    _print(options, report.as_dict(), [report.summary, f"Report: {report.files['html']}"])
    return 1 if any(run.status == "failed" for run in report.analysis.sweep.runs) else 0


def _cluster(options: argparse.Namespace) -> Any:
    """What is asked of Slurm; None where this machine trains."""
    from transformer_jax.sweeps.slurm import make_cluster

    gpus = options.gpus
    flags = {"partition": options.partition, "account": options.account, "gpus-per-node": gpus, "time": options.time}
    if options.executor == "slurm":
        if options.workers is not None:
            raise UserError("--workers is of --executor=local: with --executor=slurm give --max-parallel.")
        return make_cluster(options.slurm_profile, flags, options.max_parallel)
    ours = {"max-parallel": options.max_parallel, "slurm-profile": options.slurm_profile, **flags, "gpus": gpus}
    for name, value in ours.items():
        if value is not None and name != "gpus-per-node":
            raise UserError(f"--{name}={value}: belongs to --executor=slurm.")
    return None


def _tune(options: argparse.Namespace, overrides: Overrides) -> int:
    from transformer_jax.sweeps.tuning import TABLE, parse_tried, to_markdown, tune

    tuning = tune(
        options.config,
        overrides,
        parse_tried(options.tried),
        options.workdir,
        seeds=options.seeds,
        metric=options.metric,
        workers=options.workers,
        lanes=options.lanes,
        say=_say(options),
    )
    lines = [to_markdown(tuning), f"{options.workdir / TABLE} holds this table. Put into the config:"]
    _print(options, tuning.as_dict(), [*lines, *(f"  {argument}" for argument in tuning.arguments)])
    return 0


def _report(options: argparse.Namespace, overrides: Overrides) -> int:
    from transformer_jax.report.family import as_dict, read_family, to_markdown
    from transformer_jax.report.write import pack_report, write_report

    if options.family:
        if options.pack is not None:
            raise UserError("--family writes no files: leave --pack out.")
        members = read_family(options.directory)
        _print(options, as_dict(members), [to_markdown(members)])
        return 0
    if len(options.directory) > 1:
        raise UserError("Give one directory, or --family for one table over several sweeps.")
    (directory,) = options.directory
    report = write_report(directory) if options.pack is None else pack_report(directory, options.pack)
    _print(options, report.as_dict(), [report.summary, *(str(path) for path in report.files.values())])
    return 0


def _describe(options: argparse.Namespace, overrides: Overrides) -> int:
    from transformer_jax.describe import describe
    from transformer_jax.loading import load_config

    if options.devices is not None:
        return _forecast(options, overrides)
    for option in ("mesh", "memory"):
        if getattr(options, option) is not None:
            raise UserError(f"--{option}: give --devices, too: it is about a step that is compiled for them.")
    figures = describe(load_config(options.config, overrides))
    memory = ", ".join(f"{name} {size / 2**20:,.0f}" for name, size in figures["memory"].items() if size)
    lines = [f"{count:>13,}  {name}" for name, count in figures["modules"].items()]
    lines += [
        f"{figures['parameters']:>13,}  parameters",
        *(
            f"{flops:>13,}  FLOPs in training for each {side}"
            if side == "example"
            else f"{flops:>13,}  FLOPs in training for each token of the {side}, attention between tokens not counted"
            for side, flops in figures["flops_per_token"].items()
        ),
        f"{sum(figures['memory'].values()) / 2**20:>13,.0f}  MiB of memory: {memory}",
    ]
    lines += [f"not used: {path}" for path in figures["not_used"]]
    _print(options, figures, lines)
    return 0


def _forecast(options: argparse.Namespace, overrides: Overrides) -> int:
    from transformer_jax.config import Resolved
    from transformer_jax.describe import describe
    from transformer_jax.forecast import FLOPS, flops_per_step, forecast, mesh_overrides, play_devices
    from transformer_jax.loading import load_config

    play_devices(options.devices)
    config = load_config(options.config, {**overrides, **mesh_overrides(options.mesh or "")})
    figures = {**describe(config), **forecast(Resolved(config), options.memory)}
    figures["flops_per_step"] = flops_per_step(Resolved(config), figures["flops_per_token"])
    mib = {name: f"{size / 2**20:>13,.1f}  MiB" for name, size in figures["per_device"].items()}
    lines = [
        f"{figures['parameters']:>13,}  parameters",
        f"{figures['flops_per_step']:>13,.3g}  FLOPs a step of all devices: {FLOPS}",
        f"{' x '.join(f'{axis} {size}' for axis, size in figures['mesh'].items() if size > 1):>13}  devices",
        *(f"{name}: {shape}" for name, shape in figures["batch"].items()),
        "of each device:",
        *(f"{mib[name]} of {name}" for name in ("parameters", "optimizer", "average")),
        f"{mib['works']} a step works with beside them, as compiled for CPUs: an estimate for other devices",
        f"{mib['logits']} of these are logits, in float32",
        *(
            f"{of['times']:>13,}  {kind} a step, {of['bytes'] / 2**20:,.1f} MiB"
            for kind, of in figures["collectives"].items()
        ),
    ]
    if "most_rows" in figures:
        lines.append(f"{figures['most_rows']:>13,}  rows of a batch fit, on the line through two compiled sizes")
    _print(options, figures, lines)
    return 0


def _benchmark(options: argparse.Namespace, overrides: Overrides) -> int:
    from transformer_jax.loading import load_config, load_module

    benchmark = load_module(ROOT / "benchmarks" / f"{options.name}.py", "run")
    if options.name == "statistics":  # of no model: its sweeps are drawn
        rows = benchmark.run(options.seed, options.spreads, options.sweeps, _say(options))
        _print(options, {"benchmark": options.name, "rows": rows}, [])
        return 0
    given = [name for name in ("config", "workdir", "models") if getattr(options, name) is not None]
    if len(given) > 1 or not {*given, *([] if given else ["models"])} <= set(benchmark.OF):
        raise UserError(f"benchmark {options.name}: give one of {', '.join(f'--{name}' for name in benchmark.OF)}.")
    if overrides and options.config is None:
        raise UserError(f"--config.{next(iter(overrides))}: give --config, too; only that can be changed.")
    if options.config is not None:
        measured: Any = load_config(options.config, overrides)
    else:
        measured = options.workdir or benchmark.chosen_models(options.models or "")
    rows = benchmark.run(measured, say=_say(options))
    lines = []
    if options.output is not None:
        outcome = load_module(ROOT / "benchmarks" / "outcome.py", "write")
        lines = [str(path) for path in outcome.write(options.name, rows, options.output)]
    _print(options, {"benchmark": options.name, "rows": rows}, lines)
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
    flush_output()  # --watch prints several, hours apart


COMMANDS: dict[str, Callable[[argparse.Namespace, Overrides], int]] = {
    "train": _train,
    "evaluate": _evaluate,
    "translate": _translate,
    "generate": _generate,
    "export": _export,
    "import": _import,
    "replay": _replay,
    "inspect": _inspect,
    "score": _score,
    "sweep": _sweep,
    "tune": _tune,
    "report": _report,
    "describe": _describe,
    "benchmark": _benchmark,
    "doctor": _doctor,
}

if __name__ == "__main__":
    sys.exit(main())
