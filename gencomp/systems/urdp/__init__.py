"""Universal rate-distortion-perception codecs (Zhang, Qian, Chen and Khisti, NeurIPS 2021).

An encoder f ends in d latents in (−1, 1). Sender and receiver share a dither u, uniform on a cell
of the quantizer Q, so the decoder's input Q(f(x) + u) − u is f(x) plus uniform noise that does not
depend on the image. A decoder g minimises

    MSE(x, g(y)) − λ·mean D(g(y))

against a critic D of images with a gradient penalty. The weight λ trades distortion for perception.

    end_to_end   encoder, decoder and critic for one λ
    universal    a decoder and a critic for another λ on the frozen encoder of an end-to-end run
    refinement   a second encoder beside a frozen one, and a decoder that reads both codes
    critic       a fresh critic of fixed budget that measures the perception of a finished decoder

One stream of the encoder is thus read by any of its decoders, and the receiver chooses λ.

    recipe       the sections of the recipes; imports no torch
    code         the dithered quantizer and its gradients
    objectives   the phases and their alternation
    system       the stages, and the critic that measures them
    build        the system of a recipe, and which parents fit it
    tables       the integer tables of the entropy coder, given the dither
    codec        the codec, which writes pictures as one container and reads them

Images are on [0, 1], and so are errors (`mse_unit`). The weight λ is meant for that scale, the mean
over pixels, and a critic whose slope is per unit of an image's Euclidean norm.
"""
