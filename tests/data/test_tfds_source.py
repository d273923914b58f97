"""TFDS sets built offline from local files, read without TensorFlow."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_run
from corpora import make_corpus

from transformer_jax import cli
from transformer_jax.config import DataConfig
from transformer_jax.data import check, check_there
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


@pytest.mark.parametrize("command", ["evaluate", "sweep"])
def test_only_training_downloads_a_set(command, tmp_path, data_dir, capsys):
    """What reads a run, or tells how far a sweep is, says that the set is not there."""
    source = 'tfds(builder="local_pairs/de_en")'
    tiny_run.copy_of(tiny_run.finished(), tmp_path / "work")
    tiny_run.write_config_file(tmp_path / "c" / "c.py")
    experiment = tmp_path / "e" / "e.py"
    experiment.parent.mkdir()
    experiment.write_text(
        '"""Question: Why?\n\nHypothesis: So."""\nfrom transformer_jax.sweeps.experiment import Experiment, Scale\n'
        'EXPERIMENT = Experiment(rows={"base": {}}, scales={"small": Scale("c/c.py", seeds=1)})\n'
    )
    arguments = {
        "evaluate": [f"--workdir={tmp_path}/work"],
        "sweep": [experiment, f"--workdir={tmp_path}/s", "--status"],
    }
    line = [command, *map(str, arguments[command]), f"--config.data.source={source}"]
    line += ["--config.data.source_language=de", "--config.data.target_language=en"]
    assert cli.main([*line, f"--config.data.directory={tmp_path}/none"]) == 2
    said = capsys.readouterr().err
    assert f"'local_pairs/de_en' is not prepared in {tmp_path}/none/local_pairs/de_en/1.0.0, and only training" in said
    assert not (tmp_path / "none").exists()
    check_there(config(data_dir, source))


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
from transformer_jax import cli
from transformer_jax.config import DataConfig
from transformer_jax.data import check, make_source
for source, place in (("tfds", "/local_pairs/de_en/1.0.0"), ('tfds(builder="local_pairs/de_en")', "")):
    directory = {str(data_dir)!r} + place
    config = DataConfig(source=source, directory=directory, source_language="de", target_language="en")
    print(make_source(config).corpus(config).splits["valid"].sources, "tensorflow" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["['zwei'] False"] * 2, done.stderr


# --- Sets made by somebody else ---

TRANSLATION = "tensorflow_datasets.core.features.translation_feature.Translation"
FEATURES_DICT = "tensorflow_datasets.core.features.features_dict.FeaturesDict"
SEQUENCE = "tensorflow_datasets.core.features.sequence_feature.Sequence"
DATASET = "tensorflow_datasets.core.features.dataset_feature.Dataset"
EVIL = {"pythonClassName": "evil.Feature", "jsonFeature": {"json": "{}"}}
EVIL_LEGACY = {"type": "evil.Feature", "content": {}}
FEATURES = {
    "a class": EVIL,
    "a class in the spelling of the proto": {"python_class_name": "evil.Feature", "json_feature": {"json": "{}"}},
    "a class in the old form": EVIL_LEGACY,
    "nested": {"pythonClassName": FEATURES_DICT, "featuresDict": {"features": {"x": EVIL}}},
    "in a sequence": {"pythonClassName": SEQUENCE, "sequence": {"feature": EVIL, "length": "-1"}},
    "in a data set": {"pythonClassName": DATASET, "sequence": {"feature": EVIL, "length": "-1"}},
    "nested in the old form": {"type": FEATURES_DICT, "content": {"x": EVIL_LEGACY}},
    "nested in text": {"pythonClassName": FEATURES_DICT, "jsonFeature": {"json": json.dumps({"x": EVIL_LEGACY})}},
    "nested twice in text": {
        "pythonClassName": FEATURES_DICT,
        "jsonFeature": {
            "json": json.dumps(
                {
                    "x": {
                        "type": SEQUENCE,
                        "content": json.dumps({"feature": EVIL, "length": "-1"}),
                        "proto_cls": "tensorflow_datasets.Sequence",
                    }
                }
            )
        },
    },
    "escaped": '{"pythonClassName": "\\u0065vil.Feature", "jsonFeature": {"json": "{}"}}',
    "twice": '{"pythonClassName": "%s", "pythonClassName": "evil.Feature"}' % TRANSLATION,  # noqa: UP031
}


@pytest.fixture
def prepared(data_dir, tmp_path) -> Path:
    """A prepared set that may be changed."""
    return Path(shutil.copytree(data_dir / "local_pairs/de_en/1.0.0", tmp_path / "sets/somebodys/1.0.0"))


@pytest.fixture
def evil(tmp_path, monkeypatch) -> Callable[[], bool]:
    """A module `evil` that can be imported; whether it was, which is then forgotten."""
    (tmp_path / "importable").mkdir()
    (tmp_path / "importable" / "evil.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path / "importable")
    return lambda: sys.modules.pop("evil", None) is not None


@pytest.mark.parametrize("kind", FEATURES)
def test_a_class_that_is_not_of_tfds_is_never_imported(prepared, evil, kind):
    features = FEATURES[kind]
    (prepared / "features.json").write_text(features if isinstance(features, str) else json.dumps(features))
    for changed in (config(prepared), config(prepared.parent.parent, 'tfds(builder="somebodys")')):
        with pytest.raises(UserError, match=r"names the feature 'evil.Feature', which TFDS would import"):
            make_corpus(changed)
        assert not evil()
    with contextlib.suppress(Exception):
        tfds.builder_from_directory(prepared)
    assert evil()  # the trap works


def test_a_module_of_tfds_that_is_no_feature_is_not_imported_either(prepared):
    (prepared / "features.json").write_text(json.dumps({"type": "tensorflow_datasets.scripts.cli.main.X"}))
    with pytest.raises(UserError, match="only features of TFDS itself"):
        make_corpus(config(prepared))
    assert "tensorflow_datasets.scripts.cli.main" not in sys.modules


@pytest.mark.parametrize(
    "name", ["huggingface:squad", "kaggle:x", "mlds:x/y", "a/b/data_dir=c", "a/../b", "../a", "", "A"]
)
def test_names_that_lead_to_other_code_or_places_are_refused(name):
    with pytest.raises(UserError, match="must be the name of a set of TFDS"):
        make_corpus(config("", f"tfds(builder={name!r})"))


@pytest.mark.parametrize(
    "name",
    [
        "features.json",
        "dataset_info.json",
        "x.labels.txt",
        "metadata.json",
        "local_pairs-test.array_record-00000-of-00001",
    ],
)
@pytest.mark.parametrize("kind", ["pipe", "link"])
def test_pipes_and_links_in_a_set_are_refused_at_once(prepared, tmp_path, name, kind):
    path = prepared / name
    if path.exists():
        path.rename(tmp_path / "outside")
    os.mkfifo(path) if kind == "pipe" else path.symlink_to(tmp_path / "outside")
    says = (
        r"no dataset_info\.json|is no regular file; a prepared TFDS set" if kind == "pipe" else "is a link; a prepared"
    )
    for changed in (config(prepared), config(prepared.parent.parent, 'tfds(builder="somebodys")')):
        with pytest.raises(UserError, match=says):
            make_corpus(changed)


@pytest.mark.parametrize("folder", ["../outside", "/outside", "inside"])
def test_files_outside_of_a_set_are_not_read(prepared, folder):
    info = json.loads((prepared / "dataset_info.json").read_text())
    outside = prepared.parent / "outside"
    outside.mkdir()
    for path in prepared.glob("*.array_record*"):
        path.rename(outside / path.name)
    for split in info["splits"]:
        split["filepathTemplate"] = folder + "/{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    (prepared / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match=r"dataset_info.json: the files of its split '\w+' do not lie beside it"):
        make_corpus(config(prepared))
    if folder == "../outside":  # TFDS would read them
        assert len(tfds.builder_from_directory(prepared).as_data_source("validation")) == 1


def edit_info(**values: object) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        path = directory / "dataset_info.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def rewrite(name: str, content: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).write_text(content) and None


DAMAGES: dict[str, Callable[[Path], None]] = {
    "no JSON": rewrite("dataset_info.json", "{"),
    "no object": rewrite("dataset_info.json", "[]"),
    "deep": rewrite("dataset_info.json", '{"a":' * 50_000 + "1" + "}" * 50_000),
    "an unknown field": edit_info(nothing=1),
    "a version that is none": edit_info(version="one"),
    "a blocked version": edit_info(isBlocked="do not use"),
    "a format that is none": edit_info(fileFormat="pickle"),
    "another format": edit_info(fileFormat="tfrecord"),
    "no splits": edit_info(splits=[]),
    "splits that are none": edit_info(splits=3),
    "lengths that are none": edit_info(splits=[{"name": "train", "shardLengths": ["-5"]}]),
    "more files than there are": edit_info(
        splits=[{"name": name, "shardLengths": ["1"] * 5} for name in ("train", "validation")]
    ),
    "more files than can be": edit_info(splits=[{"name": "train", "shardLengths": ["1"] * 100_001}]),
    "no features": lambda directory: (directory / "features.json").unlink(),
    "features that are no JSON": rewrite("features.json", "\x00"),
    "features that are none": rewrite("features.json", "3"),
    "features without a class": rewrite("features.json", "{}"),
    "deep features": rewrite("features.json", "[" * 900 + "]" * 900),
    "deep features in text": rewrite("features.json", json.dumps([json.dumps("[" * 50_000)])),
    "features of another set": rewrite(
        "features.json", json.dumps({"pythonClassName": FEATURES_DICT, "featuresDict": {"features": {}}})
    ),
    "examples that are none": lambda directory: next(directory.glob("*-train*")).write_bytes(b"x" * 100),
    "examples cut short": lambda directory: os.truncate(next(directory.glob("*-train*")), 50),
    "no examples": lambda directory: next(directory.glob("*-train*")).unlink(),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_set_is_a_sentence(prepared, kind):
    DAMAGES[kind](prepared)
    with pytest.raises(UserError) as refused:
        make_corpus(config(prepared))
    assert str(prepared) in str(refused.value) or "data.source: " in str(refused.value)
    assert len(str(refused.value)) < 800


class LocalRich(tfds.core.GeneratorBasedBuilder):
    """Translations among features of other kinds."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "both": tfds.features.Translation(languages=("de", "en")),
            "label": tfds.features.ClassLabel(names=["a", "b"]),
            "type": tfds.features.Text(),
            "scores": tfds.features.Sequence(tfds.features.Scalar(np.float32)),
            "more": {"x": tfds.features.Tensor(shape=(2,), dtype=np.int64)},
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {name: self._generate_examples() for name in ("train", "dev")}

    def _generate_examples(self):
        texts = {"de": "ein", "en": "a"}
        yield 0, {"both": texts, "label": "b", "type": "t", "scores": [0.5], "more": {"x": [1, 2]}}


def test_what_tfds_brings_along_is_read(tmp_path):
    LocalRich(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    assert pairs(make_corpus(config(tmp_path / "local_rich/1.0.0")).splits["train"]) == [("ein", "a")]
