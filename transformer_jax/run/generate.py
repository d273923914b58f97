"""Text of a language model: it writes on after a prompt, however long."""

import functools
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from transformer_jax.data.text import decode_text, encode_text
from transformer_jax.errors import UserError
from transformer_jax.run.saved import SavedRun, Say, open_run, to_standard_error
from transformer_jax.tasks import task_of
from transformer_jax.tasks.language_modelling import Continuations
from transformer_jax.vocabulary import EOS, UNK

Tokens = list[int]


def generate(
    workdir: Path,
    prompt: str = "\n",
    *,
    checkpoint: str | None = None,
    samples: int = 1,
    length: int = 500,
    stop: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    say: Say = to_standard_error,
) -> list[str]:
    """Texts that begin with the prompt, each written on by at most `length` tokens, as `decode.strategy` says.

    The model sees `data.max_length` tokens at a time: a longer text is written on from the last half of as many. A text
    ends before the first `stop` that is written. `seed` says which samples they are.

    Args:
      checkpoint: best, last, a step or average:N; None: what `evaluate.checkpoint` says.
      say: is told if the run has no token for some of the prompt.

    Raises:
      UserError: the run is of no language model, the prompt holds no token, or all samples would be the same.
    """
    run = open_run(workdir, overrides)
    if not isinstance(task_of(run.config).output, Continuations):
        raise UserError(f"{workdir}: holds a run of the task {run.config.task.name!r}, which writes no text on.")
    tokenizer = run.assets.target
    given: Tokens = encode_text(prompt, tokenizer)
    if not given:
        raise UserError(f"--prompt={prompt!r} holds no token of the run's vocabulary: give it a text to write on.")
    if unknown := given.count(UNK):
        say(f"{unknown:,} of the {len(given):,} tokens of the prompt are unknown to the run.")
    if samples > 1 and not run.config.decode.strategy.startswith("sample"):
        raise UserError(
            f"--samples={samples}: decode.strategy = {run.config.decode.strategy!r} writes the same text each time; "
            "give --temperature."
        )
    known = len(decode_text(given, tokenizer))

    def text_of(tokens: Tokens) -> str:
        return decode_text(given + tokens[:length], tokenizer)[known:]

    def has_ended(tokens: Tokens) -> bool:
        return len(tokens) >= length or (stop is not None and stop in text_of(tokens))

    texts = [text_of(tokens) for tokens in _write(run, checkpoint, given, samples, has_ended)]
    return [prompt + (text if stop is None else text.partition(stop)[0]) for text in texts]


def _write(
    run: SavedRun, checkpoint: str | None, given: Tokens, samples: int, has_ended: Callable[[Tokens], bool]
) -> list[Tokens]:
    """What each sample writes on, at least until it has ended."""
    window, devices = run.config.data.max_length, run.layout.devices
    _, trained = run.load(checkpoint)
    written: list[Tokens] = [[] for _ in range(-(-samples // devices) * devices)]

    @functools.cache
    def write_on(seen: int) -> Callable[..., Any]:
        return run.evaluator.compile(Continuations(seen, window - seen).predict)

    for turn in itertools.count():
        shortest = len(given) + min(map(len, written))
        # After the first turn a power of two, where a text is short yet: every other number is a program to compile.
        seen = min(shortest, window - 1) if turn == 0 else min(window // 2, 2 ** (shortest.bit_length() - 1))
        prompts = [(given + tokens)[-seen:] for tokens in written]  # of those that have ended too: the shape stays
        places = turn * len(written) + np.arange(len(written))
        batch = {"inputs": np.asarray(prompts, np.int32), "example": places.astype(np.int32)}
        for tokens, new in zip(written, write_on(seen)(trained, batch)["tokens_BNT"][0, :, 0].tolist(), strict=True):
            if not has_ended(tokens):
                tokens += new[: new.index(EOS) + 1] if EOS in new else new
        if all(map(has_ended, written)):
            break
    return written[:samples]
