// GGUF's blocks in the packed form are the weights that the package `gguf` reads from them.
#include "model/pack_weights.h"

#include <algorithm>
#include <cmath>

#include "formats/safetensors.h"
#include "support/support.h"

namespace quern {
namespace {

using test::check_close;

const test::fs::path kBlocks = test::source("tests/fixtures/gguf/blocks.safetensors");

// All blocks of a type in the fixture, as a matrix of rows of `cols`.
struct Blocks {
  Blocks(const char* name, int64_t cols) : file(kBlocks), block(*gguf_block_named(name)) {
    const auto raw = file.at(std::string(name) + ".blocks").as<uint8_t>();
    bytes.assign(std::as_bytes(raw).begin(), std::as_bytes(raw).end());
    floats = to_floats(file.at(std::string(name) + ".floats"), name);
    const auto rows = static_cast<int64_t>(floats.size()) / cols;
    floats.resize(static_cast<size_t>(rows * cols));
    matrix = {.name = name,
              .where = std::string("m.gguf: ") + name,
              .type = block.type,
              .type_name = block.name,
              .rows = rows,
              .cols = cols,
              .blocks = bytes.data(),
              .bytes = bytes.size()};
  }
  SafetensorsFile file;
  GgufBlock block;
  std::vector<std::byte> bytes;
  std::vector<float> floats;
  GgufMatrix matrix;
};

TEST(PackBlocks, HoldsTheWeightsOfEveryTypeThatPacks) {
  ThreadPool pool(2);
  for (const char* name : {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K",
                           "Q6_K", "IQ4_NL", "IQ4_XS"}) {
    Blocks blocks(name, gguf_block_named(name)->weights);
    ASSERT_GT(blocks.matrix.rows, 0) << name;
    ASSERT_TRUE(packs(blocks.block.type, blocks.matrix.cols));
    const PackedMatrix packed = pack_blocks(blocks.matrix, &pool);
    std::vector<float> row(static_cast<size_t>(packed.cols));
    for (int64_t r = 0; r < packed.rows; ++r) {
      decode_packed(row, packed, r);
      check_close(row, std::span(blocks.floats).subspan(size_t(r) * row.size(), row.size()),
                  {1e-7, 1e-6}, name);
    }
  }
  EXPECT_FALSE(packs(GgufType::Q4_K, 96));
  EXPECT_FALSE(packs(GgufType::F16, 256));
}

TEST(PackBlocks, HeadsOfLlamaComeInOurOrder) {
  Blocks blocks("Q8_0", 32);
  GgufMatrix& m = blocks.matrix;
  ASSERT_GE(m.rows, 4);
  m.rows = m.rows / 4 * 4;
  for (int64_t r = 0; r < m.rows; ++r) {  // ours 0 1 2 3 are theirs 0 2 1 3
    m.row_order.push_back(int32_t(r / 4 * 4 + std::array{0, 2, 1, 3}[size_t(r % 4)]));
  }
  const PackedMatrix packed = pack_blocks(m, nullptr);
  std::vector<float> row(32);
  for (int64_t r = 0; r < m.rows; ++r) {
    const int64_t theirs = r / 4 * 4 + std::array{0, 2, 1, 3}[size_t(r % 4)];
    decode_packed(row, packed, r);
    check_close(row, std::span(blocks.floats).subspan(size_t(theirs) * 32, 32), {1e-7, 1e-6},
                "row " + std::to_string(r));
  }
}

TEST(PackBlocks, AScaleThatIsNotFiniteIsNamed) {
  for (const char* name :
       {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "IQ4_NL", "IQ4_XS"}) {
    Blocks blocks(name, gguf_block_named(name)->weights);
    const size_t row = static_cast<size_t>(blocks.block.bytes);
    blocks.bytes[row] = std::byte{0x00};
    blocks.bytes[row + 1] = std::byte{0x7C};  // infinity
    test::expect_error([&] { pack_blocks(blocks.matrix, nullptr); }, Kind::BadInput,
                       {"m.gguf", name, "row 1", "not finite"});
  }
}

}  // namespace
}  // namespace quern
