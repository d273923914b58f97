"""Hugging Face's Marian and CTranslate2, timed on request; in an environment of their own, without anything of ours.

    python decoding.py DIRECTORY     config.json, weights.npz, ours.json and sources.json lie there

Tokens have the numbers of the benchmark's model; ours.json says which of them each number of Marian's is.

It first writes a line of JSON with the versions of what is there, then answers each line of JSON on standard input:
{"peer": ..., "beam": ..., "batch": ..., "examples": ..., "extra": ..., "alpha": ...} by
{"seconds": ..., "outputs": ...}, and {"logits": [[source], [target]]} by the logits of Marian.
"""

import functools
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

THREADS = 2
BOS = 2
"""In the benchmark's numbers. Marian begins with its padding instead, which is its last."""


def marian(directory: Path, epsilon: float):
    import torch
    from transformers import MarianConfig, MarianMTModel

    torch.set_num_threads(THREADS)
    model = MarianMTModel(MarianConfig(**json.loads((directory / "config.json").read_text()))).eval()
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

    outputs, pad = [], model.config.pad_token_id
    with torch.inference_mode():
        for start in range(0, len(sources), batch):
            rows = sources[start : start + batch]
            width = max(map(len, rows))
            ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
            options = {"num_beams": beam, "do_sample": False, "suppress_tokens": [pad]}
            if beam > 1:
                options |= {"length_penalty": alpha}
            written = model.generate(ids, attention_mask=ids != pad, max_new_tokens=width + extra, **options)
            outputs += [[token for token in row[1:] if token != pad] for row in written.tolist()]
    return outputs


def ctranslate2_model(model, epsilon: float):
    import ctranslate2
    from ctranslate2.converters.transformers import BartLoader

    model.config.normalize_before = model.config.normalize_embedding = False
    spec = BartLoader().get_model_spec(model)
    tokens = [f"t{n}" for n in range(model.config.vocab_size)]
    spec.register_source_vocabulary(tokens)
    spec.register_target_vocabulary(tokens)
    start = f"t{model.config.decoder_start_token_id}"
    spec.config.bos_token, spec.config.eos_token, spec.config.unk_token = start, f"t{model.config.eos_token_id}", "t1"
    spec.config.decoder_start_token, spec.config.layer_norm_epsilon = start, epsilon
    spec.config.add_source_eos = False
    spec.validate()
    with tempfile.TemporaryDirectory() as folder:
        spec.save(folder)
        return ctranslate2.Translator(folder, "cpu", compute_type="float32", inter_threads=1, intra_threads=THREADS)


def translate(translator, pad, sources, beam, batch, extra, alpha):
    rows = [[f"t{token}" for token in row] for row in sources]
    outputs = []
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        longest = max(map(len, part)) + extra
        results = translator.translate_batch(
            part, beam_size=beam, length_penalty=alpha, max_decoding_length=longest, suppress_sequences=[[f"t{pad}"]]
        )
        outputs += [[int(token[1:]) for token in result.hypotheses[0]] for result in results]
    return outputs


def main(directory: Path) -> None:
    versions, writers = {}, {}
    ours = json.loads((directory / "ours.json").read_text())
    to_ours = ours["ids"]
    to_theirs = {token: number for number, token in enumerate(to_ours)} | {BOS: len(to_ours) - 1}
    try:
        import torch
        import transformers

        model = marian(directory, ours["norm_epsilon"])
        writers["marian"] = functools.partial(generate, model)
        versions |= {"torch": torch.__version__, "transformers": transformers.__version__}
        import ctranslate2

        translator = ctranslate2_model(model, ours["norm_epsilon"])
        writers["ctranslate2"] = functools.partial(translate, translator, model.config.pad_token_id)
        versions["ctranslate2"] = ctranslate2.__version__
    except ImportError as error:
        print(error, file=sys.stderr)
    print(json.dumps({"versions": versions, "peers": list(writers)}), flush=True)
    sources = sorted(json.loads((directory / "sources.json").read_text()), key=len)
    for line in sys.stdin:
        asked = json.loads(line)
        if "logits" in asked:
            import torch

            source, target = (torch.tensor([[to_theirs[token] for token in side]]) for side in asked["logits"])
            with torch.inference_mode():
                logits = model(input_ids=source, decoder_input_ids=target).logits
            print(json.dumps({"logits": logits[0].tolist()}), flush=True)
            continue
        write = writers[asked["peer"]]
        chosen = sources[:: max(len(sources) // asked["examples"], 1)]
        rows = [[to_theirs[token] for token in row] for row in chosen]
        started = time.perf_counter()
        written = write(rows, asked["beam"], asked["batch"], asked["extra"], asked["alpha"])
        seconds = time.perf_counter() - started
        outputs = [[to_ours[token] for token in row] for row in written]
        print(json.dumps({"seconds": seconds, "sources": chosen, "outputs": outputs}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
