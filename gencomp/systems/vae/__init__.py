"""Variational autoencoders with Gaussian pixels (Kingma and Welling, ICLR 2014).

Encoder q(z|x) = N(m(x), diag v(x)), prior N(0, I) and p(x|z) = N(f(z), s² I) maximise

    ELBO = E_q log p(x|z) − KL(q(z|x) ‖ p(z))      nats an image, all constants included

with one sample of z an image and the KL divergence in closed form, as the models whose
rate-distortion curves Huang et al. (ICML 2020) measured. There is no codec: `latent_decoder` is
what the evaluation of curves needs.

    recipe   sections of the recipe; imports no torch
    system   objective, evaluation, the decoder
"""
