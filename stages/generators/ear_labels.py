"""EAR's labels: logits of a temporal generator that was pre-trained asymmetrically on migrated labels (`ear.py`).

EAR (arXiv:2605.08723) section III-B, "Pseudo-Label Generation on Target Dataset". The paper's formula (Eq. 9) is lost;
its prose names soft labels, a threshold and the weak label, "following" UWAV. Read here as UWAV's rule on the logits
of the dynamic branch, with thresholds calibrated per class; the static branch serves in pre-training only. Taken
literally (`pseudolabel --soft literal`), Eq. 9 cuts probabilities, sigmoid(P - threshold): the same hard labels, and
soft ones squeezed into (0.27, 0.73).
"""

from avvp_pipe.stages.generators.records import LabelGenerator
from avvp_pipe.stages.generators.temporal import labeller

METHOD = LabelGenerator(
    name="ear",
    paper="EAR, arXiv:2605.08723",
    prompts="uwav",
    labeller=labeller,
    generator="ear",
)
