"""What cannot be done is said in a sentence: exit status 2, no traceback, and nothing is left on disk."""

import dataclasses
import gzip
import io
import json
import os
import pickle
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import tiny_run

from transformer_jax import cli
from transformer_jax.checkpoint import MANIFEST, _hashes


@dataclasses.dataclass(frozen=True)
class Case:
    """`files` are written first (a Path is copied), `change` is done to the run directory `run`, a finished one."""

    name: str
    arguments: str
    said: str
    files: Mapping[str, str | bytes] = dataclasses.field(default_factory=dict)
    change: Callable[[Path], None] | None = None


def config(name: str, override: str, said: str) -> Case:
    """An override that is refused."""
    return Case(name, f"train --config=c.py --workdir=new {override}", said)


def base(name: str, override: str, said: str) -> Case:
    """The same on the paper's base, of which nothing can be trained here."""
    return Case(name, f"describe --config=c.py {override}", said)


def file(name: str, text: str, said: str, row: str = "") -> Case:
    """A config file that is refused."""
    return Case(name, f"train --config=bad.py{row} --workdir=new", said, {"bad.py": text})


def run(name: str, command: str, said: str, change: Callable[[Path], None] | None = None) -> Case:
    """Something about the run directory `run`."""
    return Case(name, command, said, change=change or (lambda run: None))


def experiment(name: str, definition: str, said: str, arguments: str = "", docstring: bool = True) -> Case:
    """An experiment file that is refused."""
    text = '"""Why?\n\nQuestion: Why?\n\nHypothesis: Because.\n"""\n' if docstring else '"""Why?"""\n'
    text += f"from transformer_jax.sweeps.experiment import Experiment, Scale\n{definition}\n"
    return Case(name, f"sweep e/e.py --workdir=new {arguments}", said, {"e/e.py": text})


SCALES = 'scales={"small": Scale("c.py", seeds=1)}'


def corpus(name: str, said: str, files: Mapping[str, str | bytes]) -> Case:
    """Files of a parallel corpus that are refused."""
    good = {"train.en": "a b\nc d\n", "train.de": "x y\nz w\n", "val.en": "a\n", "val.de": "x\n"}
    content = {f"corpus/{path}": text for path, text in {**good, **files}.items() if text is not None}
    arguments = "train --config=c.py --workdir=new --config.data.source=parallel_text --config.data.directory=corpus"
    return Case(name, arguments, said, content)


def rewrite(name: str, content: object) -> Callable[[Path], None]:
    """Replaces a file of the run directory by text, or by something as JSON."""
    text = content if isinstance(content, str) else json.dumps(content)
    return lambda run: (run / name).write_text(text) and None


def edit_json(name: str, **values: object) -> Callable[[Path], None]:
    """Changes top-level entries of a JSON file of the run directory."""
    return lambda run: rewrite(name, json.loads((run / name).read_text()) | values)(run)


def link(name: str) -> Callable[[Path], None]:
    """Makes an entry of the run directory a link that leads out of it."""

    def change(run: Path) -> None:
        target = run.parent / "outside"
        (run / name).rename(target)
        (run / name).symlink_to(target)

    return change


def damage_all(run: Path) -> None:
    for path in (run / "checkpoints").glob("*/progress.json"):
        path.write_text("{}")


def only_pickles(run: Path) -> None:
    for path in (run / "checkpoints").glob("*/state"):
        shutil.rmtree(path)
        path.mkdir()
        (path / "checkpoint.pkl").write_bytes(pickle.dumps({"params": 1}))


def edit_progress(**values: object) -> Callable[[Path], None]:
    """Changes what the newest checkpoint of a run without a result says, and its hash with it."""

    def change(run: Path) -> None:
        (run / "result.json").unlink()
        newest = max((run / "checkpoints").iterdir())
        edit_json("progress.json", **values)(newest)
        rewrite(MANIFEST, _hashes(newest))(newest)

    return change


EVALUATE, TRANSLATE, TRAIN = "evaluate --workdir=run", "translate --workdir=run", "train --config=c.py --workdir=run"

CASES = [
    # Config: names, types, ranges.
    config("unknown key", "--config.model.num_head=4", "config.model.num_head does not exist (did you mean 'model.num_heads'?)"),
    config("unknown room", "--config.modle.d_model=4", "did you mean 'model.d_model'?"),
    config("a room is no field", "--config.model=4", "config.model does not exist"),
    config("no value", "--config.model.d_model", "give it a value: --config.model.d_model=VALUE"),
    config("wrong type", "--config.model.d_model=wide", "model.d_model = 'wide' must be of type int, but is str"),
    config("float for int", "--config.model.d_model=16.0", "must be of type int, but is float"),
    config("no boolean", "--config.data.joint_vocabulary=1", "must be of type bool, but is int"),
    config("null for what is needed", "--config.model.d_model=null", "model.d_model = 'null' must be of type int"),
    config("below the range", "--config.model.num_encoder_layers=0", "is out of range: it must be from 1 to 1000"),
    config("above the range", "--config.model.dropout_rate=1.5", "is out of range: it must be from 0 to 0.99"),
    config("not a number", "--config.optimizer.learning_rate=1e999", "is not a finite number"),
    config("a number too long", f"--config.optimizer.learning_rate={'9' * 400}", "is not a finite number"),
    config("not a choice", "--config.model.norm=layernorm", "is not allowed (did you mean 'layer_norm'?). Allowed: layer_norm, rms_norm, none"),
    config("negative seed", "--config.seed=-1", "seed = -1 is out of range"),
    config("text that says nothing", "--config.data.directory=", "data.directory = '' says nothing"),
    config("a number that cannot be written", f"--config.seed=0x{'f' * 5000}", "seed = a huge int is out of range"),
    config("an argument of 100 kB", f"--config.model.norm={'x' * 100_000}", "[... 99,"),
    config("layers without end", "--config.model.num_encoder_layers=1000000000", "it must be from 1 to 1000"),
    base("a vocabulary beyond int32", "--config.model.vocab_size=100000000000000000000", "it must be from 5 to 16777216"),
    base("a width beyond int64", "--config.model.vocab_size=10 --config.model.d_v=9223372036854775807", "it must be from 1 to 65536"),
    # Config: slots.
    config("unknown slot entry", "--config.model.positions=sinusoid", "model.positions: unknown 'sinusoid' (did you mean 'sinusoidal'?)"),
    config("unknown option", "--config.model.positions=rotary(bas=1)", "takes no 'bas' (did you mean 'base'?)"),
    config("option of a wrong type", "--config.model.positions=learned(max_length=1.5)", "must be of type int"),
    config("option by position", "--config.model.positions=rotary(5)", "arguments are given by keyword"),
    config("a source without end", "--config.data.source=reverse(max_length=99999999999)", "reverse(max_length=...) is 99999999999; it must be a number between"),
    config("sequences without end", "--config.data.source=reverse(max_length=99999)", "is too large; at most: max_length = 65,536"),
    config("examples without end", "--config.data.source=reverse(examples=999999999)", "examples * max_length = 100,000,000"),
    config("an infinite option", "--config.model.positions=rotary(base=1e999)", "rotary(base=...) is inf; it must be a number between"),
    config("an option that cannot be written", f"--config.model.positions=rotary(base=0x{'f' * 5000})", "rotary(base=...) is a huge int"),
    config("positions without end", "--config.model.positions=learned(max_length=2000000000)", "max_length must be at most 1,048,576"),
    config("code for an option", "--config.model.positions=rotary(base=open('x','w'))", "values are literals"),
    config("code for a slot", "--config.data.source=__import__('os').system('true')", "is not of the form"),
    config("unhashable option", "--config.model.positions=rotary(base={[]:1})", "values are literals"),
    config("unknown schedule", "--config.optimizer.schedule=noamm", "did you mean 'noam'?"),
    config("unknown strategy", "--config.decode.strategy=beams", "did you mean 'beam'?"),
    config("unknown tokenizer", "--config.data.tokenizer=word", "did you mean 'words'?"),
    config("unknown metric", "--config.evaluate.metrics=bleuu", "did you mean 'bleu'?"),
    config("unknown tokenizer of a metric", "--config.evaluate.metrics=bleu(tokenize='none')", "tokenised_bleu"),
    config("sampling at no temperature", "--config.decode.strategy=sample(temperature=0.0)", "temperature must be above 0"),
    # Config: impossible pairs.
    base("heads do not divide", "--config.model.num_heads=3", "model.num_heads = 3 does not divide model.d_model = 16"),
    base("no W_O and another width", "--config.model.attention.output_projection=none --config.model.d_v=5", "num_heads * d_v = 10 must equal model.d_model = 16"),
    base("odd d_k with rotary", "--config.model.positions=rotary --config.model.d_k=7", "model.d_k = 7 is odd"),
    base("gated feed-forward of depth 3", "--config.model.feed_forward=swiglu --config.model.ffn_depth=3", "the gated feed-forward 'swiglu' has depth 2"),
    base("too few learned positions", "--config.model.positions=learned(max_length=18)", "write learned(max_length=19)"),
    base("beam wider than the vocabulary", "--config.decode.strategy=beam --config.decode.beam_size=12 --config.model.vocab_size=10", "decode.beam_size = 12 is wider than the vocabulary of 10"),
    base("three-way tying of two vocabularies", "--config.data.joint_vocabulary=false", "or a joint vocabulary"),
    base("shared projection of two widths", "--config.model.attention.projections=shared --config.model.d_k=4", "needs d_k = d_v, but they are 4 and 8"),
    base("no vocabulary to describe", "", "model.vocab_size is unset and comes from the data"),
    config("devices that there are not", "--config.parallel.data=64 --config.data.batch_multiple=64", "parallel.data = 64, but there are "),
    config("batches far larger than the data", "--config.data.batch_multiple=50000 --config.data.tokens_per_batch=10000000", "data.batch_multiple = 50,000 is more than the 120 training examples"),
    config("batches larger than their budget", "--config.data.batch_multiple=50000", "data.tokens_per_batch = 128 is too few for data.batch_multiple = 50,000 examples"),
    config("a budget too small for the examples", "--config.data.tokens_per_batch=55", "data.tokens_per_batch = 55 is too few for the longest of the training data: data.batch_multiple = 8 such examples are 56 tokens a side"),
    config("a budget too small for any example", "--config.data.tokens_per_batch=1", "data.tokens_per_batch = 1 is too few"),
    config("a state larger than the machine", "--config.model.d_model=65536 --config.model.d_ff=1048576 --config.model.num_encoder_layers=1000", "GiB, but this machine has"),
    config("a beam wider than the tokenizer's vocabulary", "--config.decode.strategy=beam --config.decode.beam_size=12", "decode.beam_size = 12 is wider than the vocabulary of 10"),
    config("warmup beyond the end", "--config.optimizer.schedule=cosine --config.optimizer.warmup_steps=20", "leaves nothing of train.steps = 20 for the schedule 'cosine'"),
    config("a best that is not measured", "--config.evaluate.best=bleu", "evaluate.best = 'bleu' is not measured"),
    config("a best that is not decoded", "--config.evaluate.best=chrf --config.evaluate.decode_every=16", "set evaluate.decode_every to train.evaluate_every = 8"),
    config("decoding between evaluations", "--config.evaluate.decode_every=12", "must be a multiple of train.evaluate_every = 8"),
    config("more averaged than kept", "--config.evaluate.checkpoint=average:4", "needs more checkpoints than train.keep_last = 3 keeps"),
    config("more averaged than made", "--config.evaluate.checkpoint=average:9 --config.train.keep_last=9", "needs more checkpoints than the 6 of train.steps = 20"),
    config("more averaged than patience leaves", "--config.train.patience=1", "at least 2 evaluations come before an early stop"),
    config("a step to evaluate", "--config.evaluate.checkpoint=20", "a step may be deleted before the end"),
    config("no such checkpoint", "--config.evaluate.checkpoint=first", "Allowed: best, last, a step, or average:N"),
    config("checkpoints beyond the end", "--config.train.checkpoint_every=50", "train.checkpoint_every = 50 is beyond train.steps = 20"),
    config("vocabulary smaller than the tokenizer's", "--config.model.vocab_size=5", "model.vocab_size = 5 is smaller than the tokenizer's vocabulary of 10"),
    # Config files.
    Case("no file", "train --config=nothing.py --workdir=new", "nothing.py: no such Python file"),
    Case("a directory", "train --config=. --workdir=new", "is not a run directory"),
    Case("no row", "train --config=c.py:no_w --workdir=new", "c.py has no row 'no_w' (did you mean 'no_wo'?). Rows: base, no_wo."),
    Case("no config but text", "train --config=c.txt --workdir=new", "no such Python file", {"c.txt": "hello"}),
    file("not Python", "hello there", "bad.py: could not be loaded (SyntaxError"),
    file("nothing in it", "", "bad.py: has no get_config"),
    file("ends the process", "import sys; sys.exit(3)", "bad.py: could not be loaded (SystemExit: 3)"),
    file("no function", "get_config = 3", "get_config() failed (TypeError"),
    file("not a config", "def get_config(): return {}", "get_config() returned dict, not a ConfigDict"),
    file("an error without words", "def get_config(): raise ValueError", "get_config() failed (ValueError)"),
    file("a division by zero", "def get_config(): return 1 / 0", "get_config() failed (ZeroDivisionError"),
    file("an unknown key in it", "from transformer_jax.config import default_config\ndef get_config():\n    c = default_config()\n    c.model.width = 3\n    return c", "get_config() failed (AttributeError: Key \"width\" does not exist"),
    file("a misspelt room in it", "from transformer_jax.config import default_config\ndef get_config():\n    c = default_config()\n    c.modle.d_model = 3\n    return c", "Did you mean \"model\""),
    file("a misspelt key in it", "from transformer_jax.config import default_config\ndef get_config():\n    c = default_config()\n    c.model.num_head = 3\n    return c", "(did you mean 'num_heads'?)"),
    file("rows that are none", "from transformer_jax.config import default_config as get_config\nROWS = [1]", "ROWS is list, not a dict of rows", ":x"),
    file("a row that is none", "from transformer_jax.config import default_config as get_config\nROWS = {'x': 7}", "row 'x' is int, not a dict", ":x"),
    file("a row that fails", "from transformer_jax.config import default_config as get_config\nROWS = {'x': lambda base: base.nothing}", "row 'x': its function failed (AttributeError", ":x"),
    file("a row for another family", "from transformer_jax.config import default_config as get_config\nROWS = {'x': lambda base: base.model.cell}", "row 'x' asks for model.cell, which model.family = 'transformer' does not have", ":x"),
    file("a row with an unknown key", "from transformer_jax.config import default_config as get_config\nROWS = {'x': {'model.width': 3}}", "config.model.width does not exist", ":x"),
    # Data.
    corpus("unequal lines", "train.en, line 3: has no partner", {"train.en": "a\nb\nc\n", "train.de": "x\ny\n"}),
    corpus("an empty side", "val.de: the file is empty", {"val.de": "\n"}),
    corpus("invalid UTF-8", "train.de, line 2: invalid UTF-8 at byte 3", {"train.de": b"x\nyz\xff\n"}),
    corpus("a missing file", "the file train.de (or train.de.gz) is missing", {"train.de": None}),
    corpus("no validation split", "no validation split; looked for val.en", {"val.en": None}),
    corpus("a cut gzip file", "damaged gzip file", {"train.de": None, "train.de.gz": gzip.compress(b"x y\n" * 999)[:-9]}),
    config("a corpus that is not there", "--config.data.source=parallel_text --config.data.directory=nowhere", "data.directory: no directory nowhere"),
    config("one language", "--config.data.source=parallel_text --config.data.target_language=en", "are both 'en'; they must differ"),
    config("a vocabulary that is too large", "--config.data.tokenizer=sentencepiece(vocab_size=5000)", "too large for the training text; the largest possible vocab_size is"),
    config("sentences that are all too long", "--config.data.source=copy(symbols=6,min_length=5,max_length=6,examples=50) --config.data.max_length=3", "data.max_length is 3, and every training pair is longer"),
    config("more examples than exist", "--config.data.source=copy(symbols=2,max_length=2)", "different sequences"),
    config("no TFDS set", "--config.data.source=tfds --config.data.directory=.", "has no dataset_info.json, so it is not a prepared TFDS set"),
    # Run directories.
    Case("no run", "evaluate --workdir=nowhere", "nowhere: is not a run directory (it has no config.json)"),
    Case("no run to translate with", "translate --workdir=nowhere", "nowhere: is not a run directory"),
    Case("no run to report", "report nowhere", "nowhere holds neither sweep.json nor config.json"),
    run("packed over something", "report run --pack=run", "run: is there already, and nothing is overwritten"),
    Case("a file for a directory", "train --config=c.py --workdir=c.py", "c.py: "),
    run("another config", f"{TRAIN} --config.train.steps=30", "holds a run of another config (train.steps = 20 there, 30 now)"),
    run("a change that is not allowed", f"{TRAIN} --config.train.steps=30 --config.seed=3 --allow-config-change=train.steps", "(seed = 0 there, 3 now)"),
    run("a change of what does not exist", f"{TRAIN} --allow-config-change=train.stepps", "config.train.stepps does not exist (did you mean 'train.steps'?)"),
    run("a model of another size", f"{TRAIN} --config.model.d_model=32 --allow-config-change=model.d_model,model.d_k,model.d_v", "has shape"),
    run("no checkpoint", EVALUATE, "run: has no checkpoint yet", lambda run: shutil.rmtree(run / "checkpoints")),
    run("no such step", f"{EVALUATE} --checkpoint=7", "no checkpoint at step 7. There are: [15, 16, 20]"),
    run("no such choice", f"{EVALUATE} --checkpoint=../../etc", "Allowed: best, last, a step, or average:N"),
    run("no such split", f"{EVALUATE} --split=dev", "--split=dev: the corpus has train, valid, test"),
    run("a source without a reference", f"{EVALUATE} --source=c.py", "--source and --reference go together"),
    run("a source that is not there", f"{EVALUATE} --source=no --reference=c.py", "no: cannot be read (No such file or directory)"),
    run("a damaged checkpoint", EVALUATE, "the checkpoint is damaged (progress.json has changed)", damage_all),
    run("a best of damaged checkpoints", f"{EVALUATE} --checkpoint=best", "checkpoint of schema None", damage_all),
    run("pickles for checkpoints", EVALUATE, "the checkpoint is damaged", only_pickles),
    run("an export over the config", "export --workdir=run --output=run/config.json", "--output=run/config.json: "),
    run("an export over a file", "export --workdir=run --output=c.py", "--output=c.py: is there already and is no safetensors file"),
    run("evaluation in batches larger than their budget", f"{EVALUATE} --config.data.batch_multiple=50000", "data.tokens_per_batch = 128 is too few"),
    run("no tokenizer", EVALUATE, "has no saved tokenizer", lambda run: shutil.rmtree(run / "tokenizer")),
    run("a tokenizer that is none", TRANSLATE, "not a tokenizer file", rewrite("tokenizer/tokenizer.json", [])),
    run("another tokenizer", EVALUATE, "is not the one it was trained with", rewrite("tokenizer/tokenizer.json", {"unit": "words", "symbols": ["0", "1", "2", "3", "5", "4"]})),
    run("a tokenizer larger than the model", EVALUATE, "is not the one it was trained with", rewrite("tokenizer/tokenizer.json", {"unit": "words", "symbols": list("0123456789")})),
    run("another corpus", EVALUATE, "was trained on other data", edit_json("data.json", fingerprint="0" * 64)),
    run("a change to the model", f"{EVALUATE} --config.model.num_heads=4", "--config.model.num_heads: training has settled that"),
    run("watching one checkpoint", f"{EVALUATE} --watch --checkpoint=last", "--watch scores every checkpoint: leave --checkpoint out"),
    run("no result to translate", f"{TRANSLATE} --nbest=0", "argument --nbest: '0' is not a whole number from 1 to 1,000"),
    run("several of a search that has one", f"{TRANSLATE} --nbest=3", "needs decode.strategy = 'beam', not 'greedy'"),
    # Run directories made by somebody else.
    run("config.json is no JSON", EVALUATE, "config.json: cannot be read as JSON", rewrite("config.json", "{")),
    run("config.json is no object", EVALUATE, "config.json: holds no config", rewrite("config.json", [1])),
    run("config.json is deep", EVALUATE, "config.json: ", rewrite("config.json", '{"a":' * 50_000 + "1" + "}" * 50_000)),
    run("config.json has junk", EVALUATE, "config.model.x.y does not exist", rewrite("config.json", {"model": {"x": {"y": 1}}})),
    run("config.json has a path", EVALUATE, "does not exist", rewrite("config.json", {"../../model": {"d_model": 1}})),
    run("config.json has code", EVALUATE, "is not of the form", edit_json("config.json", decode={"strategy": "__import__('os').abort()"})),
    run("config.json has numbers that are none", EVALUATE, "must be of type int", edit_json("config.json", train={"steps": 1e999})),
    run("config.json has huge numbers", EVALUATE, "is out of range", edit_json("config.json", seed=10**300)),
    run("a result of nothing", TRAIN, "result.json: does not say 'status'. Remove it: the same `train` evaluates the run again", rewrite("result.json", {})),
    run("a result that is a list", TRAIN, "result.json: holds list where an object belongs", rewrite("result.json", [])),
    run("a result that is null", TRAIN, "result.json: holds NoneType where an object belongs", rewrite("result.json", "null")),
    run("a result of another type", TRAIN, "result.json: steps is '20', but must be int", edit_json("result.json", steps="20")),
    run("a result of no such status", TRAIN, "result.json: status is 'done', but must be Literal['finished', 'diverged']", edit_json("result.json", status="done")),
    run("a result with a number beyond all", TRAIN, "result.json: steps is 1000000000", edit_json("result.json", steps=10**400)),
    run("data.json has another type", TRAIN, "data.json: fingerprint is 3, but must be str", edit_json("data.json", fingerprint=3)),
    run("data.json is no object", EVALUATE, "was trained on other data", rewrite("data.json", [])),
    run("predictions lead elsewhere", EVALUATE, "predictions: is a link", link("predictions")),
    run("the lock leads elsewhere", f"{TRAIN} --config.train.steps=30 --allow-config-change=train.steps", "lock: is a link", link("lock")),
    *(
        run(f"progress of another type: {name} = {said}", TRAIN, f"the checkpoint at step 20: {name} is {said}", edit_progress(**{name: value}))
        for name, value, said in [
            ("executions", {}, "{}"), ("lines", "3", "'3'"), ("lines", True, "True"), ("window", "best", "'best'"),
            ("window", {"nll": [1.0]}, "{'nll': [1.0]}"), ("window_seconds", [], "[]"), ("best_value", "low", "'low'"),
            ("best_step", 2.5, "2.5"), ("evaluations_since_best", None, "None"), ("seconds", 9e299, "9e+299"),
            ("open", 1, "1"), ("status", "running", "'running'"), ("last_step", 10**400, "1000"),
        ]
    ),
    run("a best step of another type", f"{EVALUATE} --checkpoint=best", "best_step is '8', but must be int | None", edit_progress(best_step="8")),
    # Sweeps.
    Case("no experiment", "sweep nothing.py --workdir=new", "nothing.py: no such Python file"),
    Case("a config for an experiment", "sweep c.py --workdir=new", "c.py: has no EXPERIMENT"),
    Case("a packed sweep is not resumed", f"sweep {cli.ROOT}/experiments/quickstart.py --workdir=packed", "packed: holds a packed sweep", {"packed/runs.jsonl": ""}),
    experiment("no sweep to show", f"EXPERIMENT = Experiment(rows={{'base': {{}}}}, {SCALES})", "new holds neither sweep.json nor config.json", "--status"),
    experiment("EXPERIMENT of another type", "EXPERIMENT = 3", "EXPERIMENT is int, not an Experiment"),
    experiment("no question", f"EXPERIMENT = Experiment(rows={{'base': {{}}}}, {SCALES})", "has no paragraph that begins with 'Question'", docstring=False),
    experiment("no base", f"EXPERIMENT = Experiment(rows={{'x': {{}}}}, {SCALES})", "the base 'base' is not among the rows"),
    experiment("a row that leads elsewhere", f"EXPERIMENT = Experiment(rows={{'base': {{}}, '../x': {{}}}}, {SCALES})", "the row '../x' cannot be the name of a directory"),
    experiment("a partner that is no row", f"EXPERIMENT = Experiment(rows={{'base': {{}}}}, partners={{'base': 'y'}}, {SCALES})", "'y', the partner of 'base', is not among the rows"),
    experiment("a row that is refused", f"EXPERIMENT = Experiment(rows={{'base': {{}}, 'x': {{'model.num_heads': 5}}}}, {SCALES})", "row 'x': model.num_heads = 5 does not divide"),
    experiment("a row that a room refuses", f"EXPERIMENT = Experiment(rows={{'base': {{}}, 'x': {{'model.positions': 'none(1)'}}}}, {SCALES})", "row 'x': model.positions"),
    experiment("no such scale", f"EXPERIMENT = Experiment(rows={{'base': {{}}}}, {SCALES})", "--scale=big: this experiment has small", "--scale=big"),
    experiment("no seeds", f"EXPERIMENT = Experiment(rows={{'base': {{}}}}, {SCALES})", "argument --seeds: '0' is not a whole number from 1 to 10,000", "--seeds=0"),
    experiment("no workers", f"EXPERIMENT = Experiment(rows={{'base': {{}}}}, {SCALES})", "argument --workers: '0' is not a whole number from 1 to 1,000", "--workers=0"),
    experiment("no time", f"EXPERIMENT = Experiment(rows={{'base': {{}}}}, {SCALES})", "argument --time-limit: '0' is not a number of seconds above 0", "--time-limit=0"),
    experiment("a metric that is not measured", "EXPERIMENT = Experiment(rows={'base': {}}, scales={'small': Scale('c.py', seeds=1, metric='test/bleu')})", "the metric 'test/bleu' of the experiment is not measured"),
    dataclasses.replace(experiment("a sweep in a run", f"EXPERIMENT = Experiment(rows={{'base': {{}}}}, {SCALES})", "run: holds a run"), arguments="sweep e/e.py --workdir=run", change=lambda run: None),
    experiment("devices that a run will not have", f"EXPERIMENT = Experiment(rows={{'base': {{}}}}, {SCALES})", "row 'base': parallel.data = 64, but there are ", "--config.parallel.data=64 --config.data.batch_multiple=64 --config.data.tokens_per_batch=9999"),
    experiment("a beam wider than a run's vocabulary", f"EXPERIMENT = Experiment(rows={{'base': {{}}}}, {SCALES})", "row 'base': decode.beam_size = 12 is wider", "--config.decode.strategy=beam --config.decode.beam_size=12"),
    experiment("a state that no run can hold", f"EXPERIMENT = Experiment(rows={{'base': {{}}}}, {SCALES})", "GiB, but this machine has", "--config.model.d_model=65536 --config.model.d_ff=1048576 --config.model.num_encoder_layers=1000"),
    experiment("batches that no run can make", f"EXPERIMENT = Experiment(rows={{'base': {{}}}}, {SCALES})", "is more than the 120 training examples", "--config.data.batch_multiple=1000 --config.data.tokens_per_batch=99999"),
    experiment("seeds without end", f"EXPERIMENT = Experiment(rows={{'base': {{}}}}, {SCALES})", "'99999999999' is not a whole number from 1 to 10,000", "--seeds=99999999999"),
    experiment("seeds without end in the file", "EXPERIMENT = Experiment(rows={'base': {}}, scales={'small': Scale('c.py', seeds=10**11)})", "seeds; allowed: 1 to 10,000"),
    experiment("more runs than a report shows", f"EXPERIMENT = Experiment(rows={{'base': {{}}, **{{f'r{{n}}': {{}} for n in range(10)}}}}, {SCALES})", "are more than 100,000 runs", "--seeds=10000"),
    experiment("a time that is none", f"EXPERIMENT = Experiment(rows={{'base': {{}}}}, {SCALES})", "argument --time-limit: 'nan' is not a number of seconds", "--time-limit=nan"),
    experiment("rows of another type", f"EXPERIMENT = Experiment(rows=None, {SCALES})", "EXPERIMENT: rows is NoneType, not Mapping"),
    experiment("a scale of another type", "EXPERIMENT = Experiment(rows={'base': {}}, scales={'small': 3})", "scale 'small' is int, not a Scale"),
    experiment("seeds of another type", "EXPERIMENT = Experiment(rows={'base': {}}, scales={'small': Scale('c.py', seeds='3')})", "scale 'small': seeds is str, not int"),
    # Scores and the rest of the command line.
    Case("files to score of unequal length", "score --hypotheses=a --references=b", "has no partner", {"a": "x\n", "b": "x\ny\n"}),
    Case("no metric at all", "score --hypotheses=a --references=a --metrics=", "--metrics=: name at least one", {"a": "x\n"}),
    Case("no name for a directory", "train --config=c.py --workdir=", "argument --workdir: '' names nothing"),
    Case("no name for a checkpoint", "evaluate --workdir=run --checkpoint=", "argument --checkpoint: '' names nothing"),
    Case("no name for an output", "export --workdir=run --output=", "argument --output: '' names nothing"),
    Case("no metric", "score --hypotheses=a --references=a --metrics=rouge", "unknown 'rouge'", {"a": "x\n"}),
    Case("a config for what reads none", "doctor --config.seed=1", "--config.seed=1: this command reads no config"),
    Case("a config for the report", "report . --config.seed=1", "this command reads no config"),
    Case("no command", "trane", "invalid choice: 'trane'"),
    Case("no config", "train --workdir=new", "the following arguments are required: --config"),
    Case("no directory", "train --config=c.py", "the following arguments are required: --workdir"),
    Case("an unknown option", "train --config=c.py --workdir=new --steps=3", "unrecognized arguments: --steps=3"),
    Case("seeds that are no number", "sweep e.py --workdir=new --seeds=two", "argument --seeds: 'two' is not a whole number"),
]  # fmt: skip


def test_the_names_of_the_cases_are_all_different():
    assert len({case.name for case in CASES}) == len(CASES) >= 60


def snapshot(directory: Path) -> dict[str, object]:
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
        for path in sorted(directory.rglob("*"))
        if "__pycache__" not in path.parts and path.name != "lock"
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "_"))
@pytest.mark.filterwarnings("error")
def test_refused_in_a_sentence(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRANSFORMER_JAX_DATA", raising=False)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"0 1\n")))
    tiny_run.write_config_file(tmp_path / "c.py")
    for name, content in case.files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    if case.change is not None:
        case.change(tiny_run.copy_of(tiny_run.finished(), tmp_path / "run"))
    before = snapshot(tmp_path)
    status = cli.main(case.arguments.split())
    output, error = capsys.readouterr()
    assert status == 2, error
    assert case.said in error
    assert "Traceback" not in output + error
    assert len(error) < 1200
    assert snapshot(tmp_path) == before


FILES = [
    "config.json", "data.json", "result.json", "error.json", "metrics.jsonl", "nonfinite.json", "lock", "tokenizer",
    "predictions", "checkpoints", "tokenizer/tokenizer.json", "checkpoints/*/progress.json",
    "checkpoints/*/manifest.json", "checkpoints/*/state/_METADATA", "checkpoints/*/more",
]  # fmt: skip
COMMANDS = [
    EVALUATE, f"{EVALUATE} --checkpoint=best", TRANSLATE, TRAIN, "export --workdir=run --output=out", "replay --workdir=run",
    "report run", "sweep e/e.py --workdir=run --status", "score --hypotheses=run/FILE --references=run/config.json",
]  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_pipe_in_a_run_directory_keeps_no_command_waiting(name, tmp_path, monkeypatch, capsys):
    """Whatever file it stands for: each command ends with a sentence, or does not need the file."""

    def wake(number: int, frame: object) -> None:
        raise AssertionError("it hangs")

    monkeypatch.chdir(tmp_path)
    tiny_run.write_config_file(tmp_path / "c.py")
    (tmp_path / "e").mkdir()
    ((path, text),) = experiment("", f"EXPERIMENT = Experiment(rows={{'base': {{}}}}, {SCALES})", "").files.items()
    (tmp_path / path).write_text(text)
    run = tiny_run.copy_of(tiny_run.finished(), tmp_path / "run")
    folder, _, file = name.rpartition("/")
    places = [path / file for path in (run.glob(folder) if folder else [run])]
    for path in places:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        os.mkfifo(path)
    before = signal.signal(signal.SIGALRM, wake)
    try:
        for command in COMMANDS:
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"0 1\n")))
            signal.alarm(60)
            status = cli.main(command.replace("FILE", str(places[-1].relative_to(run))).split())
            output, error = capsys.readouterr()
            assert status in ((2,) if command.startswith(("evaluate", "translate", "score")) else (0, 2)), command
            assert "Traceback" not in output + error
            assert (status == 2) == error.startswith("transformer_jax: ")
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert all(path.is_fifo() for path in places)
