"""Text of a language model, from the run directory to the command."""

import json

import numpy as np
import pytest
import tiny
import tiny_run

from transformer_jax import cli
from transformer_jax.errors import UserError
from transformer_jax.evaluation.evaluator import Evaluator
from transformer_jax.run.generate import generate
from transformer_jax.run.saved import load_params
from transformer_jax.vocabulary import EOS

pytestmark = pytest.mark.usefixtures("opened_once")
PROMPT = "License"
SAMPLE = {"decode.strategy": "sample(temperature=2.0)"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_run.copy_of(tiny_run.finished("decoder_only"), tmp_path_factory.mktemp("model") / "run")


def test_a_long_text_is_the_most_probable_token_after_the_window_before_it(model):
    """Windows of 16 tokens, 8 of them seen before the first that is written."""
    (text,) = generate(model, PROMPT, length=40)
    assert text.startswith(PROMPT)
    program = tiny_run.program(model__family="decoder_only")
    params, tokenizer = load_params(model, "average:3"), program.dataset.assets.target
    tokens = tokenizer.encode([PROMPT])[0]
    given = len(tokens)
    while len(tokens) < given + 40:
        seen = tokens[-8:] if len(tokens) > given else tokens
        for _ in range(16 - len(seen)):
            logits = tiny.logits(program.config, params, {"inputs": np.int32([seen])})[0, -1]
            seen = [*seen, int(np.where(np.arange(len(logits)) == 0, -np.inf, logits).argmax())]
            tokens.append(seen[-1])
    assert text == PROMPT + tokenizer.decode(tokens[given : given + 40])
    assert len(text) == len(PROMPT) + 40


def test_samples_differ_and_are_those_of_the_seed(model):
    texts = generate(model, PROMPT, samples=3, length=30, overrides=SAMPLE)
    assert len(set(texts)) == 3
    assert generate(model, PROMPT, samples=3, length=30, overrides=SAMPLE) == texts
    assert generate(model, PROMPT, samples=3, length=30, overrides={**SAMPLE, "seed": 5}) != texts


def test_seed_0_is_a_seed(model, capsys):
    assert call(capsys, f"--workdir={model}", "--length=1", "--seed=0")[0] == 0


def test_a_text_ends_before_the_stop(model):
    (whole,) = generate(model, PROMPT, length=60, overrides=SAMPLE)
    stop = whole[len(PROMPT) + 20 : len(PROMPT) + 23]
    (ended,) = generate(model, PROMPT, length=60, stop=stop, overrides=SAMPLE)
    assert ended == PROMPT + whole[len(PROMPT) :].partition(stop)[0]
    assert len(ended) < len(whole)


def test_a_prompt_longer_than_the_window_is_kept_and_its_end_is_seen(model):
    prompt = "You may reproduce and distribute copies of the Work"
    texts = [generate(model, start + prompt, length=5)[0] for start in ("", "What? ")]
    assert texts[0].startswith(prompt)
    assert texts[0][len(prompt) :] == texts[1][len("What? " + prompt) :]


def test_what_of_the_prompt_is_unknown_is_said(model):
    said = []
    generate(model, "L\N{SNOWMAN}", length=1, say=said.append)
    assert said == ["1 of the 2 tokens of the prompt are unknown to the run."]


def test_a_model_of_words_writes_line_after_line(tmp_path, monkeypatch):
    program = tiny_run.program(model__family="decoder_only", data__tokenizer="words")
    tiny_run.train_here(tmp_path / "run", compiled=program)
    (text,) = generate(tmp_path / "run", "the License\nthe", length=20, overrides=SAMPLE)
    assert text.startswith("the License\nthe ")
    (alone,) = generate(tmp_path / "run", length=5)  # from a line break on
    assert alone.startswith("\n")
    shapes = []

    def word_and_end(trained, batch):
        shapes.append(batch["inputs"].shape)
        return {"tokens_BNT": np.asarray([[[[4, EOS, 0]]]])}

    monkeypatch.setattr(Evaluator, "compile", lambda self, function: word_and_end)
    (lines,) = generate(tmp_path / "run", "the", length=5)
    word = program.dataset.assets.target.decode([4])
    assert lines == f"the {word}\n{word}\n{word}"
    assert shapes == [(1, 1), (1, 2), (1, 4)]  # all that is written so far, in powers of two


def test_prompts_and_runs_that_cannot_be_are_refused(model):
    with pytest.raises(UserError, match="holds no token"):
        generate(model, "")
    with pytest.raises(UserError, match="'translation', which writes no text on"):
        generate(tiny_run.finished(), "a")


def call(capsys, *arguments):
    status = cli.main(["generate", *map(str, arguments)])
    output, error = capsys.readouterr()
    assert "Traceback" not in error
    return status, output, error


def test_the_command(model, capsys):
    given = [f"--workdir={model}", f"--prompt={PROMPT}", "--length=12", "--seed=3"]
    (text,) = generate(model, PROMPT, length=12, overrides={"seed": 3})
    assert call(capsys, *given)[:2] == (0, text + "\n")
    assert call(capsys, *given, "--temperature=0")[:2] == (0, text + "\n")  # the run itself decodes greedily
    overrides = {"decode.strategy": "sample(temperature=3.0, top_k=5, top_p=0.9)", "seed": 3}
    wanted = generate(model, PROMPT, samples=2, length=12, overrides=overrides)
    sampled = [*given, "--samples=2", "--temperature=3", "--top-k=5", "--top-p=0.9"]
    assert json.loads(call(capsys, *sampled, "--json")[1]) == {"texts": wanted}
    assert call(capsys, *sampled)[1] == f"--- 1 ---\n{wanted[0]}\n--- 2 ---\n{wanted[1]}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--temperature=-1"], "from 0 to 1000"),
        (["--temperature=nan"], "from 0 to 1000"),
        (["--top-p=1.5"], "from 0 to 1"),
        (["--top-p=0"], "top_p"),
        (["--top-k=0"], "whole number from 1"),
        (["--length=0"], "whole number from 1"),
        (["--samples=1e9"], "whole number from 1"),
        (["--seed=x"], "whole number"),
        (["--stop="], "no text"),
        (["--prompt="], "holds no token"),
        (["--top-k=3", "--config.decode.strategy=greedy"], "give only one"),
        (["--top-k=3", "--temperature=0"], "leave --top-k and --top-p out"),
        (["--samples=2", "--config.decode.strategy=beam"], "writes the same text each time"),
        (["--checkpoint=77"], "77"),
    ],
)
def test_any_other_value_is_a_sentence(model, capsys, arguments, words):
    status, _, error = call(capsys, f"--workdir={model}", "--length=3", *arguments)
    assert status == 2
    assert words in error
