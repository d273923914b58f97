"""The models of the training benchmark in PyTorch, as its users write them.

`EncoderDecoder`, `DecoderOnly` and `Vision` compute what ours do, under our names of parameters, so that they can have
our weights. `NnTransformer` and `NnVision` are made of PyTorch's own layers, `XTransformer` and `XVision` are
x-transformers' models: of the same sizes, with a few more parameters (biases, norms at the end of a stack).
"""

import math

import torch
from torch import nn
from torch.nn import functional

PAD, BOS = 0, 2


def shift_right(targets):
    return functional.pad(targets[:, :-1], (1, 0), value=BOS)


def can_attend(ids):
    """bool[B, 1, 1, S]: not to padding; places without an example attend to all, else there were no number."""
    real = ids != PAD
    return (real | ~real.any(1, keepdim=True))[:, None, None]


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads, width = config["num_heads"], config["num_heads"] * config["d_k"]
        self.query, self.key, self.value = (nn.Linear(config["d_model"], width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, config["d_model"], bias=False)

    def forward(self, x, memory, mask=None, causal=False):
        parts = (self.query(x), self.key(memory), self.value(memory))
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        heads = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        return self.out(heads.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.activation = getattr(functional, config["feed_forward"])
        self.linear_1 = nn.Linear(config["d_model"], config["d_ff"])
        self.linear_2 = nn.Linear(config["d_ff"], config["d_model"])

    def forward(self, x):
        return self.linear_2(self.activation(self.linear_1(x)))


class AddNorm(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.pre_norm = config["residual"] == "pre_norm"
        self.norm = nn.LayerNorm(config["d_model"], config["norm_epsilon"])
        self.dropout = nn.Dropout(config["dropout_rate"])

    def forward(self, x, sublayer):
        if self.pre_norm:
            return x + self.dropout(sublayer(self.norm(x)))
        return self.norm(x + self.dropout(sublayer(x)))


class Layer(nn.Module):
    def __init__(self, config, cross):
        super().__init__()
        self.self_attention, self.add_norm_1 = Attention(config), AddNorm(config)
        self.feed_forward, self.add_norm_2 = FeedForward(config), AddNorm(config)
        self.cross = cross
        if cross:
            self.cross_attention, self.add_norm_3 = Attention(config), AddNorm(config)

    def forward(self, x, mask, causal, encoded, source_mask):
        x = self.add_norm_1(x, lambda x: self.self_attention(x, x, mask, causal))
        if not self.cross:
            return self.add_norm_2(x, self.feed_forward)
        x = self.add_norm_2(x, lambda x: self.cross_attention(x, encoded, source_mask))
        return self.add_norm_3(x, self.feed_forward)


class Learned(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embedding = nn.Parameter(torch.zeros(config["max_length"], config["d_model"]))

    def forward(self, length):
        return self.embedding[:length]


class Sinusoids(nn.Module):
    def __init__(self, config):
        super().__init__()
        d_model = config["d_model"]
        frequencies = torch.exp(-math.log(10000.0) / d_model * torch.arange(0, d_model, 2))
        angles = torch.arange(config["max_length"])[:, None] * frequencies
        table = torch.stack([angles.sin(), angles.cos()], -1).flatten(1)
        self.register_buffer("table", table, persistent=False)

    def forward(self, length):
        return self.table[:length]


class Stack(nn.Module):
    def __init__(self, config, depth, cross=False):
        super().__init__()
        self.positions = (Sinusoids if config["positions"] == "sinusoidal" else Learned)(config)
        self.dropout = nn.Dropout(config["dropout_rate"])
        self.layers = nn.ModuleList(Layer(config, cross) for _ in range(depth))
        pre_norm = config["residual"] == "pre_norm"
        self.norm = nn.LayerNorm(config["d_model"], config["norm_epsilon"]) if pre_norm else nn.Identity()

    def forward(self, x, mask=None, causal=False, encoded=None, source_mask=None):
        x = self.dropout(x + self.positions(x.shape[1]))
        for layer in self.layers:
            x = layer(x, mask, causal, encoded, source_mask)
        return self.norm(x)


class EncoderDecoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.source_embedding = nn.Embedding(config["vocab_size"], config["d_model"])
        self.embedding_scale = config["embedding_scale"]
        self.encoder = Stack(config, config["num_encoder_layers"])
        self.decoder = Stack(config, config["num_decoder_layers"], cross=True)

    def embed(self, ids):
        return self.source_embedding(ids) * self.embedding_scale

    def forward(self, inputs, targets):
        source_mask = can_attend(inputs)
        encoded = self.encoder(self.embed(inputs), source_mask)
        # Padding stands behind the targets: the causal mask hides it.
        x = self.decoder(self.embed(shift_right(targets)), None, True, encoded, source_mask)
        return functional.linear(x, self.source_embedding.weight)


class DecoderOnly(Stack):
    def __init__(self, config):
        super().__init__(config, config["num_layers"])
        self.embedding = nn.Embedding(config["vocab_size"], config["d_model"])
        self.embedding_scale = config["embedding_scale"]

    def forward(self, inputs, targets):
        x = super().forward(self.embedding(inputs) * self.embedding_scale, None, True)
        return functional.linear(x, self.embedding.weight)


def patches(images, size):
    """[B, T, pixels of a patch], from -1 to 1, of [B, height, width, channels] from 0 to 255."""
    x = images.float() / 127.5 - 1.0
    return x.unflatten(1, (-1, size)).unflatten(3, (-1, size)).transpose(2, 3).flatten(3).flatten(1, 2)


class PatchEmbedding(nn.Module):
    """The patches behind the token of which the class is read."""

    def __init__(self, config):
        super().__init__()
        self.size = config["patch_size"]
        self.patch_embedding = nn.Linear(self.size**2 * config["image_channels"], config["d_model"])
        self.class_token = nn.Parameter(torch.zeros(config["d_model"]))
        self.classifier = nn.Linear(config["d_model"], config["num_classes"])

    def embed(self, images):
        x = self.patch_embedding(patches(images, self.size))
        return torch.cat([self.class_token.expand(len(x), 1, -1), x], 1)


class Vision(PatchEmbedding):
    def __init__(self, config):
        super().__init__(config)
        stack = Stack(config, config["num_layers"])
        self.positions, self.dropout, self.layers, self.norm = stack.positions, stack.dropout, stack.layers, stack.norm

    def forward(self, images, labels):
        return self.classifier(Stack.forward(self, self.embed(images))[:, 0])


class NnVision(PatchEmbedding):
    def __init__(self, config):
        super().__init__(config)
        self.positions = (Sinusoids if config["positions"] == "sinusoidal" else Learned)(config)
        self.dropout = nn.Dropout(config["dropout_rate"])
        layer = nn.TransformerEncoderLayer(config["d_model"], config["num_heads"], **layer_options(config))
        norm = nn.LayerNorm(config["d_model"])
        self.stack = nn.TransformerEncoder(layer, config["num_layers"], norm, enable_nested_tensor=False)

    def forward(self, images, labels):
        x = self.embed(images)
        return self.classifier(self.stack(self.dropout(x + self.positions(x.shape[1])))[:, 0])


class XVision(PatchEmbedding):
    def __init__(self, config):
        super().__init__(config)
        from x_transformers import Encoder

        self.positions = (Sinusoids if config["positions"] == "sinusoidal" else Learned)(config)
        self.dropout = nn.Dropout(config["dropout_rate"])
        self.encoder = Encoder(depth=config["num_layers"], **x_options(config))

    def forward(self, images, labels):
        x = self.embed(images)
        return self.classifier(self.encoder(self.dropout(x + self.positions(x.shape[1])))[:, 0])


def layer_options(config):
    return {
        "dim_feedforward": config["d_ff"],
        "dropout": config["dropout_rate"],
        "activation": config["feed_forward"],
        "layer_norm_eps": config["norm_epsilon"],
        "batch_first": True,
        "norm_first": config["residual"] == "pre_norm",
    }


def x_options(config):
    return {
        "dim": config["d_model"],
        "heads": config["num_heads"],
        "attn_dim_head": config["d_k"],
        "ff_mult": config["d_ff"] / config["d_model"],
        "pre_norm": config["residual"] == "pre_norm",
        "attn_flash": True,
        "ff_dropout": config["dropout_rate"],
    }


class NnTransformer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embedding = nn.Embedding(config["vocab_size"], config["d_model"])
        self.embedding_scale = config["embedding_scale"]
        self.positions = (Sinusoids if config["positions"] == "sinusoidal" else Learned)(config)
        self.dropout = nn.Dropout(config["dropout_rate"])
        options = layer_options(config)
        sizes = config["d_model"], config["num_heads"]
        self.writes = "num_layers" in config
        if self.writes:
            layer = nn.TransformerEncoderLayer(*sizes, **options)
            self.stack = nn.TransformerEncoder(layer, config["num_layers"], nn.LayerNorm(config["d_model"]))
        else:
            self.stack = nn.Transformer(*sizes, config["num_encoder_layers"], config["num_decoder_layers"], **options)

    def embed(self, ids):
        return self.dropout(self.embedding(ids) * self.embedding_scale + self.positions(ids.shape[1]))

    def forward(self, inputs, targets):
        causal = nn.Transformer.generate_square_subsequent_mask(targets.shape[1], dtype=torch.bool)
        if self.writes:
            x = self.stack(self.embed(inputs), mask=causal, is_causal=True)
        else:
            padding = ~can_attend(inputs)[:, 0, 0]
            x = self.stack(
                self.embed(inputs), self.embed(shift_right(targets)), tgt_mask=causal, tgt_is_causal=True,
                src_key_padding_mask=padding, memory_key_padding_mask=padding,
            )  # fmt: skip
        return functional.linear(x, self.embedding.weight)


class XTransformer(nn.Module):
    def __init__(self, config):
        super().__init__()
        from x_transformers import Decoder, Encoder, TransformerWrapper

        options = x_options(config)
        wrapper = {
            "num_tokens": config["vocab_size"],
            "max_seq_len": config["max_length"],
            "emb_dropout": config["dropout_rate"],
            "tie_embedding": True,
            "scaled_sinu_pos_emb": config["positions"] == "sinusoidal",
        }
        self.encoder = None
        if "num_layers" in config:
            self.decoder = TransformerWrapper(attn_layers=Decoder(depth=config["num_layers"], **options), **wrapper)
            return
        encoder = Encoder(depth=config["num_encoder_layers"], **options)
        decoder = Decoder(depth=config["num_decoder_layers"], cross_attend=True, **options)
        self.encoder = TransformerWrapper(attn_layers=encoder, **{**wrapper, "tie_embedding": False})
        self.decoder = TransformerWrapper(attn_layers=decoder, **wrapper)
        self.encoder.token_emb = self.decoder.token_emb

    def forward(self, inputs, targets):
        if self.encoder is None:
            return self.decoder(inputs)
        mask = can_attend(inputs)[:, 0, 0]
        encoded = self.encoder(inputs, mask=mask, return_embeddings=True)
        return self.decoder(shift_right(targets), context=encoded, context_mask=mask)
