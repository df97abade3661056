"""How scores are printed: the official protocol with its baselines first, then what else is known of the labels."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from avvp_pipe.cli.console import say, table
from avvp_pipe.cli.show_decisions import confusions, gate_words, print_confusion, reliabilities
from avvp_pipe.store import Artifact

METRICS = ("A", "V", "AV", "Type", "Event", "Ao", "Vo", "Evento")
"""Those that fit into 80 columns; Typeo is the mean of Ao, Vo and AV."""
POOLED = ("A", "V", "AV", "Type", "Event")
LEVELS = ("segment", "event")
RATES = {"A": "audio", "V": "visual"}
NAMES = ("equal", "kappa", "union")
"""What is said of two sets: share of equal cells, Cohen's kappa, intersection over union of what both label."""
MODALITIES = ("audio", "visual")
SETS = (("of", ""), ("video_labels", "video labels"), ("nothing", "predict nothing"))
REWARDED = ("Ao", "Vo", "Typeo", "Evento")
"""CoLeaF's scores, which are high where nothing is predicted."""


def scores_document(artifact: Artifact) -> dict[str, Any]:
    """The JSON of scores: by split, by class, how far another set agrees. What is not known is null."""
    document: dict[str, Any] = {"scores": artifact.attrs["scores"]}
    if "class_counts" in artifact:
        document["classes"] = list(_classes(artifact))
        document["label_rates"] = list(_rates(artifact))
    if "modality_confusion" in artifact:
        document["modality_confusion"] = list(confusions(artifact))
        document["reliability"] = list(reliabilities(artifact))
        document["gate"] = artifact.attrs.get("gate")
    if "agreement" in artifact:
        document["agreement"] = _agreement(artifact)
    return document


def print_scores(artifact: Artifact) -> None:
    """Tables of at most 80 columns; classes of the last split that was scored."""
    method = str(artifact.attrs["method"])
    if origin := artifact.attrs.get("origin"):
        say(f"origin of the labels: {origin}\n")
    if gate := artifact.attrs.get("gate"):
        say(f"decisions: {gate_words(gate)}\n")
    for one in artifact.attrs["scores"]:
        _print_split(one, method, str(artifact.attrs["pooling"]), str(artifact.attrs.get("what")))
    document = scores_document(artifact)
    if document.get("classes"):
        _print_classes(document)
    if document.get("modality_confusion"):
        print_confusion(document["modality_confusion"][-1])
    if "agreement" in document:
        _print_agreement(document["agreement"])


def _print_split(one: Mapping[str, Any], method: str, pooling: str, what: str) -> None:
    metrics = [metric for metric in METRICS if metric in one["of"]["segment"]]
    for level in LEVELS:
        title = f"{one['split']}, {one['clips']} clips, {level}-level F, percent ({pooling})"
        table(title, ("", *metrics), [_line(label or method, one[name][level], metrics) for name, label in SETS])
    lines = []
    for other in (name for name in one.get("pooled", {}) if name != pooling):
        for name, label in SETS[:2]:
            scores = one["pooled"][other][name]["segment"]
            lines.append((other, *_line(label or method, scores, [each for each in POOLED if each in scores])))
    if lines:
        columns = [metric for metric in POOLED if metric in one["of"]["segment"]]
        table(f"{one['split']}, segment-level F in other poolings", ("pooling", "", *columns), lines, left=2)
    _say_more(one, "soft labels" if what == "labels" else "probabilities")


def _say_more(one: Mapping[str, Any], what: str) -> None:
    """What is said of a split beside its tables: scores that silence beats, accuracy, calibration."""
    for level in LEVELS:
        of, nothing = one["of"][level], one["nothing"][level]
        if beaten := [name for name in REWARDED if name in of and of[name] <= nothing[name]]:
            say(f"{one['split']}, {level}-level: no better than predicting nothing in {', '.join(beaten)}\n")
    if accuracy := one.get("accuracy"):
        told = ", ".join(f"{label or 'these'} {accuracy[name]:.1f}" for name, label in SETS)
        say(f"{one['split']}, accuracy of seconds, percent: {told}\n")
    if every := _errors(one, "calibration_error"):
        say(f"{one['split']}, expected calibration error of the {what}: {every}")
        named = _errors(one, "calibration_error_named")
        say(f"  of the classes of the weak labels alone: {named}\n" if named not in ("", every) else "")


def _errors(one: Mapping[str, Any], key: str) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in one.get(key, {}).items() if value is not None)


def _line(label: str, scores: Mapping[str, float], metrics: list[str]) -> tuple[str, ...]:
    return (label, *(f"{scores[metric]:.1f}" for metric in metrics))


def _classes(artifact: Artifact) -> Iterator[dict[str, Any]]:
    """Of each split, each class: precision, recall and F over seconds, F over events, by modality and of both."""
    from avvp_pipe.stages.blocks.quality import VIEWS, precision_recall_f

    counts, names = artifact.array("class_counts"), artifact.attrs["classes"]
    for place, one in enumerate(artifact.attrs["scores"]):
        views = ("AV",) if one.get("dense") == "joint" else VIEWS
        segment, event = (precision_recall_f(counts[place, level].transpose(1, 0, 2)) for level in range(2))
        found = [
            {"class": name}
            | {
                view: _numbers(("P", "R", "F"), segment[:, VIEWS.index(view), column])
                | _numbers(("event_F",), event[2:, VIEWS.index(view), column])
                for view in views
            }
            for column, name in enumerate(names)
        ]
        yield {"split": one["split"], "classes": found}


def _rates(artifact: Artifact) -> Iterator[dict[str, Any]]:
    """Of each split, each class: the share of the seconds of its clips that is labelled, and that is true."""
    from avvp_pipe.stages.blocks.quality import label_rates

    for split, tally in zip(artifact.strings("tally_splits"), artifact.array("tally"), strict=True):
        found: dict[str, Any] = {"split": split}
        for modality, one in zip(MODALITIES, tally, strict=True):
            labelled, true = label_rates(one)
            found[modality] = {
                "outside_weak": int(one[2].sum()),
                "classes": [
                    {"class": name} | _numbers(("labelled", "true"), (labelled[column], true[column]))
                    for column, name in enumerate(artifact.attrs["classes"])
                ],
            }
        yield found


def _agreement(artifact: Artifact) -> dict[str, Any]:
    from avvp_pipe.stages.blocks.quality import agreement_of, union_share

    found: dict[str, Any] = dict(artifact.attrs["agreement"])
    for scope, tables in zip(("all", "named"), artifact.array("agreement"), strict=True):
        for modality, counts in zip(MODALITIES, tables, strict=True):
            whole = counts.sum(axis=1)
            every = {"cells": int(whole.sum())} | _numbers(NAMES, (*agreement_of(whole), union_share(whole)))
            (equal, kappa), union = agreement_of(counts), union_share(counts)
            classes = [
                {"class": name} | _numbers(NAMES, (equal[column], kappa[column], union[column]))
                for column, name in enumerate(artifact.attrs["classes"])
            ]
            found.setdefault(scope, {})[modality] = every | {"classes": classes}
    return found


def _numbers(names: tuple[str, ...], values: Any) -> dict[str, float | None]:
    return {
        name: None if math.isnan(value) else round(float(value), 6) for name, value in zip(names, values, strict=True)
    }


def _print_classes(document: Mapping[str, Any]) -> None:
    last = document["classes"][-1]
    rates = next(one for one in document["label_rates"] if one["split"] == last["split"])
    views = [view for view in ("A", "V", "AV") if view in last["classes"][0]]
    shown = views if views == ["AV"] else ["A", "V"]
    columns = ["class"] + [name for view in shown for name in (f"{view}: P", "R", "F", "evF", "on")]
    lines = []
    for place, one in enumerate(last["classes"]):
        cells = [one["class"]]
        for view in shown:
            cells += [_whole(one[view][name]) for name in ("P", "R", "F", "event_F")]
            on = rates[RATES[view]]["classes"][place]["labelled"] if view in RATES else None
            cells.append(_whole(on, 100))
        lines.append(cells)
    table(f"{last['split']}, by class, percent; on: labelled share of the clips' seconds", columns, lines)
    say("classes of every split, AV and true shares: --json\n")


def _whole(value: float | None, times: float = 1) -> str:
    return "-" if value is None else f"{times * value:.0f}"


def _print_agreement(found: Mapping[str, Any]) -> None:
    said = {"all": "all classes", "named": "classes of the weak labels"}
    lines = [
        (modality, said[scope], str(one["cells"]), _whole(one["equal"], 100), *(_part(one[name]) for name in NAMES[1:]))
        for scope in said
        for modality, one in found[scope].items()
    ]
    title = f"agreement with {found['against']}, {found['clips']} clips"
    table(title, ("", "cells of", "cells", "equal %", "kappa", "IoU"), lines, left=2)


def _part(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
