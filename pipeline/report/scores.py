"""What was scored: tables by split with the baselines and the published rows, F and label rates of every class."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from avvp_pipe.pipeline.recipe import Published, Recipe, read_recipe, recipe_names
from avvp_pipe.pipeline.recipe_run import Compared, compare
from avvp_pipe.pipeline.recipe_run import doubts as doubts_of
from avvp_pipe.pipeline.report.records import LEVELS, METRICS, MODALITIES, ClassTable, Percent, ScoreRow, ScoreTable
from avvp_pipe.store import Artifact, parse_reference

__all__ = ["class_tables", "rate_tables", "recipes_of", "score_tables"]

BASELINES = (("video_labels", "video labels everywhere"), ("nothing", "predict nothing"))
ORDER = ("test", "val", "train")
VIEW_NAMES = {"A": "heard", "V": "seen", "AV": "heard and seen at once"}
Titles = Mapping[str, str]
"""Reference of scores -> what its method is called in this report."""


def recipes_of(artifact: Artifact, named: Sequence[str] = ()) -> tuple[Recipe, ...]:
    """The recipes whose published rows scores are held against: those named, and the one that made them.

    Rows of the latter are shown for the clips they were published on only. `recipes run` calls its artifacts
    DATASET-RECIPE or DATASET-RECIPE-STEP, which is how that is known. Raises ParameterError for a name that is no
    recipe.
    """
    home = parse_reference(artifact.provenance["inputs"].get("dataset", "dataset/none")).name
    rest = artifact.name.removeprefix(f"{home}-")
    made = [name for name in recipe_names() if rest != artifact.name and _made_by(rest, name)]
    return tuple(read_recipe(name) for name in dict.fromkeys([*named, *made]))


def _made_by(rest: str, recipe: str) -> bool:
    if rest == recipe:
        return True
    return rest.startswith(f"{recipe}-") and rest.removeprefix(f"{recipe}-") in {
        step.id for step in read_recipe(recipe).steps
    }


def score_tables(scores: Sequence[Artifact], titles: Titles, recipes: Sequence[str] = ()) -> tuple[ScoreTable, ...]:
    """One table a split and way of labelling: measured rows first, then published ones, then baselines."""
    groups: dict[tuple[str, str, str], list[tuple[Artifact, Mapping[str, Any]]]] = {}
    for one in scores:
        for part in one.attrs["scores"]:
            key = (part["split"], part.get("dense", "separate"), str(one.attrs["pooling"]))
            groups.setdefault(key, []).append((one, part))
    asked = {read_recipe(name).name for name in recipes}
    compared = [
        row
        for one in scores
        for recipe in recipes_of(one, recipes)
        for row in compare(recipe, one)
        if recipe.name in asked or not row.other_clips
    ]
    tables = [_table(key, parts, titles, compared) for key, parts in groups.items()]
    return tuple(sorted(tables, key=lambda table: (_place(table.split), table.dense, table.pooling)))


def _place(split: str) -> int:
    return ORDER.index(split) if split in ORDER else len(ORDER)


def _table(
    key: tuple[str, str, str],
    parts: Sequence[tuple[Artifact, Mapping[str, Any]]],
    titles: Titles,
    compared: Iterable[Compared],
) -> ScoreTable:
    split, dense, pooling = key
    rows = [_measured(one, part, titles) for one, part in parts]
    rows = [replace(row, best=_best(row, rows)) for row in rows]
    for one in (_published(row) for row in compared if _fits(row.published, key)):
        if one not in rows:  # several scores are held against the same row
            rows.append(one)
    first = parts[0][1]
    rows += [_row(title, first[name]) for name, title in BASELINES if name in first]
    clips = tuple(sorted({int(part["clips"]) for _, part in parts}))
    return ScoreTable(split, dense, clips, pooling, tuple(rows))


def _fits(published: Published, key: tuple[str, str, str]) -> bool:
    return (published.split, published.dense, published.pooling) == key


def _row(title: str, scores: Mapping[str, Mapping[str, float]], **more: Any) -> ScoreRow:
    segment, event = ({name: scores[level].get(name) for name in METRICS} for level in LEVELS)
    return ScoreRow(title, more.pop("reference", ""), segment, event, **more)


def _measured(one: Artifact, part: Mapping[str, Any], titles: Titles) -> ScoreRow:
    told = []
    if one.attrs.get("origin"):
        told.append(f"origin of the labels: {one.attrs['origin']}")
    if part.get("left_out"):
        told.append(f"{part['left_out']} clips failed and are left out")
    if "accuracy" in part:
        told.append(f"accuracy of seconds {part['accuracy']['of']:.1f} %")
    found = part.get("calibration_error", {})
    errors = tuple(None if found.get(name) is None else 100 * found[name] for name in MODALITIES) if found else ()
    reference = str(one.reference)
    return _row(titles.get(reference, one.name), part["of"], reference=reference, note="; ".join(told), errors=errors)


def _published(row: Compared) -> ScoreRow:
    published = row.published
    told = [published.source, *doubts_of(published), *([row.other_clips] if row.other_clips else [])]
    if published.accuracy is not None:
        told.insert(0, f"accuracy of seconds {published.accuracy:.1f} %")
    scores = {"segment": published.segment, "event": published.event}
    return _row(f"published: {published.labels}", scores, note="; ".join(told), published=True)


def _best(row: ScoreRow, rows: Sequence[ScoreRow]) -> frozenset[tuple[str, str]]:
    """Where no other row has more, to a tenth as shown. Nothing is best of one."""
    found = set()
    for level in LEVELS:
        for metric in METRICS:
            values = [value for one in rows if (value := getattr(one, level)[metric]) is not None]
            mine = getattr(row, level)[metric]
            if mine is not None and len(values) > 1 and round(mine, 1) == round(max(values), 1):
                found.add((level, metric))
    return frozenset(found)


def class_tables(scores: Sequence[Artifact], titles: Titles) -> tuple[ClassTable, ...]:
    """F over seconds of every class, one table a split and modality, one column a method."""
    from avvp_pipe.stages.blocks.quality import VIEWS, precision_recall_f

    columns: dict[tuple[str, str], dict[str, list[Percent]]] = {}
    classes: list[str] = []
    for one in (one for one in scores if "class_counts" in one):
        counts, classes = one.array("class_counts"), list(one.attrs["classes"])
        for place, part in enumerate(one.attrs["scores"]):
            f = precision_recall_f(counts[place, 0].transpose(1, 0, 2))[2]
            for view in ("AV",) if part.get("dense") == "joint" else ("A", "V"):
                column = columns.setdefault((part["split"], view), {})
                column[titles.get(str(one.reference), one.name)] = [_percent(v) for v in f[VIEWS.index(view)]]
    order = sorted(columns, key=lambda key: (_place(key[0]), key[1]))
    return tuple(
        _class_table(f"{split}: F of what is {VIEW_NAMES[view]}", columns[split, view], classes)
        for split, view in order
    )


def rate_tables(scores: Sequence[Artifact], titles: Titles) -> tuple[ClassTable, ...]:
    """Of every class, the share of the seconds of its clips that a method labels, and that is true where known."""
    from avvp_pipe.stages.blocks.quality import label_rates

    columns: dict[tuple[str, str], dict[str, list[Percent]]] = {}
    truths: dict[tuple[str, str], list[Percent]] = {}
    classes: list[str] = []
    for one in (one for one in scores if "tally" in one):
        classes = list(one.attrs["classes"])
        for split, tally in zip(one.strings("tally_splits"), one.array("tally"), strict=True):
            for modality, counts in zip(MODALITIES, tally, strict=True):
                labelled, true = ([_percent(100 * value) for value in rate] for rate in label_rates(counts))
                columns.setdefault((split, modality), {})[titles.get(str(one.reference), one.name)] = labelled
                if any(value is not None for value in true):
                    truths.setdefault((split, modality), true)
    said = {"audio": "heard", "visual": "seen"}
    order = sorted(columns, key=lambda key: (_place(key[0]), key[1]))
    return tuple(
        _class_table(
            f"{split}: share of the named seconds that is {said[modality]}",
            ({"truth": truths[split, modality]} if (split, modality) in truths else {}) | columns[split, modality],
            classes,
            mark_best=False,
        )
        for split, modality in order
    )


def _class_table(
    title: str, columns: Mapping[str, Sequence[Percent]], classes: Sequence[str], *, mark_best: bool = True
) -> ClassTable:
    values = tuple(tuple(column[place] for column in columns.values()) for place in range(len(classes)))
    return ClassTable(title, "percent", tuple(columns), tuple(classes), values, mark_best)


def _percent(value: float | np.floating[Any]) -> Percent:
    return None if math.isnan(value) else float(value)
