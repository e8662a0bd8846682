// A model's tensors as a checkpoint keeps them: names with or without a prefix, shapes and orders of
// the file.
#pragma once

#include <string>
#include <vector>

#include "formats/safetensors.h"
#include "model/config.h"
#include "model/tensors.h"

namespace quern {

// The name that a checkpoint has for a tensor: files come with or without the prefix of the class
// that holds the decoder, and models that also see put one in front. `name` itself where there is
// none.
std::string stored_name(const TensorStore& store, const std::string& name);

// Divides each row of `cols` floats by its length, as a normalized head has them.
void normalize_rows(std::span<float> values, size_t cols);

// Throws BadInput naming the file where the tensor is missing or of another shape.
ConstTensorView checked_tensor(const TensorStore& store, const std::string& name,
                               const Shape& shape);

// A tensor as floats in the model's order. Throws BadInput for one that is missing, misshapen or not
// finite.
std::vector<float> tensor_floats(const TensorStore& store, const TensorSpec& spec,
                                 const Config& config);

// The file's row of each of ours, of a matrix [out, in] or its bias. Empty where the order is the
// same.
std::vector<int32_t> file_rows(const TensorSpec& spec, const Config& config);

// The tensor's floats in the file's order, for writing.
std::vector<float> floats_for_file(std::span<const float> values, const TensorSpec& spec,
                                   const Config& config);

}  // namespace quern
