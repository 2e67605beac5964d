"""Relative entropy coding of Gaussian latents: files that hold a sample of the posterior.

    posterior N(μ_q, σ_q²) ──┐                                      ┌── prior N(μ_p, σ_p²), key
                             ( z ) ──encode──▶ ( codes ) ──decode──▶ ( z )
        prior, key ──────────┘      ──coder──▶ ( bytes )

Protocol. Sender and receiver know the prior and a key. The latents of a layer are cut into blocks
(`blocks`) and standardised, so that the prior is N(0, 1). Each block is a sum of K pieces of known
variances (`schedules`); from the key both sides draw the same n candidates for each piece
(`candidates`). The sender, who also knows the posterior, searches the sums of candidates
(`beam_search`) for one that the posterior makes likely and the prior does not, and sends the number
of pieces, the schedule and the index of each piece (`stream`). The receiver draws the chosen
candidates only and adds them up: it needs neither the posterior nor a search. Nothing is quantised.

Guarantee. `decode` gives the same float64 values on every machine and for every number of threads:
random numbers, times and sums are computed from integers and by correctly rounded operations in a
fixed order. Where two machines disagree about the prior itself in the last bit, the values shift by
as little. Scores of the sender are float32 and may differ; they decide only what is sent.

Limit. The search is an argmax, not a sampler: the value is about as likely as a sample of the
posterior, ln q/p ≈ KL, with residuals of variance near 1, at 8 to 12 % more than KL nats
(`gencomp figure overhead` measures all of it). Less rate gives values nearer to the prior. An exact
sampler would take time exponential in KL; `importance` and its neighbours are such, for blocks of
few nats. Source: Flamich, Havasi and Hernández-Lobato, "Compressing Images by Encoding Their Latent
Representations with Relative Entropy Coding", NeurIPS 2020.
"""

from gencomp.coding.relative_entropy.beam_search import Plan, decode, encode, plan, search
from gencomp.coding.relative_entropy.codes import EFFORTS, BlockCode, Effort, Key, Settings
from gencomp.coding.relative_entropy.layers import decode_layer, encode_layer, targets
from gencomp.coding.relative_entropy.stream import coder

__all__ = [
    "EFFORTS",
    "BlockCode",
    "Effort",
    "Key",
    "Plan",
    "Settings",
    "coder",
    "decode",
    "decode_layer",
    "encode",
    "encode_layer",
    "plan",
    "search",
    "targets",
]
