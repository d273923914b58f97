"""Masked language modelling: say which tokens were hidden (Devlin et al. 2019, Section 3.1).

B examples, T tokens of each, K places in which tokens can be hidden, C vocabulary.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp

from transformer_jax.config import Config, Resolved, value_at, with_values
from transformer_jax.data import TokenizerPair
from transformer_jax.errors import UserError
from transformer_jax.models.model import Model, Params
from transformer_jax.models.tokens import Batch
from transformer_jax.tasks.losses import TOKEN_FIGURES, measure_tokens
from transformer_jax.tasks.made_up import made_up_sentences
from transformer_jax.tasks.task import Figure, Measured, Output, with_vocabularies
from transformer_jax.vocabulary import BOS, EOS, NUM_AFTER, NUM_SPECIALS, PAD, mask_token

EVALUATION_SEED = 0
"""Of what is hidden in evaluation: the same for all runs."""


class MaskedLanguageModelling:
    """Windows of running text, of which some tokens are hidden; judged by the likelihood of these."""

    families: tuple[str, ...] = ("encoder_only",)
    figures: Mapping[str, Figure] = MappingProxyType(TOKEN_FIGURES)
    output: Output | None = None
    unit = "hidden_tokens"

    def check(self, config: Config) -> None:
        """The kinds of what stands in the place of a token are no more than all."""
        shares = {f"task.{name}": value_at(config, f"task.{name}") for name in ("masked", "random")}
        if sum(shares.values()) > 1:
            said = " and ".join(f"{path} = {share}" for path, share in shares.items())
            raise UserError(f"{said} are together more than all hidden tokens: lower one of them.")
        if value_at(config, "model.num_classes"):
            raise UserError(
                f"model.num_classes = {value_at(config, 'model.num_classes')}: hidden tokens have no classes; leave it "
                "unset."
            )

    def complete(self, config: Config, assets: TokenizerPair) -> Resolved:
        """The size of the vocabulary with MASK and CLS, which may be set larger; and no classes."""
        resolved = with_vocabularies(config, {"model.vocab_size": assets.target.vocab_size + NUM_AFTER})
        return Resolved(with_values(resolved, {"model.num_classes": 0}))

    def measure(self, config: Config, model: Model, params: Params, batch: Batch, key: jax.Array | None) -> Measured:
        """Loss, nll and accuracy of the hidden tokens.

        They are drawn for each row: anew at each step; in evaluation as the index of the row, "example", has it.
        """
        numbers_B = jnp.arange(batch["inputs"].shape[0])
        if key is None:
            numbers_B = batch.get("example", numbers_B)
        drawn = jax.random.key(EVALUATION_SEED) if key is None else jax.random.fold_in(key, 1)
        keys_B = jax.vmap(lambda number: jax.random.fold_in(drawn, number))(numbers_B)
        hidden = hide(config, batch["inputs"], keys_B)
        logits_BKC = model.apply(params, {"inputs": hidden.shown_BT, "places": hidden.places_BK}, key)
        targets_BK = jnp.take_along_axis(batch["inputs"], hidden.places_BK, axis=1)
        return measure_tokens(logits_BKC, targets_BK, hidden.counted_BK, config.train.label_smoothing)

    def example_batch(self, config: Resolved, examples: int = 1, seed: int = 0) -> Batch:
        """Sentences of 1 to 6 tokens."""
        size = value_at(config, "model.vocab_size") - NUM_AFTER
        return {"inputs": jnp.asarray(made_up_sentences([6 - i % 6 for i in range(examples)], 6, size, seed))}


class Hidden(NamedTuple):
    """What is hidden of a batch.

    shown_BT: the tokens with what stands in the place of those that are hidden.
    places_BK: where they stand.
    counted_BK: whether a place holds a hidden token: rows that are short have fewer.
    """

    shown_BT: jax.Array
    places_BK: jax.Array
    counted_BK: jax.Array


def hide(config: Config, ids_BT: jax.Array, keys_B: jax.Array) -> Hidden:
    """Hides `task.hidden` of the tokens of each row, at least one; see `MaskedLanguageModellingConfig`."""
    vocab_size: int = value_at(config, "model.vocab_size")
    hidden, masked, random = (value_at(config, f"task.{name}") for name in ("hidden", "masked", "random"))
    most = math.ceil(hidden * ids_BT.shape[1])
    candidates_BT = (ids_BT != PAD) & (ids_BT != EOS) & (ids_BT != BOS)
    count_B = jnp.sum(candidates_BT, axis=1)
    wanted_B = jnp.clip(jnp.round(hidden * count_B), 1, most)

    def of_row(key: jax.Array, candidates_T: jax.Array, ids_T: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The places, those of hidden tokens first, and what would stand there."""
        order, kind, token = jax.random.split(key, 3)
        scores_T = jnp.where(candidates_T, jax.random.uniform(order, ids_T.shape), -1.0)
        places_K = jax.lax.top_k(scores_T, most)[1]
        kinds_K = jax.random.uniform(kind, (most,))
        tokens_K = jax.random.randint(token, (most,), NUM_SPECIALS, vocab_size - NUM_AFTER)
        replaced_K = jnp.where(kinds_K < masked + random, tokens_K, ids_T[places_K])
        return places_K, jnp.where(kinds_K < masked, mask_token(vocab_size), replaced_K)

    places_BK, instead_BK = jax.vmap(of_row)(keys_B, candidates_BT, ids_BT)
    counted_BK = jnp.arange(most) < jnp.minimum(wanted_B, count_B)[:, None]
    instead_BK = jnp.where(counted_BK, instead_BK, jnp.take_along_axis(ids_BT, places_BK, axis=1))
    shown_BT = jax.vmap(lambda ids, places, instead: ids.at[places].set(instead))(ids_BT, places_BK, instead_BK)
    return Hidden(shown_BT, places_BK, counted_BK)
