"""Rate-distortion curves of decoder-based generative models by annealed importance sampling.

A decoder f with prior p(z) is treated as a lossy code: at inverse temperature β the best encoder of
an image x is q_β(z|x) ∝ p(z) exp(-β d(x, f(z))), with normaliser Z_β(x). One annealed run from
β = 0 to β_max gives the rate R, the distortion D and log Z at every β on the way (Huang, Makhzani,
Cao, Grosse: Evaluating Lossy Compression Rates of Deep Generative Models, ICML 2020), and E[R + βD]
is at least the R + βD of the true curve. Rates are nats per image; distortions are summed over
pixels.

    distortion = SquaredError(decoder.eval(), x_ICHW)
    prior = Gaussian(latent_dim)
    tuning = pilot.tune(
        distortion, prior, beta_max=1e3, temperatures=1000, chains=16, leapfrog=5, seed=6
    )
    run = ais.Walk(distortion, prior, tuning, seed=7, image_ids=range(len(x_ICHW)))
    state = ais.start(run, chains=16)
    while not ais.done(run, state):
        state, row = ais.advance(run, state)

The possible error of log Z is the gap between two bounds, on images drawn from the decoder itself:

    gap = bdmc.bracket(
        *(distortion, prior, tuning, tuning.temperatures - 1),
        chains=16, seed=8, simulation_seed=9, image_ids=range(32),
    )

What the run misses of its own images is bounded from below by chains that start at modes:

    found = certificate.certify(
        *(distortion, prior, row.beta), leapfrog=5, seed=10, image_ids=range(len(x_ICHW))
    )
    missed_I = certificate.lower_bound(found.log_z_IR.numpy(), alpha=1e-4) - row.log_z_I.numpy()

The suffixes of tensors are I for images, M for chains per image, K for latent dimensions, N for
pixels (times channels) and T for temperatures.
"""
