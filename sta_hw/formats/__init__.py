"""N:M formats (`nm`): what weights look like in memory."""

from .nm import EncodedMatrix, best_encoding, bits_per_weight, decode, encode, keep_mask, prune, satisfies

__all__ = [
    "EncodedMatrix",
    "best_encoding",
    "bits_per_weight",
    "decode",
    "encode",
    "keep_mask",
    "prune",
    "satisfies",
]
