"""The page on which one sees which word looks at which: pictures of all heads, one of them enlarged."""

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from transformer_jax.report.templates import TEMPLATES, embedded

TITLES = {
    "encoder": "The encoder looks at the source",
    "decoder": "The decoder looks at what it has written",
    "cross": "The decoder looks at the source",
}
ALONE = "The model looks at its own tokens"


def attention_page(content: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """The page of the content of attention.json and the arrays that it names."""
    examples = [
        {
            "name": example["name"],
            "sites": [
                {
                    **{name: site[name] for name in ("site", "queries", "keys", "predicts", "layers", "heads")},
                    "title": TITLES.get(site["site"], ALONE) if len(example["sites"]) > 1 else ALONE,
                    **packed(arrays[site["weights"]]),
                }
                for site in example["sites"]
            ],
        }
        for example in content["examples"]
    ]
    facts = {"run": content["run"], "checkpoint": content["checkpoint"], "model": content["family"]}
    return TEMPLATES.get_template("attention.html").render(facts=facts, data=embedded({"examples": examples}))


def packed(array: np.ndarray) -> dict[str, Any]:
    """An array in bytes: value = low + byte (high - low) / 255, with 0 and 1 in between where it is of weights."""
    low, high = min(float(array.min(initial=0.0)), 0.0), max(float(array.max(initial=1.0)), 1.0)
    levels = np.round((array - low) * (255 / (high - low))).astype(np.uint8)
    return {"low": low, "high": high, "levels": base64.b64encode(levels.tobytes()).decode()}
