"""The stages: alternation, schedules, what each update moves, and what stays frozen."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from gencomp import recipes
from gencomp.errors import InputError
from gencomp.losses import gradient_penalties
from gencomp.system import Progress, evaluation_mode
from gencomp.systems import build_system
from gencomp.systems.urdp import code as coding
from gencomp.systems.urdp import objectives
from tests.gencomp import urdp_cases, vae_cases

STAGES = ("end_to_end", "universal", "refinement")


class TestAlternation:
    @pytest.mark.parametrize(
        ("batches", "critic", "decoder"), [(938, 469, 469), (1145, 573, 572)], ids=["MNIST", "SVHN"]
    )
    def test_published_epochs(self, batches, critic, decoder):
        kinds = [objectives.is_decoder_batch(index, 1) for index in range(batches)]
        assert not kinds[0]
        assert (kinds.count(False), kinds.count(True)) == (critic, decoder)

    def test_five_batches_for_the_critic(self):
        found = [index for index in range(20) if objectives.is_decoder_batch(index, 5)]
        assert found == [1, 7, 13, 19]

    def test_the_system_starts_every_epoch_with_the_critic(self):
        """An epoch of 150 images takes 3 batches of 64 or, where it begins inside one, 2."""
        system = urdp_cases.made()
        phases = [system.updates(Progress(step, 64 * step, 150))[0] for step in range(8)]
        assert [one.phase for one in phases] == [
            *("critic", "codec", "critic"),
            *("critic", "codec"),
            *("critic", "codec"),
            "critic",
        ]
        assert all(one.fresh_batch for one in phases)

    def test_batches_that_are_accumulated_count_once(self):
        system = urdp_cases.made(**{"training.accumulate": 2})
        phases = [system.updates(Progress(n, 128 * n, 1280))[0].phase for n in range(4)]
        assert phases == ["critic", "codec", "critic", "codec"]

    def test_an_epoch_of_one_batch_is_refused(self):
        with pytest.raises(InputError, match="single batch of 64"):
            urdp_cases.made().updates(Progress(0, 0, 64))


class TestSchedules:
    def rates(self, name: str, epochs: tuple[int, ...]) -> list[float]:
        optimizer = recipes.load(name).optimizer
        return [optimizer.rate_at(epoch) / optimizer.rate_at(0) for epoch in epochs]

    def test_published_learning_rates(self):
        assert self.rates("urdp_mnist", (0, 19, 20, 39, 40)) == pytest.approx(
            [1, 1, 0.2, 0.2, 0.02]
        )
        assert self.rates("urdp_svhn", (24, 25)) == pytest.approx([1, 0.2])
        for name in ("urdp_mnist", "urdp_svhn"):
            recipe = recipes.load(name)
            critic = recipe.critic.optimizer
            for epoch in (0, 24, 25, 45):
                shares = [o.rate_at(epoch) / o.rate_at(0) for o in (critic, recipe.optimizer)]
                assert shares[0] == pytest.approx(shares[1])

    def test_the_critic_s_start_without_a_perception_weight(self):
        system = urdp_cases.made(**{"loss.perception_weight": 0})
        weights = [system.perception_weight(Progress(0, 64 * e, 64)) for e in (0, 1, 6, 11, 12, 29)]
        expected = [5e-4, 4.58333e-4, 2.5e-4, 4.16667e-5, 0, 0]
        assert weights == pytest.approx(expected, abs=1e-9)
        half = system.perception_weight(Progress(0, 32, 64))
        assert half == 5e-4

    @pytest.mark.parametrize("stage", ["universal", "refinement"])
    def test_later_stages_have_none(self, stage):
        """No bit of a gradient depends on the critic, which it does with a weight."""
        for weight in (0, 1e-3):
            gradients = []
            for scale in (1, 100):
                system = urdp_cases.made(stage, **{"loss.perception_weight": weight})
                assert system.perception_weight(urdp_cases.START) == weight
                with torch.no_grad():
                    for parameter in system.networks["critic"].parameters():
                        parameter.mul_(scale)
                assert urdp_cases.update(system, "codec")["fake_score"] != 0
                trained = system.phases["codec"].trained_parameters()
                gradients.append(torch.cat([one.grad.flatten() for one in trained]))
            assert torch.equal(*gradients) == (weight == 0)
            assert gradients[0].abs().max() > 0

    def test_a_weight_stays(self):
        system = urdp_cases.made(**{"loss.perception_weight": 0.0033})
        assert system.perception_weight(urdp_cases.START) == 0.0033


class TestUpdates:
    @pytest.mark.parametrize("stage", STAGES)
    @pytest.mark.parametrize("phase", ["critic", "codec"])
    def test_each_moves_its_networks_alone(self, stage, phase):
        system = urdp_cases.made(stage)
        trained = {
            "critic": {"critic"},
            "codec": {"decoder"} if stage == "universal" else {"encoder", "decoder"},
        }[phase]
        before = {
            name: [p.clone() for p in network.parameters()]
            for name, network in [*system.networks.items(), *system.frozen.items()]
        }
        urdp_cases.update(system, phase)
        for name, network in [*system.networks.items(), *system.frozen.items()]:
            moved = any(
                not torch.equal(*pair)
                for pair in zip(before[name], network.parameters(), strict=True)
            )
            assert moved == (name in trained), name
            grads = [p.grad for p in network.parameters() if p.grad is not None]
            assert bool(grads) == (name in trained), name

    @pytest.mark.parametrize("stage", ["universal", "refinement"])
    def test_the_frozen_encoder_stays_in_every_bit(self, stage):
        system = urdp_cases.made(stage)
        before = copy.deepcopy(system.frozen.state_dict())
        for step in range(6):
            urdp_cases.update(system, "critic" if step % 2 == 0 else "codec", step)
        for name, value in system.frozen.state_dict().items():
            assert torch.equal(value, before[name]), name

    def test_the_encoder_of_the_authors_drifts(self):
        """Its weights stay, and its running statistics move with every batch."""
        system = urdp_cases.made("universal", **{"encoder.statistics": "drifting"})
        assert not system.frozen
        system.initialise({"encoder": urdp_cases.parent_state()}, urdp_cases.supply(system))
        encoder = system.networks["base_encoder"]
        before = copy.deepcopy(encoder.state_dict())
        for step in range(4):
            urdp_cases.update(system, "critic" if step % 2 == 0 else "codec", step)
        for name, value in encoder.state_dict().items():
            running = "running" in name or "num_batches" in name
            assert torch.equal(value, before[name]) != running, name

    @pytest.mark.parametrize(
        ("name", "statistics", "changes"),
        [
            ("urdp_mnist", "frozen", False),
            ("urdp_mnist", "drifting", True),
            ("urdp_svhn", "drifting", False),
        ],
    )
    def test_symbols_after_steps_of_a_second_stage(self, name, statistics, changes):
        """A drift reaches the code through batch norms, which the encoder of SVHN has none of."""
        parent = recipes.load(name, urdp_cases.NARROW)
        system = urdp_cases.made("universal", parent, **{"encoder.statistics": statistics})
        state = {"encoder": urdp_cases.parent_state(parent)}
        system.initialise(state, urdp_cases.supply(system))
        x_BCHW = system.to_unit(urdp_cases.batch(system, 64).images_BCHW)
        layer = system.layers[0]
        unit_BK = layer.code.random_units(urdp_cases.draws(n=64), "dither")

        def coded():
            with evaluation_mode(system.networks), torch.no_grad():
                f_BK = system.every(layer.encoder)(x_BCHW)
            return f_BK, coding.symbols(f_BK, unit_BK, layer.code)

        before = coded()
        assert len(before[1].unique()) > 1
        for step in range(4):
            urdp_cases.update(system, "critic" if step % 2 == 0 else "codec", step)
        for pair in zip(coded(), before, strict=True):
            assert torch.equal(*pair) != changes

    def test_running_statistics_advance_in_the_critic_s_batches_too(self):
        system = urdp_cases.made()
        counts = [b for name, b in system.networks.named_buffers() if name.endswith("tracked")]
        urdp_cases.update(system, "critic")
        assert {int(count) for count in counts} == {1}

    def test_the_last_bias_of_a_critic_has_no_gradient(self):
        system = urdp_cases.made()
        urdp_cases.update(system, "critic")
        last = system.networks["critic"][-1]
        assert last.bias.grad.abs().max() == 0
        assert last.weight.grad.abs().max() > 0

    def test_perception_reaches_encoder_and_decoder(self):
        """With the error's gradient taken out, what is left is λ times the critic's."""
        plain = urdp_cases.made(**{"loss.perception_weight": 1e-9})
        strong = urdp_cases.made(**{"loss.perception_weight": 1.0})
        for system in (plain, strong):
            urdp_cases.update(system, "codec")
        for name in ("encoder", "decoder"):
            a, b = (
                torch.cat([p.grad.flatten() for p in system.networks[name].parameters()])
                for system in (plain, strong)
            )
            assert (a - b).norm() > 1e-3 * a.norm()


class TestCriticAlgebra:
    def test_penalty_of_a_linear_critic(self):
        """It is (g − 1)² for a weight of norm g, for any images."""
        weight = torch.randn(1, 3, 4, 4, dtype=torch.float64)
        weight *= 2.5 / weight.norm()
        x, y = torch.rand(2, 5, 3, 4, 4, dtype=torch.float64)
        found = gradient_penalties(
            lambda u: (u * weight).sum((1, 2, 3))[:, None],
            x,
            y,
            torch.rand(5).double(),
            "per_image",
        )
        assert found.numpy() == pytest.approx(1.5**2, rel=1e-12)

    def test_a_shift_of_five_reads_as_six_and_a_quarter(self):
        """A linear critic of data shifted by 5 converges to a gap of 5·(1 + 5/20) = 6.25."""
        shift = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
        shift[0, 0, 1, 2] = 5
        numbers = torch.Generator().manual_seed(0)
        x = torch.randn(64, 1, 4, 4, generator=numbers, dtype=torch.float64)
        weight = torch.zeros(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
        with torch.no_grad():
            weight += 0.01
        optimizer = torch.optim.SGD([weight], lr=0.02)

        def scores(u: torch.Tensor) -> torch.Tensor:
            return (u * weight).sum((1, 2, 3))[:, None]

        for _ in range(400):
            optimizer.zero_grad()
            mix = torch.rand(64, generator=numbers, dtype=torch.float64)
            gap = scores(x + shift).mean() - scores(x).mean()
            penalty = gradient_penalties(scores, x + shift, x, mix, "per_image").mean()
            (-gap + 10 * penalty).backward()
            optimizer.step()
        assert gap.item() == pytest.approx(6.25, abs=1e-3)


class TestEvaluation:
    def test_the_published_rate_of_a_refinement_of_svhn(self):
        parent = urdp_cases.recipes.load("urdp_svhn", urdp_cases.NARROW)
        code = {"code.latents": 10, "code.levels": 8}
        system = urdp_cases.made("refinement", parent, **code)
        with evaluation_mode(system.networks):
            metrics = system.summary(system.evaluate(urdp_cases.batch(system), urdp_cases.draws()))
        assert metrics["nominal_bpp"] == 60 / 1024

    @pytest.mark.parametrize("stage", STAGES)
    def test_summary(self, stage):
        system = urdp_cases.made(stage)
        with evaluation_mode(system.networks):
            found = system.evaluate(urdp_cases.batch(system), urdp_cases.draws())
            metrics = system.summary(found)
            images = system.reconstruct(urdp_cases.batch(system), urdp_cases.draws())
        bits = 9.5098 if stage == "refinement" else 4.7549
        assert metrics["nominal_bpp"] == pytest.approx(bits / 784, rel=1e-5)
        assert metrics["images"] == 6
        original = urdp_cases.batch(system).images_BCHW.double() / 255
        mse = (images.double() / 255 - original).square().mean().item()
        # The image was rounded to 8 bits, the metric was not.
        assert metrics["mse_unit"] == pytest.approx(mse, abs=2e-4)
        assert metrics["mse"] == pytest.approx(4 * metrics["mse_unit"])
        assert metrics["critic_distance"] <= metrics["critic_gap"] or metrics["critic_gap"] <= 0

    def test_a_drifted_encoder_is_evaluated_by_its_own_statistics(self):
        system = urdp_cases.made("universal", **{"encoder.statistics": "drifting"})
        with evaluation_mode(system.networks):
            a = system.reconstruct(urdp_cases.batch(system), urdp_cases.draws())
            b = system.reconstruct(urdp_cases.batch(system), urdp_cases.draws())
        assert torch.equal(a, b)

    def test_tables_are_counted_at_the_end(self):
        system = urdp_cases.made()
        before = system.networks["tables"].cumulative_KG.clone()
        system.finalise(urdp_cases.supply(system))
        assert not torch.equal(system.networks["tables"].cumulative_KG, before)
        universal = urdp_cases.made("universal")
        frozen = copy.deepcopy(universal.frozen.state_dict())
        universal.finalise(urdp_cases.supply(universal))
        for name, value in universal.frozen.state_dict().items():
            assert torch.equal(value, frozen[name])


class TestFreshCritic:
    def test_it_alone_learns(self):
        system = urdp_cases.made("critic")
        before = copy.deepcopy(system.frozen.state_dict())
        weights = [p.clone() for p in system.networks["critic"].parameters()]
        assert list(system.networks) == ["critic"]
        assert system.updates(Progress(7, 7 * 64, 640)) == (("critic", True),)
        urdp_cases.update(system, "critic")
        for name, value in system.frozen.state_dict().items():
            assert torch.equal(value, before[name]), name
        pairs = zip(weights, system.networks["critic"].parameters(), strict=True)
        assert any(not torch.equal(*pair) for pair in pairs)

    def test_its_figures_have_names_of_their_own(self):
        system = urdp_cases.made("critic")
        with evaluation_mode(system.networks):
            metrics = system.summary(system.evaluate(urdp_cases.batch(system), urdp_cases.draws()))
        assert {"fresh_critic_gap", "fresh_critic_distance", "mse_unit"} <= metrics.keys()
        assert "critic_gap" not in metrics

    def test_it_judges_every_stage(self):
        base = urdp_cases.recipe()
        for stage in ("universal", "refinement"):
            decoder = urdp_cases.made(stage)
            recipe = urdp_cases.recipe("critic", **{"parents.encoder": "encoder"})
            system = build_system(recipe, {"decoder": decoder.recipe, "encoder": base})
            system.load_frozen(
                {"decoder": decoder.networks.state_dict(), "encoder": urdp_cases.parent_state()}
            )
            system.frozen.eval()
            batch, draws = urdp_cases.batch(decoder), urdp_cases.draws()
            with evaluation_mode(decoder.networks), evaluation_mode(system.networks):
                pair = [one.reconstruct(batch, draws) for one in (decoder, system)]
            assert torch.equal(*pair)
            assert system.codec().reader_fingerprint == decoder.codec().reader_fingerprint

    def test_parents_that_do_not_fit_are_refused(self):
        base, universal = urdp_cases.recipe(), urdp_cases.recipe("universal")
        both = urdp_cases.recipe("critic", **{"parents.encoder": "encoder"})
        with pytest.raises(InputError, match=r"parents\.encoder must be null"):
            build_system(both, {"decoder": base, "encoder": base})
        with pytest.raises(InputError, match="reads the code of another run"):
            build_system(urdp_cases.recipe("critic"), {"decoder": universal})
        with pytest.raises(InputError, match="a urdp/critic needs one of"):
            build_system(urdp_cases.recipe("critic"), {"decoder": vae_cases.recipe()})


class TestStarts:
    def test_a_later_critic_starts_from_the_parent_s(self):
        parent = urdp_cases.parent_state()
        for stage in ("universal", "refinement"):
            for from_parent in (True, False):
                system = urdp_cases.made(stage, **{"critic.from_parent": from_parent})
                system.initialise({"encoder": parent}, urdp_cases.supply(system))
                same = [
                    torch.equal(value, parent[f"critic.{name}"])
                    for name, value in system.networks["critic"].state_dict().items()
                ]
                assert all(same) == from_parent

    def test_the_frozen_encoder_is_the_parent_s(self):
        system, parent = urdp_cases.made("universal"), urdp_cases.parent_state()
        for name, value in system.frozen["base_encoder"].state_dict().items():
            assert torch.equal(value, parent[f"encoder.{name}"])

    def test_another_parent_is_refused(self):
        for stage in ("universal", "refinement"):
            with pytest.raises(InputError, match=f"urdp/{stage} needs one of urdp/end_to_end"):
                build_system(urdp_cases.recipe(stage), {"encoder": vae_cases.recipe()})

    def test_images_that_do_not_fit_are_refused(self):
        system = urdp_cases.made()
        noise = urdp_cases.batch(system)
        with pytest.raises(InputError, match=r"channels is 1, but there are images in colour"):
            colour = noise.images_BCHW.clone()
            colour[0, 1] = 255 - colour[0, 1]
            one = noise._replace(images_BCHW=colour)
            system.initialise({}, iter([(one, urdp_cases.draws())]))
        with pytest.raises(InputError, match=r"image_size is \[28, 28\]"):
            small = noise._replace(images_BCHW=noise.images_BCHW[..., :20])
            system.initialise({}, iter([(small, urdp_cases.draws())]))

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("code.low", -0.9, "would overload"),
            ("code.high", 0.5, "would overload"),
            ("code.gradient", "noise", "allowed are soft and identity"),
            ("code.levels", 1, "code.levels"),
            ("code.levels", 257, "code.levels"),
            ("networks.image_size", 29, "networks.image_size"),
            ("optimizer.decay_factor", [0.1], "one for each"),
        ],
    )
    def test_recipes_that_cannot_work_are_refused(self, key, value, message):
        private = {"code.dither": "private"} if value == "noise" else {}
        with pytest.raises(InputError, match=message):
            recipes.load("urdp_mnist", {key: value, **private})


@pytest.mark.parametrize("name", ["urdp_mnist", "urdp_svhn"])
def test_published_sizes(name):
    system = build_system(recipes.load(name), {})
    counts = {
        key: sum(p.numel() for p in network.parameters())
        for key, network in system.networks.items()
    }
    expected = {
        "urdp_mnist": {"encoder": 585_097, "decoder": 326_465, "critic": 1_030_145, "tables": 0},
        "urdp_svhn": {"encoder": 1_070_218, "decoder": 645_383, "critic": 1_033_345, "tables": 0},
    }
    assert counts == expected[name]
    assert all(isinstance(network, nn.Module) for network in system.networks.values())
