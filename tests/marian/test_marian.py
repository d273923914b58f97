"""Marian models, out and in: the same logits as a forward pass of theirs that knows nothing of ours."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import jax
import numpy as np
import published
import pytest
import sentencepiece
import tiny
import tiny_run
from safetensors.numpy import load_file, save_file

from transformer_jax import cli
from transformer_jax.config import freeze
from transformer_jax.errors import UserError
from transformer_jax.marian.directory import export_marian, import_marian
from transformer_jax.marian.settings import to_settings
from transformer_jax.marian.weights import order_of_ids, to_state
from transformer_jax.run.identity import read_config
from transformer_jax.run.resolve import load_assets
from transformer_jax.run.saved import load_params
from transformer_jax.vocabulary import BOS, EOS, PAD

SAME = 1e-4
PEERS = "TRANSFORMER_JAX_PEERS"


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    assert np.abs(theirs).max() > 0.3
    return float(np.abs(ours - theirs).max())


# --- Out ---

EXPORTABLE = [
    {},
    {"model.feed_forward": "swish", "model.attention.use_bias": True, "model.embedding.output_bias": True},
    {"model.feed_forward": "gelu", "model.embedding.scale": "one", "model.attention.cross.use_bias": True},
    {"model.d_model": 10, "model.num_heads": 2},
]


@pytest.mark.parametrize("overrides", EXPORTABLE, ids=tiny.name)
def test_what_goes_out_has_the_same_logits(overrides):
    config = tiny.config({"model.norm_epsilon": 1e-5, **overrides})
    params, settings = tiny.params(config), to_settings(config)
    state, ids = to_state(config, params, 16), order_of_ids(11).tolist()
    source, target = [4, 9, 6, EOS], [8, 10, 5, 7]
    batch = {"inputs": np.asarray([source]), "targets": np.asarray([[*target, EOS]])}
    ours = tiny.logits(config, params, batch)[0][:, ids[:-1]]
    numbers = {id_: number for number, id_ in enumerate(ids)}
    start = settings["decoder_start_token_id"]
    theirs = published.logits(settings, state, [numbers[n] for n in source], [start, *(numbers[n] for n in target)])
    assert start == settings["vocab_size"] - 1 == numbers[PAD]
    assert not state["model.shared.weight"][start].any()  # as CTranslate2 takes for granted
    assert difference(ours, theirs[:, :-1]) < SAME
    assert theirs[:, -1].max() < theirs[:, :-1].min() - 50  # padding is never written


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"model.positions": "rotary"}, "model.positions = 'rotary' is not what Marian computes: 'sinusoidal'"),
        ({"model.residual": "pre_norm"}, "model.residual = 'pre_norm'"),
        ({"model.embedding.tying": "none"}, "model.embedding.tying = 'none'"),
        ({"model.attention.cross.scale": "none"}, "model.attention.cross.scale = 'none'"),
        ({"model.feed_forward": "swiglu"}, "model.feed_forward = 'swiglu'"),
        ({"model.d_k": 8}, "model.d_k = 8"),
        ({"model.family": "decoder_only"}, "model.family = 'decoder_only'"),
    ],
)
def test_what_marian_cannot_be_is_refused(overrides, said):
    with pytest.raises(UserError, match=said.replace("(", r"\(")):
        to_settings(tiny.config(overrides))


def test_a_run_as_a_directory(tmp_path, capsys):
    """One of whole words has no SentencePiece model: that is said, and nothing stands in its place."""
    output = tmp_path / "marian"
    assert cli.main(["export", f"--workdir={tiny_run.finished()}", "--format=marian", f"--output={output}"]) == 0
    said = capsys.readouterr().out
    assert "model.norm_epsilon = 1e-06" in said
    assert "data.tokenizer = 'words' is no SentencePiece model" in said
    assert {path.name for path in output.iterdir()} == {"config.json", "generation_config.json", "model.safetensors"}
    settings = json.loads((output / "config.json").read_text())
    assert settings["vocab_size"] == len(load_file(output / "model.safetensors")["model.shared.weight"])
    assert json.loads((output / "generation_config.json").read_text())["num_beams"] == 1  # it writes greedily


@pytest.mark.parametrize("output", ["run/marian", "full", "file", "run"])
def test_only_a_new_directory_is_written(tmp_path, output):
    run = tiny_run.copy_of(tiny_run.finished(), tmp_path / "run")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=f"--output={tmp_path / output}: "):
        export_marian(run, tmp_path / output)
    assert sorted(tmp_path.rglob("*")) == before


# --- In ---


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A directory as Hugging Face's, and "run" beside it, made of it."""
    directory = tmp_path_factory.mktemp("published") / "model"
    published.write_model(directory)
    import_marian(directory, directory.parent / "run")
    return directory


def content(directory: Path) -> tuple[dict, dict, dict]:
    settings, numbers = (json.loads((directory / name).read_text()) for name in ("config.json", "vocab.json"))
    return settings, numbers, load_file(directory / "model.safetensors")


def test_what_comes_in_has_the_same_logits(model):
    settings, numbers, state = content(model)
    run = model.parent / "run"
    config, assets = read_config(run), load_assets(run, read_config(run))
    source, target = assets.source.encode(["the cat ran"])[0], assets.target.encode(["die Katze lief"])[0]
    batch = {"inputs": np.asarray([[*source, EOS]]), "targets": np.asarray([[*target, EOS]])}
    ours = tiny.logits(config, load_params(run, "last"), batch)[0]
    processors = [sentencepiece.SentencePieceProcessor(str(model / name)) for name in ("source.spm", "target.spm")]
    theirs_source, theirs_target = (
        [numbers.get(piece, 1) for piece in processor.encode(text, out_type=str)]
        for processor, text in zip(processors, ("the cat ran", "die Katze lief"), strict=True)
    )
    padding = settings["pad_token_id"]
    theirs = published.logits(settings, state, [*theirs_source, 0], [padding, *theirs_target])
    others = sorted(set(range(settings["vocab_size"])) - {0, 1, padding})
    assert difference(ours[:, [PAD, 1, EOS, *range(4, ours.shape[1])]], theirs[:, [padding, 1, 0, *others]]) < SAME
    assert ours[:, BOS].max() < theirs.min() - 50
    assert config.model.dropout_rate == 0.2
    assert config.decode.beam_size == 2


def test_what_came_in_goes_out_as_it_was(model, tmp_path):
    export_marian(model.parent / "run", tmp_path / "again")
    before, after = content(model), content(tmp_path / "again")
    assert after[1] == before[1]
    assert {name: after[0][name] for name in published.SETTINGS if name != "num_beams"} == {
        name: value for name, value in published.SETTINGS.items() if name != "num_beams"
    } | {"max_position_embeddings": 82}
    assert after[2].keys() == before[2].keys()
    for name, tensor in before[2].items():
        np.testing.assert_array_equal(after[2][name], tensor, name)
    for name in ("source.spm", "target.spm"):
        assert (tmp_path / "again" / name).read_bytes() == (model / name).read_bytes()


def test_what_went_out_comes_in_as_it_was(tmp_path):
    """The start too, which Marian has in the first position: its row comes back to where it was."""
    config = tiny.config({"model.norm_epsilon": 1e-5, "model.d_model": 6, "model.d_ff": 10, "model.vocab_size": 60})
    settings, _ = published.write_model(tmp_path / "model")
    config = freeze({**{"model.vocab_size": settings["vocab_size"] + 1}, **_values(config)})
    params = tiny.params(config)
    save_file(to_state(config, params, 16), tmp_path / "model" / "model.safetensors")
    import_marian(tmp_path / "model", tmp_path / "run")
    found = load_params(tmp_path / "run", "last")
    before, after = (tree["source_embedding"]["embedding"] for tree in (params, found))
    np.testing.assert_allclose(after[BOS], before[BOS], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(after[BOS + 1 :], before[BOS + 1 :])
    for stack in ("encoder", "decoder"):
        kernel = found[stack]["layers"]["feed_forward"]["linear_1"]["kernel"]
        np.testing.assert_array_equal(kernel, params[stack]["layers"]["feed_forward"]["linear_1"]["kernel"])


def _values(config):
    names = ("d_model", "num_heads", "d_ff", "num_encoder_layers", "num_decoder_layers", "norm_epsilon")
    return {f"model.{name}": getattr(config.model, name) for name in names}


def test_the_pieces_of_a_run_that_came_in(model):
    """The code of a language is one piece, what neither model knows is unknown, and text comes back."""
    _, numbers, _ = content(model)
    run = model.parent / "run"
    assets = load_assets(run, read_config(run))
    ids = {piece: assets.target.encode([piece])[0] for piece in (">>deu<<",)}
    assert len(ids[">>deu<<"]) == 1
    assert assets.source.encode([">>deu<<the cat"])[0] == ids[">>deu<<"] + assets.source.encode(["the cat"])[0]
    for text in published.TARGETS:
        assert assets.target.decode(assets.target.encode([text])[0]) == text
    assert 1 in assets.source.encode(["the 猫"])[0]
    assert assets.source.vocab_size == assets.target.vocab_size == len(numbers) + 1


def test_the_commands(model, tmp_path, capsys):
    """A run that came in is evaluated, and ablated: the row `scale_none` on its parameters, which here stand still."""
    run = tmp_path / "run"
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for split in ("train", "val", "test"):
        for language, texts in (("en", published.SOURCES), ("de", published.TARGETS)):
            (corpus / f"{split}.{language}").write_text("".join(f"{text}\n" for text in texts))
    settled = [f"--config.data.directory={corpus}", "--config.decode.max_extra_length=3"]
    settled += ["--config.decode.strategy=greedy"]
    assert cli.main(["import", f"--marian={model}", f"--workdir={run}", *settled]) == 0
    assert "parameters, a vocabulary of" in capsys.readouterr().out
    assert cli.main(["evaluate", f"--workdir={run}", "--json"]) == 0
    before = json.loads(capsys.readouterr().out)["metrics"]["nll"]
    line = [f"--config={run}:scale_none", f"--config.train.start_from={run}", "--config.train.steps=1"]
    line += ["--config.data.length_classes=1", "--config.optimizer.learning_rate=0"]
    assert cli.main(["train", *line, f"--workdir={tmp_path / 'tuned'}", "--json"]) == 0
    after = json.loads(capsys.readouterr().out)
    assert read_config(tmp_path / "tuned").model.attention.scale == "none"
    assert abs(after["metrics"]["test"]["nll"] - before) > 1e-3
    jax.tree.map(
        np.testing.assert_array_equal, *(load_params(directory, "last") for directory in (run, tmp_path / "tuned"))
    )


def edit(name, **changes):
    def change(directory: Path) -> None:
        found = json.loads((directory / name).read_text())
        kept = {key: value for key, value in {**found, **changes}.items() if value is not ...}
        (directory / name).write_text(json.dumps(kept))

    return change


def tensors(**changes):
    def change(directory: Path) -> None:
        path = directory / "model.safetensors"
        found = {**load_file(path), **{name.replace("__", "."): tensor for name, tensor in changes.items()}}
        save_file({name: tensor for name, tensor in found.items() if tensor is not None}, path)

    return change


def remove(name):
    return lambda directory: (directory / name).unlink()


def spoil(name):
    return lambda directory: (directory / name).write_bytes(b"nothing")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (edit("config.json", model_type="bart"), "model_type is 'bart'"),
        (edit("config.json", vocab_size=...), "does not say 'vocab_size'"),
        (edit("config.json", share_encoder_decoder_embeddings=False), "share_encoder_decoder_embeddings is False"),
        (edit("config.json", decoder_attention_heads=3), "decoder_attention_heads is 3"),
        (edit("config.json", activation_function="mish"), "activation_function is 'mish'; allowed: swish"),
        (edit("config.json", pad_token_id=1000), "pad_token_id is 1000"),
        (edit("config.json", d_model=7), "does not divide model.d_model = 7"),
        (edit("config.json", encoder_ffn_dim=9, decoder_ffn_dim=9), "fc1.weight has shape (10, 6)"),
        (edit("config.json", encoder_layers=2), "has no tensor 'model.encoder.layers.1.self_attn.q_proj.weight'"),
        (edit("config.json", decoder_layers=1), "model.decoder.layers.1.encoder_attn.k_proj.bias is no tensor of"),
        (edit("vocab.json", extra=1000), "vocab.json: its numbers are not those of"),
        (edit("vocab.json", **{"<unk>": ...}), "has no '<unk>'"),
        (remove("source.spm"), "has no source.spm"),
        (remove("model.safetensors"), "has no model.safetensors. Other formats"),
        (spoil("model.safetensors"), "model.safetensors: cannot be read"),
        (spoil("target.spm"), "target.spm: not a SentencePiece model"),
        (tensors(lm_head__weight=np.ones((3, 6), np.float32)), "lm_head.weight differs from model.shared.weight"),
        (
            tensors(model__encoder__embed_positions__weight=np.ones((8, 6), np.float32)),
            "model.encoder.embed_positions.weight are no sinusoids",
        ),
    ],
)
def test_what_ours_cannot_be_is_refused(model, tmp_path, change, said):
    directory = Path(shutil.copytree(model, tmp_path / "model"))
    change(directory)
    with pytest.raises(UserError) as refused:
        import_marian(directory, tmp_path / "run")
    assert said in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_what_the_model_settles_is_not_changed(model, tmp_path):
    with pytest.raises(UserError, match="--config.model.d_ff: the model that is imported settles that"):
        import_marian(model, tmp_path / "run", {"model.d_ff": 4})
    with pytest.raises(UserError, match="is there already"):
        import_marian(model, model.parent / "run")


# --- Hugging Face's own, where it is ---

THEIRS = """
import json, sys
import torch
from transformers import MarianConfig, MarianMTModel, MarianTokenizer
folder, source, target = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
if len(sys.argv) > 4:
    torch.manual_seed(0)
    made = MarianMTModel(MarianConfig(**json.load(open(folder + "/config.json")), init_std=0.4))
    with torch.no_grad():
        for name, tensor in made.named_parameters():
            if tensor.ndim == 1:
                tensor += 0.3 * torch.randn_like(tensor)
        made.final_logits_bias += torch.randn_like(made.final_logits_bias)
    made.save_pretrained(folder)
model = MarianMTModel.from_pretrained(folder).eval()
with torch.inference_mode():
    logits = model(input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([target])).logits[0]
tokenizer = MarianTokenizer.from_pretrained(folder)
print(json.dumps({"logits": logits.tolist(), "ids": tokenizer("the cat ran").input_ids}))
"""


def theirs(folder: Path, source: list[int], target: list[int], *more: str) -> dict:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [os.environ[PEERS], "-c", THEIRS, str(folder), json.dumps(source), json.dumps(target), *more]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif(PEERS not in os.environ, reason=f"{PEERS} names no Python that has torch and transformers")
def test_hugging_face_has_the_same_logits_both_ways(tmp_path):
    settings, _ = published.write_model(tmp_path / "model")
    padding = settings["pad_token_id"]
    source, target = [5, 9, 7, 0], [padding, 8, 6, 11]
    found = theirs(tmp_path / "model", source, target, "made by them")
    saved = load_file(tmp_path / "model" / "model.safetensors")
    assert difference(published.logits(settings, saved, source, target), np.asarray(found["logits"])) < SAME
    import_marian(tmp_path / "model", tmp_path / "run")
    assert difference(_ours(tmp_path / "run", source, target), np.asarray(found["logits"])) < SAME
    config = read_config(tmp_path / "run")
    ids = [PAD, 1, BOS, EOS, *range(4, 4 + settings["vocab_size"])]
    (encoded,) = load_assets(tmp_path / "run", config).source.encode(["the cat ran"])
    assert [{EOS: 0}.get(n, n - 2) for n in [*encoded, EOS]] == found["ids"], ids

    params = load_params(tmp_path / "run", "last")
    params["source_embedding"]["embedding"][BOS] += 0.5  # a start that Marian has in the first position
    state = to_state(config, params, 32)
    save_file(state, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    again = theirs(tmp_path / "model", source, target)
    assert difference(np.asarray(found["logits"]), np.asarray(again["logits"])) > 0.01
    import_marian(tmp_path / "model", tmp_path / "other")
    assert difference(_ours(tmp_path / "other", source, target), np.asarray(again["logits"])) < SAME


def _ours(run: Path, source: list[int], target: list[int]) -> np.ndarray:
    """Our logits in Marian's order."""
    config = read_config(run)
    size = config.model.vocab_size
    ours = dict(enumerate(order_of_ids(size).tolist()))
    batch = {
        "inputs": np.asarray([[ours[n] for n in source]]),
        "targets": np.asarray([[*(ours[n] for n in target[1:]), EOS]]),
    }
    return tiny.logits(config, load_params(run, "last"), batch)[0][:, order_of_ids(size)]
