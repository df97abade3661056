"""The stages in the order in which they run: the pipeline's table of contents."""

from avvp_pipe.stages import (
    calibrate,
    dataset,
    decode,
    denoise,
    evaluate,
    extract,
    import_features,
    import_generator,
    import_labels,
    import_parser,
    import_thresholds,
    parse,
    pretrain,
    pseudolabel,
    simulate,
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
        simulate.STAGE,  # or, without videos: annotations -> simulated features
        pretrain.STAGE,  # features with dense labels -> generator
        import_generator.STAGE,  # or: a released checkpoint -> generator
        calibrate.STAGE,  # features (+ generator), validation labels -> thresholds
        import_thresholds.STAGE,  # or: released thresholds -> thresholds
        pseudolabel.STAGE,  # features (+ generator), thresholds, weak labels -> labels
        import_labels.STAGE,  # or: label files of others -> labels
        train_parser.STAGE,  # labels, features -> parser
        import_parser.STAGE,  # or: a released checkpoint -> parser
        denoise.STAGE,  # labels, a parser trained on them -> labels, with the doubtful ones flipped
        parse.STAGE,  # a parser, features -> predictions
        evaluate.STAGE,  # labels, parser or predictions against dense labels -> scores
    )
}
