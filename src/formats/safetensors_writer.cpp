#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json.h"
#include "formats/safetensors.h"

namespace quern {
namespace {

std::string header_text(const std::vector<PlannedTensor>& plan,
                        const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t offset = 0;
  for (const PlannedTensor& tensor : plan) {
    const std::vector<int64_t> shape(tensor.shape.begin(), tensor.shape.end());
    header[tensor.name] = {{"dtype", name(tensor.dtype)},
                           {"shape", shape},
                           {"data_offsets", {offset, offset + tensor.bytes()}}};
    offset += tensor.bytes();
  }
  std::string text = dump(header);
  text.append((8 - text.size() % 8) % 8, ' ');  // the data begin 8-byte aligned
  return text;
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(const fs::path& path, std::vector<PlannedTensor> plan,
                                     const std::map<std::string, std::string>& metadata)
    : file_(path) {
  for (const PlannedTensor& tensor : plan) left_ += tensor.bytes();
  const std::string header = header_text(plan, metadata);
  std::string length(8, '\0');
  for (size_t i = 0; i < 8; ++i) length[i] = static_cast<char>((header.size() >> (8 * i)) & 0xFF);
  file_.write(length + header);
}

void SafetensorsWriter::write(std::span<const std::byte> bytes) {
  if (bytes.size() > left_) throw Error(Kind::Failed, "more tensor data than planned");
  file_.write(bytes);
  left_ -= bytes.size();
}

void SafetensorsWriter::finish() {
  if (left_ != 0) throw Error(Kind::Failed, fmt::format("{} bytes of tensors are missing", left_));
  file_.commit();
}

CheckpointWriter::CheckpointWriter(fs::path folder, std::vector<PlannedTensor> plan,
                                   uint64_t max_shard_bytes)
    : folder_(std::move(folder)) {
  shards_.emplace_back();
  for (PlannedTensor& tensor : plan) {
    const uint64_t bytes = tensor.bytes();
    if (!shards_.back().plan.empty() && shards_.back().bytes + bytes > max_shard_bytes) {
      shards_.emplace_back();
    }
    shards_.back().bytes += bytes;
    shards_.back().plan.push_back(std::move(tensor));
  }
  const size_t count = shards_.size();
  for (size_t i = 0; i < count; ++i) {
    shards_[i].file = count == 1 ? "model.safetensors"
                                 : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, count);
  }
  open_next();
}

void CheckpointWriter::open_next() {
  const Shard& shard = shards_[next_++];
  left_in_shard_ = shard.bytes;
  writer_ = std::make_unique<SafetensorsWriter>(
      folder_ / shard.file, shard.plan, std::map<std::string, std::string>{{"format", "pt"}});
}

void CheckpointWriter::write(std::span<const std::byte> bytes) {
  if (left_in_shard_ == 0 && next_ < shards_.size()) {
    writer_->finish();
    open_next();
  }
  writer_->write(bytes);
  left_in_shard_ -= bytes.size();
}

void CheckpointWriter::finish() {
  writer_->finish();
  if (shards_.size() == 1) return;
  nlohmann::ordered_json map = nlohmann::ordered_json::object();
  uint64_t total = 0;
  for (const Shard& shard : shards_) {
    total += shard.bytes;
    for (const PlannedTensor& tensor : shard.plan) map[tensor.name] = shard.file;
  }
  const nlohmann::ordered_json index = {{"metadata", {{"total_size", total}}}, {"weight_map", map}};
  write_file(folder_ / "model.safetensors.index.json", dump(index, 2) + "\n");
}

}  // namespace quern
