"""Decoders of one's own: what is taken, what is refused and in which words, and the guide."""

from __future__ import annotations

import itertools
import pickle
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from gencomp.errors import InputError
from gencomp.external.decoders import Model, open_model
from gencomp.networks.decoders import Blur, mlp_decoder
from gencomp.rate_distortion.priors import Gaussian, GaussianMixture
from tests.conftest import ROOT

PLAIN = """
    import torch
    from torch import nn

    class Plain(nn.Module):
        latent_dim = 3

        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def decode(self, z):
            return self.layer(z)
"""
Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write a module of source code into the current directory; "its name:Plain"."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    numbers = itertools.count()

    def written(source: str = PLAIN, attribute: str = "Plain", **changes: str) -> str:
        for old, new in changes.items():
            source = source.replace(MARKS[old], new)
        name = f"written_{next(numbers)}"
        lines = source.strip("\n").splitlines()
        indent = len(lines[0]) - len(lines[0].lstrip())
        (tmp_path / f"{name}.py").write_text("\n".join(line[indent:] for line in lines))
        return f"{name}:{attribute}"

    yield written
    for name in set(sys.modules) - before:
        if name.startswith(("written_", "my_models")):
            del sys.modules[name]


# What a test replaces in PLAIN.
EVERY_TENTH = """self.calls = getattr(self, "calls", 0) + 1
            return self.layer(z) + self.calls // 10"""
MARKS = {"latent_dim": "latent_dim = 3", "answer": "return self.layer(z)", "made": "class Plain"}


def plain(seed: int = 1) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(3, 4)


def state(seed: int = 1) -> dict[str, Tensor]:
    return {f"layer.{name}": value for name, value in plain(seed).state_dict().items()}


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def images(n: int = 2, side: int = 2, grey: bool = True) -> Tensor:
    pixels = np.random.default_rng(0).integers(0, 256, (n, 1 if grey else 3, side, side))
    return torch.from_numpy(pixels.astype(np.uint8)).expand(-1, 3, -1, -1)


class TestTaken:
    @pytest.mark.parametrize("kind", ["pt", "safetensors"])
    def test_weights(self, kind: str, write: Write, tmp_path: Path) -> None:
        path = tmp_path / f"weights.{kind}"
        if kind == "pt":
            saved(path, {"state_dict": state(), "global_step": 7, "losses": [0.5]})
        else:
            save_file(state(), path)
        decoder = open_model(write(), path).decoder
        z_BK = torch.randn(5, 3)
        torch.testing.assert_close(decoder.decode(z_BK), plain()(z_BK).detach())
        assert decoder.values == 4 and decoder.latent_dim == 3 and decoder.log_variance is None
        assert decoder.prior.identity == Gaussian(3).identity
        x_BN = decoder.target(images())
        torch.testing.assert_close(x_BN, images()[:, 0].flatten(1) / 255)

    def test_images_of_any_shape_are_flattened(self, write: Write) -> None:
        reference = write(answer="return self.layer(z).view(-1, 1, 2, 2), 0")
        decoder = open_model(reference).decoder
        assert decoder.decode(torch.zeros(5, 3)).shape == (5, 4)
        assert decoder.log_variance is not None and float(decoder.log_variance) == 0

    def test_a_chain_of_layers_stays_visible(self, write: Write) -> None:
        source = """
            from torch import nn
            from gencomp.networks import decoders

            def mlp():
                return decoders.Decoder(decoders.mlp_decoder(3, (8,)), 3)

            def dcgan():
                return decoders.Decoder(decoders.dcgan_decoder(3, 2), 3, (-1, 1))

            def unflattened():
                chain = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Unflatten(1, (1, 2, 2)))
                return decoders.Decoder(chain, 3)
        """
        reference = write(source, "mlp")
        z_BK = torch.randn(5, 3)
        decode = open_model(reference).decoder.decode
        assert [type(m) for m in decode] == [type(m) for m in mlp_decoder(3, (8,))]  # type: ignore[attr-defined]
        convolutional = open_model(reference.replace("mlp", "dcgan")).decoder
        assert isinstance(convolutional.decode, nn.Sequential)
        assert not any(m.training for m in convolutional.decode)
        x_BN = convolutional.target(images(side=32, grey=False))
        assert x_BN.shape == convolutional.decode(z_BK[:2]).shape and float(x_BN.min()) == -1
        chain = open_model(reference.replace("mlp", "unflattened")).decoder.decode
        assert isinstance(chain, nn.Sequential) and chain(z_BK).shape == (5, 4)

    def test_it_is_frozen_and_in_evaluation_mode(self, write: Write) -> None:
        source = PLAIN.replace("nn.Linear(3, 4)", "nn.Sequential(nn.Linear(3, 4), nn.Dropout())")
        source = source.replace("return", "assert not self.training; return")
        decoder = open_model(write(source)).decoder
        z_BK = torch.randn(5, 3, requires_grad=True)
        x_BN = decoder.decode(z_BK)
        assert torch.equal(x_BN, decoder.decode(z_BK))
        (grad_BK,) = torch.autograd.grad(x_BN.sum(), z_BK)
        assert bool(grad_BK.any())
        assert not decoder.decode(z_BK.detach()).requires_grad  # its weights need no gradient
        with torch.no_grad():
            open_model(write(source))

    def test_a_decoder_in_double_precision(self, write: Write) -> None:
        reference = write(PLAIN.replace("nn.Linear(3, 4)", "nn.Linear(3, 4).double()"))
        decoder = open_model(reference).decoder
        assert decoder.target(images()).dtype == torch.float64
        assert decoder.decode(torch.zeros(1, 3).double()).dtype == torch.float64

    @pytest.mark.parametrize(
        ("stated", "expected"),
        [
            ("x_logvar = -3.5", -3.5),
            ("x_logvar = torch.tensor([-3.5])", -3.5),
            ("x_logvar = torch.tensor([[1.0, 2, 3, 4]])", [1, 2, 3, 4]),
            ("x_logvar = None", None),
            ("x_logvar = nn.Parameter(torch.tensor(2.0))", 2.0),
        ],
    )
    def test_log_variances(self, stated: str, expected: Any, write: Write) -> None:
        model = open_model(write(latent_dim=f"latent_dim = 3; {stated}"))
        found = model.decoder.log_variance
        assert (found if found is None else found.tolist()) == expected
        assert found is None or not found.requires_grad
        assert (model.identity == open_model(write()).identity) is False

    @pytest.mark.parametrize(
        ("answered", "expected"),
        [
            ("-1.5", -1.5),
            ("torch.full((len(z), 4), 2.0)", [2, 2, 2, 2]),
            ("torch.arange(4)", [0, 1, 2, 3]),
            ("torch.zeros(len(z))", 0),
            ("None", None),
        ],
    )
    def test_log_variances_that_decode_answers(
        self, answered: str, expected: Any, write: Write
    ) -> None:
        reference = write(answer=f"return self.layer(z), {answered}")
        found = open_model(reference).decoder.log_variance
        assert (found if found is None else found.tolist()) == expected

    def test_priors(self, write: Write) -> None:
        mixture = "GaussianMixture(3, (1, 1), (1, 10))"
        head = "from gencomp.rate_distortion.priors import *; from torch import distributions"
        source = PLAIN.replace("import torch\n", f"import torch; {head}\n", 1)
        prior = open_model(write(source, latent_dim=f"latent_dim = 3; prior = {mixture}"))
        assert prior.decoder.prior.identity == GaussianMixture(3, (1, 1), (1, 10)).identity
        normal = "distributions.Independent(distributions.Normal(torch.zeros(3), 2.0), 1)"
        other = open_model(write(source, latent_dim=f"latent_dim = 3; prior = {normal}"))
        draws = other.decoder.prior.draw(0, range(100), 10)
        assert draws.shape == (100, 10, 3)
        # 3,000 numbers, 4 standard errors.
        assert float(draws.std()) == pytest.approx(2, abs=4 * 2 / 6000**0.5)
        assert len({prior.identity, other.identity, open_model(write()).identity}) == 3

    def test_targets_of_ones_own(self, write: Write) -> None:
        source = (
            PLAIN
            + """
        def target(self, images):
            return images[:, 1].double() / 127.5 - 1
        """
        )
        x_BN = open_model(write(source)).decoder.target(images())
        torch.testing.assert_close(x_BN, images()[:, 1].flatten(1) / 127.5 - 1)

    def test_a_device(self, write: Write) -> None:
        decoder = open_model(write(), device=torch.device("cpu")).decoder
        assert decoder.target(images()).device.type == "cpu"


class TestIdentity:
    def test_it_follows_weights_and_reference(self, write: Write, tmp_path: Path) -> None:
        reference, path = write(), saved(tmp_path / "a.pt", {"state_dict": state()})
        first = open_model(reference, path).identity
        assert re.fullmatch("[0-9a-f]{64}", first)
        copy = tmp_path / "b.safetensors"
        save_file(state(), copy)
        assert open_model(reference, copy).identity == first  # the same weights
        changed = state()
        changed["layer.bias"][2] += 1e-6
        saved(tmp_path / "c.pt", {"state_dict": changed})
        others = [
            open_model(reference, tmp_path / "c.pt"),
            open_model(write(), path),
            open_model(reference),
        ]
        assert len({first, *(model.identity for model in others)}) == 4

    def test_it_follows_the_scale(self, write: Write) -> None:
        reference = write()
        first = open_model(reference).identity
        module = sys.modules[reference.split(":")[0]]
        module.Plain.value_range = (0, 255)
        scaled = open_model(reference)
        assert float(scaled.decoder.target(images()).max()) == float(images().max())
        module.Plain.value_range = (0, 1)
        assert open_model(reference).identity == first != scaled.identity

    def test_weights_that_are_drawn_are_the_same_in_every_process(self, write: Write) -> None:
        reference = write()
        torch.manual_seed(5)
        first = open_model(reference)
        before = torch.random.get_rng_state()
        second = open_model(reference)
        assert first.identity == second.identity
        assert torch.equal(before, torch.random.get_rng_state())

    def test_a_file_that_the_module_reads_itself_counts(self, write: Write, tmp_path: Path) -> None:
        source = (
            PLAIN
            + """
        def load_weights(self, path):
            self.scale = float(path.read_text())
        """
        )
        reference = write(source)
        identities = set()
        for number in (1, 2):
            (tmp_path / "scale").write_text(str(number))
            identities.add(open_model(reference, tmp_path / "scale").identity)
        assert len(identities) == 2


class Evil:
    """Pickled, it would write a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


class TestRefused:
    @pytest.mark.parametrize(
        ("reference", "said"),
        [
            ("models", "the model is 'models', but it must be module:attribute, such as my_models"),
            ("models:", "the model is 'models:', but"),
            ("./models.py:Plain", "the model is './models.py:Plain', but"),
            ("none_such:Plain", "there is no module none_such, neither installed nor in /"),
            ("torch.none_such:Plain", "there is no module torch.none_such, neither installed"),
            ("torch:none_such", r"module torch \(.*__init__.py\) has no none_such"),
            ("torch:__version__", "torch:__version__ is a TorchVersion, but it must be a class"),
            ("builtins:dict", "builtins:dict makes a dict, but it must make a torch.nn.Module"),
            ("torch.nn:Identity", "Identity makes a Identity, which has no method decode"),
            ("torch.nn:Linear", r"torch.nn:Linear fails: TypeError: Linear.__init__\(\) missing"),
        ],
    )
    def test_references(self, reference: str, said: str) -> None:
        refused(said, lambda: open_model(reference))

    @pytest.mark.parametrize(
        ("source", "said"),
        [
            ("import none_such", "cannot be imported: No module named 'none_such'"),
            ("1 / 0", "cannot be imported: ZeroDivisionError: division by zero"),
            ("def Plain(:", "cannot be imported: SyntaxError: invalid syntax"),
            ("raise RuntimeError('two\\nlines')", "cannot be imported: RuntimeError: two$"),
        ],
    )
    def test_modules(self, source: str, said: str, write: Write) -> None:
        reference = write(source)
        refused(said, lambda: open_model(reference))

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"latent_dim": ""}, "has latent_dim None, but it must be 1, 2, ..."),
            ({"latent_dim": "latent_dim = 2.5"}, "has latent_dim 2.5, but"),
            ({"latent_dim": "latent_dim = 0"}, "has latent_dim 0, but"),
            ({"latent_dim": "latent_dim = 5"}, r"decode of .* fails: RuntimeError: mat1 and mat2"),
            ({"answer": "raise KeyError('z')"}, "decode of .* fails: KeyError: 'z'"),
            ({"answer": "return self.layer(z).sum()"}, r"answers \[\] to latents \[3, 3\], but it"),
            ({"answer": "return self.layer(z)[:2]"}, r"answers \[2, 4\] to latents \[3, 3\], but"),
            ({"answer": "return None"}, "answers a NoneType to latents"),
            ({"answer": "return z, z, z"}, r"answers 3 things, but it must answer the mean or \("),
            ({"answer": "return self.layer(z) / 0"}, "must answer finite floating-point values"),
            ({"answer": "return self.layer(z) > 0"}, "must answer finite floating-point values"),
            ({"answer": "return self.layer(z.detach())"}, "no gradient with respect to z: it must"),
            (
                {"answer": "return torch.from_numpy(z.detach().numpy())"},
                r"no gradient with respect to z: it must compute with torch \(no NumPy",
            ),
            (
                {"answer": "return self.layer(z) - self.layer(z).mean(0)"},
                "gives another image for a latent when others stand beside it",
            ),
            (
                {"answer": "return self.layer(z) + torch.randn(4)"},
                r"another image when it is called again with the same latent, but the image must",
            ),
            (
                {"answer": EVERY_TENTH},
                "gives another image when it is called again with the same latent",
            ),
            (
                {"answer": "return self.layer(z), z[:, :1]"},
                "the log variance that decode of .* answers depends on z, but only a constant one",
            ),
            (
                {"latent_dim": "latent_dim = 3; x_logvar = torch.zeros(3)"},
                "x_logvar of .* has 3 values, but it must have 1 or 4, one for each value",
            ),
            ({"latent_dim": "latent_dim = 3; x_logvar = float('nan')"}, "x_logvar .* be finite"),
            ({"latent_dim": "latent_dim = 3; x_logvar = '3'"}, "x_logvar .* is a str, but it must"),
            (
                {"latent_dim": "latent_dim = 3; value_range = (1, 1)"},
                r"has value_range \(1, 1\), but it must be two increasing numbers",
            ),
            ({"latent_dim": "latent_dim = 3; value_range = 5"}, "has value_range 5, but"),
            ({"latent_dim": "latent_dim = 3; prior = 1.0"}, "the prior of .* is a float, but it"),
            ({"made": "class Other"}, r"module written_0 \(.*written_0.py\) has no Plain"),
        ],
    )
    def test_models(self, changes: dict[str, str], said: str, write: Write) -> None:
        reference = write(**changes)
        refused(said, lambda: open_model(reference))

    def test_a_prior_of_another_dimension(self, write: Write) -> None:
        head = "import torch; from gencomp.rate_distortion.priors import Gaussian\n"
        source = PLAIN.replace("import torch\n", head, 1)
        reference = write(source, latent_dim="latent_dim = 3; prior = Gaussian(4)")
        refused("has latent_dim 4, but the model 3", lambda: open_model(reference))

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ({"model": {}}, "must be a dictionary with the key state_dict; it holds model$"),
            (state(), "with the key state_dict; it holds layer.weight, layer.bias$"),
            ([1], "with the key state_dict; it holds a list$"),
            ({}, "with the key state_dict; it holds nothing$"),
            ({"state_dict": 3}, "with the key state_dict; it holds state_dict$"),
            ({"state_dict": {"layer.bias": 3}}, "must hold tensors alone, not layer.bias$"),
            (
                {"state_dict": {"layer.weight": torch.zeros(4, 3), "x": torch.zeros(1)}},
                "does not fit .*: it lacks layer.bias and has besides x$",
            ),
            (
                {"state_dict": {f"{n}": torch.zeros(1) for n in range(9)} | state()},
                "does not fit .*: it has besides 0, 1, 2 and 6 more$",
            ),
            (
                {"state_dict": state() | {"layer.bias": torch.zeros(5)}},
                "does not fit .*: size mismatch for layer.bias: copying a param with shape",
            ),
        ],
    )
    def test_checkpoints(self, content: Any, said: str, write: Write, tmp_path: Path) -> None:
        path = saved(tmp_path / "weights.pt", content)
        reference = write()
        refused(f"{path}.* {said}", lambda: open_model(reference, path))

    def test_pickled_objects_are_not_executed(self, write: Write, tmp_path: Path) -> None:
        reference, trace = write(), tmp_path / "executed"
        content = {"state_dict": state(), "evil": Evil(trace)}
        modern, bare = saved(tmp_path / "a.pt", content), tmp_path / "b.pt"
        bare.write_bytes(pickle.dumps(content))
        for path in (modern, bare):
            refused("holds Python objects beside tensors", lambda p=path: open_model(reference, p))
        assert not trace.exists()

    def test_files(self, write: Write, tmp_path: Path) -> None:
        reference, path = write(), tmp_path / "weights.pt"
        refused(f"there is no file {path} of weights", lambda: open_model(reference, path))
        refused("there is no file", lambda: open_model(reference, tmp_path))
        whole = saved(path, {"state_dict": state()}).read_bytes()
        for damaged in (b"", b"hello", whole[:200], whole[: len(whole) // 2]):
            path.write_bytes(damaged)
            refused("is not a checkpoint of torch: ", lambda: open_model(reference, path))
        (tmp_path / "w.safetensors").write_bytes(whole)
        refused(
            "is not a safetensors file: ",
            lambda: open_model(reference, tmp_path / "w.safetensors"),
        )
        np.savez(tmp_path / "w.npz", a=np.zeros(3))
        refused(
            r"holds NumPy arrays, which only a module with load_weights\(path\) can take",
            lambda: open_model(reference, tmp_path / "w.npz"),
        )

    def test_weights_that_the_module_cannot_read(self, write: Write, tmp_path: Path) -> None:
        reference = write(PLAIN + "\n        def load_weights(self, path):\n            {}['a']\n")
        path = saved(tmp_path / "weights.pt", {"state_dict": state()})
        refused(
            f"load_weights of {reference}, given {path}, fails: KeyError: 'a'",
            lambda: open_model(reference, path),
        )

    def test_images(self, write: Write) -> None:
        target = open_model(write()).decoder.target
        refused(
            "gives 4 values an image, but images of 3×3 pixels have 9 grey or 27 colour values",
            lambda: target(images(side=3)),
        )
        refused(
            r"gives grey images, but there are images in colour: give the model a target\(images\)",
            lambda: target(images(grey=False)),
        )
        own = PLAIN + "\n        def target(self, images):\n            return images.float()\n"
        target = open_model(write(own)).decoder.target
        refused(
            r"target of .* makes \[2, 3, 2, 2\] of images \[2, 3, 2, 2\], but decode gives 4",
            lambda: target(images()),
        )


def refused(said: str, call: Callable[[], object]) -> None:
    with pytest.raises(InputError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)


class TestGuide:
    """The code in docs/models.md, as a reader would use it."""

    BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "models.md").read_text(), re.S)

    @pytest.fixture
    def module(self, write: Write, tmp_path: Path) -> str:
        digits, bridge, run, _ = self.BLOCKS
        (tmp_path / "my_models.py").write_text("\n\n".join((digits, bridge, run)))
        return "my_models"

    def test_weights_of_torch(self, module: str, tmp_path: Path) -> None:
        torch.manual_seed(3)
        chain = nn.Sequential(nn.Linear(10, 256), nn.LeakyReLU(0.2), nn.Linear(256, 784), nn.Tanh())
        state_dict = {f"decode.{key}": value for key, value in chain.state_dict().items()}
        saved(tmp_path / "digits.pt", {"state_dict": state_dict})
        names: dict[str, Any] = {}
        exec(self.BLOCKS[-1], names)
        model: Model = names["model"]
        z_BK = torch.randn(2, 10)
        assert torch.equal(model.decoder.decode(z_BK), chain(z_BK))
        x_BN = model.decoder.target(images(side=28))
        assert x_BN.shape == (2, 784) and (float(x_BN.min()), float(x_BN.max())) == (-1, 1)

    def test_the_bridge(self, module: str, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        arrays: dict[str, np.ndarray] = {}
        for number, (size, next_size) in enumerate(itertools.pairwise((8, 64, 64, 64, 784)), 1):
            arrays[f"decoder_h{number}/w_dense"] = rng.normal(size=(size, next_size), scale=0.2)
            arrays[f"decoder_h{number}/b_dense"] = rng.normal(size=next_size)
        np.savez(tmp_path / "aae.npz", **arrays)
        model = open_model(f"{module}:Bridge", tmp_path / "aae.npz")
        h = z = rng.normal(size=(5, 8))
        for number in range(1, 5):
            h = h @ arrays[f"decoder_h{number}/w_dense"] + arrays[f"decoder_h{number}/b_dense"]
            h = np.maximum(h, 0) if number < 4 else 1 / (1 + np.exp(-h))
        x_BN = model.decoder.decode(torch.from_numpy(z).float())
        np.testing.assert_allclose(x_BN.numpy(), h, rtol=1e-4, atol=1e-6)

    def test_a_run_with_another_prior_or_blurred(self, module: str, tmp_path: Path) -> None:
        decoder = mlp_decoder(10)
        own = {f"decoder.{key}": value for key, value in decoder.state_dict().items()}
        others = {"encoder.0.bias": torch.zeros(3), "likelihood.log_variance": torch.zeros(())}
        save_file(own | others, tmp_path / "networks.safetensors")
        blurred, bad = (
            open_model(f"{module}:{name}", tmp_path / "networks.safetensors")
            for name in ("blurred", "bad_prior")
        )
        z_BK = torch.randn(2, 10)
        assert torch.equal(bad.decoder.decode(z_BK), decoder(z_BK))
        assert torch.equal(blurred.decoder.decode(z_BK), Blur(2)(decoder(z_BK)))
        assert isinstance(bad.decoder.prior, GaussianMixture)
        assert bad.identity != blurred.identity
