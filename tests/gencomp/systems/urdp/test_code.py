"""The channel of every kind of dither, its gradients, and the tables of the symbols given it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gencomp.coding import dither
from gencomp.coding.tables import PRECISION
from gencomp.draws import Draws
from gencomp.rate_distortion.perception import uniform_symbol_entropy
from gencomp.systems.urdp import code as coding
from gencomp.systems.urdp.recipe import CodeSection
from gencomp.systems.urdp.tables import CELLS, LatentTables


def code(**values) -> coding.Code:
    return coding.Code.of(CodeSection(**values))


def latents(rows: int, latents: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.tanh(
        torch.from_numpy(np.random.default_rng(seed).standard_normal((rows, latents)))
    )


def units(rows: int, latents: int = 3) -> torch.Tensor:
    return torch.from_numpy(dither.unit_dither(5, range(rows), latents))


class TestChannel:
    @pytest.mark.parametrize("levels", [2, 3, 4, 8, 256])
    @pytest.mark.parametrize("kind", ["shared", "private", "none"])
    def test_the_receiver_gets_what_the_sender_meant(self, levels, kind):
        one = code(levels=levels, dither=kind)
        f, unit = latents(1000), units(1000)
        symbols = coding.symbols(f, unit, one)
        assert symbols.dtype == torch.int64
        y = coding.from_symbols(symbols, unit, one, torch.float64)
        assert torch.equal(y, coding.received(f, unit, one, training=False))
        reach = one.step if kind == "private" else one.step / 2
        assert (y - f).abs().max() <= reach + 1e-9

    def test_only_a_shared_dither_makes_the_error_independent(self):
        f, unit = latents(100_000), units(100_000)
        for kind, variance in (("shared", 1 / 12), ("private", None), ("none", None)):
            one = code(levels=3, dither=kind)
            error = coding.received(f, unit, one, training=False) - f
            correlation = abs(np.corrcoef(error[:, 0], f[:, 0])[0, 1])
            if variance:
                assert error.var().item() == pytest.approx(variance, rel=0.01)
                assert correlation < 0.01
            else:
                assert correlation > 0.1

    def test_private_dither_adds_its_variance(self):
        """The error is that without dither and Δ²/12 more, up to its standard error of 0.3 %."""
        f, unit = latents(100_000), units(100_000)
        error = {
            kind: (coding.received(f, unit, code(dither=kind), training=False) - f).square().mean()
            for kind in ("private", "none")
        }
        assert error["private"].item() == pytest.approx(error["none"].item() + 1 / 12, rel=0.015)

    def test_a_wider_grid(self):
        one = code(levels=5, low=-1.5, high=1.25)
        f, unit = latents(1000), units(1000)
        assert one.step == pytest.approx(2.75 / 4)
        y = coding.received(f, unit, one, training=False)
        assert (y - f).abs().max() <= one.step / 2 + 1e-9

    def test_without_a_shared_bit_there_is_no_dither(self):
        """A budget of no bits is the code without dither, for sender, receiver and training."""
        one, none = code(shared_bits=0), code(dither="none")
        drawn = one.random_units(Draws(1, ("train",), 50), "dither")
        assert not drawn.any() and not one.keyed_units(7, range(50)).any()
        f, unit = latents(50), torch.zeros(50, 3, dtype=torch.float64)
        assert torch.equal(coding.symbols(f, unit, one), coding.symbols(f, unit, none))
        y = coding.received(f, unit, one, training=True)
        assert torch.equal(y, coding.received(f, unit, none, training=True))
        with pytest.raises(ValueError, match="gradient is noise"):
            code(shared_bits=0, gradient="noise")

    @pytest.mark.parametrize("bits", [1, 3])
    def test_shared_bits_choose_among_the_same_dithers_everywhere(self, bits):
        one = code(shared_bits=bits)
        drawn = one.random_units(Draws(1, ("train",), 500), "dither").numpy()
        keyed = one.keyed_units(7, range(500))
        known = {tuple(row) for row in keyed.astype(np.float32)}
        assert len(known) == 1 << bits
        assert {tuple(row) for row in drawn} == known
        words = {tuple(row) for row in one.every_word(9)}
        assert words == {tuple(row) for row in coding.words_of(keyed)}


class TestGradient:
    def slope(self, f: float, kind: str) -> float:
        x = torch.full((1, 3), f, dtype=torch.float64, requires_grad=True)
        unit = torch.full((1, 3), 0.25, dtype=torch.float64)
        one = code(levels=3, gradient=kind)
        coding.received(x, unit, one, training=True).sum().backward()
        return float(x.grad[0, 0])

    def test_soft_is_that_of_the_softmax_at_the_dithered_value(self):
        assert self.slope(0.0, "soft") == pytest.approx(0.540129, abs=1e-6)
        assert self.slope(0.25, "soft") == pytest.approx(0.619156, abs=1e-6)
        assert self.slope(0.9, "soft") == 0

    @pytest.mark.parametrize("kind", ["identity", "noise"])
    @pytest.mark.parametrize("f", [-0.9, 0.0, 0.9])
    def test_the_exact_ones_are_1_everywhere(self, kind, f):
        assert self.slope(f, kind) == 1

    def test_values_do_not_depend_on_the_gradient_but_for_noise(self):
        f, unit = latents(100), units(100)
        soft, identity, noise = (
            coding.received(f, unit, code(gradient=kind), training=True)
            for kind in ("soft", "identity", "noise")
        )
        assert torch.allclose(soft, identity, atol=1e-12)
        assert torch.allclose(noise, f - unit)
        still = coding.received(f, unit, code(gradient="noise"), training=False)
        assert torch.equal(still, soft)


class TestTables:
    def frequencies(self, tables: LatentTables, rows: int, latents: int, seed: int = 3):
        """The tables' frequencies and the dither of rows, which `unit_dither` gives as floats."""
        unit = dither.unit_dither(seed, range(rows), latents)
        words = ((unit + 0.5) * 2**32).astype(np.uint64)
        return tables.frequencies(words).reshape(rows, latents, -1), torch.from_numpy(unit)

    @pytest.mark.parametrize(
        ("levels", "bits"), [(2, 0.72135), (3, 1.36067), (4, 1.82541), (8, 2.9104)]
    )
    def test_entropies_of_uniform_latents_are_those_of_the_closed_form(self, levels, bits):
        found = LatentTables(code(levels=levels)).entropies()
        assert found.shape == (3,) and found == pytest.approx(bits, abs=2e-3)

    def test_entropies_are_of_each_latent_and_its_dithers(self):
        """A latent on a centre costs nothing without dither; with it the dither decides."""
        f = latents(5000, latents=2)
        f[:, 1] = 0.0
        found = {}
        for name, one in {
            "shared": code(latents=2),
            "none": code(latents=2, dither="none"),
            "no bits": code(latents=2, shared_bits=0),
            "a bit": code(latents=2, shared_bits=1),
        }.items():
            tables = LatentTables(one)
            tables.count([f])
            found[name] = tables.entropies()
        # Within a thousandth of 0, as each symbol keeps a frequency of 1 and a cell its width.
        assert found["none"][1] < 0.005 and found["shared"][1] < 0.1
        assert found["no bits"] == pytest.approx(found["none"], abs=1e-12)
        assert len({round(one[0], 6) for one in found.values()}) == 3
        # The counted entropy of the latent without dither.
        symbols = np.bincount(coding.symbols(f, torch.zeros(1, 2), code(latents=2))[:, 0])
        shares = symbols / symbols.sum()
        assert found["none"][0] == pytest.approx(-(shares * np.log2(shares)).sum(), abs=2e-3)

    @pytest.mark.parametrize("levels", [2, 3, 4, 8, 256])
    @pytest.mark.parametrize("kind", ["shared", "private", "none"])
    def test_rows_are_frequencies(self, levels, kind):
        tables = LatentTables(code(levels=levels, dither=kind))
        tables.count([latents(500, seed=8)])
        found, _ = self.frequencies(tables, 200, 3)
        assert found.min() >= 1
        assert (found.sum(-1) == 1 << PRECISION).all()

    @pytest.mark.parametrize(
        ("levels", "bits"), [(2, 0.72135), (3, 1.36067), (4, 1.82541), (8, 2.9104)]
    )
    def test_uniform_latents_cost_their_conditional_entropy(self, levels, bits):
        """The tables of a uniform latent, averaged over 4,096 dithers at equal distances."""
        words = (np.arange(4096, dtype=np.uint64)[:, None] << np.uint64(20)) + np.uint64(1 << 19)
        p = LatentTables(code(latents=1, levels=levels)).frequencies(words) / 2**PRECISION
        assert -(p * np.log2(p)).sum(1).mean() == pytest.approx(bits, abs=1e-4)
        assert bits == pytest.approx(uniform_symbol_entropy(levels), abs=1e-5)

    @pytest.mark.parametrize("kind", ["shared", "none"])
    def test_they_predict_the_symbols(self, kind):
        """The mean code length is within 0.01 bits of the entropy that equal counts would give."""
        one = code(levels=4, dither=kind)
        tables = LatentTables(one)
        tables.count([latents(50_000, seed=1)])
        f = latents(20_000, seed=2)
        found, unit = self.frequencies(tables, 20_000, 3)
        symbols = coding.symbols(f, unit, one)
        p = np.take_along_axis(found, symbols.numpy()[..., None], 2)[..., 0] / 2**PRECISION
        expected = -(found / 2**PRECISION * np.log2(found / 2**PRECISION)).sum(-1).mean()
        assert -np.log2(p).mean() == pytest.approx(expected, abs=0.01)
        assert -np.log2(p).mean() < 2

    def test_they_are_integers_of_the_grid(self):
        tables = LatentTables(code(levels=3, latents=2))
        assert tables.cumulative_KG.dtype == torch.int64
        assert tables.cumulative_KG.shape == (2, 2 * CELLS + 1)
        tables.count([torch.tensor([[-1.0, 1.0]])])
        assert tables.cumulative_KG[0, 1] == tables.cumulative_KG[0, -1] == 2**PRECISION - 3
        assert tables.cumulative_KG[1, -2] == 0
