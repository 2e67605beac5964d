"""Distribution-preserving lossy compression (Tschannen, Agustsson, Lucic, NeurIPS 2018).

Stage 1 learns a generator G whose images G(z), z ~ N(0, σ² I), are distributed like the data, by
one of three methods. F is an encoder without a rate constraint, and f is a critic of images:

    wae             RMSE(G(F(x)), x) + λ·MMD(F(x), prior)          over F and G
    wgan_gp         −λ_a·mean f(G(z))                              over G, against f
    wasserstein_pp  RMSE + λ·MMD − λ_a·mean f(G(F(x)))             over F and G, against f

Stage 2, `codec`, freezes G. The code encoder E, which ends in a quantizer, and the latent map B,
whose inputs are the code and noise, minimise RMSE + λ·MMD with B(E(x), noise) in place of F(x).
Since B's output keeps the prior's distribution at every rate, reconstructions keep the distribution
of G's samples.

The baselines `cae` (compressive autoencoder) and `gc` (generative compression) train E, B and G
from scratch in one stage, without a prior.

    recipe       the sections of the recipes; imports no torch
    parts        the latents and their prior, which the stages share
    objectives   the phases
    base         the base classes of all systems
    generators   the systems of stage 1
    coders       the systems of stage 2 and of the baselines
    code_tables  the integer tables of the codec's entropy coder
    codec        the codec, which writes images as containers and reads them

Images are mapped to [−1, 1]; MSE is on that scale, and PSNR = 10·log10(4/MSE).
"""
