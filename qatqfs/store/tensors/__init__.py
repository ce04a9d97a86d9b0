"""Find out what tensors a file has.

* ``header``: reads the headers of .npy and .safetensors files;
* ``dtype``: chooses the element type of a file by an attribute, a rule, its suffix, its header or its data.
"""
