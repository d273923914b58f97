"""PyTorch's models, trained on request; in an environment of their own, without anything of ours.

    python training.py DIRECTORY     model.json, weights.npz, bucketed.npz and padded.npz lie there

It first writes a line of JSON with the versions and the peers that are there, then answers each line on standard input:
{"peer": ..., "batches": "bucketed" | "padded", "steps": n} by {"seconds": ...} of one step on each of the first n of
these batches, or of all;
{"peer": ..., "look": true} by {"parameters": ..., "loss": ...}, the loss of the first batch without dropout, which is
null where the peer cannot have our weights.
"""

import functools
import importlib.metadata
import json
import sys
import time
from pathlib import Path

import numpy as np

THREADS = 2
PAD = 0
OURS = ("torch", "torch_compiled")
"""Peers that compute what we do, with our weights."""


def load_batches(path):
    with np.load(path) as arrays:
        count = len(arrays.files) // 2
        return [{side: arrays[f"{side}_{n}"] for side in ("inputs", "targets")} for n in range(count)]


def make_model(peer, config):
    import torch_models

    if peer in OURS:
        if "num_classes" in config:
            return torch_models.Vision(config)
        return (torch_models.DecoderOnly if "num_layers" in config else torch_models.EncoderDecoder)(config)
    if "num_classes" in config:
        return {"nn_transformer": torch_models.NnVision, "x_transformers": torch_models.XVision}[peer](config)
    return {"nn_transformer": torch_models.NnTransformer, "x_transformers": torch_models.XTransformer}[peer](config)


def load_weights(model, path):
    """Ours are [layer, in, heads, width] where PyTorch has [heads width, in] in each layer."""
    import torch

    state = {}

    def put(name, array):
        *of, leaf = name.split("/")
        last = of[-1] if of else ""
        if leaf == "kernel":
            array = array.reshape(-1, array.shape[-1]) if last == "out" else array.reshape(len(array), -1)
            array = array.T
        leaf = {"kernel": "weight", "scale": "weight", "embedding": "weight"}.get(leaf, leaf)
        if last == "positions":
            leaf = "embedding"
        state[".".join([*of, leaf])] = torch.from_numpy(np.ascontiguousarray(array))

    with np.load(path) as weights:
        for name in weights.files:
            before, layers, after = name.partition("layers/")
            if layers:
                for number, array in enumerate(weights[name]):
                    put(f"{before}layers/{number}/{after}", array)
            else:
                put(name, weights[name])
    model.load_state_dict(state)


class Trainer:
    """A model in training, and its optimizer."""

    def __init__(self, peer, directory):
        import torch

        torch.manual_seed(0)
        self.config = json.loads((directory / "model.json").read_text())
        self.model = make_model(peer, self.config)
        self.nothing = -1 if "num_classes" in self.config else PAD
        if peer in OURS:
            load_weights(self.model, directory / "weights.npz")
        numbers = {"betas": (self.config["beta_1"], self.config["beta_2"]), "eps": self.config["epsilon"]}
        numbers |= {"lr": 1e-4, "weight_decay": self.config["weight_decay"], "fused": True}
        make = torch.optim.AdamW if self.config["optimizer"] == "adamw" else torch.optim.Adam
        self.optimizer = make(self.model.parameters(), **numbers)
        self.losses = {"bucketed": self.loss, "padded": self.loss}
        if peer.endswith("_compiled"):
            # As fast as it can be: each shape of the classes by itself, all lengths of the others at once.
            self.losses = {
                name: torch.compile(self.loss, dynamic=name == "padded", fullgraph=True) for name in self.losses
            }

    def loss(self, inputs, targets):
        from torch.nn import functional

        logits = self.model(inputs, targets)
        smoothing = self.config["label_smoothing"]
        options = {"ignore_index": self.nothing, "label_smoothing": smoothing, "reduction": "sum"}
        return functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.flatten(), **options)

    def tensors(self, batch):
        import torch

        inputs, targets = (torch.from_numpy(batch[side]) for side in ("inputs", "targets"))
        return inputs if inputs.dtype == torch.uint8 else inputs.long(), targets.long()

    def train(self, batches, name):
        import torch

        self.model.train()
        started = time.perf_counter()
        for batch in batches:
            inputs, targets = self.tensors(batch)
            loss = self.losses[name](inputs, targets) / (targets != self.nothing).sum()
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if self.config["clip_norm"] is not None:
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config["clip_norm"])
            self.optimizer.step()
        return time.perf_counter() - started, loss.item()

    def look(self, batch):
        import torch

        self.model.eval()
        with torch.no_grad():
            return self.loss(*self.tensors(batch)).item()


def main(directory):
    versions, peers = {}, []
    try:
        import torch

        torch.set_num_threads(THREADS)
        torch._dynamo.config.cache_size_limit = 64
        versions["torch"] = torch.__version__
        peers += [*OURS, "nn_transformer"]
        import x_transformers  # noqa: F401

        versions["x-transformers"] = importlib.metadata.version("x-transformers")
        peers.append("x_transformers")
    except ImportError as error:
        print(error, file=sys.stderr)
    print(json.dumps({"versions": versions, "peers": peers}), flush=True)
    trainer = functools.cache(lambda peer: Trainer(peer, directory))
    batches = functools.cache(lambda name: load_batches(directory / f"{name}.npz"))
    for line in sys.stdin:
        asked = json.loads(line)
        of_peer = trainer(asked["peer"])
        if "look" in asked:
            parameters = sum(parameter.numel() for parameter in of_peer.model.parameters())
            loss = of_peer.look(batches("bucketed")[0]) if asked["peer"] in OURS else None
            print(json.dumps({"parameters": parameters, "loss": loss}), flush=True)
            continue
        seconds, loss = of_peer.train(batches(asked["batches"])[: asked.get("steps")], asked["batches"])
        print(json.dumps({"seconds": seconds, "loss": loss}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
