"""A byte-level BPE of a few hundred words with RoBERTa's special tokens, for teachers that read."""

from pathlib import Path

SENTENCES = (
    "This is a sound of speech",
    "This is the sound of a dog barking, then of rain",
    "A photo of people playing basketball",
    "chicken, rooster and telephone bell ringing",
)


def write_tokenizer(folder: Path) -> tuple[Path, Path]:
    """Train one and write `vocab.json` and `merges.txt`."""
    from tokenizers import ByteLevelBPETokenizer

    tokenizer = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(SENTENCES * 4, vocab_size=340, special_tokens=special, show_progress=False)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_model(str(folder))
    return folder / "vocab.json", folder / "merges.txt"
