"""Zero-shot labels: the teachers alone, each second by itself, one threshold for all classes of a modality.

What CLIP and CLAP say without anything fitted to a class: VALOR's ablation with unified thresholds (VALOR, NeurIPS
2023, Figure 3 and Table 8), with the video labels as filter or without (`calibrate --weak-filter`). Logits are those of
`valor.py`; the threshold is the best F1 over all cells together, where the paper tuned it by hand for the segment F.
Any prompt set of the features will do (`calibrate --prompts`).
"""

from avvp_pipe.stages.generators.records import LabelGenerator
from avvp_pipe.stages.generators.valor import logits

METHOD = LabelGenerator(
    name="zero-shot",
    paper="VALOR, NeurIPS 2023, Table 8",
    prompts="valor",
    labeller=lambda generators, fitted: logits,
    thresholds="class-agnostic",
)
