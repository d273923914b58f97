"""What the commands are given: their options, and the texts of `--help`."""

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from transformer_jax.errors import UserError
from transformer_jax.run.directory import MOST_SEEDS

MOST_AT_A_TIME, MOST_RESULTS, MOST_LENGTH, MOST_DEVICES = 1_000, 1_000, 1_000_000, 4_096


def flush_output() -> None:
    """Here it may fail: at the end of the process that would be a traceback."""
    if sys.stdout is not None:
        sys.stdout.flush()


class _Parser(argparse.ArgumentParser):
    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        flush_output()  # of --help
        super().exit(status, message)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}. `./{self.prog} --help` says more.")


def _text(text: str) -> str:
    if not text.strip() or "\0" in text:
        raise argparse.ArgumentTypeError(f"{text!r} names nothing")
    return text


def _path(text: str) -> Path:
    return Path(_text(text))


def _gigabytes(text: str) -> int:
    """Bytes of "80" or "80GB"."""
    try:
        size = float(text.removesuffix("GB"))
    except ValueError:
        size = 0.0
    if not 0 < size < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of gigabytes, such as 80GB")
    return int(size * 1e9)


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


def _window(text: str) -> tuple[int, int]:
    """FIRST:LAST, counted from 1."""
    first, colon, last = text.partition(":")
    try:
        window = int(first), int(last)
    except ValueError:
        window = 0, 0
    if not (colon and 1 <= window[0] <= window[1] <= MOST_LENGTH * MOST_AT_A_TIME):
        raise argparse.ArgumentTypeError(f"{text!r} is not FIRST:LAST, two steps counted from 1")
    return window


def _numbers(text: str) -> list[float]:
    """Numbers above 0 between commas."""
    return [_number_of(1e-9, 1e9)(number) for number in text.split(",")]


def _names(text: str) -> list[str]:
    """Names between commas."""
    return [_text(name).strip() for name in text.split(",")]


def _whole_numbers(text: str) -> list[int]:
    """Numbers from 0 between commas."""
    return [_count(MOST_LENGTH, least=0)(number) for number in text.split(",")]


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


def make_parser() -> argparse.ArgumentParser:
    """The parser of all commands; `command` of what it finds is the name of one."""
    parser = _Parser(
        prog="launch.sh",
        description="A laboratory for the Transformer. Without a command: the quick-start sweep and its report.",
        epilog="`./launch.sh COMMAND --help` shows an example. `./launch.sh test` runs the tests.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(
        name: str,
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
        command.set_defaults(command=name, takes_config=takes_config, computes=computes)
        command.add_argument("--json", action="store_true", help="print the result as one JSON object")
        return command

    def add_run(command: argparse.ArgumentParser, checkpoint: bool = False) -> None:
        command.add_argument("--workdir", type=_path, required=True, help="the run directory")
        if checkpoint:
            command.add_argument(
                "--checkpoint", type=_text, help="best, last, a step or average:N (default: evaluate.checkpoint)"
            )

    def add_execution(command: argparse.ArgumentParser) -> None:
        command.add_argument("--workers", type=_count(MOST_AT_A_TIME), help="processes at a time")
        command.add_argument(
            "--lanes",
            type=_count(MOST_AT_A_TIME),
            help="runs trained together in one program; 1: one after another (default: the faster)",
        )

    def add_processes(command: argparse.ArgumentParser) -> None:
        command.add_argument(
            "--coordinator",
            type=_some,
            metavar="HOST:PORT",
            help="of the first of several processes that share the work",
        )
        command.add_argument("--num-processes", type=_count(MOST_LENGTH), help="how many they are")
        command.add_argument(
            "--process-id",
            type=_count(MOST_LENGTH, least=0),
            help="which this one is, from 0 (under srun, and on TPU pods, none of the three is needed)",
        )

    config_help = "config file, and a row of its ROWS; --config.a.b=value changes any field but what the row sets"
    command = add(
        "train", "Train and evaluate one run, or resume it.",
        "train --config=configs/scan.py:no_wo --workdir=runs/no_wo --config.model.num_heads=8",
    )  # fmt: skip
    command.add_argument("--config", type=_text, metavar="FILE[:ROW]", required=True, help=config_help)
    add_run(command)
    add_processes(command)
    command.add_argument(
        "--allow-config-change", metavar="FIELD,...", default="", help="fields that may differ from the run's config"
    )
    command.add_argument(
        "--profile-steps",
        type=_window,
        metavar="FIRST:LAST",
        help="write a trace of these steps, both included, into the run directory's profile/, to be looked at with "
        "TensorBoard (a step that is the first of its shape compiles); results stay the same",
    )

    command = add(
        "evaluate", "Score a run on a split of its corpus, or on files.",
        "evaluate --workdir=runs/no_wo --checkpoint=best --split=test",
    )  # fmt: skip
    add_run(command, checkpoint=True)
    add_processes(command)
    command.add_argument("--split", default="test", help="train, valid or test")
    command.add_argument("--source", type=_path, help="a file of sentences, one a line")
    command.add_argument("--reference", type=_path, help="their translations")
    command.add_argument("--watch", action="store_true", help="follow a training run: score each new checkpoint")

    command = add(
        "translate", "Translate standard input, a sentence a line, to standard output.",
        'translate --workdir=runs/no_wo <<< "jump twice and walk left"',
    )  # fmt: skip
    add_run(command, checkpoint=True)
    command.add_argument(
        "--nbest", type=_count(MOST_RESULTS), default=1, help="translations a sentence; above 1 with their scores"
    )

    command = add(
        "generate", "Have a language model write on after a prompt.",
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
        "export", "Write the parameters of a run as safetensors, or all of it as a Marian model of Hugging Face.",
        "export --workdir=runs/no_wo --checkpoint=best --output=no_wo.safetensors", takes_config=False,
    )  # fmt: skip
    add_run(command, checkpoint=True)
    command.add_argument("--output", type=_path, required=True, help="the file, or with --format=marian the directory")
    command.add_argument(
        "--format",
        choices=("safetensors", "marian"),
        default="safetensors",
        help="safetensors: our parameters by their names (the default); marian: what MarianMTModel.from_pretrained and "
        "CTranslate2's converter read",
    )

    command = add(
        "import", "Make a run of a Marian model or a BERT of Hugging Face, to be evaluated, changed and trained on.",
        "import --marian=opus-mt-en-de --workdir=runs/opus --config.data.directory=multi30k",
    )  # fmt: skip
    origin = command.add_mutually_exclusive_group(required=True)
    origin.add_argument(
        "--marian",
        type=_path,
        help="a directory with config.json, model.safetensors, vocab.json, source.spm and target.spm",
    )
    origin.add_argument("--bert", type=_path, help="a directory with config.json, model.safetensors and vocab.txt")
    command.add_argument("--workdir", type=_path, required=True, help="the run directory to make")

    command = add(
        "replay", "Take the step again at which a run diverged, and show what is not finite.",
        "replay --workdir=runs/no_wo", takes_config=False,
    )  # fmt: skip
    add_run(command)

    command = add(
        "inspect", "Look inside a trained model: which word looks at which, what each head is worth.",
        'inspect attention --workdir=runs/no_wo --text="jump twice and walk left"',
    )  # fmt: skip
    command.add_argument(
        "what",
        choices=("attention", "heads"),
        help="attention: the weights of every layer and head; heads: what each is worth, over a split or files",
    )
    add_run(command, checkpoint=True)
    command.add_argument("--text", type=_some, help="look at this sentence, and at what the model makes of it")
    command.add_argument("--target", type=_some, help="an output of --text, in place of the model's own")
    command.add_argument("--split", default="valid", help="train, valid or test, where there is no --text (valid)")
    command.add_argument("--source", type=_path, help="a file of sentences, one a line, in place of a split")
    command.add_argument("--reference", type=_path, help="their translations")
    command.add_argument(
        "--example", type=_count(MOST_LENGTH, least=0), default=0, help="the first example of them to look at, from 0"
    )
    command.add_argument("--examples", type=_count(20), default=1, help="how many of them (1)")
    command.add_argument("--layers", type=_whole_numbers, metavar="N,...", help="only these layers, from 0")
    command.add_argument("--heads", type=_whole_numbers, metavar="N,...", help="only these heads, from 0")
    command.add_argument("--scores", action="store_true", help="keep what the weights are made of, too")
    command.add_argument(
        "--figures", action="store_true", help="numbers over all of the split or the files, in place of pictures"
    )
    command.add_argument(
        "--gold", type=_path, help="with --figures: alignments of the pairs (0-0 1-2 2?1), for the error rate"
    )
    command.add_argument(
        "--output", type=_path, metavar="DIR", help="where to write to (default: inspection/ of the run)"
    )

    command = add(
        "score", "Score given translations.",
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
        "sweep", "Run every row of an experiment over its seeds, and write the report.",
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
        "--rows",
        type=_names,
        metavar="ROW,...",
        help="only these rows beside the base; the same line without it adds the others later",
    )
    command.add_argument(
        "--seeds", type=_count(MOST_SEEDS), help="how many seeds, 0, 1, ...; there is no --config.seed here"
    )
    command.add_argument(
        "--until-settled",
        action="store_true",
        help="begin with those seeds, then double them, up to --max-seeds, for the rows whose comparisons are open; "
        "what is said is corrected for the looks",
    )
    command.add_argument("--max-seeds", type=_count(MOST_SEEDS), help="the most seeds of a row, with --until-settled")
    add_execution(command)
    command.add_argument("--no-reuse", action="store_true", help="train anew what a sweep beside this one has trained")
    command.add_argument("--retry-failed", action="store_true", help="try runs again that failed before")
    command.add_argument(
        "--time-limit",
        type=_seconds,
        metavar="SECONDS",
        help="end a run that takes longer (lanes: each so long); it has failed",
    )
    command.add_argument(
        "--tune-rows",
        action="store_true",
        help="train each row at a learning rate of its own too: of half, once and twice the base's the best on the "
        "validation split, with seeds that no sweep has",
    )
    command.add_argument("--status", action="store_true", help="only show how far each run of this sweep is")
    command.add_argument(
        "--executor",
        choices=("local", "slurm"),
        default="local",
        help="who trains: processes of this machine, or jobs that are submitted to Slurm; either resumes the other's",
    )
    command.add_argument("--partition", type=_some, help="of Slurm, for each job")
    command.add_argument("--account", type=_some, help="that Slurm charges")
    command.add_argument("--gpus", type=_count(MOST_AT_A_TIME), help="GPUs of a job")
    command.add_argument("--time", type=_some, help="of a job, as 4:00:00; what is not done by then is queued again")
    command.add_argument("--max-parallel", type=_count(MOST_AT_A_TIME), help="jobs that may run at a time")
    command.add_argument(
        "--slurm-profile", type=_path, metavar="FILE", help="TOML: any option of sbatch, and setup, lines of shell"
    )
    command.add_argument("--cancel", action="store_true", help="only cancel the jobs of this sweep; they save first")

    command = add(
        "tune", "Find the numbers of a base on the validation split, with seeds that no sweep has.",
        "tune --config=configs/scan_short.py --workdir=runs/tune_scan_short \\\n"
        "    --try=optimizer.learning_rate=1e-3,2e-3,4e-3 --try=model.dropout_rate=0,0.1",
    )  # fmt: skip
    command.add_argument("--config", type=_text, metavar="FILE[:ROW]", required=True, help=config_help)
    command.add_argument("--workdir", type=_path, required=True, help="the directory of the search")
    command.add_argument(
        "--try",
        dest="tried",
        type=_text,
        action="append",
        default=[],
        metavar="FIELD=VALUE,...",
        help="values of a number that is no size; every combination is trained (default: half, once and twice the "
        "learning rate, with and without dropout and label smoothing)",
    )
    command.add_argument("--seeds", type=_count(MOST_SEEDS), default=3, help="how many for each combination")
    command.add_argument(
        "--metric", type=_text, help="of the validation split, to choose by (default: the first of evaluate.metrics)"
    )
    add_execution(command)

    command = add(
        "report", "Write the report of a sweep or of a run from its directory.",
        "report runs/heads", takes_config=False, computes=False,
    )  # fmt: skip
    command.add_argument("directory", type=_path, nargs="+", help="of the sweep, packed or not, or of the run")
    command.add_argument(
        "--family", action="store_true", help="print one table of several sweeps, whose tests are corrected together"
    )
    command.add_argument(
        "--pack",
        type=_path,
        metavar="OUT",
        help="write five files to the new directory OUT instead, and nothing to the other: sweep.json, runs.jsonl, "
        "curves.jsonl, report.md and report.csv; no checkpoints",
    )

    command = add(
        "describe", "Parameters by module, FLOPs, memory, and what is not used; nothing is trained.",
        "describe --config=configs/base.py:no_wo --config.model.vocab_size=37000 --devices=8 --mesh=fsdp:8",
    )  # fmt: skip
    command.add_argument("--config", type=_text, metavar="FILE[:ROW]", required=True, help=config_help)
    command.add_argument(
        "--devices",
        type=_count(MOST_DEVICES),
        help="compile a training step for so many devices, which the CPU plays, and tell what each then keeps",
    )
    command.add_argument(
        "--mesh", type=_text, metavar="AXIS:SIZE,...", help="with --devices: sizes of parallel.*, as data:8,fsdp:8"
    )
    command.add_argument(
        "--memory", type=_gigabytes, metavar="GB", help="with --devices: of one of them, to tell the largest batch"
    )

    command = add(
        "benchmark", "Run a file of benchmarks/: how fast, and beside what else.",
        "benchmark train --models=scan,multi30k --output=docs/benchmarks",
    )  # fmt: skip
    command.add_argument(
        "name",
        help="train, start, depth, data (of models or a config), populations (of a config), decode (of a run), "
        "statistics (of nothing: drawn)",
    )
    command.add_argument("--models", type=_text, metavar="NAME,...", help="of benchmarks/models.py (default: all)")
    command.add_argument("--config", type=_text, metavar="FILE[:ROW]", help=config_help)
    command.add_argument("--workdir", type=_path, metavar="DIR", help="a trained run")
    command.add_argument("--output", type=_path, metavar="DIR", help="add what is measured to NAME.json, and draw it")
    command.add_argument("--seed", type=_count(2**31 - 1, least=0), default=0, help="of what statistics draws")
    command.add_argument(
        "--spreads", type=_numbers, default=[1.0, 10.0, 100.0], help="of one row, over that of the others: 1,10,100"
    )
    command.add_argument("--sweeps", type=_count(10**6), default=10_000, help="drawn for each figure of statistics")

    add(
        "doctor", "Devices, versions, corpora and determinism, and how to get what is missing.",
        "doctor", takes_config=False,
    )  # fmt: skip
    return parser
