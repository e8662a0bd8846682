#!/usr/bin/env python3
"""Writes tests/fixtures/torch/: checkpoints as PyTorch itself saves them.

usage: scripts/make-torch-fixtures.py    (needs torch and safetensors)
"""
import collections
import pathlib

import torch
from safetensors.torch import save_file

out = pathlib.Path(__file__).parent.parent / "tests" / "fixtures" / "torch"
out.mkdir(parents=True, exist_ok=True)
torch.manual_seed(1)

tensors = collections.OrderedDict()
tensors["layer.weight"] = torch.randn(4, 3)
tensors["layer.bias"] = torch.randn(4).to(torch.bfloat16)
tensors["half"] = torch.randn(2, 2).to(torch.float16)
tensors["ids"] = torch.arange(5)
tensors["transposed"] = torch.randn(3, 5).t()          # strides that are not row by row
tensors["slice"] = torch.arange(20, dtype=torch.float32)[6:12]  # inside a shared storage
tensors["scalar"] = torch.tensor(2.5)
tensors["parameter"] = torch.nn.Parameter(torch.randn(2, 3))

torch.save(tensors, out / "plain.bin")
torch.save({"state_dict": tensors, "step": 7}, out / "wrapped.bin")
torch.save(tensors, out / "legacy.bin", _use_new_zipfile_serialization=False)
save_file({k: v.detach().contiguous().clone() for k, v in tensors.items()},
          out / "expected.safetensors")
