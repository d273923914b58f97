"""One path: what training writes down, what `evaluate` says of the same checkpoint, and what `translate` writes."""

import json
import math
import os
import re
import threading
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
import tiny_run

from transformer_jax.checkpoint import parse_checkpoint
from transformer_jax.config import flatten, replace, to_dict
from transformer_jax.data import EOS, PAD, TokenizerPair, encode_pairs, evaluation_batches
from transformer_jax.data.tokenizer import SymbolTokenizer
from transformer_jax.errors import UserError
from transformer_jax.evaluation.evaluator import Evaluator, Trained
from transformer_jax.evaluation.significance import compare_files
from transformer_jax.loading import load_module
from transformer_jax.parallel.layout import JitLayout
from transformer_jax.run import saved
from transformer_jax.run.compile import stack
from transformer_jax.run.directory import write_json
from transformer_jax.run.identity import read_config
from transformer_jax.run.saved import evaluate_run, load_params, score_files, translate, watch_run
from transformer_jax.tasks.writing import count_unfinished
from transformer_jax.training.state import Lane


def trained(params, *seeds: int) -> Trained:
    """Parameters as those of lanes of these seeds."""
    return Trained(stack([params] * len(seeds)), Lane(np.int32(seeds), {}))


def log(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


pytestmark = pytest.mark.usefixtures("opened_once")

# --- The same checkpoint, the same score ---


@pytest.mark.parametrize("split", ["valid", "test"])
def test_evaluate_says_what_training_recorded_at_its_end(run, split):
    result = json.loads((run / "result.json").read_text())
    found = evaluate_run(run, split=split)
    assert found["metrics"] == result["metrics"][split]
    assert (found["split"], found["checkpoint"], found["truncated"]) == (split, "average:3", 0)
    assert Path(found["predictions"]).read_text() == (run / "predictions" / f"{split}.txt").read_text()


@pytest.mark.parametrize("step", [16, 20])
def test_validation_in_training_is_evaluate_of_that_checkpoint(run, step):
    (line,) = [line for line in log(run) if (line["step"], line["split"]) == (step, "valid")]
    recorded = {name: value for name, value in line.items() if name not in ("step", "split")}
    found = evaluate_run(run, split="valid", checkpoint=str(step))["metrics"]
    assert {name: found[name] for name in recorded} == recorded
    assert ("chrf" in recorded) == (step == 16)  # decoded every eighth step


def test_the_choices_of_checkpoints_differ(run):
    nll = {choice: evaluate_run(run, checkpoint=choice)["metrics"]["nll"] for choice in ("last", "16", "average:3")}
    assert len(set(nll.values())) == 3
    best = json.loads((run / "result.json").read_text())["best_step"]
    assert _equal(load_params(run, "best"), load_params(run, str(best)))


@pytest.mark.parametrize(("path", "value"), [("model.attention.scale", "none"), ("model.dropout_rate", 0.3)])
def test_a_run_whose_config_was_edited_is_not_evaluated(run, tmp_path, path, value):
    """No shape changes, so nothing else would notice."""
    workdir = tiny_run.copy_of(run, tmp_path / "run")
    config = read_config(workdir)
    write_json(workdir / "config.json", to_dict(replace(config, {path: value})))
    said = f"checkpoint at step 20 was trained with another config ({path} = {flatten(to_dict(config))[path]!r} there, "
    with pytest.raises(UserError, match=re.escape(said)):
        load_params(workdir, "15")
    write_json(workdir / "config.json", to_dict(replace(config, {"train.log_every": 7})))
    assert _equal(load_params(workdir, "15"), load_params(run, "15"))


@pytest.mark.parametrize("number", [1, 2])
def test_an_average_is_the_mean_of_the_last_checkpoints(run, number):
    """The run keeps more checkpoints than are averaged."""
    steps = [15, 16, 20]
    assert [int(path.name) for path in sorted((run / "checkpoints").iterdir())] == steps
    each = [load_params(run, str(step)) for step in steps[-number:]]
    mean = jax.tree.map(lambda *leaves: np.mean(np.float64(leaves), axis=0).astype(leaves[0].dtype), *each)
    assert _equal(load_params(run, f"average:{number}"), mean)
    assert not _equal(mean, load_params(run, "average:3"))


def _equal(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_of_train_only_what_needs_no_text(run):
    found = evaluate_run(run, split="train")
    assert set(found["metrics"]) == {"nll", "perplexity", "token_accuracy", "exact_match_teacher_forced"}
    assert "predictions" not in found


# --- Against formulas ---


def test_figures_are_those_of_the_logits(run):
    """nll a token, perplexity and accuracies by NumPy, example by example, over batches of several widths."""
    program = tiny_run.program()
    split = encode_pairs(
        ["0 1 2", "3", "4 5 0 1 2 3 4 5 0 1 2 3 4 5"],
        ["2 1 0", "3", "5 4 3"],
        program.config.data,
        program.dataset.assets,
    )
    params = load_params(run, "last")
    (found,) = program.evaluator.figures(trained(params, 0), split)
    nll, right, whole = [], [], []
    for row in range(len(split)):
        one = encode_pairs(
            [split.texts["sources"][row]], [split.texts["references"][row]], program.config.data, program.dataset.assets
        )
        ((_, batch),) = list(evaluation_batches(one, program.config.data))
        logits = tiny.logits(program.config, params, batch).astype(np.float64)[0]
        targets = batch["targets"][0]
        logits, targets = logits[: np.count_nonzero(targets)], targets[targets != PAD]
        log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        nll += list(-log_probs[np.arange(len(targets)), targets])
        correct = logits.argmax(-1) == targets
        right += list(correct)
        whole.append(correct.all())
    assert found["nll"] == pytest.approx(np.mean(nll), rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(np.mean(nll)), rel=1e-5)
    assert found["token_accuracy"] == np.mean(right)
    assert found["exact_match_teacher_forced"] == np.mean(whole)


# --- Files ---


@pytest.fixture
def files(tmp_path, run) -> tuple[Path, Path]:
    """The test split as files."""
    texts = tiny_run.program().dataset.splits["test"].texts
    source, reference = tmp_path / "some.source", tmp_path / "some.reference"
    source.write_text("".join(line + "\n" for line in texts["sources"]))
    reference.write_text("".join(line + "\n" for line in texts["references"]))
    return source, reference


def test_files_score_as_the_split_they_hold(run, files):
    source, reference = files
    found = evaluate_run(run, source=source, reference=reference)
    assert found["metrics"] == evaluate_run(run)["metrics"]
    assert re.fullmatch(r"some\.source\.[0-9a-f]{8}\.average_3\.txt", Path(found["predictions"]).name)


def test_a_blank_source_has_a_blank_translation_by_both_doors(run, tmp_path):
    """And what `score` says of the file that `translate` would write is what `evaluate` says."""
    sources, references = ["0 1 2", "", "3 4", " ", "\u2003"], ["2 1 0", "1", "4 3", "", "5"]
    (tmp_path / "s").write_text("".join(f"{line}\n" for line in sources))
    (tmp_path / "r").write_text("".join(f"{line}\n" for line in references))
    found = evaluate_run(run, source=tmp_path / "s", reference=tmp_path / "r")
    written = Path(found["predictions"]).read_text().splitlines()
    assert written == [best[0][0] for best in translate(run, sources)]
    assert written[0] != ""
    assert [written[n] for n in (1, 3, 4)] == ["", "", ""]
    assert found["metrics"]["exact_match"] >= 1 / 5  # nothing, where nothing was to be written, is right
    scored = score_files(Path(found["predictions"]), tmp_path / "r", ["exact_match", "chrf"])
    assert scored == {name: found["metrics"][name] for name in scored}


def test_what_a_model_found_no_word_for_is_scored_as_any_other(tmp_path):
    for name, text in {"h": "\n \n", "r": "a b c d\ne f g h\n", "none": ""}.items():
        (tmp_path / name).write_text(text)
    assert score_files(tmp_path / "h", tmp_path / "r", ["chrf", "exact_match"])["chrf"] == 0.0
    assert compare_files(tmp_path / "h", tmp_path / "r", tmp_path / "r", ["bleu"]).system == 100.0
    for empty in ("none", "h"):
        with pytest.raises(UserError, match="the file is empty"):
            score_files(tmp_path / "r", tmp_path / empty, ["chrf"])
    with pytest.raises(UserError, match="none: the file is empty"):
        score_files(tmp_path / "none", tmp_path / "r", ["chrf"])


def test_text_of_nothing_but_blanks_is_translated(run):
    overrides = {"decode.strategy": "beam"}
    assert translate(run, ["", " "], num_results=3, overrides=overrides) == [[("", 0.0)], [("", 0.0)]]


PARALLEL = "0 1\n2 3\n", "1 0\n3 2\n"


@pytest.mark.parametrize("name", ["test", "valid", "test.txt", "best.txt", "x" * 255, "a b\n", "ü" * 100, b"\xff.txt"])
def test_predictions_of_files_are_files_of_their_own(run, tmp_path, name):
    """Whatever a source is called: neither those of a split nor those of another source are overwritten."""
    evaluate_run(run, split="test", checkpoint="last")
    before = {path: path.read_bytes() for path in (run / "predictions").iterdir()}
    written = set()
    for folder, text in {"one": PARALLEL, "two": PARALLEL[::-1]}.items():
        source, reference = tmp_path / folder / os.fsdecode(name), tmp_path / folder / "reference"
        source.parent.mkdir()
        source.write_text(text[0])
        reference.write_text(text[1])
        found = evaluate_run(run, source=source, reference=reference, checkpoint="last")
        assert evaluate_run(run, source=source, reference=reference, checkpoint="last") == found
        written.add(found["predictions"])
        json.dumps(found, ensure_ascii=False).encode()
    assert len(written) == 2
    assert {path: path.read_bytes() for path in before} == before
    assert all(Path(path).parent == run / "predictions" and Path(path) not in before for path in written)


def test_predictions_of_another_corpus_are_files_of_their_own(run):
    own = evaluate_run(run)["predictions"]
    before = Path(own).read_bytes()
    other = evaluate_run(run, overrides={"data.source": "copy(symbols=6, max_length=6, examples=120)"})
    assert other["predictions"] != own
    assert Path(own).read_bytes() == before


# --- What is cut ---


def test_evaluate_says_how_many_examples_were_cut(run, tmp_path):
    said: list[str] = []
    (tmp_path / "s").write_text("0 1\n" + "1 " * 500 + "\n2\n3\n")
    (tmp_path / "r").write_text("1 0\n1\n" + "2 " * 16 + "\n" + "3 " * 15 + "\n")  # data.max_length = 16 with EOS
    found = evaluate_run(run, source=tmp_path / "s", reference=tmp_path / "r", say=said.append)
    assert (found["examples"], found["truncated"], found["dropped"]) == (4, 2, 0)
    assert [line for line in said if "examples" in line] == [
        "2 of 4 examples of s cut: a side is longer than data.max_length = 16 tokens, and what lies beyond is not seen."
    ]
    said.clear()
    assert evaluate_run(run, say=said.append)["truncated"] == 0
    assert [line for line in said if "examples" in line] == []


@pytest.mark.parametrize("extra", [1, 3])
def test_outputs_that_do_not_end_by_themselves_are_counted_and_said(run, extra):
    """They have as many words as they may have tokens: there was none left for EOS."""
    said: list[str] = []
    result = evaluate_run(run, overrides={"decode.max_extra_length": extra}, say=said.append)
    sources = tiny_run.program().dataset.splits["test"].texts["sources"]
    written = Path(result["predictions"]).read_text().splitlines()
    pairs = zip(sources, written, strict=True)
    cut = sum(len(text.split()) == len(source.split()) + 1 + extra for source, text in pairs)
    assert result["metrics"]["unfinished"] == cut
    limit = f"they had not ended at decode.max_extra_length = {extra} tokens more than the input."
    assert (f"{cut} of 12 outputs of test cut off: {limit}" in said) == (cut > 0)
    assert cut > 0 or extra > 1
    if extra == tiny_run.VALUES["decode.max_extra_length"]:
        kept = json.loads((run / "result.json").read_text())["metrics"]
        assert kept["test"]["unfinished"] == cut
        assert 0 <= kept["valid"]["unfinished"] <= 12


def test_what_ended_and_what_was_not_to_be_written_is_not_unfinished():
    rows = np.asarray([[5, EOS, PAD], [5, 6, 7], [PAD, PAD, PAD], [EOS, PAD, PAD], [5, 6, PAD]])
    assert count_unfinished({"tokens_BNT": np.stack([rows, np.full((5, 3), 9)], axis=1)}) == 2


@pytest.mark.parametrize(
    ("long", "said"),
    [
        ([], []),
        ([2], ["line cut to data.max_length = 16 tokens, what lies beyond is not translated: 2"]),
        ([1, 3, 4, 5], ["4 lines cut to data.max_length = 16 tokens, what lies beyond is not translated: 1, 3-5"]),
    ],
)
def test_translate_says_which_lines_were_cut(run, long, said):
    found: list[str] = []
    translate(run, ["1 " * 500 if n in long else "1" * (n != 2) for n in range(1, 7)], say=found.append)
    assert found == said


def test_score_of_the_predictions_is_the_runs(run, files):
    metrics = json.loads((run / "result.json").read_text())["metrics"]["test"]
    found = score_files(run / "predictions" / "test.txt", files[1], ["chrf", "exact_match"])
    assert found == {name: metrics[name] for name in ("chrf", "chrf_signature", "exact_match")}


def test_files_need_no_corpus(run, files, monkeypatch):
    monkeypatch.setattr("transformer_jax.run.saved.make_dataset", lambda *_: pytest.fail("the corpus was read"))
    assert evaluate_run(run, source=files[0], reference=files[1])["split"] == "some.source"
    assert len(translate(run, ["0 1"])) == 1


# --- Translations ---


def test_translate_writes_the_predictions(run):
    sources = tiny_run.program().dataset.splits["test"].texts["sources"]
    found = [best[0][0] for best in translate(run, sources)]
    assert found == (run / "predictions" / "test.txt").read_text().splitlines()
    assert len(set(found)) > 1


def test_translate_writes_the_most_probable_token_at_every_place(run):
    """Read from the model's own logits, given the tokens before."""
    program = tiny_run.program()
    sources = program.dataset.splits["test"].texts["sources"][:8]
    tokenizer, params = program.dataset.assets.target, load_params(run, "average:3")
    found = [best[0][0] for best in translate(run, sources)]
    targets = [[*ids, EOS] for ids in tokenizer.encode(found)]
    batch = {"inputs": filled([[*ids, EOS] for ids in tokenizer.encode(sources)]), "targets": filled(targets)}
    best = tiny.logits(program.config, params, batch)[..., PAD + 1 :].argmax(-1) + PAD + 1
    for source, target, likely in zip(sources, targets, best.tolist(), strict=True):
        limit = len(source.split()) + 1 + program.config.decode.max_extra_length
        written = likely[: len(target)]
        assert written[:-1] == target[:-1]
        assert written[-1] == EOS or len(target) - 1 == limit


def filled(rows):
    width = max(map(len, rows))
    return np.int32([[*row, *[PAD] * (width - len(row))] for row in rows])


def test_what_is_said_of_examples_comes_in_their_order():
    """Those of like length are evaluated together, the short ones first."""
    config = tiny.config({"data.tokenizer": "words", "data.max_length": 64, "data.tokens_per_batch": 256})
    sources = ["1 " * length for length in (40, 2, 20, 1, 50, 9, 3, 30, 5, 2)]
    tokenizer = SymbolTokenizer("words", list("0123456"))
    split = encode_pairs(sources, ["1"] * len(sources), config.data, TokenizerPair(tokenizer, tokenizer))
    widths = []

    def compiled(trained, batch):
        widths.append(batch["inputs"].shape[1])
        return {"length": np.count_nonzero(batch["inputs"], axis=1)[None], "inputs": batch["inputs"][None]}

    found = Evaluator(config, None, JitLayout(1)).rows(compiled, None, split)
    assert len(set(widths)) == 3
    assert found["length"][0].tolist() == [len(source.split()) + 1 for source in sources]
    assert np.count_nonzero(found["inputs"][0], axis=1).tolist() == found["length"][0].tolist()


def test_blank_unknown_and_over_long_sources_keep_their_lines(run):
    sources = ["0 1 2", "", "   ", "zebra 1", "1 " * 500, "0 1 2"]
    found = [best[0][0] for best in translate(run, sources)]
    assert len(found) == len(sources)
    assert found[1] == found[2] == ""
    assert found[0] == found[5] != ""
    cut = translate(run, ["1 " * 15])  # data.max_length = 16, EOS counted
    assert found[4] == cut[0][0][0]
    assert translate(run, []) == []


def test_nbest_is_ranked_and_its_first_is_the_translation(run):
    overrides = {"decode.strategy": "beam"}
    best = translate(run, ["0 1 2", "3 4"], num_results=3, overrides=overrides)
    for one, single in zip(best, translate(run, ["0 1 2", "3 4"], overrides=overrides), strict=True):
        assert len({text for text, _ in one}) == len(one) == 3
        assert [score for _, score in one] == sorted((score for _, score in one), reverse=True)
        assert one[0] == (single[0][0], pytest.approx(single[0][1], rel=1e-5))


def test_parameters_by_which_no_score_is_finite_are_a_sentence(run, monkeypatch):
    def spoilt(workdir, choice):
        return jax.tree.map(lambda leaf: leaf * np.float32("nan"), load_params(workdir, choice))

    monkeypatch.setattr(saved, "load_params", spoilt)
    with pytest.raises(UserError, match="no translation of line 2 has a finite score"):
        translate(run, ["", "0 1"])


def test_more_results_than_there_are_hypotheses(run):
    (found,) = translate(run, ["0"], num_results=9, overrides={"decode.strategy": "beam", "decode.beam_size": 1})
    assert all(math.isfinite(score) for _, score in found)
    assert 1 <= len(found) < 9


# --- Following a run ---


def test_watch_scores_each_checkpoint_as_it_comes(tmp_path):
    workdir = tiny_run.copy_of(tiny_run.stopped(), tmp_path / "run")
    found = []
    watch = watch_run(workdir, split="valid", poll_seconds=0.01)
    found.append(next(watch))
    (workdir / "checkpoints" / "00000010").rename(tmp_path / "pruned")  # by the training, before it is scored
    tiny_run.copy_of(tiny_run.finished() / "checkpoints" / "00000020", workdir / "checkpoints" / "00000020")

    def finish() -> None:
        (workdir / "result.json").write_text("{}")

    threading.Timer(0.2, finish).start()
    found += list(watch)
    steps = [int(one["checkpoint"]) for one in found]
    assert steps == [5, 8, 13, 20]
    assert (
        found[-1]["metrics"]["nll"]
        == evaluate_run(tiny_copy(tmp_path), split="valid", checkpoint="20")["metrics"]["nll"]
    )


def tiny_copy(tmp_path: Path) -> Path:
    return tiny_run.copy_of(tiny_run.finished(), tmp_path / "copy")


# --- Refusals that need a run ---


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"checkpoint": "7"}, r"no checkpoint at step 7. There are: \[15, 16, 20\]"),
        ({"checkpoint": "average:9"}, "3 checkpoints to average, fewer than 'average:9' needs"),
        ({"checkpoint": "../../x"}, "Allowed: best, last, a step, or average:N"),
        ({"split": "dev"}, "--split=dev: the corpus has train, valid, test"),
        ({"source": Path("a")}, "--source and --reference go together"),
        ({"overrides": {"model.num_heads": 4}}, "--config.model.num_heads: training has settled that"),
        ({"overrides": {"decode.beam_size": 0}}, "decode.beam_size = 0 is out of range"),
        ({"overrides": {"decode.strategy": "bean"}}, "did you mean 'beam'"),
    ],
)
def test_evaluate_refuses(run, options, said):
    with pytest.raises(UserError, match=said):
        evaluate_run(run, **options)


def test_nbest_of_a_search_that_has_one_is_refused(run):
    with pytest.raises(UserError, match="--nbest=2 needs decode.strategy = 'beam', not 'greedy'"):
        translate(run, ["0"], num_results=2)


def test_another_tokenizer_or_corpus_is_refused(tmp_path, run):
    workdir = tiny_run.copy_of(run, tmp_path / "run")
    tokenizer = workdir / "tokenizer" / "tokenizer.json"
    content = json.loads(tokenizer.read_text())
    content["symbols"] = content["symbols"][::-1]
    tokenizer.write_text(json.dumps(content))
    with pytest.raises(UserError, match="tokenizer is not the one it was trained with"):
        evaluate_run(workdir)
    data = json.loads((workdir / "data.json").read_text())
    data["assets"] = tiny_run.program().dataset.assets.fingerprint
    data["fingerprint"] = "0" * 64
    (workdir / "data.json").write_text(json.dumps(data))
    tiny_run.program().dataset.assets.save(workdir / "tokenizer")
    with pytest.raises(UserError, match="was trained on other data"):
        evaluate_run(workdir)


@pytest.mark.parametrize(
    ("choice", "parsed"),
    [("best", ("best", 0)), ("last", ("last", 0)), ("300", ("step", 300)), ("average:5", ("average", 5))],
)
def test_choices_of_checkpoints(choice, parsed):
    assert parse_checkpoint(choice, "checkpoint") == parsed


@pytest.mark.parametrize(
    "choice", ["", "first", "average", "average:", "average:0", "-1", "1e3", "9" * 5000, "²", "best:2"]
)
def test_choices_that_are_none(choice):
    with pytest.raises(UserError, match="Allowed: best, last, a step, or average:N"):
        parse_checkpoint(choice, "checkpoint")


def test_equal_sources_of_different_batches_are_sampled_apart(run):
    """What is drawn for a line depends on the seed and the line's number, not on how the lines are batched."""
    overrides = {"decode.strategy": "sample"}
    sources = ["0 1 2 3 4"] * 48
    found = [best[0][0] for best in translate(run, sources, overrides=overrides)]
    assert len(set(found)) > 32  # a batch has 16 examples
    wider = {**overrides, "data.tokens_per_batch": 512}
    assert [best[0][0] for best in translate(run, sources, overrides=wider)] == found
    assert [best[0][0] for best in translate(run, ["5", "", *sources[2:]], overrides=overrides)][2:] == found[2:]


def test_samples_are_of_the_seed_of_the_run(run):
    """Whichever run of a sweep its program was made for, alone or as a lane."""
    changed = {"decode__strategy": "sample", "evaluate__decode_every": None}
    program, lanes = tiny_run.program(**changed), tiny_run.program(lanes=2, **changed)
    params, split = load_params(run, "last"), program.dataset.splits["test"]
    (zero,), (one,) = (program.evaluator.texts(trained(params, seed), split) for seed in (0, 1))
    assert zero != one
    assert lanes.evaluator.texts(trained(params, 0, 1), split) == [zero, one]


# --- The benchmark of decoding ---


def test_the_benchmark_of_decoding_measures_a_run_and_says_that_peers_are_missing(run, monkeypatch):
    benchmark = load_module(Path(__file__).parents[2] / "benchmarks" / "decode.py", "run")
    monkeypatch.setattr(benchmark, "CASES", [(2, 8)])
    monkeypatch.setattr(benchmark, "EXAMPLES", {8: 10})
    monkeypatch.delenv("TRANSFORMER_JAX_PEERS", raising=False)
    said: list[str] = []
    (row,) = benchmark.run(run, said.append)
    assert "TRANSFORMER_JAX_PEERS" in said[0]
    assert list(row["sentences_per_second"]) == ["ours"]
    assert (row["beam"], row["batch"], row["ours_over"]) == (2, 8, {})
    assert row["examples"] >= 10
    assert row["longest"]["ours"] > 0
