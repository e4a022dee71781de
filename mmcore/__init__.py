"""mmcore: resumable pipelines for multimodal data, as a plain library.

Importing this package loads neither torch, dask nor prefect; the rooms that need them are imported by name.
"""

__version__ = "0.1.0"
