"""UWAV's labels: logits of the pre-trained temporal generator (`uwav.py`).

UWAV (CVPR 2025, arXiv:2505.09615) section 3.2 and released code.
"""

from avvp_pipe.stages.generators.records import LabelGenerator
from avvp_pipe.stages.generators.temporal import labeller

METHOD = LabelGenerator(
    name="uwav",
    paper="UWAV, CVPR 2025",
    prompts="uwav",
    labeller=labeller,
    generator="uwav",
)
