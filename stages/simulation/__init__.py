"""Simulated teachers: segment features made from annotations, for comparing methods where there are no videos.

    names     class name -> words, what it sounds like, what it looks like
    world     -> text features and prototypes, the same for a name in every dataset
    hidden    annotations -> what is really heard and seen, also where they do not say
    evidence  -> how strongly a teacher perceives each class in each second
    clips     -> features
    settings  the numbers

Nothing here was measured on videos. The numbers in `settings.py` were tuned until VALOR's labels, made of simulated
features, score on LLP about as published.
"""

from avvp_pipe.stages.simulation.clips import simulated_clip, simulated_features
from avvp_pipe.stages.simulation.hidden import Donors, borrowed, donors, extended
from avvp_pipe.stages.simulation.settings import SENSES, Modality, Sense
from avvp_pipe.stages.simulation.truth import ClipTruth
from avvp_pipe.stages.simulation.world import Teacher, teacher_of, text_features

__all__ = [
    "SENSES",
    "ClipTruth",
    "Donors",
    "Modality",
    "Sense",
    "Teacher",
    "borrowed",
    "donors",
    "extended",
    "simulated_clip",
    "simulated_features",
    "teacher_of",
    "text_features",
]
