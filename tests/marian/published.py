"""Marian as its authors publish it, in NumPy: nothing here is taken from the package.

Junczys-Dowmunt et al. 2018, with the names of Hugging Face's `MarianMTModel`. `logits` is its forward pass,
`write_model` makes a directory as `save_pretrained` does, with random weights and SentencePiece models of a few
sentences.
"""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
import sentencepiece
from safetensors.numpy import save_file

ACTIVATIONS = {
    "swish": lambda x: x / (1 + np.exp(-x)),
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * scipy.stats.norm.cdf(x),
}
SETTINGS = {
    "model_type": "marian",
    "d_model": 6,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 10,
    "decoder_ffn_dim": 10,
    "activation_function": "swish",
    "scale_embedding": True,
    "max_position_embeddings": 32,
    "eos_token_id": 0,
    "dropout": 0.2,
    "num_beams": 2,
}
SOURCES = ["the cat sat on the mat", "a dog ran in the garden", "my horse jumped over the bridge"]
TARGETS = ["die Katze saß auf der Matte", "ein Hund lief im Garten", "mein Pferd sprang über die Brücke"]


def sinusoids(count: int, width: int) -> np.ndarray:
    place = [[p / 10000 ** (2 * (j // 2) / width) for j in range(width)] for p in range(count)]
    place = np.asarray(place)
    return np.concatenate([np.sin(place[:, 0::2]), np.cos(place[:, 1::2])], axis=1)


def logits(settings: dict[str, Any], state: dict[str, np.ndarray], source: list[int], target: list[int]) -> np.ndarray:
    """[T, C]: of the token after each of `target`, which begins with the token that Marian starts with."""
    state = {name: np.asarray(tensor, np.float64) for name, tensor in state.items()}
    table, width, heads = state["model.shared.weight"], settings["d_model"], settings["encoder_attention_heads"]

    def linear(x: np.ndarray, of: str) -> np.ndarray:
        return x @ state[f"{of}.weight"].T + state[f"{of}.bias"]

    def norm(x: np.ndarray, of: str) -> np.ndarray:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * state[f"{of}.weight"] + state[f"{of}.bias"]

    def attend(x: np.ndarray, memory: np.ndarray, of: str, causal: bool) -> np.ndarray:
        q, k, v = (
            linear(y, f"{of}.{name}_proj").reshape(len(y), heads, -1).swapaxes(0, 1)
            for y, name in ((x, "q"), (memory, "k"), (memory, "v"))
        )
        scores = q @ k.swapaxes(1, 2) / np.sqrt(width / heads)
        if causal:
            scores = np.where(np.tri(len(x), dtype=bool), scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        return linear((weights @ v).swapaxes(0, 1).reshape(len(x), width), f"{of}.out_proj")

    def stack(name: str, ids: list[int], memory: np.ndarray | None) -> np.ndarray:
        positions = state.get(f"model.{name}.embed_positions.weight", sinusoids(len(ids), width))[: len(ids)]
        x = table[ids] * (np.sqrt(width) if settings["scale_embedding"] else 1.0) + positions
        for number in range(settings[f"{name}_layers"]):
            of = f"model.{name}.layers.{number}"
            x = norm(x + attend(x, x, f"{of}.self_attn", memory is not None), f"{of}.self_attn_layer_norm")
            if memory is not None:
                x = norm(x + attend(x, memory, f"{of}.encoder_attn", False), f"{of}.encoder_attn_layer_norm")
            hidden = ACTIVATIONS[settings["activation_function"]](linear(x, f"{of}.fc1"))
            x = norm(x + linear(hidden, f"{of}.fc2"), f"{of}.final_layer_norm")
        return x

    decoded = stack("decoder", target, stack("encoder", source, None))
    return decoded @ table.T + state["final_logits_bias"][0]


def random_state(settings: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
    """Every tensor, none of them zero but the row of padding."""
    rng, width, hidden = np.random.default_rng(seed), settings["d_model"], settings["encoder_ffn_dim"]

    def draw(*shape: int) -> np.ndarray:
        return (0.4 * rng.normal(size=shape)).astype(np.float32)

    state = {"model.shared.weight": draw(settings["vocab_size"], width)}
    state["model.shared.weight"][settings["pad_token_id"]] = 0
    state["final_logits_bias"] = draw(1, settings["vocab_size"])
    for stack, attentions in (("encoder", ["self_attn"]), ("decoder", ["self_attn", "encoder_attn"])):
        for number in range(settings[f"{stack}_layers"]):
            of = f"model.{stack}.layers.{number}"
            for attention in attentions:
                for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    state[f"{of}.{attention}.{name}.weight"] = draw(width, width)
                    state[f"{of}.{attention}.{name}.bias"] = draw(width)
            state[f"{of}.fc1.weight"], state[f"{of}.fc1.bias"] = draw(hidden, width), draw(hidden)
            state[f"{of}.fc2.weight"], state[f"{of}.fc2.bias"] = draw(width, hidden), draw(width)
            for name in [*(f"{attention}_layer_norm" for attention in attentions), "final_layer_norm"]:
                state[f"{of}.{name}.weight"], state[f"{of}.{name}.bias"] = 1 + draw(width), draw(width)
    return state


def subword_model(texts: list[str]) -> bytes:
    """SentencePiece as Marian's tools train it: its own numbers, its own special pieces."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=40,
        hard_vocab_limit=False,  # as many as there are
        minloglevel=2,
    )
    return model.getvalue()


def write_model(directory: Path, **changes: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A directory with a model and its vocabulary, as `save_pretrained` writes it; its settings and its state."""
    directory.mkdir(parents=True)
    numbers = {"</s>": 0, "<unk>": 1, ">>deu<<": 2}
    for name, texts in (("source.spm", SOURCES), ("target.spm", TARGETS)):
        model = subword_model(texts)
        (directory / name).write_bytes(model)
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        for piece in (processor.id_to_piece(n) for n in range(processor.vocab_size())):
            if piece != "<s>":
                numbers.setdefault(piece, len(numbers))
    numbers["<pad>"] = len(numbers)
    (directory / "vocab.json").write_text(json.dumps(numbers))
    ids = {"pad_token_id": numbers["<pad>"], "decoder_start_token_id": numbers["<pad>"]}
    settings = {**SETTINGS, "vocab_size": len(numbers), **ids, **changes}
    (directory / "config.json").write_text(json.dumps(settings))
    state = random_state(settings)
    save_file(state, directory / "model.safetensors", {"format": "pt"})
    return settings, state
