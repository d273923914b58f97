"""A run as a directory that Hugging Face's `MarianMTModel.from_pretrained` and CTranslate2 read, and such a directory
as a run. Nothing of theirs is needed here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.numpy import save

from transformer_jax.checked_json import checked
from transformer_jax.config import Config, value_at
from transformer_jax.data import TokenizerPair
from transformer_jax.data.pieces import PieceTokenizer
from transformer_jax.data.subwords import SubwordTokenizer
from transformer_jax.errors import UserError
from transformer_jax.files import read_bytes, write_atomically
from transformer_jax.marian.settings import EPSILON, read_settings, to_config, to_generation_settings, to_settings
from transformer_jax.marian.weights import order_of_ids, to_params, to_state
from transformer_jax.run.directory import write_json
from transformer_jax.run.identity import read_config
from transformer_jax.run.imported import (
    SETTINGS,
    TENSORS,
    check_new,
    check_request,
    complete,
    make_run,
    read_settings_file,
    read_tensors,
)
from transformer_jax.run.resolve import load_assets
from transformer_jax.run.saved import load_params
from transformer_jax.strict_json import to_json
from transformer_jax.vocabulary import EOS, NUM_SPECIALS, PAD, UNK

GENERATION = "generation_config.json"
VOCABULARY, TOKENIZER_SETTINGS, MODELS = "vocab.json", "tokenizer_config.json", ("source.spm", "target.spm")
SPECIALS = {PAD: "<pad>", UNK: "<unk>", EOS: "</s>"}


# --- Out ---


def export_marian(workdir: Path, output: Path, checkpoint: str | None = None) -> dict[str, Any]:
    """Writes a checkpoint of a run as a Marian model into the new directory `output`.

    Args:
      checkpoint: best, last, a step or average:N; None: what `evaluate.checkpoint` says.

    Returns:
      "output", "checkpoint", "tensors": name -> shape, and "remarks": what is not the same in Marian, a sentence each.

    Raises:
      UserError: Marian cannot be what the run is, there is no such checkpoint, or `output` holds something.
    """
    check_new(output, "--output")
    config = read_config(workdir)
    settings = to_settings(config)
    assets = load_assets(workdir, config)
    if assets is None:
        raise UserError(f"{workdir}: has no tokenizer; the run directory is not complete.")
    choice = checkpoint or config.evaluate.checkpoint
    state = to_state(config, load_params(workdir, choice), settings["max_position_embeddings"])
    vocabulary = _vocabulary_files(assets, config)
    write_atomically(output / TENSORS, save(state, {"format": "pt"}))
    for name, content in vocabulary.items():
        write_atomically(output / name, content)
    write_json(output / GENERATION, to_generation_settings(config))
    write_json(output / SETTINGS, settings)
    shapes = {name: list(tensor.shape) for name, tensor in state.items()}
    remarks = _remarks(config, bool(vocabulary))
    return {"output": str(output), "checkpoint": choice, "tensors": shapes, "remarks": remarks}


def _remarks(config: Config, has_vocabulary: bool) -> list[str]:
    remarks = []
    if config.model.norm_epsilon != EPSILON:
        remarks.append(
            f"Marian adds {EPSILON} to variances, this run model.norm_epsilon = {config.model.norm_epsilon}: logits "
            "differ a little."
        )
    if not has_vocabulary:
        remarks.append(
            f"No {VOCABULARY} and no tokenizer is written: data.tokenizer = {config.data.tokenizer!r} is no "
            "SentencePiece model."
        )
    return remarks


def _vocabulary_files(tokenizers: TokenizerPair, config: Config) -> dict[str, bytes]:
    """Name -> content of what the tokenizer is made of; nothing where it cuts no subwords."""
    both = tokenizers.source, tokenizers.target
    sides = [side for side in both if isinstance(side, (PieceTokenizer, SubwordTokenizer))]
    if len(sides) < len(both):
        return {}
    size = value_at(config, "model.vocab_size") or 0
    names = SPECIALS | dict(enumerate(sides[-1].pieces, start=NUM_SPECIALS))
    numbers = {names.get(id_, f"<unused{id_}>"): number for number, id_ in enumerate(order_of_ids(size).tolist())}
    settings = {
        "tokenizer_class": "MarianTokenizer",
        "source_lang": config.data.source_language,
        "target_lang": config.data.target_language,
        "separate_vocabs": False,
        "model_max_length": config.data.max_length,
        "eos_token": SPECIALS[EOS],
        "unk_token": SPECIALS[UNK],
        "pad_token": SPECIALS[PAD],
    }
    of_json = {VOCABULARY: numbers, TOKENIZER_SETTINGS: settings}
    contents = {name: (to_json(content, indent=1) + "\n").encode() for name, content in of_json.items()}
    return {**contents, **{name: side.model for name, side in zip(MODELS, sides, strict=True)}}


# --- In ---


def import_marian(directory: Path, workdir: Path, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Makes the run directory `workdir` of a Marian model: its config, tokenizers and, as step 0, its parameters.

    Args:
      overrides: dotted path -> value of fields that the model does not settle: data, decoding, training.

    Returns:
      "workdir", "parameters" and "tokens": their numbers.

    Raises:
      UserError: a file is missing, or is not of a model that ours can be, or `workdir` holds something.
    """
    check_request(workdir, overrides)
    settings = _read_settings(directory)
    tokenizers, ids = _read_vocabulary(directory, settings)
    resolved = complete(to_config(settings), workdir, tokenizers, overrides)
    params = to_params(resolved, read_tensors(directory, "MarianMTModel"), ids, directory / TENSORS)
    return make_run(workdir, resolved, tokenizers, params, directory)


def _read_settings(directory: Path) -> dict[str, Any]:
    if not directory.is_dir():
        raise UserError(f"--marian={directory}: is no directory.")
    content = read_settings_file(directory, SETTINGS)
    generation = read_settings_file(directory, GENERATION) if (directory / GENERATION).is_file() else {}
    if isinstance(content, dict) and isinstance(generation, dict) and "num_beams" in generation:
        content = {**content, "num_beams": generation["num_beams"]}
    return read_settings(content, directory / SETTINGS)


def _read_vocabulary(directory: Path, settings: Mapping[str, Any]) -> tuple[TokenizerPair, list[int]]:
    """The tokenizers, and Marian's ids in the order of ours (see `weights.to_params`)."""
    path, size = directory / VOCABULARY, settings["vocab_size"]
    for name in (VOCABULARY, *MODELS):
        if not (directory / name).is_file():
            raise UserError(f"{directory}: has no {name}; a Marian model without its SentencePiece models is not read.")
    content = read_settings_file(directory, VOCABULARY)
    numbers = checked(content, dict.fromkeys(content if isinstance(content, dict) else {}, int), path)
    names = {number: name for name, number in numbers.items()}
    if len(names) < len(numbers) or not all(0 <= number < size for number in names):
        raise UserError(f"{path}: its numbers are not those of {size:,} different tokens, as {SETTINGS} says.")
    if SPECIALS[UNK] not in numbers:
        raise UserError(f"{path}: has no {SPECIALS[UNK]!r}.")
    padding, end, unknown = settings["pad_token_id"], settings["eos_token_id"], numbers[SPECIALS[UNK]]
    others = [number for number in range(size) if number not in (padding, end, unknown)]
    pieces = [names.get(number, f"<unused{number}>") for number in others]
    sides = [_read_pieces(directory / name, pieces) for name in MODELS]
    return TokenizerPair(*sides), [padding, unknown, settings["decoder_start_token_id"], end, *others]


def _read_pieces(path: Path, pieces: list[str]) -> PieceTokenizer:
    try:
        return PieceTokenizer(read_bytes(path.resolve()), pieces, str(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
