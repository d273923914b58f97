"""Losses of tasks that predict tokens. B examples, T tokens of each, C vocabulary."""

import jax
import jax.numpy as jnp

from transformer_jax.tasks.task import Figure, Measured, perplexity

TOKEN_FIGURES = {
    "nll": Figure("nll", higher_is_better=False),
    "perplexity": Figure("nll", higher_is_better=False, transform=perplexity),
    "token_accuracy": Figure("token_accuracy", higher_is_better=True),
}


def smoothed_cross_entropy(
    logits_BTC: jax.Array, targets_BT: jax.Array, label_smoothing: float | jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Section 5.4: cross-entropy with the targets (1 - e) onehot + e / C: the mass e is spread over all C classes.

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


def measure_tokens(
    logits_BTC: jax.Array, targets_BT: jax.Array, counted_BT: jax.Array, label_smoothing: float | jax.Array
) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Loss, nll (nats a token) and accuracy of the targets that count, the loss first; see `Measured`."""
    loss_BT, nll_BT = smoothed_cross_entropy(logits_BTC, targets_BT, label_smoothing)
    # argmax would cost as much as the rest of the loss on a CPU; the two differ where logits are exactly equal.
    correct_BT = target_logits(logits_BTC, targets_BT) >= jnp.max(logits_BTC, axis=-1)
    counted_BT = counted_BT.astype(jnp.float32)
    count_B = jnp.sum(counted_BT, axis=-1)
    sums = {"loss": loss_BT, "nll": nll_BT, "token_accuracy": correct_BT}
    return {name: (jnp.sum(values * counted_BT, axis=-1), count_B) for name, values in sums.items()}


def all_correct(measured: Measured) -> tuple[jax.Array, jax.Array]:
    """Whether every token of an example was right, of the examples that have any: sum and count of each."""
    correct_B, count_B = measured["token_accuracy"]
    exists_B = (count_B > 0).astype(jnp.float32)
    return (correct_B == count_B) * exists_B, exists_B
