"""What has to be settled before the first test module is imported."""

import os

import torch

if not torch.cuda.is_available():
    # Kernels run in Triton's interpreter; read when triton is first imported, by whomever.
    os.environ["TRITON_INTERPRET"] = "1"
