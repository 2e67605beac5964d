"""The smallest method: the encoder is the identity, the quantizer uniform, the decoder x̂ = a·q + b.

`tests/test_new_system.py` adds this folder to a copy of the project as `gencomp/systems/identity`,
in the steps of CONTRIBUTING's "A new system".
"""
