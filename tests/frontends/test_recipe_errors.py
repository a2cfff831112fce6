"""The exact text of everything that a recipe can be told is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgec.frontends.recipe import MissingDataError, RecipeError, load_recipe, parse_recipe
from edgec.frontends.recipe_targets import TargetEntry
from edgec.ir.errors import InputError, UsageError

STEP = "a pass is a name, or a name with its options: prune: {macs: 0.7}"
TARGET = "a target is a name, or a name with its options: jetson-orin-nano: {profiles: ...}"
ROOT_KEYS = "name, seed, data, passes, targets, results, require"
PREPROCESS_KEYS = "size, color, scale, mean, std, resize, fit, layout, input"
REQUIRE_KEYS = (
    "params_removed, macs_removed, weight_bytes_removed, metric_drop, metric_min, metric_max, sqnr_min, confidence"
)
TRAINED = "add data.preprocess with the size, color and scale that the network was trained with"

ONE_MISTAKE = [
    ("", "c.yaml: the recipe is empty; write at least 'passes:' and a list of passes"),
    ("- fold", f"c.yaml: a recipe is a mapping, not ['fold']; the keys are {ROOT_KEYS}"),
    ("pases: [fold]", f"c.yaml: line 1: pases: unknown key; the keys here are {ROOT_KEYS}. Did you mean 'passes'?"),
    ("zzz: 1", f"c.yaml: line 1: zzz: unknown key; the keys here are {ROOT_KEYS}"),
    ("name: 3", "c.yaml: line 1: name: must be text, not 3"),
    ("name:", "c.yaml: line 1: name: is empty; give it a value, or leave the key out"),
    ("seed: 1.5", "c.yaml: line 1: seed: must be a whole number from 0 to 4294967295, not 1.5"),
    (
        'name: "\\ud800"',
        "c.yaml: line 1: name: holds half a character; write the character itself, not \\ud... escapes",
    ),
    ('"a\\nb": 1', f"c.yaml: line 1: a\\nb: unknown key; the keys here are {ROOT_KEYS}"),
    ("seed: true", "c.yaml: line 1: seed: must be a whole number from 0 to 4294967295, not true"),
    # passes
    ("passes: fold", "c.yaml: line 1: passes: must be a list of passes, not 'fold'; write [fold]"),
    ("passes: {a: 1}", "c.yaml: line 1: passes: must be a list of passes, not a mapping; begin each pass with '- '"),
    ("passes: []", "c.yaml: line 1: passes: the list is empty; name at least one pass, or leave the key out"),
    ("passes: [fold, 3]", f"c.yaml: line 1: passes[1]: must be a pass, not 3; {STEP}"),
    (
        "passes:\n  - fold\n  - prune:\n    macs: 1",
        f"c.yaml: line 3: passes[1]: holds 2 keys (prune, macs); {STEP}; indent the options below the name",
    ),
    ("passes: [{}]", f"c.yaml: line 1: passes[0]: is empty; {STEP}"),
    ("passes: [q: 4]", f"c.yaml: line 1: passes[0]: the options of 'q' must be a mapping, not 4; {STEP}"),
    # targets
    ("targets: cpu", "c.yaml: line 1: targets: must be a list of targets, not 'cpu'; write [cpu]"),
    ("targets: []", "c.yaml: line 1: targets: the list is empty; name at least one target, or leave the key out"),
    ("targets: [a, b, a]", "c.yaml: line 1: targets: 'a' is named twice; name each target once"),
    ("targets: [1]", "c.yaml: line 1: targets: must be text, not 1"),
    ("targets: [a, a: {b: 1}]", "c.yaml: line 1: targets: 'a' is named twice; name each target once"),
    ("targets: [{}]", f"c.yaml: line 1: targets: is empty; {TARGET}"),
    ("targets: [a: 3]", f"c.yaml: line 1: targets: the options of 'a' must be a mapping, not 3; {TARGET}"),
    (
        "targets:\n  - a:\n    b: 1",
        f"c.yaml: line 1: targets: holds 2 keys (a, b); {TARGET}; indent the options below the name",
    ),
    # require
    (
        "require: {params: 1}",
        f"c.yaml: line 1: require.params: unknown key; the keys here are {REQUIRE_KEYS}."
        " Did you mean 'params_removed'?",
    ),
    (
        "require: {params_removed: 99}",
        "c.yaml: line 1: require.params_removed: must be between 0 and 1, not 99;"
        " write the share that goes away, 0.99 for 99 %",
    ),
    (
        "require: {metric_drop: 0.1}",
        "c.yaml: line 1: require.metric_drop: needs a metric, and the recipe has no data.eval;"
        " add data.eval with a metric",
    ),
    (
        "data: {eval: {arrays: x.npz, metric: sqnr}}\nrequire: {metric_drop: 1}",
        "c.yaml: line 2: require.metric_drop: says nothing of 'sqnr', which is infinite before; write sqnr_min in dB",
    ),
    (
        "data: {eval: {arrays: x.npz, metric: mae}}\nrequire: {metric_min: 1}",
        "c.yaml: line 2: require.metric_min: 'mae' is better when lower; write metric_max",
    ),
    (
        "data: {eval: {arrays: x.npz, metric: top1}}\nrequire: {metric_max: 1}",
        "c.yaml: line 2: require.metric_max: 'top1' is better when higher; write metric_min",
    ),
    (
        "data: {eval: {arrays: x.npz, metric: top1}}\nrequire: {metric_min: 95}",
        "c.yaml: line 2: require.metric_min: 'top1' lies between 0 and 1; write 0.95 for 95 %",
    ),
    (
        "data: {eval: {arrays: x.npz, metric: top1}}\nrequire: {metric_drop: -1}",
        "c.yaml: line 2: require.metric_drop: must be at least 0, not -1; write how much worse the metric may become",
    ),
    # preprocess
    (
        "data:\n  preprocess:\n    sise: [4, 4]",
        f"c.yaml: line 3: data.preprocess.sise: unknown key; the keys here are {PREPROCESS_KEYS}. Did you mean 'size'?",
    ),
    (
        "data: {preprocess: 128}",
        f"c.yaml: line 1: data.preprocess: must be a mapping, not 128; the keys here are {PREPROCESS_KEYS}",
    ),
    (
        "data: {preprocess: {size: 128}}",
        "c.yaml: line 1: data.preprocess.size: must be [height, width], not 128; write [128, 128]",
    ),
    (
        "data: {preprocess: {size: [1, 2, 3]}}",
        "c.yaml: line 1: data.preprocess.size: must be [height, width], not [1, 2, 3]",
    ),
    (
        "data: {preprocess: {size: [0, 2]}}",
        "c.yaml: line 1: data.preprocess.size: must be a whole number of at least 1, not 0",
    ),
    (
        "data: {preprocess: {size: [1, 20000]}}",
        "c.yaml: line 1: data.preprocess.size: is larger than 16384 pixels a side;"
        " write [height, width] of the network's input",
    ),
    (
        "data: {preprocess: {color: grey}}",
        "c.yaml: line 1: data.preprocess.color: must be one of gray, rgb, bgr, not 'grey'. Did you mean 'gray'?",
    ),
    (
        "data: {preprocess: {resize: magic, size: [2, 2]}}",
        "c.yaml: line 1: data.preprocess.resize: must be one of bilinear, nearest, bicubic, area, lanczos, not 'magic'",
    ),
    (
        "data: {preprocess: {fit: crop}}",
        "c.yaml: line 1: data.preprocess.fit: has no use without size; add size: [height, width]",
    ),
    (
        "data: {preprocess: {scale: 1/0}}",
        "c.yaml: line 1: data.preprocess.scale: must be a number or a fraction such as 1/255, not '1/0'",
    ),
    (
        "data: {preprocess: {scale: .inf}}",
        "c.yaml: line 1: data.preprocess.scale: must be a number or a fraction such as 1/255, not '.inf'",
    ),
    (
        "data: {preprocess: {scale: 1e999}}",
        "c.yaml: line 1: data.preprocess.scale: must be a number or a fraction such as 1/255, not inf",
    ),
    (
        "data: {preprocess: {scale: 0}}",
        "c.yaml: line 1: data.preprocess.scale: must not be 0; write 1/255 for pixels from 0 to 1",
    ),
    (
        "data: {preprocess: {std: 0}}",
        "c.yaml: line 1: data.preprocess.std: must be greater than 0; write 1 to leave the pixels undivided",
    ),
    (
        "data: {preprocess: {mean: []}}",
        "c.yaml: line 1: data.preprocess.mean: the list is empty; write one number, or one for each channel",
    ),
    (
        "data: {preprocess: {mean: [1, 2]}}",
        "c.yaml: line 1: data.preprocess.mean: holds 2 numbers and color: rgb has 3; write 1 or 3",
    ),
    (
        "data: {preprocess: {mean: [1, 2, 3], color: gray}}",
        "c.yaml: line 1: data.preprocess.mean: holds 3 numbers and color: gray has 1; write one number",
    ),
    # data sets
    ("data:", "c.yaml: line 1: data: is empty; give it a value, or leave the key out"),
    ("data: {train: a/b}", "c.yaml: line 1: data.train: must be a mapping, not 'a/b'; write {images: a/b}"),
    ("data: {train: 3}", "c.yaml: line 1: data.train: must be a mapping, not 3; write {images: FOLDER}"),
    ("data: {train: {}}", "c.yaml: line 1: data.train: names no samples; add one of images, arrays and python"),
    (
        "data: {train: {images: x}}",
        f"c.yaml: line 1: data.train: reads images, and the recipe has no data.preprocess; {TRAINED}",
    ),
    (
        "data: {preprocess: {}, train: {images: []}}",
        "c.yaml: line 1: data.train.images: the list is empty; name at least one folder",
    ),
    (
        "data: {preprocess: {}, train: {images: [a, b, a]}}",
        "c.yaml: line 1: data.train.images: 'a' is named twice; name each folder once",
    ),
    ("data: {preprocess: {}, train: {images: 3}}", "c.yaml: line 1: data.train.images: must be a path, not 3"),
    (
        "data: {preprocess: {}, train: {images: a, arrays: b.npz}}",
        "c.yaml: line 1: data.train.arrays: stands beside images; keep one of them",
    ),
    (
        "data: {train: {arrays: x.csv}}",
        "c.yaml: line 1: data.train.arrays: 'x.csv' is neither .npz nor .npy; save it with numpy.savez",
    ),
    (
        "data: {train: {python: samples.py}}",
        "c.yaml: line 1: data.train.python: must be module:function, not 'samples.py';"
        " name a module beside the recipe and a function in it",
    ),
    (
        "data: {train: {arrays: x.npz, samples: 0}}",
        "c.yaml: line 1: data.train.samples: must be a whole number of at least 1, not 0",
    ),
    (
        "data: {train: {arrays: x.npz, labels: y.csv}}",
        "c.yaml: line 1: data.train.labels: goes with images only; put an array named 'labels' into the .npz",
    ),
    (
        "data: {preprocess: {}, train: {images: x, labels: y.txt}}",
        "c.yaml: line 1: data.train.labels: 'y.txt' is neither .csv nor .json; write 'folders' or such a file",
    ),
    # eval
    (
        "data: {eval: x}",
        "c.yaml: line 1: data.eval: must be a mapping, not 'x'; write {ok: FOLDER, ng: FOLDER, metric: auroc}",
    ),
    ("data: {eval: {arrays: x.npz}}", "c.yaml: line 1: data.eval: the key 'metric' is missing; add it"),
    (
        "data: {eval: {arrays: x.npz, metric: aurok}}",
        "c.yaml: line 1: data.eval.metric: must be one of auroc, top1, mae, sqnr, python:module:function,"
        " not 'aurok'. Did you mean 'auroc'?",
    ),
    (
        "data: {eval: {arrays: x.npz, metric: python:f}}",
        "c.yaml: line 1: data.eval.metric: must be module:function, not 'f';"
        " name a module beside the recipe and a function in it",
    ),
    (
        "data: {eval: {arrays: x.npz, metric: auroc}}",
        "c.yaml: line 1: data.eval.metric: 'auroc' needs the classes ok and ng;"
        " write {ok: FOLDER, ng: FOLDER, metric: auroc}",
    ),
    (
        "data: {preprocess: {}, eval: {ok: a, metric: auroc}}",
        "c.yaml: line 1: data.eval: 'ok' is there without 'ng'; add ng",
    ),
    (
        "data: {preprocess: {}, eval: {ok: a, ng: [b, a], metric: auroc}}",
        "c.yaml: line 1: data.eval.ng: 'a' is named under ok too; keep it in one class",
    ),
    (
        "data: {preprocess: {}, eval: {ok: a, ng: b, metric: top1}}",
        "c.yaml: line 1: data.eval.metric: 'top1' is measured on one data set, not on ok and ng; write images: FOLDER",
    ),
    (
        "data: {preprocess: {}, eval: {ok: a, ng: b, images: c, metric: auroc}}",
        "c.yaml: line 1: data.eval.images: stands beside ok and ng; name the samples by one or the other",
    ),
    (
        "data: {preprocess: {}, eval: {ok: a, ng: b, labels: folders, metric: auroc}}",
        "c.yaml: line 1: data.eval.labels: has no use beside ok and ng; take it out",
    ),
    (
        "data: {preprocess: {}, eval: {ok: {images: a}, ng: b, samples: 3, metric: auroc}}",
        "c.yaml: line 1: data.eval.samples: stands beside a class that is a data set of its own;"
        " write it inside ok and ng",
    ),
    (
        "data: {preprocess: {}, eval: {images: a, metric: top1}}",
        "c.yaml: line 1: data.eval.metric: 'top1' needs labels; add labels: folders, or a .csv of file and label",
    ),
    # the text itself
    ("seed: 1\nseed: 2", "c.yaml: line 2: seed: the key is written twice, on line 1 and here; keep one of them"),
    ("? [a]\n: 1", "c.yaml: line 1: a key must be a word, not a list or a mapping; write 'key: value'"),
]


@pytest.mark.parametrize(("text", "message"), ONE_MISTAKE, ids=[text[:50] for text, _ in ONE_MISTAKE])
def test_one_mistake_is_one_line(text: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, "c.yaml")
    assert str(caught.value) == message
    assert caught.value.exit_status == 2


def test_all_mistakes_are_told_in_the_order_of_the_file() -> None:
    text = """\
data:
  preprocess: {color: GBR, scale: x}
  calibration: {images: a, samples: -1}
passes: [fold, 3]
targets: [cpu, cpu]
targets: [cpu]
what: 1
"""
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, "c.yaml")
    assert str(caught.value).splitlines() == [
        "c.yaml: line 2: data.preprocess.color: must be one of gray, rgb, bgr, not 'GBR'",
        "c.yaml: line 2: data.preprocess.scale: must be a number or a fraction such as 1/255, not 'x'",
        "c.yaml: line 3: data.calibration.samples: must be a whole number of at least 1, not -1",
        f"c.yaml: line 4: passes[1]: must be a pass, not 3; {STEP}",
        "c.yaml: line 5: targets: 'cpu' is named twice; name each target once",
        "c.yaml: line 6: targets: the key is written twice, on line 5 and here; keep one of them",
        f"c.yaml: line 7: what: unknown key; the keys here are {ROOT_KEYS}",
    ]
    assert len(caught.value.mistakes) == 7


NOT_READ = [
    (
        "a: [",
        "c.yaml: line 1: not YAML (expected the node content, but found '<stream end>'); look at the"
        " indentation and brackets before column 5",
    ),
    (
        "a: b: c",
        "c.yaml: line 1: not YAML (mapping values are not allowed here); look at the indentation and"
        " brackets before column 5",
    ),
    ("a: \x01", "c.yaml: line 1: the recipe holds a control character; save it as plain UTF-8 text"),
    (
        "a: !!python/name:os.system x",
        "c.yaml: line 1: a: the tag 'tag:yaml.org,2002:python/name:os.system' is not read in a recipe;"
        " write the value without a tag",
    ),
    ("[" * 3000, "c.yaml: the recipe is nested deeper than 40; write it flatter"),
    (
        "a: &a [*a]",
        "c.yaml: line 1: the recipe holds more than 50000 values or is nested deeper than 40; write it"
        " without aliases that repeat one another",
    ),
    (
        "a: &a [x, x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]\n"
        "c: &c [*b, *b, *b, *b, *b, *b, *b, *b]\n"
        "d: &d [*c, *c, *c, *c, *c, *c, *c, *c]\ne: [*d, *d, *d, *d, *d, *d, *d, *d, *d, *d, *d, *d]",
        "c.yaml: line 1: the recipe holds more than 50000 values or is nested deeper than 40; write it"
        " without aliases that repeat one another",
    ),
]


@pytest.mark.parametrize(("text", "message"), NOT_READ, ids=range(len(NOT_READ)))
def test_text_that_is_no_recipe(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_recipe(text, "c.yaml")
    assert str(caught.value) == message


def test_a_file_that_cannot_be_read(here: Path) -> None:
    for path, content, message in [
        ("none.yaml", None, "none.yaml: there is no such recipe; check the path after -O"),
        (".", None, ".: this is a folder, not a recipe; name the YAML file in it"),
        ("latin.yaml", b"a: 1\nname: caf\xe9\n", "latin.yaml: line 2: the recipe is not UTF-8 text; save it as UTF-8"),
        (
            "model.onnx",
            bytes(2 << 20),
            "model.onnx: the file is larger than 1 MiB and no recipe; name the recipe after -O, not the model",
        ),
    ]:
        if content is not None:
            Path(path).write_bytes(content)
        with pytest.raises(UsageError) as caught:
            load_recipe(path)
        assert str(caught.value) == message
        assert caught.value.exit_status == 2


def test_a_pipe(here: Path) -> None:
    os.mkfifo("c.yaml")
    with pytest.raises(UsageError) as caught:
        load_recipe("c.yaml")
    assert str(caught.value) == "c.yaml: this is a pipe, not a recipe; write the recipe to a file"


@pytest.mark.parametrize("key", ["scale: 1e300", "scale: 1e39", "mean: -1e38, std: 1e-3", "std: 1e-300"])
def test_values_that_overflow(key: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(f"data:\n  preprocess: {{{key}}}", "c.yaml")
    assert str(caught.value) == (
        "c.yaml: line 2: data.preprocess: scale, mean and std make values that no float32 holds; "
        "write what the network was trained with"
    )


def test_a_byte_order_mark_is_no_part_of_the_recipe(here: Path) -> None:
    Path("bom.yaml").write_bytes(b"\xef\xbb\xbfseed: 4\n")
    assert load_recipe("bom.yaml").seed == 4


def test_missing_data_is_told_at_once_and_exits_with_3(here: Path, folder_of_images: Path) -> None:
    Path("empty/sub").mkdir(parents=True)
    Path("empty/.hidden.png").write_bytes(b"")
    Path("empty/notes.txt").write_bytes(b"")
    Path("c.yaml").write_text("""\
data:
  preprocess: {}
  calibration: {images: gone}
  train: {images: [images, empty]}
  eval: {ok: images, ng: {arrays: ng.npz}, metric: auroc}
""")
    with pytest.raises(MissingDataError) as caught:
        load_recipe("c.yaml")
    suffixes = ".png, .jpg, .jpeg, .bmp, .tif, .tiff, .webp, .pgm, .ppm, .pnm, .gif"
    assert str(caught.value).splitlines() == [
        "c.yaml: line 3: data.calibration.images: 'gone': there is no such folder;"
        " correct the path; it is relative to the recipe",
        f"c.yaml: line 4: data.train.images: 'empty': holds no image; put images into it ({suffixes})",
        "c.yaml: line 5: data.eval.ng.arrays: 'ng.npz': there is no such file;"
        " correct the path; it is relative to the recipe",
    ]
    assert isinstance(caught.value, InputError) and caught.value.exit_status == 3
    assert load_recipe("c.yaml", data=False).targets == (TargetEntry("cpu"),)


def test_a_file_where_a_folder_should_be(here: Path, folder_of_images: Path) -> None:
    for text, message in [
        (
            "data: {preprocess: {}, train: {images: images/00.png}}",
            "c.yaml: line 1: data.train.images: 'images/00.png': is a file, not a folder of images;"
            " name the folder that it lies in",
        ),
        (
            "data: {preprocess: {}, train: {images: images, labels: y.csv}}",
            "c.yaml: line 1: data.train.labels: 'y.csv': there is no such file;"
            " correct the path; it is relative to the recipe",
        ),
        (
            "data: {train: {arrays: images.npy}}",
            "c.yaml: line 1: data.train.arrays: 'images.npy': is a folder;"
            " correct the path; it is relative to the recipe",
        ),
    ]:
        Path("images.npy").mkdir(exist_ok=True)
        Path("c.yaml").write_text(text)
        with pytest.raises(MissingDataError) as caught:
            load_recipe("c.yaml")
        assert str(caught.value) == message
