"""The networks of Agustsson, Tschannen, Mentzer, Timofte and Van Gool, *Generative Adversarial
Networks for Extreme Learned Image Compression*, ICCV 2019.

In the paper's words, with n channels, w = 60 and R = 9 as published:

    c7s1-n  reflect 3, convolution of size 7, norm, ReLU       dn  size 3, stride 2, norm, ReLU
    c3s1-n  reflect 1, convolution of size 3, norm, ReLU       un  transposed, stride 2, norm, ReLU

    encoder          c7s1-w, d2w, d4w, d8w, d16w, and a convolution c3s1 to the C latents
    label encoder    c7s1-w, d2w, d4w, d8w, d16w of the planes of a label map
    decoder          c3s1-16w, R residual blocks, u8w, u4w, u2w, uw, c7s1-3 with tanh
    selective        the encoder lacks d16w, so its latents are at an eighth of the height and
                     width; c3s1-8w, d16w take them on to the decoder, beside the label encoder's

The last convolution of the encoder is linear: after a norm and a ReLU, as in a well-known port, the
latents are never negative, and two of five centres are never used. Weights start as Glorot and
Bengio (2010) say, and biases at 0, which gives latents of a standard deviation of about 1. Images
are on [−1, 1].

    autoencoder      the encoders and the decoder
    discriminator    the discriminators at several scales
"""
