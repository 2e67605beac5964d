"""The models of Flamich, Havasi and Hernández-Lobato, *Compressing Images by Encoding Their Latent
Representations with Relative Entropy Coding*, NeurIPS 2020.

    rvae    lossless: a bidirectional ResNet VAE
    lossy   two layers of latents, or one
"""
