"""How pages are made: HTML files that need nothing else."""

from typing import Any

import jinja2
from markupsafe import Markup

from transformer_jax.strict_json import to_json

TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("transformer_jax.report", ""),
    autoescape=True,  # every text of a run directory may hold markup
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def embedded(content: Any) -> Markup:
    """JSON inside of a <script>: none of its texts can end the element."""
    text = to_json(content, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
