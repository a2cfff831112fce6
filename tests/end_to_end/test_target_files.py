"""Target files that a package brings: a wrong key or type is refused in one line that says how to fix it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from edgec.backends import registry as backends
from edgec.backends.registry import target, target_names
from edgec.passes.framework import plugins

Edgec = Callable[..., tuple[int, str, str]]
RUN = ("model.onnx", "-O", "board.yaml", "-q", "--no-timing", "-o", "out")
RIGHT = {"title": "A board", "backend": "cpu"}
TENSORRT = {"title": "A board", "backend": "tensorrt", "options": {"opset": 13, "tensorrt": {"least": "8.5"}}}
FILE = "package 'boards': targets/a-board.yaml: "
CORRECT = "; correct the value, or update that package"
KEYS = "title, backend, scheme, memory_bytes, parameter_bytes, channel_multiple, least_channels, options, source"
SCHEME = {"activations": "int8", "symmetric": True, "per_channel": [], "bias": "int32", "tied": [], "fixed": {}}


@pytest.fixture
def board(job: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Installs a package that registers a backend and has one target, whose file holds the text given."""

    def install(text: str) -> None:
        site = job / "site"
        (site / "strange-1.0.dist-info").mkdir(parents=True)
        (site / "strange-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: strange\nVersion: 1\n")
        entries = "[edgec.backends]\nstrange = boards:Backend\n"
        (site / "strange-1.0.dist-info" / "entry_points.txt").write_text(entries)
        (site / "boards" / "targets").mkdir(parents=True)
        (site / "boards" / "__init__.py").write_text("class Backend:\n    name = 'strange'\n")
        (site / "boards" / "targets" / "a-board.yaml").write_text(text)
        monkeypatch.syspath_prepend(str(site))

    (job / "board.yaml").write_text("passes: [fold]\ntargets: [a-board]\n")
    caches = (plugins.registered, backends._profiles, backends._target)
    for cached in caches:
        cached.cache_clear()
    yield install
    monkeypatch.undo()
    sys.modules.pop("boards", None)
    for cached in caches:
        cached.cache_clear()


def test_a_right_file(board: Callable[[str], None], edgec: Edgec) -> None:
    board(yaml.safe_dump(RIGHT | {"memory_bytes": 4 << 30, "scheme": {"like": "cpu", "symmetric": True}}))
    found = target("a-board")
    assert (found.memory_bytes, found.channel_multiple, dict(found.options)) == (4 << 30, 1, {})
    assert found.scheme is not None and found.scheme.symmetric and found.scheme.channel_block == 16
    assert edgec(*RUN)[0] == 0


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"memory_bytes": "4 GB"}, f"memory_bytes: input should be a valid integer, not '4 GB'{CORRECT}"),
        ({"memory_bytes": True}, f"memory_bytes: input should be a valid integer, not True{CORRECT}"),
        ({"memory_bytes": -1}, f"memory_bytes: input should be greater than or equal to 1, not -1{CORRECT}"),
        ({"memory_byte": 4}, f"memory_byte: is no key of a target. Did you mean 'memory_bytes'? Known are {KEYS}"),
        ({"title": 3}, f"title: input should be a valid string, not 3{CORRECT}"),
        ({"title": None}, f"title: input should be a valid string, not None{CORRECT}"),
        ({"name": "b"}, "name: a target is named for its file; take the key out"),
        ({"options": [1]}, f"options: input should be a valid mapping, not [1]{CORRECT}"),
        ({"scheme": "int8"}, f"scheme: input should be a mapping, not 'int8'{CORRECT}"),
        (
            {"scheme": SCHEME},
            "scheme: operators: is missing; write it; docs/writing-a-pass.md lists the keys of a target",
        ),
        (
            {"scheme": {**SCHEME, "operators": "Conv"}},
            f"scheme: operators: input should be a valid list, not 'Conv'{CORRECT}",
        ),
        (
            {"scheme": {"like": "cpu", "activations": "int4"}},
            f"scheme: activations: input should be 'int8' or 'uint8', not 'int4'{CORRECT}",
        ),
        (
            {"scheme": {"like": "cpu", "fixed": {"Tanh": ["a", 0]}}},
            "scheme: fixed: Tanh: 0: input should be a valid number, unable to parse string as a number, not 'a'"
            f"{CORRECT}",
        ),
        ({"scheme": {"like": "cpv"}}, "scheme: like: no target named 'cpv'. Did you mean 'cpu'? Name a target"),
        (
            {"scheme": {"like": "jetson-nano"}},
            "scheme: like: target 'jetson-nano' has no scheme of its own; name one that has",
        ),
    ],
)  # fmt: skip
def test_a_wrong_value(
    changes: dict[str, object], line: str, board: Callable[[str], None], edgec: Edgec, job: Path
) -> None:
    board(yaml.safe_dump(RIGHT | changes))
    assert edgec(*RUN) == (2, "", f"edgec: {FILE}{line}\n")
    assert not (job / "out").exists()
    assert edgec("targets", "a-board") == (2, "", f"edgec: {FILE}{line}\n")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("title: [", "is no YAML (line 1); correct it, or update that package"),
        ("- title", "is no mapping of keys to values; write 'title: ...' and 'backend: ...'"),
        ("", "is no mapping of keys to values; write 'title: ...' and 'backend: ...'"),
        ("1: 2", "is no mapping of keys to values; write 'title: ...' and 'backend: ...'"),
        ("title: A board\n", "backend: is missing; write it; docs/writing-a-pass.md lists the keys of a target"),
    ],
)
def test_a_file_that_is_no_profile(text: str, line: str, board: Callable[[str], None], edgec: Edgec) -> None:
    board(text)
    assert edgec(*RUN) == (2, "", f"edgec: {FILE}{line}\n")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({}, "tensorrt: is missing; write it; docs/writing-a-pass.md lists the keys of a target"),
        ({"opset": "13"}, f"opset: input should be a valid integer, not '13'{CORRECT}"),
        ({"tensorrt": {"least": 8.5}}, f"tensorrt: least: input should be a valid string, not 8.5{CORRECT}"),
        ({"tensorrt": {"atleast": "8.5"}},
         "tensorrt: atleast: is no key of a target. Did you mean 'least'? Known are least, below"),
    ],
)  # fmt: skip
def test_what_only_the_backend_reads(
    options: dict[str, object], line: str, board: Callable[[str], None], edgec: Edgec
) -> None:
    given = {**TENSORRT["options"], **options} if options else {}  # type: ignore[dict-item]
    board(yaml.safe_dump(TENSORRT | {"options": given}))
    assert edgec(*RUN) == (2, "", f"edgec: target 'a-board': options: {line}\n")


def test_the_other_targets_go_on(board: Callable[[str], None], edgec: Edgec, job: Path) -> None:
    board(yaml.safe_dump(RIGHT | {"memory_bytes": "4 GB"}))
    said = f"{FILE}memory_bytes: input should be a valid integer, not '4 GB'{CORRECT}"
    status, out, err = edgec("targets")
    assert (status, err) == (0, "")
    assert f"a-board            ? {said}" in out.splitlines()
    assert any(line.startswith("cpu ") for line in out.splitlines())
    status, out, err = edgec("schema")
    assert (status, err) == (0, f"edgec: warning: {said}; it is left out\n")
    assert '"a-board"' not in out and '"cpu"' in out
    (job / "board.yaml").write_text("passes: [fold]\ntargets: [cpu]\n")
    assert edgec(*RUN)[0] == 0


def test_a_backend_that_is_none(board: Callable[[str], None], edgec: Edgec) -> None:
    board(yaml.safe_dump(RIGHT | {"backend": "strange"}))
    line = (
        "backend 'strange': of 'strange' has no method 'missing', which every backend has; install that package again"
    )
    assert edgec(*RUN) == (2, "", f"edgec: {line}\n")


@pytest.mark.parametrize("name", ["cpu", "cpu-avx2", "coral-dev-board", "jetson-nano", "jetson-orin-nano", "trt-host"])
def test_our_own(name: str) -> None:
    assert name in target_names()
    assert target(name).name == name
