"""Relative entropy coding of images (Flamich, Havasi and Hernández-Lobato, NeurIPS 2020).

A variational autoencoder whose latents are sent as they are, without quantization: the sender picks
a value that is distributed like a sample of the posterior, at a cost of little more than its
divergence KL from the prior.

    rvae        lossless: a ResNet VAE with a discretised logistic likelihood, −log p + KL
    two_level   lossy: two layers of latents, λ·distortion + KL
    one_level   lossy: a single layer, whose decoder has a rate-distortion curve of its own

    recipe         the sections of the recipes; imports no torch
    objectives     the losses of the global batch
    system         the stages: their start, their evaluation and their samples
    build          the system of a recipe
    latent_models  the models of one image at a time, as the coders of latents take them
    latent_coders  the three coders of latents
    codec          files of pictures, lossless and lossy
    writing        the section of the recipe that says how files are written
    ideal          what files would be if the coder of latents lost nothing

The ResNet VAE is trained without inverse autoregressive flow: it makes posteriors that are not
Gaussian, which relative entropy coding cannot send.
"""
