// The part of Python's pickle protocol that a dictionary of tensors needs, as data.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.h"

namespace quern {

// A tensor as its pickle describes it: a strided view of a storage.
struct PickledTensor {
  std::string name;
  std::string storage;  // key of the storage in the archive
  DType dtype;
  int64_t storage_size;  // elements
  int64_t offset;        // elements
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;
};

// Reads a pickled dictionary of tensors. Throws BadInput naming `source` and, where the file asks
// for anything but tensors, the name of what it asked for. Nothing is ever imported or called.
std::vector<PickledTensor> read_pickled_tensors(std::string_view pickle, const std::string& source);

}  // namespace quern
