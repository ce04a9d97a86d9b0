"""All request handlers together, as pyfuse3 wants them."""

from qatqfs.mount.attribute_ops import AttributeOperations
from qatqfs.mount.directory_ops import DirectoryOperations
from qatqfs.mount.file_ops import FileOperations
from qatqfs.mount.name_ops import NameOperations


class Operations(NameOperations, DirectoryOperations, FileOperations, AttributeOperations):
    """The filesystem: requests of the kernel to calls of a store."""
