// Matrices of few bits, packed for the kernels as they are loaded: strip by strip, by all threads,
// so that of a file and its packed form no two whole copies stay in memory.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "compute/packed.h"
#include "core/thread_pool.h"
#include "formats/gguf_blocks.h"

namespace quern {

// A matrix in GGUF's blocks.
struct GgufMatrix {
  std::string name;  // in our checkpoints, and for messages
  std::string where;
  GgufType type = GgufType::Q4_0;
  std::string_view type_name;
  int64_t rows = 0;
  int64_t cols = 0;
  const std::byte* blocks = nullptr;
  uint64_t bytes = 0;
  std::vector<int32_t> row_order = {};  // the file's row of each of ours: gguf_rows(); or empty
};

// Whether blocks of this type, in rows of `cols`, have a packed form that loses nothing: all
// but the plain float types.
bool packs(GgufType type, int64_t cols) noexcept;

// Shapes of the packed forms, without memory. Nothing where GPTQ's groups have none.
PackedMatrix shape_of_blocks(const GgufMatrix& source);
std::optional<PackedMatrix> shape_of_words(const GptqMatrix& source, int64_t in);

// Throws BadInput naming the matrix and row of a scale that is not finite. `pool` may be null.
PackedMatrix pack_blocks(const GgufMatrix& source, ThreadPool* pool);

// `shape` is what shape_of_words() says of the source.
PackedMatrix pack_words(const GptqMatrix& source, PackedMatrix shape, ThreadPool* pool);

// The system may take back the memory of a mapped file's part, which it reads again when asked.
void forget_mapped(const void* data, uint64_t bytes) noexcept;

}  // namespace quern
