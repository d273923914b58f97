"""What a run optimises: (params, batch, key) -> (loss sum, token count, metrics).

B batch, T target length, C vocabulary.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.config import Config
from transformer_jax.data.vocabulary import BOS, PAD
from transformer_jax.models.build import build_model
from transformer_jax.models.transformer import Sequence

Batch = Mapping[str, jax.Array]
Sums = dict[str, tuple[jax.Array, jax.Array]]
Objective = Callable[[Any, Batch, jax.Array], tuple[jax.Array, jax.Array, Sums]]


def smoothed_cross_entropy(
    logits_BTC: jax.Array, targets_BT: jax.Array, label_smoothing: float | jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Section 5.4: cross-entropy with the targets (1 - e) onehot + e / C, "spread over all classes".

    Returns:
      float32[B, T] each: the smoothed loss that is optimised, and the negative log-likelihood that can be compared.
    """
    # log p = logit - log_normaliser: written so, no array of log-probabilities is made, which halves the time.
    log_normaliser_BT = jax.nn.logsumexp(logits_BTC, axis=-1)
    nll_BT = log_normaliser_BT - target_logits(logits_BTC, targets_BT)
    uniform_BT = log_normaliser_BT - jnp.mean(logits_BTC, axis=-1)
    return (1 - label_smoothing) * nll_BT + label_smoothing * uniform_BT, nll_BT


def target_logits(logits_BTC: jax.Array, targets_BT: jax.Array) -> jax.Array:
    """float32[B, T]: the logit of each target."""
    return jnp.take_along_axis(logits_BTC, targets_BT[..., None], axis=-1)[..., 0]


def shift_right(targets_BT: jax.Array, positions_BT: jax.Array) -> jax.Array:
    """The decoder's inputs: the token before each target, BOS at the start of each sentence of the row."""
    return jnp.where(positions_BT == 0, BOS, jnp.roll(targets_BT, 1, axis=1))


def sequences(batch: Batch) -> tuple[Sequence | None, Sequence | None]:
    """Where the tokens of a packed batch stand; None, None for one sentence a row."""
    if "inputs_segments" not in batch:
        return None, None
    sides = (Sequence(batch[f"{side}_positions"], batch[f"{side}_segments"]) for side in ("inputs", "targets"))
    source, target = sides
    return source, target


def teacher_forced_logits(config: Config, params: Any, batch: Batch, key: jax.Array | None) -> jax.Array:
    """float32[B, T, C]: logits of each target given the ones before it; dropout is on where there is a key."""
    source, target = sequences(batch)
    positions = target.positions if target else jnp.arange(batch["targets"].shape[1])[None]
    decoder_inputs = shift_right(batch["targets"], positions)
    decoder_inputs = jnp.where(batch["targets"] == PAD, PAD, decoder_inputs)
    logits_BTC = build_model(config.model).apply(
        {"params": params},
        batch["inputs"],
        decoder_inputs,
        source,
        target,
        deterministic=key is None,
        rngs={} if key is None else {"dropout": key},
    )
    return jnp.asarray(logits_BTC)


def translation(config: Config) -> Objective:
    """Predict each target token from the source and the target tokens before it."""

    def objective(params: Any, batch: Batch, key: jax.Array) -> tuple[jax.Array, jax.Array, Sums]:
        logits = teacher_forced_logits(config, params, batch, key)
        weights = (batch["targets"] != PAD).astype(jnp.float32)
        loss, nll = smoothed_cross_entropy(logits, batch["targets"], config.train.label_smoothing)
        # argmax would cost as much as the rest of the loss on a CPU; the two differ where logits are exactly equal.
        correct = target_logits(logits, batch["targets"]) >= jnp.max(logits, axis=-1)
        count = jnp.sum(weights)
        sums = {"nll": (jnp.sum(nll * weights), count), "token_accuracy": (jnp.sum(correct * weights), count)}
        return jnp.sum(loss * weights), count, sums

    return objective


OBJECTIVES: dict[str, Callable[[Config], Objective]] = {"transformer": translation}
