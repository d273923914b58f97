"""Every parameter is split as intended, or refused: what JAX does not understand it keeps whole on every device."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from transformer_jax.errors import UserError
from transformer_jax.parallel.rules import AXES, RULES, rule_of, specs

INTENDED = {  # dimensions from the right: "f" all that share a batch and parameters, "t" the inside of layers, "-" none
    "encoder.layers.self_attention.query.kernel": "ft-",
    "decoder.layers.cross_attention.key.kernel": "ft-",
    "layers.self_attention.value.kernel": "ft-",
    "layers.self_attention.query.bias": "t-",
    "layers.self_attention.key.bias": "t-",
    "layers.self_attention.value.bias": "t-",
    "layers.self_attention.out.kernel": "t-f",
    "layers.self_attention.out.bias": "f",
    "layers.self_attention.key.Dense_0.kernel": "f-",
    "layers.self_attention.key.Dense_0.bias": "f",
    "layers.self_attention.key.DenseGeneral_0.kernel": "f--",
    "layers.self_attention.key.DenseGeneral_0.bias": "--",
    "decoder.layers.cross_attention.scale": "t",
    "layers.self_attention.score_function.kernel": "t--",
    "layers.self_attention.score_function.v": "t-",
    "layers.self_attention.weights_function.logits": "--",
    "layers.self_attention.query_norm.scale": "-",
    "layers.self_attention.key_norm.bias": "-",
    "layers.self_attention.relative.keys": "--",
    "layers.self_attention.relative.r.kernel": "ft-",
    "layers.self_attention.relative.u": "t-",
    "layers.self_attention.relative.v": "t-",
    "encoder.positions.embedding": "-f",
    "decoder.positions.bias": "-t",
    "layers.feed_forward.linear_1.kernel": "ft",
    "layers.feed_forward.linear_1.bias": "t",
    "layers.feed_forward.linear_2.kernel": "tf",
    "layers.feed_forward.linear_2.bias": "f",
    "layers.feed_forward.linear_13.kernel": "ft",
    "layers.feed_forward.gate.kernel": "ft",
    "layers.convolution.kernel": "--f",
    "layers.convolution.bias": "f",
    "encoder.layers.add_norm_1.norm.scale": "f",
    "norm.bias": "f",
    "embedding.embedding": "tf",
    "source_embedding.embedding": "tf",
    "softmax.embedding": "tf",
    "output_bias.bias": "t",
    "patch_embedding.kernel": "-f",
    "patch_embedding.bias": "f",
    "class_token": "f",
    "classifier.kernel": "f-",
    "classifier.bias": "-",
    "sentences.embedding": "-f",
    "embedding_norm.scale": "f",
    "hidden_token.linear.kernel": "f-",
    "hidden_token.linear.bias": "-",
    "encoder.forwards.cell.hr.kernel": "f-",
    "decoder.layers.writer.cell.hn.bias": "f",
    "decoder.writer.initial.kernel": "f-",
    "decoder.writer.initial.bias": "f",
    "decoder.combine.kernel": "f-",
    "decoder.combine.bias": "f",
}
LETTERS = {"f": "fsdp", "t": "tensor", "-": None}


def test_every_rule_is_the_one_intended_and_has_a_parameter():
    found = {path: rule_of(path) for path in INTENDED}
    assert {path: axes for path, (_, axes) in found.items()} == {
        path: tuple(LETTERS[letter] for letter in letters) for path, letters in INTENDED.items()
    }
    assert [pattern for pattern, _ in RULES if pattern not in {pattern for pattern, _ in found.values()}] == []
    assert {axis for _, axes in RULES for axis in axes} <= {None, *AXES}


def test_what_the_optimizer_remembers_lies_where_its_parameter_does():
    kernel, count = jax.ShapeDtypeStruct((2, 3, 8, 4, 5), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.int32)
    tree = {"layers": {"self_attention": {"query": {"kernel": kernel}}}}
    sizes = {"population": 2, "data": 1, "fsdp": 4, "tensor": 2}
    found = specs({"params": tree, "opt_state": (count, {"mu": tree})}, sizes)
    one = {
        "layers": {"self_attention": {"query": {"kernel": PartitionSpec("population", None, "fsdp", "tensor", None)}}}
    }
    assert found == {"params": one, "opt_state": (PartitionSpec("population"), {"mu": one})}


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("layers.self_attention.qeury.kernel", "there match it: none"),
        ("encoder.layers.router.kernel", "there match it: none"),
        ("layers.gate.kernel.query.kernel.positions.bias.linear_12.out.kernel.class_tokens", "there match it: none"),
    ],
)
def test_a_parameter_that_no_rule_knows_is_refused(path, words):
    with pytest.raises(UserError, match=words):
        rule_of(path)


def test_a_parameter_that_two_rules_match_is_refused(monkeypatch):
    monkeypatch.setattr("transformer_jax.parallel.rules.RULES", (*RULES, ("another.query.kernel", (None,))))
    with pytest.raises(UserError, match=r"'query\.kernel' and 'another\.query\.kernel'"):
        rule_of("another.query.kernel")


def test_a_size_that_an_axis_does_not_divide_is_refused():
    tree = {"embedding": {"embedding": jax.ShapeDtypeStruct((1, 101, 8), jnp.float32)}}
    sizes = {"population": 1, "data": 1, "fsdp": 4, "tensor": 2}
    with pytest.raises(
        UserError, match=r"parallel\.tensor = 2 does not divide 101, .* embedding\.embedding \[101, 8\]"
    ):
        specs(tree, sizes)
    assert specs(tree, {**sizes, "tensor": 1}) == {
        "embedding": {"embedding": PartitionSpec("population", "tensor", "fsdp")}
    }
