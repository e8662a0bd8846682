// PyTorch's .bin files: what PyTorch itself wrote is read, and whatever asks for more than tensors
// is refused by name without being run.
#include "formats/torch_bin.h"

#include <cstring>

#include "core/rng.h"
#include "formats/pickle.h"
#include "formats/zip.h"
#include "support/support.h"

namespace quern {
namespace {

using test::TempFolder;

fs::path torch_fixture(std::string_view name) {
  return test::source("tests/fixtures/torch") / name;
}

void expect_equal(const TorchBin& got, const SafetensorsFile& want) {
  ASSERT_EQ(got.tensors().size(), want.tensors().size());
  for (const NamedTensor& tensor : got.tensors()) {
    const ConstTensorView expected = want.at(tensor.name);
    EXPECT_EQ(tensor.view.dtype, expected.dtype) << tensor.name;
    EXPECT_EQ(tensor.view.shape, expected.shape) << tensor.name;
    EXPECT_EQ(std::memcmp(tensor.view.data, expected.data, expected.size_bytes()), 0)
        << tensor.name;
  }
}

TEST(TorchBin, ReadsWhatPyTorchWrote) {
  const SafetensorsFile expected(torch_fixture("expected.safetensors"));
  expect_equal(TorchBin::open(torch_fixture("plain.bin")), expected);
  expect_equal(TorchBin::open(torch_fixture("wrapped.bin")), expected);
}

TEST(TorchBin, LegacyStreamsAreRefusedWithTheWayOut) {
  test::expect_error([] { TorchBin::open(torch_fixture("legacy.bin")); }, Kind::BadInput,
                     {"legacy.bin", "before 1.6", "newer PyTorch"});
}

void put(std::string& out, uint64_t value, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) out += static_cast<char>(value >> (8 * i));
}

struct Member {
  std::string name;
  std::string content;
  uint16_t method = 0;
};

// A zip file with stored members.
std::string zip(const std::vector<Member>& members) {
  std::string file, directory;
  for (const Member& m : members) {
    const uint64_t offset = file.size();
    file += "PK\x03\x04";
    put(file, 20, 2), put(file, 0, 2), put(file, m.method, 2), put(file, 0, 8);
    put(file, m.content.size(), 4), put(file, m.content.size(), 4);
    put(file, m.name.size(), 2), put(file, 0, 2);
    file += m.name + m.content;
    directory += "PK\x01\x02";
    put(directory, 20, 2), put(directory, 20, 2), put(directory, 0, 2), put(directory, m.method, 2);
    put(directory, 0, 8), put(directory, m.content.size(), 4), put(directory, m.content.size(), 4);
    put(directory, m.name.size(), 2), put(directory, 0, 2), put(directory, 0, 2);
    put(directory, 0, 8), put(directory, offset, 4);
    directory += m.name;
  }
  const uint64_t start = file.size();
  file += directory + "PK\x05\x06";
  put(file, 0, 4), put(file, members.size(), 2), put(file, members.size(), 2);
  put(file, directory.size(), 4), put(file, start, 4), put(file, 0, 2);
  return file;
}

std::string text(const std::string& value) {  // BINUNICODE
  std::string out = "X";
  put(out, value.size(), 4);
  return out + value;
}

std::string number(int32_t value) {  // BININT
  std::string out = "J";
  put(out, static_cast<uint32_t>(value), 4);
  return out;
}

// {"w": _rebuild_tensor_v2(storage "0" of `elements` floats, offset, shape (2,), strides)}
std::string tensor_pickle(int32_t elements, int32_t offset, int32_t dim, int32_t stride) {
  return "\x80\x02}(" + text("w") + "ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") +
         "ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(elements) + "tQ" +
         number(offset) + number(dim) + "\x85" + number(stride) + "\x85\x89" +
         "ccollections\nOrderedDict\n)RtRu.";
}

std::string checkpoint(const std::string& pickle, size_t storage_bytes = 8) {
  return zip({{"archive/data.pkl", pickle}, {"archive/data/0", std::string(storage_bytes, '\0')}});
}

void expect_bad_file(const std::string& content, const std::vector<std::string>& parts) {
  const TempFolder folder;
  const auto path = folder.write("pytorch_model.bin", content);
  std::vector<std::string> all = parts;
  all.push_back("pytorch_model.bin");
  test::expect_error([&] { TorchBin::open(path); }, Kind::BadInput, all);
}

TEST(TorchBin, ReadsAFileOfItsOwnMaking) {
  const TempFolder folder;
  const auto path = folder.write("m.bin", checkpoint(tensor_pickle(2, 0, 2, 1)));
  EXPECT_EQ(TorchBin::open(path).tensors().size(), 1u);
}

TEST(PickleListE, OsSystem) {
  expect_bad_file(checkpoint("\x80\x02"
                             "cos\nsystem\n" +
                             text("touch /tmp/x") + "\x85R."),
                  {"os.system"});
}
TEST(PickleListE, BuiltinsEval) {
  expect_bad_file(checkpoint("\x80\x02"
                             "cbuiltins\neval\n" +
                             text("1") + "\x85R."),
                  {"builtins.eval"});
}
TEST(PickleListE, DottedGlobalThroughSerialization) {
  expect_bad_file(
      checkpoint("\x80\x04" + text("torch.serialization") + text("os.system") + "\x93."),
      {"torch.serialization.os.system"});
}
TEST(PickleListE, NestedZip) {
  expect_bad_file(checkpoint(zip({{"a", "b"}})), {"instruction 0x50"});
}
TEST(PickleListE, CompressedMember) {
  expect_bad_file(zip({{"archive/data.pkl", "x", 8}}), {"compressed"});
}
TEST(PickleListE, DuplicateMembers) {
  expect_bad_file(zip({{"a/data.pkl", "."}, {"a/data.pkl", "."}}),
                  {"two members named a/data.pkl"});
}
TEST(PickleListE, NameThatLeavesTheArchive) {
  expect_bad_file(zip({{"../data.pkl", "."}}), {"'../data.pkl'"});
}
TEST(PickleListE, StrideOutsideTheStorage) {
  expect_bad_file(checkpoint(tensor_pickle(2, 0, 2, 1000)), {"w reaches byte"});
}
TEST(PickleListE, OffsetOutsideTheStorage) {
  expect_bad_file(checkpoint(tensor_pickle(2, 1, 2, 1)), {"w reaches byte 12"});
}
TEST(PickleListE, ShapeThatWraps) {
  expect_bad_file(checkpoint(tensor_pickle(2, 0, INT32_MAX, INT32_MAX)),
                  {"does not fit in a size"});
}
TEST(PickleListE, NegativeDimension) {
  expect_bad_file(checkpoint(tensor_pickle(2, 0, -2, 1)), {"shape that is none"});
}
TEST(PickleListE, StrideZeroBomb) {
  expect_bad_file(checkpoint(tensor_pickle(2, 0, 1 << 30, 0)), {"repeats its storage"});
}
TEST(PickleListE, MemoThatIsNotThere) {
  expect_bad_file(checkpoint("\x80\x02h\x05."), {"recalls"});
}
TEST(PickleListE, FourGigabyteLong) {
  expect_bad_file(checkpoint("\x80\x02\x8B\xFF\xFF\xFF\xFF."), {"cut off"});
}
TEST(PickleListE, UnknownProtocol) { expect_bad_file(checkpoint("\x80\x09."), {"protocol 9"}); }
TEST(PickleListE, MissingStorage) {
  expect_bad_file(zip({{"a/data.pkl", tensor_pickle(2, 0, 2, 1)}}), {"lacks the storage 0"});
}
TEST(PickleListE, NoTensors) { expect_bad_file(checkpoint("\x80\x02}."), {"holds no tensors"}); }
TEST(PickleListE, NoZip) { expect_bad_file("hello", {"no PyTorch checkpoint"}); }
TEST(PickleListE, GitLfsPointer) {
  expect_bad_file("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
                  {"Git LFS"});
}
TEST(PickleListE, EveryCutIsRefused) {
  const std::string whole = checkpoint(tensor_pickle(2, 0, 2, 1));
  const TempFolder folder;
  for (size_t size = 0; size < whole.size(); ++size) {
    const auto path = folder.write("cut.bin", whole.substr(0, size));
    EXPECT_THROW(TorchBin::open(path), Error) << size;
  }
}

TEST(TorchBin, RandomChangesNeverCrash) {
  const std::string whole = tensor_pickle(2, 0, 2, 1);
  Rng rng(9);
  int refused = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string changed = whole;
    for (uint64_t n = 1 + rng.below(4); n > 0; --n) {
      changed[rng.below(changed.size())] = static_cast<char>(rng.next_u32());
    }
    try {
      read_pickled_tensors(changed, "changed");
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 15'000);
}

}  // namespace
}  // namespace quern
