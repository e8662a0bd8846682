#include "formats/torch_bin.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <set>

#include "core/checked.h"
#include "core/error.h"
#include "core/json.h"
#include "formats/pickle.h"
#include "formats/zip.h"

namespace quern {

struct TorchBin::State {
  std::deque<MappedFile> files;
  std::deque<std::vector<std::byte>> copies;  // of tensors that are not laid out row by row
  std::vector<NamedTensor> tensors;

  void add_file(const fs::path& path);
  ConstTensorView view(const PickledTensor& tensor, std::string_view storage,
                       const std::string& source);
};

ConstTensorView TorchBin::State::view(const PickledTensor& tensor, std::string_view storage,
                                      const std::string& source) {
  const auto fail = [&](const std::string& problem) {
    throw_bad_input(fmt::format("{}: {} {}", source, printable(tensor.name, 120), problem));
  };
  const size_t rank = tensor.shape.size();
  if (tensor.strides.size() != rank) fail("has a stride for another number of dimensions");
  const auto width = static_cast<int64_t>(size_bytes(tensor.dtype));
  // The last element that the view reaches, and the number of elements.
  int64_t count = 1, last = tensor.offset;
  for (size_t d = 0; d < rank; ++d) {
    count = checked_mul(count, tensor.shape[d], source);
    last = checked_add(
        last, checked_mul(std::max<int64_t>(0, tensor.shape[d] - 1), tensor.strides[d], source),
        source);
  }
  const int64_t bytes = checked_mul(count, width, source);
  const int64_t end = checked_mul(checked_add<int64_t>(last, 1, source), width, source);
  if (tensor.offset < 0 || (count > 0 && static_cast<uint64_t>(end) > storage.size())) {
    fail(fmt::format("reaches byte {} of a storage of {}", end, storage.size()));
  }
  int64_t expected = 1;
  bool dense = true;
  for (size_t d = rank; d-- > 0;) {
    dense = dense && (tensor.shape[d] == 1 || tensor.strides[d] == expected);
    expected *= tensor.shape[d];
  }
  const auto* base = reinterpret_cast<const std::byte*>(storage.data()) + tensor.offset * width;
  const bool aligned = reinterpret_cast<uintptr_t>(base) % static_cast<uintptr_t>(width) == 0;
  const Shape shape(tensor.shape);
  if (count == 0 || (dense && aligned)) return {tensor.dtype, shape, base};
  if (!dense && static_cast<uint64_t>(bytes) > storage.size()) {
    fail("repeats its storage by its strides");
  }
  std::vector<std::byte>& copy = copies.emplace_back(static_cast<size_t>(bytes));
  std::vector<int64_t> index(rank, 0);
  for (int64_t i = 0; i < count; ++i) {
    int64_t from = 0;
    for (size_t d = 0; d < rank; ++d) from += index[d] * tensor.strides[d];
    std::memcpy(copy.data() + i * width, base + from * width, static_cast<size_t>(width));
    for (size_t d = rank; d-- > 0;) {
      if (++index[d] < tensor.shape[d]) break;
      index[d] = 0;
    }
  }
  return {tensor.dtype, shape, copy.data()};
}

void TorchBin::State::add_file(const fs::path& path) {
  const MappedFile& file = files.emplace_back(path);
  const std::string source = path.string();
  if (is_lfs_pointer(file.text())) {
    throw_bad_input(source + ": is a Git LFS pointer, not the weights themselves",
                    "run 'git lfs pull' in the model's repository");
  }
  if (!file.text().starts_with("PK\x03\x04")) {
    const bool legacy = file.text().starts_with("\x80\x02\x8A\x0A");
    throw_bad_input(source + (legacy ? ": is in the stream format of PyTorch before 1.6"
                                     : ": is no PyTorch checkpoint"),
                    legacy ? "load and save it once with a newer PyTorch" : "");
  }
  const auto members = read_stored_zip(file.text(), source);
  const auto pickle = std::find_if(members.begin(), members.end(), [](const auto& member) {
    return member.first == "data.pkl" || member.first.ends_with("/data.pkl");
  });
  if (pickle == members.end()) throw_bad_input(source + ": has no data.pkl");
  const std::string prefix = pickle->first.substr(0, pickle->first.size() - 8);
  for (const PickledTensor& tensor : read_pickled_tensors(pickle->second, source)) {
    const auto storage = members.find(prefix + "data/" + tensor.storage);
    if (storage == members.end()) {
      throw_bad_input(fmt::format("{}: lacks the storage {} of {}", source,
                                  printable(tensor.storage, 40), printable(tensor.name, 120)));
    }
    tensors.push_back({tensor.name, view(tensor, storage->second, source)});
  }
}

TorchBin::TorchBin(std::unique_ptr<State> state) : state_(std::move(state)) {}
TorchBin::TorchBin(TorchBin&&) noexcept = default;
TorchBin& TorchBin::operator=(TorchBin&&) noexcept = default;
TorchBin::~TorchBin() = default;

TorchBin TorchBin::open(const fs::path& path) {
  auto state = std::make_unique<State>();
  const fs::path index = path / "pytorch_model.bin.index.json";
  if (!fs::is_directory(path)) {
    state->add_file(path);
  } else if (fs::exists(path / "pytorch_model.bin")) {
    state->add_file(path / "pytorch_model.bin");
  } else if (fs::exists(index)) {
    std::set<std::string> shards;
    for (const auto& [tensor, file] : Json::parse_file(index.string()).at("weight_map").members()) {
      shards.insert(file.string());
    }
    for (const std::string& shard : shards) {
      state->add_file(join_inside(path, shard, index.string()));
    }
  } else {
    throw_bad_input(path.string() + ": has no pytorch_model.bin and no index of its shards");
  }
  std::sort(state->tensors.begin(), state->tensors.end(),
            [](const NamedTensor& a, const NamedTensor& b) { return a.name < b.name; });
  const auto twice = std::adjacent_find(
      state->tensors.begin(), state->tensors.end(),
      [](const NamedTensor& a, const NamedTensor& b) { return a.name == b.name; });
  if (twice != state->tensors.end()) {
    throw_bad_input(
        fmt::format("{}: holds the tensor {} twice", path.string(), printable(twice->name, 120)));
  }
  return TorchBin(std::move(state));
}

const std::vector<NamedTensor>& TorchBin::tensors() const noexcept { return state_->tensors; }

}  // namespace quern
