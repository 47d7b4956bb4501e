"""Reads recordings: decoding, windows and training augmentation.

``decode`` turns a recording of any form into mono float32 at a sample rate, ``windows`` cuts it, ``augment`` varies it.
``sources`` (what counts as a recording), ``readers`` (block-wise access to one opened recording) and ``containers``
(the length that a file's header states) are used by ``decode``. Only ``augment``, ``logmel`` and ``pictures`` need
torch, so import the modules, not this package.
"""
