"""TFDS sets built offline from local files, read without TensorFlow."""

import subprocess
import sys

import pytest

from transformer_jax.config import DataConfig
from transformer_jax.data import check, make_corpus
from transformer_jax.errors import UserError

tfds = pytest.importorskip("tensorflow_datasets", reason="the extra [tfds] is not installed")

EXAMPLES = {
    "train": [("ein Haus", "a house"), ("Straße 漢字", "street"), (" blank \n line ", "blank"), ("", "dropped")],
    "validation": [("zwei", "two")],
    "test": [("", "empty"), ("drei", "three")],
}


class LocalPairs(tfds.core.GeneratorBasedBuilder):
    """A plain translation set; the config "train_only" has no other split."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in ("de_en", "train_only")]  # noqa: RUF012

    def _info(self):
        features = tfds.features.Translation(languages=("de", "en"))
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        names = ["train"] if self.builder_config.name == "train_only" else EXAMPLES
        return {name: self._generate_examples(name) for name in names}

    def _generate_examples(self, name):
        yield from enumerate({"de": de, "en": en} for de, en in EXAMPLES[name])


class LocalTalks(tfds.core.GeneratorBasedBuilder):
    """Each example says which languages it has, one level down, as in ted_multi_translate."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = tfds.features.TranslationVariableLanguages(languages=("de", "en", "fr"))
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict({"talk": tfds.features.Text(), "translations": features})
        )

    def _split_generators(self, dl_manager):
        return {name: self._generate_examples() for name in ("train", "dev")}

    def _generate_examples(self):
        yield 0, {"talk": "t", "translations": {"de": "eins", "en": ["one", "One!"], "fr": "un"}}
        yield 1, {"talk": "t", "translations": {"de": "zwei", "fr": "deux"}}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tfds")
    builders = [LocalPairs(config="de_en", data_dir=directory, file_format="array_record")]
    builders += [LocalPairs(config="train_only", data_dir=directory, file_format="array_record")]
    builders += [LocalTalks(data_dir=directory, file_format="array_record")]
    for builder in builders:
        builder.download_and_prepare()
    return directory


def config(directory, source="tfds", languages=("de", "en")):
    source_language, target_language = languages
    return DataConfig(
        source=source, directory=str(directory), source_language=source_language, target_language=target_language
    )


def check_and_read(config):
    check(config)
    return make_corpus(config)


def pairs(split):
    return sorted(zip(split.sources, split.references, strict=True))


def test_prepared_directory(data_dir):
    corpus = make_corpus(config(data_dir / "local_pairs/de_en/1.0.0"))
    assert pairs(corpus.splits["train"]) == [
        ("Straße 漢字", "street"),
        ("blank line", "blank"),
        ("ein Haus", "a house"),
    ]
    assert corpus.dropped_empty == 1
    assert pairs(corpus.splits["valid"]) == [("zwei", "two")]
    assert pairs(corpus.splits["test"]) == [("", "empty"), ("drei", "three")]


def test_by_name_and_the_other_direction(data_dir):
    by_name = make_corpus(config(data_dir, 'tfds(builder="local_pairs/de_en")', ("en", "de")))
    assert pairs(by_name.splits["valid"]) == [("two", "zwei")]


def test_a_set_that_is_not_there_is_prepared(tmp_path):
    corpus = make_corpus(config(tmp_path, 'tfds(builder="local_pairs/de_en")'))
    assert len(corpus.splits["train"]) == 3


def test_variable_languages(data_dir):
    corpus = make_corpus(config(data_dir / "local_talks/1.0.0"))
    assert pairs(corpus.splits["train"]) == [("eins", "One!")]  # TFDS itself sorts several translations
    french = make_corpus(config(data_dir / "local_talks/1.0.0", languages=("de", "fr")))
    assert pairs(french.splits["valid"]) == [("eins", "un"), ("zwei", "deux")]


def test_splits_cut_from_train(data_dir):
    directory = data_dir / "local_pairs/train_only/1.0.0"
    with pytest.raises(UserError, match=r"no validation split, only train; cut one"):
        make_corpus(config(directory))
    splits = make_corpus(config(directory, 'tfds(train="train[:75%]", valid="train[75%:]")')).splits
    assert list(splits) == ["train", "valid"]
    assert len(splits["valid"]) == 1


@pytest.mark.parametrize(
    ("place", "source", "languages", "says"),
    [
        ("local_pairs/de_en/1.0.0", "tfds", ("de", "fr"), "has no language 'fr', only de, en"),
        ("local_pairs/de_en", "tfds", ("de", "en"), r"no dataset_info\.json"),
        ("local_pairs/de_en/1.0.0", 'tfds(test="tset")', ("de", "en"), "no split 'tset'"),
        ("", 'tfds(builder="wmt14_translate/de-en")', ("de", "en"), r"needs TensorFlow.*\[tf\].*array_record"),
        ("", 'tfds(builder="local_pairs/xx")', ("de", "en"), "xx"),
        ("nowhere", "tfds", ("de", "en"), "no directory"),
        ("", "tfds(builder=3)", ("de", "en"), "must be a string"),
        ("", 'tfds(builder="local_pairs")', ("de", "de"), "must differ"),
    ],
)
def test_refusals(data_dir, place, source, languages, says):
    changed = config(data_dir / place, source, languages)
    with pytest.raises(UserError, match=says):
        check_and_read(changed)


def test_neither_name_nor_directory():
    with pytest.raises(UserError, match="name a set"):
        check(DataConfig(source="tfds"))


def test_missing_package_is_a_sentence(monkeypatch, data_dir):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match=r"install the extra: .*\[tfds\]"):
        make_corpus(config(data_dir / "local_pairs/de_en/1.0.0"))


def test_prepared_set_needs_neither_its_builder_nor_tensorflow(data_dir):
    """In a process that knows nothing of the class, by directory and by name."""
    program = f"""
import sys
from transformer_jax.config import DataConfig
from transformer_jax.data import check, make_corpus
for source, place in (("tfds", "/local_pairs/de_en/1.0.0"), ('tfds(builder="local_pairs/de_en")', "")):
    directory = {str(data_dir)!r} + place
    config = DataConfig(source=source, directory=directory, source_language="de", target_language="en")
    print(make_corpus(config).splits["valid"].sources, "tensorflow" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["['zwei'] False"] * 2, done.stderr
