// A small checkpoint with random weights for tests of commands.
#pragma once

#include "support/support.h"

namespace quern::test {

// A .tiktoken vocabulary of the 256 single bytes, whose ids are the bytes.
std::string byte_vocabulary();

// Makes `folder`/model with `quern init --preset tiny` and that vocabulary; returns it.
fs::path tiny_checkpoint(const TempFolder& folder);

// Writes a safetensors file of bf16 tensors anew, every element of tensor `name` being `value`.
void fill_tensor(const fs::path& file, const std::string& name, float value);

}  // namespace quern::test
