"""What a file says, or shows, about its tensors.

* ``header``: headers of .npy and .safetensors files;
* ``dtype``: the element type of a file, from an attribute, a rule, its suffix, header or data.
"""
