"""The stages in the order in which they run: the pipeline's table of contents."""

from avvp_pipe.stages import (
    calibrate,
    dataset,
    decode,
    evaluate,
    extract,
    import_features,
    import_labels,
    pretrain,
    pseudolabel,
    train_parser,
)
from avvp_pipe.stages.stage import Stage

STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        dataset.STAGE,  # annotation files or a manifest -> dataset
        decode.STAGE,  # videos -> media: sampled frames, waveform
        extract.STAGE,  # media -> features: CLIP, CLAP, event texts
        import_features.STAGE,  # or: feature files of others -> features
        pretrain.STAGE,  # features with dense labels -> generator
        calibrate.STAGE,  # features (+ generator), validation labels -> thresholds
        pseudolabel.STAGE,  # features (+ generator), thresholds, weak labels -> labels
        import_labels.STAGE,  # or: label files of others -> labels
        train_parser.STAGE,  # labels, features -> parser
        evaluate.STAGE,  # labels or parser against dense labels -> scores
    )
}
