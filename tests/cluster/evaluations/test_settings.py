"""Settings of evaluations: declared once, of the same identity whatever their descriptions."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cluster.evaluations.curve import plan as curve
from cluster.evaluations.curve.settings import (
    CertificateOptions,
    CurveOptions,
    PilotOptions,
    SamplerOptions,
    complete,
    settings,
)
from cluster.evaluations.decoders import OfRun
from cluster.evaluations.encoders import plan as encoders
from cluster.evaluations.encoders.settings import Settings as EncoderSettings
from cluster.evaluations.metrics import plan as metrics
from cluster.evaluations.metrics.settings import Settings as MetricSettings
from gencomp.errors import InputError

OF_ALL = {"gencomp": "1", "data": "x", "stored": {"name": "photos"}, "height": 4, "width": 6}
CHOSEN = {"split": "test", "images": 4, "threads": 1, "device": "cpu"}


def test_plans_are_known_by_the_hashes_that_they_always_had() -> None:
    """An evaluation that lies on disk is found again by the names and values of its settings."""
    of_curve = settings(
        **CHOSEN, block=2, chains=4, temperatures=12, points=5, beta_max=0.1, leapfrog=2, seed=7,
        tuning_seed=6, pilot_images=2, pilot_temperatures=20, bdmc_images=2, bdmc_betas=(0.01, 0.1),
        bdmc_chains=8,
    )  # fmt: skip
    of_encoders = EncoderSettings(
        **CHOSEN, distortion="squared_error", betas=(0.1, 1.0), training_images=10, epochs=2,
        batch_size=5, learning_rate=1e-4, samples=3, seed=9,
    )  # fmt: skip
    of_metrics = MetricSettings(
        **CHOSEN, metrics=("mse", "psnr"), samples=0, draws=3, batch_size=64, block=256, seed=7,
        features_input="uint8", features=None, lpips=None,
    )  # fmt: skip
    decoder = {"decoder": "d", "prior": "p", "shards": "/s", "rows": (0, 1, 2, 3), "values": 72}
    assert (
        curve.Plan(
            **OF_ALL, **decoder, subject=OfRun(), features_file=None, pilot_rows=(0, 2),
            settings=of_curve,
        ).hash
        == "35fcfaf9d9d8b3903a462ce029aa56cb"
    )  # fmt: skip
    assert (
        encoders.Plan(**OF_ALL, **decoder, training_data="t", settings=of_encoders).hash
        == "29320f8fda1d182f46645b36e809fa04"
    )
    assert (
        metrics.Plan(
            **OF_ALL, system="dplc/codec", weights="w", transforms={}, split_images=40,
            reconstructs=True, rules={"images": "all"}, shards="/s", features_file=None,
            lpips_file=None, settings=of_metrics,
        ).hash
        == "3c852fabfe57544ca3eb527bf1e7c97c"
    )  # fmt: skip


class TestWhatOptionsLeaveOpen:
    def _complete(
        self, curve: CurveOptions, certificate: CertificateOptions, chains: int = 6
    ) -> tuple[int, tuple[float, ...], int]:
        found = complete(
            curve,
            SamplerOptions(chains=chains),
            PilotOptions(),
            certificate,
            features=None,
            threads=2,
        )
        assert found.threads == 2 and found.chains == chains
        return found.bdmc_images, found.bdmc_betas, found.bdmc_chains

    def test_a_certificate_has_sixteen_images_at_parts_of_the_last_beta(self) -> None:
        found = self._complete(CurveOptions(beta_max=20.0), CertificateOptions())
        assert found == (16, (0.2, 2.0, 20.0), 6)

    def test_what_is_given_stays(self) -> None:
        certificate = CertificateOptions(bdmc_images=3, bdmc_betas=(0.5,), bdmc_chains=9)
        assert self._complete(CurveOptions(), certificate) == (3, (0.5,), 9)

    def test_without_images_there_is_no_certificate(self) -> None:
        assert self._complete(CurveOptions(), CertificateOptions(bdmc_images=0)) == (0, (), 6)

    def test_betas_without_images_are_refused(self) -> None:
        certificate = CertificateOptions(bdmc_images=0, bdmc_betas=(1.0,))
        with pytest.raises(InputError, match="--bdmc-images and --bdmc-betas need each other"):
            self._complete(CurveOptions(), certificate)


def test_options_are_known_without_torch() -> None:
    """The command line prints their help at once."""
    modules = ", ".join(
        f"cluster.evaluations.{kind}.settings" for kind in ("curve", "encoders", "metrics")
    )
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
