"""Hugging Face's Marian and CTranslate2, timed on request; in an environment of their own, without anything of ours.

    python decoding.py DIRECTORY     config.json, weights.npz and sources.json lie there

It first writes a line of JSON with the versions of what is there, then answers each line of JSON on standard input:
{"peer": ..., "beam": ..., "batch": ..., "examples": ..., "extra": ..., "alpha": ...} by
{"seconds": ..., "outputs": ...}, and {"logits": [[source], [target]]} by the logits of Marian.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

THREADS = 2
PAD, BOS, EOS = 0, 2, 3


def marian(directory: Path):
    import torch
    from transformers import MarianConfig, MarianMTModel

    torch.set_num_threads(THREADS)
    config = json.loads((directory / "config.json").read_text())
    epsilon = config.pop("norm_epsilon")
    model = MarianMTModel(MarianConfig(**config)).eval()
    with np.load(directory / "weights.npz") as weights:
        state = {name: torch.from_numpy(weights[name]) for name in weights.files}
    missing, unexpected = model.load_state_dict(state, strict=False)
    tied = ("embed_tokens.weight", "embed_positions.weight", "lm_head.weight")
    assert not unexpected, unexpected
    assert all(name.endswith(tied) for name in missing), missing
    model.tie_weights()
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = epsilon
    return model


def generate(model, sources, beam, batch, extra, alpha):
    import torch

    outputs = []
    with torch.inference_mode():
        for start in range(0, len(sources), batch):
            rows = sources[start : start + batch]
            width = max(map(len, rows))
            ids = torch.tensor([row + [PAD] * (width - len(row)) for row in rows])
            options = {"num_beams": beam, "do_sample": False, "suppress_tokens": [PAD]}
            if beam > 1:
                options |= {"length_penalty": alpha}
            written = model.generate(ids, attention_mask=ids != PAD, max_new_tokens=width + extra, **options)
            outputs += [[token for token in row[1:] if token != PAD] for row in written.tolist()]
    return outputs


def ctranslate2_model(model, epsilon: float):
    import ctranslate2
    from ctranslate2.converters.transformers import BartLoader

    model.config.normalize_before = model.config.normalize_embedding = False
    spec = BartLoader().get_model_spec(model)
    tokens = [f"t{n}" for n in range(model.config.vocab_size)]
    spec.register_source_vocabulary(tokens)
    spec.register_target_vocabulary(tokens)
    spec.config.bos_token, spec.config.eos_token, spec.config.unk_token = f"t{BOS}", f"t{EOS}", "t1"
    spec.config.decoder_start_token, spec.config.layer_norm_epsilon = f"t{BOS}", epsilon
    spec.config.add_source_eos = False
    spec.validate()
    with tempfile.TemporaryDirectory() as folder:
        spec.save(folder)
        return ctranslate2.Translator(folder, "cpu", compute_type="float32", inter_threads=1, intra_threads=THREADS)


def translate(translator, sources, beam, batch, extra, alpha):
    rows = [[f"t{token}" for token in row] for row in sources]
    outputs = []
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        longest = max(map(len, part)) + extra
        results = translator.translate_batch(
            part, beam_size=beam, length_penalty=alpha, max_decoding_length=longest, suppress_sequences=[[f"t{PAD}"]]
        )
        outputs += [[int(token[1:]) for token in result.hypotheses[0]] for result in results]
    return outputs


def main(directory: Path) -> None:
    versions, models = {}, {}
    try:
        import torch
        import transformers

        models["marian"] = marian(directory)
        versions |= {"torch": torch.__version__, "transformers": transformers.__version__}
        import ctranslate2

        epsilon = json.loads((directory / "config.json").read_text())["norm_epsilon"]
        models["ctranslate2"] = ctranslate2_model(models["marian"], epsilon)
        versions["ctranslate2"] = ctranslate2.__version__
    except ImportError as error:
        print(error, file=sys.stderr)
    print(json.dumps({"versions": versions, "peers": list(models)}), flush=True)
    sources = sorted(json.loads((directory / "sources.json").read_text()), key=len)
    for line in sys.stdin:
        asked = json.loads(line)
        if "logits" in asked:
            import torch

            source, target = (torch.tensor([ids]) for ids in asked["logits"])
            with torch.inference_mode():
                logits = models["marian"](input_ids=source, decoder_input_ids=target).logits
            print(json.dumps({"logits": logits[0].tolist()}), flush=True)
            continue
        decode = generate if asked["peer"] == "marian" else translate
        chosen = sources[:: max(len(sources) // asked["examples"], 1)]
        started = time.perf_counter()
        outputs = decode(models[asked["peer"]], chosen, asked["beam"], asked["batch"], asked["extra"], asked["alpha"])
        seconds = time.perf_counter() - started
        print(json.dumps({"seconds": seconds, "sources": chosen, "outputs": outputs}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
