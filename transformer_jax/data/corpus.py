"""Sentence pairs as text, in named splits."""

import dataclasses
import hashlib
from collections.abc import Mapping

from transformer_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class TextSplit:
    """Sentence pairs: ``references[i]`` is the translation of ``sources[i]``. No sentence holds a line feed.

    Attributes:
      accepted: what metrics compare with in place of the references, where several answers are right; empty: the same.
    """

    sources: list[str]
    references: list[str]
    accepted: list[str] = dataclasses.field(default_factory=list)

    def __len__(self) -> int:
        return len(self.sources)


@dataclasses.dataclass(frozen=True)
class Corpus:
    """The splits "train", "valid" and, where there is one, "test".

    Attributes:
      splits: name -> pairs.
      dropped_empty: training pairs left out because a side was empty. Other splits are never thinned out.
    """

    splits: Mapping[str, TextSplit]
    dropped_empty: int = 0

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over names, order and texts of all splits."""
        digest = hashlib.sha256()
        for name, split in self.splits.items():
            digest.update(f"{name} {len(split)}\n".encode())
            for side in (split.sources, split.references, *([split.accepted] if split.accepted else [])):
                # Lone surrogates cannot come from files, but a caller's own text must not crash here.
                digest.update("\n".join(side).encode("utf-8", "surrogatepass") + b"\n")
        return digest.hexdigest()


def finish_corpus(splits: Mapping[str, TextSplit], origin: str) -> Corpus:
    """Drops training pairs with an empty side and refuses splits without pairs; `origin` is named in the error."""
    train = splits["train"]
    pairs = [pair for pair in zip(train.sources, train.references, strict=True) if all(pair)]
    kept = TextSplit([source for source, _ in pairs], [reference for _, reference in pairs])
    finished = {**splits, "train": kept}
    for name, split in finished.items():
        if not len(split):
            raise UserError(f"{origin}: the split {name!r} has no sentence pair.")
    return Corpus(finished, dropped_empty=len(train) - len(kept))
