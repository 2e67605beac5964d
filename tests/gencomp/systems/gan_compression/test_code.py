"""The code: symbols, the learnt prior of an entropy term, and integer tables."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from gencomp.coding import container
from gencomp.coding.payload import PayloadCoder
from gencomp.coding.tables import PRECISION
from gencomp.errors import InputError
from gencomp.systems.gan_compression.code import Code, entropy_bits
from gencomp.systems.gan_compression.recipe import CodeSection


def code(prior: bool = False, **values: Any) -> Code:
    return Code(CodeSection(**values), prior)


def latents(n: int = 3, channels: int = 8) -> torch.Tensor:
    return torch.randn(n, channels, 4, 5) * 1.5


class TestSymbols:
    def test_five_centres(self):
        found = code(channels=1)(torch.tensor([-1.6, -0.3, 0, 0.49, 0.51, 1.51, 5, 0.5, -1.5]))
        assert found.tolist() == [-2, 0, 0, 0, 1, 2, 2, 0, -2]
        assert code(channels=1, levels=2).quantizer.centres == (-0.5, 0.5)

    @pytest.mark.parametrize("centres", ["fixed", "learnt"])
    @pytest.mark.parametrize("levels", [2, 5, 8])
    def test_the_receiver_gets_what_the_sender_had(self, centres, levels):
        one, w = code(levels=levels, centres=centres), latents()
        assert torch.equal(one.values(one.symbols(w)), one(w))
        counts = one.level_counts_BCL(one.symbols(w))
        assert counts.shape == (3, 8, levels) and bool((counts.sum(2) == 20).all())

    def test_learnt_centres_are_sorted_and_learn(self):
        one, w = code(centres="learnt", levels=3), latents()
        with torch.no_grad():
            one.centres_L.copy_(torch.tensor([2.0, -1.0, 0.5]))
        assert one.values(torch.tensor([0, 1, 2])).tolist() == [-1, 0.5, 2]
        (one(w) - 1).square().sum().backward()
        assert (one.centres_L.grad != 0).all()
        assert float(one.centre_penalty().detach()) == pytest.approx(0.1 * 5.25)
        assert code().centre_penalty() is None

    def test_counts_of_kept_places(self):
        one, w = code(), latents()
        kept = torch.zeros(3, 1, 4, 5)
        kept[:, :, :2] = 1
        counts = one.level_counts_BCL(one.symbols(w), kept)
        assert torch.equal(counts, one.level_counts_BCL(one.symbols(w[:, :, :2])))


class TestPrior:
    def test_uniform_at_first(self):
        bits = code(prior=True).bits_BCHW(latents())
        assert bits.shape == (3, 8, 4, 5)
        assert bits.detach().numpy() == pytest.approx(math.log2(5), abs=1e-5)

    def test_it_learns_the_frequencies(self):
        one, w = code(prior=True, channels=2), latents(50, 2)
        optimizer = torch.optim.Adam([one.logits_CL], lr=0.05)
        for _ in range(300):
            optimizer.zero_grad()
            one.bits_BCHW(w).mean().backward()
            optimizer.step()
        counts = one.level_counts_BCL(one.symbols(w)).sum(0)
        found = torch.softmax(one.logits_CL.detach(), 1)
        assert found.numpy() == pytest.approx((counts / 1000).numpy(), abs=0.01)
        bits = float(one.bits_BCHW(w).sum().detach())
        assert bits == pytest.approx(float(entropy_bits(counts)), rel=1e-3)

    def test_latents_are_drawn_to_what_is_likely(self):
        one = code(prior=True, channels=1)
        with torch.no_grad():
            one.logits_CL[0, 2] = 4  # the centre 0
        w = torch.tensor([[[[-1.2, 0.8, 1.7]]]], requires_grad=True)
        one.bits_BCHW(w).sum().backward()
        assert w.grad.sign().flatten().tolist() == [-1, 1, 1]


class TestTables:
    def test_they_are_the_counts_of_all_batches(self):
        one = code(channels=2, levels=3)
        assert one.frequencies().sum(1).tolist() == [1 << PRECISION] * 2
        first, second = torch.zeros(1, 2, 4, 4), torch.full((1, 2, 4, 4), 3.0)
        one.count([first, second, second])
        assert one.counts_CL.tolist() == [[0, 16, 32]] * 2
        found = one.frequencies() / (1 << PRECISION)
        assert found.min() > 0 and found[0] == pytest.approx([0, 1 / 3, 2 / 3], abs=0.02)

    def test_entropy_of_known_shares(self):
        shares = torch.tensor([[0.0668, 0.2417, 0.3829, 0.2417, 0.0668], [1, 0, 0, 0, 0.0]])
        assert float(entropy_bits(shares * 16384)) == pytest.approx(16384 * 2.0423, rel=1e-3)
        assert float(entropy_bits(torch.zeros(2, 5))) == 0


class TestFilesOfThePublishedSize:
    """Symbols of 8×32×64 latents, those of an image of 512×1024, in files without a decoder."""

    AROUND = 23  # bytes of the container
    IDEAL = 16384 * 2.0423 / 8  # bytes of rounded normal latents

    def coder(self, symbols_BCHW: np.ndarray | None = None) -> PayloadCoder:
        """With the tables of these symbols, or of none."""
        one = code()
        if symbols_BCHW is not None:
            one.count([one.values(torch.from_numpy(symbols_BCHW))])
        return PayloadCoder(one.tables.tables())

    def normal(self, seed: int, n: int = 1) -> np.ndarray:
        x_BCHW = np.random.default_rng(seed).standard_normal((n, 8, 32, 64))
        return np.rint(x_BCHW).clip(-2, 2).astype(np.int64) + 2

    def file(self, symbols_1CHW: np.ndarray, coder: PayloadCoder) -> bytes:
        """A file with digests that decodes to these symbols."""
        symbols_TC = symbols_1CHW[0].transpose(1, 2, 0).reshape(-1, 8)
        member = container.Member(512, 1024, (coder.pack(symbols_TC),))
        digests = container.Digests(b"rd", b"hash")
        data = container.pack(container.Container(b"writer", (member,), digests=digests))
        (section,) = container.unpack(data).members[0].sections
        found_TC, _ = coder.unpack(section, 32 * 64)
        assert np.array_equal(found_TC, symbols_TC)
        return data

    def test_uniform_symbols_take_the_fixed_length(self):
        """Whatever the tables are, 16,384 symbols of 5 levels take 4,756 bytes."""
        symbols = np.random.default_rng(0).integers(0, 5, (1, 8, 32, 64))
        for known in (None, symbols, self.normal(1)):
            assert len(self.file(symbols, self.coder(known))) == 4756 + self.AROUND

    def test_zeros_take_next_to_nothing(self):
        zeros = np.full((1, 8, 32, 64), 2)
        assert len(self.file(zeros, self.coder(zeros))) <= self.AROUND + 4
        assert len(self.file(zeros, self.coder())) < 64

    @pytest.mark.parametrize("own", [True, False], ids=["own tables", "tables of others"])
    def test_normal_symbols_take_their_entropy(self, own):
        """Within 1 % of 2.0423 bits a symbol, and within 16 bytes of the entropy that was drawn.

        A draw's entropy has a standard deviation of 0.3 %, so with other seeds 1 in 200 would fail.
        """
        symbols = self.normal(0)
        data = self.file(symbols, self.coder(symbols if own else self.normal(1, n=4)))
        size = len(data) - self.AROUND
        assert size == pytest.approx(self.IDEAL, rel=0.01)
        drawn = float(entropy_bits(torch.from_numpy(np.bincount(symbols.ravel())[None]))) / 8
        assert abs(size - drawn) <= 16

    def test_every_flipped_byte_is_detected(self):
        symbols = self.normal(0)
        data = self.file(symbols, self.coder(symbols))
        numbers = np.random.default_rng(1)
        for place in range(len(data)):
            damaged = bytearray(data)
            damaged[place] ^= int(numbers.integers(1, 256))
            with pytest.raises(InputError):
                container.unpack(bytes(damaged))
