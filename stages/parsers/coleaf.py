"""CoLeaF: an anchor that looks at both modalities, taught by two references that look at one each.

    "CoLeaF: A Contrastive-Collaborative Learning Framework for Weakly Supervised Audio-Visual Video Parsing",
    ECCV 2024.  Released code: github.com/faeghehsardari/coleaf at a36a153::

        audio  --+-- reference audio   (training only) --+ class pairs, features
                 +-- anchor --> heard, seen, per second <+
        visual --+-- reference visual  (training only) --+

    file                    what                                      departures from paper and code at its head
    coleaf.py               the whole, the record of the method
    coleaf_inputs.py        sizes, first layers
    coleaf_reference.py     the reference of one modality
    coleaf_anchor.py        the anchor, "cmpae" or "han"
    coleaf_labels.py        smoothed and denoised clip labels
    coleaf_losses.py        every loss, as code and as paper
    coleaf_objective.py     which loss counts when, and how much

Paper and code differ in nearly every number; `Switches.form` chooses.  Beyond the parts' own heads:
  * epochs: 10 in the code, which `METHOD.recipe` has, 15 in the paper; seed 1; learning rate times 0.25 every 6;
  * the best epoch is that of the best mean of the ten new validation scores, of equal ones the last (code only);
  * thresholds 0.52 for clips, of each modality by itself, and 0.25 for seconds are the code's: the paper says fixed;
  * Adam without clipped gradients or weight decay, one for each of the three networks.
Of the new scores, Ao and Vo reward predicting nothing (the trivial baseline has Vo 65.6 on LLP's test split, above
every row of the paper's Table 6): a table that shows them shows the baseline too.
"""

from __future__ import annotations

from torch import Tensor, nn

from avvp_pipe.stages.parsers.coleaf_anchor import Anchor
from avvp_pipe.stages.parsers.coleaf_inputs import CoLeafNetwork
from avvp_pipe.stages.parsers.coleaf_objective import Switches, terms
from avvp_pipe.stages.parsers.coleaf_reference import Modality, Reference
from avvp_pipe.stages.parsers.records import GateSettings, Outputs, ParserMethod, Streams

__all__ = ["METHOD", "CoLeaF", "CoLeafNetwork", "Switches", "terms"]


class CoLeaF(nn.Module):
    """The anchor, and the references that teach it."""

    def __init__(self, network: CoLeafNetwork) -> None:
        super().__init__()
        self.network = network
        self.reference_audio = Reference(network, "audio")
        self.reference_visual = Reference(network, "visual")
        self.anchor = Anchor(network)

    def forward(self, streams: Streams, lengths: Tensor | None = None) -> Outputs:
        """Parse a batch of clips, by the anchor alone.

        streams: audio (B, T, Da), visual, or native_visual with `visual_rows="frames"`, (B, kT, Dv) with k frames a
        second or their means, motion (B, T, Dm) unless
        the network has none.  lengths (B,), None for all T: what lies beyond is padding, may be NaN, and comes out
        meaningless but finite.  Raises ValueError where streams do not fit.
        """
        outputs: Outputs = self.anchor(streams, lengths).outputs
        return outputs

    def reference(self, modality: Modality) -> Reference:
        """The reference of that modality."""
        return self.reference_audio if modality == "audio" else self.reference_visual

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """What is stepped one after another in each batch: name -> parameters, in that order."""
        return {
            name: list(getattr(self, name).parameters()) for name in ("reference_audio", "reference_visual", "anchor")
        }


METHOD = ParserMethod(
    name="coleaf",
    paper="CoLeaF (ECCV 2024)",
    network=CoLeafNetwork(),
    build=CoLeaF,
    reads=("audio", "visual", "motion"),
    gate=GateSettings(gate="modality", gate_threshold=0.52, threshold=0.25, strict=False),
    recipe={
        "targets": "weak",
        "epochs": 10,
        "optimiser": "adam",
        "weight_decay": 0.0,
        "clip_norm": 0.0,
        "schedule": "step",
        "learning_rate": 5e-4,
        "step_every": 6,
        "step_factor": 0.25,
        "train_batch": 128,
        "select": "val_coleaf10",
        "ties": "last",
        "seed": 1,
    },
    objective=terms,
    switches=Switches(),
)
