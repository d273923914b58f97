"""ROWS: the named ablations, each a row of data: dotted paths and values.

A row that depends on the base is a function of the base's config.
"""

ROWS = {"base": {}, "no_wo": {"model.attention.output_projection": "none"}}
