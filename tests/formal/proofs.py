"""All proofs there are."""

from __future__ import annotations

import proofs_arithmetic
import proofs_control
import proofs_decoder
import proofs_dma
import proofs_expander
import proofs_feeds
import proofs_loader
import proofs_queue
import proofs_results
import proofs_sequencer
import proofs_softmax
import proofs_waits

from sim.formal import Proof

_MODULES = (
    proofs_queue, proofs_sequencer, proofs_dma, proofs_arithmetic, proofs_decoder, proofs_softmax, proofs_control,
    proofs_waits, proofs_loader, proofs_feeds, proofs_results, proofs_expander,
)  # fmt: skip
PROOFS: tuple[Proof, ...] = tuple(proof for module in _MODULES for proof in module.PROOFS)
