"""The capsule example: layout, determinism, flaws that show and stay local, the shipped network."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

EXAMPLE = Path(__file__).parents[2] / "examples/capsule"
FLAWED = ["test/crack", "test/faulty_imprint", "test/poke", "test/scratch", "test/squeeze"]


@pytest.fixture(scope="module")
def render() -> ModuleType:
    spec = importlib.util.spec_from_file_location("capsule_render", EXAMPLE / "render.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
        spec.loader.exec_module(module)
    return module


def _tree(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _gray(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).convert("L"), np.float32)


def test_the_split_is_mvtecs(render: ModuleType) -> None:
    assert render.FOLDERS["train/good"] == 219
    assert render.FOLDERS["test/good"] == 23
    assert sorted(render.FOLDERS) == sorted(["train/good", "test/good", *FLAWED])
    assert sum(render.FOLDERS[folder] for folder in FLAWED) == 109


def test_two_renders_give_the_same_bytes_in_mvtecs_layout(render: ModuleType, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert render.main(["--out", str(tmp_path / name), "--only", "2", "--size", "64"]) == 0
    first = _tree(tmp_path / "a")
    images = {name for name in first if name.endswith(".png")}
    assert images == {f"{folder}/{index:03d}.png" for folder in render.FOLDERS for index in range(2)}
    assert first == _tree(tmp_path / "b")
    assert len({first[name] for name in images}) == len(images)
    with Image.open(tmp_path / "a/test/poke/001.png") as image:
        assert (image.size, image.mode) == ((64, 64), "RGB")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]  # nothing temporary is left


def test_an_image_depends_on_its_own_seed_only(render: ModuleType) -> None:
    image = render.render_image("test/crack", 7, size=64)
    render.render_image("test/crack", 6, size=64)
    assert np.array_equal(image, render.render_image("test/crack", 7, size=64))
    assert not np.array_equal(image, render.render_image("test/crack", 7, size=64, seed=1))
    assert not np.array_equal(image, render.render_image("test/crack", 6, size=64))


def test_rendering_again_keeps_what_is_there_and_replaces_what_differs(
    render: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "data"
    assert render.main(["--out", str(out), "--only", "1", "--size", "32"]) == 0
    assert capsys.readouterr().out == f"{out}: 7 images rendered\n"
    before = (out / "train/good/000.png").stat().st_mtime_ns
    assert render.main(["--out", str(out), "--only", "1", "--size", "32"]) == 0
    assert capsys.readouterr().out == f"{out}: 7 images are there already\n"
    assert (out / "train/good/000.png").stat().st_mtime_ns == before
    assert render.main(["--out", str(out), "--only", "1", "--size", "32", "--seed", "5"]) == 0
    assert capsys.readouterr().out == f"{out}: 7 images rendered\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_a_folder_of_the_users_is_never_replaced(
    render: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    assert render.main(["--out", str(tmp_path), "--only", "1", "--size", "32"]) == 3
    expected = f"render.py: {tmp_path}: holds files that render.py did not write; choose another --out\n"
    assert capsys.readouterr().err == expected
    assert (tmp_path / "mine.txt").read_text() == "keep me"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "16"], "--size 16: out of range; choose 32 to 1024"),
        (["--only", "0"], "--only 0: would draw nothing; choose 1 or more"),
        (["--seed", "-1"], "--seed -1: is negative; choose 0 or more"),
    ],
)
def test_bad_arguments_are_named(
    render: ModuleType, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        render.main(arguments)
    assert stop.value.code == 2
    assert capsys.readouterr().err.endswith(f"error: {message}\n")


def test_an_unknown_folder_is_named(render: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"^render_image: folder 'test/dent' is unknown; use one of train/good, "):
        render.render_image("test/dent", 0)


@pytest.mark.parametrize("folder", FLAWED)
def test_a_flaw_shows_and_stays_local(render: ModuleType, folder: str) -> None:
    for index in range(6):
        flawed, sound = (render.render_image(folder, index, flawed=flag) for flag in (True, False))
        difference = np.abs(_gray(flawed) - _gray(sound))
        assert difference.max() >= 15, f"{folder} {index} does not show"
        assert (difference > 4).mean() < 0.08, f"{folder} {index} is all over the image"


def test_a_sound_capsule_has_no_flaw_to_take_away(render: ModuleType) -> None:
    pair = (render.render_image("test/good", 3, flawed=flag) for flag in (True, False))
    assert np.array_equal(*pair)


def test_a_rendered_image_holds_a_black_cap_an_orange_body_and_a_light_table(render: ModuleType) -> None:
    image = render.render_image("train/good", 0).astype(int)
    cap, body, table = image[70:74, 20:28], image[74:78, 76:80], image[10:20, 20:110]
    assert cap.mean() < 60
    assert body[..., 0].mean() - body[..., 2].mean() > 80
    assert table.mean() > 160


@pytest.mark.slow
def test_the_shipped_network_separates_flawed_from_sound_capsules(render: ModuleType) -> None:
    path = EXAMPLE / "autoencoder.onnx"
    model = onnx.load(path)
    onnx.checker.check_model(model)
    assert path.stat().st_size <= 25e6
    assert sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer) >= 4_000_000
    assert {"BatchNormalization", "ConvTranspose"} <= {node.op_type for node in model.graph.node}

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (feed,), (fetch,) = session.get_inputs(), session.get_outputs()
    assert (feed.name, feed.shape, feed.type) == ("image", [1, 1, 128, 128], "tensor(float)")
    assert (fetch.name, fetch.shape) == ("reconstruction", [1, 1, 128, 128])

    def score(folder: str, index: int) -> float:
        image = _gray(render.render_image(folder, index))[None, None] / np.float32(255)
        (reconstruction,) = session.run(None, {"image": image})
        return float(np.mean((reconstruction - image) ** 2))

    ok = np.array([score("test/good", index) for index in range(render.FOLDERS["test/good"])])
    ng = np.array([score(folder, index) for folder in FLAWED for index in range(render.FOLDERS[folder])])
    auroc = np.mean(ng[:, None] > ok[None, :])
    assert 0.8 < auroc < 0.995
