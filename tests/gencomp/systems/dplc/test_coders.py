"""Systems with a code: the frozen generator, noise, statistics, rates, baselines."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gencomp.errors import InputError
from gencomp.networks.batch_norm import GlobalBatchNorm2d
from gencomp.system import Batch, Picture, System, evaluation_mode
from gencomp.systems import build_system
from gencomp.systems.common import pixels
from gencomp.systems.dplc import parts
from tests.gencomp.dplc_cases import (
    ADVERSARIAL,
    BASELINES,
    GENERATORS,
    batch,
    draws,
    finalised,
    gradients,
    loss_of,
    made,
    recipe,
    same,
    state,
    states,
    step,
    supply,
)


def codec(**overrides: Any) -> System:
    return finalised(made("codec", **overrides))


def reconstructed(system: System, number: int = 0) -> torch.Tensor:
    with evaluation_mode(system.networks):
        found = system.reconstruct(batch(), draws(number))
    assert found is not None
    return found


class TestFrozenGenerator:
    @pytest.mark.parametrize("mode", ["frozen", "batch"])
    @pytest.mark.parametrize("overrides", [{}, ADVERSARIAL], ids=["mmd", "dz"])
    def test_steps_change_nothing_of_it(self, mode: str, overrides: dict[str, Any]) -> None:
        """Its weights and its statistics stay; the coder changes all through."""
        system = codec(**overrides, **{"networks.bn_mode": mode})
        before = states(system)
        for number in range(3):
            step(system, number)
        assert same(before["generator"], state(system.networks["generator"]))
        assert not system.networks["generator"].training
        assert not gradients(system.networks["generator"])
        for name in ("code_encoder", "latent_mapper"):
            new = state(system.networks[name])
            unmoved = [key for key in new if torch.equal(new[key], before[name][key])]
            # A bias in front of a batch norm has no effect, so it may stay.
            assert all(key.endswith("bias") for key in unmoved), unmoved

    def test_it_is_the_parents(self) -> None:
        one, two = codec(), codec(**{"training.seed": 5})
        assert same(state(one.networks["generator"]), state(two.networks["generator"]))

    @pytest.mark.parametrize("stage", GENERATORS)
    def test_every_generator_can_be_one(self, stage: str) -> None:
        parent = finalised(made(stage))
        system = build_system(recipe("codec"), {"generator": recipe(stage)})
        system.initialise({"generator": parent.networks.state_dict()}, supply())
        assert same(state(parent.networks["generator"]), state(system.networks["generator"]))

    @pytest.mark.parametrize("stage", ["codec", *BASELINES])
    def test_no_other_run_can(self, stage: str) -> None:
        with pytest.raises(
            InputError, match=f"is a run of dplc/{stage}; a dplc/codec needs one of"
        ):
            build_system(recipe("codec"), {"generator": recipe(stage)})

    def test_its_statistics_are_its_own_or_those_of_the_batch(self) -> None:
        losses = {}
        for mode in ("frozen", "batch"):
            system = codec(**{"networks.bn_mode": mode})
            losses[mode] = loss_of(system.phases["codec"]).terms["rmse"]
            x_BCHW = pixels.to_signed(batch().images_BCHW)
            system.networks.train()
            with torch.no_grad():
                z_BM11 = system.encode(system.networks, x_BCHW, draws())  # type: ignore[attr-defined]
                system.networks["generator"].train(mode == "batch")
                error = (system.networks["generator"](z_BM11) - x_BCHW).square().mean().sqrt()
            assert losses[mode].item() == pytest.approx(error.item(), rel=1e-5)
        assert losses["frozen"] != losses["batch"]

    def test_the_maps_batch_norm_starts_at_the_priors_variance(self) -> None:
        parent = recipe("wae", **{"loss.prior_variance": 9.0})
        torch.manual_seed(0)
        nine = build_system(recipe("codec"), {"generator": parent})
        torch.manual_seed(0)
        one = build_system(recipe("codec"), {"generator": recipe("wae")})
        x_BCHW = pixels.to_signed(batch().images_BCHW)
        latents = [s.encode(s.networks, x_BCHW, draws()) for s in (one, nine)]  # type: ignore[attr-defined]
        torch.testing.assert_close(latents[1], 3 * latents[0])

    def test_a_code_wider_than_the_latent_is_refused(self) -> None:
        with pytest.raises(InputError, match="code_channels is 9, allowed are 1 to"):
            made("codec", **{"networks.code_channels": 9})


class TestNoise:
    @pytest.mark.parametrize("stage", ["codec", "gc"])
    def test_it_decides_reconstructions(self, stage: str) -> None:
        """Two draws differ in every image, the same draw gives the same bits."""
        system = finalised(made(stage))
        x_BCHW = pixels.to_signed(batch().images_BCHW)

        def latent(number: int) -> torch.Tensor:
            return system.encode(system.networks, x_BCHW, draws(number))  # type: ignore[attr-defined, no-any-return]

        with evaluation_mode(system.networks):
            a, b, c = (latent(number) for number in (0, 1, 0))
        assert torch.equal(a, c)
        assert (a - b).flatten(1).abs().max(1).values.min() > 0
        assert torch.equal(reconstructed(system), reconstructed(system))

    @pytest.mark.parametrize(("stage", "asked"), [("codec", True), ("gc", True), ("cae", False)])
    def test_without_it_reconstructions_are_always_the_same(self, stage: str, asked: bool) -> None:
        """PV = 0."""
        system = finalised(made(stage, **({"networks.stochastic": False} if asked else {})))
        assert torch.equal(reconstructed(system, 0), reconstructed(system, 1))
        assert system.networks["latent_mapper"].noise_shape == (0, 4, 4)

    @pytest.mark.parametrize("levels", [2, 3, 8])
    def test_it_is_uniform_on_a_half_cell(self, levels: int) -> None:
        mapper: Any = made("codec").networks["latent_mapper"]
        noise = parts.mapper_noise(mapper, levels, draws(n=512))
        assert noise.shape == (512, 1, 4, 4)
        assert noise.abs().max() <= 1 / levels
        # 8192 draws of variance 1/(3 L²), 4 standard errors: error rate 1e-4.
        assert float(noise.var()) * 3 * levels**2 == pytest.approx(1, abs=4 * 0.9 / 8192**0.5)


class TestStatistics:
    def test_finalise_leaves_the_frozen_generator_alone(self) -> None:
        system = codec()
        step(system)
        before = states(system)
        finalised(system)
        assert same(before["generator"], state(system.networks["generator"]))
        assert not same(before["latent_mapper"], state(system.networks["latent_mapper"]))

    @pytest.mark.parametrize("stage", BASELINES)
    def test_those_of_a_baselines_generator_come_from_its_latents(self, stage: str) -> None:
        system = made(stage)
        step(system)
        finalised(system, 32)
        net: Any = system.networks["generator"]
        norms = [m for m in net.modules() if isinstance(m, GlobalBatchNorm2d)]
        assert all(norm.num_batches_tracked == 4 for norm in norms)
        means = []
        with evaluation_mode(system.networks):
            for _, (images, noise) in zip(range(4), supply(), strict=False):
                x_BCHW = pixels.to_signed(images.images_BCHW)
                z_BM11 = system.encode(system.networks, x_BCHW, noise)  # type: ignore[attr-defined]
                means.append(net.layers[0](z_BM11).mean((0, 2, 3)))
        torch.testing.assert_close(norms[0].running_mean, torch.stack(means).mean(0))

    def test_a_batch_of_one_reconstructs_as_in_a_large_one(self) -> None:
        """Evaluation mode does not mix images."""
        system = codec(**{"networks.stochastic": False})
        alone = Batch(*(part[:1] for part in batch()[:4]))
        with evaluation_mode(system.networks):
            b = system.reconstruct(alone, draws(n=1))
        assert b is not None
        assert (reconstructed(system)[:1].int() - b.int()).abs().max() <= 1


@pytest.mark.parametrize("stage", ["codec", *BASELINES])
@pytest.mark.parametrize(
    ("channels", "levels", "bpp"),
    [(8, 2, 0.03125), (2, 2, 0.0078125), (4, 4, 0.03125), (1, 3, 26 / 4096)],
)
def test_rate(stage: str, channels: int, levels: int, bpp: float) -> None:
    """An image has n·16·log2(L) bits, rounded up to whole bits."""
    system = made(stage, **{"networks.code_channels": channels, "networks.levels": levels})
    with evaluation_mode(system.networks):
        sums = system.evaluate(batch(), draws())
    assert system.summary(sums.all_reduced())["nominal_bpp"] == bpp


class TestCodecs:
    @pytest.mark.parametrize("stage", ["codec", *BASELINES])
    def test_only_the_networks_that_decode_are_part_of_one(self, stage: str) -> None:
        """A critic or a latent discriminator changes neither fingerprint nor files."""
        system = finalised(made(stage, **(ADVERSARIAL if stage == "codec" else {})))
        made_codec = system.codec()
        assert made_codec is not None
        picture = Picture(batch(1).images_BCHW[0].permute(1, 2, 0).numpy())
        stream = made_codec.compress(picture)
        assert (made_codec.decompress(stream) == made_codec.reconstruct(picture)).all()
        for name in {"critic", "latent_discriminator"} & set(system.networks):
            torch.nn.init.ones_(next(system.networks[name].parameters()))
        again = system.codec()
        assert again is not None and again.reader_fingerprint == made_codec.reader_fingerprint

    def test_one_uses_frozen_statistics_whatever_the_mode(self) -> None:
        frozen, from_batch = (codec(**{"networks.bn_mode": m}) for m in ("frozen", "batch"))
        picture = Picture(batch(1).images_BCHW[0].permute(1, 2, 0).numpy())
        a, b = frozen.codec(), from_batch.codec()
        assert a is not None and b is not None
        assert (a.reconstruct(picture) == b.reconstruct(picture)).all()


def test_a_critic_moves_the_coder_of_gc_only_if_it_may() -> None:
    for reaches in (False, True):
        system = made("gc", **{"loss.adversarial_to_encoder": reaches})
        plain = made("cae")
        losses = [loss_of(s.phases["codec"]).terms["rmse"].item() for s in (system, plain)]
        assert losses[0] > 0 and losses[1] > 0
        with torch.no_grad():
            weights = {"loss.adversarial_weight": 0.0, "loss.adversarial_to_encoder": reaches}
        without = made("gc", **weights)
        loss_of(without.phases["codec"])
        same_coder = all(
            torch.equal(a, b)
            for name in ("code_encoder", "latent_mapper")
            for a, b in zip(
                gradients(system.networks[name]), gradients(without.networks[name]), strict=True
            )
        )
        assert same_coder == (not reaches)
