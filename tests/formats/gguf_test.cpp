// GGUF: what is read is what the package `gguf` reads; what is wrong is named.
#include "formats/gguf.h"

#include <cmath>
#include <functional>

#include "core/rng.h"
#include "formats/gguf_writer.h"
#include "formats/safetensors.h"
#include "support/gguf_bytes.h"
#include "support/support.h"

namespace quern {
namespace {

using namespace test;  // NOLINT: the builders of bytes

const fs::path kBlocks = source("tests/fixtures/gguf/blocks.safetensors");

TEST(GgufBlocks, EveryTypeIsReadAsThePackageReadsIt) {
  const SafetensorsFile file(kBlocks);
  for (const char* name : {"F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K",
                           "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"}) {
    const auto block = gguf_block_named(name);
    ASSERT_TRUE(block) << name;
    const auto raw = file.at(std::string(name) + ".blocks").as<uint8_t>();
    const auto want = to_floats(file.at(std::string(name) + ".floats"), name);
    ASSERT_EQ(static_cast<int64_t>(raw.size()) / block->bytes * block->weights,
              static_cast<int64_t>(want.size()))
        << name;
    std::vector<float> got(want.size());
    dequantize_blocks(block->type, std::as_bytes(raw).data(), got);
    check_close(got, want, {1e-7, 1e-6}, name);
  }
}

std::vector<float> requantized(std::string_view type, const std::vector<float>& values) {
  const GgufBlock block = *gguf_block_named(type);
  std::vector<std::byte> raw(values.size() / static_cast<size_t>(block.weights) *
                             static_cast<size_t>(block.bytes));
  quantize_blocks(block.type, values, raw.data());
  std::vector<float> got(values.size());
  dequantize_blocks(block.type, raw.data(), got);
  return got;
}

TEST(GgufBlocks, WhatIsWrittenIsAsCloseAsThePackages) {
  const SafetensorsFile file(kBlocks);
  const auto values = to_floats(file.at("values"), "values");
  for (const char* name : {"Q8_0", "Q4_0"}) {
    const std::vector<float> got = requantized(name, values);
    const auto theirs = to_floats(file.at(std::string(name) + ".requantized"), name);
    double ours = 0, other = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      ours += std::pow(double(values[i]) - double(got[i]), 2);
      other += std::pow(double(values[i]) - double(theirs[i]), 2);
    }
    EXPECT_LE(ours, 1.01 * other) << name;
    EXPECT_GT(ours, 0) << name;
  }
}

TEST(GgufBlocks, ZerosStayZeros) {
  for (const char* name : {"Q8_0", "Q4_0", "Q4_K", "F16", "BF16", "F32"}) {
    const std::vector<float> zeros(256, 0.0f);
    EXPECT_EQ(requantized(name, zeros), zeros) << name;
  }
}

TEST(GgufBlocks, FourBitsWithMinimaLoseLessThanWithoutOnEveryKindOfWeights) {
  Rng rng(7);
  const auto normal = [&](float mean, float spread) {
    std::vector<float> out(4096);
    for (float& value : out) value = mean + spread * static_cast<float>(rng.normal());
    return out;
  };
  std::vector<float> steps(4096), outliers = normal(0, 1);
  for (size_t i = 0; i < steps.size(); ++i) steps[i] = static_cast<float>(i / 32 % 8) * 0.1f;
  for (size_t i = 0; i < outliers.size(); i += 100) outliers[i] *= 20;
  const auto lost = [](const char* type, const std::vector<float>& values) {
    const std::vector<float> got = requantized(type, values);
    double error = 0, all = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      error += std::pow(double(values[i]) - double(got[i]), 2);
      all += std::pow(double(values[i]), 2);
    }
    return std::sqrt(error / all);
  };
  EXPECT_LT(lost("Q4_K", normal(0, 0.02f)), 0.9 * lost("Q4_0", normal(0, 0.02f)));
  EXPECT_LT(lost("Q4_K", normal(0, 0.02f)), 0.075);
  EXPECT_LT(lost("Q4_K", normal(-3, 0.5f)), 0.3 * lost("Q4_0", normal(-3, 0.5f)));
  EXPECT_LT(lost("Q4_K", normal(3, 0.5f)), 1.1 * lost("Q4_0", normal(3, 0.5f)));
  EXPECT_LT(lost("Q4_K", outliers), lost("Q4_0", outliers));
  EXPECT_LT(lost("Q4_K", steps), 0.01);
  EXPECT_LT(lost("Q4_K", normal(0, 1e-4f)), 0.1);  // scales near the end of float16
  EXPECT_LE(lost("Q4_K", normal(0, 1e-6f)), 1.0);  // and beyond it
}

TEST(GgufFile, ReadsMetadataAndTensors) {
  const TempFolder folder;
  GgufBytes bytes;
  bytes.keys.push_back(kv_u32("n", 7));
  bytes.keys.push_back(kv_f32("x", 0.5f));
  bytes.keys.push_back(kv_bool("yes", 1));
  bytes.keys.push_back(kv_strings("list", {"a", ""}));
  bytes.keys.push_back(kv_i32s("numbers", {-1, 2}));
  const GgufFile file(folder.write("m.gguf", bytes.file()));
  EXPECT_EQ(file.string("general.architecture"), "llama");
  EXPECT_EQ(file.integer("n", 0, 10), 7);
  EXPECT_EQ(file.number("x", 0, 1), 0.5);
  EXPECT_TRUE(file.boolean_or("yes", false));
  EXPECT_EQ(file.strings("list").size(), 2u);
  EXPECT_EQ(file.numbers("numbers")[0], -1);
  EXPECT_EQ(file.find("b")->shape, (Shape{2, 4}));
  EXPECT_EQ(file.find("b")->data - file.find("a")->data, 32);
  EXPECT_EQ(file.find("c"), nullptr);
}

TEST(GgufFile, WriterAndReaderAgree) {
  const TempFolder folder;
  const fs::path path = folder.path() / "m.gguf";
  GgufWriter writer(path);
  writer.add_string("general.architecture", "qwen");
  writer.add_i32s("ids", {1, -5});
  writer.add_tensor("odd", *gguf_block_named("F16"), {3});
  writer.add_tensor("blocks", *gguf_block_named("Q8_0"), {2, 64});
  writer.begin();
  writer.write(std::vector<std::byte>(6, std::byte{1}));
  writer.write(std::vector<std::byte>(4 * 34, std::byte{2}));
  writer.finish();
  const GgufFile file(path);
  EXPECT_EQ(file.numbers("ids")[1], -5);
  EXPECT_EQ(file.find("blocks")->bytes, 4u * 34);
  EXPECT_EQ(file.find("blocks")->data[0], std::byte{2});
}

struct Bad {
  std::string name;
  std::function<void(GgufBytes&)> change;
  std::string expected;
  Kind kind = Kind::BadInput;
};
void PrintTo(const Bad& bad, std::ostream* out) { *out << bad.name; }

std::string nested_arrays(int depth) {
  std::string out = text("deep") + le(uint32_t{9});
  for (int i = 0; i < depth; ++i) out += le(uint32_t{9}) + le(uint64_t{1});
  return out + le(uint32_t{0}) + le(uint64_t{1}) + le(uint8_t{0});
}

const Bad kBad[] = {
    {"magic", [](GgufBytes& b) { b.magic = "GGML"; }, "does not begin with 'GGUF'"},
    {"big_endian", [](GgufBytes& b) { b.version = 0x03000000; }, "big-endian"},
    {"version_0", [](GgufBytes& b) { b.version = 0; }, "version 0, expected 2 or 3"},
    {"version_1", [](GgufBytes& b) { b.version = 1; }, "version 1, expected 2 or 3"},
    {"version_4", [](GgufBytes& b) { b.version = 4; }, "version 4, expected 2 or 3"},
    {"version_2_31", [](GgufBytes& b) { b.version = 1u << 31; }, "expected 2 or 3"},
    {"tensor_count_2_63", [](GgufBytes& b) { b.extra_tensors = INT64_MIN; }, "more than the file"},
    {"tensor_count_minus_1", [](GgufBytes& b) { b.extra_tensors = -3; }, "more than the file"},
    {"key_count_2_63", [](GgufBytes& b) { b.extra_keys = INT64_MIN; }, "more than the file"},
    {"key_count_minus_1", [](GgufBytes& b) { b.extra_keys = -2; }, "more than the file"},
    {"key_empty", [](GgufBytes& b) { b.keys.push_back(kv_u32("", 1)); }, "key without a name"},
    {"key_65536", [](GgufBytes& b) { b.keys.push_back(kv_u32(std::string(65'536, 'k'), 1)); },
     "65536 bytes"},
    {"key_2_64", [](GgufBytes& b) { b.keys.push_back(le(~uint64_t{0}) + std::string(20, 'x')); },
     "at most 65535"},
    {"key_twice", [](GgufBytes& b) { b.keys.push_back(b.keys[0]); },
     "the key 'general.architecture' twice"},
    {"key_utf8", [](GgufBytes& b) { b.keys.push_back(kv_u32("\xC0\x80", 1)); }, "not valid UTF-8"},
    {"value_type_13",
     [](GgufBytes& b) { b.keys.push_back(text("k") + le(uint32_t{13}) + le(uint64_t{0})); },
     "value type 13"},
    {"value_type_255",
     [](GgufBytes& b) { b.keys.push_back(text("k") + le(uint32_t{255}) + le(uint64_t{0})); },
     "value type 255"},
    {"bool_2", [](GgufBytes& b) { b.keys.push_back(kv_bool("k", 2)); }, "bool of 2"},
    {"arrays_1000_deep", [](GgufBytes& b) { b.keys.push_back(nested_arrays(1000)); },
     "'deep' holds arrays"},
    {"array_2_62",
     [](GgufBytes& b) {
       b.keys.push_back(text("k") + le(uint32_t{9}) + le(uint32_t{4}) + le(uint64_t{1} << 62));
     },
     "more than the file has room for"},
    {"array_of_strings_2_62",
     [](GgufBytes& b) {
       b.keys.push_back(text("k") + le(uint32_t{9}) + le(uint32_t{8}) + le(uint64_t{1} << 62));
     },
     "more than the file has room for"},
    {"string_past_end",
     [](GgufBytes& b) { b.keys.push_back(text("k") + le(uint32_t{8}) + le(uint64_t{1} << 40)); },
     "bytes"},
    {"alignment_0", [](GgufBytes& b) { b.keys.push_back(kv_u32("general.alignment", 0)); },
     "general.alignment"},
    {"alignment_3", [](GgufBytes& b) { b.keys.push_back(kv_u32("general.alignment", 3)); },
     "general.alignment"},
    {"alignment_2_31",
     [](GgufBytes& b) { b.keys.push_back(kv_u32("general.alignment", 1u << 31)); },
     "general.alignment"},
    {"alignment_text", [](GgufBytes& b) { b.keys.push_back(kv_string("general.alignment", "32")); },
     "general.alignment"},
    {"dims_0", [](GgufBytes& b) { b.tensors[0] = tensor("a", {}, 0, 0) + std::string(8, '\0'); },
     "0 dims"},
    {"dims_5",
     [](GgufBytes& b) {
       b.tensors[0] = tensor("a", {1, 1, 1, 1, 1}, 0, 0);
     },
     "5 dims"},
    {"dims_2_32",
     [](GgufBytes& b) { b.tensors[0] = text("a") + le(~uint32_t{0}) + std::string(40, '\0'); },
     "4294967295 dims"},
    {"dim_0", [](GgufBytes& b) { b.tensors[0] = tensor("a", {0}, 0, 0); }, "a dim of 0"},
    {"dim_minus_1", [](GgufBytes& b) { b.tensors[0] = tensor("a", {~uint64_t{0}}, 0, 0); },
     "a dim of -1"},
    {"dim_2_42_and_1",
     [](GgufBytes& b) { b.tensors[0] = tensor("a", {(uint64_t{1} << 42) + 1}, 0, 0); }, "a dim of"},
    {"product_wraps",
     [](GgufBytes& b) {
       b.tensors[0] = tensor("a", {uint64_t{1} << 40, uint64_t{1} << 40}, 0, 0);
     },
     "does not fit in a size"},
    {"size_wraps_at_the_last",
     [](GgufBytes& b) {
       b.tensors[1] = tensor("b", {uint64_t{1} << 40, uint64_t{1} << 22}, 0, 32);
     },
     "does not fit in a size"},
    {"type_99", [](GgufBytes& b) { b.tensors[0] = tensor("a", {8}, 99, 0); }, "type 99"},
    {"type_removed", [](GgufBytes& b) { b.tensors[0] = tensor("a", {32}, 4, 0); }, "Q4_2 (removed)",
     Kind::Unsupported},
    {"type_not_read", [](GgufBytes& b) { b.tensors[0] = tensor("a", {256}, 16, 0); }, "IQ2_XXS",
     Kind::Unsupported},
    {"block_does_not_divide", [](GgufBytes& b) { b.tensors[0] = tensor("a", {33}, 8, 0); },
     "rows of 33"},
    {"offset_unaligned",
     [](GgufBytes& b) {
       b.tensors[1] = tensor("b", {4, 2}, 1, 33);
     },
     "offset 33, expected 32"},
    {"offset_past_end",
     [](GgufBytes& b) {
       b.tensors[1] = tensor("b", {4, 2}, 1, 1 << 20);
     },
     "expected 32"},
    {"offset_wraps",
     [](GgufBytes& b) {
       b.tensors[1] = tensor("b", {4, 2}, 1, ~uint64_t{31});
     },
     "expected 32"},
    {"overlap",
     [](GgufBytes& b) {
       b.tensors[1] = tensor("b", {4, 2}, 1, 0);
     },
     "offset 0, expected 32"},
    {"unsorted", [](GgufBytes& b) { std::swap(b.tensors[0], b.tensors[1]); },
     "offset 32, expected 0"},
    {"data_cut_off", [](GgufBytes& b) { b.data_bytes = 40; }, "ends at byte"},
    {"rest", [](GgufBytes& b) { b.data_bytes = 200; }, "after its last tensor"},
    {"name_twice",
     [](GgufBytes& b) {
       b.tensors[1] = tensor("a", {4, 2}, 1, 32);
     },
     "the tensor 'a' twice"},
    {"name_65", [](GgufBytes& b) { b.tensors[0] = tensor(std::string(65, 'n'), {8}, 0, 0); },
     "65 bytes"},
    {"name_empty", [](GgufBytes& b) { b.tensors[0] = tensor("", {8}, 0, 0); }, "without a name"},
    {"split", [](GgufBytes& b) { b.keys.push_back(kv_u32("split.count", 3)); }, "one of 3 files"},
};

class BadGguf : public ::testing::TestWithParam<Bad> {};

TEST_P(BadGguf, IsNamed) {
  const TempFolder folder;
  GgufBytes bytes;
  GetParam().change(bytes);
  const fs::path path = folder.write("bad.gguf", bytes.file());
  expect_error([&] { GgufFile{path}; }, GetParam().kind, {"bad.gguf", GetParam().expected});
}
INSTANTIATE_TEST_SUITE_P(All, BadGguf, ::testing::ValuesIn(kBad),
                         [](const auto& row) { return row.param.name; });

// Three files as gguf-split leaves them: keys in the first, tensors shared out.
TEST(GgufFile, AModelInSeveralFilesIsOne) {
  const TempFolder folder;
  const auto part = [&](uint32_t number, const std::string& name) {
    GgufBytes bytes;
    if (number > 0) bytes.keys.clear();
    for (const auto& [key, value] :
         {std::pair{"split.no", number}, {"split.count", 3u}, {"split.tensors.count", 6u}}) {
      bytes.keys.push_back(kv_u32(key, value));
    }
    const char letter = static_cast<char>('a' + number);
    bytes.tensors = {tensor(std::string(1, letter) + "1", {8}, 0, 0),
                     tensor(std::string(1, letter) + "2", {4, 2}, 1, 32)};
    return folder.write(name, bytes.file());
  };
  const fs::path first = part(0, "m-00001-of-00003.gguf");
  const fs::path second = part(1, "m-00002-of-00003.gguf");
  expect_error([&] { GgufFile{first}; }, Kind::BadInput, {"m-00003-of-00003.gguf is missing"});
  part(2, "m-00003-of-00003.gguf");
  const GgufFile file(first);
  EXPECT_EQ(file.tensors().size(), 6u);
  EXPECT_EQ(file.files().size(), 3u);
  EXPECT_EQ(file.find("c2")->shape, (Shape{2, 4}));
  expect_error([&] { GgufFile{second}; }, Kind::BadInput,
               {"not the first", "-00001-of-00003.gguf"});
  part(1, "m-00003-of-00003.gguf");
  expect_error([&] { GgufFile{first}; }, Kind::BadInput, {"file 3 of 3"});
}

TEST(GgufFile, EveryTruncationIsRefused) {
  const TempFolder folder;
  GgufBytes bytes;
  bytes.keys.push_back(kv_strings("list", {"a", "bc"}));
  bytes.keys.push_back(kv_i32s("numbers", {-1, 2}));
  const std::string whole = bytes.file();
  for (size_t size = 0; size < whole.size(); ++size) {
    const fs::path path = folder.write("cut.gguf", whole.substr(0, size));
    expect_error([&] { GgufFile{path}; }, Kind::BadInput, {"cut.gguf"});
  }
  GgufFile{folder.write("cut.gguf", whole)};
}

TEST(GgufFile, EveryFlippedByteIsReadOrRefused) {
  const TempFolder folder;
  const std::string whole = GgufBytes{}.file();
  int refused = 0;
  for (size_t at = 0; at < GgufBytes{}.header().size(); ++at) {
    for (const unsigned char flip : {0x01, 0x80, 0xFF}) {
      std::string bytes = whole;
      bytes[at] = static_cast<char>(static_cast<unsigned char>(bytes[at]) ^ flip);
      const fs::path path = folder.write("flip.gguf", bytes);
      try {
        GgufFile{path};
      } catch (const Error& error) {
        ++refused;
        EXPECT_TRUE(error.kind() == Kind::BadInput || error.kind() == Kind::Unsupported);
      }
    }
  }
  EXPECT_GT(refused, 100);
}

TEST(GgufFile, LfsPointer) {
  const TempFolder folder;
  const fs::path path = folder.write("m.gguf",
                                     "version https://git-lfs.github.com/spec/v1\n"
                                     "oid sha256:0\nsize 5\n");
  expect_error([&] { GgufFile{path}; }, Kind::BadInput, {"Git LFS pointer"});
}

}  // namespace
}  // namespace quern
