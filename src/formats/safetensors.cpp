#include "formats/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/checked.h"
#include "core/error.h"
#include "core/json.h"

namespace quern {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr size_t kMaxNameBytes = 4096;

// What the header says of one tensor, before it is checked against the others.
struct Entry {
  std::string name;
  std::optional<DType> dtype;
  std::vector<int64_t> shape;
  std::vector<uint64_t> offsets;
  bool has_shape = false, has_offsets = false;
};

// Reads the header's events into entries. Only the one structure that the format allows passes:
//   {"name": {"dtype": string, "shape": [int...], "data_offsets": [int, int]}, ...,
//    "__metadata__": {string: string}}
class HeaderReader : public nlohmann::json_sax<json> {
 public:
  explicit HeaderReader(std::string source) : source_(std::move(source)) {}

  std::vector<Entry> entries;
  std::map<std::string, std::string> metadata;

  bool null() override { fail("has null where a value is needed"); }
  bool boolean(bool) override { fail("has a boolean where none may be"); }
  bool number_integer(number_integer_t value) override {
    fail(fmt::format("has the negative number {} in its {}", value, key_));
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (state_ == State::Shape) {
      if (value > static_cast<uint64_t>(INT64_MAX)) fail("has a dimension that is too large");
      entries.back().shape.push_back(static_cast<int64_t>(value));
      return true;
    }
    if (state_ == State::Offsets) {
      entries.back().offsets.push_back(value);
      return true;
    }
    fail("has a number where none may be");
  }
  bool number_float(number_float_t, const string_t& text) override {
    fail(fmt::format("has {} where an integer is needed", printable(text, 40)));
  }
  bool string(string_t& value) override {
    if (state_ == State::Metadata) {
      if (!metadata.emplace(key_, value).second) {
        fail(fmt::format("has the key '{}' twice", printable(key_, 80)));
      }
      return true;
    }
    if (state_ != State::Tensor || key_ != "dtype") fail("has a string where none may be");
    Entry& entry = entries.back();
    if (entry.dtype) fail("has the key 'dtype' twice");
    entry.dtype = dtype_from_name(value);
    if (!entry.dtype) fail(fmt::format("has the unknown dtype '{}'", printable(value, 40)));
    return true;
  }
  bool binary(binary_t&) override { return false; }

  bool start_object(size_t) override {
    if (state_ == State::Start) {
      state_ = State::Names;
    } else if (state_ == State::Names && key_ == "__metadata__") {
      if (seen_metadata_) fail("has the key '__metadata__' twice");
      seen_metadata_ = true;
      state_ = State::Metadata;
    } else if (state_ == State::Names) {
      entries.push_back({});
      entries.back().name = key_;
      state_ = State::Tensor;
    } else {
      fail("has an object where none may be");
    }
    return true;
  }
  bool key(string_t& name) override {
    key_ = name;
    if (state_ == State::Names && name.size() > kMaxNameBytes) {
      fail(fmt::format("has a tensor name of {} bytes, at most {} are accepted", name.size(),
                       kMaxNameBytes));
    }
    if (state_ == State::Names && (name.empty() || has_control(name))) {
      fail(fmt::format("has the tensor name '{}'", printable(name, 80)));
    }
    return true;
  }
  bool end_object() override {
    if (state_ == State::Tensor) {
      const Entry& entry = entries.back();
      if (!entry.dtype) fail("lacks its dtype");
      if (!entry.has_shape) fail("lacks its shape");
      if (!entry.has_offsets) fail("lacks its data_offsets");
      state_ = State::Names;
    } else if (state_ == State::Metadata) {
      state_ = State::Names;
    }
    return true;
  }
  bool start_array(size_t) override {
    if (state_ == State::Tensor && key_ == "shape") {
      if (std::exchange(entries.back().has_shape, true)) fail("has the key 'shape' twice");
      state_ = State::Shape;
    } else if (state_ == State::Tensor && key_ == "data_offsets") {
      if (std::exchange(entries.back().has_offsets, true)) fail("has the key 'data_offsets' twice");
      state_ = State::Offsets;
    } else {
      fail("has an array where none may be");
    }
    return true;
  }
  bool end_array() override {
    state_ = State::Tensor;
    return true;
  }
  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    throw_bad_input(fmt::format("{}: the header is not valid JSON at byte {}", source_,
                                position + 7));  // counted from 1, after the 8 bytes of length
  }

 private:
  enum class State { Start, Names, Metadata, Tensor, Shape, Offsets };

  static bool has_control(std::string_view text) {
    return std::any_of(text.begin(), text.end(),
                       [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; });
  }
  [[noreturn]] void fail(const std::string& problem) const {
    const bool in_tensor = !entries.empty() && state_ >= State::Tensor;
    const std::string who =
        in_tensor ? printable(entries.back().name, 120) : std::string("the header");
    throw_bad_input(fmt::format("{}: {} {}", source_, who, problem));
  }

  std::string source_;
  State state_ = State::Start;
  std::string key_;
  bool seen_metadata_ = false;
};

// The view that an entry describes, checked against the size of the data.
ConstTensorView checked_view(const Entry& entry, const std::byte* data, uint64_t data_bytes,
                             const std::string& source) {
  const auto fail = [&](const std::string& problem) {
    throw_bad_input(fmt::format("{}: {} {}", source, printable(entry.name, 120), problem));
  };
  if (entry.shape.size() > Shape::kMaxRank) {
    fail(fmt::format("has {} dimensions, at most {} are accepted", entry.shape.size(),
                     Shape::kMaxRank));
  }
  uint64_t bytes = size_bytes(*entry.dtype);
  for (const int64_t dim : entry.shape) {
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(dim), &bytes)) {
      fail("has a shape whose size does not fit in 64 bits");
    }
  }
  if (entry.offsets.size() != 2) {
    fail(fmt::format("has {} data_offsets, expected 2", entry.offsets.size()));
  }
  const uint64_t begin = entry.offsets[0], end = entry.offsets[1];
  if (begin > end || end > data_bytes) {
    fail(fmt::format("has the data_offsets [{}, {}], the data has {} bytes", begin, end,
                     data_bytes));
  }
  const Shape shape(entry.shape);
  if (end - begin != bytes) {
    fail(fmt::format("is {} {}, which needs {} bytes, data_offsets give {}", name(*entry.dtype),
                     to_string(shape), bytes, end - begin));
  }
  return {*entry.dtype, shape, data + begin};
}

}  // namespace

SafetensorsFile::SafetensorsFile(const fs::path& path) : file_(path) {
  const std::string source = path.string();
  const std::string_view text = file_.text();
  if (is_lfs_pointer(text)) {
    throw_bad_input(source + ": is a Git LFS pointer, not the weights themselves",
                    "run 'git lfs pull' in the model's repository");
  }
  if (text.size() < 8) {
    throw_bad_input(
        fmt::format("{}: has {} bytes, too few for a safetensors header", source, text.size()));
  }
  uint64_t length = 0;
  std::memcpy(&length, text.data(), sizeof(length));
  if constexpr (std::endian::native == std::endian::big) length = __builtin_bswap64(length);
  if (length > kMaxHeaderBytes || length > text.size() - 8) {
    throw_bad_input(
        fmt::format("{}: the first 8 bytes give a header of {} bytes, the file has {} "
                    "(is it a safetensors file, and whole?)",
                    source, length, text.size()));
  }
  const std::string_view header = text.substr(8, length);
  if (header.empty() || header[0] != '{') {
    throw_bad_input(source + ": the header does not begin with '{' at byte 8");
  }
  // The JSON library takes a NUL for the end of its input.
  if (header.find('\0') != header.npos) {
    throw_bad_input(source + ": the header has a NUL byte");
  }
  HeaderReader reader(source);
  json::sax_parse(header.begin(), header.end(), &reader);

  const std::byte* data = file_.data() + 8 + length;
  data_bytes_ = text.size() - 8 - length;
  std::vector<std::pair<uint64_t, uint64_t>> ranges;
  tensors_.reserve(reader.entries.size());
  for (Entry& entry : reader.entries) {
    const ConstTensorView view = checked_view(entry, data, data_bytes_, source);
    ranges.emplace_back(entry.offsets[0], entry.offsets[1]);
    tensors_.push_back({std::move(entry.name), view});
  }
  std::sort(ranges.begin(), ranges.end());
  uint64_t expected = 0;
  for (const auto& [begin, end] : ranges) {
    if (begin != expected) {
      throw_bad_input(fmt::format("{}: the data {} at byte {}", source,
                                  begin > expected ? "have a hole" : "of two tensors overlap",
                                  std::min(begin, expected)));
    }
    expected = end;
  }
  if (expected != data_bytes_) {
    throw_bad_input(
        fmt::format("{}: has {} bytes after the last tensor", source, data_bytes_ - expected));
  }
  for (NamedTensor& tensor : tensors_) {
    ConstTensorView& view = tensor.view;
    if (reinterpret_cast<uintptr_t>(view.data) % size_bytes(view.dtype) == 0) continue;
    copies_.emplace_back(view.data, view.data + view.size_bytes());
    view.data = copies_.back().data();
  }
  std::sort(tensors_.begin(), tensors_.end(),
            [](const NamedTensor& a, const NamedTensor& b) { return a.name < b.name; });
  const auto twice = std::adjacent_find(
      tensors_.begin(), tensors_.end(),
      [](const NamedTensor& a, const NamedTensor& b) { return a.name == b.name; });
  if (twice != tensors_.end()) {
    throw_bad_input(
        fmt::format("{}: names the tensor {} twice", source, printable(twice->name, 120)));
  }
  metadata_ = std::move(reader.metadata);
}

std::optional<ConstTensorView> SafetensorsFile::find(std::string_view name) const {
  const auto it = std::lower_bound(
      tensors_.begin(), tensors_.end(), name,
      [](const NamedTensor& tensor, std::string_view wanted) { return tensor.name < wanted; });
  if (it == tensors_.end() || it->name != name) return std::nullopt;
  return it->view;
}

ConstTensorView SafetensorsFile::at(std::string_view name) const {
  if (const auto view = find(name)) return *view;
  throw_bad_input(fmt::format("{}: lacks the tensor {}", path().string(), name));
}

void TensorStore::add(std::unique_ptr<SafetensorsFile> file) {
  for (const NamedTensor& tensor : file->tensors()) {
    const auto [it, added] = where_.try_emplace(tensor.name, Place{&tensor, file.get()});
    if (!added) {
      throw_bad_input(fmt::format("{}: holds the tensor {}, which {} holds too",
                                  file->path().string(), tensor.name,
                                  it->second.file->path().string()));
    }
  }
  files_.push_back(std::move(file));
}

TensorStore TensorStore::open(const fs::path& path) {
  TensorStore store = open_files(path);
  if (fs::is_directory(path)) store.find_fp8(path);
  return store;
}

void TensorStore::find_fp8(const fs::path& folder) {
  std::vector<std::string> scales;
  for (const auto& [name, place] : where_) {
    const ConstTensorView& levels = place.tensor->view;
    if (levels.dtype != DType::F8E4M3 || !name.ends_with(".weight")) continue;
    const ConstTensorView* scale = nullptr;
    for (const std::string& other :
         fp8_scale_names(std::string_view(name).substr(0, name.size() - 7))) {
      const auto it = where_.find(other);
      if (it == where_.end()) continue;
      if (scale == nullptr && other.find(".weight_scale") != other.npos) {
        scale = &it->second.tensor->view;
      }
      scales.push_back(other);
    }
    if (scale == nullptr) {
      throw_bad_input(fmt::format("{}: {} is of FP8 and has no weight_scale", file_of(name), name));
    }
    fp8_.emplace(name, Fp8{levels, *scale, {}});
  }
  if (fp8_.empty()) return;
  fp8_config_ = read_fp8_config(folder);
  fp8_mutex_ = std::make_shared<std::mutex>();
  for (const std::string& name : scales) where_.erase(name);
}

ConstTensorView TensorStore::decode(const std::string& name, Fp8& tensor) const {
  const std::lock_guard lock(*fp8_mutex_);
  if (tensor.bytes.empty()) {
    tensor.bytes =
        fp8_to_bf16(tensor.levels, tensor.scales, fp8_config_, file_of(name) + ": " + name);
  }
  return {DType::BF16, tensor.levels.shape, tensor.bytes.data()};
}

TensorStore TensorStore::open_files(const fs::path& path) {
  TensorStore store;
  store.source_ = path;
  if (!fs::exists(path)) throw_bad_input(path.string() + ": there is no such file or folder");
  if (!fs::is_directory(path)) {
    store.add(std::make_unique<SafetensorsFile>(path));
    return store;
  }
  const fs::path index_path = path / "model.safetensors.index.json";
  if (fs::exists(path / "model.safetensors")) {
    store.add(std::make_unique<SafetensorsFile>(path / "model.safetensors"));
    return store;
  }
  if (!fs::exists(index_path)) {
    const bool pickled =
        fs::exists(path / "pytorch_model.bin") || fs::exists(path / "pytorch_model.bin.index.json");
    throw_bad_input(
        path.string() + ": has no model.safetensors and no model.safetensors.index.json",
        pickled ? "it holds PyTorch .bin files: 'quern convert --from-pickle' reads them"
                : "name the folder of a Hugging Face checkpoint");
  }
  const Json index = Json::parse_file(index_path.string(), {.max_bytes = kMaxHeaderBytes});
  std::map<std::string, std::vector<std::string>> shards;  // file → tensors it is to hold
  for (const auto& [tensor, file] : index.at("weight_map").members()) {
    shards[file.string()].push_back(tensor);
  }
  for (const auto& [file, tensors] : shards) {
    const fs::path shard = join_inside(path, file, index_path.string());
    if (!fs::exists(shard)) {
      throw_bad_input(fmt::format("{}: names the shard {}, which is missing", index_path.string(),
                                  printable(file)),
                      "copy all shards into the folder");
    }
    store.add(std::make_unique<SafetensorsFile>(shard));
    for (const std::string& tensor : tensors) {
      if (store.files_.back()->find(tensor)) continue;
      throw_bad_input(fmt::format("{}: says that {} is in {}, which lacks it", index_path.string(),
                                  printable(tensor, 120), printable(file)));
    }
  }
  if (store.size() != index.at("weight_map").size()) {
    throw_bad_input(fmt::format("{}: lists {} tensors, the shards hold {}", index_path.string(),
                                index.at("weight_map").size(), store.size()));
  }
  if (const auto metadata = index.find("metadata"); metadata && metadata->has("total_size")) {
    const auto total = metadata->at("total_size").number(0, 1e18);
    if (static_cast<uint64_t>(total) != store.total_bytes()) {
      throw_bad_input(fmt::format("{}: metadata.total_size is {:.0f}, the shards hold {} bytes",
                                  index_path.string(), total, store.total_bytes()));
    }
  }
  return store;
}

TensorStore TensorStore::of_memory(const fs::path& source, std::vector<HeldTensor> tensors,
                                   std::shared_ptr<const void> keeper) {
  TensorStore store;
  store.source_ = source;
  store.keeper_ = std::move(keeper);
  store.held_ = std::make_unique<std::vector<NamedTensor>>();
  store.held_->reserve(tensors.size());  // what points at its items stays valid
  for (HeldTensor& tensor : tensors) {
    if (!tensor.bytes.empty()) {
      tensor.view.data = tensor.bytes.data();
      store.held_bytes_.push_back(std::move(tensor.bytes));
    }
    const NamedTensor& named = store.held_->emplace_back(NamedTensor{tensor.name, tensor.view});
    store.where_.emplace(tensor.name, Place{&named, nullptr});
  }
  return store;
}

std::vector<std::string> TensorStore::names() const {
  std::vector<std::string> names;
  names.reserve(where_.size());
  for (const auto& [name, place] : where_) names.push_back(name);
  return names;
}

std::optional<ConstTensorView> TensorStore::find(std::string_view name) const {
  const auto it = where_.find(name);
  if (it == where_.end()) return std::nullopt;
  if (const auto coded = fp8_.find(name); coded != fp8_.end()) {
    return decode(coded->first, coded->second);
  }
  return it->second.tensor->view;
}

ConstTensorView TensorStore::at(std::string_view name) const {
  if (const auto view = find(name)) return *view;
  throw_bad_input(fmt::format("{}: lacks the tensor {}", source_.string(), name));
}

std::string TensorStore::file_of(std::string_view name) const {
  const auto it = where_.find(name);
  if (it == where_.end() || it->second.file == nullptr) return source_.string();
  return it->second.file->path().string();
}

uint64_t TensorStore::total_bytes() const noexcept {
  uint64_t total = 0;
  for (const auto& file : files_) total += file->data_bytes();
  if (held_ != nullptr) {
    for (const NamedTensor& tensor : *held_) total += tensor.view.size_bytes();
  }
  return total;
}

std::vector<float> to_floats(const ConstTensorView& tensor, std::string_view name) {
  const auto count = static_cast<size_t>(tensor.shape.count());
  std::vector<float> out(count);
  switch (tensor.dtype) {
    case DType::F32:
      std::memcpy(out.data(), tensor.data, count * 4);
      break;
    case DType::F64:
      std::ranges::copy(tensor.as<double>(), out.begin());
      break;
    case DType::F16:
      std::ranges::transform(tensor.as<uint16_t>(), out.begin(), from_f16);
      break;
    case DType::BF16:
      std::ranges::transform(tensor.as<uint16_t>(), out.begin(), from_bf16);
      break;
    default:
      throw_bad_input(
          fmt::format("{} is of type {}, expected a float type", name, quern::name(tensor.dtype)));
  }
  return out;
}

std::vector<int64_t> to_integers(const ConstTensorView& tensor, std::string_view name) {
  std::vector<int64_t> out(static_cast<size_t>(tensor.shape.count()));
  switch (tensor.dtype) {
    case DType::I64:
      std::ranges::copy(tensor.as<int64_t>(), out.begin());
      break;
    case DType::I32:
      std::ranges::copy(tensor.as<int32_t>(), out.begin());
      break;
    case DType::I16:
      std::ranges::copy(tensor.as<int16_t>(), out.begin());
      break;
    case DType::I8:
      std::ranges::copy(tensor.as<int8_t>(), out.begin());
      break;
    case DType::U32:
      std::ranges::copy(tensor.as<uint32_t>(), out.begin());
      break;
    case DType::U16:
      std::ranges::copy(tensor.as<uint16_t>(), out.begin());
      break;
    case DType::U8:
    case DType::Bool:
      std::ranges::copy(tensor.as<uint8_t>(), out.begin());
      break;
    default:
      throw_bad_input(fmt::format("{} is of type {}, expected an integer type", name,
                                  quern::name(tensor.dtype)));
  }
  return out;
}

int64_t count_nonfinite(const ConstTensorView& tensor) noexcept {
  // NaN and infinity have all exponent bits set.
  const auto count = [](auto values, auto exponent) {
    return std::count_if(values.begin(), values.end(),
                         [=](auto bits) { return (bits & exponent) == exponent; });
  };
  switch (tensor.dtype) {
    case DType::F64:
      return count(tensor.as<uint64_t>(), uint64_t{0x7FF0} << 48);
    case DType::F32:
      return count(tensor.as<uint32_t>(), uint32_t{0x7F800000});
    case DType::F16:
      return count(tensor.as<uint16_t>(), uint16_t{0x7C00});
    case DType::BF16:
      return count(tensor.as<uint16_t>(), uint16_t{0x7F80});
    default:
      return 0;
  }
}

std::vector<NonFinite> find_nonfinite(const TensorStore& store) {
  std::vector<NonFinite> found;
  for (const std::string& name : store.names()) {
    if (const int64_t count = count_nonfinite(store.at(name)); count != 0) {
      found.push_back({name, count});
    }
  }
  return found;
}

}  // namespace quern
