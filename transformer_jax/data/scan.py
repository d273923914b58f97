"""SCAN (Lake & Baroni 2018, arXiv:1711.00350): commands and the actions that carry them out, from the grammar.

The data set is finite: 20,910 commands, each built in exactly one way. Counts and hashes of the published files stand
in ``scan_expected.json`` (see LICENSE-SCAN); the tests hold this generator against them.
"""

import dataclasses
import functools
import hashlib
import importlib.resources
from collections.abc import Callable, Iterator

from transformer_jax.config import DataConfig
from transformer_jax.data.corpus import TextSplit
from transformer_jax.data.pairs import PairSource
from transformer_jax.errors import UserError
from transformer_jax.registry import did_you_mean

Pair = tuple[str, str]  # command, actions

VERBS = {"walk": "I_WALK", "look": "I_LOOK", "run": "I_RUN", "jump": "I_JUMP"}
TURNS = {"left": "I_TURN_LEFT", "right": "I_TURN_RIGHT"}

# Held-out phrases of the template splits (Loula, Baroni & Lake 2018, arXiv:1807.07545), and the form of the same
# template with `turn`, which is in neither half.
TEMPLATES = {
    "template_jump_around_right": (("jump around right",), "turn around right"),
    "template_right": (tuple(f"{verb} right" for verb in VERBS), "turn right"),
    "template_opposite_right": (tuple(f"{verb} opposite right" for verb in VERBS), "turn opposite right"),
    "template_around_right": (tuple(f"{verb} around right" for verb in VERBS), "turn around right"),
}
# The one example of the held-out primitive, and how often it stands in train: one line in ten.
PRIMITIVES = {"addprim_jump": ("jump", 1467), "addprim_turn_left": ("turn left", 2189)}
FILLERS = ("look", "walk", "run")
FILLER_SPLITS = {f"filler_num{k}": k for k in range(len(FILLERS) + 1)}
SPLITS = ("simple", "length", *PRIMITIVES, *TEMPLATES, *FILLER_SPLITS)


@dataclasses.dataclass(frozen=True)
class Scan(PairSource):
    """``scan(split="simple")``.

    Attributes:
      split: one of `SPLITS`, by the name of the published files.
      cutoff: of the length split: train has commands of at most so many actions. Other splits do not read it.
      max_actions: keeps only commands of at most so many actions, in every split; unset: all.
    """

    split: str = "simple"
    cutoff: int = 22
    max_actions: int | None = None

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise UserError(
                f"data.source: scan has no split {self.split!r}{did_you_mean(self.split, SPLITS)}. "
                f"Allowed: {', '.join(SPLITS)}."
            )
        if self.split != "length" and self.cutoff != Scan.cutoff:
            raise UserError(f'data.source: cutoff={self.cutoff} is read by split="length" only, not {self.split!r}.')
        if not 1 <= self.cutoff < 48:
            raise UserError(f"data.source: scan(cutoff={self.cutoff}) leaves a half empty; allowed: 1 to 47.")
        if self.max_actions is not None and (type(self.max_actions) is not int or self.max_actions < 1):
            raise UserError(f"data.source: scan(max_actions={self.max_actions!r}) must be a whole number from 1.")

    def read(self, config: DataConfig) -> dict[str, TextSplit]:
        """5 % of train, chosen by hash of the command, become "valid"."""
        train, test = halves(self.split, self.cutoff)
        fits = functools.partial(_fits, max_actions=self.max_actions)
        kept = [pair for pair in train if fits(pair)]
        # The one example of a held-out primitive is what these splits are about: it stays in train.
        primitive = PRIMITIVES.get(self.split, (None,))[0]
        chosen = [command != primitive and _is_valid(command) for command, _ in kept]
        return {
            "train": _text([pair for pair, valid in zip(kept, chosen, strict=True) if not valid]),
            "valid": _text([pair for pair, valid in zip(kept, chosen, strict=True) if valid]),
            "test": _text([pair for pair in test if fits(pair)]),
        }


def commands() -> list[Pair]:
    """All 20,910 pairs, in the code-point order of their lines ``IN: <command> OUT: <actions>``."""
    simple = [
        (f"{command}{suffix}", actions * times)
        for command, actions in _verb_phrases()
        for suffix, times in (("", 1), (" twice", 2), (" thrice", 3))
    ]
    pairs = list(simple)
    for first, first_actions in simple:
        for second, second_actions in simple:
            pairs.append((f"{first} and {second}", first_actions + second_actions))
            pairs.append((f"{first} after {second}", second_actions + first_actions))
    return sorted(((command, " ".join(actions)) for command, actions in pairs), key=line)


def _verb_phrases() -> Iterator[tuple[str, list[str]]]:
    for verb, action in VERBS.items():
        yield verb, [action]
    for verb, does in [*((verb, [action]) for verb, action in VERBS.items()), ("turn", [])]:
        for direction, turn in TURNS.items():
            yield f"{verb} {direction}", [turn, *does]
            yield f"{verb} opposite {direction}", [turn, turn, *does]
            yield f"{verb} around {direction}", [turn, *does] * 4


def line(pair: Pair) -> str:
    """The pair as the published files spell it."""
    return f"IN: {pair[0]} OUT: {pair[1]}"


def halves(split: str, cutoff: int = Scan.cutoff) -> tuple[list[Pair], list[Pair]]:
    """Train and test half of a published split, before anything is taken for validation."""
    pairs = commands()
    if split == "simple":
        held_out = _simple_test_indices()
        return (
            [pair for index, pair in enumerate(pairs) if index not in held_out],
            [pair for index, pair in enumerate(pairs) if index in held_out],
        )
    if split in PRIMITIVES:
        primitive, copies = PRIMITIVES[split]
        example = next(pair for pair in pairs if pair[0] == primitive)
        train, test = _partition(pairs, lambda pair: not contains(pair[0], primitive), lambda pair: pair != example)
        return train + [example] * copies, test
    if split in TEMPLATES:
        phrases, turn = TEMPLATES[split]
        return _partition(
            [pair for pair in pairs if not contains(pair[0], turn)],
            lambda pair: not any(contains(pair[0], phrase) for phrase in phrases),
        )
    if split in FILLER_SPLITS:
        barred = [f"{x} around right" for x in (*VERBS, "turn") if x not in FILLERS[: FILLER_SPLITS[split]]]
        train, _ = _partition(pairs, lambda pair: not any(contains(pair[0], phrase) for phrase in barred))
        return train, halves("template_jump_around_right")[1]
    return _partition(pairs, lambda pair: num_actions(pair) <= cutoff)


def contains(command: str, phrase: str) -> bool:
    """Whether the words of `phrase` stand next to each other, in this order, in `command`."""
    return f" {phrase} " in f" {command} "


def num_actions(pair: Pair) -> int:
    """Length of the action sequence."""
    return pair[1].count(" ") + 1


def _partition(
    pairs: list[Pair], is_train: Callable[[Pair], bool], is_test: Callable[[Pair], bool] = lambda pair: True
) -> tuple[list[Pair], list[Pair]]:
    train = [is_train(pair) for pair in pairs]
    return (
        [pair for pair, trains in zip(pairs, train, strict=True) if trains],
        [pair for pair, trains in zip(pairs, train, strict=True) if not trains and is_test(pair)],
    )


def _simple_test_indices() -> frozenset[int]:
    file = importlib.resources.files("transformer_jax.data") / "scan_simple_test_indices.txt"
    return frozenset(map(int, file.read_text("ascii").split()))


def _fits(pair: Pair, max_actions: int | None) -> bool:
    return max_actions is None or num_actions(pair) <= max_actions


def _is_valid(command: str) -> bool:
    """True for 5 % of all commands. A hash, so that copies of a line go the same way and no state is kept."""
    return int(hashlib.sha256(command.encode()).hexdigest()[:8], 16) % 20 == 0


def _text(pairs: list[Pair]) -> TextSplit:
    return TextSplit([command for command, _ in pairs], [actions for _, actions in pairs])
