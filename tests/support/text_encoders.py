"""Writes a small encoder of sentences, with random weights: no language, but the real format."""

from pathlib import Path

import torch

SIZE = 16
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "it", "is", "twenty", "seventy", "red")


def write_encoder(folder: Path, seed: int = 0) -> Path:
    """The folder of an encoder, as SentenceTransformer.save writes it; texts of WORDS differ."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    torch.manual_seed(seed)
    parts = folder.parent / f"{folder.name}-parts"
    parts.mkdir(parents=True)
    vocabulary = parts / "vocab.txt"
    vocabulary.write_text("\n".join(WORDS))
    BertTokenizerFast(str(vocabulary)).save_pretrained(parts)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=SIZE, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=32,
    )  # fmt: skip
    BertModel(config).save_pretrained(parts)
    modules = [Transformer(str(parts)), Pooling(SIZE)]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder))
    return folder
