"""The tables of a codec's entropy coder, as buffers of its checkpoint."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from gencomp.coding.tables import Tables, empty, fit
from gencomp.collectives import gather_rows


class CodeTables(nn.Module):
    """The statistics of codes of N symbols, which are empty before `count`.

    Args:
        symbols: the number N of symbols of one code.
        levels: the number L of levels of the quantizer.
    """

    back: Tensor
    counts: Tensor

    def __init__(self, symbols: int, levels: int) -> None:
        super().__init__()
        tables = empty(symbols, levels)
        self.register_buffer("back", torch.from_numpy(tables.back_NP))
        self.register_buffer("counts", torch.from_numpy(tables.counts_NCL))

    def count(self, batches: Iterable[Tensor]) -> None:
        """Replace the tables by the statistics of the given symbols.

        Args:
            batches: this rank's symbols of each global batch, int64 [B, ...], one or more codes of
                N symbols for each image, one after the other; the rows are gathered, so every rank
                makes the same tables.
        """
        # A collective sum is exact for small integers in any type, and every backend has float32.
        gathered = [gather_rows(batch.flatten(1).float()) for batch in batches]
        symbols_SN = torch.cat(gathered).long().cpu().numpy().reshape(-1, len(self.back))
        tables = fit(symbols_SN, self.counts.shape[2])
        self.back.copy_(torch.from_numpy(tables.back_NP))
        self.counts.copy_(torch.from_numpy(tables.counts_NCL))

    def tables(self) -> Tables:
        return Tables(self.back.cpu().numpy().copy(), self.counts.cpu().numpy().copy())
