"""Every parser on simulated teachers, as one table: mean and spread over seeds. Run by hand, after simulate_methods.py.

    python tests/bench/simulate_parsers.py --store FOLDER [--seeds 0,1,2] [--labels uwav]

What supervises the parser (weak labels, also guiding each modality as HAN was published; UWAV's ablation: hard, soft,
re-weighting, mixup, all), and which parser it is, on the same labels. Datasets, features and labels are those that
simulate_methods.py left in the store: real annotations of LLP, simulated features. No video was looked at, and no row
is a result of a paper's method on LLP. The parsers are small.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from avvp_pipe.store import Artifact, Store

NOTHING = {"reweight": "none", "mixup": "none"}


@dataclass(frozen=True)
class Row:
    """One line of the table: parameters of `train-parser`."""

    name: str
    params: Mapping[str, Any]

    @property
    def labelled(self) -> bool:
        """Whether it learns from labels of seconds."""
        return bool(self.params["targets"] != "weak")


HAN = {"parser": "uwav-clip-clap"}
ROWS = (
    Row("HAN, weak labels alone", {**HAN, "targets": "weak"}),
    Row("HAN, weak labels, guided", {**HAN, "targets": "weak", "video": "guided"}),
    Row("HAN, hard labels", {**HAN, "targets": "hard", **NOTHING}),
    Row("HAN, soft labels", {**HAN, "targets": "soft", **NOTHING}),
    Row("HAN, soft, re-weighting", {**HAN, "targets": "soft", "mixup": "none"}),
    Row("HAN, soft, mixup", {**HAN, "targets": "soft", "reweight": "none"}),
    Row("HAN, soft, re-weighting, mixup", {**HAN, "targets": "soft"}),
    Row("EAR's parser, soft, re-weighting, mixup", {"parser": "ear", "targets": "soft"}),
    Row("CoLeaF, weak labels alone", {"parser": "coleaf", "targets": "weak"}),
    Row("CoLeaF, soft labels", {"parser": "coleaf", "targets": "soft"}),
)


def scored(built: Any, store: Store, row: Row, seed: int, given: argparse.Namespace) -> Artifact:
    """Train and evaluate."""
    inputs = {"dataset": "dataset/llp", "features": f"features/llp-{seed}"}
    inputs |= {"labels": f"labels/{given.labels}-{seed}"} if row.labelled else {}
    sizes: dict[str, Any] = {"widths": "features", "width": given.width, "epochs": given.epochs, "seed": seed}
    if row.params["parser"] != "coleaf":  # whose heads and schedule are its own
        sizes |= {"heads": 4, "ffn": 2 * given.width, "layers": given.layers, "warmup": 2, "precision": "auto"}
        sizes |= {"learning_rate": 5e-4, "learning_rate_min": 2.5e-5}
    name = "".join(one if one.isalnum() else "-" for one in f"{row.name} {seed}")
    built(store, "train-parser", name, {**sizes, **row.params}, **inputs)
    made: Artifact = built(store, "evaluate", name, {}, predictions=f"parser/{name}", dataset="dataset/llp")
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is not there yet, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=Path("simulated-store"))
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--labels", default="uwav", help="whose labels; a row of simulate_methods.py")
    parser.add_argument("--rows", default="", help="rows to make, between semicolons; all where left out")
    for name, value in (("width", 128), ("layers", 2), ("epochs", 10)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args(arguments)
    methods, store = import_module("simulate_methods"), Store(given.store)
    asked = [name.strip() for name in given.rows.split(";") if name.strip()]
    found: dict[str, list[Artifact]] = {row.name: [] for row in ROWS if not asked or row.name in asked}
    for seed in map(int, given.seeds.split(",")):
        for row in ROWS:
            if row.name in found:
                found[row.name].append(scored(methods.built, store, row, seed, given))
    facts = f"labels of {given.labels}, seeds {given.seeds}, parsers of width {given.width} and {given.layers} layers, "
    facts += f"{given.epochs} epochs"
    for split in ("test", "val"):
        of_split = {name: np.array([methods.numbers(one, split) for one in scores]) for name, scores in found.items()}
        print("\n".join(methods.table(of_split, split, facts)))


if __name__ == "__main__":
    main()
