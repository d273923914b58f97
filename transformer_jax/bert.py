"""A BERT of Hugging Face's (Devlin et al. 2019), read as a run. Nothing of theirs is needed here.

Exact: what our encoder makes of a text are its hidden states. Left out are its layer above the class token (the
"pooler") and the question whether two sentences follow each other. A model that was trained on for something else may
have no layer that names hidden tokens: it gets a random one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from transformer_jax.checked_json import checked
from transformer_jax.config import Config, EncoderOnlyConfig, Resolved, freeze
from transformer_jax.data import TokenizerPair
from transformer_jax.data.parallel_text import read_lines
from transformer_jax.data.wordpiece import WordPieceTokenizer
from transformer_jax.errors import UserError
from transformer_jax.models.build import build_model
from transformer_jax.registry import parse_spec
from transformer_jax.run.imported import (
    SETTINGS,
    TENSORS,
    Tensors,
    check_request,
    complete,
    make_run,
    read_settings_file,
    read_tensors,
)
from transformer_jax.tasks import task_of

VOCABULARY, TOKENIZER_SETTINGS = "vocab.txt", "tokenizer_config.json"
PADDING, UNKNOWN, END, MASK, CLASS = "[PAD]", "[UNK]", "[SEP]", "[MASK]", "[CLS]"
REQUIRED = {
    "vocab_size": int,
    "hidden_size": int,
    "num_hidden_layers": int,
    "num_attention_heads": int,
    "intermediate_size": int,
    "max_position_embeddings": int,
}
OPTIONAL = {
    "model_type": (str, "bert"),
    "hidden_act": (str, "gelu"),
    "hidden_dropout_prob": (float, 0.1),
    "attention_probs_dropout_prob": (float, 0.1),
    "type_vocab_size": (int, 2),
    "layer_norm_eps": (float, 1e-12),
    "position_embedding_type": (str, "absolute"),
}
"""Name -> type, and what it is where a file leaves it out."""
READABLE: Mapping[str, tuple[str, ...]] = {
    "model_type": ("bert",),
    "hidden_act": ("gelu", "relu"),
    "position_embedding_type": ("absolute",),
}
LONGEST = 128
"""Tokens of an example of an imported model, if it has so many positions."""
HEAD = "cls.predictions."
LEFT_OUT = ("pooler.", "cls.seq_relationship.", "embeddings.position_ids", f"{HEAD}decoder.")
Params = dict[str, Any]


def import_bert(directory: Path, workdir: Path, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Makes the run directory `workdir` of a BERT: its config, tokenizer and, as step 0, its parameters.

    Args:
      overrides: dotted path -> value of fields that the model does not settle: data, training.

    Returns:
      "workdir", "parameters" and "tokens": their numbers; "remarks": what is not as it was, a sentence each.

    Raises:
      UserError: a file is missing, or is not of a model that ours can be, or `workdir` holds something.
    """
    check_request(workdir, overrides)
    if not directory.is_dir():
        raise UserError(f"--bert={directory}: is no directory.")
    settings = _read_settings(directory)
    tokenizer, ids = _read_vocabulary(directory, settings["vocab_size"])
    tokenizers = TokenizerPair(tokenizer, tokenizer)
    resolved = complete(_to_config(settings), workdir, tokenizers, overrides)
    state = read_tensors(directory, "BertModel")
    params, remarks = to_params(resolved, state, ids, directory / TENSORS)
    return {**make_run(workdir, resolved, tokenizers, params, directory), "remarks": remarks}


def _read_settings(directory: Path) -> dict[str, Any]:
    where = directory / SETTINGS
    content = read_settings_file(directory, SETTINGS)
    content = {name: default for name, (_, default) in OPTIONAL.items()} | checked(content, REQUIRED, where)
    settings = checked(content, {name: kind for name, (kind, _) in OPTIONAL.items()}, where)
    for name, allowed in READABLE.items():
        if settings[name] not in allowed:
            raise UserError(f"{where}: {name} is {settings[name]!r}; only {' or '.join(allowed)} can be read.")
    return settings


def _to_config(settings: Mapping[str, Any]) -> Config:
    """The config of the model, to be trained on with a small learning rate."""
    positions = settings["max_position_embeddings"]
    model = {
        "d_model": settings["hidden_size"],
        "num_heads": settings["num_attention_heads"],
        "d_ff": settings["intermediate_size"],
        "num_layers": settings["num_hidden_layers"],
        "num_sentences": settings["type_vocab_size"],
        "dropout_rate": settings["hidden_dropout_prob"],
        "feed_forward": settings["hidden_act"],
        "norm_epsilon": settings["layer_norm_eps"],
        "positions": f"learned(max_length={positions})",
        "attention.dropout_rate": settings["attention_probs_dropout_prob"],
        "attention.use_bias": True,
        "embedding.scale": "one",
    }
    others = {
        "model.family": "encoder_only",
        "task.name": "masked_language_modelling",
        "data.source": "text",
        "data.max_length": min(positions - 1, LONGEST),
        "data.tokens_per_batch": 2048,
        "optimizer.schedule": "constant",
        "optimizer.learning_rate": 2e-5,
        "train.steps": 1000,
        "train.evaluate_every": 200,
    }
    return freeze({f"model.{name}": value for name, value in model.items()} | others)


def _read_vocabulary(directory: Path, size: int) -> tuple[WordPieceTokenizer, list[int]]:
    """The tokenizer, and BERT's ids in the order of ours; -1 for BOS, which it does not have."""
    path = directory / VOCABULARY
    if not path.is_file():
        raise UserError(f"{directory}: has no {VOCABULARY}; a BERT without its WordPiece vocabulary is not read.")
    pieces = read_lines(path.resolve())
    numbers = {piece: number for number, piece in enumerate(pieces)}
    if len(pieces) != size or len(numbers) < size:
        raise UserError(f"{path}: does not hold {size:,} different pieces, as {SETTINGS} says.")
    specials = (PADDING, UNKNOWN, END, MASK, CLASS)
    if missing := [piece for piece in specials if piece not in numbers]:
        raise UserError(f"{path}: has no {missing[0]}.")
    padding, unknown, end, mask, class_ = (numbers[piece] for piece in specials)
    others = [piece for piece in pieces if piece not in specials]
    there = (directory / TOKENIZER_SETTINGS).is_file()
    settings = read_settings_file(directory, TOKENIZER_SETTINGS) if there else {}
    lower = settings.get("do_lower_case", True) if isinstance(settings, dict) else True
    ids = [padding, unknown, -1, end, *(numbers[piece] for piece in others), mask, class_]
    return WordPieceTokenizer(others, bool(lower), str(path)), ids


class _Reader(Tensors):
    """Tensors of a BERT, whose names may begin with "bert."."""

    def __init__(self, state: Mapping[str, npt.NDArray], where: object):
        super().__init__({name.removeprefix("bert."): tensor for name, tensor in state.items()}, where)
        self.left = {name for name in self.left if not name.startswith(LEFT_OUT)}

    def linear(self, of: str, inputs: int, outputs: int) -> Params:
        kernel = self.take(f"{of}.weight", outputs, inputs).T
        return {"kernel": kernel, "bias": self.take(f"{of}.bias", outputs)}

    def norm(self, of: str, width: int) -> Params:
        return {"scale": self.take(f"{of}.weight", width), "bias": self.take(f"{of}.bias", width)}


def to_params(
    config: Resolved, state: Mapping[str, npt.NDArray], ids: list[int], where: object
) -> tuple[Params, list[str]]:
    """Parameters of a model of `_to_config`, and a sentence on what is not of the state, if anything is not.

    Args:
      ids: BERT's ids in the order of ours; -1: a row of zeros.
      where: the file, for the sentence.

    Raises:
      UserError: a tensor is missing, has another shape, or is none of such a model.
    """
    model, reader = _model(config), _Reader(state, where)
    width, positions = model.d_model, parse_spec(model.positions, "model.positions")[1]["max_length"]
    order = np.asarray(ids)
    table = reader.take("embeddings.word_embeddings.weight", len(ids) - 1, width)[order]
    table[order < 0] = 0.0
    layers = [_layer(reader, model, f"encoder.layer.{number}") for number in range(model.num_layers)]
    params: Params = {
        "embedding": {"embedding": table},
        "positions": {"embedding": reader.take("embeddings.position_embeddings.weight", positions, width)},
        "sentences": {"embedding": reader.take("embeddings.token_type_embeddings.weight", model.num_sentences, width)},
        "embedding_norm": reader.norm("embeddings.LayerNorm", width),
        "layers": jax.tree.map(lambda *leaves: np.stack(leaves), *layers),
    }
    head, remarks = _head(reader, config, order)
    if reader.left:
        raise UserError(f"{where}: {min(reader.left)} is no tensor of a BERT as config.json describes it.")
    return {**params, **head}, remarks


def _model(config: Config) -> EncoderOnlyConfig:
    assert isinstance(config.model, EncoderOnlyConfig)
    return config.model


def _layer(reader: _Reader, model: EncoderOnlyConfig, of: str) -> Params:
    width, heads, hidden = model.d_model, model.num_heads, model.d_ff
    attention: Params = {}
    for part in ("query", "key", "value"):
        linear = reader.linear(f"{of}.attention.self.{part}", width, width)
        attention[part] = {
            "kernel": linear["kernel"].reshape(width, heads, -1),
            "bias": linear["bias"].reshape(heads, -1),
        }
    out = reader.linear(f"{of}.attention.output.dense", width, width)
    attention["out"] = {"kernel": out["kernel"].reshape(heads, -1, width), "bias": out["bias"]}
    return {
        "self_attention": attention,
        "add_norm_1": {"norm": reader.norm(f"{of}.attention.output.LayerNorm", width)},
        "feed_forward": {
            "linear_1": reader.linear(f"{of}.intermediate.dense", width, hidden),
            "linear_2": reader.linear(f"{of}.output.dense", hidden, width),
        },
        "add_norm_2": {"norm": reader.norm(f"{of}.output.LayerNorm", width)},
    }


def _head(reader: _Reader, config: Resolved, order: npt.NDArray) -> tuple[Params, list[str]]:
    """What names hidden tokens: theirs, or a random one."""
    width = config.model.d_model
    if f"{HEAD}bias" not in reader.left:
        random = build_model(config.model).init(jax.random.key(0), task_of(config).example_batch(config))
        return {name: random[name] for name in ("hidden_token", "output_bias")}, [
            f"It has no {HEAD}*: what names hidden tokens is random. Let a run start from it, or train it on."
        ]
    bias = reader.take(f"{HEAD}bias", len(order) - 1)[order]
    head = {
        "linear": reader.linear(f"{HEAD}transform.dense", width, width),
        "norm": reader.norm(f"{HEAD}transform.LayerNorm", width),
    }
    return {"hidden_token": head, "output_bias": {"bias": np.where(order < 0, 0.0, bias).astype(np.float32)}}, []
