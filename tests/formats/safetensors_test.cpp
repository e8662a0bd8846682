// The safetensors reader against the format's own rules: each bad file ends in one clear line.
#include "formats/safetensors.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstring>
#include <limits>

#include "core/rng.h"
#include "support/support.h"

namespace quern {
namespace {

using test::TempFolder;

std::string file_of(const std::string& header, size_t data_bytes, uint64_t claimed = ~uint64_t{0}) {
  const uint64_t length = claimed == ~uint64_t{0} ? header.size() : claimed;
  std::string text(8, '\0');
  std::memcpy(text.data(), &length, 8);
  return text + header + std::string(data_bytes, '\1');
}

// A tensor entry of a header.
std::string entry(const std::string& name, const std::string& shape, size_t begin, size_t end,
                  const std::string& dtype = "F32") {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape +
         ",\"data_offsets\":[" + std::to_string(begin) + "," + std::to_string(end) + "]}";
}

// Spaces that make the data begin at a multiple of 8.
std::string padded(std::string header) {
  header.append((8 - header.size() % 8) % 8, ' ');
  return header;
}

std::string good_file() {
  return file_of(padded("{" + entry("a", "[2,2]", 0, 16) + "," + entry("b", "[3]", 16, 28) + "}"),
                 28);
}

void expect_bad(const std::string& content, const std::vector<std::string>& parts) {
  const TempFolder folder;
  const auto path = folder.write("model.safetensors", content);
  std::vector<std::string> all = parts;
  all.push_back("model.safetensors");
  test::expect_error([&] { SafetensorsFile{path}; }, Kind::BadInput, all);
}

TEST(Safetensors, ReadsWhatTheWriterWrote) {
  const TempFolder folder;
  const auto path = folder.path() / "model.safetensors";
  const std::vector<float> a = {1, 2, 3, 4};
  const std::vector<uint16_t> b = {to_bf16(1.5f), to_bf16(-2.0f)};
  SafetensorsWriter writer(path, {{"z", DType::F32, {2, 2}}, {"a.b", DType::BF16, {2}}},
                           {{"format", "pt"}});
  writer.write(bytes_of(std::span(a)));
  writer.write(bytes_of(std::span(b)));
  writer.finish();
  const SafetensorsFile file(path);
  ASSERT_EQ(file.tensors().size(), 2u);
  EXPECT_EQ(file.tensors()[0].name, "a.b");
  EXPECT_EQ(to_floats(file.at("z"), "z"), a);
  EXPECT_EQ(to_floats(file.at("a.b"), "a.b"), (std::vector<float>{1.5f, -2.0f}));
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_FALSE(file.find("c"));
  test::expect_error([&] { file.at("c"); }, Kind::BadInput, {"lacks the tensor c"});
}

TEST(Safetensors, ReadsAGoodFileOfItsOwnMaking) {
  const TempFolder folder;
  EXPECT_EQ(SafetensorsFile(folder.write("m", good_file())).tensors().size(), 2u);
  // Tensors without elements, scalars and an empty file are legal.
  const auto empty =
      file_of(padded("{" + entry("e", "[0,3]", 0, 0) + "," + entry("s", "[]", 0, 4) + "}"), 4);
  EXPECT_EQ(SafetensorsFile(folder.write("e", empty)).tensors().size(), 2u);
  EXPECT_TRUE(SafetensorsFile(folder.write("n", file_of("{}      ", 0))).tensors().empty());
}

struct BadFile {
  const char* name;
  std::string content;
  const char* expected;
};

class BadSafetensors : public testing::TestWithParam<BadFile> {};
TEST_P(BadSafetensors, IsRefusedByName) { expect_bad(GetParam().content, {GetParam().expected}); }

std::string tensor(const std::string& fields) { return file_of("{\"a\":{" + fields + "}}", 16); }
std::string with_shape(const std::string& shape, size_t end = 16) {
  return file_of("{" + entry("a", shape, 0, end) + "}", end);
}

INSTANTIATE_TEST_SUITE_P(
    ListA, BadSafetensors,
    testing::Values(
        BadFile{"Empty", "", "0 bytes"}, BadFile{"UnderEightBytes", "1234567", "7 bytes"},
        BadFile{"LengthZero", file_of("", 0), "begin with '{'"},
        BadFile{"LengthTwoTo63", file_of("{}", 0, uint64_t{1} << 63),
                "header of 9223372036854775808"},
        BadFile{"LengthAllOnes", std::string(8, '\xFF') + "{}", "header of 18446744073709551615"},
        BadFile{"LengthPastTheEnd", file_of("{}", 0, 100), "header of 100 bytes"},
        BadFile{"LengthOverTheCap", file_of("{}", 0, 100'000'001), "header of 100000001"},
        BadFile{"FirstByteNoBrace", file_of("[]", 0), "begin with '{'"},
        BadFile{"LeadingSpace", file_of(" {}", 0), "begin with '{'"},
        BadFile{"ByteOrderMark", file_of("\xEF\xBB\xBF{}", 0), "begin with '{'"},
        BadFile{"NulInHeader", file_of(std::string("{}\0\0", 4), 0), "NUL byte"},
        BadFile{"BadUtf8", file_of("{\"\xFF\":1}", 0), "not valid JSON"},
        BadFile{"DeepNesting", file_of("{\"a\":" + std::string(100'000, '[') + "}", 0), "array"},
        BadFile{"TrailingJson", file_of("{}{}", 0), "not valid JSON"},
        BadFile{"CutJson", file_of("{\"a\":{\"dtype\":", 0), "not valid JSON"},
        BadFile{
            "DuplicateName",
            file_of(padded("{" + entry("a", "[4]", 0, 16) + "," + entry("a", "[4]", 16, 32) + "}"),
                    32),
            "twice"},
        BadFile{"DuplicateInnerKey",
                tensor("\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]"),
                "'dtype' twice"},
        BadFile{"MissingDtype", tensor("\"shape\":[4],\"data_offsets\":[0,16]"), "lacks its dtype"},
        BadFile{"MissingShape", tensor("\"dtype\":\"F32\",\"data_offsets\":[0,16]"),
                "lacks its shape"},
        BadFile{"MissingOffsets", tensor("\"dtype\":\"F32\",\"shape\":[4]"),
                "lacks its data_offsets"},
        BadFile{"UnknownDtype", file_of("{" + entry("a", "[4]", 0, 16, "F33") + "}", 16), "'F33'"},
        BadFile{"LowerCaseDtype", file_of("{" + entry("a", "[4]", 0, 16, "f32") + "}", 16),
                "'f32'"},
        BadFile{"DtypeNumber", tensor("\"dtype\":3,\"shape\":[4],\"data_offsets\":[0,16]"),
                "number"},
        BadFile{"NegativeDimension", with_shape("[-4]"), "-4"},
        BadFile{"FloatDimension", with_shape("[4.0]"), "4.0"},
        BadFile{"StringDimension", with_shape("[\"4\"]"), "string"},
        BadFile{"HugeDimension", with_shape("[9223372036854775808]"), "too large"},
        BadFile{"ProductWraps", with_shape("[4294967296,4294967296,4]"), "64 bits"},
        BadFile{"Rank65",
                with_shape(
                    "[" +
                        [] {
                          std::string ones = "1";
                          for (int i = 0; i < 64; ++i) ones += ",1";
                          return ones;
                        }() +
                        "]",
                    4),
                "65 dimensions"},
        BadFile{"ZeroDimensionWithBytes", with_shape("[0]"), "needs 0 bytes"},
        BadFile{"OffsetsReversed", file_of("{" + entry("a", "[4]", 16, 0) + "}", 16), "[16, 0]"},
        BadFile{"ThreeOffsets", tensor("\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,8,16]"),
                "3 data_offsets"},
        BadFile{"StringOffset",
                tensor("\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[\"0\",16]"), "string"},
        BadFile{"NegativeOffset",
                tensor("\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[-1,16]"), "-1"},
        BadFile{"OffsetPastTheEnd", file_of("{" + entry("a", "[8]", 0, 32) + "}", 16), "[0, 32]"},
        BadFile{"FirstNotZero", file_of("{" + entry("a", "[4]", 4, 20) + "}", 20), "hole"},
        BadFile{
            "Hole",
            file_of(padded("{" + entry("a", "[1]", 0, 4) + "," + entry("b", "[1]", 8, 12) + "}"),
                    12),
            "hole"},
        BadFile{
            "Overlap",
            file_of(padded("{" + entry("a", "[4]", 0, 16) + "," + entry("b", "[4]", 8, 24) + "}"),
                    24),
            "overlap"},
        BadFile{"LengthNotShape", with_shape("[3]"), "needs 12 bytes"},
        BadFile{"BytesAfterTheLast", with_shape("[4]") + "rest", "after the last"},
        BadFile{"MetadataNoStrings", file_of("{\"__metadata__\":{\"a\":1}}", 0), "number"},
        BadFile{"MetadataNoObject", file_of("{\"__metadata__\":[]}", 0), "array"},
        BadFile{"EmptyName", file_of("{" + entry("", "[4]", 0, 16) + "}", 16), "''"},
        BadFile{"MegabyteName",
                file_of("{" + entry(std::string(1 << 20, 'n'), "[4]", 0, 16) + "}", 16),
                "1048576 bytes"},
        BadFile{"NulInName", file_of("{" + entry("a\\u0000b", "[4]", 0, 16) + "}", 16), "a\\x00b"},
        BadFile{"NewlineInName", file_of("{" + entry("a\\nb", "[4]", 0, 16) + "}", 16), "a\\x0ab"},
        BadFile{"CutInsideTheData", good_file().substr(0, good_file().size() - 5), "data_offsets"},
        BadFile{"GitLfsPointer",
                "version https://git-lfs.github.com/spec/v1\noid sha256:" + std::string(64, 'a') +
                    "\nsize 1234567890\n",
                "Git LFS pointer"}),
    [](const auto& instance) { return std::string(instance.param.name); });

// Older writers neither padded the header nor ordered tensors by the size of their type.
TEST(Safetensors, DataThatAreNotAlignedAreRead) {
  const TempFolder folder;
  const std::vector<float> values = {1, -2, 0.5f, 3};
  const std::string raw(reinterpret_cast<const char*>(values.data()), 16);
  std::string header = "{" + entry("a", "[4]", 0, 16) + "}";
  if (header.size() % 2 == 0) header += ' ';
  const std::string odd = file_of(header, 0) + raw;
  const SafetensorsFile file(folder.write("odd", odd));
  EXPECT_EQ(to_floats(file.at("a"), "a"), values);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(file.at("a").data) % 4, 0u);
  header = padded("{" + entry("a", "[1]", 0, 1, "U8") + "," + entry("b", "[4]", 1, 17) + "}");
  const SafetensorsFile behind(folder.write("behind", file_of(header, 0) + "x" + raw));
  EXPECT_EQ(to_floats(behind.at("b"), "b"), values);
}

// e4m3 by its definition: 1.0 is 0x38, 448 the largest, 0x7F and 0xFF are no numbers.
TEST(Fp8, EveryCodeIsItsValue) {
  EXPECT_EQ(from_f8e4m3(0x38), 1);
  EXPECT_EQ(from_f8e4m3(0xC0), -2);
  EXPECT_EQ(from_f8e4m3(0x7E), 448);
  EXPECT_EQ(from_f8e4m3(0x01), 1.0f / 512);
  EXPECT_EQ(from_f8e4m3(0x80), 0);
  EXPECT_TRUE(std::isnan(from_f8e4m3(0x7F)) && std::isnan(from_f8e4m3(0xFF)));
  for (int bits = 1; bits < 0x7E; ++bits) {
    EXPECT_LT(from_f8e4m3(static_cast<uint8_t>(bits)), from_f8e4m3(static_cast<uint8_t>(bits + 1)));
  }
}

// A folder with a matrix [3, 4] of FP8, codes 0x38 + place, and its scales.
struct Fp8Folder {
  Fp8Folder(const std::string& scale, const Shape& shape, const std::vector<float>& scales,
            const std::string& config) {
    std::vector<uint8_t> codes;
    for (int i = 0; i < 12; ++i) codes.push_back(static_cast<uint8_t>(0x38 + i));
    SafetensorsWriter writer(folder.path() / "model.safetensors",
                             {{"m." + scale, DType::F32, shape},
                              {"m.weight", DType::F8E4M3, {3, 4}},
                              {"m.input_scale", DType::U8, {1}}});
    writer.write(bytes_of(std::span(scales)));
    writer.write(bytes_of(std::span<const uint8_t>(codes)));
    writer.write(bytes_of(std::span<const uint8_t>(codes).first(1)));
    writer.finish();
    folder.write("config.json", config);
  }
  void expect(const std::vector<float>& factor_of_each) const {
    const TensorStore store = TensorStore::open(folder.path());
    EXPECT_EQ(store.names(), std::vector<std::string>{"m.weight"});
    EXPECT_EQ(store.at("m.weight").dtype, DType::BF16);
    const std::vector<float> got = to_floats(store.at("m.weight"), "m");
    for (size_t i = 0; i < 12; ++i) {
      EXPECT_EQ(got[i], from_f8e4m3(static_cast<uint8_t>(0x38 + i)) * factor_of_each[i]) << i;
    }
  }
  TempFolder folder;
};

TEST(Fp8, IsReadAsBfloat16WithTheScalesOfItsBlocks) {
  Fp8Folder("weight_scale_inv", {2, 2}, {1, 2, 4, 8},
            R"({"quantization_config": {"quant_method": "fp8", "weight_block_size": [2, 3]}})")
      .expect({1, 1, 1, 2, 1, 1, 1, 2, 4, 4, 4, 8});
  Fp8Folder("weight_scale", {}, {0.5f}, "{}").expect(std::vector<float>(12, 0.5f));
  Fp8Folder("weight_scale", {3, 1}, {1, 2, 4}, "{}").expect({1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4});
  const Fp8Folder bad("weight_scale_inv", {2, 2}, {1, 2, 4, 8}, "{}");
  const TensorStore store = TensorStore::open(bad.folder.path());
  test::expect_error([&] { store.at("m.weight"); }, Kind::BadInput,
                     {"m.weight", "[2, 2]", "128 x 128"});
}

TEST(Safetensors, EveryCutOfTheHeaderIsRefused) {
  const std::string whole = good_file();
  const TempFolder folder;
  for (size_t size = 0; size < whole.size(); ++size) {
    const auto path = folder.write("cut", whole.substr(0, size));
    EXPECT_THROW(SafetensorsFile{path}, Error) << size;
  }
}

TEST(Safetensors, AMillionTensorsAreReadInTheirTime) {
  std::string header = "{";
  constexpr int kCount = 1'000'000;
  header.reserve(60'000'000);
  for (int i = 0; i < kCount; ++i) {
    if (i != 0) header += ',';
    const auto at = static_cast<size_t>(i);
    header += entry("t" + std::to_string(i), "[1]", at, at + 1, "U8");
  }
  header += "}";
  ASSERT_LT(header.size(), 100'000'000u);
  const TempFolder folder;
  const SafetensorsFile file(folder.write("many", file_of(header, kCount)));
  EXPECT_EQ(file.tensors().size(), static_cast<size_t>(kCount));
}

TEST(Safetensors, WhatIsNoFileIsNamed) {
  const TempFolder folder;
  test::expect_error([&] { SafetensorsFile{folder.path()}; }, Kind::BadInput, {"is a folder"});
  test::expect_error([] { SafetensorsFile{"/dev/zero"}; }, Kind::BadInput, {"is a device"});
  const auto fifo = folder.path() / "fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  test::expect_error([&] { SafetensorsFile{fifo}; }, Kind::BadInput, {"is a FIFO"});
  const auto link = folder.path() / "link";
  fs::create_symlink("nowhere", link);
  test::expect_error([&] { SafetensorsFile{link}; }, Kind::BadInput, {"No such file"});
}

TEST(Safetensors, RandomChangesNeverCrash) {
  const std::string whole = good_file();
  const TempFolder folder;
  Rng rng(3);
  int refused = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string changed = whole;
    for (uint64_t n = 1 + rng.below(4); n > 0; --n) {
      const size_t at = rng.below(changed.size());
      switch (rng.below(3)) {
        case 0:
          changed[at] = static_cast<char>(rng.next_u32());
          break;
        case 1:
          changed.erase(at, rng.below(9));
          break;
        default:
          changed.insert(at, 1, static_cast<char>(rng.next_u32()));
          break;
      }
      if (changed.empty()) break;
    }
    try {
      const SafetensorsFile file(folder.write("changed", changed));
      for (const NamedTensor& t : file.tensors()) count_nonfinite(t.view);
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 10'000);
}

TEST(Safetensors, FindsNanAndInfinity) {
  const TempFolder folder;
  const auto path = folder.path() / "m.safetensors";
  const std::vector<float> values = {1, NAN, INFINITY, -INFINITY};
  const std::vector<uint16_t> halves = {0x7C00, 0x3C00, 0x7E01, 0};
  SafetensorsWriter writer(
      path, {{"f", DType::F32, {4}}, {"g", DType::F32, {1}}, {"h", DType::F16, {4}}});
  writer.write(bytes_of(std::span(values)));
  writer.write(bytes_of(std::span(values).first(1)));
  writer.write(bytes_of(std::span(halves)));
  writer.finish();
  const auto found = find_nonfinite(TensorStore::open(path));
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].name, "f");
  EXPECT_EQ(found[0].count, 3);
  EXPECT_EQ(found[1].count, 2);
}

// A checkpoint in two shards, and its index.
class Index : public testing::Test {
 protected:
  void SetUp() override {
    shard("one.safetensors", "a");
    shard("two.safetensors", "b");
  }
  void shard(const std::string& file, const std::string& tensor) const {
    folder_.write(file, file_of(padded("{" + entry(tensor, "[4]", 0, 16) + "}"), 16));
  }
  void expect_bad(const std::string& index, const std::vector<std::string>& parts) const {
    folder_.write("model.safetensors.index.json", index);
    test::expect_error([&] { TensorStore::open(folder_.path()); }, Kind::BadInput, parts);
  }
  TempFolder folder_;
};

TEST_F(Index, JoinsTheShards) {
  folder_.write(
      "model.safetensors.index.json",
      R"({"metadata":{"total_size":32},"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})");
  const TensorStore store = TensorStore::open(folder_.path());
  EXPECT_EQ(store.names(), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(store.total_bytes(), 32u);
  EXPECT_NE(store.file_of("b").find("two.safetensors"), std::string::npos);
}
TEST_F(Index, MissingShard) {
  expect_bad(R"({"weight_map":{"a":"one.safetensors","b":"three.safetensors"}})",
             {"three.safetensors", "missing"});
}
TEST_F(Index, AbsolutePath) { expect_bad(R"({"weight_map":{"a":"/etc/passwd"}})", {"not inside"}); }
TEST_F(Index, PathOutOfTheFolder) {
  expect_bad(R"({"weight_map":{"a":"../one.safetensors"}})", {"not inside"});
}
TEST_F(Index, TensorInTwoShards) {
  shard("two.safetensors", "a");
  expect_bad(R"({"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})", {"a"});
}
TEST_F(Index, TensorInNoShard) {
  expect_bad(R"({"weight_map":{"a":"one.safetensors","c":"two.safetensors"}})", {"c", "lacks"});
}
TEST_F(Index, TensorThatTheIndexForgets) {
  folder_.write(
      "two.safetensors",
      file_of(padded("{" + entry("b", "[2]", 0, 8) + "," + entry("c", "[2]", 8, 16) + "}"), 16));
  expect_bad(R"({"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})",
             {"lists 2", "hold 3"});
}
TEST_F(Index, WrongTotal) {
  expect_bad(
      R"({"metadata":{"total_size":99},"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})",
      {"total_size is 99", "32 bytes"});
}
TEST_F(Index, NoWeightsAtAll) {
  test::expect_error([&] { TensorStore::open(folder_.path()); }, Kind::BadInput,
                     {"model.safetensors"});
  folder_.write("pytorch_model.bin", "");
  test::expect_error([&] { TensorStore::open(folder_.path()); }, Kind::BadInput, {"--from-pickle"});
}

TEST(CheckpointWriter, ShardsAsAskedAndIndexesThem) {
  const TempFolder folder;
  std::vector<PlannedTensor> plan;
  for (int i = 0; i < 5; ++i) plan.push_back({"t" + std::to_string(i), DType::F32, {10}});
  CheckpointWriter writer(folder.path(), plan, 80);
  for (int i = 0; i < 5; ++i) {
    const std::vector<float> values(10, static_cast<float>(i));
    writer.write(bytes_of(std::span(values)));
  }
  writer.finish();
  EXPECT_TRUE(fs::exists(folder.path() / "model-00003-of-00003.safetensors"));
  const TensorStore store = TensorStore::open(folder.path());
  EXPECT_EQ(to_floats(store.at("t4"), "t4"), std::vector<float>(10, 4.0f));
}

TEST(CheckpointWriter, AFullDiskLeavesNoFileUnderAFinalName) {
  const TempFolder folder;
  const pid_t child = ::fork();
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit = {10'000, 10'000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    try {
      SafetensorsWriter writer(folder.path() / "model.safetensors", {{"t", DType::F32, {10'000}}});
      const std::vector<float> values(10'000);
      writer.write(bytes_of(std::span(values)));
      writer.finish();
    } catch (const Error& error) {
      ::_exit(error.exit_code());
    }
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), static_cast<int>(Kind::NoResources));
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

}  // namespace
}  // namespace quern
