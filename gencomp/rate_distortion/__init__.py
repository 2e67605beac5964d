"""Rate-distortion curves of decoder-based generative models by annealed importance sampling.

A decoder f with prior p(z) is held as a lossy code: at inverse temperature β the best encoder of an
image x is q_β(z|x) ∝ p(z) exp(-β d(x, f(z))), with normaliser Z_β(x). One annealed run from β = 0
to β_max gives rate R, distortion D and log Z at every β on the way (Huang, Makhzani, Cao, Grosse:
Evaluating Lossy Compression Rates of Deep Generative Models, ICML 2020), and E[R + βD] lies above
the true curve's. Rates are nats per image, distortions are summed over pixels.

    distortion = SquaredError(decoder.eval(), x_ICHW)
    prior = Gaussian(latent_dim)
    tuning = pilot.tune(
        distortion, prior, beta_max=1e3, temperatures=1000, chains=16, leapfrog=5, seed=6
    )
    run = ais.Walk(distortion, prior, tuning, seed=7, image_ids=range(len(x_ICHW)))
    state = ais.start(run, chains=16)
    while not ais.done(run, state):
        state, row = ais.advance(run, state)

How far log Z can be off shows on images drawn from the decoder itself, between two bounds:

    gap = bdmc.bracket(
        *(distortion, prior, tuning, tuning.temperatures - 1),
        chains=16, seed=8, simulation_seed=9, image_ids=range(32),
    )

Suffixes of tensors: I images, M chains per image, K latent dimensions, N pixels (times channels), T
temperatures.
"""
