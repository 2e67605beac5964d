"""The systems: who learns from what, what labels and masks reach, penalties, parents, and draws."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gencomp import recipes
from gencomp.draws import Draws
from gencomp.errors import InputError
from gencomp.system import evaluation_mode
from gencomp.systems.gan_compression.build import build
from gencomp.systems.gan_compression.objectives import distortions
from gencomp.systems.gan_compression.recipe import PRESETS
from gencomp.systems.gan_compression.system import GanSystem
from tests.gencomp import gan_cases
from tests.gencomp.gan_cases import MODES, START, batch, draws, made

LABELLED = {"labels.instances": "instance", "data.maps": ["label", "instance"]}
# Every term of the losses at once.
ALL = {
    "code.centres": "learnt",
    "loss.rate.weight": 0.1,
    "discriminator.r1_weight": 1.0,
    "discriminator.latent_features": 2,
    "networks.noise_channels": 2,
}


def gradients(system: GanSystem, phase: str, **more: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a phase and the gradients of all parameters that got one, by name."""
    one = system.phases[phase]
    one.take_over()
    system.networks.zero_grad(set_to_none=True)
    loss, _ = one(batch(**more), draws(), START)
    loss.backward()
    named = system.networks.named_parameters()
    return loss.detach(), {name: p.grad for name, p in named if p.grad is not None}


def blind(name: str, value: Tensor) -> bool:
    """Whether a gradient is 0 by construction: a bias in front of an instance norm."""
    return name.endswith("bias") and bool(value.abs().max() < 1e-6)


class TestGradients:
    @pytest.mark.parametrize("case", gan_cases.RECIPES)
    def test_every_parameter_of_the_codec_learns(self, case):
        """The encoder too, which an original never trained, and the labels' encoder."""
        system = made(case)
        _, found = gradients(system, "codec")
        own = [name for name in system.networks if name != "discriminator"]
        expected = {
            f"{net}.{key}" for net in own for key, _ in system.networks[net].named_parameters()
        }
        assert {*found} == expected and expected
        assert all(value.abs().max() > 0 for value in found.values())

    @pytest.mark.parametrize("gradient", ["soft", "inward"])
    @pytest.mark.parametrize("norm", ["channel", "instance"])
    def test_an_error_of_pixels_alone_reaches_the_encoder(self, norm, gradient):
        system = made("distortion", **{"networks.norm": norm, "code.gradient": gradient})
        before = {k: v.clone() for k, v in system.networks["encoder"].state_dict().items()}
        optimizer = system.optimizer("codec")
        _, found = gradients(system, "codec")
        for name, value in found.items():
            assert value.abs().max() > 0 or (norm == "instance" and name.endswith("bias"))
        optimizer.step()
        for name, value in system.networks["encoder"].state_dict().items():
            assert name.endswith("bias") or not torch.equal(value, before[name]), name

    @pytest.mark.parametrize("mode", MODES)
    def test_the_discriminators_alone_learn_in_their_update(self, mode):
        system = made(mode, **ALL)
        gradients(system, "codec")
        _, found = gradients(system, "discriminator")
        own = {
            f"discriminator.{key}" for key, _ in system.networks["discriminator"].named_parameters()
        }
        assert {*found} == own
        assert all(v.abs().max() > 0 or blind(n, v) for n, v in found.items())

    def test_features_match_without_a_gradient_of_the_discriminators(self):
        """Feature matching alone trains the decoder; a discriminator that sees the image itself
        finds no difference."""
        only = {"loss.distortion_weight": 0, "loss.adversarial_weight": 0}
        system = made("global", **only)
        loss, found = gradients(system, "codec")
        assert float(loss) > 0 and not any(name.startswith("discriminator") for name in found)
        assert found["encoder.features.1.weight"].abs().max() > 0

    def test_gradient_norms_and_shares_of_levels_are_terms(self):
        """Each channel's shares sum to 1, and a dead channel would be seen at once."""
        system = made()
        assert all(phase.logs_gradients for phase in system.phases.values())
        _, terms = system.phases["codec"](batch(), draws(), START)
        for channel in range(8):
            shares = [float(terms[f"share_{channel}_{level}"]) for level in range(5)]
            assert sum(shares) == pytest.approx(1)
        with torch.no_grad():
            for parameter in system.networks["encoder"].last.parameters():
                parameter.zero_()
        _, terms = system.phases["codec"](batch(), draws(), START)
        assert [float(terms[f"share_0_{level}"]) for level in range(5)] == [0, 0, 1, 0, 0]


class TestOneBatchForBoth:
    def test_the_discriminators_take_what_the_codec_has_made(self):
        """The loss and gradients are those of a second pass through the codec, bit for bit."""
        shared = batch()
        results = []
        for keep in (True, False):
            system = made("conditional")
            codec, discriminator = system.phases.values()
            codec.take_over()
            codec(shared, draws(), START)
            if not keep:
                system.held._made.clear()
            discriminator.take_over()
            calls: list[int] = []
            handle = system.networks["decoder"].register_forward_hook(
                lambda *_, calls=calls: calls.append(1)
            )
            loss, _ = discriminator(shared, draws(), START)
            loss.backward()
            handle.remove()
            assert len(calls) == (0 if keep else 1)
            grads = [p.grad for p in system.networks["discriminator"].parameters()]
            results.append([loss.detach(), *grads])
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))

    def test_nothing_of_another_step_or_batch_is_taken(self):
        system, first = made(), batch()
        system.phases["codec"](first, draws(), START)
        assert system.held.of(0, first) is not None
        assert system.held.of(1, first) is None and system.held.of(0, batch()) is None

    def test_the_order_of_a_step(self):
        found = made(**{"discriminator.updates": 3}).updates(START)
        assert [tuple(update) for update in found] == [
            ("codec", True),
            ("discriminator", False),
            ("discriminator", True),
            ("discriminator", True),
        ]


class TestLosses:
    @pytest.mark.parametrize("mode", MODES)
    def test_the_distortion_is_that_of_the_image_alone(self, mode):
        """Labels are no channels of it, and selective counts the kept regions alone."""
        system = made(mode)
        scene = system.channel.drawn_scene(batch(), draws())
        x_hat = torch.rand_like(scene.images_BCHW)
        found = distortions(scene, x_hat, system.channel.stride)
        errors = (x_hat - scene.images_BCHW).square()
        if mode != "selective":
            torch.testing.assert_close(found, errors.mean((1, 2, 3)))
            unit = ((x_hat + 1) / 2 - (scene.images_BCHW + 1) / 2).square().mean((1, 2, 3))
            torch.testing.assert_close(found, 4 * unit)
            return
        assert scene.kept_B1HW is not None
        kept = nn.functional.interpolate(scene.kept_B1HW, scale_factor=8.0, mode="nearest")
        for one in range(2):
            torch.testing.assert_close(found[one], errors[one][:, kept[one, 0] > 0].mean())

    def test_nothing_kept_is_no_error(self):
        system, images = made("selective"), batch()
        scene = system.channel.scene(images, torch.zeros(2, 64, 64, dtype=torch.bool))
        found = distortions(scene, torch.rand_like(scene.images_BCHW), 8)
        assert found.tolist() == [0, 0]

    def test_presets_and_what_replaces_them(self):
        assert PRESETS["repo"][1] == (12, 0, 1, 10)
        assert PRESETS["hific"][1].distortion == pytest.approx(38.1, abs=0.01)
        loss = gan_cases.recipe(**{"loss.feature_matching_weight": 0, "loss.gan": "hinge"}).loss
        assert loss.weights() == (12, 0, 1, 0) and loss.kind() == "hinge"

    def test_the_loss_is_the_weighted_sum_of_its_terms(self):
        system = made(**{"loss.rate.weight": 2.0, "code.centres": "learnt"})
        loss, terms = system.phases["codec"](batch(), draws(), START)
        adversarial = sum(float(terms[f"adversarial_{k}"]) for k in range(2))
        expected = 12 * terms["mse"] + adversarial + 10 * terms["feature_matching"]
        expected = float(expected + 2 * terms["estimated_bpp"]) + 0.1 * 10
        assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize(("target", "weight"), [(0.01, 2.0), (1.0, 0.25)])
    def test_the_rate_weighs_less_below_its_target(self, target, weight):
        rate = {"weight": 2.0, "target": target, "weight_below": 0.25}
        system = made("distortion", **{f"loss.rate.{key}": value for key, value in rate.items()})
        loss, terms = system.phases["codec"](batch(), draws(), START)
        assert float(terms["estimated_bpp"]) == pytest.approx(8 * math.log2(5) / 256)
        expected = terms["mse"] * 1 + weight * terms["estimated_bpp"]
        assert float(loss.detach()) == pytest.approx(float(expected))

    @pytest.mark.parametrize("mode", MODES)
    def test_half_precision_changes_little(self, mode):
        """Losses and the quantizer are computed in float32."""
        losses = []
        for wanted in (False, True):
            system = made(mode, **{"networks.noise_channels": 2})
            for phase in system.phases.values():
                phase.take_over()
                with torch.autocast("cpu", torch.bfloat16, enabled=wanted):
                    loss, terms = phase(batch(), draws(), START)
                loss.backward()
                assert loss.dtype == torch.float32
                assert all(term.dtype == torch.float32 for term in terms.values())
                losses.append(float(loss.detach()))
        assert losses[2:] == pytest.approx(losses[:2], rel=0.1)

    @pytest.mark.parametrize("kind", ["lsgan", "vanilla", "hinge", "wgan_gp"])
    @pytest.mark.parametrize("mode", MODES)
    def test_every_kind_in_every_mode(self, mode, kind):
        system = made(mode, **{"loss.gan": kind}, **ALL)
        for phase in system.phases:
            loss, found = gradients(system, phase)
            assert loss.isfinite() and all(value.isfinite().all() for value in found.values())

    def test_penalties_come_when_they_are_due(self):
        system = made(**{"discriminator.r1_weight": 3.0, "discriminator.r1_every": 4})
        phase = system.phases["discriminator"]
        assert phase.second_order and not made().phases["discriminator"].second_order
        plain = made().phases["discriminator"]
        for step in (0, 1, 4):
            at = gan_cases.Progress(step, 0, 640)
            loss, terms = phase(batch(), draws(), at)
            base, _ = plain(batch(), draws(), at)
            assert ("r1" in terms) == (step % 4 == 0)
            extra = 3 / 2 * 4 * float(terms.get("r1", 0))
            assert float(loss.detach()) == pytest.approx(float(base.detach()) + extra, rel=1e-5)

    def test_the_gradient_penalty_of_each_scale(self):
        system = made(**{"loss.gan": "wgan_gp"})
        loss, terms = system.phases["discriminator"](batch(), draws(), START)
        gap = sum(float(terms[f"fake_{k}"] - terms[f"real_{k}"]) for k in range(2))
        assert float(loss.detach()) == pytest.approx(gap + 10 * float(terms["penalty"]), rel=1e-4)


class TestNoise:
    @pytest.mark.parametrize("training", [True, False])
    def test_it_is_alive(self, training):
        """With one image, in training and in evaluation mode, at any size."""
        system = made(**{"networks.noise_channels": 2})
        system.networks.train(training)
        for size in ((64, 64), (256, 256), (72, 40)):
            images = batch(1, *size)
            shown = []
            with torch.no_grad():
                for seed in (1, 1, 2):
                    draw = Draws(seed, ("noise",), 1)
                    scene = system.channel.scene(images)
                    shown.append(system.channel.passed(system.networks, scene, draw).x_hat_BCHW)
            assert shown[0].shape == (1, 3, *size)
            assert torch.equal(shown[0], shown[1]) and not torch.equal(shown[0], shown[2])

    def test_without_it_draws_change_nothing(self):
        system, images = made(), batch()
        with evaluation_mode(system.networks):
            shown = [system.reconstruct(images, draws(step)) for step in (1, 2)]
        assert torch.equal(*shown)


class TestModes:
    def shown(self, system: GanSystem, images: Any) -> Tensor:
        with evaluation_mode(system.networks):
            return system.reconstruct(images, draws())

    @pytest.mark.parametrize("mode", MODES)
    def test_labels_reach_the_image_only_where_they_are_sent(self, mode):
        system, images = made(mode, **LABELLED), batch()
        others = images._replace(maps={n: one.flip(0) for n, one in images.maps.items()})
        if mode == "selective":  # the same regions
            regions = torch.zeros(2, 64, 64, dtype=torch.bool)
            first, second = (
                system.channel.passed(
                    system.networks, system.channel.scene(one, regions), draws()
                ).x_hat_BCHW
                for one in (images, others)
            )
            assert not torch.equal(first, second)
            return
        same = torch.equal(self.shown(system, images), self.shown(system, others))
        assert same == (mode in ("global", "global_plus"))

    @pytest.mark.parametrize("mode", ["global_plus", "conditional", "selective"])
    def test_labels_reach_the_discriminators(self, mode):
        system = made(mode)
        assert system.networks["discriminator"].scales[0][0][0].in_channels == 3 + 4
        assert made("global").networks["discriminator"].scales[0][0][0].in_channels == 3

    def test_a_known_label_map_is_an_input_of_the_encoder_s_last_layer(self):
        system = made("conditional")
        scene = system.channel.scene(batch())
        known = system.channel.known(system.networks, scene)
        w = system.channel.latents(system.networks, scene, known)
        other = system.channel.latents(system.networks, scene, -known)
        assert not torch.equal(w, other)

    def test_latents_outside_the_mask_have_no_influence(self):
        """Any change of the image outside of kept regions, but for its labels, is invisible where
        the encoder's windows do not reach into them."""
        system, images = made("selective"), batch(1, 128, 128)
        regions = torch.zeros(1, 128, 128, dtype=torch.bool)
        regions[:, :32, :32] = True
        scene = system.channel.scene(images, regions)
        passed = system.channel.passed(system.networks, scene, draws(n=1))
        assert scene.kept_B1HW is not None and scene.kept_B1HW.sum() == 16
        outside = scene.kept_B1HW == 0
        assert bool((passed.received_BCHW.masked_select(outside) == 0).all())
        # The latents themselves may be anything there.
        known = system.channel.known(system.networks, scene)
        changed = torch.where(outside, torch.randn_like(passed.w_BCHW) * 9, passed.w_BCHW)
        received = system.code(changed) * scene.kept_B1HW
        shown = system.channel.decoded(system.networks, received, known, None)
        assert torch.equal(scene.cut(shown), passed.x_hat_BCHW)

    @pytest.mark.parametrize("size", [(17, 17), (33, 47), (64, 80)])
    @pytest.mark.parametrize("mode", MODES)
    def test_any_size(self, mode, size):
        system, images = made(mode, **LABELLED), batch(1, *size)
        with evaluation_mode(system.networks):
            found = system.summary(system.evaluate(images, draws(n=1)))
            assert system.reconstruct(images, draws(n=1)).shape == (1, 3, *size)
            assert system.sample(draws(n=1), images).shape == (1, 3, *size)
        assert all(map(math.isfinite, (found["mse"], found["nominal_bpp"], found["entropy_bpp"])))
        assert found["entropy_bpp"] <= found["nominal_bpp"] + 1e-9

    def test_the_nominal_rate(self):
        """The fixed length of whole latents, whatever the size of the image."""
        system = made()
        sizes = {(512, 1024): 0.072560, (500, 333): 0.074971, (33, 33): 0.153516}
        for size, expected in sizes.items():
            places = math.prod(system.channel.latent_size(*size))
            bits = places * 8 * math.log2(5)
            assert bits / math.prod(size) == pytest.approx(expected, abs=1e-6)
        with evaluation_mode(system.networks):
            found = system.summary(system.evaluate(batch(2, 33, 33), draws()))
        assert found["nominal_bpp"] == pytest.approx(0.153516, abs=1e-6)
        assert found["images"] == 2

    def test_samples_follow_the_tables(self):
        system = made()
        with torch.no_grad():
            system.code.tables.counts.zero_()
            system.code.tables.counts[:, :, 3] = 10**9
        scene = system.channel.scene(batch(4))
        values = system._drawn_code(draws(n=4), scene)
        assert values.shape == (4, 8, 4, 4)
        assert float((values == 1).float().mean()) > 0.98  # 2⁻¹⁰ is shared evenly

    def test_tables_count_the_training_images(self):
        system = made("conditional")
        system.finalise(gan_cases.supply(16))
        assert system.code.counts_CL.sum(1).tolist() == [256 * 16] * 8


class TestParents:
    def test_encoder_and_decoder_start_from_the_parent(self):
        parent = made("distortion")
        recipe = gan_cases.recipe("global_plus", **{"parents.distortion": "a"})
        system = build(recipe, {"distortion": parent.recipe})
        system.initialise({"distortion": parent.networks.state_dict()}, gan_cases.supply())
        for name in ("encoder", "decoder"):
            for key, value in parent.networks[name].state_dict().items():
                assert torch.equal(system.networks[name].state_dict()[key], value)

    def test_another_kind_of_parent_is_refused(self):
        recipe = gan_cases.recipe(**{"parents.distortion": "runs/a"})
        with pytest.raises(InputError, match=r"runs/a is a run of vae/elbo; a gan_compression/adv"):
            build(recipe, {"distortion": recipes.load("vae_mnist")})

    @pytest.mark.parametrize(
        ("key", "value", "said"),
        [
            ("code.channels", 4, "code.channels is 8, but 4 in the recipe of runs/a"),
            ("networks.width", 4, "networks.width is 3, but 4"),
            ("networks.norm", "instance", "networks.norm is channel, but instance"),
        ],
    )
    def test_other_sizes_are_named(self, key, value, said):
        recipe = gan_cases.recipe(**{"parents.distortion": "runs/a"})
        with pytest.raises(InputError, match=said):
            build(recipe, {"distortion": gan_cases.recipe("distortion", **{key: value})})

    def test_another_mode_is_named(self):
        recipe = gan_cases.recipe("conditional", **{"parents.distortion": "runs/a"})
        with pytest.raises(InputError, match=r"labels.mode is conditional, but global in the"):
            build(recipe, {"distortion": gan_cases.recipe("distortion")})

    def test_small_images_are_refused_by_name(self):
        system = made(**{"discriminator.scales": 3})
        with pytest.raises(InputError, match=r"discriminator.scales is 3, .* at least 64×64 pixel"):
            system.initialise({}, gan_cases.supply(2, 48))


@pytest.mark.parametrize(
    ("case", "key", "value", "said"),
    [
        ("conditional", "data.maps", [], "labels.mode is conditional, but data.maps is []: label"),
        ("conditional", "labels.instances", "instance", "instance must be among them"),
        ("distortion", "labels.mode", "global_plus", "labels.mode is 'global_plus', but it"),
        ("global", "discriminator.spectral_norm", True, "with spectral_norm it must be none"),
        (
            "global",
            "loss.preset",
            "paper",
            "perceptual term has the weight 12, but perceptual.path",
        ),
        ("global", "loss.perceptual.path", "a.pt", "path and sha256 go together"),
        ("global", "loss.rate.weight_below", 1.0, "weight_below needs target"),
        ("global", "training.ema_decay", None, "ema_warm_up needs ema_decay"),
    ],
)
def test_recipes_that_cannot_be_meant(case: str, key: str, value: Any, said: str) -> None:
    with pytest.raises(InputError) as refused:
        gan_cases.recipe(case, **{key: value})
    assert said in str(refused.value)


class Pyramid(nn.Module):
    """A network of features: three maps of means."""

    def forward(self, x: Tensor) -> list[Tensor]:
        pool = nn.functional.avg_pool2d
        return [x, pool(x, 2), pool(x, 4)]


class Squared(nn.Module):
    """A network of distances with a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (self.conv(a) - self.conv(b)).square().mean([1, 2, 3], keepdim=True)


class TestPerceptual:
    def file(self, network: nn.Module, folder: Path) -> dict[str, Any]:
        import hashlib

        from gencomp.evaluation.networks import to_file

        content = to_file(network)
        (folder / "net.pt").write_bytes(content)
        return {
            "loss.perceptual.path": str(folder / "net.pt"),
            "loss.perceptual.sha256": hashlib.sha256(content).hexdigest(),
            "loss.perceptual_weight": 5.0,
        }

    def test_a_network_of_distances(self, tmp_path):
        torch.manual_seed(0)
        network = Squared()
        system = made("distortion", **self.file(network, tmp_path))
        assert "perceptual" not in system.networks and "perceptual" in system.frozen
        system.load_frozen({})
        system.frozen.eval().requires_grad_(False)
        system.to(torch.device("cpu"))
        assert len(system.frozen.state_dict()) == 2
        loss, terms = system.phases["codec"](batch(), draws(), START)
        loss.backward()
        assert float(loss.detach()) == pytest.approx(float(terms["mse"] + 5 * terms["perceptual"]))
        assert all(p.grad is None for p in system.frozen.parameters())
        x, y = torch.rand(2, 2, 3, 32, 32)
        distance = system.frozen["perceptual"]
        torch.testing.assert_close(distance(x, y), network(x, y).flatten().detach())
        assert distance(x, x).tolist() == [0, 0]

    def test_a_network_of_features(self, tmp_path):
        weights = {"loss.perceptual.kind": "features", "loss.perceptual.layer_weights": [1, 2, 4]}
        system = made("distortion", **self.file(Pyramid(), tmp_path), **weights)
        system.load_frozen({})
        distance = system.frozen["perceptual"]
        x = torch.rand(2, 3, 32, 32)
        assert distance(x, x).tolist() == [0, 0]
        shift = 0.1 / 2 * sum(1 / s for s in (0.229, 0.224, 0.225)) / 3
        assert distance(x, x + 0.1).tolist() == pytest.approx([7 * shift] * 2, rel=1e-4)

    def test_what_does_not_fit_is_refused(self, tmp_path):
        keys = self.file(Pyramid(), tmp_path)
        system = made("distortion", **keys, **{"loss.perceptual.kind": "features"})
        system.load_frozen({})
        with pytest.raises(
            InputError, match=r"gives 3 maps, but loss.perceptual.layer_weights has"
        ):
            system.phases["codec"](batch(), draws(), START)
        with pytest.raises(InputError, match=r"--loss.perceptual.path .*net.pt has the SHA-256"):
            made("distortion", **(keys | {"loss.perceptual.sha256": "0" * 64})).load_frozen({})

    def test_the_path_is_no_part_of_a_run_s_identity(self, tmp_path, monkeypatch):
        keys = self.file(Squared(), tmp_path)
        here = gan_cases.recipe("distortion", **keys)
        there = gan_cases.recipe("distortion", **(keys | {"loss.perceptual.path": "net.pt"}))
        identities = [recipes.identity(one, {"data": "h"}, {}) for one in (here, there)]
        assert identities[0] == identities[1] and "loss.perceptual.sha256" in identities[0]
        monkeypatch.chdir(tmp_path)
        assert recipes.with_absolute_paths(there).loss.perceptual.path == str(tmp_path / "net.pt")
