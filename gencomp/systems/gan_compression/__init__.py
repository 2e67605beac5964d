"""Extreme compression with generative adversarial networks (Agustsson, Tschannen, Mentzer, Timofte
and Van Gool, ICCV 2019).

An encoder makes C channels of latents at a sixteenth of an image's height and width, and each
latent goes to the nearest of L centres. A decoder makes the image of them; discriminators at
several scales judge it. Its modes differ in who sees the label map of the image:

    global        nobody
    global_plus   the discriminators, in training
    conditional   encoder, decoder and discriminators; the map is a part of the stream
    selective     decoder and discriminators; the code of chosen regions is sent, and all other
                  regions are made from labels

There are two stages. `distortion` trains encoder and decoder alone, and `adversarial` trains them
against discriminators, from a run of the first stage or from a fresh start.

    recipe       the sections of the recipes and the presets of weights; imports no torch
    labels       label maps as planes, and the regions that training keeps
    code         the quantizer, the learnt prior of symbols, and the integer tables
    channel      what sender and receiver compute
    objectives   the phases of a step: the codec's, then the discriminator's on the same batch
    system       the systems of both stages
    build        the system of a recipe, and which parents fit it

Images are on [−1, 1].
"""
