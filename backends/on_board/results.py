"""From a network's outputs to what a person wants to know: classes, boxes, a mask, or a score.

``results.json`` beside this file says which of them the network gives, and in which form:

    classes   probabilities, or logits, of classes: the best five
    boxes     a detector's boxes in one of the forms below: name, score and corners in the picture's pixels
    mask      a class for each place: the share of the picture that each class takes
    score     a network that gives its input back: how far it is from it, on the mean of the squares

The forms of boxes are those of YOLO: ``centres`` (four numbers of a box, then scores of classes, for each anchor; v8,
v9, v11), ``objects`` (the same with an object's score in between; v5, v7), ``grid`` (the same, of which the first four
still count from the cell of their anchor; YOLOX), and ``corners`` (what is left when the network chose itself: corners,
score, class; v10). ``map`` is a text detector's: how likely each place is text (DB, arXiv 1911.08947). Its boxes are
the connected places above a half of ``confidence``, grown by what their shrinking in training took.
"""

from typing import Any, Dict, List, Optional, Tuple

import numpy as np

Result = Dict[str, Any]
# Boxes that are looked at before any is dropped for its neighbours, and that are told.
_CANDIDATES, _MOST_BOXES = 2000, 300
# Of a map: places above this share of the confidence belong to a box; by how much of area over perimeter it grows.
_OF_CONFIDENCE, _GROWTH = 0.5, 1.5


def decoded(
    outputs: Dict[str, np.ndarray], how: Dict[str, Any], back: np.ndarray, entered: Optional[np.ndarray] = None
) -> List[Result]:
    """What one sample's outputs say.

    Args:
        outputs: by name, real numbers, in the order of axes of the original network, with its sample axis of 1.
        how: the content of results.json.
        back: from places in the input to places in the picture, as ``pictures.entered`` gives it.
        entered: what the network was given, for a score.

    Returns:
        The results, best first. Each has ``name`` and ``score``, boxes ``x1``, ``y1``, ``x2`` and ``y2``, too.
    """
    kind = how["kind"]
    x = outputs[how["output"]]
    if kind == "classes":
        return _classes(x.reshape(-1), how)
    if kind == "boxes":
        return _boxes(x, how, back)
    if kind == "mask":
        return _mask(x, how)
    assert kind == "score" and entered is not None
    return [{"name": "", "score": float(np.mean((x.reshape(-1) - entered.reshape(-1)).astype(np.float64) ** 2))}]


def name_of(place: int, how: Dict[str, Any]) -> str:
    """The name of a class, its number where there are no names."""
    names = how.get("labels")
    return str(names[place]) if names and place < len(names) else str(place)


def _classes(values: np.ndarray, how: Dict[str, Any]) -> List[Result]:
    values = values.astype(np.float64)
    if how["logits"]:
        values = np.exp(values - values.max())
        values = values / values.sum()
    best = np.argsort(-values, kind="stable")[: how["top"]]
    return [{"name": name_of(int(place), how), "score": float(values[place])} for place in best]


def _boxes(x: np.ndarray, how: Dict[str, Any], back: np.ndarray) -> List[Result]:
    corners, scores, classes = _candidates(x.reshape(x.shape[-2:]).astype(np.float64), how)
    likely = np.flatnonzero(scores >= how["confidence"])
    likely = likely[np.argsort(-scores[likely], kind="stable")][:_CANDIDATES]
    corners, scores, classes = corners[likely], scores[likely], classes[likely]
    kept = range(len(likely)) if how["form"] in ("corners", "map") else apart(corners, classes, how["overlap"])
    scale, offset = np.tile(back[:2], 2), np.tile(back[2:], 2)
    results = []
    for place in list(kept)[:_MOST_BOXES]:
        x1, y1, x2, y2 = (corners[place] * scale + offset).tolist()
        name = name_of(int(classes[place]), how)
        results.append({"name": name, "score": float(scores[place]), "x1": x1, "y1": y1, "x2": x2, "y2": y2})
    return results


def _candidates(rows: np.ndarray, how: Dict[str, Any]) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Corners in the input's pixels, scores and classes of all that an output tells."""
    if how["form"] == "map":
        corners, scores = regions(rows, how["confidence"] * _OF_CONFIDENCE)
        sides = np.array([how["input_size"][1] / rows.shape[1], how["input_size"][0] / rows.shape[0]])
        return corners * np.tile(sides, 2), scores, np.zeros(len(corners), int)
    rows = rows.T if how["channels_first"] else rows
    if how["form"] == "corners":
        return rows[:, :4], rows[:, 4], rows[:, 5].astype(int)
    if how["form"] == "grid":
        rows = _from_grid(rows, how)
    each = rows[:, 4:] if how["form"] == "centres" else rows[:, 5:] * rows[:, 4:5]
    classes = each.argmax(axis=1)
    half = rows[:, 2:4] / 2
    corners = np.concatenate([rows[:, :2] - half, rows[:, :2] + half], axis=1)
    return corners, each[np.arange(len(each)), classes], classes


def regions(likely: np.ndarray, least: float) -> Tuple[np.ndarray, np.ndarray]:
    """Boxes around connected places of a map, and how likely their places are on the mean.

    Args:
        likely: [height, width], from 0 to 1.
        least: what a place must exceed.

    Returns:
        corners [boxes, 4] in places, grown as the detector's training shrank them, and scores [boxes].
    """
    inside = np.zeros((likely.shape[0], likely.shape[1] + 2), np.int8)
    inside[:, 1:-1] = likely > least
    steps = np.diff(inside, axis=1)
    # Runs of places in each row: (row, first column, the column behind the last).
    rows, starts = np.nonzero(steps == 1)
    ends = np.nonzero(steps == -1)[1]
    parent = list(range(len(rows)))
    first = np.searchsorted(rows, np.arange(likely.shape[0] + 1))
    for row in range(1, likely.shape[0]):
        above, own = range(first[row - 1], first[row]), range(first[row], first[row + 1])
        for one in own:
            for other in above:
                if starts[one] < ends[other] and starts[other] < ends[one]:
                    parent[_root(parent, one)] = _root(parent, other)
    groups = {}  # type: Dict[int, List[int]]
    for run in range(len(rows)):
        groups.setdefault(_root(parent, run), []).append(run)
    sums = np.concatenate([np.zeros((likely.shape[0], 1)), np.cumsum(likely, axis=1)], axis=1)
    corners, scores = [], []
    for runs in groups.values():
        own_rows, left, right = rows[runs], starts[runs], ends[runs]
        count = (right - left).sum()
        x1, y1, x2, y2 = left.min(), own_rows.min(), right.max(), own_rows.max() + 1
        growth = _GROWTH * (x2 - x1) * (y2 - y1) / (2.0 * ((x2 - x1) + (y2 - y1)))
        box = np.array([x1 - growth, y1 - growth, x2 + growth, y2 + growth])
        corners.append(np.clip(box, 0, np.tile(likely.shape[::-1], 2)))
        scores.append((sums[own_rows, right] - sums[own_rows, left]).sum() / count)
    return np.array(corners).reshape(-1, 4), np.array(scores)


def _root(parent: List[int], place: int) -> int:
    while parent[place] != place:
        parent[place] = parent[parent[place]]
        place = parent[place]
    return place


def _from_grid(rows: np.ndarray, how: Dict[str, Any]) -> np.ndarray:
    """Centres count from their cell, sizes are logarithms, all in units of the stride: YOLOX, arXiv 2107.08430."""
    height, width = how["input_size"]
    cells, strides = [], []
    for stride in how["strides"]:
        y, x = np.mgrid[0 : height // stride, 0 : width // stride]
        cells.append(np.stack([x.reshape(-1), y.reshape(-1)], axis=1))
        strides.append(np.full(x.size, stride))
    stride = np.concatenate(strides)[:, np.newaxis]
    decoded_rows = rows.copy()
    decoded_rows[:, :2] = (rows[:, :2] + np.concatenate(cells)) * stride
    decoded_rows[:, 2:4] = np.exp(np.minimum(rows[:, 2:4], 30)) * stride
    return decoded_rows


def apart(corners: np.ndarray, classes: np.ndarray, overlap: float) -> List[int]:
    """Non-maximum suppression: of boxes of one class that overlap by more than ``overlap``, the best one stays.

    Args:
        corners: [boxes, 4], best first.
        classes: of each box; boxes of different classes do not touch each other.
        overlap: intersection over union.
    """
    area = np.prod(np.maximum(corners[:, 2:] - corners[:, :2], 0), axis=1)
    left, kept = np.arange(len(corners)), []
    while len(left):
        best, rest = left[0], left[1:]
        kept.append(int(best))
        low = np.maximum(corners[best, :2], corners[rest, :2])
        high = np.minimum(corners[best, 2:], corners[rest, 2:])
        common = np.prod(np.maximum(high - low, 0), axis=1)
        union = np.maximum(area[best] + area[rest] - common, 1e-12)
        left = rest[(common / union <= overlap) | (classes[rest] != classes[best])]
    return kept


def _mask(x: np.ndarray, how: Dict[str, Any]) -> List[Result]:
    """Classes that take a share of the places, largest first; ``x`` is [1, classes, ...], or [1, ...] of numbers."""
    classes = x.argmax(axis=1) if how["channels_first"] else x.astype(int)
    numbers, counts = np.unique(classes, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    share = counts[order] / counts.sum()
    return [{"name": name_of(int(n), how), "score": float(s)} for n, s in zip(numbers[order], share)]


def line(results: List[Result], kind: str) -> str:
    """What is printed of a picture's results."""
    if not results:
        return "nothing"
    if kind == "boxes":
        corner = "{name} {score:.2f} at {x1:.0f},{y1:.0f} to {x2:.0f},{y2:.0f}"
        return "; ".join(corner.format(**one) for one in results)
    if kind == "score":
        return "{:.6g}".format(results[0]["score"])
    return ", ".join("{name} {score:.3f}".format(**one) for one in results)


def rows(file: str, results: List[Result], kind: str) -> List[List[Any]]:
    """The lines of a table: file, rank, name, score, and corners of boxes."""
    corners = ("x1", "y1", "x2", "y2") if kind == "boxes" else ()
    return [
        [file, place + 1, one["name"], round(one["score"], 6)] + [round(one[key], 2) for key in corners]
        for place, one in enumerate(results)
    ]


def columns(kind: str) -> List[str]:
    """The names of that table's columns."""
    return ["file", "rank", "name", "score"] + (["x1", "y1", "x2", "y2"] if kind == "boxes" else [])
