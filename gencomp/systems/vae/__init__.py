"""Variational autoencoders with Gaussian pixels (Kingma and Welling, ICLR 2014).

An encoder q(z|x) = N(m(x), diag v(x)) and a decoder p(x|z) = N(f(z), s² I), with the prior N(0, I),
maximise

    ELBO = E_q log p(x|z) − KL(q(z|x) ‖ p(z))      in nats per image, all constants included

with one sample of z for each image and the KL divergence in closed form, like the models whose
rate-distortion curves Huang et al. (ICML 2020) measured. There is no codec; the evaluation of
curves uses `latent_decoder`.

    recipe   the sections of the recipe; imports no torch
    system   the objective, its evaluation and the decoder
"""
