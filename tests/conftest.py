"""What has to be settled before the first test module is imported."""

import os

import hypothesis
import torch

# A busy machine is no failure, and the same commit passes or fails every time.
hypothesis.settings.register_profile("steady", deadline=None, derandomize=True)
hypothesis.settings.load_profile("steady")

if not torch.cuda.is_available():
    # Kernels run in Triton's interpreter; read when triton is first imported, by whomever.
    os.environ["TRITON_INTERPRET"] = "1"
