"""Translation sets of TensorFlow Datasets."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from transformer_jax.config import DataConfig
from transformer_jax.data.corpus import TextSplit
from transformer_jax.data.pairs import PairSource
from transformer_jax.data.parallel_text import check_languages
from transformer_jax.data.tfds_set import TfdsSet, examples_of, saying
from transformer_jax.errors import UserError

VARIABLE_KEYS = {"language", "translation"}  # of the feature TranslationVariableLanguages


@dataclasses.dataclass(frozen=True)
class Tfds(TfdsSet, PairSource):
    """``tfds(builder="ted_hrlr_translate/az_to_en")``. Options as for `TfdsSet`."""

    entry: ClassVar[str] = "tfds"
    example: ClassVar[str] = "ted_hrlr_translate/az_to_en"

    def check(self, config: DataConfig) -> None:
        """The two languages must differ, and something must say which set is meant."""
        super().check(config)
        check_languages(config)
        self.check_named(config)

    def read(self, config: DataConfig) -> dict[str, TextSplit]:
        """Reads every split whole."""
        builder, names = self.open(config)
        return {name: _read_split(builder, spec, config) for name, spec in names.items()}


def _read_split(builder: Any, spec: str, config: DataConfig) -> TextSplit:
    # Examples of sets with many languages each say which ones they are in, and may lack ours.
    may_lack = "TranslationVariableLanguages" in repr(builder.info.features)
    split = TextSplit([], [])
    for index, example in enumerate(examples_of(builder, spec)):
        with saying(f"{builder.data_dir}: example {index} of {spec!r} cannot be read"):
            texts = _translations(example)
        missing = {config.source_language, config.target_language} - texts.keys()
        if not missing:
            split.sources.append(texts[config.source_language])
            split.references.append(texts[config.target_language])
        elif not may_lack:
            raise UserError(
                f"data.source: {builder.info.full_name} has no language {missing.pop()!r}, only "
                f"{', '.join(sorted(texts)) or 'features that are no translations'}; see data.source_language and "
                "data.target_language."
            )
    return split


def _translations(example: Mapping[str, Any]) -> dict[str, str]:
    """Language -> sentence, for Translation and TranslationVariableLanguages, at top level or one below."""
    for feature in (example, *(value for value in example.values() if isinstance(value, Mapping))):
        if feature.keys() >= VARIABLE_KEYS:
            # The first of several translations into a language counts: later entries of a dict win, hence reversed.
            pairs = list(zip(feature["language"], feature["translation"], strict=True))
            return {_decode(language): _sentence(text) for language, text in reversed(pairs)}
        texts = {name: text for name, text in feature.items() if isinstance(text, (bytes, str))}
        if len(texts) > 1:
            return {name: _sentence(text) for name, text in texts.items()}
    return {}


def _decode(text: bytes | str) -> str:
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else text


def _sentence(text: bytes | str) -> str:
    """Without outer blanks, and in one line: predictions and references are files of lines."""
    return " ".join(part.strip() for part in _decode(text).split("\n")).strip()
