"""Which word looks at which: the weights that are written are those of the model, the numbers what they are called."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
import tiny_run
from safetensors.numpy import load_file

from transformer_jax import cli
from transformer_jax.data import TokenizerPair
from transformer_jax.data.tokenizer import SymbolTokenizer
from transformer_jax.errors import UserError
from transformer_jax.export import export
from transformer_jax.inspection.alignment import Gold, error_rate, links_of, read_gold, words_of
from transformer_jax.inspection.attention import inspect_attention
from transformer_jax.inspection.chosen import Choice
from transformer_jax.inspection.figures import attention_figures
from transformer_jax.inspection.sites import at, sites_of, tokens_at
from transformer_jax.models.build import build_model
from transformer_jax.models.weights import WEIGHTS
from transformer_jax.report.attention import attention_page

pytestmark = pytest.mark.usefixtures("opened_once")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


@pytest.fixture(scope="module")
def looked(tmp_path_factory):
    """Family -> what is written of the third example of its run, and the arrays."""
    found = {}
    for family in ("transformer", "decoder_only", "vision"):
        directory = tmp_path_factory.mktemp(family)
        choice = Choice(split="valid", first=2)
        content = inspect_attention(tiny_run.finished(family), choice, scores=True, output=directory)
        found[family] = content, dict(np.load(directory / "attention.npz"))
    return found


# --- The arrays ---


def softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def layer_norm(x: np.ndarray, tensors: dict, name: str) -> np.ndarray:
    normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return normal * tensors[f"{name}.norm.scale"][0] + tensors[f"{name}.norm.bias"][0]


def sinusoids(length: int, size: int) -> np.ndarray:
    angles = np.arange(length)[:, None] / 10000 ** (np.arange(0, size, 2) / size)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(length, size)


def attend(tensors: dict, name: str, x: np.ndarray, memory: np.ndarray, causal: bool = False) -> tuple:
    """Weights [H, T, S], and the output [T, D], of the only layer."""
    q, k, v = (
        np.einsum("td,dhk->htk", y, tensors[f"{name}.{part}.kernel"][0])
        for part, y in (("query", x), ("key", memory), ("value", memory))
    )
    scores = q @ np.swapaxes(k, 1, 2) / np.sqrt(q.shape[-1])
    if causal:
        scores = np.where(np.tri(len(x), len(memory), dtype=bool), scores, -np.inf)
    weights = softmax(scores)
    return weights, np.einsum("htv,hvd->td", weights @ v, tensors[f"{name}.out.kernel"][0])


def embedded(table: np.ndarray, ids: list[int]) -> np.ndarray:
    return table[ids] * np.sqrt(table.shape[1]) + sinusoids(len(ids), table.shape[1])


def ids_of(names: list[str], assets: TokenizerPair) -> list[int]:
    specials = {"<bos>": 2, "<eos>": 3}
    return [specials[name] if name in specials else 4 + assets.target.pieces.index(name) for name in names]


def test_the_weights_of_an_encoder_decoder_are_those_that_numpy_makes_of_the_exported_parameters(looked, tmp_path):
    content, arrays = looked["transformer"]
    run = tiny_run.finished()
    export(run, tmp_path / "model.safetensors")
    tensors = load_file(tmp_path / "model.safetensors")
    sites = {site["site"]: site for site in content["examples"][0]["sites"]}
    assets = TokenizerPair.load(run / "tokenizer")
    read, written = (ids_of(sites["cross"][side], assets) for side in ("keys", "queries"))
    table = tensors["source_embedding.embedding"]
    x = embedded(table, read)
    layer = "encoder.layers"
    expected, update = attend(tensors, f"{layer}.self_attention", x, x)
    np.testing.assert_allclose(arrays["0.encoder.weights"][0], expected, atol=2e-6)
    x = layer_norm(x + update, tensors, f"{layer}.add_norm_1")
    first, second = (
        {part: tensors[f"{layer}.feed_forward.{name}.{part}"][0] for part in ("kernel", "bias")}
        for name in sorted({name.split(".")[3] for name in tensors if name.startswith(f"{layer}.feed_forward.")})
    )
    inner = np.maximum(x @ first["kernel"] + first["bias"], 0)
    x = layer_norm(x + inner @ second["kernel"] + second["bias"], tensors, f"{layer}.add_norm_2")
    y = embedded(table, written)
    expected, update = attend(tensors, "decoder.layers.self_attention", y, y, causal=True)
    np.testing.assert_allclose(arrays["0.decoder.weights"][0], expected, atol=2e-6)
    y = layer_norm(y + update, tensors, "decoder.layers.add_norm_1")
    expected, _ = attend(tensors, "decoder.layers.cross_attention", y, x)
    np.testing.assert_allclose(arrays["0.cross.weights"][0], expected, atol=2e-6)
    assert np.abs(expected - 1 / len(read)).max() > 0.01  # it is not all the same


def test_the_weights_of_a_decoder_alone_too(looked, tmp_path):
    content, arrays = looked["decoder_only"]
    run = tiny_run.finished("decoder_only")
    export(run, tmp_path / "model.safetensors")
    tensors = load_file(tmp_path / "model.safetensors")
    (site,) = content["examples"][0]["sites"]
    x = embedded(tensors["embedding.embedding"], ids_of(site["keys"], TokenizerPair.load(run / "tokenizer")))
    expected, _ = attend(tensors, "layers.self_attention", x, x, causal=True)
    np.testing.assert_allclose(arrays["0.decoder.weights"][0], expected, atol=2e-6)
    assert site["predicts"][:-1] == site["keys"][1:]


def test_patches_are_named_by_their_place(looked):
    content, arrays = looked["vision"]
    (site,) = content["examples"][0]["sites"]
    assert arrays["0.encoder.weights"].shape == (1, 2, 7, 7)
    assert site["keys"] == site["queries"] == ["class", "1,1", "1,2", "2,1", "2,2", "3,1", "3,2"]
    np.testing.assert_allclose(arrays["0.encoder.weights"].sum(-1), 1, rtol=1e-5)


SUMS = {
    "softmax": (1, 1), "sparsemax": (1, 1), "uniform": (1, 1), "proportional": (0, 1), "softmax_off_by_one": (0, 1),
    "sigmoid": (0, np.inf), "talking_heads": (-np.inf, np.inf),
}  # fmt: skip
"""The least and the most that the weights of a query may sum to."""


@pytest.mark.parametrize("weights", WEIGHTS)
def test_the_rows_of_every_site_sum_to_what_the_slot_says(weights):
    config = tiny.config({"model.attention.weights": weights, "model.attention.cross.weights": "softmax"})
    model, sites = build_model(config.model), sites_of(config)
    assert {place: site[1:] for place, site in sites.items()} == {"encoder": (1, 2), "decoder": (2, 2), "cross": (2, 2)}
    batch = jax.tree.map(jax.numpy.asarray, tiny.batch(rows=1))
    with jax.disable_jit():
        _, seen = model.look(tiny.params(config), batch)
    for place, site in sites.items():
        low, high = SUMS["softmax" if place == "cross" else weights]
        asks = np.asarray(tokens_at(config.model, place, batch)[0].segments) != 0
        sums = np.moveaxis(np.asarray(at(site, "weights", seen)).sum(-1), 3, 2)[:, asks]
        assert low - 1e-5 <= sums.min() <= sums.max() <= high + 1e-5
        scores, drawn = (np.asarray(at(site, name, seen)) for name in ("scores", "weights"))
        assert scores.shape == drawn.shape
        assert not np.array_equal(scores, drawn)


def test_a_model_without_attention_is_refused_in_a_sentence():
    config = tiny.config({**tiny.of_family("vision"), "model.mixing": "convolution"})
    with pytest.raises(UserError, match="model.family = 'vision': this model has no attention"):
        sites_of(config)


def test_who_does_not_ask_runs_the_same_program(monkeypatch):
    """The jaxpr of a step is that of a model which has nothing to tell and takes no factors of heads."""
    import flax.linen as nn

    config = tiny.config()

    def program() -> str:
        measured = jax.value_and_grad(
            lambda params: tiny.totals(config, params, tiny.batch(), jax.random.key(0))["loss"][0]
        )
        return str(jax.make_jaxpr(measured)(tiny.params(config)))

    as_it_is = program()
    monkeypatch.setattr(nn.Module, "sow", lambda *arguments, **how: True)
    monkeypatch.setattr("transformer_jax.models.attention.MultiHeadAttention._scaled", lambda self, heads: heads)
    assert program() == as_it_is
    assert len(as_it_is) > 10_000


# --- What one asks for ---


def test_a_sentence_and_what_the_model_makes_of_it(tmp_path):
    run = tiny_run.finished()
    content = inspect_attention(run, Choice(text="1 0 2"), layers=[0], heads=[1], output=tmp_path)
    sites = {site["site"]: site for site in content["examples"][0]["sites"]}
    assert sites["encoder"]["keys"] == ["1", "0", "2", "<eos>"]
    assert sites["cross"]["queries"][0] == "<bos>"
    assert sites["cross"]["predicts"][:-1] == sites["cross"]["queries"][1:]
    assert sites["cross"]["heads"] == [1]
    arrays = np.load(tmp_path / "attention.npz")
    assert {name: list(arrays[name].shape) for name in arrays} == content["arrays"]
    assert content["arrays"]["0.encoder.weights"] == [1, 1, 4, 4]
    given = inspect_attention(run, Choice(text="1 0 2", target="2 0"), output=tmp_path)
    sites = {site["site"]: site for site in given["examples"][0]["sites"]}
    assert sites["decoder"]["queries"] == ["<bos>", "2", "0"]
    assert json.loads((tmp_path / "attention.json").read_text()) == {k: v for k, v in given.items() if k != "files"}
    with pytest.raises(UserError, match="--heads=2: the model has 2, counted from 0"):
        inspect_attention(run, Choice(text="1"), heads=[2], output=tmp_path)


def test_the_command(tmp_path, capsys):
    run = tiny_run.finished()
    (tmp_path / "in.txt").write_text("0 1\n2 3 4\n")
    files = [f"--source={tmp_path / 'in.txt'}", f"--reference={tmp_path / 'in.txt'}"]
    arguments = ["inspect", "attention", f"--workdir={run}", f"--output={tmp_path / 'out'}", *files]
    assert cli.main([*arguments, "--examples=5"]) == 0
    paths = capsys.readouterr().out.split()
    assert [Path(path).name for path in paths] == ["attention.npz", "attention.json", "attention.html"]
    assert [example["name"] for example in json.loads(Path(paths[1]).read_text())["examples"]] == [
        "in.txt 0",
        "in.txt 1",
    ]
    (tmp_path / "gold").write_text("0-0 1-1\n0-0 1p1\n")
    assert cli.main([*arguments, "--figures", f"--gold={tmp_path / 'gold'}"]) == 0
    output = capsys.readouterr().out
    assert re.search(r"^cross +0 +1 +\d\.\d{3}", output, re.MULTILINE)
    assert "alignment  layer 0, head 1: error rate 0." in output
    for wrong in (["--gold=g"], ["--target=1"], ["--figures", "--text=1"], ["--example=2"]):
        assert cli.main([*arguments, *wrong]) == 2


# --- Numbers over a split ---


def test_figures_are_what_they_are_called(tmp_path):
    """Against loops over the weights of every example."""
    run = tiny_run.finished()
    for name, lines in {"in": "0 1 2\n3 3 0\n1 0 1\n", "out": "2 1 0\n0 3\n1 0 0\n"}.items():
        (tmp_path / name).write_text(lines)
    choice = Choice(source=tmp_path / "in", reference=tmp_path / "out", count=20)
    content = attention_figures(run, choice, output=tmp_path)
    looked_at = inspect_attention(run, choice, output=tmp_path)
    arrays = np.load(tmp_path / "attention.npz")
    assert content["examples"] == len(looked_at["examples"])
    found = {name: [] for name in ("entropy", "confidence", "distance", "previous", "last", "eos", "similarity")}
    for number in range(content["examples"]):
        weights = arrays[f"{number}.cross.weights"][0]
        for query, row in enumerate(weights[1]):
            found["entropy"].append(-sum(w * np.log(w) for w in row if w > 0))
            found["confidence"].append(max(row))
            found["distance"].append(sum(w * abs(key - query) for key, w in enumerate(row)))
            found["previous"].append(row[query - 1] if 0 < query <= len(row) else 0)
            found["last"].append(row[-1])
            found["eos"].append(row[-1])
            other = weights[0][query]
            found["similarity"].append(row @ other / np.linalg.norm(row) / np.linalg.norm(other))
    (line,) = (line for line in content["figures"] if (line["site"], line["layer"], line["head"]) == ("cross", 0, 1))
    for name, values in found.items():
        assert line[name] == pytest.approx(np.mean(values), rel=1e-4, abs=1e-6), name


def test_figures_of_images(tmp_path):
    lines = attention_figures(tiny_run.finished("vision"), Choice(split="test"), output=tmp_path)["figures"]
    assert all(0 < line["entropy"] <= np.log(7) and line["eos"] == 0 for line in lines)


def test_alignment_error_rate(tmp_path):
    """Och and Ney: four links, of which two are sure and one more is possible; a sure one is missing."""
    (tmp_path / "gold").write_text("0-0 1-1 2-2 3?1\n")
    (gold,) = read_gold(tmp_path / "gold", 1)
    assert gold == Gold({(0, 0), (1, 1), (2, 2)}, {(0, 0), (1, 1), (2, 2), (3, 1)})
    found = error_rate([{(0, 0), (1, 1), (3, 1), (0, 2)}], [gold])
    assert found == {"aer": pytest.approx(1 - (2 + 3) / (4 + 3)), "precision": 0.75, "recall": pytest.approx(2 / 3)}
    for wrong, said in (("0-0\n0-0\n", "has 2 lines, but there are 1 pairs"), ("0-x\n", "line 1 holds '0-x'")):
        (tmp_path / "wrong").write_text(wrong)
        with pytest.raises(UserError, match=said):
            read_gold(tmp_path / "wrong", 1)


def test_links_of_words():
    letters = SymbolTokenizer("characters", [" ", "a", "b"])
    source = words_of([5, 5, 4, 6, 3], letters)
    assert source == [0, 0, 0, 1, None]  # "aa b", EOS
    assert links_of(np.asarray([3, 4, 1]), source, [0, 1, 2]) == {(1, 0), (0, 2)}  # EOS is no word


# --- The page ---


def page_of(layers: int, heads: int, size: int, token: str) -> str:
    rng, sites, arrays = np.random.default_rng(0), [], {}
    for name in ("encoder", "decoder", "cross"):
        arrays[name] = rng.dirichlet(np.full(size, 0.1), size=(layers, heads, size))
        tokens = [f"{token}{place}" for place in range(size)]
        numbers = {"layers": list(range(layers)), "heads": list(range(heads))}
        predicts = [] if name == "encoder" else tokens
        sites.append(
            {"site": name, "weights": name, "queries": tokens, "keys": tokens, "predicts": predicts, **numbers}
        )
    examples = [{"name": f"<i>{token}", "sites": sites}]
    return attention_page({"run": f"<b>{token}", "checkpoint": "last", "family": "x", "examples": examples}, arrays)


def test_the_page_of_a_large_model_is_small_and_drawn_without_a_network(tmp_path):
    page = page_of(6, 8, 40, "</script><img src=http://a.example/>")
    assert len(page) < 2 * 2**20
    assert not re.search(r"<(link|img|iframe|object)|\bsrc=[^h]|@import|url\(", page)
    assert page.count("</script>") == 2
    if BROWSER is None:
        pytest.skip("no browser is installed: apt-get install chromium")
    (tmp_path / "page.html").write_text(page)
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=500,900", "--dump-dom"]
    quiet = ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run([*command, *quiet, str(tmp_path / "page.html")], capture_output=True, text=True, timeout=120)
    assert done.stdout.count("<canvas") == 6 * 8
    assert len(re.findall(r"<text", done.stdout)) == 4 * 40
    assert 400 < done.stdout.count('class="positive"') < 2 * 1600
    assert "<img" not in done.stdout
